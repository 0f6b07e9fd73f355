//! SentencePiece's merging by score: neighbours that together are a token merge, the best score
//! first, then the leftmost.

use super::lexicon::Lexicon;
use super::merge::{Merger, NONE, Pairs};
use super::source::Source;
use super::vocab::{Spelling, Vocab};
use crate::error::Result;

/// A merger by score.
#[derive(Clone, Debug)]
pub struct Spm {
    lexicon: Lexicon,
    /// The order of the scores, best first, for each token.
    ranks: Vec<u32>,
}

impl Spm {
    /// Reads the scores.
    ///
    /// # Errors
    /// `ERR_TOKENIZER_INVALID` if there are none.
    pub fn new(source: &Source<'_>, vocab: &Vocab) -> Result<Self> {
        let scores = source.scores.ok_or_else(|| {
            source.error("scores", "is missing, and this tokenizer merges by score")
        })?;
        let ranks = scores.iter().map(|score| rank(*score)).collect();
        Ok(Spm { lexicon: Lexicon::new(source, vocab, Spelling::Blanks), ranks })
    }

    /// Tokens by text.
    pub fn lexicon(&self) -> &Lexicon {
        &self.lexicon
    }

    /// Appends the tokens of one word.
    pub fn encode(&self, vocab: &Vocab, word: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        self.lexicon.symbols(vocab, word, merger);
        let pairs = Scores { spm: self, vocab, word: word.as_bytes() };
        merger.merge(&pairs, word.len(), |token, start, end| {
            self.lexicon.finish(word, token, start, end, out);
        });
    }
}

struct Scores<'a> {
    spm: &'a Spm,
    vocab: &'a Vocab,
    word: &'a [u8],
}

impl Pairs for Scores<'_> {
    fn pair(&self, _left: u32, _right: u32, start: usize, end: usize) -> (u32, u32) {
        let text = self.word.get(start..end).unwrap_or_default();
        match self.spm.lexicon.find(self.vocab, text) {
            Some(token) => (self.spm.ranks.get(token as usize).copied().unwrap_or(NONE), token),
            None => (NONE, NONE),
        }
    }
}

/// Finite scores as integers in falling order.
fn rank(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits(); // one zero only
    let rising = if bits >> 31 == 1 { !bits } else { bits | (1 << 31) };
    !rising
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_fall_with_the_score() {
        let scores = [f32::MAX, 3.5, 1.0, 0.0, -0.5, -1e9, f32::MIN];
        assert!(scores.windows(2).all(|pair| matches!(pair, [a, b] if rank(*a) < rank(*b))));
        assert_eq!(rank(-0.0), rank(0.0));
        assert!(rank(f32::MIN) < NONE);
    }
}
