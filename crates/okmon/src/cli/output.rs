//! Prints answers: the API's own JSON, or a table for people. Plain text: no colour, nothing a terminal would obey.

use std::io::{self, Write as _};

use serde_json::Value;

/// Prints one line on standard output. A reader that has gone is an error, not a panic.
pub(super) fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// A remark for people, which must not get into what a script reads.
pub(super) fn remark(text: &str) {
    // Where nobody can read it, nothing is lost.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints a list: as it is, or as a table with these fields as columns.
pub(super) fn list(json: bool, objects: Vec<Value>, fields: &[&str]) -> anyhow::Result<()> {
    if json {
        line(&Value::from(objects).to_string())?;
    } else {
        table(&objects, fields)?;
    }
    Ok(())
}

/// Prints one object: as it is, or these of its fields.
pub(super) fn object(json: bool, object: &Value, fields: &[&str]) -> anyhow::Result<()> {
    if json {
        line(&object.to_string())?;
    } else {
        card(object, fields)?;
    }
    Ok(())
}

/// Prints `objects` as a table with these fields as columns.
pub(super) fn table(objects: &[Value], fields: &[&str]) -> io::Result<()> {
    let heads = fields.iter().map(|field| heading(field).to_uppercase());
    let mut rows: Vec<Vec<String>> = vec![heads.collect()];
    rows.extend(objects.iter().map(|object| cells(object, fields)));
    let width = |column: usize| {
        let widths = rows.iter().filter_map(|row| row.get(column));
        widths.map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..fields.len()).filter_map(width).collect();
    for row in &rows {
        let padded = row.iter().zip(&widths);
        let text: String = padded
            .flat_map(|(cell, width)| [format!("{cell:width$}"), "  ".to_owned()])
            .collect();
        line(text.trim_end())?;
    }
    Ok(())
}

/// Prints one object, a field a line.
pub(super) fn card(object: &Value, fields: &[&str]) -> io::Result<()> {
    let width = fields.iter().map(|field| field.len()).max();
    let width = width.unwrap_or_default();
    for (field, cell) in fields.iter().zip(cells(object, fields)) {
        line(&format!("{:width$}  {cell}", heading(field)))?;
    }
    Ok(())
}

/// A field in words; dots lead into objects within the object.
fn heading(field: &str) -> String {
    field.replace(['_', '.'], " ")
}

fn cells(object: &Value, fields: &[&str]) -> Vec<String> {
    fields.iter().map(|field| cell(object, field)).collect()
}

/// A field of `object` as people read it.
pub(super) fn cell(object: &Value, field: &str) -> String {
    let value = field
        .split('.')
        .try_fold(object, |object, name| object.get(name));
    shown(value.unwrap_or(&Value::Null))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(","),
        other => printable(&other.to_string()),
    }
}

/// `text` on one line, without what a terminal obeys or what changes the order in which the rest is read.
pub(super) fn printable(text: &str) -> String {
    let unsafe_to_show = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.replace(unsafe_to_show, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        assert_eq!(
            printable("a\u{1b}[31mb\nc\u{202e}d\u{7f}"),
            "a\u{fffd}[31mb\u{fffd}c\u{fffd}d\u{fffd}"
        );
        assert_eq!(printable("Ünïcode, 日本, עברית"), "Ünïcode, 日本, עברית");
    }

    #[test]
    fn dots_lead_into_objects() {
        let object = serde_json::json!({"limits": {"body_max_bytes": 5}, "scopes": ["a", "b"]});
        assert_eq!(
            cells(&object, &["limits.body_max_bytes", "scopes", "none.at.all"]),
            ["5", "a,b", "-"]
        );
    }
}
