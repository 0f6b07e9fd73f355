//! Mixture of experts: rows are sorted by expert, every used expert's weights are read once, and a
//! row adds its experts in the order of its choice, so that its result depends on itself alone.

use super::super::kernel::act::GatedAct;
use super::super::kernel::acts::ActCache;
use super::super::kernel::buffer::Buffer;
use super::super::kernel::drive::{self, Product, products};
use super::super::kernel::stripe::Shared;
use super::Exec;
use crate::error::{Error, Result};
use crate::plan::{Act, Op, Plan, Step, WeightId};
use crate::store::Lease;
use std::ops::Range;

/// Memory for the rows of all experts.
#[derive(Default)]
pub struct Room {
    /// `[pairs, n_embd]`: inputs, then results.
    x: Buffer<f32>,
    /// `[pairs, n_ff]`.
    gate: Buffer<f32>,
    /// `[pairs, n_ff]`.
    up: Buffer<f32>,
    acts: ActCache,
    /// (expert, row, choice), sorted.
    pairs: Vec<(u32, u32, u32)>,
    /// Place in `pairs` of (row, choice).
    place: Vec<usize>,
    /// Experts in use and their pairs.
    used: Vec<(usize, Range<usize>)>,
}

/// (pairs a row, n_embd, n_ff) of an experts step.
fn shape(plan: &Plan, step: &Step) -> Option<(usize, usize, usize)> {
    let routing = plan.value(*step.inputs.get(1)?);
    let gate = plan.weight(*step.weights.first()?);
    let [_, n_ff, n_embd] = gate.shape[..] else { return None };
    Some((routing.width, n_embd, n_ff))
}

impl Room {
    /// Makes room for `n` batch rows.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn reserve(&mut self, plan: &Plan, n: usize) -> Result<()> {
        for step in plan.groups.iter().flat_map(|group| &group.steps) {
            if !matches!(step.op, Op::Experts(_)) {
                continue;
            }
            let Some((used, n_embd, n_ff)) = shape(plan, step) else { continue };
            let pairs = n * used;
            self.x.grow(pairs * n_embd)?;
            self.gate.grow(pairs * n_ff)?;
            self.up.grow(pairs * n_ff)?;
            self.acts.reserve(pairs * n_embd.max(n_ff))?;
            self.pairs.reserve(pairs);
            self.place.reserve(pairs);
            self.used.reserve(pairs);
        }
        Ok(())
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.x.bytes() + self.gate.bytes() + self.up.bytes() + self.acts.bytes()
    }

    /// Sorts the choices `[n_rows, used]` of (index, weight) by expert.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the router wrote small whole numbers"
    )]
    fn sort(&mut self, routing: &[f32], used: usize, n_expert: usize) {
        self.pairs.clear();
        for (i, pair) in routing.chunks_exact(2).enumerate() {
            let expert = (pair[0] as u32).min(n_expert.saturating_sub(1) as u32);
            self.pairs.push((expert, (i / used) as u32, (i % used) as u32));
        }
        self.pairs.sort_unstable();
        self.place.clear();
        self.place.resize(self.pairs.len(), 0);
        self.used.clear();
        for (at, (expert, row, choice)) in self.pairs.iter().enumerate() {
            self.place[*row as usize * used + *choice as usize] = at;
            match self.used.last_mut() {
                Some((last, range)) if *last == *expert as usize => range.end = at + 1,
                _ => self.used.push((*expert as usize, at..at + 1)),
            }
        }
    }
}

impl Exec {
    /// Sum over the chosen experts of weight * down(act(gate x) * up x).
    pub(super) fn experts(
        &mut self,
        step: &Step,
        weights: &Lease<'_>,
        out: &mut [f32],
        act: Act,
    ) -> Result<()> {
        let mut room = std::mem::take(&mut self.experts);
        let done = self.experts_in(&mut room, step, weights, out, act);
        self.experts = room;
        done
    }

    fn experts_in(
        &mut self,
        room: &mut Room,
        step: &Step,
        weights: &Lease<'_>,
        out: &mut [f32],
        act: Act,
    ) -> Result<()> {
        let tier = self.table.tier();
        let odd = || Error::internal("exec", "experts of unknown shape");
        let (used, n_embd, n_ff) = shape(&self.plan, step).ok_or_else(odd)?;
        let (gate, up) = (Self::weight(step, 0)?, Self::weight(step, 1)?);
        let down = Self::weight(step, 2)?;
        let n_expert = self.plan.weight(gate).shape[0];
        let routing = self.input(step, 1)?;
        room.sort(routing, used, n_expert);
        let n = room.pairs.len();
        let x = self.input(step, 0)?;
        for (to, (_, row, _)) in room.x.chunks_exact_mut(n_embd).zip(&room.pairs) {
            let row = *row as usize;
            to.copy_from_slice(&x[row * n_embd..(row + 1) * n_embd]);
        }
        self.expert_products(room, weights, &[gate, up], (n_embd, n_ff))?;
        let up_rows = &room.up[..];
        drive::map_rows(&mut self.pool, &mut room.gate[..n * n_ff], n_ff, &|row, gate| {
            tier.call(GatedAct { act, gate, up: &up_rows[row * n_ff..(row + 1) * n_ff] });
        })?;
        self.expert_products(room, weights, &[down], (n_ff, n_embd))?;
        let routing = self.input(step, 1)?;
        for (row, out) in out.chunks_exact_mut(n_embd).enumerate() {
            out.fill(0.0);
            for choice in row * used..(row + 1) * used {
                let (y, at) = (routing[2 * choice + 1], room.place[choice]);
                for (out, x) in out.iter_mut().zip(&room.x[at * n_embd..]) {
                    *out = x.mul_add(y, *out);
                }
            }
        }
        Ok(())
    }

    /// Products of every used expert: `[gate, up]` from x, or `[down]` from gate back into x.
    fn expert_products(
        &mut self,
        room: &mut Room,
        weights: &Lease<'_>,
        ids: &[WeightId],
        (k, n_out): (usize, usize),
    ) -> Result<()> {
        let tier = self.table.tier();
        let n = room.pairs.len();
        let back = ids.len() == 1;
        let (x, out) = if back { (&room.gate, &mut room.x) } else { (&room.x, &mut room.gate) };
        let x = &x[..n * k];
        room.acts.clear();
        for id in ids {
            let kind = self.table.linear(self.plan.weight(*id).kind).act;
            let ranges = &mut room.used.iter().map(|(_, rows)| rows.clone());
            room.acts.prepare(0, kind, (tier, &mut self.pool), (x, k), ranges)?;
        }
        let outs = [
            Shared::new(&mut out[..n * n_out], n_out),
            Shared::new(if back { &mut [] } else { &mut room.up[..n * n_out] }, n_out),
        ];
        let mut list = Vec::with_capacity(room.used.len() * ids.len());
        for (expert, rows) in &room.used {
            for (id, out) in ids.iter().zip(&outs) {
                let weight = self.plan.weight(*id);
                let bytes = weight.kind.row_bytes(k).unwrap_or(0) * n_out;
                let all = weights.bytes(*id);
                let weights = all.get(expert * bytes..(expert + 1) * bytes).unwrap_or(&[]);
                let kernel = self.table.linear(weight.kind);
                list.push(Product { kernel, weights, n_out, k, rows: rows.clone(), out });
            }
        }
        products((tier, &mut self.pool), &room.acts, x, &list, &|_, _| {})
    }
}
