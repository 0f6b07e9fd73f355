//! How large a pass may be, and how that changes while generations run: between two passes, with
//! the weights that move along.

use crate::engine::command::Reply;
use crate::engine::inbox::closed;
use crate::engine::thread::Engine;
use crate::engine::work::{Task, Work};
use crate::error::{Code, Error, Result};

/// What memory was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Prompt rows of a pass.
    pub rows: usize,
    /// Generations stepped together.
    pub generations: usize,
    /// Rows of logits beside one for each generation.
    pub logits_rows: usize,
    /// Pages of the KV cache that may be committed together; at least a sequence's worth.
    pub kv_pages: usize,
    /// Whether weights are read in every pass: then many rows share one from the first on.
    pub streams: bool,
}

/// Moves weights between two passes. Asks its argument now and then whether to give up.
pub type Mover = Box<dyn FnOnce(&mut dyn FnMut() -> bool) -> Result<()> + Send>;

/// Other bounds that wait for the pass in flight.
pub(super) struct Change {
    bounds: Bounds,
    threads: Option<Option<usize>>,
    mover: Mover,
    reply: Reply<()>,
}

impl Change {
    pub fn new(
        bounds: Bounds,
        threads: Option<Option<usize>>,
        mover: Mover,
        reply: Reply<()>,
    ) -> Self {
        Change { bounds, threads, mover, reply }
    }

    /// It comes too late.
    pub fn refuse(self, reason: &Error) {
        (self.reply)(Err(reason.clone()));
    }
}

impl Engine {
    /// Does what had to wait for the end of a pass. What a pass needs is given back before weights
    /// move; after an error the bounds are what they were.
    pub(super) fn change(&mut self) {
        while let Some(Change { bounds, threads, mover, reply }) = self.changes.pop_front() {
            self.backend.trim();
            let outcome = self.may_keep(bounds.kv_pages).and_then(|()| {
                mover(&mut || {
                    self.attend();
                    self.is_closing
                })
            });
            let outcome = outcome.and_then(|()| match threads {
                Some(threads) => self.backend.set_threads(threads),
                None => Ok(()),
            });
            let outcome =
                outcome.map_err(|error| if self.is_closing { closed("model") } else { error });
            if outcome.is_ok() {
                self.bounds = bounds;
                self.pool.resize(bounds.kv_pages);
                self.pace.bound(bounds.rows, bounds.streams);
            }
            self.publish();
            reply(outcome);
        }
    }

    /// Whether so many pages are enough for what sessions hold.
    fn may_keep(&self, pages: usize) -> Result<()> {
        let (used, each) = (self.pool.used(), self.backend.page_bytes() as u64);
        if used <= pages {
            return Ok(());
        }
        let (required, available) = (used as u64 * each, pages as u64 * each);
        let text = format!(
            "memory.kv: sessions hold {required} bytes, {available} are to be left; close or \
             rewind some first"
        );
        let error = Error::new(Code::InsufficientMemory, text).with("memory", "memory.kv");
        Err(error.with("required", required).with("available", available))
    }

    /// Rows that a work may have in the next pass, as one of `scores` that share what there is for
    /// logits.
    pub(super) fn pending_in_pass(&self, work: &Work, scores: usize) -> usize {
        match work.task {
            Task::Answer(_) => work.pending(),
            Task::Score(_) => work.pending().min(1 + self.bounds.logits_rows / scores.max(1)),
        }
    }
}
