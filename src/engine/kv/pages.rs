//! The pool of KV pages: who holds which, counted. A page that nobody holds any more goes to limbo
//! and is freed between passes, since a pass in flight may still write to it.

use crate::backend::{Backend, PageId};
use crate::error::Result;

/// Counts the owners of every page.
pub struct Pool {
    /// Owners of each page.
    owners: Vec<u32>,
    /// Pages without memory, the next to take last.
    free: Vec<PageId>,
    /// Pages with memory and no owner.
    limbo: Vec<PageId>,
    /// Pages that may have memory.
    most: usize,
}

impl Pool {
    /// A pool of `pages` free pages.
    #[must_use]
    pub fn new(pages: usize) -> Self {
        let mut pool = Pool { owners: Vec::new(), free: Vec::new(), limbo: Vec::new(), most: 0 };
        pool.resize(pages);
        pool
    }

    /// Another number of pages; those in use stay.
    pub fn resize(&mut self, pages: usize) {
        let more = u32::try_from(pages).unwrap_or(u32::MAX);
        let have = self.owners.len() as u32;
        self.most = pages;
        if more > have {
            self.owners.resize(more as usize, 0);
            // The old ones go first.
            self.free.splice(0..0, (have..more).rev().map(PageId));
        }
    }

    /// A page with memory and one owner; none if the pool is empty. Only between passes.
    pub fn take(&mut self, backend: &mut dyn Backend) -> Result<Option<PageId>> {
        self.settle(backend);
        if self.available() == 0 {
            return Ok(None);
        }
        let Some(page) = self.free.pop() else { return Ok(None) };
        if let Err(error) = backend.page_commit(page) {
            self.free.push(page);
            return Err(error);
        }
        self.set_owners(page, 1);
        Ok(Some(page))
    }

    /// One owner more.
    pub fn share(&mut self, page: PageId) {
        let owners = self.owners(page);
        debug_assert!(owners > 0, "page {page:?} has no owner to share with");
        self.set_owners(page, owners + 1);
    }

    /// One owner less.
    pub fn release(&mut self, page: PageId) {
        let owners = self.owners(page);
        debug_assert!(owners > 0, "page {page:?} is released too often");
        self.set_owners(page, owners.saturating_sub(1));
        if owners == 1 {
            self.limbo.push(page);
        }
    }

    /// Frees what is in limbo. Only between passes.
    pub fn settle(&mut self, backend: &mut dyn Backend) {
        for page in self.limbo.drain(..) {
            backend.page_free(page);
            self.free.push(page);
        }
    }

    /// Owners of a page.
    #[must_use]
    pub fn owners(&self, page: PageId) -> u32 {
        self.owners.get(page.0 as usize).copied().unwrap_or(0)
    }

    /// Pages that can be taken.
    #[must_use]
    pub fn available(&self) -> usize {
        self.most.saturating_sub(self.used())
    }

    /// Pages with memory.
    #[must_use]
    pub fn committed(&self) -> usize {
        self.owners.len() - self.free.len()
    }

    /// Pages with an owner.
    #[must_use]
    pub fn used(&self) -> usize {
        self.owners.len() - self.free.len() - self.limbo.len()
    }

    /// Pages with several owners.
    #[must_use]
    pub fn shared(&self) -> usize {
        self.owners.iter().filter(|owners| **owners > 1).count()
    }

    /// All pages.
    #[must_use]
    pub fn total(&self) -> usize {
        self.most
    }

    fn set_owners(&mut self, page: PageId, owners: u32) {
        if let Some(slot) = self.owners.get_mut(page.0 as usize) {
            *slot = owners;
        }
    }
}
