//! Two backends side by side over the same tokens, step by step: the first step whose result is off
//! by more than its op may be, the first number that is not finite, and the worst of every step.
//! What a step may be off by is its own share plus what its inputs were off by already, so that
//! rounding which adds up over layers is not blamed on the last of them.

mod compare;
mod tolerance;

use std::sync::Arc;

use crate::backend::{Backend, Batch, PAGE_TOKENS, PageId, Row};
use crate::error::{Code, Error, Result};
use crate::plan::{GroupId, Plan, ValueId};
use crate::store::Lease;
use compare::Compared;

/// How weights are got: calls back with a lease on one group.
pub type Weights<'a> = dyn Fn(GroupId, &mut dyn FnMut(&Lease<'_>) -> Result<()>) -> Result<()> + 'a;

/// What and how to compare.
pub struct Setup<'a> {
    /// What both backends run.
    pub plan: Arc<Plan>,
    /// Where the weights come from.
    pub weights: &'a Weights<'a>,
    /// The text, as ids.
    pub tokens: &'a [u32],
    /// Rows of a pass; 0: 32.
    pub rows: usize,
    /// What rounding of stored keys and values is allowed: 0 for f32, 2^-11 for f16, 2^-8 for bf16.
    pub kv_rounding: f64,
    /// Asked before every group; `true` gives up with `ABORT_ERR`.
    pub cancelled: &'a dyn Fn() -> bool,
}

/// How one step compares, over all rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepReport {
    /// `layer 3 attention`.
    pub group: String,
    /// Index of the step in its group.
    pub step: usize,
    /// `linear`.
    pub op: &'static str,
    /// Name of the value written: `layer 3 attn_q`.
    pub output: String,
    /// Weights read, with their types: `blk.3.attn_q.weight Q4_K`.
    pub weights: Vec<String>,
    /// Rows that both backends showed; 0 if one of them fused the step away.
    pub rows: usize,
    /// |a - b| / |a| over the rows of a pass, L2: the worst pass.
    pub relative: f64,
    /// The same of the worst single row.
    pub relative_row: f64,
    /// Position of that row.
    pub position: u32,
    /// What `relative` might have been in the pass where it came nearest to that.
    pub allowed: f64,
    /// Rows left out because the two sent them to other experts of nearly equal score.
    pub rerouted: usize,
}

/// The first result that is too far off.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Index into [`Report::steps`].
    pub index: usize,
    /// The step in words.
    pub step: String,
    /// |a - b| / |a|, L2, over the rows of the pass.
    pub relative: f64,
    /// What it might have been.
    pub allowed: f64,
    /// Position of the row that is furthest off.
    pub position: u32,
    /// Index in that row of the number that is furthest off.
    pub element: usize,
    /// That number by the first backend.
    pub a: f32,
    /// And by the second.
    pub b: f32,
}

/// The first number that is NaN or infinite.
#[derive(Clone, Debug, PartialEq)]
pub struct NotFinite {
    /// Index into [`Report::steps`].
    pub index: usize,
    /// The step in words.
    pub step: String,
    /// Which backend.
    pub backend: String,
    /// Position of the row.
    pub position: u32,
    /// Index in the row.
    pub element: usize,
    /// The number as text: `NaN`, `inf`, `-inf`.
    pub value: String,
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Name and tier of the first backend.
    pub a: String,
    /// Name and tier of the second.
    pub b: String,
    /// Tokens compared.
    pub tokens: usize,
    /// The first step that differs, in the order of computing.
    pub difference: Option<Difference>,
    /// The first number that is not finite.
    pub not_finite: Option<NotFinite>,
    /// Every step of the plan, in order.
    pub steps: Vec<StepReport>,
    /// Positions at which the two have another best token.
    pub other_best: Vec<u32>,
}

