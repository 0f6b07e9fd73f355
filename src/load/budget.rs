//! What a model's memory is for: a pure function of the plan, of what was asked for and of what
//! there is. Refuses what does not fit, with the smallest budget that would work.

use crate::backend::PAGE_TOKENS;
use crate::error::{Code, Error, Result};
use crate::load::LoadOptions;
use crate::plan::Plan;

/// Rows of a pass at most.
const PASS_ROWS: u64 = 512;
/// Rows of logits of a pass at most: those of one scored text.
const LOGITS_ROWS: u64 = 64;
/// Values that live together, in widths of the widest: x, its norm, q, k, v, gate, up, down and the
/// quantised copies of two of them.
const LIVE_VALUES: u64 = 8;
/// Tokens that a context may hold at most: far beyond any model, and exact as an f32.
const N_CTX_MAX: usize = 1 << 24;

/// What a model's memory is for, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What it may take; none if neither the caller nor the system says.
    pub limit: Option<u64>,
    /// Weights, all mapped.
    pub weights: u64,
    /// The KV cache when it is full.
    pub kv: u64,
    /// Activations of the largest pass, estimated.
    pub activations: u64,
}

/// What was asked for, and what there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// Bytes that this process may still use; none: unknown.
    pub available: Option<u64>,
    /// Bytes that the model may take.
    pub ram_bytes: Option<u64>,
    /// Of those, for the KV cache.
    pub kv_bytes: Option<u64>,
    /// Tokens that a session may hold.
    pub n_ctx: Option<usize>,
    /// Bytes of a page of the KV cache.
    pub page_bytes: u64,
}

impl Request {
    /// The request that is in load options.
    #[must_use]
    pub fn of(options: &LoadOptions, page_bytes: usize) -> Self {
        Request {
            available: None,
            ram_bytes: options.ram_bytes,
            kv_bytes: options.kv_bytes,
            n_ctx: options.n_ctx,
            page_bytes: page_bytes.max(1) as u64,
        }
    }
}

/// What memory is for, and how many tokens a session may hold: what was asked for; else the trained
/// length, as far as the KV cache's budget goes, which is a quarter of all unless it was given.
///
/// # Errors
/// `ERR_INSUFFICIENT_MEMORY`, `ERR_INVALID_ARG` for an impossible context length.
pub fn place(plan: &Plan, request: &Request) -> Result<(Memory, usize)> {
    let limit = match (request.ram_bytes, request.available) {
        (Some(asked), Some(available)) => Some(asked.min(available)),
        (asked, available) => asked.or(available),
    };
    let weights = plan.weights.iter().map(|weight| weight.extent.bytes).sum();
    let activations = activations(plan);
    let fixed = activations.saturating_add(weights);
    let n_ctx = match request.n_ctx {
        Some(n_ctx) if n_ctx == 0 || n_ctx > N_CTX_MAX => return Err(bad_context(n_ctx)),
        Some(n_ctx) => n_ctx,
        None => {
            let quarter = |limit: u64| (limit / 4).min(limit.saturating_sub(fixed));
            let kv = request.kv_bytes.unwrap_or(limit.map_or(u64::MAX, quarter));
            let pages = usize::try_from(kv / request.page_bytes).unwrap_or(usize::MAX);
            pages.saturating_mul(PAGE_TOKENS).max(PAGE_TOKENS).min(plan.n_ctx_train)
        }
    };
    let kv = (n_ctx.div_ceil(PAGE_TOKENS) as u64).saturating_mul(request.page_bytes);
    if let Some(budget) = request.kv_bytes.filter(|budget| *budget < kv) {
        return Err(short("memory.kv", kv, budget));
    }
    let required = fixed.saturating_add(kv);
    if let Some(limit) = limit.filter(|limit| *limit < required) {
        return Err(short("ram", required, limit));
    }
    Ok((Memory { limit, weights, kv, activations }, n_ctx))
}

