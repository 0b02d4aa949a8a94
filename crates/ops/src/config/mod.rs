//! Reads a TOML file so that every problem is reported at once, each with its line and its fix. Decides what a value's
//! text may look like; what the values mean together is for each process to check.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use toml_edit::{Document, Item, TableLike, Value};

/// One thing wrong with a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line it is on, counted from 1.
    pub line: usize,
    /// The key with its sections, such as `keys.refresh_after`.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Everything wrong with a configuration file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file's name as it was given.
    pub file: String,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            let Problem { line, key, message } = problem;
            write!(f, "{}:{line}: ", self.file)?;
            if !key.is_empty() {
                write!(f, "{key}: ")?;
            }
            f.write_str(message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Parses `text` and has `build` make a configuration of it.
///
/// `build` may return a stand-in for whatever it reported as a problem: the result counts only if there was none.
pub fn read<T>(
    file: &str,
    text: &str,
    build: impl FnOnce(&Section<'_>) -> Option<T>,
) -> Result<T, ConfigError> {
    let fail = |problems| ConfigError {
        file: file.to_owned(),
        problems,
    };
    let document = Document::parse(text).map_err(|error| {
        fail(vec![Problem {
            line: line_of(text, error.span()),
            key: String::new(),
            message: format!("not TOML: {}", error.message()),
        }])
    })?;
    let problems = RefCell::new(Vec::new());
    let root = Section {
        text,
        problems: &problems,
        path: String::new(),
        line: 1,
        table: Some(document.as_table()),
        known: RefCell::default(),
    };
    let config = build(&root);
    root.finish();
    let mut problems = problems.take();
    problems.sort_by_key(|problem| problem.line);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(fail(problems)),
    }
}

fn line_of(text: &str, span: Option<std::ops::Range<usize>>) -> usize {
    let at = span.map_or(0, |span| span.start.min(text.len()));
    1 + text.bytes().take(at).filter(|b| *b == b'\n').count()
}

/// A table and where it is.
type Spanned<'a> = (Option<std::ops::Range<usize>>, &'a dyn TableLike);

/// One table of the file; empty when the file does not have it, so that its defaults apply.
pub struct Section<'a> {
    text: &'a str,
    problems: &'a RefCell<Vec<Problem>>,
    path: String,
    line: usize,
    table: Option<&'a dyn TableLike>,
    known: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    /// Whether the file has this section.
    pub fn exists(&self) -> bool {
        self.table.is_some()
    }

    /// The value of `key`, or `None` if it is absent or, which is reported, malformed.
    pub fn optional<T: FromConfig>(&self, key: &str) -> Option<T> {
        let item = self.item(key)?;
        let read = item
            .as_value()
            .ok_or_else(|| "is a table, not a value".to_owned())
            .and_then(T::from_value);
        read.map_err(|message| self.report(line_of(self.text, item.span()), key, message))
            .ok()
    }

    /// The value of `key`, or `default`.
    pub fn or<T: FromConfig>(&self, key: &str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// The value of `key`; its absence is reported with `fix`, which says what to write.
    pub fn required<T: FromConfig>(&self, key: &str, fix: &str) -> Option<T> {
        if self.item(key).is_none() {
            self.report(self.line, key, format!("is missing: {fix}"));
        }
        self.optional(key)
    }

    /// The value of `key` as one of `choices`, or `default`.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)], default: T) -> T {
        let Some(text) = self.optional::<String>(key) else {
            return default;
        };
        let found = choices.iter().find(|(name, _)| *name == text);
        found.map_or_else(
            || {
                let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
                self.problem(key, format!("{text:?} is not one of {}", names.join(", ")));
                default
            },
            |(_, choice)| *choice,
        )
    }

    /// The section `key` below this one.
    #[must_use]
    pub fn section(&self, key: &str) -> Section<'a> {
        let item = self.item(key);
        let table = item.and_then(Item::as_table_like);
        let line = item.map_or(self.line, |item| line_of(self.text, item.span()));
        if item.is_some() && table.is_none() {
            self.report(line, key, format!("is a value, not a section [{key}]"));
        }
        Section {
            text: self.text,
            problems: self.problems,
            path: self.full(key),
            line,
            table,
            known: RefCell::default(),
        }
    }

    /// The sections in the list `key`, however it is written: `key = [{ … }]` or `[[key]]`.
    pub fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(item) = self.item(key) else {
            return Vec::new();
        };
        let tables: Option<Vec<Spanned<'a>>> = match item {
            Item::ArrayOfTables(tables) => Some(
                tables
                    .iter()
                    .map(|table| (table.span(), table as &dyn TableLike))
                    .collect(),
            ),
            Item::Value(Value::Array(values)) => values
                .iter()
                .map(|value| {
                    let table = value.as_inline_table()?;
                    Some((value.span(), table as &dyn TableLike))
                })
                .collect(),
            _ => None,
        };
        let Some(tables) = tables else {
            self.problem(key, "is not a list of tables: write [{ … }]");
            return Vec::new();
        };
        let sections = tables.into_iter().enumerate();
        sections
            .map(|(n, (span, table))| Section {
                text: self.text,
                problems: self.problems,
                path: self.full(&format!("{key}[{n}]")),
                line: line_of(self.text, span.or(item.span())),
                table: Some(table),
                known: RefCell::default(),
            })
            .collect()
    }

    /// The names in this section, each of which is a section of its own.
    pub fn names(&self) -> Vec<String> {
        self.table.map_or_else(Vec::new, |table| {
            table.iter().map(|(name, _)| name.to_owned()).collect()
        })
    }

    /// Reports a problem with the value of `key`.
    pub fn problem(&self, key: &str, message: impl Into<String>) {
        let span = self
            .table
            .and_then(|table| table.get(key))
            .and_then(Item::span);
        let line = span.map_or(self.line, |span| line_of(self.text, Some(span)));
        self.report(line, key, message.into());
    }

    /// Reports every key that nobody has asked for.
    pub fn finish(&self) {
        let known = self.known.borrow();
        for name in self.names() {
            if !known.contains(&name) {
                let message = if known.is_empty() {
                    "is not a known key".to_owned()
                } else {
                    format!("is not a known key: here are {}", known.join(", "))
                };
                self.problem(&name, message);
            }
        }
    }

    fn item(&self, key: &str) -> Option<&'a Item> {
        let mut known = self.known.borrow_mut();
        if !known.iter().any(|name| name == key) {
            known.push(key.to_owned());
        }
        self.table?.get(key)
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn report(&self, line: usize, key: &str, message: String) {
        let key = self.full(key);
        self.problems
            .borrow_mut()
            .push(Problem { line, key, message });
    }
}

