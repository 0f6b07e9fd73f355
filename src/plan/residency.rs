//! Units of residency: which bytes of the files live and die together, and how they lie in a
//! buffer. A group's own weights are one unit, every expert's slices are one, a token embedding is
//! gathered by row and never loaded, and what several groups share is one unit that always stays,
//! with all routers: they are asked before their layer comes.
//! Ranges of a file are widened to [`ALIGN`], so that they can be read around the page cache.

use std::collections::BTreeSet;

use super::{Extent, Op, Plan, Router, WeightId};

/// What direct reads want of offsets, lengths and addresses: a page.
pub const ALIGN: u64 = 4096;

/// A weight, or an expert's slice of one, in a unit's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which weight.
    pub weight: WeightId,
    /// First byte in the buffer.
    pub at: u64,
    /// Length.
    pub bytes: u64,
}

/// A range of a file that is read at once; buffers hold a unit's runs one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Index of the file.
    pub part: u32,
    /// First byte in the file, aligned.
    pub offset: u64,
    /// Length, aligned: may end beyond the file.
    pub bytes: u64,
    /// Length up to the last byte of a weight.
    pub needed: u64,
}

/// What is loaded and dropped together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// Its weights, by id.
    pub pieces: Vec<Piece>,
    /// What to read, in the order of the buffer.
    pub runs: Vec<Run>,
    /// Bytes of weights.
    pub bytes: u64,
    /// Bytes of its buffer.
    pub room: u64,
}

/// The experts of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpertUnits {
    /// Gate, up, down.
    pub weights: Vec<WeightId>,
    /// By expert.
    pub units: Vec<Unit>,
    /// Experts that a row uses.
    pub n_used: usize,
}

/// What a group needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupUnits {
    /// Its own weights.
    pub own: Unit,
    /// Experts, one entry a step that has them.
    pub experts: Vec<ExpertUnits>,
}

/// All units of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// By group.
    pub groups: Vec<GroupUnits>,
    /// Weights that more than one group needs, and those of routers.
    pub shared: Unit,
    /// Weights that are read by row, and bytes of a row. They may also belong to a group.
    pub gathered: Vec<(WeightId, u64)>,
}

/// Where each group lives while a model is streamed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residence {
    /// By group: whether it stays once it is loaded.
    pub pinned: Vec<bool>,
    /// Slots of the ring, through which all others go.
    pub slots: usize,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Groups that are loaded before they are asked for.
    pub read_ahead: usize,
    /// Experts that are kept.
    pub expert_slots: usize,
    /// Bytes of an expert's slot.
    pub expert_bytes: u64,
    /// Bytes for rows on their way from a gathered weight.
    pub staging_bytes: u64,
}

impl Unit {
    /// A unit of some byte ranges; ranges that touch are read together.
    #[must_use]
    pub fn of(parts: &[(WeightId, Extent)]) -> Self {
        let mut sorted = parts.to_vec();
        sorted.sort_by_key(|(id, extent)| (extent.part, extent.offset, *id));
        let mut unit = Unit::default();
        for (weight, Extent { part, offset, bytes }) in sorted {
            let end = offset.saturating_add(bytes);
            let joins =
                |run: &Run| run.part == part && offset <= run.offset.saturating_add(run.bytes);
            let run = match unit.runs.pop() {
                Some(run) if joins(&run) => {
                    unit.room -= run.bytes;
                    let needed = run.needed.max(end - run.offset);
                    Run { bytes: align_up(needed), needed, ..run }
                }
                other => {
                    unit.runs.extend(other);
                    let first = offset / ALIGN * ALIGN;
                    let needed = end - first;
                    Run { part, offset: first, bytes: align_up(needed), needed }
                }
            };
            let at = unit.room + (offset - run.offset);
            unit.room += run.bytes;
            unit.runs.push(run);
            unit.bytes += bytes;
            unit.pieces.push(Piece { weight, at, bytes });
        }
        unit.pieces.sort_by_key(|piece| piece.weight);
        unit
    }

    /// Where a weight lies in the buffer.
    #[must_use]
    pub fn piece(&self, weight: WeightId) -> Option<Piece> {
        let index = self.pieces.binary_search_by_key(&weight, |piece| piece.weight).ok()?;
        self.pieces.get(index).copied()
    }
}

/// The next multiple of [`ALIGN`].
#[must_use]
pub fn align_up(bytes: u64) -> u64 {
    bytes.saturating_add(ALIGN - 1) / ALIGN * ALIGN
}

