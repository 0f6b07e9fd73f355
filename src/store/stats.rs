//! What `stats()` tells of the store.

use super::state::{Cell, Content, Shared};
use crate::plan::residency::{GroupUnits, Residence, Units};
use crate::plan::{Group, Op, Plan, Router};

/// Where a group lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Mapped, or in memory once it was loaded.
    Pinned,
    /// It comes through the ring, or row by row.
    Streamed,
    /// In the expert cache as far as it goes.
    Cached,
}

/// How far a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// In the files only.
    Cold,
    /// On its way.
    Loading,
    /// There, for now.
    Ready,
    /// There to stay.
    Pinned,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStats {
    /// `layer 3 attention`, `layer 3 experts`.
    pub name: String,
    /// Bytes of its weights.
    pub bytes: u64,
    /// Where it lives.
    pub place: Place,
    /// How far it is.
    pub state: Progress,
    /// Ready when it was asked for.
    pub hits: u64,
    /// Not even begun then.
    pub misses: u64,
    /// Begun, but not done then.
    pub late: u64,
    /// Experts that were asked for on a guess, before they were routed to.
    pub guessed: u64,
    /// Of those, routed to afterwards.
    pub guessed_right: u64,
}

/// The store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreStats {
    /// `mmap`; `io_uring direct, 8 x 1 MiB`: reads on their way, and bytes of one ...
    pub backend: String,
    /// Why it is not the one asked for.
    pub reason: Option<String>,
    /// Bytes of weights read: groups, experts, rows.
    pub bytes_read: u64,
    /// Of those, experts.
    pub expert_bytes: u64,
    /// Of those, experts whose reading began on a guess.
    pub guessed_bytes: u64,
    /// Of all, rows of gathered weights.
    pub gathered_bytes: u64,
    /// Bytes read with what direct reads add at the edges.
    pub device_bytes: u64,
    /// While there was something to read.
    pub bytes_per_second: f64,
    /// Reads on their way.
    pub in_flight: usize,
    /// How long the engine has waited, all in all.
    pub stall_ms: f64,
    /// In plan order.
    pub groups: Vec<GroupStats>,
}

impl StoreStats {
    /// These figures on top of those before.
    pub(super) fn after(mut self, past: &StoreStats) -> Self {
        self.bytes_read += past.bytes_read;
        self.expert_bytes += past.expert_bytes;
        self.guessed_bytes += past.guessed_bytes;
        self.gathered_bytes += past.gathered_bytes;
        self.device_bytes += past.device_bytes;
        self.stall_ms += past.stall_ms;
        self
    }
}

/// Of a model that is mapped: nothing moves.
pub fn mapped(plan: &Plan) -> StoreStats {
    let groups = plan.groups.iter().map(|group| {
        let ids = group.weights();
        GroupStats {
            name: group.kind.label(),
            bytes: ids.into_iter().map(|id| plan.weight(id).extent.bytes).sum(),
            place: Place::Pinned,
            state: Progress::Pinned,
            hits: 0,
            misses: 0,
            late: 0,
            guessed: 0,
            guessed_right: 0,
        }
    });
    StoreStats { backend: "mmap".to_owned(), groups: groups.collect(), ..StoreStats::default() }
}

/// Bytes of a group without its experts: what it loads, what its rows are gathered from, its
/// router.
fn own_bytes(plan: &Plan, group: &Group, units: &GroupUnits) -> u64 {
    let embeds = group.steps.iter().filter(|step| step.op == Op::Embed);
    let gathered = embeds.flat_map(|step| &step.weights).map(|id| plan.weight(*id).extent.bytes);
    let router = group.router();
    let router = router.iter().flat_map(Router::weights).map(|id| plan.weight(id).extent.bytes);
    units.own.bytes + gathered.sum::<u64>() + router.sum::<u64>()
}

