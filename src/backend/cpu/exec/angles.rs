//! The angles of a pass: filled by the first rotation that needs them, shared by all layers.

use super::super::kernel::rope::Angles;
use crate::plan::{Op, Plan, Rope, Step, WeightId};
use std::sync::Arc;

/// One table for all rotations by the same angles.
struct Table {
    rope: Rope,
    factors: Option<WeightId>,
    angles: Angles,
    is_filled: bool,
}

/// Tables of a plan.
pub struct Ropes(Vec<Table>);

impl Ropes {
    /// Empty tables for the rotations of a plan.
    pub fn new(plan: &Plan) -> Self {
        let mut ropes = Ropes(Vec::new());
        for step in plan.groups.iter().flat_map(|group| &group.steps) {
            if let (Op::Rope(rope), None) = (&step.op, ropes.find(step)) {
                let (rope, factors) = (rope.clone(), step.weights.first().copied());
                ropes.0.push(Table { rope, factors, angles: Angles::default(), is_filled: false });
            }
        }
        ropes
    }

    /// Other positions: all tables are out of date.
    pub fn forget(&mut self) {
        self.0.iter_mut().for_each(|table| table.is_filled = false);
    }

    /// Whether a rotation's table is still to be filled.
    pub fn is_missing(&self, step: &Step) -> bool {
        self.find(step).is_some_and(|at| !self.0[at].is_filled)
    }

    /// Fills the table of a rotation; `factors` divide its frequencies.
    pub fn fill(&mut self, step: &Step, factors: Option<&[f32]>, positions: &[u32]) {
        if let Some(at) = self.find(step) {
            let table = &mut self.0[at];
            table.angles.fill(&table.rope, factors, positions);
            table.is_filled = true;
        }
    }

    /// The angles of a rotation.
    pub fn get(&self, step: &Step) -> Option<&Angles> {
        self.find(step).map(|at| &self.0[at].angles)
    }

    /// Bytes of the tables for a row.
    pub fn row_bytes(&self) -> usize {
        self.0.iter().map(|table| table.rope.freqs.len() * size_of::<(f32, f32)>()).sum()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|table| table.angles.bytes()).sum()
    }

    fn find(&self, step: &Step) -> Option<usize> {
        let Op::Rope(rope) = &step.op else { return None };
        let factors = step.weights.first().copied();
        self.0.iter().position(|t| t.factors == factors && same_angles(&t.rope, rope))
    }
}

/// Whether two rotations turn by the same angles.
fn same_angles(a: &Rope, b: &Rope) -> bool {
    a.magnitude.to_bits() == b.magnitude.to_bits()
        && (Arc::ptr_eq(&a.freqs, &b.freqs) || a.freqs == b.freqs)
}
