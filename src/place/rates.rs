//! How fast a placement is to be expected to run: rates of disk and kernels that somebody measured
//! or was given, and the time that a pass takes by them, reading and computing side by side as the
//! ring lets them. Numbers in, numbers out.

use super::Placement;
use crate::plan::residency::{Residence, Units};
use crate::plan::{Group, GroupKind, Op, Plan, Step};

/// What a machine can do.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// Bytes a second that come from disk.
    pub disk: f64,
    /// Seconds that a step takes however little it computes.
    pub step_s: f64,
    /// By weight.
    pub weights: Vec<WeightRate>,
}

/// What a machine does with a weight of some type.
#[derive(Clone, Copy, Debug, Default)]
pub struct WeightRate {
    /// Bytes a second for one row.
    pub one: f64,
    /// Bytes times rows a second for many.
    pub many: f64,
}

/// Tokens a second to expect.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// Of one generation alone, with a short context.
    pub decode: f64,
    /// Of a long prompt.
    pub prompt: f64,
}

/// What a group costs in a pass, in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    compute: f64,
    /// Through the ring; none: it is there.
    read: Option<f64>,
    /// When it runs, while nothing is computed.
    demand: f64,
}

/// Passes until one is like the one before.
const PASSES: usize = 4;

/// The speed of a plan that is placed so.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "an expectation")]
pub fn speed(plan: &Plan, units: &Units, placement: &Placement, rates: &Rates) -> Speed {
    let of = |rows: usize| {
        let groups = plan.groups.iter().enumerate();
        let costs = groups.map(|(i, group)| cost(plan, units, placement, rates, (i, group), rows));
        let seconds = pass_seconds(&costs.collect::<Vec<_>>(), placement.streamed.as_ref());
        rows as f64 / seconds.max(1e-9)
    };
    Speed { decode: of(1), prompt: of(placement.size.rows.max(1)) }
}

#[allow(clippy::cast_precision_loss, reason = "an expectation")]
fn cost(
    plan: &Plan,
    units: &Units,
    placement: &Placement,
    rates: &Rates,
    (index, group): (usize, &Group),
    rows: usize,
) -> Cost {
    // Of a prompt only the last row gives logits.
    let rows = if group.kind == GroupKind::Output { 1 } else { rows };
    let steps = group.steps.iter().map(|step| step_seconds(plan, rates, step, rows));
    let compute = steps.sum();
    let n_experts: usize = units.experts().map(|e| e.units.len()).sum();
    let Some((residence, units)) = placement.streamed.as_ref().zip(units.groups.get(index)) else {
        return Cost { compute, ..Cost::default() };
    };
    let is_pinned = residence.pinned.get(index).copied().unwrap_or(true);
    let seconds = |bytes: f64| bytes / rates.disk.max(1.0);
    let read = (!is_pinned && units.own.room > 0).then(|| seconds(units.own.room as f64));
    let experts = units.experts.iter().map(|e| {
        let all = e.units.iter().map(|unit| unit.room as f64).sum::<f64>();
        all * used(e.units.len(), e.n_used, rows)
    });
    let missed = 1.0 - (residence.expert_slots as f64 / n_experts.max(1) as f64).min(1.0);
    Cost { compute, read, demand: seconds(experts.sum::<f64>() * missed) }
}

fn n_expert(plan: &Plan, step: &Step) -> usize {
    let first = step.weights.first().and_then(|id| plan.weight(*id).shape.first());
    first.copied().unwrap_or(1).max(1)
}

/// Part of the experts that some rows use, if they choose independently.
#[allow(clippy::cast_precision_loss, reason = "an expectation")]
fn used(n_expert: usize, n_used: usize, rows: usize) -> f64 {
    let idle = 1.0 - (n_used as f64 / n_expert.max(1) as f64).min(1.0);
    1.0 - idle.powf(rows as f64)
}

#[allow(clippy::cast_precision_loss, reason = "an expectation")]
fn step_seconds(plan: &Plan, rates: &Rates, step: &Step, rows: usize) -> f64 {
    let weights = step.weights.iter().map(|id| {
        let bytes = plan.weight(*id).extent.bytes as f64;
        let rate = rates.weights.get(id.0 as usize).copied().unwrap_or_default();
        let (touched, row_bytes) = match step.op {
            Op::Embed => return 0.0,
            Op::Experts(_) => {
                let n_used = step.inputs.get(1).map_or(1, |id| plan.value(*id).width);
                let n_expert = n_expert(plan, step);
                let each = bytes * n_used as f64 / n_expert as f64;
                (bytes * used(n_expert, n_used, rows), each * rows as f64)
            }
            _ => (bytes, bytes * rows as f64),
        };
        (touched / rate.one.max(1.0)).max(row_bytes / rate.many.max(1.0))
    });
    rates.step_s + weights.sum::<f64>()
}

/// Seconds from one pass to the next. The disk reads one group after the other in the order of the
/// plan, into slots that are free, as far ahead as it may.
fn pass_seconds(costs: &[Cost], residence: Option<&Residence>) -> f64 {
    let (slots, ahead) = residence.map_or((0, 0), |r| (r.slots, r.read_ahead));
    let window = slots.min(ahead + 1).max(1);
    let (mut disk, mut now, mut before) = (0.0f64, 0.0f64, 0.0);
    // When the groups of the ring were done with, in order.
    let mut done: Vec<f64> = Vec::new();
    for _ in 0..PASSES {
        before = now;
        for cost in costs {
            if let Some(read) = cost.read {
                let free = done.len().checked_sub(window).map_or(0.0, |i| done[i]);
                let begin = if ahead == 0 { now } else { free };
                disk = disk.max(begin) + read;
                now = now.max(disk);
            }
            now += cost.demand + cost.compute;
            if cost.read.is_some() {
                done.push(now);
            }
        }
    }
    now - before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(costs: &[(f64, f64)], slots: usize, read_ahead: usize, expected: f64) {
        let residence = Residence { slots, read_ahead, ..Residence::default() };
        let cost = |&(compute, read): &(f64, f64)| Cost {
            compute,
            read: (read > 0.0).then_some(read),
            demand: 0.0,
        };
        let costs: Vec<Cost> = costs.iter().map(cost).collect();
        let seconds = pass_seconds(&costs, Some(&residence));
        assert!((seconds - expected).abs() < 1e-9, "{seconds}, not {expected}");
    }

    #[test]
    fn reading_and_computing_overlap_as_far_as_the_ring_reaches() {
        let read_bound = [(1.0, 3.0), (1.0, 3.0), (1.0, 3.0)];
        check(&read_bound, 2, 1, 9.0);
        check(&read_bound, 1, 0, 12.0);
        let compute_bound = [(4.0, 1.0), (4.0, 1.0)];
        check(&compute_bound, 2, 1, 8.0);
        check(&compute_bound, 1, 0, 10.0);
        // What stays gives the disk time to fill the ring, as far as there are slots.
        check(&[(5.0, 0.0), (1.0, 3.0), (1.0, 3.0)], 3, 2, 7.0);
        check(&[(5.0, 0.0), (1.0, 3.0), (1.0, 3.0)], 2, 1, 7.0);
        check(&[(5.0, 0.0), (1.0, 0.0)], 0, 0, 6.0);
    }

    #[test]
    fn rows_use_more_experts_but_never_more_than_there_are() {
        assert!((used(8, 2, 1) - 0.25).abs() < 1e-12);
        assert!(used(8, 2, 3) > 0.5 && used(8, 2, 100) <= 1.0);
        assert!((used(4, 9, 1) - 1.0).abs() < 1e-12);
    }
}
