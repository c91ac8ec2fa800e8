//! SQL text cut into statements, and what kind each is: whether it may stand in a transaction with others.

use sqlparser::{
    dialect::PostgreSqlDialect,
    tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word},
};
use thiserror::Error;

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The statement without the semicolon that ends it.
    pub text: String,
    /// The line of the file where it begins, from 1.
    pub line: u64,
    /// What it is.
    pub kind: Kind,
    /// Its tokens, without comments.
    pub pieces: Vec<Piece>,
}

impl Statement {
    /// Whether it is done beside others' work on the same table.
    #[must_use]
    pub fn is_concurrent(&self) -> bool {
        words(&self.pieces).any(|word| word == "CONCURRENTLY")
    }
}

/// A token of a statement, as far as anybody asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A word without quotes, in upper case: one of the language, or a name.
    Word(String),
    /// A name in quotes, without them.
    Name(String),
    /// One of `( ) [ ] , . = *`.
    Mark(char),
    /// A text, a number, an operator.
    Other,
}

impl Piece {
    fn of(token: &Token) -> Self {
        match token {
            Token::Word(Word { value, quote_style: None, .. }) => Self::Word(value.to_ascii_uppercase()),
            Token::Word(Word { value, .. }) => Self::Name(value.clone()),
            Token::LParen => Self::Mark('('),
            Token::RParen => Self::Mark(')'),
            Token::LBracket => Self::Mark('['),
            Token::RBracket => Self::Mark(']'),
            Token::Comma => Self::Mark(','),
            Token::Period => Self::Mark('.'),
            Token::Eq => Self::Mark('='),
            Token::Mul => Self::Mark('*'),
            _ => Self::Other,
        }
    }

    /// The word, if it is one without quotes.
    #[must_use]
    pub fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }
}

/// Words in upper case, without names in quotes.
pub fn words(pieces: &[Piece]) -> impl Iterator<Item = &str> {
    pieces.iter().filter_map(Piece::word)
}

/// What a statement is, as far as transactions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One that may stand beside others in a transaction.
    Plain,
    /// One that PostgreSQL refuses in a transaction, such as CREATE INDEX CONCURRENTLY.
    Alone,
    /// BEGIN or START TRANSACTION.
    Begin,
    /// COMMIT or END.
    Commit,
    /// Another one that ends or prepares a transaction.
    Control,
}

/// Why a text is no list of statements.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unreadable {
    /// It ends within a string, a comment or the like.
    #[error("{0}")]
    Text(String),
    /// A command of psql, which no server knows.
    #[error("line {0}: a command of psql (a line that begins with \\) is no SQL: take it out")]
    Psql(u64),
    /// Rows that only psql can send.
    #[error("line {0}: COPY ... FROM STDIN has its rows from psql: write INSERTs")]
    Copy(u64),
    /// Rows that only psql would take.
    #[error("line {0}: COPY ... TO STDOUT has psql take its rows, and nobody is there who would: take it out")]
    CopyOut(u64),
}

/// The statements of a text, in their order.
///
/// # Errors
/// What of it is no SQL that a server could be sent.
pub fn split(text: &str) -> Result<Vec<Statement>, Unreadable> {
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, text).with_unescape(false).tokenize_with_location();
    let tokens = tokens.map_err(|error| Unreadable::Text(error.to_string()))?;
    let place = Places::of(text);
    let mut found = Vec::new();
    let mut current = Current::default();
    for token in &tokens {
        if matches!(token.token, Token::Whitespace(_) | Token::EOF) {
            continue;
        }
        if matches!(token.token, Token::Backslash) && current.first.is_none() {
            return Err(Unreadable::Psql(token.span.start.line));
        }
        if token.token == Token::SemiColon && current.depth == 0 && current.parentheses == 0 {
            found.extend(current.end(text, &place)?);
            current = Current::default();
            continue;
        }
        current.add(token);
    }
    found.extend(current.end(text, &place)?);
    Ok(found)
}

/// The statement that is being read.
#[derive(Default)]
struct Current {
    first: Option<Location>,
    last: Option<Location>,
    pieces: Vec<Piece>,
    /// In how many bodies of BEGIN ATOMIC, and CASEs in them, this is.
    depth: u32,
    /// In how many parentheses of a rule, whose commands have semicolons between them.
    parentheses: u32,
}

