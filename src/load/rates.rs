//! Measures what `place` predicts from: how fast this machine computes with each type of weights,
//! by running the backend itself on made-up weights, and how fast the disk gives a model's file.
//! Takes a fraction of a second; what was measured of the machine is kept.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::backend::cpu::{Config, Cpu};
use crate::backend::{Backend, Batch, PageId, Row};
use crate::error::{Code, Error, Result};
use crate::gguf::{Part, errno};
use crate::place::rates::WeightRate;
use crate::plan::residency::{Run, Units};
use crate::plan::{
    Extent, Group, GroupId, GroupKind, Op, Plan, Step, Value, ValueId, ValueKind, Weight, WeightId,
};
use crate::quant::TensorType;
use crate::store::Lease;
use crate::store::io::buffer::Buffer;
use crate::store::io::{self, Read};

/// Weights of a measurement: more than caches hold.
const SAMPLE_BYTES: u64 = 64 << 20;
/// Rows of the measurement of many.
const ROWS: usize = 64;
/// Steps in a row that show what one costs.
const STEPS: usize = 32;
/// Columns of those steps.
const STEP_WIDTH: usize = 64;
/// Times that each is measured; the best counts.
const TRIES: usize = 3;
/// A block of a read from disk, how many are read, and for how long at most.
const BLOCK: u64 = 1 << 20;
const BLOCKS: usize = 96;
const DISK_S: f64 = 0.25;
/// Reads on their way.
const DEPTH: usize = 8;
/// Bytes of made-up weights: halves, floats and scales of them are all small normal numbers.
const FILLER: u8 = 0x3c;

/// What is known of the machine: tier, threads and bytes say for whom.
static KNOWN: Mutex<Vec<(Key, WeightRate)>> = Mutex::new(Vec::new());

#[derive(Clone, PartialEq)]
struct Key {
    /// None: a step that computes nothing.
    kind: Option<TensorType>,
    columns: usize,
    bytes: u64,
    tier: String,
    threads: Option<usize>,
}

/// The rates of a plan's weights, and the seconds that a step takes.
///
/// # Errors
/// `ERR_INSUFFICIENT_MEMORY`.
pub fn of_plan(plan: &Plan, config: &Config, tier: &str) -> Result<(Vec<WeightRate>, f64)> {
    let mut known = KNOWN.lock();
    let mut find = |kind: Option<TensorType>, columns, bytes| -> Result<WeightRate> {
        let threads = config.threads;
        let key = Key { kind, columns, bytes, tier: tier.to_owned(), threads };
        if let Some((_, rate)) = known.iter().find(|(other, _)| *other == key) {
            return Ok(*rate);
        }
        let rate = match kind {
            Some(kind) => rate_of(kind, columns, bytes, config)?,
            None => step_rate(config)?,
        };
        known.push((key, rate));
        Ok(rate)
    };
    // The widest weight of a type stands for all of it.
    let kind_rate = |weight: &Weight| {
        let same = plan.weights.iter().filter(|other| other.kind == weight.kind);
        let largest = same.max_by_key(|other| other.extent.bytes);
        let columns = largest.and_then(|other| other.shape.last()).copied().unwrap_or(1);
        let all = plan.weights.iter().map(|w| w.extent.bytes).fold(0, u64::saturating_add);
        (columns, all.clamp(1 << 20, SAMPLE_BYTES))
    };
    let mut rates = Vec::with_capacity(plan.weights.len());
    for weight in &plan.weights {
        // Vectors cost what their step costs.
        if weight.shape.len() < 2 {
            rates.push(WeightRate { one: f64::MAX, many: f64::MAX });
            continue;
        }
        let (columns, bytes) = kind_rate(weight);
        rates.push(find(Some(weight.kind), columns, bytes)?);
    }
    let step = find(None, 0, 0)?;
    Ok((rates, 1.0 / step.one))
}

/// Bytes a second with one row and with many.
#[allow(clippy::cast_precision_loss, reason = "a rate")]
fn rate_of(kind: TensorType, columns: usize, bytes: u64, config: &Config) -> Result<WeightRate> {
    let row = row_bytes(kind, columns);
    let n_out = usize::try_from(bytes / row.max(1)).unwrap_or(1).max(16);
    let bytes = n_out as u64 * row;
    let plan = chain(kind, columns, n_out, 1, row);
    let one = best_of(&plan, 1, config)?;
    let many = best_of(&plan, ROWS, config)?;
    let bytes = bytes as f64;
    Ok(WeightRate { one: bytes / one, many: bytes * ROWS as f64 / many })
}

/// Steps a second, as the rate of one row.
#[allow(clippy::cast_precision_loss, reason = "a rate")]
fn step_rate(config: &Config) -> Result<WeightRate> {
    let row = row_bytes(TensorType::F32, STEP_WIDTH);
    let plan = chain(TensorType::F32, STEP_WIDTH, STEP_WIDTH, STEPS, row);
    let seconds = best_of(&plan, 1, config)?;
    let rate = STEPS as f64 / seconds.max(1e-9);
    Ok(WeightRate { one: rate, many: rate })
}

