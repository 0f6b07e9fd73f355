//! The values of a pass while a job runs: threads read and write parts of slots side by side. What
//! keeps them apart is the order of stages and who owns which columns; callers promise it.

use super::super::arena::Layout;
use super::buffer::Buffer;
use super::stripe::Shared;
use crate::plan::{Plan, ValueId};

/// Slots, and which value lies in which.
pub struct Bank<'a> {
    slots: &'a [Buffer<f32>],
    /// Where values lie.
    layout: &'a Layout,
    /// What values are.
    pub plan: &'a Plan,
    /// Batch rows, and those of them that want logits.
    rows: [usize; 2],
}

impl<'a> Bank<'a> {
    /// Takes the slots for as long as the job runs.
    pub fn new(
        slots: &'a mut [Buffer<f32>],
        layout: &'a Layout,
        plan: &'a Plan,
        rows: [usize; 2],
    ) -> Self {
        Bank { slots, layout, plan, rows }
    }

    /// Rows of a value.
    pub fn rows(&self, value: ValueId) -> usize {
        self.rows[usize::from(self.plan.value(value).selected)]
    }

    /// f32 numbers of a row of a value.
    pub fn width(&self, value: ValueId) -> usize {
        self.plan.value(value).floats()
    }

    /// `len` numbers of a value from `at` on.
    ///
    /// # Safety
    /// Nobody writes them while they are borrowed.
    pub unsafe fn read(&self, value: ValueId, at: usize, len: usize) -> &'a [f32] {
        let start = self.start(value, at, len);
        // SAFETY: inside the slot by `start`; unchanging by the caller's promise.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// The same for writing.
    ///
    /// # Safety
    /// Nobody else reads or writes them while they are borrowed.
    #[allow(clippy::mut_from_ref, reason = "the caller promises to be alone")]
    pub unsafe fn write(&self, value: ValueId, at: usize, len: usize) -> &'a mut [f32] {
        let start = self.start(value, at, len);
        // SAFETY: inside the slot by `start`; alone by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// A whole row.
    ///
    /// # Safety
    /// As [`Bank::read`].
    pub unsafe fn row(&self, value: ValueId, row: usize) -> &'a [f32] {
        let width = self.width(value);
        // SAFETY: the caller's promise.
        unsafe { self.read(value, row * width, width) }
    }

    /// All rows.
    ///
    /// # Safety
    /// As [`Bank::read`].
    pub unsafe fn all(&self, value: ValueId) -> &'a [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.read(value, 0, self.rows(value) * self.width(value)) }
    }

    /// A value as a matrix of which threads fill pieces.
    pub fn matrix(&self, value: ValueId) -> Shared<'a> {
        let (rows, width) = (self.rows(value), self.width(value));
        let start = self.start(value, 0, rows * width);
        // SAFETY: inside the slot, which this bank has taken for 'a; pieces are as promised.
        unsafe { Shared::of(start, rows, width) }
    }

    fn start(&self, value: ValueId, at: usize, len: usize) -> *mut f32 {
        let slot = &self.slots[self.layout.slot(value)];
        assert!(at.checked_add(len).is_some_and(|end| end <= slot.len()), "outside of a slot");
        slot.start().wrapping_add(at)
    }
}
