//! A statement's tokens taken apart: names, and what stands between words and commas outside of parentheses.

use crate::database::migrate::statements::Piece;

/// A name with the schema before it, if that is there: as it is written, without quotes, and in lower case if it had none.
pub type Name = Vec<String>;

/// A name of one part.
pub fn part(piece: &Piece) -> Option<String> {
    match piece {
        Piece::Word(word) => Some(word.to_ascii_lowercase()),
        Piece::Name(name) => Some(name.clone()),
        _ => None,
    }
}

/// The name that stands first, and what comes after it.
pub fn name(pieces: &[Piece]) -> Option<(Name, &[Piece])> {
    let (first, mut rest) = pieces.split_first()?;
    let mut name = vec![part(first)?];
    while let [Piece::Mark('.'), next, after @ ..] = rest {
        name.push(part(next)?);
        rest = after;
    }
    Some((name, rest))
}

/// Whether they begin with these words.
pub fn begins(pieces: &[Piece], words: &[&str]) -> bool {
    words.len() <= pieces.len() && words.iter().zip(pieces).all(|(word, piece)| piece.word() == Some(*word))
}

/// What comes after these words, if they stand first; else all.
pub fn without<'a>(pieces: &'a [Piece], words: &[&str]) -> &'a [Piece] {
    if begins(pieces, words) { &pieces[words.len()..] } else { pieces }
}

/// Each piece outside of parentheses, brackets and CASE, with its place, up to the end of the parenthesis that all are in.
pub fn outside(pieces: &[Piece]) -> impl Iterator<Item = (usize, &Piece)> {
    let mut depth = 0_usize;
    let within = pieces.iter().enumerate().map_while(move |(place, piece)| {
        let closes = matches!(piece, Piece::Mark(')' | ']')) || piece.word() == Some("END");
        if closes {
            depth = depth.checked_sub(1)?;
        }
        let is_outside = depth == 0 && !closes;
        if matches!(piece, Piece::Mark('(' | '[')) || piece.word() == Some("CASE") {
            depth += 1;
        }
        Some(is_outside.then_some((place, piece)))
    });
    within.flatten()
}

/// The words among them.
pub fn words_outside(pieces: &[Piece]) -> Vec<&str> {
    outside(pieces).filter_map(|(_, piece)| piece.word()).collect()
}

/// What comes before the first of these words outside of parentheses, or before the end of the parenthesis that all are in, and
/// what comes from there on. That of DISTINCT FROM is none.
pub fn until<'a>(pieces: &'a [Piece], words: &[&str]) -> (&'a [Piece], &'a [Piece]) {
    let compares = |place: usize| place > 0 && pieces[place - 1].word() == Some("DISTINCT");
    let ends =
        |(place, piece): &(usize, &Piece)| piece.word().is_some_and(|word| words.contains(&word)) && !compares(*place);
    let end = outside(pieces).find(ends).map(|(place, _)| place);
    pieces.split_at(end.unwrap_or_else(|| closed(pieces)))
}

/// Where the parenthesis ends that all are in; where there is none, their end.
pub fn closed(pieces: &[Piece]) -> usize {
    let mut depth = 0_usize;
    for (place, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Mark('(') => depth += 1,
            Piece::Mark(')') if depth == 0 => return place,
            Piece::Mark(')') => depth -= 1,
            _ => {}
        }
    }
    pieces.len()
}

/// What stands between separators outside of parentheses.
pub fn split(pieces: &[Piece], separates: impl Fn(&Piece) -> bool) -> Vec<&[Piece]> {
    let mut parts = Vec::new();
    let mut begin = 0;
    for (place, _) in outside(pieces).filter(|(_, piece)| separates(piece)) {
        parts.push(&pieces[begin..place]);
        begin = place + 1;
    }
    parts.push(&pieces[begin..]);
    parts
}

/// The same of commas.
pub fn between_commas(pieces: &[Piece]) -> Vec<&[Piece]> {
    split(pieces, |piece| *piece == Piece::Mark(','))
}
