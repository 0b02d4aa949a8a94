use std::collections::{BTreeMap, BTreeSet};

use super::*;

const DOCUMENTED: &str = include_str!("../../../../config/edge/edge.toml");

#[test]
fn the_documented_defaults_are_the_real_ones() {
    let documented = Config::parse("edge.toml", DOCUMENTED).unwrap();
    let required = [
        "address = \"0.0.0.0",
        "url",
        "kind = \"m",
        "kind = \"l",
        "speaks",
        "traces",
        "metrics",
        "logs",
        "profiles",
    ];
    let kept = |line: &&str| {
        let is_setting = line.contains(" = ") && !line.starts_with('#');
        !is_setting || required.iter().any(|start| line.starts_with(start))
    };
    let bare: Vec<_> = DOCUMENTED.lines().filter(kept).collect();
    assert!(bare.len() < DOCUMENTED.lines().count() - 15);
    let bare = Config::parse("edge.toml", &bare.join("\n")).unwrap();
    assert_eq!(format!("{documented:#?}"), format!("{bare:#?}"));
}

/// The keys of each section as the documented file shows them. Names of one's own choice count as `x`.
fn documented_keys() -> BTreeMap<String, BTreeSet<String>> {
    let mut sections = BTreeMap::<_, BTreeSet<_>>::new();
    let mut section = String::new();
    for line in DOCUMENTED.lines() {
        if let Some(name) = line.trim_start_matches("# ").strip_prefix('[')
            && let Some(name) = name.strip_suffix(']')
        {
            name.clone_into(&mut section);
            for parent in ["listeners.", "upstreams."] {
                if let Some(own) = section.strip_prefix(parent) {
                    let below = own.split_once('.').map(|(_, below)| below.to_owned());
                    section = format!("{parent}x");
                    if let Some(below) = below {
                        sections
                            .entry(section.clone())
                            .or_default()
                            .insert(below.clone());
                        section = format!("{section}.{below}");
                    }
                }
            }
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ")
            && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            let keys = sections.entry(section.clone()).or_default();
            keys.insert(key.to_owned());
        }
    }
    sections
}

/// The keys of a section as an unknown one is told of them.
fn known_keys(section: &str) -> BTreeSet<String> {
    let text = format!("[{section}]\nunknown = 1\n");
    let error = Config::parse("edge.toml", &text).unwrap_err();
    let key = format!("{section}.unknown");
    let mut found = error.problems.iter().filter(|problem| problem.key == key);
    let told = &found.next().expect(section).message;
    let (_, known) = told.split_once("here are ").expect(told);
    known.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_keys_that_are_read_are_those_that_are_documented() {
    let documented = documented_keys();
    for (section, keys) in &documented {
        assert_eq!(*keys, known_keys(section), "[{section}]");
    }
    let error = Config::parse("edge.toml", "unknown = 1").unwrap_err();
    let told = error.to_string();
    let (_, known) = told
        .split_once("unknown: is not a known key: here are ")
        .expect(&told);
    let known: BTreeSet<_> = known.lines().next().unwrap().split(", ").collect();
    let sections = documented
        .keys()
        .map(|name| name.split('.').next().unwrap());
    assert_eq!(sections.collect::<BTreeSet<_>>(), known);
}

#[test]
fn every_mistake_is_reported_once_with_its_line() {
    let text = "\
[listeners.a]
adress = '0.0.0.0:1'
[log]
format = 'xml'
[database]
url = 'mysql://x'
connections_max = 0
[keys]
poll_every = '0s'
reload_every = 5
[auth_failures]
burst = 0
per_minute = 0
[strangers]
burst = 0
per_minute = 0
[limits]
body_max = '1GB'
[connections]
streams_max = 0
stream_window = '1KiB'
[upstreams.m]
url = 'mimir:8080'
kind = 'mimir'
speaks = 'grpc'
first_byte_timeout = '0ms'
[upstreams.l]
url = 'http://loki:3100'
[routes.otlp_http]
logs = 'l'
traces = 'nowhere'
";
    let error = Config::parse("edge.toml", text).unwrap_err();
    let problems = error.problems.iter();
    let found: Vec<_> = problems
        .map(|problem| (problem.line, problem.key.as_str()))
        .collect();
    let expected = [
        (1, "listeners.a.address"),
        (2, "listeners.a.adress"),
        (4, "log.format"),
        (6, "database.url"),
        (7, "database.connections_max"),
        (9, "keys.poll_every"),
        (10, "keys.reload_every"),
        (12, "auth_failures.burst"),
        (13, "auth_failures.per_minute"),
        (15, "strangers.burst"),
        (16, "strangers.per_minute"),
        (18, "limits.body_max"),
        (20, "connections.streams_max"),
        (21, "connections.stream_window"),
        (23, "upstreams.m.url"),
        (25, "upstreams.m.speaks"),
        (26, "upstreams.m.first_byte_timeout"),
        (31, "routes.otlp_http.traces"),
    ];
    assert_eq!(found, expected, "{error}");
}

#[test]
fn what_cannot_be_obtained_by_acme_is_told_once_with_its_key() {
    let problems = |acme: &str, tls: &str| {
        let text = format!("[listeners.a]\naddress = '0.0.0.0:443'\n{tls}\n{acme}\n");
        let error = Config::parse("edge.toml", &text).unwrap_err();
        let ours = |key: &str| key.starts_with("acme.") || key.contains(".tls.");
        let found = error.problems.iter().filter(|problem| ours(&problem.key));
        found.map(|it| it.key.clone()).collect::<Vec<_>>()
    };
    let shown = "[listeners.a.tls]\nacme = true";
    let good = "[acme]\nnames = ['otlp.example.com']\nterms_agreed = true";
    assert!(problems(good, shown).is_empty());
    assert_eq!(problems(good, ""), ["acme.names"], "nobody proves it");
    assert_eq!(problems("", shown), ["acme.names"], "there are none");
    let empty = problems("[acme]", shown);
    assert_eq!(empty, ["acme.names", "acme.terms_agreed"]);
    for name in [
        "*.a.com",
        "192.0.2.1",
        "2001:db8::1",
        "a..b",
        "-a.b",
        "a/b",
        "",
    ] {
        let named = good.replace("otlp.example.com", name);
        assert_eq!(problems(&named, shown), ["acme.names"], "{name}");
    }
    for (line, key) in [
        ("emails = ['mailto:a@b']", "acme.emails"),
        ("directory = 'http://a/dir'", "acme.directory"),
        ("external_account_id = 'a'", "acme.external_account_id"),
        ("unknown = 1", "acme.unknown"),
    ] {
        let found = problems(&format!("{good}\n{line}"), shown);
        assert_eq!(found, [key], "{line}");
    }
}
