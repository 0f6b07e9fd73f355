//! The bookkeeping of a comparison: bounds that flow along the plan, rows that a router sent
//! elsewhere, and what is worst.

use std::sync::Arc;

use crate::plan::{GroupId, Op, Plan, Step, Value, ValueId, ValueKind};

use super::tolerance::{self, GAIN};
use super::{Difference, NotFinite, Report, Seen, StepReport};

/// A single row may be that much further off than all rows together: its own size may be small.
const ROW_SLACK: f64 = 4.0;

/// A comparison under way.
pub struct Compared {
    plan: Arc<Plan>,
    kv_rounding: f64,
    names: [String; 2],
    steps: Vec<StepReport>,
    /// Index of each group's first step in `steps`.
    starts: Vec<usize>,
    difference: Option<Difference>,
    not_finite: Option<NotFinite>,
    /// By KV layer: how far its keys and values are apart, over all passes.
    kv: Vec<f64>,
    /// Of this pass. By value: how far it is (or may be) apart.
    apart: Vec<f64>,
    /// By value: what both backends showed of it, if a router reads it.
    scores: Vec<Option<(Vec<f32>, Vec<f32>)>>,
    /// By row: `true` once a router sent it elsewhere.
    rerouted: Vec<bool>,
    /// Position of the first row.
    position: u32,
}

/// How two results compare.
struct Outcome {
    relative: f64,
    worst: f64,
    row: usize,
}

impl Compared {
    pub fn new(plan: Arc<Plan>, kv_rounding: f64, names: [String; 2]) -> Self {
        let (mut steps, mut starts) = (Vec::new(), Vec::new());
        for group in &plan.groups {
            starts.push(steps.len());
            for (index, step) in group.steps.iter().enumerate() {
                let weights = step.weights.iter().map(|id| plan.weight(*id));
                steps.push(StepReport {
                    group: group.kind.label(),
                    step: index,
                    op: step.op.name(),
                    output: plan.value(step.output).name.clone(),
                    weights: weights.map(|w| format!("{} {}", w.name, w.kind.name())).collect(),
                    ..StepReport::default()
                });
            }
        }
        let kv = vec![0.0; plan.kv_layers.len()];
        Compared {
            plan,
            kv_rounding,
            names,
            steps,
            starts,
            difference: None,
            not_finite: None,
            kv,
            apart: Vec::new(),
            scores: Vec::new(),
            rerouted: Vec::new(),
            position: 0,
        }
    }

    /// A pass begins.
    pub fn begin(&mut self, position: u32, rows: usize) {
        self.position = position;
        self.apart = vec![0.0; self.plan.values.len()];
        self.scores = vec![None; self.plan.values.len()];
        self.rerouted = vec![false; rows];
    }

    /// Both backends have run a group.
    pub fn group(&mut self, id: GroupId, mut a: Seen, mut b: Seen) {
        let plan = self.plan.clone();
        let start = self.starts[id.0 as usize];
        for (index, step) in plan.group(id).steps.iter().enumerate() {
            let take = |seen: &mut Seen| {
                let at = seen.iter().position(|(_, value, _)| *value == step.output)?;
                Some(seen.swap_remove(at).2)
            };
            let (a, b) = (take(&mut a), take(&mut b));
            for (name, data) in [(0, &a), (1, &b)] {
                self.check_finite(start + index, step, name, data.as_deref());
            }
            let allowed = self.allowed(step);
            self.apart[step.output.0 as usize] = match (a, b) {
                (Some(a), Some(b)) if a.len() == b.len() => {
                    self.step(start + index, step, allowed, a, b)
                }
                _ => allowed, // fused away: as far apart as it may be
            };
        }
    }

    pub fn report(self, tokens: usize, other_best: Vec<u32>) -> Report {
        let Compared { difference, not_finite, steps, names: [a, b], .. } = self;
        Report { a, b, tokens, difference, not_finite, steps, other_best }
    }

