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
use crate::store::{Experts, Lease};
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

    /// Bytes that [`Room::reserve`] takes.
    pub fn bytes_of(plan: &Plan, n: usize) -> usize {
        let steps = plan.groups.iter().flat_map(|group| &group.steps);
        let experts = steps.filter(|step| matches!(step.op, Op::Experts(_)));
        let bytes = experts.filter_map(|step| shape(plan, step)).map(|(used, n_embd, n_ff)| {
            let pairs = n * used;
            let lists = size_of::<(u32, u32, u32)>() + size_of::<usize>() * 4;
            pairs * ((n_embd + 2 * n_ff) * size_of::<f32>() + lists)
                + ActCache::bytes_of(pairs * n_embd.max(n_ff), 6)
        });
        bytes.max().unwrap_or(0)
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
        let x = self.input(step, 0)?;
        for (to, (_, row, _)) in room.x.chunks_exact_mut(n_embd).zip(&room.pairs) {
            let row = *row as usize;
            to.copy_from_slice(&x[row * n_embd..(row + 1) * n_embd]);
        }
        let ids = [gate, up, down];
        let list: Vec<u32> = room.used.iter().map(|(expert, _)| *expert as u32).collect();
        weights.experts(&ids, n_expert, &list, &mut |turn, held| {
            let used = room.used.get(turn.clone()).unwrap_or(&[]);
            let (Some(first), Some(last)) = (used.first(), used.last()) else { return Ok(()) };
            let pairs = first.1.start..last.1.end;
            self.expert_products(room, held, &turn, &pairs, &ids[..2], (n_embd, n_ff))?;
            let some = pairs.start * n_ff..pairs.end * n_ff;
            let up_rows = &room.up[some.clone()];
            drive::map_rows(&mut self.pool, &mut room.gate[some], n_ff, &|row, gate| {
                tier.call(GatedAct { act, gate, up: &up_rows[row * n_ff..(row + 1) * n_ff] });
            })?;
            self.expert_products(room, held, &turn, &pairs, &ids[2..], (n_ff, n_embd))
        })?;
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

    /// Products of the used experts of a turn, whose rows are `pairs`: `[gate, up]` from x, or
    /// `[down]` from gate back into x.
    fn expert_products(
        &mut self,
        room: &mut Room,
        held: &Experts<'_>,
        turn: &Range<usize>,
        pairs: &Range<usize>,
        ids: &[WeightId],
        (k, n_out): (usize, usize),
    ) -> Result<()> {
        let tier = self.table.tier();
        let back = ids.len() == 1;
        let (x, out) = if back { (&room.gate, &mut room.x) } else { (&room.x, &mut room.gate) };
        let x = &x[pairs.start * k..pairs.end * k];
        let used = room.used.get(turn.clone()).unwrap_or(&[]);
        let relative = |rows: &Range<usize>| rows.start - pairs.start..rows.end - pairs.start;
        room.acts.clear();
        for id in ids {
            let kind = self.table.linear(self.plan.weight(*id).kind).act;
            let ranges = &mut used.iter().map(|(_, rows)| relative(rows));
            room.acts.prepare(0, kind, (tier, &mut self.pool), (x, k), ranges)?;
        }
        let some = pairs.start * n_out..pairs.end * n_out;
        let outs = [
            Shared::new(&mut out[some.clone()], n_out),
            Shared::new(if back { &mut [] } else { &mut room.up[some] }, n_out),
        ];
        let mut list = Vec::with_capacity(turn.len() * ids.len());
        for (expert, rows) in used {
            let rows = relative(rows);
            for (id, out) in ids.iter().zip(&outs) {
                let weights = held.bytes(*id, *expert as u32)?;
                let kernel = self.table.linear(self.plan.weight(*id).kind);
                list.push(Product { kernel, weights, n_out, k, rows: rows.clone(), out });
            }
        }
        products((tier, &mut self.pool), &room.acts, x, &list, &|_, _| {})
    }
}