impl Units {
    /// The units of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let mut users = vec![0usize; plan.weights.len()];
        for group in &plan.groups {
            for id in own_weights(plan, group) {
                users[id.0 as usize] += 1;
            }
            for id in group.router().iter().flat_map(Router::weights) {
                users[id.0 as usize] += 1;
            }
        }
        let part = |id: &WeightId| (*id, plan.weight(*id).extent);
        let mut shared = BTreeSet::new();
        let mut units = Units::default();
        for group in &plan.groups {
            let (many, own): (Vec<WeightId>, Vec<WeightId>) =
                own_weights(plan, group).into_iter().partition(|id| users[id.0 as usize] > 1);
            shared.extend(many);
            let experts = group.steps.iter().filter_map(|step| {
                let Op::Experts(_) = step.op else { return None };
                let n_used = step.inputs.get(1).map_or(0, |id| plan.value(*id).width);
                expert_units(plan, &step.weights, n_used)
            });
            let own = Unit::of(&own.iter().map(part).collect::<Vec<_>>());
            units.groups.push(GroupUnits { own, experts: experts.collect() });
            for step in group.steps.iter().filter(|step| step.op == Op::Embed) {
                for weight in &step.weights {
                    if units.gathered.iter().any(|(other, _)| other == weight) {
                        continue;
                    }
                    let tensor = plan.weight(*weight);
                    let rows = tensor.shape.first().copied().unwrap_or(1).max(1) as u64;
                    units.gathered.push((*weight, tensor.extent.bytes / rows));
                }
            }
        }
        units.shared = Unit::of(&shared.iter().map(part).collect::<Vec<_>>());
        units
    }

    /// Experts of all steps.
    pub fn experts(&self) -> impl Iterator<Item = &ExpertUnits> {
        self.groups.iter().flat_map(|group| &group.experts)
    }

    /// Bytes of all that is loaded: everything but what is only gathered.
    #[must_use]
    pub fn loaded_bytes(&self) -> u64 {
        let own: u64 = self.groups.iter().map(|group| group.own.bytes).sum();
        let experts: u64 = self.experts().flat_map(|e| &e.units).map(|unit| unit.bytes).sum();
        own + experts + self.shared.bytes
    }
}

/// The weights that a group loads: not its experts, and not what it reads by row.
fn own_weights(plan: &Plan, group: &super::Group) -> Vec<WeightId> {
    let loads = |step: &&super::Step| match step.op {
        Op::Embed => false,
        Op::Experts(_) => expert_units(plan, &step.weights, 0).is_none(),
        _ => true,
    };
    let ids: BTreeSet<WeightId> =
        group.steps.iter().filter(loads).flat_map(|step| step.weights.iter().copied()).collect();
    ids.into_iter().collect()
}

/// Every expert's slices of some weights `[n_expert, ..]`; none if they have no such shape.
fn expert_units(plan: &Plan, weights: &[WeightId], n_used: usize) -> Option<ExpertUnits> {
    let n_expert = *plan.weight(*weights.first()?).shape.first()? as u64;
    let fits = |id: &WeightId| {
        let weight = plan.weight(*id);
        weight.shape.first().is_some_and(|n| *n as u64 == n_expert)
            && weight.extent.bytes.is_multiple_of(n_expert.max(1))
    };
    if n_expert == 0 || !weights.iter().all(fits) {
        return None;
    }
    let slice = |id: WeightId, expert: u64| {
        let Extent { part, offset, bytes } = plan.weight(id).extent;
        let size = bytes / n_expert;
        (id, Extent { part, offset: offset + expert * size, bytes: size })
    };
    let unit =
        |expert: u64| Unit::of(&weights.iter().map(|id| slice(*id, expert)).collect::<Vec<_>>());
    let units = (0..n_expert).map(unit).collect();
    Some(ExpertUnits { weights: weights.to_vec(), units, n_used })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(part: u32, offset: u64, bytes: u64) -> Extent {
        Extent { part, offset, bytes }
    }

    #[test]
    fn ranges_that_touch_are_one_run_and_every_piece_is_where_its_bytes_come_to_lie() {
        let parts = [
            (WeightId(0), extent(0, 9000, 100)),
            (WeightId(1), extent(0, 9100, 5000)),
            (WeightId(2), extent(0, 100_000, 10)),
            (WeightId(3), extent(1, 0, 4096)),
        ];
        let unit = Unit::of(&parts);
        assert_eq!(unit.runs.len(), 3);
        assert_eq!(unit.runs[0], Run { part: 0, offset: 8192, bytes: 8192, needed: 5908 });
        assert_eq!((unit.bytes, unit.room), (100 + 5000 + 10 + 4096, 8192 + 4096 + 4096));
        for (weight, extent) in parts {
            let piece = unit.piece(weight).expect("there");
            let mut at = 0;
            for run in &unit.runs {
                if run.part == extent.part
                    && (run.offset..run.offset + run.bytes).contains(&extent.offset)
                {
                    assert_eq!(piece.at, at + extent.offset - run.offset);
                    assert!(extent.offset + extent.bytes <= run.offset + run.needed);
                }
                at += run.bytes;
            }
            assert_eq!((at, piece.bytes), (unit.room, extent.bytes));
        }
        assert_eq!(unit.piece(WeightId(9)), None);
        assert_eq!(Unit::of(&[]), Unit::default());
    }
}