    /// What a step's results may differ by, from what its inputs do.
    fn allowed(&mut self, step: &Step) -> f64 {
        let inputs = step.inputs.iter().map(|id| self.apart[id.0 as usize]);
        let mut inputs = inputs.fold(0.0, f64::max);
        if let Op::Attend(attend) = &step.op {
            let kv = &mut self.kv[attend.kv.0 as usize];
            *kv = kv.max(inputs);
            inputs = *kv;
        }
        let gain = if matches!(step.op, Op::Select) { 1.0 } else { GAIN };
        tolerance::own(&self.plan, step, self.kv_rounding) + gain * inputs
    }

    /// Compares one step; how far it is apart.
    fn step(&mut self, index: usize, step: &Step, allowed: f64, a: Vec<f32>, b: Vec<f32>) -> f64 {
        let plan = self.plan.clone();
        let value = plan.value(step.output);
        let outcome = match value.kind {
            ValueKind::Floats => self.floats(value, &a, &b),
            ValueKind::Routing => self.routing(step, value, &a, &b),
        };
        let rows = self.rerouted.len();
        let report = &mut self.steps[index];
        report.rows += rows;
        report.rerouted = report.rerouted.max(self.rerouted.iter().filter(|row| **row).count());
        let position = self.position + outcome.row as u32;
        if outcome.worst > report.relative_row || report.rows == rows {
            (report.relative_row, report.position) = (outcome.worst, position);
        }
        if outcome.relative / allowed >= report.relative / report.allowed || report.rows == rows {
            report.allowed = allowed;
        }
        report.relative = report.relative.max(outcome.relative);
        let too_far = outcome.relative > allowed || outcome.worst > ROW_SLACK * allowed;
        // Behind numbers that are not finite there is nothing left to compare.
        let is_told = self.not_finite.as_ref().is_none_or(|first| first.index >= index);
        if too_far && is_told && self.difference.is_none() {
            let (element, a_value, b_value) = furthest(value, outcome.row, &a, &b);
            self.difference = Some(Difference {
                index,
                step: plan.describe_step(step),
                relative: outcome.relative,
                allowed,
                position,
                element,
                a: a_value,
                b: b_value,
            });
        }
        if self.is_routed(step.output) {
            self.scores[step.output.0 as usize] = Some((a, b));
        }
        outcome.relative
    }

    /// Whether a router reads the value.
    fn is_routed(&self, value: ValueId) -> bool {
        let mut steps = self.plan.groups.iter().flat_map(|group| &group.steps);
        steps.any(|step| matches!(step.op, Op::Route(_)) && step.inputs.contains(&value))
    }

    fn floats(&self, value: &Value, a: &[f32], b: &[f32]) -> Outcome {
        let (mut apart, mut size) = (0.0, 0.0);
        let mut outcome = Outcome { relative: 0.0, worst: 0.0, row: 0 };
        let rows = a.chunks_exact(value.width).zip(b.chunks_exact(value.width));
        for (row, (a, b)) in rows.enumerate() {
            if self.rerouted.get(row).copied().unwrap_or(false) {
                continue;
            }
            let (row_apart, row_size) = squares(a, b);
            let relative = ratio(row_apart, row_size);
            if relative > outcome.worst {
                (outcome.worst, outcome.row) = (relative, row);
            }
            (apart, size) = (apart + row_apart, size + row_size);
        }
        outcome.relative = ratio(apart, size);
        outcome
    }

    /// Choices of experts. A row that the two send to other experts is left out from here on if the
    /// scores are as near to each other as the two backends' scores are.
    fn routing(&mut self, step: &Step, value: &Value, a: &[f32], b: &[f32]) -> Outcome {
        let scores = step.inputs.first().and_then(|id| self.scores[id.0 as usize].clone());
        let mut outcome = Outcome { relative: 0.0, worst: 0.0, row: 0 };
        let (mut apart, mut size) = (0.0, 0.0);
        let rows = a.chunks_exact(value.floats()).zip(b.chunks_exact(value.floats()));
        for (row, (a, b)) in rows.enumerate() {
            if self.rerouted.get(row).copied().unwrap_or(false) {
                continue;
            }
            if experts(a) != experts(b) {
                let explained = scores.as_ref().is_none_or(|(of_a, of_b)| {
                    let width = of_a.len() / self.rerouted.len().max(1);
                    let row = row * width..(row + 1) * width;
                    nearly_tied(&of_a[row.clone()], &of_b[row], a, b)
                });
                if explained {
                    self.rerouted[row] = true;
                    continue;
                }
                return Outcome { relative: f64::INFINITY, worst: f64::INFINITY, row };
            }
            let (row_apart, row_size) = squares(&weights(a), &weights(b));
            if ratio(row_apart, row_size) > outcome.worst {
                (outcome.worst, outcome.row) = (ratio(row_apart, row_size), row);
            }
            (apart, size) = (apart + row_apart, size + row_size);
        }
        outcome.relative = ratio(apart, size);
        outcome
    }

