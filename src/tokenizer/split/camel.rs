//! Splitter for patterns that cut between a lower-case and an upper-case letter: gpt-4o's family.

use super::class::{LETTER, LOWER, MARK, NUMBER, OTHER, SPACE, Text, UPPER};
use super::shared::{Contractions, Matcher, Tail, blanks, contraction_any_case, symbols};
use super::words::digits;

/// `P?U*L+C?|P?U+L*C?|\p{N}{1,D}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
///
/// with `U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, `L = [\p{Ll}\p{Lm}\p{Lo}\p{M}]` and
/// `P = [^\r\n\p{L}\p{N}]`.
#[derive(Clone, Copy, Debug)]
pub struct Camel {
    /// C: which contractions may end a word.
    pub contractions: Contractions,
    /// D: the most digits of a piece.
    pub digits: usize,
}

const U: u8 = UPPER | OTHER | MARK;
const L: u8 = LOWER | OTHER | MARK;

impl Matcher for Camel {
    fn match_at(&self, text: &Text<'_>, at: usize) -> usize {
        let first = text.unit(at);
        let prefix = !first.is_newline() && first.is_not(LETTER | NUMBER);
        let next = at.wrapping_add(first.len);
        let mut end = at;
        if prefix {
            end = lower_end(text, next).unwrap_or(at);
        }
        if end == at {
            end = lower_end(text, at).unwrap_or(at);
        }
        if end == at && prefix {
            let upper = text.run(next, U);
            end = if upper > next { upper } else { at };
        }
        if end == at {
            end = text.run(at, U);
        }
        if end > at {
            return end.wrapping_add(contraction_any_case(text, end, self.contractions));
        }
        if first.is(NUMBER) {
            return digits(text, at, self.digits);
        }
        let end = symbols(text, at, SPACE | LETTER | NUMBER, Tail::NewlinesSlashes);
        if end > at { end } else { blanks(text, at, true) }
    }
}

/// `U*L+` from `at`: a backtracking engine gives back of `U*` until `L+` finds one character, so
/// without a lower-case letter behind the run the match ends after the last one that is both.
fn lower_end(text: &Text<'_>, mut at: usize) -> Option<usize> {
    let mut both = None;
    loop {
        let unit = text.unit(at);
        if !unit.is(U) {
            break;
        }
        at = at.wrapping_add(unit.len);
        if unit.is(L) {
            both = Some(at);
        }
    }
    if text.unit(at).is(L) { Some(text.run(at, L)) } else { both }
}
