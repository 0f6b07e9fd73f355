//! Linear steps: quantise the input once, run the product, add a bias.

use super::super::kernel::drive::{Product, products};
use super::super::kernel::math::AddTo;
use super::super::kernel::stripe::Shared;
use super::Exec;
use crate::error::Result;
use crate::plan::{Op, Plan, Step};
use crate::store::Lease;

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
    /// y = W x (+ bias).
    pub(super) fn linear(
        &mut self,
        step: &Step,
        weights: &Lease<'_>,
        out: &mut [f32],
    ) -> Result<()> {
        let tier = self.table.tier();
        let id = Self::weight(step, 0)?;
        let weight = self.plan.weight(id);
        let (n_out, kernel) = (self.plan.value(step.output).width, self.table.linear(weight.kind));
        let k = self.plan.value(step.inputs[0]).width;
        let rows = self.rows(step.inputs[0]);
        let x = self.arena.get(self.layout.slot(step.inputs[0]), rows * k);
        let tag = step.inputs[0].0;
        self.acts.prepare(
            tag,
            kernel.act,
            (tier, &mut self.pool),
            (x, k),
            &mut std::iter::once(0..rows),
        )?;
        let shared = Shared::new(out, n_out);
        let bytes = weights.bytes(id);
        let product = Product { kernel, weights: bytes, n_out, k, rows: 0..rows, out: &shared };
        products((tier, &mut self.pool), &self.acts, x, &[product], &|_, _| {})?;
        if let Some(bias) = step.weights.get(1) {
            let n = self.load_vector(*bias, weights)?;
            for out in out.chunks_exact_mut(n_out) {
                tier.call(AddTo(out, &self.vector[..n]));
            }
        }
        Ok(())
    }
}
