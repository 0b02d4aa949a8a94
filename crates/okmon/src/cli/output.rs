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

/// Prints `objects` as a table with these fields as columns.
pub(super) fn table(objects: &[Value], fields: &[&str]) -> io::Result<()> {
    let heads = fields
        .iter()
        .map(|field| field.to_uppercase().replace('_', " "));
    let mut rows: Vec<Vec<String>> = vec![heads.collect()];
    rows.extend(objects.iter().map(|object| cells(object, fields)));
    for row in &rows {
        let mut text = String::new();
        for (column, cell) in row.iter().enumerate() {
            let widths = rows.iter().filter_map(|row| row.get(column));
            let width = widths
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default();
            text.push_str(cell);
            let gap = width.saturating_sub(cell.chars().count()) + 2;
            text.extend(std::iter::repeat_n(' ', gap));
        }
        line(text.trim_end())?;
    }
    Ok(())
}

/// Prints one object, a field a line.
pub(super) fn card(object: &Value, fields: &[&str]) -> io::Result<()> {
    let width = fields
        .iter()
        .map(|field| field.len())
        .max()
        .unwrap_or_default();
    for (field, cell) in fields.iter().zip(cells(object, fields)) {
        line(&format!("{:width$}  {cell}", field.replace('_', " ")))?;
    }
    Ok(())
}

fn cells(object: &Value, fields: &[&str]) -> Vec<String> {
    fields.iter().map(|field| cell(&object[*field])).collect()
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    text.replace(char::is_control, "\u{fffd}")
}
