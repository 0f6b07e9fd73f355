//! Splitter for any other pattern, over the linear-time engine of `regex`.
//!
//! That engine has no look-ahead. The patterns need it in one place, blanks before other text
//! (`\s+(?!\S)` and jais-2's powers of two), always as the last alternatives: there we match the
//! whole run with `\s+` and then choose how much of it to keep, which is what backtracking does.

use regex::Regex;

use super::class::{SPACE, Text};
use super::shared::keep_last;
use crate::error::{Error, Result};

/// Ends of patterns that look ahead, longest first, and what replaces each.
const TAILS: [(&str, &str, Keep); 3] = [
    (
        concat!(
            r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)",
            r"|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
        ),
        r"|\s+",
        Keep::PowerOfTwo,
    ),
    (r"|\s+(?!\S)|\s+", r"|\s+", Keep::AllButLast),
    (r"|\s+(?!\S)", r"|\s+", Keep::AllButLast),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    All,
    AllButLast,
    PowerOfTwo,
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct General {
    regex: Regex,
    keep: Keep,
    /// Whether blanks up to a newline are an alternative of their own, which looks at nothing.
    newlines: bool,
}

impl General {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// `ERR_INTERNAL`: patterns are data of this crate, so a bad one is our fault.
    pub fn new(pattern: &str) -> Result<Self> {
        let (mut text, mut keep) = (pattern.to_owned(), Keep::All);
        for (tail, instead, how) in TAILS {
            if let Some(head) = pattern.strip_suffix(tail) {
                (text, keep) = (format!("{head}{instead}"), how);
                break;
            }
        }
        let regex = Regex::new(&text).map_err(|e| Error::internal("tokenizer pattern", e))?;
        Ok(General { regex, keep, newlines: pattern.contains(r"\s*[\r\n]") })
    }

    /// Cuts a text into matches and the gaps between them; both become pieces.
    pub fn cut<'t>(&self, text: &'t str, emit: &mut dyn FnMut(&'t str)) {
        let mut piece = |from: usize, to: usize| {
            if let Some(piece) = text.get(from..to).filter(|piece| !piece.is_empty()) {
                emit(piece);
            }
        };
        let classes = Text::new(text);
        let (mut gap, mut at) = (0, 0);
        while let Some(found) = self.regex.find_at(text, at) {
            piece(gap, found.start());
            let mut start = found.start();
            let mut end = self.kept(&classes, start, found.end());
            // What is left of the blanks is cut the same way; so no blank is matched twice.
            while self.keep == Keep::PowerOfTwo && end > start && end < found.end() {
                let next = self.kept(&classes, end, found.end());
                if next == found.end() {
                    break;
                }
                piece(start, end);
                (start, end) = (end, next);
            }
            piece(start, end);
            gap = end;
            at = end;
            if end == found.start() {
                at = at.wrapping_add(classes.unit(at).len.max(1));
            }
            if at >= text.len() {
                break;
            }
        }
        piece(gap, text.len());
    }

    /// Where a match really ends. Only the last alternatives match two blanks at the start,
    /// apart from the one that ends with a newline.
    fn kept(&self, text: &Text<'_>, start: usize, end: usize) -> usize {
        let first = text.unit(start);
        let second = start.wrapping_add(first.len);
        let blanks = first.is(SPACE) && second < end && text.unit(second).is(SPACE);
        let newline = text.unit(text.before(end)).is_newline();
        if !blanks || (self.newlines && newline) {
            return end;
        }
        match self.keep {
            Keep::All => end,
            Keep::AllButLast => keep_last(text, start, end),
            Keep::PowerOfTwo => power_of_two(text, start, end),
        }
    }
}

/// The largest of 512, 256, ... 4, 2, 1 blanks that leaves a blank before other text.
fn power_of_two(text: &Text<'_>, start: usize, end: usize) -> usize {
    let open = end == text.len();
    // More than 513 blanks make no difference, so a long run is not counted again and again.
    let mut ends = Vec::with_capacity(514);
    let mut at = start;
    while at < end && ends.len() < 514 {
        at = at.wrapping_add(text.unit(at).len);
        ends.push(at);
    }
    let fits = |count: usize| ends.len() > count || (open && ends.len() == count);
    let kept = [512, 256, 128, 64, 32, 16, 8, 4, 2].into_iter().find(|count| fits(*count));
    ends.get(kept.unwrap_or(1).wrapping_sub(1)).copied().unwrap_or(end)
}
