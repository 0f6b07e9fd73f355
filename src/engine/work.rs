//! What the engine steps: a generation or a score, with its sequence and its place in the order.

use crate::engine::answer::{Answer, End};
use crate::engine::command::Overflow;
use crate::engine::kv::pages::Pool;
use crate::engine::kv::sequence::Sequence;
use crate::engine::score::Score;
use crate::error::{Code, Error, Result};

/// Something to evaluate, in the order of arrival: who came first is the oldest.
pub struct Work {
    /// Number in the order of arrival: its name while it lives.
    pub number: u64,
    /// Its tokens and pages.
    pub sequence: Sequence,
    /// Leading tokens that its session holds, too.
    pub common: usize,
    /// Where it stands.
    pub stage: Stage,
    /// What becomes of the logits.
    pub task: Task,
}

/// Where a work stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for its turn.
    Queued,
    /// It is stepped, unless its consumer stalls.
    Running,
    /// Its pages went to older ones; it is evaluated again when there is room.
    Starved,
}

/// What becomes of the logits.
pub enum Task {
    /// They continue a text.
    Answer(Box<Answer>),
    /// They judge one.
    Score(Score),
}

impl Work {
    /// Makes room for one more token if the context is full. `Ok(false)`: there is none to be had.
    /// Errors: `ERR_CONTEXT_OVERFLOW` if it holds more than the context can.
    pub fn make_room(&mut self, n_ctx: usize, pool: &mut Pool) -> Result<bool> {
        let overflow = match &self.task {
            Task::Answer(answer) => answer.overflow(),
            Task::Score(_) => Overflow::Error,
        };
        let held = self.sequence.tokens.len();
        if let Overflow::Shift { keep } = overflow {
            while self.sequence.tokens.len() >= n_ctx && self.sequence.shift(keep, pool) {
                self.common = self.common.min(keep);
            }
        }
        if self.sequence.tokens.len() > n_ctx {
            return Err(context_overflow(held, n_ctx));
        }
        Ok(self.sequence.tokens.len() < n_ctx)
    }

    /// Tokens to evaluate before there is something to draw, or to reply.
    #[must_use]
    pub fn pending(&self) -> usize {
        let wanted = match self.task {
            Task::Answer(_) => self.sequence.tokens.len(),
            // Nothing follows the last token whose likelihood it would tell.
            Task::Score(_) => self.sequence.tokens.len().saturating_sub(1),
        };
        wanted.saturating_sub(self.sequence.evaluated())
    }

    /// Whether the row at `position` has to give logits.
    #[must_use]
    pub fn wants_logits(&self, position: usize) -> bool {
        match self.task {
            Task::Answer(_) => position + 1 == self.sequence.tokens.len(),
            Task::Score(_) => true,
        }
    }

    /// Whether its consumer reads too slowly to step it.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        match &self.task {
            Task::Answer(answer) => !answer.events.is_writable(),
            Task::Score(_) => false,
        }
    }

    /// Whether nobody waits for it any more.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        match &self.task {
            Task::Answer(answer) => answer.events.is_abandoned(),
            Task::Score(score) => score.is_cancelled(),
        }
    }
}

/// How a work ends.
pub enum Fate {
    /// Well; a session keeps what it has.
    Resolved(End),
    /// With an error; a session is as it was before.
    Rejected(Error),
}

/// `ERR_CONTEXT_OVERFLOW` for so many tokens.
#[must_use]
pub fn context_overflow(tokens: usize, n_ctx: usize) -> Error {
    let text = format!(
        "{tokens} tokens are more than the context holds ({n_ctx}); shorten the prompt, raise \
         contextLength, or ask for overflow: 'shift'"
    );
    Error::new(Code::ContextOverflow, text).with("tokens", tokens).with("contextLength", n_ctx)
}
