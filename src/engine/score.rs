//! Scoring a text: the log-probability of each of its tokens but the first, from the same passes as
//! everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::command::{Reply, TokenLogprob};
use crate::engine::logprobs::describe;
use crate::engine::sampler::check_finite;
use crate::engine::vocabulary::Vocabulary;
use crate::error::{Error, Result};

/// A text being scored.
pub struct Score {
    top: u32,
    cancelled: Arc<AtomicBool>,
    reply: Reply<Vec<TokenLogprob>>,
    scores: Vec<TokenLogprob>,
}

impl Score {
    /// Nothing scored yet.
    #[must_use]
    pub fn new(top: u32, cancelled: Arc<AtomicBool>, reply: Reply<Vec<TokenLogprob>>) -> Self {
        Score { top, cancelled, reply, scores: Vec::new() }
    }

    /// Whether the caller has given up.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Takes the logits of the token at `position`, which say how likely the next one was.
    /// Errors: `ERR_NUMERIC`.
    pub fn take(
        &mut self,
        logits: &[f32],
        tokens: &[u32],
        position: usize,
        words: &dyn Vocabulary,
    ) -> Result<()> {
        // A text whose pages were needed elsewhere is evaluated again from its beginning.
        if position < self.scores.len() {
            return Ok(());
        }
        check_finite(logits, position)?;
        if let Some(&next) = tokens.get(position + 1) {
            self.scores.push(describe(logits, next, self.top, words));
        }
        Ok(())
    }

    /// Answers with the scores.
    pub fn resolve(self) {
        (self.reply)(Ok(self.scores));
    }

    /// Answers with an error.
    pub fn reject(self, error: Error) {
        (self.reply)(Err(error));
    }
}
