//! Which groups stay, and how large the ring is. Dense models are read in a cycle, so what stays is
//! spread evenly over the plan and the rest goes through a small ring. Groups larger than a slot
//! must stay, so every size of a group is a candidate for the slot, and the one that leaves the
//! fewest bytes to read wins. What stays is a prefix of one fixed order and one group more, so that
//! a larger budget never reads more.

use crate::plan::residency::{Residence, Units};

/// Bytes that should be on their way while a group is computed: what a disk needs to be busy.
const AHEAD_BYTES: u64 = 4 << 20;
/// Groups read ahead at most, if nobody asks for more.
const AHEAD_MAX: usize = 8;

/// What is known of the groups, whatever the budget.
pub struct Fill {
    groups: Vec<Size>,
    /// Indices of groups, in the order in which they are pinned.
    order: Vec<usize>,
    shared: u64,
    prefetch: Option<usize>,
    /// Experts of the widest routing.
    n_used: usize,
    expert_bytes: u64,
    n_experts: usize,
    /// Bytes of experts that a row uses in a pass.
    routed: u64,
}

#[derive(Clone, Copy)]
struct Size {
    bytes: u64,
    room: u64,
}

/// A way to use a budget.
pub struct Filled {
    /// Where each group lives.
    pub residence: Residence,
    /// Bytes that stay: pins, shared weights, cached experts.
    pub weights: u64,
    /// Bytes of the ring.
    pub ring: u64,
    /// As [`super::Placement::bytes_per_pass`].
    pub bytes_per_pass: u64,
}

impl Fill {
    /// Measures a plan's units.
    #[must_use]
    pub fn of(units: &Units, prefetch: Option<usize>) -> Self {
        let sizes = units.groups.iter().map(|g| Size { bytes: g.own.bytes, room: g.own.room });
        let widest = |e: &crate::plan::residency::ExpertUnits| e.units.iter().map(|u| u.room).max();
        let routed = units.experts().map(|e| {
            let mean = e.units.iter().map(|u| u.bytes).sum::<u64>() / (e.units.len() as u64).max(1);
            mean * e.n_used as u64
        });
        Fill {
            groups: sizes.collect(),
            order: spread(units.groups.len()),
            shared: units.shared.room,
            prefetch,
            n_used: units.experts().map(|e| e.n_used).max().unwrap_or(0),
            expert_bytes: units.experts().filter_map(widest).max().unwrap_or(0),
            n_experts: units.experts().map(|e| e.units.len()).sum(),
            routed: routed.sum(),
        }
    }

    /// Bytes without which nothing runs.
    #[must_use]
    pub fn least(&self) -> u64 {
        let expert = if self.n_experts == 0 { 0 } else { self.expert_bytes };
        self.candidates().map(|slot| self.pinned_by(slot) + slot).min().unwrap_or(0)
            + expert
            + self.shared
    }

    /// The best use of some bytes; none if they are too few.
    #[must_use]
    pub fn fill(&self, room: u64) -> Option<Filled> {
        let room = room.checked_sub(self.shared)?;
        let experts = self.n_used.min(self.n_experts);
        let kept = experts as u64 * self.expert_bytes;
        let whole = self.candidates().filter_map(|slot| {
            let ring = self.wanted(slot) as u64 * slot;
            let rest = room.checked_sub(kept + ring + self.pinned_by(slot))?;
            Some(self.pin(slot, self.wanted(slot), rest))
        });
        let best = whole
            .chain(self.small(room))
            .min_by_key(|filled| (filled.bytes_per_pass, u64::MAX - filled.ring))?;
        Some(self.cache(best, room))
    }

    /// The smallest slot with as much of a ring and of experts as there is room for: what is left
    /// where no whole ring fits.
    fn small(&self, room: u64) -> Option<Filled> {
        let slot = self.candidates().min_by_key(|slot| (self.pinned_by(*slot) + slot, *slot))?;
        let expert = if self.n_experts == 0 { 0 } else { self.expert_bytes };
        let rest = room.checked_sub(self.pinned_by(slot) + slot + expert)?;
        let more = usize::try_from(rest / slot.max(1)).unwrap_or(usize::MAX);
        let slots = more.saturating_add(1).min(self.wanted(slot));
        Some(self.pin(slot, slots, 0))
    }