/// A type that a value of the file can be read as. The error says what is wrong and what would be right.
pub trait FromConfig: Sized {
    /// Reads the value.
    fn from_value(value: &Value) -> Result<Self, String>;
}

impl FromConfig for String {
    fn from_value(value: &Value) -> Result<Self, String> {
        text(value).map(str::to_owned)
    }
}

impl FromConfig for bool {
    fn from_value(value: &Value) -> Result<Self, String> {
        value
            .as_bool()
            .ok_or_else(|| format!("{} is not true or false", shown(value)))
    }
}

impl FromConfig for SocketAddr {
    fn from_value(value: &Value) -> Result<Self, String> {
        let text = text(value)?;
        text.parse().map_err(|_| {
            format!("{text:?} is not an address: write IP:PORT such as \"0.0.0.0:4317\"")
        })
    }
}

impl FromConfig for u32 {
    fn from_value(value: &Value) -> Result<Self, String> {
        value
            .as_integer()
            .and_then(|n| Self::try_from(n).ok())
            .ok_or_else(|| {
                format!(
                    "{} is not a whole number from 0 to {}",
                    shown(value),
                    Self::MAX
                )
            })
    }
}

impl FromConfig for u64 {
    fn from_value(value: &Value) -> Result<Self, String> {
        value
            .as_integer()
            .and_then(|n| Self::try_from(n).ok())
            .ok_or_else(|| format!("{} is not a whole number from 0", shown(value)))
    }
}

impl<T: FromConfig> FromConfig for Vec<T> {
    /// Values in square brackets.
    fn from_value(value: &Value) -> Result<Self, String> {
        let values = value
            .as_array()
            .ok_or_else(|| format!("{} is not a list: put it in [ ]", shown(value)))?;
        values.iter().map(T::from_value).collect()
    }
}

/// The longest duration that can be configured: a point in time so far ahead can still be computed, whatever the clock.
const DURATION_MAX: Duration = Duration::from_hours(36_500 * 24);

impl FromConfig for Duration {
    /// A number with its unit: `250ms`, `10s`, `5m`, `24h`, `7d`.
    fn from_value(value: &Value) -> Result<Self, String> {
        let wrong = || {
            let shown = shown(value);
            format!(
                "{shown} is not a duration: write a whole number and ms, s, m, h or d, such as \"10s\""
            )
        };
        let (n, unit) = number_and_unit(text(value).map_err(|_| wrong())?).ok_or_else(wrong)?;
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        n.checked_mul(millis)
            .map(Self::from_millis)
            .filter(|duration| *duration <= DURATION_MAX)
            .ok_or_else(|| format!("{} is too long: write at most \"36500d\"", shown(value)))
    }
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl FromConfig for ByteSize {
    /// A number with its unit: `512B`, `64KiB`, `4MiB`, `1GiB`.
    fn from_value(value: &Value) -> Result<Self, String> {
        let wrong = || {
            let shown = shown(value);
            format!(
                "{shown} is not a size: write a whole number and B, KiB, MiB or GiB, such as \"64MiB\""
            )
        };
        let (n, unit) = number_and_unit(text(value).map_err(|_| wrong())?).ok_or_else(wrong)?;
        let scale: u64 = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(wrong()),
        };
        n.checked_mul(scale).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let unit = units
            .into_iter()
            .find(|(_, shift)| self.0 >> shift > 0 && self.0.is_multiple_of(1 << shift));
        match unit {
            Some((name, shift)) => write!(f, "{} {name}", self.0 >> shift),
            None => write!(f, "{} B", self.0),
        }
    }
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

fn text(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("{} is not a text: put it in quotes", shown(value)))
}

fn shown(value: &Value) -> String {
    value.to_string().trim().to_owned()
}

#[cfg(test)]
mod tests;