impl Current {
    fn add(&mut self, token: &TokenWithSpan) {
        self.first.get_or_insert(token.span.start);
        self.last = Some(token.span.end);
        let piece = Piece::of(&token.token);
        match &piece {
            Piece::Mark('(') if self.makes("RULE") => self.parentheses += 1,
            Piece::Mark(')') => self.parentheses = self.parentheses.saturating_sub(1),
            Piece::Word(word) => match word.as_str() {
                "ATOMIC" if self.is_after_begin() && (self.makes("FUNCTION") || self.makes("PROCEDURE")) => {
                    self.depth += 1;
                }
                "CASE" if self.depth > 0 => self.depth += 1,
                "END" => self.depth = self.depth.saturating_sub(1),
                _ => {}
            },
            _ => {}
        }
        self.pieces.push(piece);
    }

    fn is_after_begin(&self) -> bool {
        self.pieces.iter().rev().find_map(Piece::word) == Some("BEGIN")
    }

    /// Whether it makes such a thing.
    fn makes(&self, what: &str) -> bool {
        let mut begin = words(&self.pieces).take(4);
        begin.next() == Some("CREATE") && begin.any(|word| word == what)
    }

    fn end(self, text: &str, place: &Places) -> Result<Option<Statement>, Unreadable> {
        let (Some(first), Some(last)) = (self.first, self.last) else { return Ok(None) };
        let words: Vec<&str> = words(&self.pieces).collect();
        if words.first() == Some(&"COPY") && words.contains(&"STDIN") {
            return Err(Unreadable::Copy(first.line));
        }
        if words.first() == Some(&"COPY") && words.contains(&"STDOUT") {
            return Err(Unreadable::CopyOut(first.line));
        }
        let text = text[place.offset(first)..place.offset(last)].to_owned();
        let kind = kind(&words);
        Ok(Some(Statement { text, line: first.line, kind, pieces: self.pieces }))
    }
}

fn kind(words: &[&str]) -> Kind {
    match words {
        ["BEGIN", ..] | ["START", "TRANSACTION", ..] => Kind::Begin,
        ["COMMIT", "PREPARED", ..] | ["PREPARE", "TRANSACTION", ..] => Kind::Control,
        ["COMMIT" | "END", ..] => Kind::Commit,
        ["ROLLBACK", "TO", ..] | ["ROLLBACK", "WORK" | "TRANSACTION", "TO", ..] => Kind::Plain,
        ["ROLLBACK" | "ABORT", ..] => Kind::Control,
        ["VACUUM", ..]
        | ["ALTER", "SYSTEM", ..]
        | ["CREATE" | "DROP", "DATABASE" | "TABLESPACE" | "SUBSCRIPTION", ..]
        | ["CLUSTER"] => Kind::Alone,
        // Its options come first.
        ["REINDEX", rest @ ..]
            if rest
                .iter()
                .find(|word| matches!(**word, "INDEX" | "TABLE" | "SCHEMA" | "DATABASE" | "SYSTEM"))
                .is_some_and(|what| matches!(*what, "SCHEMA" | "DATABASE" | "SYSTEM")) =>
        {
            Kind::Alone
        }
        ["ALTER", "DATABASE", rest @ ..] if rest.windows(2).any(|pair| pair == ["SET", "TABLESPACE"]) => Kind::Alone,
        ["ALTER", "SUBSCRIPTION", rest @ ..] if rest.contains(&"PUBLICATION") => Kind::Alone,
        ["CREATE" | "DROP" | "REINDEX" | "ALTER", rest @ ..] if rest.contains(&"CONCURRENTLY") => Kind::Alone,
        _ => Kind::Plain,
    }
}

