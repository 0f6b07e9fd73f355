//! The ops, one function each, row by row. Weights are dequantised to f32 for the step and dropped.

use candle_core::{Device, Tensor};

use crate::backend::Row;
use crate::error::{Error, Result};
use crate::plan::{Act, NormKind, Op, Plan, Rope, RopeKind, Route, Step, Weight};
use crate::store::{Experts, Lease};

/// An error of candle's is a bug of ours: shapes were checked with the plan.
pub fn candle(error: candle_core::Error) -> Error {
    Error::internal("reference", error)
}

/// Ops that need neither positions nor the KV cache.
pub fn run(plan: &Plan, step: &Step, inputs: &[&[f32]], weights: &Lease<'_>) -> Result<Vec<f32>> {
    match (&step.op, inputs) {
        (Op::Norm(NormKind::Rms { eps }), [x]) => {
            rms_norm(*eps, &vector(plan, step, 0, weights)?, x).map_err(candle)
        }
        (Op::Linear, [x]) => {
            let bias = optional_vector(plan, step, 1, weights)?;
            linear(&Matrix::new(plan, step, 0, weights)?, bias.as_deref(), x)
        }
        (Op::GatedAct(act), [gate, up]) => gated(*act, gate, up).map_err(candle),
        (Op::Route(route), [scores]) => Ok(choose(route, scores)),
        (Op::Experts(act), [x, chosen]) => experts(plan, step, *act, x, chosen, weights),
        (Op::Add, [a, b]) => Ok(a.iter().zip(*b).map(|(a, b)| a + b).collect()),
        (op, _) => Err(Error::internal("reference", format!("{} cannot run here", op.name()))),
    }
}

/// Rows of the token embedding.
pub fn embed(plan: &Plan, step: &Step, rows: &[Row], weights: &Lease<'_>) -> Result<Vec<f32>> {
    let id = step.weights.first().copied();
    let id = id.ok_or_else(|| Error::internal("reference", "a step lacks a weight"))?;
    let (weight, width) = (plan.weight(id), plan.value(step.output).width);
    let tokens: Vec<u32> = rows.iter().map(|row| row.token).collect();
    let mut out = Vec::with_capacity(rows.len() * width);
    weights.gather(id, plan.n_vocab, &tokens, &mut |_, bytes| {
        out.extend(floats(weight, bytes, width)?);
        Ok(())
    })?;
    Ok(out)
}

/// Rotation of the pairs of each head; angles, cos and sin in f64.
pub fn rope(rope: &Rope, factors: Option<&[f32]>, rows: &[Row], x: &[f32]) -> Vec<f32> {
    let width = rope.n_head * rope.head_dim;
    let mut out = x.to_vec();
    for (row, x) in rows.iter().zip(out.chunks_exact_mut(width)) {
        for (pair, freq) in rope.freqs.iter().enumerate() {
            let factor = factors.map_or(1.0, |factors| f64::from(factors[pair]));
            let angle = f64::from(row.position) * freq / factor;
            let magnitude = f64::from(rope.magnitude);
            let (sin, cos) = (angle.sin() * magnitude, angle.cos() * magnitude);
            let (first, second) = match rope.kind {
                RopeKind::Norm => (2 * pair, 2 * pair + 1),
                RopeKind::Neox => (pair, pair + rope.n_rot / 2),
            };
            for head in x.chunks_exact_mut(rope.head_dim) {
                let (a, b) = (f64::from(head[first]), f64::from(head[second]));
                head[first] = (a * cos - b * sin) as f32;
                head[second] = (a * sin + b * cos) as f32;
            }
        }
    }
    out
}

/// Rows that want logits.
pub fn select(rows: &[Row], x: &[f32]) -> Vec<f32> {
    let width = if rows.is_empty() { 1 } else { x.len() / rows.len() };
    let kept = rows.iter().zip(x.chunks_exact(width)).filter(|(row, _)| row.wants_logits);
    kept.flat_map(|(_, x)| x.iter().copied()).collect()
}