fn row_bytes(kind: TensorType, columns: usize) -> u64 {
    kind.row_bytes(columns).unwrap_or(columns * 4) as u64
}

/// An embedding and `steps` products, each on the one before.
fn chain(kind: TensorType, columns: usize, n_out: usize, steps: usize, row: u64) -> Arc<Plan> {
    let weight = |kind, shape: Vec<usize>, bytes| Weight {
        name: String::new(),
        kind,
        shape,
        extent: Extent { part: 0, offset: 0, bytes },
    };
    let value =
        |width| Value { name: String::new(), width, kind: ValueKind::Floats, selected: false };
    let step = |op, inputs, output: usize, id| Step {
        op,
        inputs,
        output: ValueId(output as u32),
        weights: vec![WeightId(id)],
    };
    let mut list = vec![step(Op::Embed, Vec::new(), 0, 0)];
    list.extend((0..steps).map(|i| step(Op::Linear, vec![ValueId(i as u32)], i + 1, 1)));
    let mut values = vec![value(columns)];
    values.extend((0..steps).map(|_| value(n_out)));
    Arc::new(Plan {
        weights: vec![
            weight(TensorType::F32, vec![1, columns], columns as u64 * 4),
            weight(kind, vec![n_out, columns], n_out as u64 * row),
        ],
        values,
        groups: vec![Group { kind: GroupKind::Output, steps: list }],
        kv_layers: Vec::new(),
        logits: ValueId(steps as u32),
        n_vocab: 1,
        n_embd: columns,
        n_ctx_train: 1,
    })
}

/// Seconds that a pass takes at best.
fn best_of(plan: &Arc<Plan>, rows: usize, config: &Config) -> Result<f64> {
    let mut backend = Cpu::new(plan.clone(), config.clone())?;
    let size = |weight: &Weight| usize::try_from(weight.extent.bytes).unwrap_or(usize::MAX);
    let bytes: Vec<Vec<u8>> = plan.weights.iter().map(|w| vec![FILLER; size(w)]).collect();
    let slices: Vec<Option<&[u8]>> = bytes.iter().map(|bytes| Some(bytes.as_slice())).collect();
    backend.page_commit(PageId(0))?;
    let row = Row { token: 0, position: 0, sequence: 0, wants_logits: false };
    let batch = Batch { rows: vec![row; rows], sequences: vec![vec![PageId(0)]] };
    let mut best = f64::MAX;
    for _ in 0..TRIES {
        let began = Instant::now();
        backend.begin(&batch)?;
        backend.run(GroupId(0), &Lease::new(&slices), None)?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Bytes a second that the disk gives of a model, read as it would be streamed.
///
/// # Errors
/// `ERR_IO`, `ERR_INSUFFICIENT_MEMORY`.
#[allow(clippy::cast_precision_loss, reason = "a rate")]
pub fn of_disk(parts: &[Part], units: &Units, direct: bool) -> Result<f64> {
    let mut buffers = (0..DEPTH).map(|_| Buffer::new(BLOCK)).collect::<Result<Vec<_>>>()?;
    let mut opened = io::opener(parts, direct)(&mut buffers)?;
    let own = units.groups.iter().map(|group| &group.own);
    let experts = units.experts().flat_map(|e| &e.units);
    let runs = own.chain(experts).flat_map(|unit| &unit.runs);
    let mut blocks = runs.flat_map(blocks_of).take(BLOCKS);
    let (mut lent, mut pending) = (Vec::new(), 0);
    let began = Instant::now();
    for buffer in buffers {
        let Some((part, offset)) = blocks.next() else { break };
        let (kept, target) = buffer.lend();
        lent.push(kept);
        opened.io.submit(Read { tag: 0, part, offset, target });
        pending += 1;
    }
    let (mut bytes, mut failed) = (0, None);
    while pending > 0 {
        let Some(done) = opened.io.wait() else { break };
        pending -= 1;
        match done.result {
            Ok(came) => bytes += came,
            Err(error) => failed = Some(error),
        }
        let is_over = failed.is_some() || began.elapsed().as_secs_f64() > DISK_S;
        if let Some((part, offset)) = blocks.next().filter(|_| !is_over) {
            opened.io.submit(Read { tag: 0, part, offset, target: done.read.target });
            pending += 1;
        }
    }
    drop(lent);
    match failed {
        Some(error) => {
            let path = parts.first().map(|part| part.path.to_string_lossy()).unwrap_or_default();
            let (errno, what) = (errno(&error), format!("reading failed: {error}"));
            Err(Error::at(Code::Io, &path, "measuring the disk", what).with("errno", errno))
        }
        None => Ok(bytes as f64 / began.elapsed().as_secs_f64().max(1e-9)),
    }
}

/// Where the blocks of a run begin; the last may reach beyond it, or beyond the file.
fn blocks_of(run: &Run) -> impl Iterator<Item = (u32, u64)> + '_ {
    (0..run.bytes.div_ceil(BLOCK)).map(|i| (run.part, run.offset + i * BLOCK))
}
