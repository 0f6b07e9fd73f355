//! The right to read one group's weights: whole ones, rows of those that are never loaded whole,
//! and experts that rows are routed to.

use std::ops::Range;
use std::sync::Arc;

use super::each_row;
use super::mapped::Mapped;
use super::streamed::{Held, HeldExperts, Streamed};
use crate::error::{Error, Result};
use crate::plan::residency::ExpertUnits;
use crate::plan::{GroupId, WeightId};

/// Holds a group while it lives.
pub struct Lease<'a> {
    source: Source<'a>,
}

enum Source<'a> {
    Slices(&'a [Option<&'a [u8]>]),
    Mapped { mapped: Arc<Mapped>, group: usize },
    Streamed { streamed: Arc<Streamed>, held: Held },
}

/// Some experts that are held.
pub struct Experts<'a> {
    of: Of<'a>,
}

enum Of<'a> {
    /// All of them lie in whole weights.
    Whole {
        lease: &'a Lease<'a>,
        n_expert: usize,
    },
    Held {
        units: &'a ExpertUnits,
        held: &'a HeldExperts,
    },
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Source::Streamed { streamed, held } = &mut self.source {
            streamed.release(held);
        }
    }
}

impl<'a> Lease<'a> {
    /// A lease over weights that lie in memory, indexed by weight.
    #[must_use]
    pub fn new(slices: &'a [Option<&'a [u8]>]) -> Self {
        Lease { source: Source::Slices(slices) }
    }

    pub(super) fn mapped(mapped: Arc<Mapped>, group: usize) -> Self {
        Lease { source: Source::Mapped { mapped, group } }
    }

    pub(super) fn streamed(streamed: Arc<Streamed>, held: Held) -> Self {
        Lease { source: Source::Streamed { streamed, held } }
    }

    /// The bytes of a weight; empty if it does not belong to the group (routers of a streamed
    /// model belong to all), or if it is never loaded whole: see [`Lease::gather`] and
    /// [`Lease::experts`].
    #[must_use]
    pub fn bytes(&self, weight: WeightId) -> &[u8] {
        let bytes = match &self.source {
            Source::Slices(slices) => slices.get(weight.0 as usize).copied().flatten(),
            Source::Mapped { mapped, group } => {
                mapped.owns(*group, weight).then(|| mapped.weight(weight)).flatten()
            }
            Source::Streamed { streamed, held } => streamed.weight(held, weight),
        };
        bytes.unwrap_or(&[])
    }

    /// Gives rows of a weight of `n_rows` to `each`, with their index in `rows`.
    ///
    /// # Errors
    /// `ERR_IO`, `ERR_FILE_CHANGED`, what `each` fails with; `ERR_INTERNAL` for no such row.
    pub fn gather(
        &self,
        weight: WeightId,
        n_rows: usize,
        rows: &[u32],
        each: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        match &self.source {
            Source::Streamed { streamed, held } => streamed.gather(held, weight, rows, each),
            _ => each_row(self.bytes(weight), n_rows as u64, rows, each),
        }
    }

    /// Holds experts of a step, told by its weights, for `run`: all at once, or turn by turn if
    /// there is no room for all; `run` hears which part of `experts` it is.
    ///
    /// # Errors
    /// `ERR_IO`, `ERR_FILE_CHANGED`, what `run` fails with.
    pub fn experts(
        &self,
        weights: &[WeightId],
        n_expert: usize,
        experts: &[u32],
        run: &mut dyn FnMut(Range<usize>, &Experts<'_>) -> Result<()>,
    ) -> Result<()> {
        match &self.source {
            Source::Streamed { streamed, held } => {
                streamed.experts(held, weights, experts, &mut |range, units, held| {
                    run(range, &Experts { of: Of::Held { units, held } })
                })
            }
            _ => run(0..experts.len(), &Experts { of: Of::Whole { lease: self, n_expert } }),
        }
    }

    /// Whether it is of use to foresee experts: they are read, and read ahead.
    #[must_use]
    pub fn reads_ahead(&self) -> bool {
        match &self.source {
            Source::Slices(_) | Source::Mapped { .. } => false,
            Source::Streamed { streamed, .. } => streamed.reads_ahead(),
        }
    }

    /// Tells of experts, the likeliest first, that a group to come is likely to use, by the weights
    /// of its step. They are read once [`Lease::experts`] has asked for those that are used now,
    /// behind everything that somebody asks for, and as far as there is room.
    pub fn foresee(&self, group: GroupId, weights: &[WeightId], experts: &[u32]) {
        if let Source::Streamed { streamed, .. } = &self.source {
            streamed.foresee(group.0 as usize, weights, experts);
        }
    }

    /// As [`super::Store::check`]: ask when the group has run, before its result is used.
    ///
    /// # Errors
    /// `ERR_FILE_CHANGED` or `ERR_IO`.
    pub fn check(&self) -> Result<()> {
        match &self.source {
            // What was read was checked when it came.
            Source::Slices(_) | Source::Streamed { .. } => Ok(()),
            Source::Mapped { mapped, .. } => mapped.check(),
        }
    }
}

impl Experts<'_> {
    /// An expert's part of a weight.
    ///
    /// # Errors
    /// `ERR_INTERNAL` for an expert that is not held.
    pub fn bytes(&self, weight: WeightId, expert: u32) -> Result<&[u8]> {
        let bytes = match &self.of {
            Of::Whole { lease, n_expert } => {
                let all = lease.bytes(weight);
                let size = all.len() / (*n_expert).max(1);
                let start = (expert as usize).checked_mul(size);
                start.and_then(|start| all.get(start..start.checked_add(size)?))
            }
            Of::Held { units, held } => held_bytes(units, held, weight, expert),
        };
        bytes.ok_or_else(|| Error::internal("store::experts", "an expert that is not held"))
    }
}

fn held_bytes<'a>(
    units: &ExpertUnits,
    held: &'a HeldExperts,
    weight: WeightId,
    expert: u32,
) -> Option<&'a [u8]> {
    let (_, buffer) = held.iter().find(|(number, _)| *number == expert)?;
    let piece = units.units.get(expert as usize)?.piece(weight)?;
    let at = usize::try_from(piece.at).ok()?;
    buffer.get(at..at.checked_add(usize::try_from(piece.bytes).ok()?)?)
}
