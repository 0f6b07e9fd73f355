//! Memory for the values of a pass. Values that never live together share a slot; slots grow to the
//! largest batch seen and stay, so that a pass of a size seen before allocates nothing.

use super::kernel::bank::Bank;
use super::kernel::buffer::Buffer;
use crate::error::Result;
use crate::plan::{Plan, ValueId};
use std::ops::Range;

/// Which slot holds a value, and how wide the slots are.
#[derive(Debug)]
pub struct Layout {
    slot_of: Vec<usize>,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    width: usize,
    selected: bool,
}

/// f32 numbers that a value needs for one row.
#[must_use]
pub fn width(plan: &Plan, value: ValueId) -> usize {
    plan.value(value).floats()
}

/// The steps of a plan, numbered through its groups, in runs that may be computed together.
fn together(plan: &Plan) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut first = 0;
    for group in &plan.groups {
        for stage in group.stages() {
            let work = stage.together();
            if !work.is_empty() {
                runs.push(first + work.start..first + work.end);
            }
            runs.extend(stage.then.map(|step| first + step..first + step + 1));
        }
        first += group.steps.len();
    }
    runs
}

impl Layout {
    /// Assigns slots by walking the plan once. Steps that may run together share no slot; a value's
    /// slot is free after those with its last reader.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let steps: Vec<_> = plan.groups.iter().flat_map(|group| &group.steps).collect();
        let mut last = vec![0; plan.values.len()];
        for (i, step) in steps.iter().enumerate() {
            for value in &step.inputs {
                last[value.0 as usize] = i;
            }
        }
        last[plan.logits.0 as usize] = usize::MAX;
        let mut layout = Layout { slot_of: vec![usize::MAX; plan.values.len()], slots: Vec::new() };
        let mut free = Vec::new();
        for together in together(plan) {
            for step in &steps[together.clone()] {
                let selected = plan.value(step.output).selected;
                let slot = layout.take(&mut free, width(plan, step.output), selected);
                layout.slot_of[step.output.0 as usize] = slot;
            }
            let values = steps[together.clone()].iter();
            let values = values.flat_map(|step| step.inputs.iter().chain([&step.output]));
            let mut dead: Vec<_> = values.map(|value| value.0 as usize).collect();
            dead.sort_unstable();
            dead.dedup();
            for value in dead.into_iter().filter(|value| last[*value] < together.end) {
                free.push(layout.slot_of[value]);
            }
        }
        layout
    }

    /// A free slot, the one closest in width, or a new one.
    fn take(&mut self, free: &mut Vec<usize>, width: usize, selected: bool) -> usize {
        let fits = |slot: &usize| self.slots[*slot].selected == selected;
        let gap = |slot: &usize| self.slots[*slot].width.abs_diff(width);
        let best = (0..free.len()).filter(|i| fits(&free[*i])).min_by_key(|i| gap(&free[*i]));
        if let Some(best) = best {
            let slot = free.swap_remove(best);
            self.slots[slot].width = self.slots[slot].width.max(width);
            return slot;
        }
        self.slots.push(Slot { width, selected });
        self.slots.len() - 1
    }

    /// Bytes of all slots for a batch.
    #[must_use]
    pub fn bytes(&self, n_rows: usize, n_selected: usize) -> usize {
        let rows = |slot: &Slot| if slot.selected { n_selected } else { n_rows };
        self.slots.iter().map(|slot| slot.width * rows(slot) * size_of::<f32>()).sum()
    }

    /// The slot of a value.
    #[must_use]
    pub fn slot(&self, value: ValueId) -> usize {
        self.slot_of[value.0 as usize]
    }
}

/// The slots' memory.
#[derive(Default)]
pub struct Arena {
    slots: Vec<Buffer<f32>>,
}

impl Arena {
    /// Makes room for a batch.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn reserve(&mut self, layout: &Layout, n_rows: usize, n_selected: usize) -> Result<()> {
        self.slots.resize_with(layout.slots.len(), Buffer::default);
        for (buffer, slot) in self.slots.iter_mut().zip(&layout.slots) {
            buffer.grow(slot.width * if slot.selected { n_selected } else { n_rows })?;
        }
        Ok(())
    }

    /// The first `len` numbers of a slot.
    #[must_use]
    pub fn get(&self, slot: usize, len: usize) -> &[f32] {
        self.slots.get(slot).and_then(|buffer| buffer.get(..len)).unwrap_or(&[])
    }

    /// All values at once, for a batch of so many rows and selected rows.
    pub fn bank<'a>(
        &'a mut self,
        layout: &'a Layout,
        plan: &'a Plan,
        rows: [usize; 2],
    ) -> Bank<'a> {
        Bank::new(&mut self.slots, layout, plan, rows)
    }

    /// Takes a slot's buffer out, to write it while others are read.
    pub fn take(&mut self, slot: usize) -> Buffer<f32> {
        self.slots.get_mut(slot).map(std::mem::take).unwrap_or_default()
    }

    /// Puts a buffer back.
    pub fn put(&mut self, slot: usize, buffer: Buffer<f32>) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = buffer;
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slots.iter().map(Buffer::bytes).sum()
    }
}
