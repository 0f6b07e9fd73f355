//! Where each group lives: a pure function of a plan, of budgets and of what was asked for. It
//! knows no threads, no files and no clock. What does not fit is refused with the smallest budget
//! that works.

mod context;
mod passes;
pub mod rates;
mod ring;

pub use passes::{ROWS_MAX, Size};
pub use ring::Fill;

use passes::Passes;

use crate::error::{Code, Error, Result};
use crate::plan::Plan;
use crate::plan::residency::{ALIGN, Residence, Units, align_up};

/// How weights come from files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// Mapped if all fits, else direct.
    #[default]
    Auto,
    /// Mapped, or refused.
    Mapped,
    /// Read around the page cache.
    Direct,
    /// Read through the page cache.
    Buffered,
}

/// What was asked for, and what there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// Bytes that the model may take; none: nobody says.
    pub limit: Option<u64>,
    /// Of those, for the KV cache.
    pub kv_bytes: Option<u64>,
    /// Tokens that a session may hold; none: the trained length, as far as the KV cache goes.
    pub n_ctx: Option<usize>,
    /// Bytes of a page of the KV cache.
    pub page_bytes: u64,
    /// Tokens of a page.
    pub page_tokens: usize,
    /// Activations and scratch whatever a pass holds.
    pub scratch_bytes: u64,
    /// Activations of a row.
    pub row_bytes: u64,
    /// Activations of a row that gives logits, beside those.
    pub selected_bytes: u64,
    /// Rows of logits beside one for each generation, at most: those of scored texts.
    pub logits_rows: usize,
    /// Generations stepped together at least: each adds a row to a pass.
    pub generations_least: usize,
    /// The same at most.
    pub generations: usize,
    /// Prompt rows of a pass, if fixed.
    pub rows: Option<usize>,
    /// Groups read ahead; none: as many as keep the disk busy.
    pub prefetch: Option<usize>,
    /// How weights come.
    pub io: Io,
}

/// What memory is for, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// What it may take; none if neither the caller nor the system says.
    pub limit: Option<u64>,
    /// Weights that stay: mapped, pinned, cached experts.
    pub weights: u64,
    /// Weights on their way through.
    pub ring: u64,
    /// The KV cache when it is full.
    pub kv: u64,
    /// Activations of the largest pass.
    pub activations: u64,
    /// What is held whatever a pass has.
    pub scratch: u64,
    /// Rows on their way from gathered weights.
    pub staging: u64,
}

impl Budget {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        let parts =
            [self.weights, self.ring, self.kv, self.activations, self.scratch, self.staging];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

/// Where everything lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// None: all weights are mapped.
    pub streamed: Option<Residence>,
    /// What memory is for.
    pub budget: Budget,
    /// Tokens that a session may hold.
    pub n_ctx: usize,
    /// Pages of the KV cache, for all sessions together.
    pub kv_pages: usize,
    /// How large a pass may be.
    pub size: Size,
    /// Bytes of weights that a pass reads once all pins are there; of experts, what a row's take
    /// on average if the cache holds any of them alike.
    pub bytes_per_pass: u64,
    /// The smallest budget that works with these options.
    pub minimum: u64,
}

/// Places a plan's groups.
///
/// # Errors
/// `ERR_INSUFFICIENT_MEMORY` with the smallest budget that works; `ERR_INVALID_ARG` for an
/// impossible context length.
pub fn place(plan: &Plan, units: &Units, request: &Request) -> Result<Placement> {
    let context = context::Context::of(plan, request)?;
    let limit = request.limit.unwrap_or(u64::MAX);
    let passes = Passes::of(plan, request, &context);
    let all = weight_bytes(plan);
    let fixed = request.scratch_bytes.saturating_add(passes.bytes(passes.least()));
    let least = context.least.saturating_add(fixed);
    let fill = ring::Fill::of(units, request.prefetch);
    let streams = request.io != Io::Mapped;
    let staging = if streams { staging_bytes(units, passes.least()) } else { 0 };
    let streamed = fill.least() + staging;
    // A context may be shortened somewhat for the sake of weights that stay, not crippled.
    let left = limit.checked_sub(all.saturating_add(fixed));
    let is_roomy = left.is_some_and(|left| left >= context.roomy(limit));
    let (weights, maps) = match request.io {
        Io::Mapped => (all, true),
        Io::Auto => (streamed.min(all), all <= streamed || is_roomy),
        Io::Direct | Io::Buffered => (streamed, false),
    };
    let minimum = weights.saturating_add(least);
    let base = if maps { all.saturating_add(least) } else { minimum };
    let Some(mut spare) = limit.checked_sub(minimum).and(limit.checked_sub(base)) else {
        return Err(short("ram", minimum, limit));
    };
    // What is left goes to a context of some length, to passes, to the rest of the context.
    let some = spare.min(context.roomy(limit) - context.least);
    spare -= some;
    let size = passes.take(limit, &mut spare);
    let more = spare.min(context.wanted(limit) - context.roomy(limit));
    spare -= more;
    let kv_bytes = context.least + some + more;
    let n_ctx = context.tokens(kv_bytes);
    let kv_pages = context.pages(kv_bytes);
    let budget = Budget {
        limit: request.limit,
        weights: all,
        kv: kv_pages as u64 * request.page_bytes.max(1),
        activations: passes.bytes(size),
        scratch: request.scratch_bytes,
        ..Budget::default()
    };
    let mapped =
        Placement { streamed: None, budget, n_ctx, kv_pages, size, bytes_per_pass: 0, minimum };
    if maps {
        return Ok(mapped);
    }
    let held = streamed.saturating_add(spare);
    let staging = staging_bytes(units, size).min(held - fill.least());
    let filled = fill.fill(held - staging).ok_or_else(|| short("ram", minimum, limit))?;
    Ok(Placement {
        streamed: Some(Residence { staging_bytes: staging, ..filled.residence }),
        budget: Budget { weights: filled.weights, ring: filled.ring, staging, ..budget },
        bytes_per_pass: filled.bytes_per_pass,
        ..mapped
    })
}

/// All weights as they lie in the files.
fn weight_bytes(plan: &Plan) -> u64 {
    plan.weights.iter().map(|weight| weight.extent.bytes).fold(0, u64::saturating_add)
}

/// Room for the rows of a pass from gathered weights, each with the pages that it touches; at least
/// one row's, at most a few megabytes, which take several turns then.
fn staging_bytes(units: &Units, size: Size) -> u64 {
    const MOST: u64 = 4 << 20;
    let rows = size.rows + size.generations;
    let widest = units.gathered.iter().map(|(_, bytes)| align_up(*bytes) + ALIGN).max();
    widest.map_or(0, |one| (rows as u64 * one).min(MOST.max(one)))
}

fn short(memory: &str, required: u64, available: u64) -> Error {
    let text = format!(
        "{memory}: needs {}, budget is {}; a smaller contextLength or model needs less",
        human(required),
        human(available)
    );
    Error::new(Code::InsufficientMemory, text)
        .with("memory", memory)
        .with("required", required)
        .with("available", available)
}

/// Bytes for people, in the largest unit that leaves two digits.
#[must_use]
pub fn human(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}
