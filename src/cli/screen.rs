//! Draws picture over picture on a terminal: the cursor goes home, each line replaces the old one.

/// A terminal that pictures are drawn on.
#[derive(Debug, Default)]
pub struct Screen {
    begun: bool,
}

impl Screen {
    /// What has to be written so that the picture stands there, cut to the terminal's size.
    #[must_use]
    pub fn frame(&mut self, picture: &str) -> String {
        let size = terminal_size::terminal_size();
        let (columns, rows) = size.map_or((200, 1000), |(width, height)| (width.0.into(), height.0.into()));
        self.sized(picture, columns, rows)
    }

    fn sized(&mut self, picture: &str, columns: usize, rows: usize) -> String {
        let lines: Vec<&str> = picture.lines().collect();
        let room = rows.saturating_sub(1).max(1);
        let cut = lines.len() > room;
        let shown = if cut { room - 1 } else { lines.len() };
        let mut frame = String::from(if self.begun { "\x1b[H" } else { "\x1b[2J\x1b[H" });
        self.begun = true;
        for line in &lines[..shown] {
            frame += &cut_line(line, columns);
            frame += "\x1b[K\r\n";
        }
        if cut {
            frame += &format!("... {} more lines\x1b[K\r\n", lines.len() - shown);
        }
        frame + "\x1b[J"
    }
}

/// The first `columns` characters of a line; escape sequences have no width.
fn cut_line(line: &str, columns: usize) -> String {
    let mut text = String::new();
    let mut width = 0;
    let mut escape = false;
    let mut coloured = false;
    for character in line.chars() {
        if character == '\x1b' {
            (escape, coloured) = (true, true);
        }
        if escape {
            text.push(character);
            escape = character != 'm';
            continue;
        }
        if width == columns {
            continue;
        }
        width += 1;
        text.push(if width == columns && line_is_longer(line, columns) { '…' } else { character });
    }
    if coloured { text + "\x1b[0m" } else { text }
}

fn line_is_longer(line: &str, columns: usize) -> bool {
    let mut escape = false;
    let visible = line.chars().filter(|character| {
        let was = escape || *character == '\x1b';
        escape = was && *character != 'm';
        !was
    });
    visible.count() > columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_picture_clears_and_the_next_ones_overwrite() {
        let mut screen = Screen::default();
        assert_eq!(screen.sized("a\nb\n", 10, 10), "\x1b[2J\x1b[Ha\x1b[K\r\nb\x1b[K\r\n\x1b[J");
        assert_eq!(screen.sized("c\n", 10, 10), "\x1b[Hc\x1b[K\r\n\x1b[J");
    }

    #[test]
    fn what_does_not_fit_is_cut_and_said_so() {
        let mut screen = Screen { begun: true };
        assert_eq!(screen.sized("a\nb\nc\nd\n", 10, 4), "\x1b[Ha\x1b[K\r\nb\x1b[K\r\n... 2 more lines\x1b[K\r\n\x1b[J");
        assert_eq!(cut_line("abcdef", 4), "abc…");
        assert_eq!(cut_line("abcd", 4), "abcd");
        assert_eq!(cut_line("\x1b[31mabcdef\x1b[0m", 4), "\x1b[31mabc…\x1b[0m\x1b[0m");
    }
}
