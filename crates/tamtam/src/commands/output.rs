//! What commands print on standard output.

use std::io::{ErrorKind, Write};

use serde_json::Value;

use crate::exit::{self, Failure};

/// A text as it is. When its reader went away (`| head`) the command is over, and has not failed.
pub fn text(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Failure::new(exit::DONE, ""),
            _ => Failure::no(format!("standard output: {error}")),
        })
}

pub fn line(line: &str) -> Result<(), Failure> {
    text(&format!("{line}\n"))
}

/// One JSON value on one line.
pub fn json(value: &Value) -> Result<(), Failure> {
    line(&value.to_string())
}

/// A value as a cell of a table.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Objects as a table with the given columns.
pub fn table(rows: &[Value], columns: &[&str]) -> Result<(), Failure> {
    let cells: Vec<Vec<String>> = std::iter::once(columns.iter().map(|name| (*name).to_owned()).collect())
        .chain(
            rows.iter()
                .map(|row| columns.iter().map(|name| cell(&row[*name])).collect()),
        )
        .collect();
    text(&aligned(&cells))
}

/// `name  value` lines of an object's plain values.
pub fn fields(object: &Value) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> = object
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| vec![name.clone(), cell(value)])
        .collect();
    text(&aligned(&rows))
}

/// Columns as wide as their widest cell; the last one is not padded.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["name".into(), "n".into()], vec!["é".into(), "1".into()]];
        assert_eq!(aligned(&rows), "name  n\né     1\n");
    }
}