/// Runs both backends over the tokens.
///
/// # Errors
/// Whatever a backend or the weights fail with; `ERR_INVALID_ARG` for tokens beyond the vocabulary
/// or none; `ABORT_ERR`.
pub fn run(setup: &Setup<'_>, a: &mut dyn Backend, b: &mut dyn Backend) -> Result<Report> {
    check_tokens(setup)?;
    let mut compared = Compared::new(setup.plan.clone(), setup.kv_rounding, [names(a), names(b)]);
    let mut other_best = Vec::new();
    let mut pages: Vec<PageId> = Vec::new();
    let rows = if setup.rows == 0 { PAGE_TOKENS } else { setup.rows };
    for (index, tokens) in setup.tokens.chunks(rows).enumerate() {
        let start = index * rows;
        while pages.len() * PAGE_TOKENS < start + tokens.len() {
            let page = PageId(number(pages.len()));
            a.page_commit(page)?;
            b.page_commit(page)?;
            pages.push(page);
        }
        let batch = batch(tokens, start, &pages);
        a.begin(&batch)?;
        b.begin(&batch)?;
        compared.begin(number(start), tokens.len());
        for group in setup.plan.group_ids() {
            if (setup.cancelled)() {
                return Err(Error::new(Code::Abort, "the comparison was called off"));
            }
            let (of_a, of_b) = run_group(setup, group, a, b)?;
            compared.group(group, of_a, of_b);
        }
        let n_vocab = setup.plan.n_vocab;
        let best = a.logits().chunks_exact(n_vocab).zip(b.logits().chunks_exact(n_vocab));
        let differs = best.enumerate().filter(|(_, (a, b))| highest(a) != highest(b));
        other_best.extend(differs.map(|(row, _)| number(start + row)));
    }
    for page in pages {
        a.page_free(page);
        b.page_free(page);
    }
    Ok(compared.report(setup.tokens.len(), other_best))
}

/// What a probe saw of one group: index of the step, value, all rows.
type Seen = Vec<(usize, ValueId, Vec<f32>)>;

fn run_group(
    setup: &Setup<'_>,
    group: GroupId,
    a: &mut dyn Backend,
    b: &mut dyn Backend,
) -> Result<(Seen, Seen)> {
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    (setup.weights)(group, &mut |lease| {
        of_a = observe(group, lease, a)?;
        of_b = observe(group, lease, b)?;
        Ok(())
    })?;
    Ok((of_a, of_b))
}

fn observe(group: GroupId, lease: &Lease<'_>, backend: &mut dyn Backend) -> Result<Seen> {
    let mut seen = Vec::new();
    let mut probe = |_, step, value, data: &[f32]| seen.push((step, value, data.to_vec()));
    backend.run(group, lease, Some(&mut probe))?;
    Ok(seen)
}

fn check_tokens(setup: &Setup<'_>) -> Result<()> {
    let expected = format!("one or more ids below {}", setup.plan.n_vocab);
    let received = match setup.tokens.iter().find(|id| **id as usize >= setup.plan.n_vocab) {
        Some(id) => id.to_string(),
        None if setup.tokens.is_empty() => "none".to_owned(),
        None => return Ok(()),
    };
    let text = format!("tokens: expected {expected}, got {received}");
    let error = Error::new(Code::InvalidArg, text).with("name", "tokens");
    Err(error.with("expected", expected).with("received", received))
}

fn batch(tokens: &[u32], start: usize, pages: &[PageId]) -> Batch {
    let row = |(index, token): (usize, &u32)| Row {
        token: *token,
        position: number(start + index),
        sequence: 0,
        wants_logits: true,
    };
    let rows = tokens.iter().enumerate().map(row).collect();
    Batch { rows, sequences: vec![pages.to_vec()] }
}

fn names(backend: &dyn Backend) -> String {
    format!("{} ({})", backend.name(), backend.tier())
}

/// Index of the highest number, the first of equals.
fn highest(row: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if value > row.get(best).unwrap_or(&f32::NAN) {
            best = index;
        }
    }
    best
}

/// Token and page counts stay far below 2^32.
#[allow(clippy::cast_possible_truncation, reason = "positions are 31 bits")]
fn number(count: usize) -> u32 {
    count as u32
}
