//! The ops, one function each, row by row. Weights are dequantised to f32 for the step and dropped.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use candle_core::{Device, Tensor};

use crate::backend::Row;
use crate::error::{Error, Result};
use crate::plan::{Act, NormKind, Op, Plan, Rope, RopeKind, Route, Step, Weight};
use crate::store::Lease;

/// An error of candle's is a bug of ours: shapes were checked with the plan.
pub fn candle(error: candle_core::Error) -> Error {
    Error::internal("reference", error)
}

/// Ops that need neither positions nor the KV cache.
pub fn run(plan: &Plan, step: &Step, inputs: &[&[f32]], weights: &Lease<'_>) -> Result<Vec<f32>> {
    let matrix = |index: usize| matrix(plan, step, index, weights);
    match (&step.op, inputs) {
        (Op::Norm(NormKind::Rms { eps }), [x]) => {
            rms_norm(*eps, &vector(plan, step, 0, weights)?, x).map_err(candle)
        }
        (Op::Linear, [x]) => {
            let bias = optional_vector(plan, step, 1, weights)?;
            linear(&matrix(0)?, bias.as_deref(), x).map_err(candle)
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
    let (weight, bytes) = weight(plan, step, 0, weights)?;
    let width = plan.value(step.output).width;
    let row_bytes = bytes.len() / weight.shape[0];
    let mut out = Vec::with_capacity(rows.len() * width);
    for row in rows {
        let bytes = bytes.get(row.token as usize * row_bytes..).unwrap_or(&[]);
        out.extend(floats(weight, bytes.get(..row_bytes).unwrap_or(&[]), width)?);
    }
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

/// A weight `[n_out, n_in]` in f32.
fn matrix(plan: &Plan, step: &Step, index: usize, weights: &Lease<'_>) -> Result<Tensor> {
    let (weight, bytes) = weight(plan, step, index, weights)?;
    let &[n_out, n_in] = weight.shape.as_slice() else {
        return Err(Error::internal("reference", format!("{} is no matrix", weight.name)));
    };
    let values = floats(weight, bytes, n_out * n_in)?;
    Tensor::from_vec(values, (n_out, n_in), &Device::Cpu).map_err(candle)
}

fn weight<'a>(
    plan: &'a Plan,
    step: &Step,
    index: usize,
    weights: &Lease<'a>,
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

/// W x + b, a row of x at a time.
fn linear(weight: &Tensor, bias: Option<&[f32]>, x: &[f32]) -> candle_core::Result<Vec<f32>> {
    let (n_out, n_in) = weight.dims2()?;
    let bias = bias.map(|bias| Tensor::from_slice(bias, n_out, &Device::Cpu)).transpose()?;
    let mut out = Vec::with_capacity(x.len() / n_in * n_out);
    for row in x.chunks_exact(n_in) {
        let x = Tensor::from_slice(row, (n_in, 1), &Device::Cpu)?;
        let mut y = weight.matmul(&x)?.flatten_all()?;
        if let Some(bias) = &bias {
            y = (y + bias)?;
        }
        out.extend(y.to_vec1::<f32>()?);
    }
    Ok(out)
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

/// Sum over a row's experts, best first.
fn experts(
    plan: &Plan,
    step: &Step,
    act: Act,
    x: &[f32],
    chosen: &[f32],
    weights: &Lease<'_>,
) -> Result<Vec<f32>> {
    let width = plan.value(step.output).width;
    let pairs = plan.value(step.inputs[1]).floats();
    let mut seen: HashMap<usize, [Tensor; 3]> = HashMap::new();
    let mut out = Vec::with_capacity(x.len());
    for (x, chosen) in x.chunks_exact(width).zip(chosen.chunks_exact(pairs)) {
        let mut sum = vec![0.0f32; width];
        for pair in chosen.chunks_exact(2) {
            let expert = pair[0] as usize;
            if let Entry::Vacant(vacant) = seen.entry(expert) {
                let part = |index| expert_matrix(plan, step, index, expert, weights);
                vacant.insert([part(0)?, part(1)?, part(2)?]);
            }
            let [gate, up, down] = &seen[&expert];
            let half = |w: &Tensor, x: &[f32]| linear(w, None, x).map_err(candle);
            let h = gated(act, &half(gate, x)?, &half(up, x)?).map_err(candle)?;
            for (sum, y) in sum.iter_mut().zip(half(down, &h)?) {
                *sum += pair[1] * y;
            }
        }
        out.extend(sum);
    }
    Ok(out)
}

/// One expert's matrix of a weight `[n_expert, n_out, n_in]`.
fn expert_matrix(
    plan: &Plan,
    step: &Step,
    index: usize,
    expert: usize,
    weights: &Lease<'_>,
) -> Result<Tensor> {
    let (weight, bytes) = weight(plan, step, index, weights)?;
    let &[n_expert, n_out, n_in] = weight.shape.as_slice() else {
        return Err(Error::internal("reference", format!("{} holds no experts", weight.name)));
    };
    let size = bytes.len() / n_expert;
    let bytes = bytes.get(expert * size..(expert + 1) * size).unwrap_or(&[]);
    let values = floats(weight, bytes, n_out * n_in)?;
    Tensor::from_vec(values, (n_out, n_in), &Device::Cpu).map_err(candle)
}
