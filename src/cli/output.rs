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
    let header: Vec<Cell> = header.iter().map(|title| Cell::toned(*title, Tone::Faint)).collect();
    let all: Vec<&Vec<Cell>> = std::iter::once(&header).chain(rows).collect();
    let width = |column: usize| {
        all.iter().filter_map(|row| row.get(column)).map(|cell| shown(cell).chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for row in all {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let content = shown(cell);
            let padding = widths.get(column).map_or(0, |width| width - content.chars().count()) + 3;
            line += &cell.tone.map_or_else(|| content.to_owned(), |tone| paint.text(tone, content));
            if column + 1 < row.len() {
                line += &" ".repeat(padding);
            }
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
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
