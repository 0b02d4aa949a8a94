//! What each field of each route does not take.

use hyper::Method;
use serde_json::{Value, json};

use crate::harness::new_tenant;

/// Texts that are no name: something in them is not seen, or looks like something else.
fn unseen() -> Vec<Value> {
    let within = [
        "\u{0}",
        "\u{1}",
        "\n",
        "\r\n",
        "\t",
        "\u{1b}[31m",
        "\u{7f}",
        "\u{85}",
        "\u{ad}",
        "\u{61c}",
        "\u{200b}",
        "\u{200d}",
        "\u{200e}",
        "\u{200f}",
        "\u{2028}",
        "\u{202a}",
        "\u{202e}",
        "\u{2060}",
        "\u{2066}",
        "\u{2069}",
        "\u{feff}",
        "\u{3164}",
        "\u{e000}",
        "\u{fffe}",
        "\u{e0041}",
        "\u{10ffff}",
    ];
    let look_alikes = ["acme\u{301}", "\u{212b}cme", "acme\u{37e}"];
    let unseen = within.iter().map(|c| json!(format!("ac{c}me")));
    unseen
        .chain(look_alikes.iter().map(|text| json!(text)))
        .collect()
}

fn numbers_and_the_like() -> Vec<Value> {
    vec![
        json!(1),
        json!(1.5),
        json!(true),
        json!([]),
        json!(["x"]),
        json!({}),
        json!({"x": 1}),
    ]
}

/// What no text field takes.
fn no_names() -> Vec<Value> {
    let mut values = [unseen(), numbers_and_the_like()].concat();
    values.extend([
        json!("x".repeat(201)),
        json!("ä".repeat(201)),
        json!(" acme"),
        json!("acme "),
        json!("\u{a0}acme"),
    ]);
    values
}

fn no_numbers(past_the_end: u64) -> Vec<Value> {
    let huge: Value = serde_json::from_str("123456789012345678901234567890").unwrap();
    vec![
        json!(past_the_end),
        json!(u64::MAX),
        json!(-1),
        json!(i64::MIN),
        json!(0.5),
        json!(1.0),
        json!(1e300),
        huge,
        json!("1"),
        json!(""),
        json!(true),
        json!([]),
        json!([1]),
        json!({}),
    ]
}

fn no_emails() -> Vec<Value> {
    let mut values = [unseen(), numbers_and_the_like()].concat();
    for text in [
        "",
        " ",
        "nowhere",
        "@",
        "a@",
        "@b",
        "a b@c",
        "a@b@c",
        "a@b,c@d",
        "a@b;c@d",
        "A <a@b>",
        "a@b\u{202e}",
        "ope\u{301}@b",
        "a@\u{212b}",
        "a\u{0}@b",
        "a@b\r\nBcc: c@d",
        "'; drop table tenants; --@b",
    ] {
        values.push(json!(text));
    }
    values.push(json!(format!("{}@example.com", "x".repeat(250))));
    values
}

fn no_key_ids() -> Vec<Value> {
    let mut values = numbers_and_the_like();
    for text in [
        "",
        "short",
        "0123456789abc",
        "0123456789a!",
        "0123456789a\u{0}",
        "0123456789ä",
        "'or'1'='1'--",
    ] {
        values.push(json!(text));
    }
    values
}

fn no_times() -> Vec<Value> {
    let mut values = numbers_and_the_like();
    for text in [
        "",
        "tomorrow",
        "2030-01-01",
        "2030-01-01T00:00:00",
        "2030-13-01T00:00:00Z",
        "2030-02-30T00:00:00Z",
        "2020-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-23:59",
        "infinity",
        "now()",
        "2030-01-01T00:00:00Z\u{0}",
        " 2030-01-01T00:00:00Z",
    ] {
        values.push(json!(text));
    }
    values
}

fn no_scopes() -> Vec<Value> {
    vec![
        json!([]),
        json!(["logs:delete"]),
        json!(["LOGS:WRITE"]),
        json!([""]),
        json!(["logs:write", "admin"]),
        json!(["logs:write\u{0}"]),
        json!(["logs:write,logs:read"]),
        json!([1]),
        json!([null]),
        json!([["logs:write"]]),
        json!("logs:write"),
        json!({"logs:write": true}),
        json!(1),
        json!(true),
        json!(vec!["logs:write\u{200b}"; 500]),
    ]
}

