//! Groups as jobs of the pool. In passes of few rows, stages follow each other in one job and
//! threads wait for each other between stages only; many rows are worth a job of each stage, as
//! then even norms and quantising are work for all.

use super::super::kernel::attend::TILE;
use super::super::kernel::attend::job::RANGE;
use super::super::kernel::job::{Job, STAGES_MAX};
use super::super::kv::Pages;
use super::Exec;
use crate::error::Result;
use crate::plan::{GroupId, Op, Plan, Stage, Step, Work};
use crate::store::Lease;
use parking_lot::RwLock;
use std::sync::Arc;

/// Rows up to which one thread quantises or norms them about as fast as others are called. With 16
/// instead of 4, passes of 8, 12 and 16 rows of TinyLlama take 36.6, 55.6 and 69.7 ms instead of
/// 40.8, 58.7 and 73.2.
pub const ROWS_FEW: usize = 16;
/// Positions up to which a head's attention takes about as long as a piece of weights. Beyond
/// that it is a job of its own, which splits keys, and a layer has a barrier more.
const POSITIONS_FEW: usize = RANGE * TILE;

impl Exec {
    /// Whether this pass is one for jobs.
    pub(super) fn is_few(&self) -> bool {
        let end = |span: &super::Span| span.position + span.rows.len();
        self.batch.rows.len() <= ROWS_FEW && self.spans.iter().all(|s| end(s) <= POSITIONS_FEW)
    }

    /// The widest input of a linear step.
    pub(super) fn widest(plan: &Plan) -> usize {
        let steps = plan.groups.iter().flat_map(|group| &group.steps);
        let linears = steps.filter(|step| step.op == Op::Linear);
        let widths = linears.filter_map(|step| step.inputs.first().map(|id| plan.value(*id).width));
        widths.max().unwrap_or(0)
    }

    /// Runs a group over many rows.
    pub(super) fn stages(
        &mut self,
        id: GroupId,
        pages: &mut Pages,
        weights: &Lease<'_>,
    ) -> Result<()> {
        let (plan, stages) = (Arc::clone(&self.plan), Arc::clone(&self.stages));
        let steps = &plan.group(id).steps;
        for stage in stages.get(id.0 as usize).map_or(&[][..], |stages| stages) {
            let together = stage.together();
            let linears = plan.group(id).alike(together.start);
            let each = stage.each;
            if !together.is_empty() && !linears.is_empty() {
                let end = each.map_or(linears.end, |each| each + 1);
                let stage = Stage { work: Work::Linears(linears), each, then: end..end };
                self.job(steps, &[stage], pages, weights)?;
                self.steps(&steps[end..together.end], pages, weights)?;
            } else {
                self.steps(&steps[together], pages, weights)?;
            }
            self.steps(&steps[stage.then.clone()], pages, weights)?;
        }
        Ok(())
    }

    fn steps(&mut self, steps: &[Step], pages: &mut Pages, weights: &Lease<'_>) -> Result<()> {
        steps.iter().try_for_each(|step| self.step(step, pages, weights))
    }

    /// Runs a linear step.
    pub(super) fn linear(
        &mut self,
        step: &Step,
        pages: &mut Pages,
        weights: &Lease<'_>,
    ) -> Result<()> {
        let stage = Stage { work: Work::Linears(0..1), each: None, then: 1..1 };
        self.job(std::slice::from_ref(step), &[stage], pages, weights)
    }

    /// Runs a group over few rows.
    pub(super) fn jobs(
        &mut self,
        id: GroupId,
        pages: &mut Pages,
        weights: &Lease<'_>,
    ) -> Result<()> {
        let (plan, stages) = (Arc::clone(&self.plan), Arc::clone(&self.stages));
        let steps = &plan.group(id).steps;
        let mut left = stages.get(id.0 as usize).map_or(&[][..], |stages| stages);
        while let Some(first) = left.first() {
            let n = if let Work::Alone(step) = first.work {
                self.step(&steps[step], pages, weights)?;
                1
            } else {
                let n = job_of(left);
                self.job(steps, &left[..n], pages, weights)?;
                n
            };
            left = &left[n..];
        }
        Ok(())
    }

    fn job(
        &mut self,
        steps: &[Step],
        stages: &[Stage],
        pages: &mut Pages,
        weights: &Lease<'_>,
    ) -> Result<()> {
        for step in stages.iter().flat_map(|stage| [stage.together(), stage.then.clone()]) {
            for step in steps[step].iter().filter(|step| matches!(step.op, Op::Rope(_))) {
                self.turn(step, weights)?;
            }
        }
        let mut room = std::mem::take(&mut self.pieces);
        let ropes = &self.ropes;
        let rows = [self.batch.rows.len(), self.selected.len()];
        let job = Job {
            tier: self.table.tier(),
            table: &self.table,
            steps,
            stages,
            weights,
            bank: self.arena.bank(&self.layout, &self.plan, rows),
            desk: &self.desk,
            pages: RwLock::new(pages),
            sequences: &self.batch.sequences,
            spans: &self.spans,
            selected: &self.selected,
            angles: &|step| ropes.get(step),
        };
        let done = job.run(&mut self.pool, &mut room);
        self.pieces = room;
        done
    }
}

/// How many stages the next job takes: up to a step that sees to itself, or second heads.
fn job_of(stages: &[Stage]) -> usize {
    let mut heads = 0;
    let fits = |stage: &&Stage| {
        heads += usize::from(matches!(stage.work, Work::Heads(_)));
        heads < 2 && !matches!(stage.work, Work::Alone(_))
    };
    stages.iter().take(STAGES_MAX).take_while(fits).count()
}
