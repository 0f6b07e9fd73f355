//! Cutting text into the pieces that a vocabulary was trained on: one splitter a pattern, chosen
//! by the pattern's text. Knows patterns; does not know which model uses which.

mod camel;
mod class;
mod general;
mod shared;
mod symbols;
mod triples;
mod words;

#[cfg(test)]
mod tests;

use camel::Camel;
use general::General;
use shared::{Contractions, Tail};
use symbols::{Cjk, DeepSeek};
use triples::{Grouping, Triples};
use words::{Digits, Gpt2, Words};

use super::patterns;
use crate::error::Result;

/// One pattern made ready.
#[derive(Clone, Debug)]
pub enum Step {
    /// Letters whose case does not matter, gpt-2.
    Gpt2(Gpt2),
    /// Letters whose case does not matter, later families.
    Words(Words),
    /// Letters whose case matters.
    Camel(Camel),
    /// DeepSeek V3.
    DeepSeek(DeepSeek),
    /// Runs of Chinese and Japanese.
    Cjk(Cjk),
    /// Digits in ones or threes from the left.
    Digits(Digits),
    /// Digits in threes from the right.
    Triples(Box<Triples>),
    /// Anything else.
    General(Box<General>),
}

impl Step {
    /// The splitter for a pattern: a hand-written one if there is one, else the general engine.
    ///
    /// # Errors
    /// `ERR_INTERNAL` for a pattern that the engine cannot take.
    pub fn new(pattern: &str) -> Result<Self> {
        let words = |contractions, marks, digits, tail| {
            Step::Words(Words { contractions, marks, digits, tail })
        };
        Ok(match pattern {
            patterns::GPT2 => Step::Gpt2(Gpt2),
            patterns::LLAMA3 => words(Contractions::AnyCase, false, 3, Tail::Newlines),
            patterns::QWEN2 => words(Contractions::AnyCase, false, 1, Tail::Newlines),
            patterns::QWEN35 => words(Contractions::AnyCase, true, 1, Tail::Newlines),
            patterns::MINICPM5 => words(Contractions::AnyCase, false, usize::MAX, Tail::Newlines),
            patterns::SEED => words(Contractions::AnyCase, false, 1, Tail::None),
            patterns::UFAKZEKA => words(Contractions::None, false, 1, Tail::Newlines),
            patterns::GPT4O => {
                Step::Camel(Camel { contractions: Contractions::AnyCase, digits: 3 })
            }
            patterns::YOUTU => Step::Camel(Camel { contractions: Contractions::Ascii, digits: 1 }),
            patterns::TEKKEN => Step::Camel(Camel { contractions: Contractions::None, digits: 1 }),
            patterns::DEEPSEEK_V3 => Step::DeepSeek(DeepSeek),
            patterns::CJK => Step::Cjk(Cjk),
            patterns::DIGIT => Step::Digits(Digits { max: 1 }),
            patterns::DIGITS_3 => Step::Digits(Digits { max: 3 }),
            patterns::DIGITS => Step::Digits(Digits { max: usize::MAX }),
            patterns::TRIPLES_AFMOE => Step::triples(Grouping::Numbers)?,
            patterns::TRIPLES_BOUNDARY => Step::triples(Grouping::BeforeBoundary)?,
            patterns::TRIPLES_POINTS => Step::triples(Grouping::Points)?,
            _ => Step::General(Box::new(General::new(pattern)?)),
        })
    }

    fn triples(grouping: Grouping) -> Result<Self> {
        Ok(Step::Triples(Box::new(Triples::new(grouping)?)))
    }

    /// Cuts one piece into smaller ones.
    fn cut<'t>(&self, text: &'t str, emit: &mut dyn FnMut(&'t str)) {
        match self {
            Step::Gpt2(matcher) => shared::cut(matcher, text, emit),
            Step::Words(matcher) => shared::cut(matcher, text, emit),
            Step::Camel(matcher) => shared::cut(matcher, text, emit),
            Step::DeepSeek(matcher) => shared::cut(matcher, text, emit),
            Step::Cjk(matcher) => shared::cut(matcher, text, emit),
            Step::Digits(matcher) => shared::cut(matcher, text, emit),
            Step::Triples(triples) => triples.cut(text, emit),
            Step::General(general) => general.cut(text, emit),
        }
    }
}

/// Applies the steps one after another, each to the pieces of the one before. The depth of the
/// recursion is the number of steps, at most six.
pub fn pieces<'t>(steps: &[Step], text: &'t str, emit: &mut dyn FnMut(&'t str)) {
    match steps.split_first() {
        None => emit(text),
        Some((step, rest)) => step.cut(text, &mut |piece| pieces(rest, piece, emit)),
    }
}