    /// Sizes that a slot may have; 0: everything is pinned.
    fn candidates(&self) -> impl Iterator<Item = u64> + '_ {
        let mut sizes: Vec<u64> = self.groups.iter().map(|size| size.room).collect();
        sizes.push(0);
        sizes.sort_unstable();
        sizes.dedup();
        sizes.into_iter()
    }

    /// Bytes of the groups that no slot of this size holds.
    fn pinned_by(&self, slot: u64) -> u64 {
        self.groups.iter().map(|size| size.room).filter(|room| *room > slot).sum()
    }

    /// Slots that a ring should have.
    fn wanted(&self, slot: u64) -> usize {
        if slot == 0 {
            return 0;
        }
        let ahead = AHEAD_BYTES.div_ceil(slot).clamp(1, AHEAD_MAX as u64);
        1 + self.prefetch.unwrap_or(usize::try_from(ahead).unwrap_or(AHEAD_MAX))
    }

    /// Pins what must stay and what fits into `rest` besides.
    fn pin(&self, slot: u64, slots: usize, mut rest: u64) -> Filled {
        let mut pinned: Vec<bool> = self.groups.iter().map(|size| size.room > slot).collect();
        let mut order = self.order.iter().copied().filter(|i| !pinned[*i]).collect::<Vec<_>>();
        let fits = |rest: &mut u64, i: &usize| {
            let left = rest.checked_sub(self.groups[*i].room);
            left.inspect(|left| *rest = *left).is_some()
        };
        let prefix = order.iter().take_while(|i| fits(&mut rest, i)).count();
        order.drain(..prefix).for_each(|i| pinned[i] = true);
        let largest = order.iter().rev().filter(|i| self.groups[**i].room <= rest);
        if let Some(i) = largest.max_by_key(|i| self.groups[**i].bytes) {
            pinned[*i] = true;
        }
        let is_empty = |(size, pinned): (&Size, &mut bool)| {
            // Nothing to load is always there.
            *pinned |= size.room == 0;
        };
        self.groups.iter().zip(&mut pinned).for_each(is_empty);
        let sum = |want: bool, of: fn(&Size) -> u64| {
            let sizes = self.groups.iter().zip(&pinned).filter(|(_, is)| **is == want);
            sizes.map(|(size, _)| of(size)).sum::<u64>()
        };
        // One slot, too, is filled again as soon as its group is done with.
        let read_ahead = slots.saturating_sub(1).max(1).min(self.prefetch.unwrap_or(usize::MAX));
        let streamed = sum(false, |size| size.bytes);
        let slots = if streamed == 0 { 0 } else { slots };
        Filled {
            weights: self.shared + sum(true, |size| size.room),
            ring: slots as u64 * slot,
            bytes_per_pass: streamed,
            residence: Residence {
                pinned,
                slots,
                slot_bytes: slot,
                read_ahead,
                expert_slots: 0,
                expert_bytes: self.expert_bytes,
                staging_bytes: 0,
            },
        }
    }

    /// Gives what is left to the expert cache.
    fn cache(&self, mut filled: Filled, room: u64) -> Filled {
        let used = filled.weights - self.shared + filled.ring;
        let slots = (room - used) / self.expert_bytes.max(1);
        let slots = usize::try_from(slots).unwrap_or(usize::MAX).min(self.n_experts);
        filled.residence.expert_slots = slots;
        filled.weights += slots as u64 * self.expert_bytes;
        let missed = (self.n_experts - slots) as u64;
        filled.bytes_per_pass += if self.n_experts == 0 {
            0
        } else {
            (u128::from(self.routed) * u128::from(missed) / self.n_experts as u128) as u64
        };
        filled
    }
}

/// The numbers below `n` such that every prefix is spread evenly: bits of a counter, reversed.
fn spread(n: usize) -> Vec<usize> {
    let bits = usize::BITS - n.max(1).next_power_of_two().leading_zeros() - 1;
    let reverse = |i: usize| if bits == 0 { 0 } else { i.reverse_bits() >> (usize::BITS - bits) };
    (0..1usize << bits).map(reverse).filter(|i| *i < n).collect()
}