/// Milliseconds waited and bytes of weights read.
pub fn cost(shared: &Shared) -> (f64, u64) {
    let state = shared.state.lock();
    (state.counters.stall_ms, state.counters.bytes_read())
}

/// Bytes of pins that were loaded and of the ring.
pub fn resident(shared: &Shared) -> u64 {
    let (state, residence) = (shared.state.lock(), shared.residence());
    let pinned = state.cells.iter().zip(&residence.pinned).filter(|(_, pinned)| **pinned);
    let ready = pinned.filter_map(|(cell, _)| match &cell.content {
        Content::Ready(buffer) => Some(buffer.len() as u64),
        _ => None,
    });
    let ring = residence.slots as u64 * residence.slot_bytes;
    let experts = state.cache.len() as u64 * residence.expert_bytes;
    ready.sum::<u64>() + ring + experts
}

/// Of a model that is streamed.
#[allow(clippy::cast_precision_loss, reason = "a rate for people")]
pub fn streamed(plan: &Plan, shared: &Shared) -> StoreStats {
    let (state, residence) = (shared.state.lock(), shared.residence());
    let counters = &state.counters;
    let groups = rows(plan, &shared.units, &residence, &state.cells);
    let rate = counters.device_bytes as f64 / counters.busy_s.max(1e-9);
    StoreStats {
        backend: format!("{}, {}", counters.io, counters.way),
        reason: counters.reason.clone(),
        bytes_read: counters.bytes_read(),
        expert_bytes: counters.expert_bytes,
        guessed_bytes: counters.guessed_bytes,
        gathered_bytes: counters.gathered_bytes,
        device_bytes: counters.device_bytes,
        bytes_per_second: if counters.device_bytes == 0 { 0.0 } else { rate },
        in_flight: counters.in_flight,
        stall_ms: counters.stall_ms,
        groups,
    }
}

/// The groups of a plan that lives there, before anything has run; none: mapped.
#[must_use]
pub fn planned(plan: &Plan, units: &Units, residence: Option<&Residence>) -> Vec<GroupStats> {
    let cells: Vec<Cell> = plan.groups.iter().map(|_| Cell::new()).collect();
    residence.map_or_else(|| mapped(plan).groups, |r| rows(plan, units, r, &cells))
}

fn rows(plan: &Plan, units: &Units, residence: &Residence, cells: &[Cell]) -> Vec<GroupStats> {
    let mut groups = Vec::new();
    for (index, (group, units)) in plan.groups.iter().zip(&units.groups).enumerate() {
        let Some(cell) = cells.get(index) else { continue };
        let is_loaded = units.own.room > 0;
        let stays = residence.pinned.get(index).copied().unwrap_or(false);
        // A router alone always stays.
        let is_pinned = if is_loaded { stays } else { group.router().is_some() };
        let label = group.kind.label();
        let experts: u64 = units.experts.iter().flat_map(|e| &e.units).map(|unit| unit.bytes).sum();
        if experts > 0 {
            groups.push(GroupStats {
                name: format!("{label} experts"),
                bytes: experts,
                place: Place::Cached,
                state: Progress::Ready,
                hits: cell.experts.hits,
                misses: cell.experts.misses,
                late: cell.experts.late,
                guessed: cell.experts.guessed,
                guessed_right: cell.experts.guessed_right,
            });
        }
        groups.push(GroupStats {
            name: label,
            bytes: own_bytes(plan, group, units),
            place: if is_pinned { Place::Pinned } else { Place::Streamed },
            state: match &cell.content {
                Content::Ready(_) if is_pinned => Progress::Pinned,
                Content::Cold if is_pinned && !is_loaded => Progress::Pinned,
                Content::Ready(_) => Progress::Ready,
                Content::Loading => Progress::Loading,
                Content::Cold | Content::Failed(_) => Progress::Cold,
            },
            hits: cell.hits,
            misses: cell.misses,
            late: cell.late,
            guessed: 0,
            guessed_right: 0,
        });
    }
    groups
}
