//! What runs a plan. A backend is called once per group; it does not know sessions, text, sampling
//! or the name of an architecture.

pub mod cpu;
pub mod finite;
mod kv_type;
pub mod reference;

pub use kv_type::{KV_BLOCK, KvType, rotated_together};

use crate::error::Result;
use crate::plan::{GroupId, ValueId};
use crate::quant::TensorType;
use crate::store::Lease;

/// Tokens that one page of the KV cache holds, in every layer.
pub const PAGE_TOKENS: usize = 32;

/// A page of the KV cache, numbered by the engine; the backend owns its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageId(pub u32);

/// One token of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Token id, below `n_vocab`.
    pub token: u32,
    /// Position in its sequence; k and v are written there.
    pub position: u32,
    /// Index into [`Batch::sequences`].
    pub sequence: u32,
    /// Whether this row's logits are wanted.
    pub wants_logits: bool,
}

/// Rows that share a pass. Rows of one sequence stand together, positions ascending; a row sees the
/// positions `0..=position` of its own sequence and nothing else.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The rows.
    pub rows: Vec<Row>,
    /// Pages of each sequence: position p lies in page `p / PAGE_TOKENS`, all committed.
    pub sequences: Vec<Vec<PageId>>,
}

impl Batch {
    /// Rows that want logits.
    #[must_use]
    pub fn selected(&self) -> usize {
        self.rows.iter().filter(|row| row.wants_logits).count()
    }
}

/// Sees values as they are computed: (group, index of the step in it, value, all rows).
pub type Probe<'a> = &'a mut dyn FnMut(GroupId, usize, ValueId, &[f32]);

/// Runs the steps of a plan over batches. One pass: `begin`, `run` for every group in order,
/// `logits`.
/// A row's result is the same bits whatever else the batch holds.
pub trait Backend: Send {
    /// `reference`, `cpu`, `cuda:0` ...
    fn name(&self) -> &str;

    /// Kernel tier or device, for reports.
    fn tier(&self) -> &str;

    /// Name of the kernel that multiplies with weights of a type, if it has names for them.
    fn kernel(&self, kind: TensorType) -> Option<String> {
        let _ = kind;
        None
    }

    /// Makes memory for a page. Errors: `ERR_INSUFFICIENT_MEMORY`.
    fn page_commit(&mut self, page: PageId) -> Result<()>;

    /// Gives a page's memory back.
    fn page_free(&mut self, page: PageId);

    /// Copies the first `tokens` tokens of a page to another; both are committed.
    fn page_copy(&mut self, from: PageId, to: PageId, tokens: usize) -> Result<()>;

    /// Bytes of one page over all layers.
    fn page_bytes(&self) -> usize;

    /// Bytes held for activations and scratch now.
    fn scratch_bytes(&self) -> usize;

    /// Bytes that the activations of a pass of so many rows take, of which some give logits.
    fn activation_bytes(&self, rows: usize, selected: usize) -> usize {
        let _ = (rows, selected);
        0
    }

    /// Computes with so many threads from now on, none: as it chooses; only between passes. Changes
    /// no result. Errors: `ERR_INVALID_ARG` for an impossible number; then nothing has changed.
    fn set_threads(&mut self, threads: Option<usize>) -> Result<()> {
        let _ = threads;
        Ok(())
    }

    /// Gives back what the largest pass so far has needed; only between passes.
    fn trim(&mut self) {}

    /// Starts a pass. Checks the batch: tokens in range, pages committed.
    fn begin(&mut self, batch: &Batch) -> Result<()>;

    /// Runs one group. `probe`, if given, sees every step's output; fused steps may be left out.
    fn run(&mut self, group: GroupId, weights: &Lease<'_>, probe: Option<Probe<'_>>) -> Result<()>;

    /// Logits of the rows that want them, in batch order: `[selected, n_vocab]`.
    fn logits(&self) -> &[f32];
}
