//! Which neighbouring steps may run as one: found once in a plan, by any backend. Pure data.

use super::{Group, Op, Step};
use std::ops::Range;

impl Group {
    /// The steps in runs, in order: neighbouring linear steps over one input (q, k, v; gate, up)
    /// stand together, every other step alone.
    #[must_use]
    pub fn runs(&self) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if together(&self.steps[run.start], step) => run.end = index + 1,
                _ => runs.push(index..index + 1),
            }
        }
        runs
    }
}

/// Whether both are linear steps over the same value.
fn together(a: &Step, b: &Step) -> bool {
    a.op == Op::Linear && b.op == Op::Linear && a.inputs == b.inputs
}

#[cfg(test)]
mod tests {
    use super::super::{GroupKind, ValueId, WeightId};
    use super::*;

    #[test]
    fn linear_steps_over_one_input_stand_together() {
        let step = |op, input: u32, output: u32| Step {
            op,
            inputs: vec![ValueId(input)],
            output: ValueId(output),
            weights: vec![WeightId(output)],
        };
        let steps = vec![
            step(Op::Select, 0, 1),
            step(Op::Linear, 1, 2),
            step(Op::Linear, 1, 3),
            step(Op::Linear, 1, 4),
            step(Op::Linear, 4, 5),
            step(Op::Add, 5, 6),
        ];
        let group = Group { kind: GroupKind::Output, steps };
        assert_eq!(group.runs(), [0..1, 1..4, 4..5, 5..6]);
    }
}
