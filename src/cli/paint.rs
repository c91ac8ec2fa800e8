//! Colours: only on a terminal, never with NO_COLOR (<https://no-color.org>) or TERM=dumb.

use std::io::IsTerminal as _;

/// Wraps texts in colours, or leaves them as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paint {
    on: bool,
}

/// What a text is about; the colour follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Needs a look.
    Warn,
    /// Has failed.
    Bad,
    /// Under way.
    Busy,
    /// Less important.
    Faint,
    /// A title.
    Strong,
}

impl Paint {
    /// No colours, for tests.
    #[cfg(test)]
    #[must_use]
    pub const fn plain() -> Self {
        Self { on: false }
    }

    /// Colours as standard output can show them.
    #[must_use]
    pub fn for_stdout() -> Self {
        Self { on: std::io::stdout().is_terminal() && Self::wanted() }
    }

    /// Colours as standard error can show them.
    #[must_use]
    pub fn for_stderr() -> Self {
        Self { on: std::io::stderr().is_terminal() && Self::wanted() }
    }

    fn wanted() -> bool {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
    }

    /// The text in the tone's colour.
    #[must_use]
    pub fn text(self, tone: Tone, text: &str) -> String {
        if !self.on || text.is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Busy => "36",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_only_where_they_are_on() {
        assert_eq!(Paint::plain().text(Tone::Bad, "x"), "x");
        assert_eq!(Paint { on: true }.text(Tone::Bad, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Paint { on: true }.text(Tone::Bad, ""), "");
    }
}
