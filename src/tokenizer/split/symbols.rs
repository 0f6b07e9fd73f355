//! Splitters of DeepSeek V3's family: ASCII punctuation glued to ASCII words, and CJK runs.

use super::class::{LETTER, MARK, PUNCTUATION, SPACE, SYMBOL, Text};
use super::shared::{Matcher, Tail, blanks, skip_tail};

/// ``[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|``
/// `\s*[\r\n]+|\s+(?!\S)|\s+`; digits and control characters are left in gaps.
#[derive(Clone, Copy, Debug)]
pub struct DeepSeek;

const WORD: u8 = LETTER | MARK;

impl Matcher for DeepSeek {
    fn match_at(&self, text: &Text<'_>, at: usize) -> usize {
        let first = text.unit(at);
        let next = at.wrapping_add(first.len);
        if first.byte.is_ascii_punctuation() {
            let mut end = next;
            while text.byte(end).is_ascii_alphabetic() {
                end = end.wrapping_add(1);
            }
            if end > next {
                return end;
            }
        }
        if first.is(WORD) {
            return text.run(at, WORD);
        }
        if !first.is_newline()
            && first.is_not(LETTER | PUNCTUATION | SYMBOL)
            && text.unit(next).is(WORD)
        {
            return text.run(next, WORD);
        }
        let start = if first.byte == b' ' { next } else { at };
        let end = text.run(start, PUNCTUATION | SYMBOL);
        if end > start {
            return skip_tail(text, end, Tail::Newlines);
        }
        if first.is(SPACE) { blanks(text, at, true) } else { at }
    }
}

/// `[一-龥぀-ゟ゠-ヿ]+`
#[derive(Clone, Copy, Debug)]
pub struct Cjk;

impl Matcher for Cjk {
    fn match_at(&self, text: &Text<'_>, at: usize) -> usize {
        if !(0xE3..=0xE9).contains(&text.byte(at)) {
            return at;
        }
        let rest = text.str.get(at..).unwrap_or_default();
        let is = |c: &char| matches!(c, '一'..='龥' | '\u{3040}'..='\u{30FF}');
        at.wrapping_add(rest.chars().take_while(is).map(char::len_utf8).sum::<usize>())
    }
}
