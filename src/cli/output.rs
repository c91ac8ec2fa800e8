//! Writing to standard output: formats, tables, and silence when the reader is gone (`| head`).

#[cfg(not(test))]
use std::io::Write as _;

use serde::Serialize;

use super::{
    args::Format,
    error::CliError,
    paint::{Paint, Tone},
};

/// Writes a text. A reader that went away ends the output, not with an error.
///
/// # Errors
/// When standard output cannot be written.
#[cfg(not(test))]
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// In tests, into what the test harness collects.
#[cfg(test)]
#[allow(clippy::unnecessary_wraps, missing_docs)] // the signature of the real one
pub fn print(text: &str) -> Result<(), CliError> {
    print!("{text}");
    Ok(())
}

/// A value in a format, ending with a line break.
///
/// # Errors
/// When the value cannot be written in that format.
pub fn format<T: Serialize>(value: &T, format: Format) -> Result<String, CliError> {
    let json = serde_json::to_value(value).map_err(|error| CliError::Format(error.to_string()))?;
    let text = match format {
        Format::Json => serde_json::to_string_pretty(&json).map_err(|error| CliError::Format(error.to_string())),
        Format::Yaml => serde_saphyr::to_string(&json).map_err(|error| CliError::Format(error.to_string())),
    }?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

/// A cell of a table.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl Cell {
    /// A text in a colour.
    #[must_use]
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone: Some(tone) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: None }
    }
}

/// Columns three spaces apart; empty cells of the middle are shown as `-`.
#[must_use]
pub fn table(header: &[&str], rows: &[Vec<Cell>], paint: Paint) -> String {
    let mut columns = Columns::default();
    columns.header(header, rows, paint) + &columns.body(rows, paint)
}

/// Columns that only ever grow wider, for tables that are written bit by bit.
#[derive(Debug, Default)]
pub struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    /// The titles over some rows.
    pub fn header(&mut self, header: &[&str], rows: &[Vec<Cell>], paint: Paint) -> String {
        let header: Vec<Cell> = header.iter().map(|title| Cell::toned(*title, Tone::Faint)).collect();
        self.fit(rows);
        self.body(&[header], paint)
    }

    /// Some more rows.
    pub fn body(&mut self, rows: &[Vec<Cell>], paint: Paint) -> String {
        self.fit(rows);
        let mut text = String::new();
        for row in rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&self.widths) {
                let content = shown(cell);
                line += &cell.tone.map_or_else(|| content.to_owned(), |tone| paint.text(tone, content));
                line += &" ".repeat(width - content.chars().count() + 3);
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    fn fit(&mut self, rows: &[Vec<Cell>]) {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(shown(cell).chars().count());
            }
        }
    }
}

fn shown(cell: &Cell) -> &str {
    if cell.text.is_empty() { "-" } else { &cell.text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_cells_hold() {
        let rows = vec![
            vec![Cell::from("shop"), Cell::toned("Healthy", Tone::Good), Cell::from("")],
            vec![Cell::from("a-longer-name"), Cell::from("ü"), Cell::from("last")],
        ];
        let text = table(&["NAME", "PHASE", "REASON"], &rows, Paint::plain());
        insta::assert_snapshot!(text, @"
        NAME            PHASE     REASON
        shop            Healthy   -
        a-longer-name   ü         last
        ");
    }

    #[test]
    fn yaml_and_json_say_the_same() {
        let value = serde_json::json!({"b": [1, "on"], "a": null});
        insta::assert_snapshot!(format(&value, Format::Yaml).unwrap(), @r#"
        a: null
        b:
        - 1
        - "on"
        "#);
        let json = format(&value, Format::Json).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
    }
}