/// The vector weight at `index` of a step, if the step has one.
pub fn optional_vector(
    plan: &Plan,
    step: &Step,
    index: usize,
    weights: &Lease<'_>,
) -> Result<Option<Vec<f32>>> {
    match step.weights.get(index) {
        Some(_) => vector(plan, step, index, weights).map(Some),
        None => Ok(None),
    }
}

fn vector(plan: &Plan, step: &Step, index: usize, weights: &Lease<'_>) -> Result<Vec<f32>> {
    let (weight, bytes) = weight(plan, step, index, weights)?;
    floats(weight, bytes, weight.shape.iter().product())
}

fn weight<'a>(
    plan: &'a Plan,
    step: &Step,
    index: usize,
    weights: &'a Lease<'_>,
) -> Result<(&'a Weight, &'a [u8])> {
    let id = step.weights.get(index).copied();
    let id = id.ok_or_else(|| Error::internal("reference", "a step lacks a weight"))?;
    let (weight, bytes) = (plan.weight(id), weights.bytes(id));
    if bytes.len() as u64 == weight.extent.bytes {
        return Ok((weight, bytes));
    }
    let text = format!("{}: {} of {} bytes", weight.name, bytes.len(), weight.extent.bytes);
    Err(Error::internal("reference", text))
}

/// Blocks of a weight as `n` floats.
fn floats(weight: &Weight, bytes: &[u8], n: usize) -> Result<Vec<f32>> {
    let mut out = vec![0.0; n];
    weight.kind.dequantise(bytes, &mut out)?;
    Ok(out)
}

fn rms_norm(eps: f32, weight: &[f32], x: &[f32]) -> candle_core::Result<Vec<f32>> {
    let n = weight.len();
    let weight = Tensor::from_slice(weight, n, &Device::Cpu)?;
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(n) {
        let x = Tensor::from_slice(row, n, &Device::Cpu)?;
        let size = (x.sqr()?.mean_all()? + f64::from(eps))?.sqrt()?;
        out.extend(x.broadcast_div(&size)?.mul(&weight)?.to_vec1::<f32>()?);
    }
    Ok(out)
}

/// A matrix `[n_out, n_in]` as it is stored: a weight, or one expert of it.
struct Matrix<'a> {
    weight: &'a Weight,
    bytes: &'a [u8],
    n_out: usize,
    n_in: usize,
}

impl<'a> Matrix<'a> {
    fn new(plan: &'a Plan, step: &Step, index: usize, weights: &'a Lease<'_>) -> Result<Self> {
        let (weight, bytes) = weight(plan, step, index, weights)?;
        match *weight.shape.as_slice() {
            [n_out, n_in] => Ok(Matrix { weight, bytes, n_out, n_in }),
            _ => Err(Error::internal("reference", format!("{} is no matrix", weight.name))),
        }
    }

    /// One expert of a weight `[n_expert, n_out, n_in]`.
    fn expert(
        plan: &'a Plan,
        step: &Step,
        index: usize,
        expert: u32,
        held: &'a Experts<'_>,
    ) -> Result<Self> {
        let id = step.weights.get(index).copied();
        let id = id.ok_or_else(|| Error::internal("reference", "a step lacks a weight"))?;
        let weight = plan.weight(id);
        let &[_, n_out, n_in] = weight.shape.as_slice() else {
            return Err(Error::internal("reference", format!("{} holds no experts", weight.name)));
        };
        let bytes = held.bytes(id, expert)?;
        Ok(Matrix { weight, bytes, n_out, n_in })
    }
}

/// W x + b, a row of x at a time. The matrix is dequantised in slices of few rows, so that no
/// weight ever lies in memory whole as f32.
fn linear(matrix: &Matrix<'_>, bias: Option<&[f32]>, x: &[f32]) -> Result<Vec<f32>> {
    const SLICE: usize = 1024;
    let &Matrix { weight, bytes, n_out, n_in } = matrix;
    let row_bytes = bytes.len() / n_out;
    let mut out = vec![0.0; x.len() / n_in * n_out];
    for (slice, bytes) in bytes.chunks(SLICE * row_bytes).enumerate() {
        let rows = bytes.len() / row_bytes;
        let w = floats(weight, bytes, rows * n_in)?;
        let w = Tensor::from_vec(w, (rows, n_in), &Device::Cpu).map_err(candle)?;
        for (x, out) in x.chunks_exact(n_in).zip(out.chunks_exact_mut(n_out)) {
            let y = product(&w, x).map_err(candle)?;
            out[slice * SLICE..][..rows].copy_from_slice(&y);
        }
    }
    if let Some(bias) = bias {
        for out in out.chunks_exact_mut(n_out) {
            out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
        }
    }
    Ok(out)
}

