//! How long a context may be, and what its KV cache takes.

use super::{Request, short};
use crate::error::{Code, Error, Result};
use crate::plan::Plan;

/// Tokens that a context may hold at most: far beyond any model, and exact as an f32.
const N_CTX_MAX: usize = 1 << 24;
/// Tokens that most uses get by with: a context that nobody asked for is made no shorter than this
/// to keep all weights in memory.
const N_CTX_ROOMY: usize = 4096;
/// A context that nobody asked for is not made shorter than this for the weights' sake.
const N_CTX_LEAST: usize = 256;

/// What the KV cache may and must take.
pub struct Context {
    page_bytes: u64,
    page_tokens: usize,
    /// Tokens of a full session.
    full: usize,
    /// Bytes at least.
    pub least: u64,
    /// Bytes at most; none: a quarter of all.
    most: Option<u64>,
}

impl Context {
    /// From what was asked for.
    pub fn of(plan: &Plan, request: &Request) -> Result<Self> {
        let page_tokens = request.page_tokens.max(1);
        let page_bytes = request.page_bytes.max(1);
        let full = request.n_ctx.unwrap_or(plan.n_ctx_train.clamp(1, N_CTX_MAX));
        if full == 0 || full > N_CTX_MAX {
            return Err(bad_context(full));
        }
        let mut context = Context { page_bytes, page_tokens, full, least: 0, most: None };
        let one = context.bytes(1);
        let whole = context.bytes(full);
        context.least = match (request.n_ctx, request.kv_bytes) {
            (Some(_), Some(budget)) if budget < whole => {
                return Err(short("memory.kv", whole, budget));
            }
            (None, Some(budget)) if budget < one => return Err(short("memory.kv", one, budget)),
            // Whole pages, shared by as many sessions as they hold.
            (_, Some(budget)) => budget - budget % page_bytes,
            (Some(_), None) => whole,
            (None, None) => context.bytes(full.min(N_CTX_LEAST)),
        };
        if request.n_ctx.is_some() || request.kv_bytes.is_some() {
            context.most = Some(context.least);
        }
        Ok(context)
    }

    /// Bytes of a cache for so many tokens.
    pub fn bytes(&self, tokens: usize) -> u64 {
        (tokens.div_ceil(self.page_tokens) as u64).saturating_mul(self.page_bytes)
    }

    /// Tokens that so many bytes hold, up to a full session.
    pub fn tokens(&self, bytes: u64) -> usize {
        self.pages(bytes).saturating_mul(self.page_tokens).min(self.full)
    }

    /// Tokens that all sequences hold together, at most.
    pub fn most_tokens(&self) -> usize {
        self.most_pages().saturating_mul(self.page_tokens)
    }

    /// Pages at most.
    pub fn most_pages(&self) -> usize {
        self.full.div_ceil(self.page_tokens).max(self.pages(self.most.unwrap_or(0)))
    }

    /// Pages that so many bytes hold.
    pub fn pages(&self, bytes: u64) -> usize {
        usize::try_from(bytes / self.page_bytes).unwrap_or(usize::MAX)
    }

    /// Bytes that it should have of a budget: a full session, at most a quarter.
    pub fn wanted(&self, limit: u64) -> u64 {
        self.most.unwrap_or_else(|| self.bytes(self.full).min(limit / 4).max(self.least))
    }

    /// Bytes that it should have at least where more of them would push weights out of memory.
    pub fn roomy(&self, limit: u64) -> u64 {
        let some = self.bytes(self.full.min(N_CTX_ROOMY));
        self.wanted(limit).min(some.max(self.least))
    }
}

fn bad_context(n_ctx: usize) -> Error {
    let text = format!("contextLength: expected 1..={N_CTX_MAX}, got {n_ctx}");
    Error::new(Code::InvalidArg, text)
        .with("name", "contextLength")
        .with("expected", format!("1..={N_CTX_MAX}"))
        .with("received", n_ctx.to_string())
}