/// Where each line of a text begins, in bytes.
struct Places<'a> {
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> Places<'a> {
    fn of(text: &'a str) -> Self {
        let next = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, lines: std::iter::once(0).chain(next).collect() }
    }

    /// The byte of a line and column, both from 1; a column is a character.
    fn offset(&self, at: Location) -> usize {
        let index = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(begin) = self.lines.get(index(at.line)) else { return self.text.len() };
        let mut characters = self.text[*begin..].char_indices().map(|(offset, _)| begin + offset);
        characters.nth(index(at.column)).unwrap_or(self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn texts(sql: &str) -> Vec<String> {
        split(sql).unwrap().into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn a_semicolon_ends_a_statement_only_where_it_is_one() {
        let sql = "-- a comment; with one\nCREATE TABLE \"a;b\" (name text DEFAULT ';');\n\
                   /* another; /* nested; */ */ INSERT INTO t VALUES (E'it\\'s; é', $x$a;b$x$);;\n\
                   DO $$ BEGIN RAISE NOTICE 'x;'; END $$;\n SELECT 'ü;' -- no end";
        let expected = [
            "CREATE TABLE \"a;b\" (name text DEFAULT ';')",
            "INSERT INTO t VALUES (E'it\\'s; é', $x$a;b$x$)",
            "DO $$ BEGIN RAISE NOTICE 'x;'; END $$",
            "SELECT 'ü;'",
        ];
        assert_eq!(texts(sql), expected);
        let lines: Vec<u64> = split(sql).unwrap().iter().map(|statement| statement.line).collect();
        assert_eq!(lines, [2, 3, 4, 5]);
        assert_eq!(texts("\r\nSELECT 1;\r\nSELECT 2;\r\n"), ["SELECT 1", "SELECT 2"]);
        assert!(texts(" -- nothing\n ; ; ").is_empty());
    }

    #[test]
    fn a_body_in_sql_is_one_statement() {
        let sql = "CREATE OR REPLACE FUNCTION f(a int) RETURNS int BEGIN ATOMIC \
                   SELECT CASE WHEN a > 1 THEN 2 ELSE 3 END; SELECT 4; END; SELECT 5";
        assert_eq!(texts(sql).len(), 2);
    }

    #[test]
    fn the_commands_of_a_rule_are_one_statement() {
        let sql =
            "CREATE RULE r AS ON INSERT TO a DO ALSO (DELETE FROM b; UPDATE c SET (n) = (1)); SELECT (1); SELECT 2";
        assert_eq!(texts(sql)[1..], ["SELECT (1)", "SELECT 2"]);
    }

    #[rstest]
    #[case("create index concurrently i on t (a)", Kind::Alone)]
    #[case("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)", Kind::Alone)]
    #[case("ALTER TABLE t DETACH PARTITION p CONCURRENTLY", Kind::Alone)]
    #[case("VACUUM ANALYZE t", Kind::Alone)]
    #[case("REINDEX (VERBOSE) DATABASE shop", Kind::Alone)]
    #[case("REINDEX SCHEMA public", Kind::Alone)]
    #[case("REINDEX TABLE database", Kind::Plain)]
    #[case("ALTER DATABASE shop SET TABLESPACE fast", Kind::Alone)]
    #[case("ALTER DATABASE shop SET timezone = 'UTC'", Kind::Plain)]
    #[case("ALTER SUBSCRIPTION s REFRESH PUBLICATION", Kind::Alone)]
    #[case("REFRESH MATERIALIZED VIEW CONCURRENTLY v", Kind::Plain)]
    #[case("CREATE INDEX i ON t (\"concurrently\")", Kind::Plain)]
    #[case("begin work", Kind::Begin)]
    #[case("END", Kind::Commit)]
    #[case("ROLLBACK", Kind::Control)]
    #[case("ROLLBACK TO SAVEPOINT a", Kind::Plain)]
    #[case("SAVEPOINT a", Kind::Plain)]
    #[case("PREPARE TRANSACTION 'a'", Kind::Control)]
    #[case("ALTER TYPE mood ADD VALUE 'glad'", Kind::Plain)]
    fn statements_are_told_apart(#[case] sql: &str, #[case] expected: Kind) {
        assert_eq!(split(sql).unwrap()[0].kind, expected);
    }

    #[rstest]
    #[case("SELECT 1;\n\\i other.sql", "line 2: a command of psql")]
    #[case("COPY t FROM STDIN;\n1\n\\.", "line 1: COPY ... FROM STDIN")]
    #[case("SELECT 1;\nCOPY (SELECT * FROM t) TO STDOUT", "line 2: COPY ... TO STDOUT")]
    #[case("copy t to stdout with (format csv)", "line 1: COPY ... TO STDOUT")]
    #[case("SELECT 'no end", "Unterminated string literal")]
    fn what_no_server_could_be_sent_is_told(#[case] sql: &str, #[case] told: &str) {
        let error = split(sql).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
