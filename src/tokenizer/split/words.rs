//! Splitters for patterns that know letters but not their case: gpt-2's, and the llama 3 and
//! Qwen family's.

use super::class::{LETTER, MARK, NUMBER, SPACE, Text};
use super::shared::{
    Contractions, Matcher, Tail, blanks, contraction, contraction_any_case, symbols,
};

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)`
///
/// A last blank before other text stays alone, with or without `|\s+` at the end.
#[derive(Clone, Copy, Debug)]
pub struct Gpt2;

impl Matcher for Gpt2 {
    fn match_at(&self, text: &Text<'_>, at: usize) -> usize {
        let taken = contraction(text, at);
        if taken > 0 {
            return at.wrapping_add(taken);
        }
        let start = if text.byte(at) == b' ' { at.wrapping_add(1) } else { at };
        let unit = text.unit(start);
        if unit.is(LETTER) {
            text.run(start, LETTER)
        } else if unit.is(NUMBER) {
            text.run(start, NUMBER)
        } else if unit.is_not(SPACE | LETTER | NUMBER) {
            text.run_not(start, SPACE | LETTER | NUMBER)
        } else {
            blanks(text, at, false)
        }
    }
}

/// `(?i:'s|..)|[^\r\n\p{L}\p{N}]?W+|\p{N}{1,D}| ?[^\s W \p{N}]+T|\s*[\r\n]+|\s+(?!\S)|\s+`
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// Which contractions come first.
    pub contractions: Contractions,
    /// Whether W is `[\p{L}\p{M}]` and not `\p{L}`.
    pub marks: bool,
    /// D: the most digits of a piece.
    pub digits: usize,
    /// T: what may follow symbols.
    pub tail: Tail,
}

impl Matcher for Words {
    fn match_at(&self, text: &Text<'_>, at: usize) -> usize {
        let taken = contraction_any_case(text, at, self.contractions);
        if taken > 0 {
            return at.wrapping_add(taken);
        }
        let word = if self.marks { LETTER | MARK } else { LETTER };
        let first = text.unit(at);
        if first.is(word) {
            return text.run(at, word);
        }
        if first.is(NUMBER) {
            return digits(text, at, self.digits);
        }
        let next = at.wrapping_add(first.len);
        if !first.is_newline() && text.unit(next).is(word) {
            return text.run(next, word);
        }
        let end = symbols(text, at, SPACE | NUMBER | word, self.tail);
        if end > at { end } else { blanks(text, at, true) }
    }
}

/// `\p{N}{1,max}`
pub fn digits(text: &Text<'_>, at: usize, max: usize) -> usize {
    let (mut end, mut count) = (at, 0_usize);
    while count < max {
        let unit = text.unit(end);
        if !unit.is(NUMBER) {
            break;
        }
        end = end.wrapping_add(unit.len);
        count = count.wrapping_add(1);
    }
    end
}

/// `\p{N}{1,max}` alone; all other text is left in gaps.
#[derive(Clone, Copy, Debug)]
pub struct Digits {
    /// The most digits of a piece.
    pub max: usize,
}

impl Matcher for Digits {
    fn match_at(&self, text: &Text<'_>, at: usize) -> usize {
        digits(text, at, self.max)
    }
}