fn no_tenant_ids() -> Vec<Value> {
    let mut values = [unseen(), numbers_and_the_like()].concat();
    for id in [
        "",
        ".",
        "..",
        "__markers__",
        "user-index.json.gz",
        "a|b",
        "a:b",
        "a/b",
        "../etc",
        "a b",
        " acme",
        "ä",
        "аcme",
        "ａcme",
        "a%00",
        "a\\b",
        "a\"b",
        "'; drop table tenants; --",
        "ACME",
        "-a",
        "a_b",
        "a.b",
    ] {
        values.push(json!(id));
    }
    values.extend([
        json!("x".repeat(64)),
        json!("x".repeat(151)),
        json!("x".repeat(10_000)),
    ]);
    values
}

fn no_digests() -> Vec<Value> {
    let mut values = numbers_and_the_like();
    for text in [
        String::new(),
        "ab".to_owned(),
        "g".repeat(64),
        "a".repeat(63),
        "a".repeat(65),
        "ä".repeat(32),
    ] {
        values.push(json!(text));
    }
    values
}

/// A route with a body: where to send it, a good body, and for each field what is wrong there.
pub(crate) struct Row {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) good: Value,
    pub(crate) wrong: Vec<(&'static str, Vec<Value>)>,
}

/// Every route with a body. One field of an import is wrong without the other, so those have a row of their own.
pub(crate) fn table() -> Vec<Row> {
    let import = json!({"key_id": "0123456789ab", "sha256": "5e".repeat(32)});
    let row = |method, path, good, wrong| Row {
        method,
        path,
        good,
        wrong,
    };
    vec![
        row(
            Method::POST,
            "/api/v1/tenants",
            new_tenant("new"),
            of_new_tenants(),
        ),
        row(
            Method::PATCH,
            "/api/v1/tenants/{id}",
            json!({}),
            of_tenants(),
        ),
        row(
            Method::POST,
            "/api/v1/tenants/{id}/keys",
            json!({}),
            of_keys(),
        ),
        row(
            Method::POST,
            "/api/v1/tenants/{id}/keys",
            import,
            of_imports(),
        ),
        row(
            Method::POST,
            "/api/v1/tenants/{id}/keys/rotate",
            json!({}),
            of_rotations(),
        ),
    ]
}

fn no_tenant_names() -> Vec<Value> {
    [no_names(), vec![json!(""), json!(" "), json!("\u{3000}")]].concat()
}

fn or_null(values: Vec<Value>) -> Vec<Value> {
    [values, vec![json!(null)]].concat()
}

fn of_new_tenants() -> Vec<(&'static str, Vec<Value>)> {
    let no_flags = vec![
        json!(1),
        json!(0),
        json!("true"),
        json!(""),
        json!([]),
        json!({}),
    ];
    vec![
        ("name", or_null(no_tenant_names())),
        ("email", or_null(no_emails())),
        ("id", or_null(no_tenant_ids())),
        ("allow_any_id", no_flags),
    ]
}

fn of_tenants() -> Vec<(&'static str, Vec<Value>)> {
    let mut no_status = numbers_and_the_like();
    for text in ["inactive", "Active", "", "suspended "] {
        no_status.push(json!(text));
    }
    let no_limits = vec![
        json!(1),
        json!("x"),
        json!([]),
        json!(true),
        json!([{"body_max_bytes": 1}]),
    ];
    vec![
        ("name", no_tenant_names()),
        ("email", no_emails()),
        ("status", no_status),
        ("limits", no_limits),
        ("limits.body_max_bytes", no_numbers((1 << 40) + 1)),
    ]
}

fn of_keys() -> Vec<(&'static str, Vec<Value>)> {
    const HUNDRED_YEARS: u64 = 100 * 365 * 24 * 3600;
    let no_lives = [no_numbers(HUNDRED_YEARS + 1), vec![json!(0)]].concat();
    vec![
        ("name", no_names()),
        ("scopes", no_scopes()),
        ("expires_at", no_times()),
        ("expires_in_seconds", no_lives),
    ]
}

fn of_imports() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        ("key_id", or_null(no_key_ids())),
        ("sha256", or_null(no_digests())),
    ]
}

fn of_rotations() -> Vec<(&'static str, Vec<Value>)> {
    let own = [
        ("key_id", no_key_ids()),
        ("grace_seconds", no_numbers(365 * 24 * 3600 + 1)),
    ];
    own.into_iter().chain(of_keys()).collect()
}
