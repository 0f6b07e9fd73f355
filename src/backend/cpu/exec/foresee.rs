//! Asks the next layer's router ahead of time, with the hidden state that this layer's router has
//! seen: it names most of the experts that will be used, so that they can be read while this layer
//! computes. A hint: nothing is computed on it.

use super::super::kernel::drive::{Product, products};
use super::super::kernel::math::AddTo;
use super::super::kernel::norm::RmsNorm;
use super::super::kernel::route::route;
use super::super::kernel::stripe::Shared;
use super::Exec;
use super::experts::Room;
use crate::error::Result;
use crate::plan::{NormKind, Op, Router, Step, ValueId};
use crate::store::Lease;
use std::iter::once;

/// Rows of a batch that are asked for: what one row of a prompt uses is used.
const ROWS_MAX: usize = 16;

/// Scores of `n` batch rows that [`Room`] must have room for.
pub(super) fn scores(n: usize, n_expert: usize) -> usize {
    n.min(ROWS_MAX) * n_expert
}

impl Exec {
    /// Tells the store what the next layer is likely to use, if it reads ahead. Works in the room
    /// of experts that have not begun, on this thread.
    pub(super) fn foresee(
        &mut self,
        room: &mut Room,
        step: &Step,
        weights: &Lease<'_>,
    ) -> Result<()> {
        if !weights.reads_ahead() {
            return Ok(());
        }
        let plan = self.plan.clone();
        let Some((hidden, group, router)) = plan.router_after(step.output) else { return Ok(()) };
        let rows = self.rows(hidden).min(ROWS_MAX);
        self.scores(room, &router, (hidden, rows), weights)?;
        let n_expert = plan.value(router.scores.output).width;
        let Op::Route(spec) = &router.route.op else { return Ok(()) };
        let Room { gate, up, foreseen, .. } = room;
        let tier = self.table.tier();
        let chosen = &mut up[..2 * spec.n_used * rows];
        let scores = gate[..rows * n_expert].chunks_exact_mut(n_expert);
        for (scores, chosen) in scores.zip(chosen.chunks_exact_mut(2 * spec.n_used)) {
            route(tier, spec, scores, chosen);
        }
        foreseen.clear();
        for choice in 0..spec.n_used {
            for row in chosen.chunks_exact(2 * spec.n_used) {
                let expert = row[2 * choice] as u32;
                if !foreseen.contains(&expert) {
                    foreseen.push(expert);
                }
            }
        }
        weights.foresee(group, &router.experts.weights, foreseen);
        Ok(())
    }

    /// Scores of a router for some rows of a hidden state, spread over the batch: `[rows,
    /// n_expert]` in the room of gates.
    fn scores(
        &mut self,
        room: &mut Room,
        router: &Router<'_>,
        (hidden, rows): (ValueId, usize),
        weights: &Lease<'_>,
    ) -> Result<()> {
        let plan = self.plan.clone();
        let (tier, all) = (self.table.tier(), self.rows(hidden));
        let (k, n_out) = (plan.value(hidden).width, plan.value(router.scores.output).width);
        let Op::Norm(NormKind::Rms { eps }) = router.norm.op else { return Ok(()) };
        let width = self.load_vector(Self::weight(router.norm, 0)?, weights)?;
        let Room { x, gate, acts, .. } = room;
        let (x, out) = (&mut x[..rows * k], &mut gate[..rows * n_out]);
        let from = self.arena.get(self.layout.slot(hidden), self.len(hidden));
        for (row, out) in x.chunks_exact_mut(k).enumerate() {
            let at = row * all / rows * k;
            let weight = &self.desk.vector.get_mut()[..width];
            tier.call(RmsNorm { x: &from[at..at + k], weight, eps, out });
        }
        let id = Self::weight(router.scores, 0)?;
        let kernel = self.table.linear(plan.weight(id).kind);
        let solo = self.desk.solo.get_mut();
        acts.clear();
        acts.prepare(0, kernel, (tier, &mut *solo), (x, k), &mut once(0..rows))?;
        let shared = Shared::new(&mut *out, n_out);
        let product = |_| {
            let (weights, rows) = (weights.bytes(id), 0..rows);
            Ok(Product { kernel, weights, n_out, k, rows, out: &shared })
        };
        products((tier, solo), acts, x, (1, &product), None)?;
        if let Some(bias) = router.scores.weights.get(1) {
            let n = self.load_vector(*bias, weights)?;
            for out in out.chunks_exact_mut(n) {
                tier.call(AddTo(out, &self.desk.vector.get_mut()[..n]));
            }
        }
        Ok(())
    }
}
