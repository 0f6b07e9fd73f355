//! What the hand-written splitters share: contractions, blanks, punctuation, and the loop that
//! turns matches into pieces.

use super::class::{SPACE, Text};

/// Finds the match that starts at an offset; returns its end, or the offset itself for none.
/// The time of a failed attempt must not grow with the text.
pub trait Matcher {
    /// The end of the match at `at`.
    fn match_at(&self, text: &Text<'_>, at: usize) -> usize;
}

/// Cuts a text into matches and the gaps between them; both become pieces.
pub fn cut<'t>(matcher: &impl Matcher, text: &'t str, emit: &mut dyn FnMut(&'t str)) {
    let text = Text::new(text);
    let (mut gap, mut at) = (0, 0);
    let mut piece = |from: usize, to: usize| {
        if let Some(piece) = text.str.get(from..to).filter(|piece| !piece.is_empty()) {
            emit(piece);
        }
    };
    while at < text.len() {
        let end = matcher.match_at(&text, at);
        if end > at {
            piece(gap, at);
            piece(at, end);
            at = end;
            gap = end;
        } else {
            at = at.wrapping_add(text.unit(at).len.max(1));
        }
    }
    piece(gap, at);
}

/// `'s|'t|'re|'ve|'m|'ll|'d`: the bytes that it takes at `at`, or 0.
pub fn contraction(text: &Text<'_>, at: usize) -> usize {
    if text.byte(at) != b'\'' {
        return 0;
    }
    match (text.byte(at.wrapping_add(1)), text.byte(at.wrapping_add(2))) {
        (b's' | b't' | b'm' | b'd', _) => 2,
        (b'r' | b'v', b'e') | (b'l', b'l') => 3,
        _ => 0,
    }
}

/// Which contractions a pattern knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contractions {
    /// None.
    None,
    /// `(?:'[sS]|'[tT]|..)`
    Ascii,
    /// `(?i:'s|'t|..)`, where the long s is an s.
    AnyCase,
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`: the bytes that it takes at `at`, or 0.
pub fn contraction_any_case(text: &Text<'_>, at: usize, known: Contractions) -> usize {
    if text.byte(at) != b'\'' || known == Contractions::None {
        return 0;
    }
    let rest = at.wrapping_add(1);
    match (text.byte(rest) | 0x20, text.byte(rest.wrapping_add(1)) | 0x20) {
        (b's' | b't' | b'm' | b'd', _) => 2,
        (b'r' | b'v', b'e') | (b'l', b'l') => 3,
        _ if known == Contractions::Ascii => 0,
        _ if text.str.get(rest..).is_some_and(|rest| rest.starts_with('ſ')) => 3,
        _ => 0,
    }
}

/// What may follow punctuation within the piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    None,
    /// `[\r\n]*`
    Newlines,
    /// `[\r\n/]*`
    NewlinesSlashes,
}

/// ` ?[^..]+` and its tail: a run of characters that are none of `mask`, which holds the blanks.
pub fn symbols(text: &Text<'_>, at: usize, mask: u8, tail: Tail) -> usize {
    let start = if text.byte(at) == b' ' { at.wrapping_add(1) } else { at };
    let end = text.run_not(start, mask);
    if end == start { at } else { skip_tail(text, end, tail) }
}

/// The end of what may follow punctuation at `end`.
pub fn skip_tail(text: &Text<'_>, mut end: usize, tail: Tail) -> usize {
    while match text.byte(end) {
        b'\n' | b'\r' => tail != Tail::None,
        b'/' => tail == Tail::NewlinesSlashes,
        _ => false,
    } {
        end = end.wrapping_add(1);
    }
    end
}

/// `\s*[\r\n]+|\s+(?!\S)|\s+`, the first alternative only if `newlines`.
pub fn blanks(text: &Text<'_>, at: usize, newlines: bool) -> usize {
    let end = text.run(at, SPACE);
    if newlines && let Some(last) = last_newline(text, at, end) {
        return last.wrapping_add(1);
    }
    keep_last(text, at, end)
}

/// `\s+(?!\S)|\s+` for a run that is known: all of it at the end of the text, else all but the
/// last blank, else the one there is.
pub fn keep_last(text: &Text<'_>, at: usize, end: usize) -> usize {
    if end == text.len() || end == at {
        return end;
    }
    let last = text.before(end);
    if last > at { last } else { end }
}

fn last_newline(text: &Text<'_>, at: usize, end: usize) -> Option<usize> {
    let run = text.str.as_bytes().get(at..end)?;
    run.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')).map(|last| at.wrapping_add(last))
}
