//! A key is rotated while its senders send: none of their requests is refused.

use std::slice::from_ref;
use std::time::Duration;

use serde_json::Value;
use testkit::control::id_of;
use testkit::eventually;
use testkit::sender::Sender;

use crate::world::{World, all_accepted, answers_soon};

const SEND_MAX: Duration = Duration::from_secs(30);
/// Twice what a change may take.
const SOON: Duration = Duration::from_secs(4);
const GRACE_SECONDS: u64 = 15;

fn more_requests(senders: &[&Sender]) {
    for sender in senders {
        let want = sender.count() + 25;
        eventually(SEND_MAX, "the senders to go on", || {
            let count = sender.count();
            if count >= want { Ok(()) } else { Err(count) }
        });
    }
}

#[test]
fn rotation_under_traffic_of_two_senders_refuses_no_request() {
    let world = World::start();
    let old = world.control.create_tenant("acme");
    let edge = world.edge("");
    let pause = Duration::from_millis(5);
    let [first, second] = [0; 2].map(|_| Sender::start(&edge.url(), from_ref(&old), pause));
    more_requests(&[&first, &second]);

    let grace = format!("{GRACE_SECONDS}s");
    let rotated = world
        .control
        .cli(&["key", "rotate", "acme", "--grace", &grace, "--json"]);
    let rotated: Value = serde_json::from_str(&rotated.succeeded().stdout).unwrap();
    let new = rotated["key"].as_str().unwrap().to_owned();
    assert_eq!(rotated["replaces"]["key_id"], id_of(&old));
    assert_eq!(rotated["replaces"]["replaced_by"], id_of(&new));

    // Somebody who uses the new key in the instant it is printed.
    answers_soon([&edge], &new, 200, SOON, "rotated");
    first.switch(from_ref(&new));
    more_requests(&[&first, &second]);
    second.switch(from_ref(&new));
    more_requests(&[&first, &second]);
    assert_eq!(edge.post(&old), Ok(200), "the grace is not over");
    let ended = SOON + Duration::from_secs(GRACE_SECONDS);
    answers_soon([&edge], &old, 401, ended, "the grace ended");
    more_requests(&[&first, &second]);
    all_accepted(&first.stop());
    all_accepted(&second.stop());

    let rotated = world
        .control
        .cli(&["key", "rotate", "acme", "--grace", "0s", "--json"]);
    rotated.succeeded();
    answers_soon([&edge], &new, 401, SOON, "rotated without grace");
}
