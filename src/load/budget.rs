//! What a model may take of the memory that there is: options and the system's figures made into a
//! request that `place` decides on.

use crate::backend::{Backend, PAGE_TOKENS};
use crate::load::LoadOptions;
use crate::place::{self, Request};

/// What a model's memory is for, in bytes.
pub type Memory = place::Budget;

/// Rows over which the cost of one is measured.
const SAMPLE: usize = 256;
/// Rows of logits of a pass beside one a generation: those of one scored text.
const LOGITS_ROWS: usize = 64;

/// The request that is in load options, for a backend, where `available` bytes are left.
#[must_use]
pub fn request(
    options: &LoadOptions,
    backend: &dyn Backend,
    available: Option<u64>,
    max_concurrent: usize,
) -> Request {
    let limit = match (options.ram_bytes, available) {
        (Some(asked), Some(available)) => Some(asked.min(available)),
        (asked, available) => asked.or(available),
    };
    let bytes = |rows, selected| backend.activation_bytes(rows, selected) as u64;
    Request {
        limit,
        kv_bytes: options.kv_bytes,
        n_ctx: options.n_ctx,
        page_bytes: backend.page_bytes().max(1) as u64,
        page_tokens: PAGE_TOKENS,
        scratch_bytes: backend.scratch_bytes() as u64,
        row_bytes: bytes(SAMPLE, 0).div_ceil(SAMPLE as u64),
        selected_bytes: bytes(0, SAMPLE).div_ceil(SAMPLE as u64),
        logits_rows: LOGITS_ROWS,
        max_concurrent,
        rows: options.chunk,
        prefetch: options.prefetch,
        io: options.io,
    }
}
