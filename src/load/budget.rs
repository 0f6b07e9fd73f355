//! What a model may take of the memory that there is: options and the system's figures made into a
//! request that `place` decides on.

use crate::backend::{Backend, PAGE_TOKENS};
use crate::error::{Code, Error, Result};
use crate::load::{LoadOptions, memory};
use crate::place::{self, Request};

/// What a model's memory is for, in bytes.
pub type Memory = place::Budget;

/// Rows over which the cost of one is measured.
const SAMPLE: usize = 256;
/// Rows of logits of a pass at most beside one a generation: those of scored texts.
const LOGITS_ROWS: usize = 64;
/// Generations stepped together by default: decodes share the reading of the weights, and more
/// than this rarely wait at once in one process.
const MAX_CONCURRENT: usize = 8;

/// The request that is in load options, for a backend, without a limit.
#[must_use]
pub fn request(options: &LoadOptions, backend: &dyn Backend) -> Request {
    let bytes = |rows, selected| backend.activation_bytes(rows, selected) as u64;
    Request {
        limit: None,
        kv_bytes: options.kv_bytes,
        n_ctx: options.n_ctx,
        page_bytes: backend.page_bytes().max(1) as u64,
        page_tokens: PAGE_TOKENS,
        scratch_bytes: backend.scratch_bytes() as u64,
        row_bytes: bytes(SAMPLE, 0).div_ceil(SAMPLE as u64),
        selected_bytes: bytes(0, SAMPLE).div_ceil(SAMPLE as u64),
        logits_rows: LOGITS_ROWS,
        generations_least: options.max_concurrent.unwrap_or(1),
        generations: generations(options),
        rows: options.chunk,
        prefetch: options.prefetch,
        io: options.io,
    }
}

/// Generations stepped together at most.
#[must_use]
pub fn generations(options: &LoadOptions) -> usize {
    options.max_concurrent.unwrap_or(MAX_CONCURRENT)
}

/// The budget that was asked for, as far as there is room.
#[must_use]
pub fn limit(asked: Option<u64>, room: Option<u64>) -> Option<u64> {
    match (asked, room) {
        (Some(asked), Some(room)) => Some(asked.min(room)),
        (asked, room) => asked.or(room),
    }
}

/// Refuses a budget that this machine or container does not have.
///
/// # Errors
/// `ERR_INSUFFICIENT_MEMORY`.
pub fn check_machine(asked: Option<u64>) -> Result<()> {
    let Some((asked, total)) = asked.zip(memory::total()).filter(|(asked, all)| asked > all) else {
        return Ok(());
    };
    let text = format!(
        "memory.ram: {} were asked for, this machine or container has {}; ask for less, or for \
         'auto'",
        place::human(asked),
        place::human(total)
    );
    let error = Error::new(Code::InsufficientMemory, text).with("memory", "ram");
    Err(error.with("required", asked).with("available", total))
}

/// Refuses memory of a device that is not there.
///
/// # Errors
/// `ERR_INSUFFICIENT_MEMORY`.
pub fn check_devices(vram: Option<u64>) -> Result<()> {
    let Some(asked) = vram else { return Ok(()) };
    let text = format!(
        "memory.vram: {} were asked for, and there is no GPU that this build can use; leave it out",
        place::human(asked)
    );
    let error = Error::new(Code::InsufficientMemory, text).with("memory", "vram");
    Err(error.with("required", asked).with("available", 0u64))
}
