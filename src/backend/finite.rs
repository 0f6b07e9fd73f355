//! Weights that are no numbers: looks through those of one step, however its group holds them, for
//! a value that is NaN or infinite. It takes a row at a time and does not know why anybody asks.

use crate::error::{Error, Result};
use crate::plan::{Op, Plan, Step, WeightId};
use crate::store::Lease;

/// Values looked at between two questions whether to go on: about a millisecond's worth.
const VALUES_AT_ONCE: usize = 1 << 20;

/// A value that is NaN or infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotFinite {
    /// The tensor.
    pub weight: WeightId,
    /// Which expert's part of it.
    pub expert: Option<usize>,
    /// Row in the tensor, or in the expert's part of it.
    pub row: usize,
    /// Column.
    pub column: usize,
    /// The value.
    pub value: f32,
}

/// Looks through weights until told to stop.
pub struct Search<'a> {
    plan: &'a Plan,
    /// Asked now and then; `false` ends the search.
    go_on: &'a mut dyn FnMut() -> bool,
    is_off: bool,
    seen: usize,
    values: Vec<f32>,
}

impl<'a> Search<'a> {
    /// A search in the weights of a plan.
    pub fn new(plan: &'a Plan, go_on: &'a mut dyn FnMut() -> bool) -> Self {
        Search { plan, go_on, is_off: false, seen: 0, values: Vec::new() }
    }

    /// The first such value in a step's weights; of an embedding, in the rows of `tokens`. None
    /// also once it was told to stop.
    ///
    /// # Errors
    /// `ERR_IO`, `ERR_FILE_CHANGED`; `ERR_INTERNAL` for weights that are not the plan's.
    pub fn step(
        &mut self,
        step: &Step,
        lease: &Lease<'_>,
        tokens: &[u32],
    ) -> Result<Option<NotFinite>> {
        let found = match (&step.op, step.weights.first()) {
            (Op::Embed, Some(&id)) => self.embedding(id, lease, tokens),
            (Op::Experts(_), _) => self.experts(step, lease),
            _ => step
                .weights
                .iter()
                .find_map(|&id| {
                    let width = self.plan.weight(id).shape.last().copied().unwrap_or(1);
                    self.rows(id, None, lease.bytes(id), width).transpose()
                })
                .transpose(),
        }?;
        lease.check()?;
        Ok(found)
    }

    fn embedding(
        &mut self,
        id: WeightId,
        lease: &Lease<'_>,
        tokens: &[u32],
    ) -> Result<Option<NotFinite>> {
        let width = self.plan.weight(id).shape.last().copied().unwrap_or(1);
        let mut found = None;
        lease.gather(id, self.plan.n_vocab, tokens, &mut |index, bytes| {
            if found.is_none() {
                let row = tokens.get(index).map_or(0, |token| *token as usize);
                found = self.rows(id, None, bytes, width)?.map(|bad| NotFinite { row, ..bad });
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn experts(&mut self, step: &Step, lease: &Lease<'_>) -> Result<Option<NotFinite>> {
        let shape = step.weights.first().map(|id| &self.plan.weight(*id).shape);
        let n_expert = shape.and_then(|shape| shape.first()).copied().unwrap_or(0);
        let mut found = None;
        for expert in 0..u32::try_from(n_expert).unwrap_or(0) {
            lease.experts(&step.weights, n_expert, &[expert], &mut |_, held| {
                for &id in &step.weights {
                    if found.is_none() {
                        let width = self.plan.weight(id).shape.last().copied().unwrap_or(1);
                        let bytes = held.bytes(id, expert)?;
                        found = self.rows(id, Some(expert as usize), bytes, width)?;
                    }
                }
                Ok(())
            })?;
            if found.is_some() || self.is_off {
                break;
            }
        }
        Ok(found)
    }

    /// Rows of `width` values that lie one behind the other.
    fn rows(
        &mut self,
        weight: WeightId,
        expert: Option<usize>,
        bytes: &[u8],
        width: usize,
    ) -> Result<Option<NotFinite>> {
        let kind = self.plan.weight(weight).kind;
        let size = kind.row_bytes(width).filter(|size| *size > 0);
        let size = size.ok_or_else(|| Error::internal("backend::finite", "rows of no blocks"))?;
        self.values.resize(width, 0.0);
        for (row, bytes) in bytes.chunks_exact(size).enumerate() {
            self.seen += width;
            if self.is_off || self.seen >= VALUES_AT_ONCE {
                self.seen = 0;
                self.is_off = self.is_off || !(self.go_on)();
                if self.is_off {
                    return Ok(None);
                }
            }
            kind.dequantise(bytes, &mut self.values)?;
            if let Some(column) = self.values.iter().position(|value| !value.is_finite()) {
                let value = self.values[column];
                return Ok(Some(NotFinite { weight, expert, row, column, value }));
            }
        }
        Ok(None)
    }
}
