//! A sequence: tokens, and the pages that hold keys and values of the first of them. The tokens are
//! the truth; pages may be taken away at any time between passes and are then evaluated again.
//!     tokens   t0 ... t31 | t32 ... t63 | t64 t65 t66     (evaluated: 65)
//!     pages    page 7       page 2        page 9          (page 2 may belong to a fork, too)

use crate::backend::{Backend, PAGE_TOKENS, PageId};
use crate::engine::kv::pages::Pool;
use crate::error::Result;

/// Tokens with what was evaluated of them. Must be [`Sequence::clear`]ed before it is dropped.
#[derive(Debug, Default)]
pub struct Sequence {
    /// All tokens.
    pub tokens: Vec<u32>,
    /// Pages in order; at least as many as `evaluated` tokens need.
    pages: Vec<PageId>,
    /// Tokens at the front whose keys and values are valid.
    evaluated: usize,
}

impl Sequence {
    /// Tokens of which nothing is evaluated.
    #[must_use]
    pub fn of(tokens: Vec<u32>) -> Self {
        Sequence { tokens, pages: Vec::new(), evaluated: 0 }
    }

    /// Tokens at the front whose keys and values are valid.
    #[must_use]
    pub fn evaluated(&self) -> usize {
        self.evaluated
    }

    /// The pages, in order.
    #[must_use]
    pub fn pages(&self) -> &[PageId] {
        &self.pages
    }

    /// A second sequence that shares the pages.
    #[must_use]
    pub fn fork(&self, pool: &mut Pool) -> Self {
        let mut fork = Sequence::of(self.tokens.clone());
        fork.adopt(self, usize::MAX, pool);
        fork
    }

    /// Shares the pages of at most `limit` evaluated tokens of `other`, which begin both sequences.
    /// Gives up its own.
    pub fn adopt(&mut self, other: &Sequence, limit: usize, pool: &mut Pool) {
        self.clear(pool);
        self.evaluated = other.evaluated.min(limit).min(self.tokens.len());
        debug_assert_eq!(self.tokens[..self.evaluated], other.tokens[..self.evaluated]);
        self.pages.extend_from_slice(&other.pages[..pages_of(self.evaluated)]);
        for &page in &self.pages {
            pool.share(page);
        }
    }

    /// Forgets all tokens from `length` on.
    pub fn truncate(&mut self, length: usize, pool: &mut Pool) {
        self.tokens.truncate(length);
        self.invalidate(length, pool);
    }

    /// What was evaluated from `length` on counts no longer; the tokens stay.
    pub fn invalidate(&mut self, length: usize, pool: &mut Pool) {
        self.evaluated = self.evaluated.min(length);
        for page in self.pages.drain(pages_of(self.evaluated)..) {
            pool.release(page);
        }
    }

    /// Gives all pages up; the tokens stay.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.invalidate(0, pool);
    }

    /// Gives the last page up.
    pub fn pop_page(&mut self, pool: &mut Pool) {
        let rest = self.pages.len().saturating_sub(1);
        self.invalidate(rest * PAGE_TOKENS, pool);
    }

    /// Drops the oldest half of what follows the first `keep` tokens; `false` if nothing can go.
    pub fn shift(&mut self, keep: usize, pool: &mut Pool) -> bool {
        let keep = keep.min(self.tokens.len());
        let count = ((self.tokens.len() - keep) / 2).max(1);
        if keep + count > self.tokens.len() || count == self.tokens.len() {
            return false;
        }
        self.tokens.drain(keep..keep + count);
        self.invalidate(keep, pool);
        true
    }

    /// Gets pages for `count` more tokens, its own where it will write. `false` if the pool is
    /// empty; what it got so far stays. Only between passes.
    pub fn reserve(
        &mut self,
        count: usize,
        pool: &mut Pool,
        backend: &mut dyn Backend,
    ) -> Result<bool> {
        let first = self.evaluated / PAGE_TOKENS;
        for index in first..pages_of(self.evaluated + count) {
            let Some(&page) = self.pages.get(index) else {
                let Some(page) = pool.take(backend)? else { return Ok(false) };
                self.pages.push(page);
                continue;
            };
            if pool.owners(page) > 1 {
                let Some(copy) = pool.take(backend)? else { return Ok(false) };
                // At once in its place, so that it is not lost if the copy fails.
                self.pages[index] = copy;
                let valid = self.evaluated.saturating_sub(index * PAGE_TOKENS).min(PAGE_TOKENS);
                let copied = if valid > 0 { backend.page_copy(page, copy, valid) } else { Ok(()) };
                pool.release(page);
                if let Err(error) = copied {
                    self.invalidate(index * PAGE_TOKENS, pool);
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    /// `count` more tokens have been evaluated.
    pub fn advance(&mut self, count: usize) {
        self.evaluated += count;
        debug_assert!(self.evaluated <= self.tokens.len());
        debug_assert!(pages_of(self.evaluated) <= self.pages.len());
    }
}

/// Pages that so many tokens need.
#[must_use]
pub fn pages_of(tokens: usize) -> usize {
    tokens.div_ceil(PAGE_TOKENS)
}
