//! Certificates that are exchanged under load, a few of them.

use serde_json::{Value, json};

use crate::program::loadtest;

#[test]
fn senders_do_not_notice_that_certificates_are_exchanged() {
    let okmon = testkit::okmon();
    let okmon = okmon.get_program().to_str().unwrap();
    let arguments = ["certificates", "--json", "--okmon", okmon, "--swaps", "2"];
    let output = loadtest(&arguments);
    let found: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert!(output.status.success(), "{found:#}");
    let tallies = found["tallies"].as_object().unwrap();
    assert_eq!(tallies.len(), 9, "{found:#}");
    for tally in tallies.values() {
        assert!(tally["succeeded"].as_u64() > Some(0), "{found:#}");
        assert_eq!(tally["failed"], json!({}), "{found:#}");
    }
    assert_eq!(found["handshakes"]["failed"], json!({}), "{found:#}");
    for seen in found["seen"].as_array().unwrap() {
        // The one before and both that took its place.
        assert_eq!(seen["serials"].as_array().unwrap().len(), 3, "{found:#}");
    }
}