    fn check_finite(&mut self, index: usize, step: &Step, name: usize, data: Option<&[f32]>) {
        let found = data.and_then(|data| {
            let at = data.iter().position(|x| !x.is_finite())?;
            Some((at, data.get(at)?.to_string()))
        });
        let Some((at, value)) = found.filter(|_| self.not_finite.is_none()) else { return };
        let width = self.plan.value(step.output).floats();
        let step = self.plan.describe_step(step);
        let (position, element) = (self.position + (at / width) as u32, at % width);
        let backend = self.names[name].clone();
        self.not_finite = Some(NotFinite { index, step, backend, position, element, value });
    }
}

/// Sum of squared differences, and of squares of the first. What is infinite or no number in both
/// alike is no difference.
fn squares(a: &[f32], b: &[f32]) -> (f64, f64) {
    let pairs = a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let pairs = pairs.filter(|(a, b)| a.is_finite() || (a != b && !(a.is_nan() && b.is_nan())));
    pairs.fold((0.0, 0.0), |(apart, size), (a, b)| (apart + (a - b) * (a - b), size + a * a))
}

/// The relative difference; infinite if it cannot be told.
fn ratio(apart: f64, size: f64) -> f64 {
    match (apart / size.max(f64::MIN_POSITIVE)).sqrt() {
        ratio if ratio.is_nan() => f64::INFINITY,
        ratio => ratio,
    }
}

/// The experts of a choice, ascending.
fn experts(pairs: &[f32]) -> Vec<usize> {
    let mut experts: Vec<usize> = pairs.iter().step_by(2).map(|expert| *expert as usize).collect();
    experts.sort_unstable();
    experts
}

/// The weights of a choice, in the order of their experts.
fn weights(pairs: &[f32]) -> Vec<f32> {
    let mut pairs: Vec<_> = pairs.chunks_exact(2).map(|pair| (pair[0] as usize, pair[1])).collect();
    pairs.sort_by_key(|pair| pair.0);
    pairs.into_iter().map(|pair| pair.1).collect()
}

/// Whether no expert that one took and the other left is further behind than the scores are apart.
fn nearly_tied(scores_a: &[f32], scores_b: &[f32], a: &[f32], b: &[f32]) -> bool {
    let apart = scores_a.iter().zip(scores_b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let score = |expert: &usize| scores_a.get(*expert).copied().unwrap_or(f32::NAN);
    let (of_a, of_b) = (experts(a), experts(b));
    let lowest = of_a.iter().map(score).fold(f32::INFINITY, f32::min);
    let taken = of_b.iter().filter(|expert| !of_a.contains(expert)).map(score);
    taken.fold(f32::INFINITY, f32::min) >= lowest - 2.0 * apart
}

/// Where in a row the two are furthest apart.
fn furthest(value: &Value, row: usize, a: &[f32], b: &[f32]) -> (usize, f32, f32) {
    let width = value.floats();
    let rows = a.chunks_exact(width).zip(b.chunks_exact(width));
    let mut found = (0, f32::NAN, f32::NAN);
    let mut worst = -1.0;
    for (a, b) in rows.skip(row).take(1) {
        for (element, (a, b)) in a.iter().zip(b).enumerate() {
            let (apart, _) = squares(&[*a], &[*b]);
            let apart = if apart.is_nan() { f64::INFINITY } else { apart };
            if apart > worst {
                (worst, found) = (apart, (element, *a, *b));
            }
        }
    }
    found
}