fn product(w: &Tensor, x: &[f32]) -> candle_core::Result<Vec<f32>> {
    w.matmul(&Tensor::from_slice(x, (x.len(), 1), &Device::Cpu)?)?.flatten_all()?.to_vec1()
}

fn gated(act: Act, gate: &[f32], up: &[f32]) -> candle_core::Result<Vec<f32>> {
    let gate = Tensor::from_slice(gate, gate.len(), &Device::Cpu)?;
    let up = Tensor::from_slice(up, up.len(), &Device::Cpu)?;
    match act {
        Act::Silu => (gate.silu()? * up)?.to_vec1(),
    }
}

/// The choice of each row as (index, weight) pairs.
fn choose(route: &Route, scores: &[f32]) -> Vec<f32> {
    /// Keeps the division from overflowing: 2^-14.
    const SUM_MIN: f32 = 6.103_515_6e-5;
    let mut out = Vec::new();
    for row in scores.chunks_exact(route.n_expert) {
        let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exps: Vec<f32> = row.iter().map(|score| (score - highest).exp()).collect();
        let total: f32 = exps.iter().sum();
        let mut order: Vec<usize> = (0..route.n_expert).collect();
        // A stable sort: of equal ones the lower index stays first.
        order.sort_by(|a, b| exps[*b].total_cmp(&exps[*a]));
        order.truncate(route.n_used);
        let chosen: f32 = order.iter().map(|expert| exps[*expert] / total).sum();
        let divisor = if route.normalise { chosen.max(SUM_MIN) } else { 1.0 };
        for expert in order {
            out.push(expert as f32);
            out.push(exps[expert] / total / divisor * route.scale);
        }
    }
    out
}

/// Sum over a row's experts, best first. Expert by expert, so that one is in memory at a time.
fn experts(
    plan: &Plan,
    step: &Step,
    act: Act,
    x: &[f32],
    chosen: &[f32],
    weights: &Lease<'_>,
) -> Result<Vec<f32>> {
    let width = plan.value(step.output).width;
    let n_used = plan.value(step.inputs[1]).width;
    let choices: Vec<(u32, f32)> =
        chosen.chunks_exact(2).map(|pair| (pair[0] as u32, pair[1])).collect();
    let mut wanted: Vec<u32> = choices.iter().map(|choice| choice.0).collect();
    wanted.sort_unstable();
    wanted.dedup();
    // By choice: what its expert makes of the row.
    let mut made = vec![Vec::new(); choices.len()];
    let n_expert = plan.weight(step.weights[0]).shape[0];
    weights.experts(&step.weights, n_expert, &wanted, &mut |turn, held| {
        for &expert in &wanted[turn] {
            let part = |index| Matrix::expert(plan, step, index, expert, held);
            let mine: Vec<usize> =
                (0..choices.len()).filter(|index| choices[*index].0 == expert).collect();
            let row = |choice: &usize| x[choice / n_used * width..][..width].iter().copied();
            let rows: Vec<f32> = mine.iter().flat_map(row).collect();
            let (gate, up) = (linear(&part(0)?, None, &rows)?, linear(&part(1)?, None, &rows)?);
            let down = linear(&part(2)?, None, &gated(act, &gate, &up).map_err(candle)?)?;
            for (choice, y) in mine.into_iter().zip(down.chunks_exact(width)) {
                made[choice] = y.to_vec();
            }
        }
        Ok(())
    })?;
    let mut out = vec![0.0f32; x.len()];
    for (index, ((_, share), y)) in choices.iter().zip(made).enumerate() {
        let sum = &mut out[index / n_used * width..][..width];
        sum.iter_mut().zip(y).for_each(|(sum, y)| *sum += share * y);
    }
    Ok(out)
}
