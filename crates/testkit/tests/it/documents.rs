//! What README.md and docs/ say is so: their lines are run as they stand, their lists are compared with what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use model::Signal;
use testkit::sent::Expected;
use testkit::{Dev, Finished, Process, okmon, peers};

const RUN_MAX: Duration = Duration::from_mins(1);

fn read(path: &str) -> String {
    fs::read_to_string(peers::root().join(path)).unwrap()
}

/// The one block of the README that is fenced as `language` and has `part` in it, as it stands, except that the default
/// ports become those of `dev` and `obs_...` its key.
pub(crate) fn readme_block(language: &str, part: &str, dev: &Dev) -> String {
    let readme = read("README.md");
    let mut blocks = readme
        .split("\n```")
        .skip(1)
        .step_by(2)
        .filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'))
        .filter(|block| block.contains(part));
    let block = blocks
        .next()
        .unwrap_or_else(|| panic!("no block has {part}"));
    assert_eq!(blocks.next(), None, "another block has {part}");
    let ready = &dev.ready;
    let ports = [
        (":4317", &ready.otlp_grpc),
        (":4318", &ready.otlp_http),
        (":8080", &ready.api),
        (":9602", &ready.sink),
    ];
    let block = block.replace("# export OKMON_KEY", "export OKMON_KEY");
    let block = block.replace("obs_...", &ready.key);
    ports.into_iter().fold(block, |block, (port, url)| {
        let (_, actual) = url.rsplit_once(':').unwrap();
        block.replace(port, &format!(":{actual}"))
    })
}

/// Runs `script` at the root of the repository with our commands in `PATH`, as an operator of `dev`.
fn shell(script: &str, dev: &Dev) -> Finished {
    let folder = Path::new(okmon().get_program())
        .parent()
        .unwrap()
        .to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = [folder].into_iter().chain(std::env::split_paths(&path));
    let mut command = Command::new("sh");
    command
        .args(["-euc", script])
        .current_dir(peers::root())
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("OKMON_KEY", &dev.ready.key)
        .env("OKMON_CONTROL_URL", &dev.ready.control)
        .env("OKMON_OPERATOR_TOKEN", &dev.ready.operator_token);
    Process::spawn("a block of README.md", command).wait(RUN_MAX)
}

#[test]
fn the_curl_lines_of_the_readme_work_as_they_stand() {
    let dev = Dev::start();
    let finished = shell(&readme_block("sh", "curl ", &dev), &dev);
    let printed = &finished.succeeded().stdout;
    assert_eq!(printed.matches("204 No Content").count(), 2, "{printed}");
    let shown = ["hello", "hello from Loki push"].map(|line| format!("\"{line}\""));
    for line in shown {
        assert!(printed.contains(&line), "{line} is missing in {printed}");
    }
    assert_eq!(dev.received(Signal::Logs).len(), 2);
}

#[test]
fn the_sdk_settings_of_the_readme_work_as_they_stand() {
    let dev = Dev::start();
    let settings = readme_block("sh", "OTEL_EXPORTER", &dev);
    let sender = peers::python("otel_send.py");
    let sender: Vec<_> = [sender.get_program()]
        .into_iter()
        .chain(sender.get_args())
        .map(|word| format!("'{}'", word.display()))
        .collect();
    shell(&format!("{settings}\n{} http", sender.join(" ")), &dev).succeeded();
    Expected {
        service: "okmon-python",
        protocol: "otlp_http",
        content_type: "application/x-protobuf",
        content_encoding: None,
    }
    .arrive_at(&dev);
}

#[test]
fn the_commands_of_the_readme_work_as_they_stand() {
    let dev = Dev::start();
    let block = readme_block("text", "okmon tenant create", &dev);
    let mut key_id = String::new();
    for line in block.lines() {
        let printed = shell(&line.replace("KEY_ID", &key_id), &dev);
        let printed = &printed.succeeded().stdout;
        if line.starts_with("okmon key list") {
            let row = printed.lines().find(|row| row.contains("logs:write"));
            let first = row.and_then(|row| row.split_whitespace().next());
            first.expect(printed).clone_into(&mut key_id);
        }
    }
    let listed = shell("okmon key list acme", &dev);
    let listed = &listed.succeeded().stdout;
    let row = listed.lines().find(|row| row.starts_with(&key_id));
    assert!(row.expect(listed).contains("revoked"), "{listed}");
}

/// A metric's type, and the names of its labels.
type Shape = (String, BTreeSet<String>);

/// Metrics by name, and the values that labels have.
#[derive(Default)]
struct Metrics {
    shapes: BTreeMap<String, Shape>,
    values: BTreeMap<String, BTreeSet<String>>,
}

