//! A backend over another one, whose groups a test runs itself: to change what they read, or to
//! look at what comes out. Everything else goes through.

use node_chord::backend::{Backend, Batch, PageId, Probe};
use node_chord::error::Result;
use node_chord::plan::GroupId;
use node_chord::store::Lease;

/// Runs a group of the batch on the backend below.
pub trait RunGroup: Send {
    fn run(
        &mut self,
        inner: &mut dyn Backend,
        batch: &Batch,
        group: GroupId,
        weights: &Lease<'_>,
        probe: Option<Probe<'_>>,
    ) -> Result<()>;
}

pub struct Over<R> {
    pub inner: Box<dyn Backend>,
    pub batch: Batch,
    pub how: R,
}

impl<R: RunGroup> Over<R> {
    pub fn new(inner: Box<dyn Backend>, how: R) -> Self {
        Over { inner, batch: Batch::default(), how }
    }
}

impl<R: RunGroup> Backend for Over<R> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn tier(&self) -> &str {
        self.inner.tier()
    }

    fn page_commit(&mut self, page: PageId) -> Result<()> {
        self.inner.page_commit(page)
    }

    fn page_free(&mut self, page: PageId) {
        self.inner.page_free(page);
    }

    fn page_copy(&mut self, from: PageId, to: PageId, tokens: usize) -> Result<()> {
        self.inner.page_copy(from, to, tokens)
    }

    fn page_bytes(&self) -> usize {
        self.inner.page_bytes()
    }

    fn scratch_bytes(&self) -> usize {
        self.inner.scratch_bytes()
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.batch.clone_from(batch);
        self.inner.begin(batch)
    }

    fn run(&mut self, group: GroupId, weights: &Lease<'_>, probe: Option<Probe<'_>>) -> Result<()> {
        self.how.run(self.inner.as_mut(), &self.batch, group, weights, probe)
    }

    fn logits(&self) -> &[f32] {
        self.inner.logits()
    }
}
