//! Mixture of experts: rows are sorted by expert, every used expert's weights are read once, and a
//! row adds its experts in the order of its choice, so that its result depends on itself alone.

use super::super::kernel::acts::ActCache;
use super::super::kernel::buffer::Buffer;
use super::super::kernel::drive::{self, Product, products};
use super::super::kernel::math::AddScaled;
use super::super::kernel::stripe::Shared;
use super::{Exec, foresee};
use crate::error::{Error, Result};
use crate::plan::{Act, Op, Plan, Step, WeightId};
use crate::store::{Experts, Lease};
use std::ops::Range;

/// Memory for the rows of all experts.
#[derive(Default)]
pub struct Room {
    /// `[pairs, n_embd]`: inputs, then results.
    pub(super) x: Buffer<f32>,
    /// `[pairs, n_ff]`.
    pub(super) gate: Buffer<f32>,
    /// `[pairs, n_ff]`.
    pub(super) up: Buffer<f32>,
    pub(super) acts: ActCache,
    /// (expert, row, choice), sorted.
    pairs: Vec<(u32, u32, u32)>,
    /// Place in `pairs` of (row, choice).
    place: Vec<usize>,
    /// Experts in use and their pairs.
    used: Vec<(usize, Range<usize>)>,
    /// Experts in use.
    list: Vec<u32>,
    /// Experts that the next such layer is likely to use.
    pub(super) foreseen: Vec<u32>,
}

/// (pairs a row, n_embd, n_ff, n_expert) of an experts step.
fn shape(plan: &Plan, step: &Step) -> Option<(usize, usize, usize, usize)> {
    let routing = plan.value(*step.inputs.get(1)?);
    let gate = plan.weight(*step.weights.first()?);
    let [n_expert, n_ff, n_embd] = gate.shape[..] else { return None };
    Some((routing.width, n_embd, n_ff, n_expert))
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
            let Some((used, n_embd, n_ff, n_expert)) = shape(plan, step) else { continue };
            let pairs = n * used;
            self.x.grow(pairs * n_embd)?;
            self.gate.grow((pairs * n_ff).max(foresee::scores(n, n_expert)))?;
            self.up.grow(pairs * n_ff)?;
            self.acts.reserve(pairs * n_embd.max(n_ff))?;
            self.pairs.reserve(pairs);
            self.place.reserve(pairs);
            self.used.reserve(pairs);
            self.list.reserve(pairs);
        }
        Ok(())
    }

    /// Bytes that [`Room::reserve`] takes.
    pub fn bytes_of(plan: &Plan, n: usize) -> usize {
        let steps = plan.groups.iter().flat_map(|group| &group.steps);
        let experts = steps.filter(|step| matches!(step.op, Op::Experts(_)));
        let shapes = experts.filter_map(|step| shape(plan, step));
        let bytes = shapes.map(|(used, n_embd, n_ff, n_expert)| {
            let pairs = n * used;
            let lists = size_of::<(u32, u32, u32)>() + size_of::<usize>() * 4;
            let gate = (pairs * n_ff).max(foresee::scores(n, n_expert));
            (pairs * (n_embd + n_ff) + gate) * size_of::<f32>()
                + pairs * lists
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
        self.list.clear();
        self.list.extend(self.used.iter().map(|(expert, _)| *expert as u32));
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
        let (used, n_embd, n_ff, n_expert) = shape(&self.plan, step).ok_or_else(odd)?;
        let ids = [Self::weight(step, 0)?, Self::weight(step, 1)?, Self::weight(step, 2)?];
        room.sort(self.input(step, 1)?, used, n_expert);
        self.foresee(room, step, weights)?;
        let x = self.arena.get(self.layout.slot(step.inputs[0]), self.len(step.inputs[0]));
        let n = room.pairs.len();
        let pairs = &room.pairs;
        drive::map_rows(&mut self.pool, &mut room.x[..n * n_embd], n_embd, &|pair, to| {
            let row = pairs[pair].1 as usize;
            to.copy_from_slice(&x[row * n_embd..(row + 1) * n_embd]);
        })?;
        let (runs, list) = (std::mem::take(&mut room.used), std::mem::take(&mut room.list));
        let done = weights.experts(&ids, n_expert, &list, &mut |turn, held| {
            let turn = Turn { held, used: runs.get(turn).unwrap_or(&[]), n_embd, n_ff };
            self.expert_products(room, &turn, &ids[..2], Some(act))?;
            self.expert_products(room, &turn, &ids[2..], None)
        });
        (room.used, room.list) = (runs, list);
        done?;
        let routing = self.arena.get(self.layout.slot(step.inputs[1]), self.len(step.inputs[1]));
        let (place, x) = (&room.place, &room.x);
        drive::map_rows(&mut self.pool, out, n_embd, &|row, out| {
            out.fill(0.0);
            for choice in row * used..(row + 1) * used {
                let (y, at) = (routing[2 * choice + 1], place[choice]);
                tier.call(AddScaled(out, &x[at * n_embd..(at + 1) * n_embd], y));
            }
        })
    }

    /// Products of the experts of a turn, each of whose weights are read once for all its rows:
    /// gate = act(gate x) * up x of weights `[gate, up]`, or x = down gate of `[down]`.
    fn expert_products(
        &mut self,
        room: &mut Room,
        turn: &Turn<'_>,
        ids: &[WeightId],
        act: Option<Act>,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (turn.used.first(), turn.used.last()) else {
            return Ok(());
        };
        let (start, end) = (first.1.start, last.1.end);
        let (k, n_out) = match act {
            Some(_) => (turn.n_embd, turn.n_ff),
            None => (turn.n_ff, turn.n_embd),
        };
        let Room { x, gate, up, acts, .. } = room;
        let (x, out) = if act.is_some() { (x, gate) } else { (gate, x) };
        let x = &x[start * k..end * k];
        let (tier, plan, table) = (self.table.tier(), &self.plan, &self.table);
        let kernel = |id: WeightId| table.linear(plan.weight(id).kind);
        let rows = |range: &Range<usize>| range.start - start..range.end - start;
        acts.clear();
        for id in ids {
            let ranges = &mut turn.used.iter().map(|(_, range)| rows(range));
            acts.prepare(0, kernel(*id), (tier, &mut self.pool), (x, k), ranges)?;
        }
        let some = start * n_out..end * n_out;
        let up = if act.is_some() { &mut up[some.clone()] } else { &mut [][..] };
        let outs = [Shared::new(&mut out[some], n_out), Shared::new(up, n_out)];
        let product = |index: usize| {
            let (which, (expert, range)) = (index % ids.len(), &turn.used[index / ids.len()]);
            let weights = turn.held.bytes(ids[which], *expert as u32)?;
            let (kernel, rows, out) = (kernel(ids[which]), rows(range), &outs[which]);
            Ok(Product { kernel, weights, n_out, k, rows, out })
        };
        let list = (turn.used.len() * ids.len(), &product as _);
        products((tier, &mut self.pool), acts, x, list, act)
    }
}

/// Experts that are held together.
struct Turn<'a> {
    held: &'a Experts<'a>,
    /// Experts and their pairs, in order.
    used: &'a [(usize, Range<usize>)],
    n_embd: usize,
    n_ff: usize,
}