/// What `/metrics` shows from the start.
fn served() -> Metrics {
    let dev = Dev::start();
    let mut answer = ureq::get(format!("{}/metrics", dev.ready.ops))
        .call()
        .unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    let (mut found, mut helped) = (Metrics::default(), BTreeSet::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped.insert(help.split(' ').next().unwrap());
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|it| it.split_once(' '))
        {
            let shape = (kind.to_owned(), BTreeSet::new());
            found.shapes.insert(name.to_owned(), shape);
        } else if let Some((name, rest)) = line.split_once('{') {
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(name);
            let (labels, _) = rest.split_once('}').unwrap();
            for label in labels.split(',') {
                let (label, value) = label.split_once('=').unwrap();
                if label != "le" {
                    let shape = found.shapes.get_mut(base).unwrap();
                    shape.1.insert(label.to_owned());
                    let values = found.values.entry(label.to_owned()).or_default();
                    values.insert(value.trim_matches('"').to_owned());
                }
            }
        }
    }
    let described: BTreeSet<_> = found.shapes.keys().map(String::as_str).collect();
    assert_eq!(described, helped, "every metric has a help text");
    found
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What docs/METRICS.md says of them. A label of which it lists no value may have any.
fn documented() -> Metrics {
    let document = read("docs/METRICS.md");
    let mut found = Metrics::default();
    for line in document.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let labels = quoted(cells[3]).map(str::to_owned).collect();
        let name = cells[1].trim_matches('`').to_owned();
        let twice = found.shapes.insert(name, (cells[2].to_owned(), labels));
        assert_eq!(twice, None, "{line}");
    }
    let (_, labels) = document.split_once("## Label values\n").unwrap();
    let labels = labels.split("\n## ").next().unwrap();
    for label in labels.split("\n- ").skip(1) {
        let (names, values) = label.split_once(": ").unwrap();
        // Remarks are in parentheses.
        let values = values.split('(').enumerate().map(|(n, part)| match n {
            0 => part,
            _ => part.split_once(')').unwrap().1,
        });
        let values: String = values.collect();
        for name in quoted(names) {
            let values = quoted(&values).map(str::to_owned).collect();
            let twice = found.values.insert(name.to_owned(), values);
            assert_eq!(twice, None, "{name}");
        }
    }
    found
}

#[test]
fn the_documented_metrics_are_those_that_are_served() {
    let (documented, mut served) = (documented(), served());
    for (label, values) in &mut served.values {
        let any = BTreeSet::new();
        if documented.values.get(label) == Some(&any) {
            *values = any;
        }
    }
    assert_eq!(documented.shapes, served.shapes);
    assert_eq!(documented.values, served.values);
}

/// All files below `folder`, by their path from the root of the repository.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// A newcomer looks for the names of ARCHITECTURE.md in the source: `module::function`, `Type::function` and files.
#[test]
fn what_the_architecture_names_is_in_the_source() {
    let document = read("docs/ARCHITECTURE.md");
    let mut found = Vec::new();
    files(&peers::root().join("crates"), &mut found);
    let sources: Vec<_> = found
        .iter()
        .filter(|path| path.extension().is_some_and(|it| it == "rs"))
        .map(|path| (path, fs::read_to_string(path).unwrap()))
        .collect();
    let mut checked = 0;
    for name in quoted(&document) {
        let there = if let Some((of, item)) = name.split_once("::") {
            let is_type = of.starts_with(char::is_uppercase);
            let declared = [
                format!("fn {item}("),
                format!("    {item},"),
                format!("    {item} {{"),
            ];
            sources.iter().any(|(path, text)| {
                let of_it = if is_type {
                    [format!("struct {of}"), format!("enum {of}")]
                        .iter()
                        .any(|it| text.contains(it.as_str()))
                } else {
                    path.ends_with(format!("{of}.rs")) || path.parent().unwrap().ends_with(of)
                };
                of_it && declared.iter().any(|it| text.contains(it.as_str()))
            })
        } else if Path::new(name).extension().is_some_and(|it| it == "rs")
            || name.starts_with("crates/")
        {
            found.iter().any(|path| path.ends_with(name)) || peers::root().join(name).exists()
        } else {
            continue;
        };
        assert!(there, "{name} is not in the source");
        checked += 1;
    }
    assert!(checked > 40, "only {checked} names were checked");
}

#[test]
fn what_the_documents_link_to_is_there() {
    for document in [
        "README.md",
        "docs/ARCHITECTURE.md",
        "docs/DATABASE.md",
        "docs/METRICS.md",
        "docs/PERFORMANCE.md",
        "docs/RELIABILITY.md",
        "docs/DEPLOY.md",
        "docs/CHANGELOG.md",
    ] {
        let text = read(document);
        let folder = peers::root().join(document);
        for link in text.split("](").skip(1) {
            let (link, _) = link.split_once(')').unwrap();
            if !link.starts_with("http") {
                let target = folder.parent().unwrap().join(link);
                assert!(target.exists(), "{document} links to {link}");
            }
        }
    }
}
