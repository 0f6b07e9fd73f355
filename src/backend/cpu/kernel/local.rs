//! Steps that need nothing but their rows (norms, rotations, routes, additions): one row at a time,
//! on whichever thread.

use super::super::pool::Pool;
use super::super::simd::Tier;
use super::act::GatedAct;
use super::bank::Bank;
use super::drive::for_rows;
use super::math::AddTo;
use super::norm::RmsNorm;
use super::rope::{Angles, rotate};
use super::route::route;
use crate::error::Result;
use crate::plan::{NormKind, Op, Step};

/// Experts whose scores fit the stack.
const EXPERTS: usize = 512;

/// A step and what it reads beside its inputs.
pub struct Local<'a> {
    /// The step.
    pub step: &'a Step,
    /// Where its values lie.
    pub bank: &'a Bank<'a>,
    /// Whose kernels.
    pub tier: Tier,
    /// A norm's weights.
    pub vector: &'a [f32],
    /// A rotation's angles, by batch row.
    pub angles: Option<&'a Angles>,
    /// Batch row of each selected row.
    pub selected: &'a [usize],
}

impl Local<'_> {
    /// All rows, on several threads if they are worth it.
    ///
    /// # Errors
    /// `ERR_INTERNAL` if one of them panicked.
    pub fn run(&self, pool: &mut Pool) -> Result<()> {
        let (rows, width) = (self.bank.rows(self.step.output), self.bank.width(self.step.output));
        // SAFETY: the pool is ours: no step runs beside this one, and each row has one thread.
        for_rows(pool, rows, width, &|row| unsafe { self.row(row) })
    }

    /// All rows, on this thread.
    ///
    /// # Safety
    /// Nobody touches the output, nobody writes the inputs meanwhile.
    pub unsafe fn run_alone(&self) {
        for row in 0..self.bank.rows(self.step.output) {
            // SAFETY: the caller's promise.
            unsafe { self.row(row) };
        }
    }

    /// # Safety
    /// Nobody touches this row of the output, nobody writes the inputs meanwhile. A value's slot
    /// is not that of an input of the step that writes it.
    unsafe fn row(&self, row: usize) {
        let (bank, tier, step) = (self.bank, self.tier, self.step);
        let width = bank.width(step.output);
        // SAFETY: the caller's promise.
        let out = unsafe { bank.write(step.output, row * width, width) };
        let from = if step.op == Op::Select { self.selected[row] } else { row };
        // SAFETY: the caller's promise.
        let input = |index: usize| unsafe { bank.row(step.inputs[index], from) };
        match &step.op {
            Op::Norm(NormKind::Rms { eps }) => {
                tier.call(RmsNorm { x: input(0), weight: self.vector, eps: *eps, out });
            }
            Op::Rope(rope) => {
                out.copy_from_slice(input(0));
                rotate(rope, self.angles.map_or(&[], |angles| angles.row(row)), out);
            }
            Op::GatedAct(act) => {
                out.copy_from_slice(input(0));
                tier.call(GatedAct { act: *act, gate: out, up: input(1) });
            }
            Op::Add => {
                out.copy_from_slice(input(0));
                tier.call(AddTo(out, input(1)));
            }
            Op::Select => out.copy_from_slice(input(0)),
            Op::Route(spec) => {
                let scores = input(0);
                if let Some(room) = [0.0; EXPERTS].get_mut(..scores.len()) {
                    room.copy_from_slice(scores);
                    route(tier, spec, room, out);
                } else {
                    route(tier, spec, &mut scores.to_vec(), out);
                }
            }
            Op::Embed | Op::Linear | Op::Attend(_) | Op::Experts(_) => {
                debug_assert!(false, "{} is not local", step.op.name());
            }
        }
    }
}
