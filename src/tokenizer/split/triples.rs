//! Splitters that group digits by three from the right, which patterns write with look-ahead.

use regex::Regex;

use crate::error::{Error, Result};

/// How the groups are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// `\p{N}` in threes from the right (afmoe).
    Numbers,
    /// `\d{1,3}(?=(?:\d{3})*\b)`: a run before a letter is left in a gap.
    BeforeBoundary,
    /// `(?=(\d{3})+(?!\d))`: cuts before each group of three; what is around stays glued.
    Points,
}

/// A splitter for digits; all other text is left in gaps.
#[derive(Clone, Debug)]
pub struct Triples {
    grouping: Grouping,
    run: Regex,
    word: Regex,
}

impl Triples {
    /// Compiles the classes.
    ///
    /// # Errors
    /// `ERR_INTERNAL`, if a class of ours were wrong.
    pub fn new(grouping: Grouping) -> Result<Self> {
        let regex = |p: &str| Regex::new(p).map_err(|e| Error::internal("tokenizer pattern", e));
        let run = if grouping == Grouping::Numbers { r"\p{N}+" } else { r"\d+" };
        // What the `\b` of Oniguruma calls a word.
        let word = r"^[\p{L}\p{M}\p{N}\p{Pc}]";
        Ok(Triples { grouping, run: regex(run)?, word: regex(word)? })
    }

    /// Cuts a text into groups and the gaps between them; both become pieces.
    pub fn cut<'t>(&self, text: &'t str, emit: &mut dyn FnMut(&'t str)) {
        let mut from = 0;
        let mut cut_at = |at: usize| {
            if let Some(piece) = text.get(from..at).filter(|piece| !piece.is_empty()) {
                emit(piece);
            }
            from = at;
        };
        for run in self.run.find_iter(text) {
            let glued = self.grouping == Grouping::BeforeBoundary
                && text.get(run.end()..).is_some_and(|rest| self.word.is_match(rest));
            if glued {
                continue;
            }
            if self.grouping != Grouping::Points {
                cut_at(run.start());
            }
            let mut left = run.as_str().chars().count();
            for (offset, _) in run.as_str().char_indices() {
                if left.is_multiple_of(3) {
                    cut_at(run.start().wrapping_add(offset));
                }
                left = left.wrapping_sub(1);
            }
            if self.grouping != Grouping::Points {
                cut_at(run.end());
            }
        }
        cut_at(text.len());
    }
}
