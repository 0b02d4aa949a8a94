//! Replicas that die under load, for a few seconds.

use serde_json::Value;

use crate::program::loadtest;

#[test]
fn senders_do_not_notice_that_replicas_die() {
    let okmon = testkit::okmon();
    let okmon = okmon.get_program().to_str().unwrap();
    let little = [
        "--seconds",
        "6",
        "--every",
        "2",
        "--away",
        "0.5",
        "--rate",
        "100",
    ];
    let arguments = ["replicas", "--json", "--okmon", okmon];
    let output = loadtest(&[&arguments[..], &little].concat());
    let found: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert!(output.status.success(), "{found:#}");
    assert_eq!(found["killed"], 3);
    let rows = found["rows"].as_array().unwrap();
    for row in rows {
        assert!(row["report"]["accepted"].as_u64() > Some(0), "{found:#}");
    }
}