/// Activations of the largest pass: an estimate from above.
fn activations(plan: &Plan) -> u64 {
    let narrow = plan.values.iter().filter(|value| !value.selected);
    let widest = narrow.map(|value| value.width).max().unwrap_or(0) as u64;
    let rows = PASS_ROWS.min(plan.n_ctx_train as u64);
    let logits = LOGITS_ROWS.min(rows) * plan.n_vocab as u64;
    (rows * widest * LIVE_VALUES + logits) * size_of::<f32>() as u64
}

fn short(memory: &str, required: u64, available: u64) -> Error {
    let (needs, has) = (mebibytes(required), mebibytes(available));
    let text = format!(
        "{memory}: needs {needs} MiB, {has} MiB are available; a smaller contextLength or model \
         needs less"
    );
    Error::new(Code::InsufficientMemory, text)
        .with("memory", memory)
        .with("required", required)
        .with("available", available)
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

fn bad_context(n_ctx: usize) -> Error {
    let text = format!("contextLength: expected 1..={N_CTX_MAX}, got {n_ctx}");
    Error::new(Code::InvalidArg, text)
        .with("name", "contextLength")
        .with("expected", format!("1..={N_CTX_MAX}"))
        .with("received", n_ctx.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Extent, ValueId, Weight};
    use crate::quant::TensorType;

    /// A plan with a weight of 1000 bytes, and no values.
    fn plan() -> Plan {
        let extent = Extent { part: 0, offset: 0, bytes: 1000 };
        let weight =
            Weight { name: "w".to_owned(), kind: TensorType::F32, shape: vec![250], extent };
        Plan {
            weights: vec![weight],
            values: Vec::new(),
            groups: Vec::new(),
            kv_layers: Vec::new(),
            logits: ValueId(0),
            n_vocab: 0,
            n_embd: 1,
            n_ctx_train: 1000,
        }
    }

    fn check(request: Request, expected: Result<(u64, usize), (&str, u64)>) {
        let request = Request { page_bytes: 100, ..request };
        match (place(&plan(), &request), expected) {
            (Ok((memory, n_ctx)), Ok(expected)) => assert_eq!((memory.kv, n_ctx), expected),
            (Err(error), Err((memory, required))) => {
                assert_eq!(error.fields.first(), Some(&("memory", memory.into())), "{error}");
                assert_eq!(error.fields.get(1), Some(&("required", required.into())), "{error}");
            }
            (got, _) => panic!("{request:?}: {got:?}"),
        }
    }

    #[test]
    fn context_is_trained_length_or_what_memory_holds() {
        let with = |available, ram_bytes, kv_bytes, n_ctx| Request {
            available,
            ram_bytes,
            kv_bytes,
            n_ctx,
            page_bytes: 100,
        };
        check(with(None, None, None, None), Ok((3200, 1000)));
        check(with(Some(1 << 30), None, None, None), Ok((3200, 1000)));
        check(with(Some(4000), None, None, None), Ok((1000, 320)));
        check(with(Some(1 << 30), Some(1450), None, None), Ok((300, 96)));
        check(with(None, None, Some(250), None), Ok((200, 64)));
        check(with(None, None, None, Some(5000)), Ok((15_700, 5000)));
        check(with(Some(8000), None, None, Some(1500)), Ok((4700, 1500)));
        check(with(Some(8000), None, None, Some(5000)), Err(("ram", 16_700)));
        check(with(None, None, Some(50), None), Err(("memory.kv", 100)));
        check(with(Some(1 << 30), Some(900), None, None), Err(("ram", 1100)));
        check(with(None, Some(1100), None, None), Ok((100, 32)));
    }

    #[test]
    fn impossible_contexts_are_refused() {
        for n_ctx in [0, usize::MAX] {
            let request = Request { n_ctx: Some(n_ctx), page_bytes: 1, ..Request::default() };
            let error = place(&plan(), &request).expect_err("refused");
            assert_eq!(error.code, Code::InvalidArg);
        }
    }
}
