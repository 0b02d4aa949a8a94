use super::*;

#[derive(Debug, PartialEq)]
struct Example {
    address: Option<SocketAddr>,
    wait: Duration,
    size: ByteSize,
    kind: u8,
    upstreams: Vec<(String, String)>,
}

fn build(root: &Section<'_>) -> Option<Example> {
    let address = root.required("address", "write where to listen");
    let upstreams = root.section("upstreams");
    let keys = root.section("keys");
    let example = Example {
        address,
        wait: keys.or("wait", Duration::from_secs(1)),
        size: keys.or("size", ByteSize(1)),
        kind: keys.choice("kind", &[("one", 1), ("two", 2)], 1),
        upstreams: upstreams
            .names()
            .into_iter()
            .filter_map(|name| {
                let upstream = upstreams.section(&name);
                let url = upstream.required("url", "write its URL");
                upstream.finish();
                Some((name, url?))
            })
            .collect(),
    };
    keys.finish();
    address.map(|_| example)
}

#[test]
fn a_good_file_is_read_with_defaults_for_what_it_leaves_out() {
    let text = "address = '127.0.0.1:80'\n[keys]\nsize = '64 MiB'\nkind = 'two'\n[upstreams.a]\nurl = 'u'\n";
    let example = read("f.toml", text, build).unwrap();
    assert_eq!(example.size, ByteSize(64 << 20));
    assert_eq!(example.wait, Duration::from_secs(1));
    assert_eq!(example.kind, 2);
    assert_eq!(example.upstreams, [("a".to_owned(), "u".to_owned())]);
}

#[test]
fn every_problem_is_named_with_its_line() {
    let text = "adress = 'x'\n[keys]\nwait = 10\nsize = '1MB'\nkind = 'three'\n\n[upstreams.a]\nuri = 'u'\n";
    let error = read("f.toml", text, build).unwrap_err().to_string();
    let lines: Vec<_> = error.lines().collect();
    for (n, start) in [
        "f.toml:1: address: is missing: write where to listen",
        "f.toml:1: adress: is not a known key",
        "f.toml:3: keys.wait: 10 is not a duration",
        "f.toml:4: keys.size: \"1MB\" is not a size",
        "f.toml:5: keys.kind: \"three\" is not one of one, two",
        "f.toml:7: upstreams.a.url: is missing",
        "f.toml:8: upstreams.a.uri: is not a known key",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(lines[n].starts_with(start), "{error}");
    }
    assert_eq!(lines.len(), 7, "{error}");
}

#[test]
fn lists_hold_values_or_sections() {
    type Lists = (Vec<u32>, Vec<Option<String>>);
    let build = |root: &Section<'_>| -> Option<Lists> {
        let names = root.sections("tables").into_iter().map(|table| {
            let name = table.required("name", "write its name");
            table.finish();
            name
        });
        let names = names.collect();
        Some((root.or("numbers", Vec::new()), names))
    };
    let both = |text: &str| read("f.toml", text, build);
    let expected = (vec![1, 2], vec![Some("a".to_owned()), Some("b".to_owned())]);
    let inline = "numbers = [1, 2]\ntables = [{ name = 'a' }, { name = 'b' }]\n";
    assert_eq!(both(inline).unwrap(), expected);
    let blocks = "numbers = [1, 2]\n[[tables]]\nname = 'a'\n[[tables]]\nname = 'b'\n";
    assert_eq!(both(blocks).unwrap(), expected);
    assert_eq!(both("").unwrap(), (vec![], vec![]));
    let wrong = "numbers = [1, 'two']\ntables = [{ name = 'a' },\n{ nam = 'b' }]\n";
    let error = both(wrong).unwrap_err().to_string();
    let lines: Vec<_> = error.lines().collect();
    for (n, start) in [
        "f.toml:1: numbers: \"two\" is not a whole number",
        "f.toml:3: tables[1].name: is missing",
        "f.toml:3: tables[1].nam: is not a known key",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(lines[n].starts_with(start), "{error}");
    }
    for (text, why) in [
        ("tables = ['a']", "tables: is not a list of tables"),
        ("tables = 1", "tables: is not a list of tables"),
        ("numbers = 1", "numbers: 1 is not a list"),
    ] {
        assert!(both(text).unwrap_err().to_string().contains(why));
    }
}

#[test]
fn a_duration_ends_where_points_in_time_do_not() {
    let wait = |text: &str| {
        let text = format!("address = '127.0.0.1:80'\n[keys]\nwait = '{text}'\n");
        read("f.toml", &text, build).map(|example| example.wait)
    };
    assert_eq!(wait("36500d").unwrap(), DURATION_MAX);
    assert_eq!(wait("0ms").unwrap(), Duration::ZERO);
    for long in ["36501d", "18446744073709551615s", "18446744073709551615ms"] {
        let error = wait(long).unwrap_err().to_string();
        assert!(error.contains("is too long: write at most"), "{error}");
    }
}

#[test]
fn what_is_not_toml_is_named_with_its_line() {
    let error = read("f.toml", "a = 1\nb = = 2\n", build).unwrap_err();
    assert_eq!(error.problems[0].line, 2);
}
