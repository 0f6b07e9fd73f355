//! The reference backend: candle-core on f32, each step as it is written, slow and obviously right.
//! It decides what an op means; all other backends are compared with it. Every row is computed by
//! itself, so a row cannot depend on its batch.

mod kv;
mod round;
mod steps;

use std::sync::Arc;

use crate::backend::{Backend, Batch, KvType, PAGE_TOKENS, PageId, Probe};
use crate::error::{Error, Result};
use crate::plan::{GroupId, Op, Plan, Step, ValueId};
use crate::store::Lease;
use kv::Kv;

/// Runs plans step by step on f32.
pub struct Reference {
    plan: Arc<Plan>,
    kv: Kv,
    batch: Batch,
    /// By value id, all rows of the pass; empty when not written yet or no longer needed.
    values: Vec<Vec<f32>>,
    /// By value id: the group and step that read it last.
    last_reads: Vec<Option<(usize, usize)>>,
}

impl Reference {
    /// A backend for one plan, its KV cache rounded as these types round.
    ///
    /// # Errors
    /// `ERR_INTERNAL` if the plan breaks its own rules; `ERR_INVALID_ARG` for a type that a head
    /// size does not allow.
    pub fn new(plan: Arc<Plan>, kv_k: KvType, kv_v: KvType) -> Result<Self> {
        plan.check()?;
        let mut last_reads = vec![None; plan.values.len()];
        for (group, steps) in plan.groups.iter().enumerate() {
            for (index, step) in steps.steps.iter().enumerate() {
                for id in &step.inputs {
                    last_reads[id.0 as usize] = Some((group, index));
                }
            }
        }
        let kv = Kv::new(plan.kv_layers.clone(), kv_k, kv_v)?;
        let values = vec![Vec::new(); plan.values.len()];
        Ok(Reference { plan, kv, batch: Batch::default(), values, last_reads })
    }

    fn step(&mut self, step: &Step, weights: &Lease<'_>) -> Result<Vec<f32>> {
        let inputs: Vec<&[f32]> =
            step.inputs.iter().map(|id| self.values[id.0 as usize].as_slice()).collect();
        let rows = &self.batch.rows;
        match &step.op {
            Op::Attend(attend) => self.kv.attend(attend, &self.batch, &inputs),
            Op::Embed => steps::embed(&self.plan, step, rows, weights),
            Op::Rope(rope) => {
                let factors = steps::optional_vector(&self.plan, step, 0, weights)?;
                Ok(steps::rope(rope, factors.as_deref(), rows, inputs[0]))
            }
            Op::Select => Ok(steps::select(rows, inputs[0])),
            _ => steps::run(&self.plan, step, &inputs, weights),
        }
    }
}

impl Backend for Reference {
    fn name(&self) -> &str {
        "reference"
    }

    fn tier(&self) -> &str {
        "candle f32"
    }

    fn page_commit(&mut self, page: PageId) -> Result<()> {
        self.kv.commit(page)
    }

    fn page_free(&mut self, page: PageId) {
        self.kv.free(page);
    }

    fn page_copy(&mut self, from: PageId, to: PageId, tokens: usize) -> Result<()> {
        self.kv.copy(from, to, tokens)
    }

    fn page_bytes(&self) -> usize {
        self.kv.page_bytes()
    }

    fn scratch_bytes(&self) -> usize {
        self.values.iter().map(|value| 4 * value.capacity()).sum()
    }

    fn activation_bytes(&self, rows: usize, selected: usize) -> usize {
        // Values that a layer has at a time are fewer than eight of the widest.
        let values = || self.plan.values.iter();
        let narrow = values().filter(|value| !value.selected).map(|value| value.floats()).max();
        (rows * narrow.unwrap_or(0) * 8 + selected * self.plan.n_vocab * 2) * size_of::<f32>()
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        let refuse = |what: String| Err(Error::internal("batch", what));
        let mut before: Option<(u32, u32)> = None;
        for row in &batch.rows {
            if row.token as usize >= self.plan.n_vocab {
                return refuse(format!("token {} is not in the vocabulary", row.token));
            }
            let Some(pages) = batch.sequences.get(row.sequence as usize) else {
                return refuse(format!("there is no sequence {}", row.sequence));
            };
            let needed = row.position as usize / PAGE_TOKENS + 1;
            match pages.get(..needed) {
                Some(pages) if pages.iter().all(|page| self.kv.is_committed(*page)) => {}
                _ => return refuse(format!("position {} has no page", row.position)),
            }
            let ascends = before.is_none_or(|(sequence, position)| {
                row.sequence > sequence || (row.sequence == sequence && row.position > position)
            });
            if !ascends {
                return refuse("rows are out of order".to_owned());
            }
            before = Some((row.sequence, row.position));
        }
        self.batch = batch.clone();
        self.values.iter_mut().for_each(|value| *value = Vec::new());
        Ok(())
    }

    fn run(
        &mut self,
        group: GroupId,
        weights: &Lease<'_>,
        mut probe: Option<Probe<'_>>,
    ) -> Result<()> {
        let plan = self.plan.clone();
        let Some(found) = plan.groups.get(group.0 as usize) else {
            return Err(Error::internal("reference", format!("there is no group {}", group.0)));
        };
        for (index, step) in found.steps.iter().enumerate() {
            let output = self.step(step, weights)?;
            if let Some(probe) = probe.as_mut() {
                probe(group, index, step.output, &output);
            }
            self.values[step.output.0 as usize] = output;
            for id in &step.inputs {
                if self.last_reads[id.0 as usize] == Some((group.0 as usize, index)) {
                    self.values[id.0 as usize] = Vec::new();
                }
            }
        }
        Ok(())
    }

    fn logits(&self) -> &[f32] {
        let ValueId(id) = self.plan.logits;
        &self.values[id as usize]
    }
}
