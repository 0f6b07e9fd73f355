//! Linear steps: quantise the input once, run the product, add a bias.

use super::super::kernel::drive::{Product, products};
use super::super::kernel::math::AddTo;
use super::super::kernel::stripe::Shared;
use super::Exec;
use crate::error::{Error, Result};
use crate::plan::{Op, Plan, Step};
use crate::store::Lease;
use std::iter::once;

/// The widest input of a linear step or expert.
pub fn widest(plan: &Plan) -> usize {
    let steps = plan.groups.iter().flat_map(|group| &group.steps);
    let widths = steps.filter_map(|step| match step.op {
        Op::Linear => step.inputs.first().map(|id| plan.value(*id).width),
        _ => None,
    });
    widths.max().unwrap_or(0)
}

impl Exec {
    /// Several linear steps over one input, as one job of the pool.
    pub(super) fn linears(&mut self, steps: &[Step], weights: &Lease<'_>) -> Result<()> {
        let Some(first) = steps.first().filter(|step| self.rows(step.output) > 0) else {
            return Ok(());
        };
        debug_assert!(steps.iter().all(|step| step.inputs == first.inputs));
        let mut buffers = Vec::with_capacity(steps.len());
        for step in steps {
            buffers.push((self.arena.take(self.layout.slot(step.output)), self.len(step.output)));
        }
        let mut outs = Vec::with_capacity(steps.len());
        for (buffer, len) in &mut buffers {
            outs.extend(buffer.get_mut(..*len));
        }
        let list: Vec<_> = steps.iter().collect();
        let done = if outs.len() == steps.len() {
            self.linear(&list, weights, &mut outs)
        } else {
            Err(Error::internal("exec", "a slot is too small"))
        };
        for (step, (buffer, _)) in steps.iter().zip(buffers) {
            self.arena.put(self.layout.slot(step.output), buffer);
        }
        done
    }

    /// y = W x (+ bias) for each step; all read the same x.
    pub(super) fn linear(
        &mut self,
        steps: &[&Step],
        weights: &Lease<'_>,
        outs: &mut [&mut [f32]],
    ) -> Result<()> {
        let tier = self.table.tier();
        let missing = || Error::internal("exec", "a linear step without input");
        let input = *steps.first().and_then(|step| step.inputs.first()).ok_or_else(missing)?;
        let (k, rows) = (self.plan.value(input).width, self.rows(input));
        let x = self.arena.get(self.layout.slot(input), rows * k);
        let shared: Vec<_> = steps
            .iter()
            .zip(outs.iter_mut())
            .map(|(step, out)| Shared::new(out, self.plan.value(step.output).width))
            .collect();
        let mut list = Vec::with_capacity(steps.len());
        for (step, out) in steps.iter().zip(&shared) {
            let id = Self::weight(step, 0)?;
            let kernel = self.table.linear(self.plan.weight(id).kind);
            let tools = (tier, &mut self.pool);
            self.acts.prepare(input.0, kernel.act, tools, (x, k), &mut once(0..rows))?;
            let n_out = self.plan.value(step.output).width;
            let weights = weights.bytes(id);
            list.push(Product { kernel, weights, n_out, k, rows: 0..rows, out });
        }
        products((tier, &mut self.pool), &self.acts, x, &list, &|_, _| {})?;
        drop(list);
        drop(shared);
        for (step, out) in steps.iter().zip(outs) {
            let Some(bias) = step.weights.get(1) else { continue };
            let n = self.load_vector(*bias, weights)?;
            for out in out.chunks_exact_mut(n.max(1)) {
                tier.call(AddTo(out, &self.vector[..n]));
            }
        }
        Ok(())
    }
}
