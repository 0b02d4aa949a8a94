//! Every attack there is, several at a time, on an edge that a good tenant goes on sending to. What this costs the good tenant in time
//! is for `loadtest attacks` to measure, on a machine that has nothing else to do.

use serde_json::{Value, json};

use crate::program::loadtest;

#[test]
fn a_good_tenant_is_served_whatever_others_do() {
    let okmon = testkit::okmon();
    let okmon = okmon.get_program().to_str().unwrap();
    let rates = ["--rate", "20", "--grpc-rate", "20", "--window", "1"];
    let arguments = ["attacks", "--quick", "--json", "--okmon", okmon];
    let output = loadtest(&[&arguments[..], &rates].concat());
    let found: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(found["failed"], json!({}), "{found:#}");
    assert!(output.status.success());

    let attacks = found["attacks"].as_object().unwrap();
    assert!(attacks.len() > 30, "{found:#}");
    for (name, report) in attacks {
        assert!(report["connections"].as_u64() > Some(0), "{name}: {report}");
        let sent = report["bytes"].as_u64() > Some(0);
        assert!(sent || name == "churn", "{name}: {report}");
    }
}

#[test]
fn idle_connections_are_opened_counted_and_weighed() {
    let okmon = testkit::okmon();
    let okmon = okmon.get_program().to_str().unwrap();
    let few = ["--connections", "200", "--settle", "0.1"];
    let arguments = ["idle", "--json", "--okmon", okmon];
    let output = loadtest(&[&arguments[..], &few].concat());
    let found: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let rows = found["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4, "{found:#}");
    for row in rows {
        assert!(row["with_bytes"].as_u64() > Some(0), "{found:#}");
        // So few of the smaller kinds fit into what the first ones have left.
        if row["kind"].as_str().unwrap().starts_with("HTTP/2") {
            // Not even the task of a connection fits into less.
            assert!(row["bytes_each"].as_u64() > Some(1000), "{found:#}");
        }
    }
}
