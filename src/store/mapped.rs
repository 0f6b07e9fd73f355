//! All weights mapped: nothing is copied, and reading a page that is not in memory waits for the
//! disk inside the kernel.

use std::ops::Range;
use std::sync::Arc;

use super::io::mmap::Mapping;
use crate::error::{Error, Result};
use crate::gguf;
use crate::plan::{Extent, Plan, WeightId};

/// The weights of one model in the address space.
pub struct Mapped {
    plan: Arc<Plan>,
    /// One for each part of the model; none where no weight lies in it.
    mappings: Vec<Option<Mapping>>,
    /// Weights of each group, in ascending order.
    groups: Vec<Vec<WeightId>>,
}

impl Mapped {
    /// Maps what the plan's weights take of the model's files; reads none of it.
    pub fn open(parts: &[gguf::Part], plan: &Arc<Plan>) -> Result<Self> {
        let mut ranges: Vec<Option<Range<u64>>> = vec![None; parts.len()];
        for weight in &plan.weights {
            let Extent { part, offset, bytes } = weight.extent;
            let end = offset.checked_add(bytes);
            let range = ranges.get_mut(part as usize).zip(end);
            let Some((range, end)) = range else {
                return Err(outside(&weight.name));
            };
            let (first, last) = range.take().map_or((offset, end), |r| (r.start, r.end));
            *range = Some(first.min(offset)..last.max(end));
        }
        let mut mappings = Vec::new();
        for (part, range) in parts.iter().zip(ranges) {
            mappings.push(range.map(|range| Mapping::new(part, range)).transpose()?);
        }
        let groups = plan.groups.iter().map(|group| {
            let mut ids = group.weights();
            ids.sort_unstable();
            ids
        });
        let mapped = Mapped { groups: groups.collect(), plan: plan.clone(), mappings };
        let missing = plan.weights.iter().find(|weight| mapped.extent(weight.extent).is_none());
        missing.map_or(Ok(()), |weight| Err(outside(&weight.name)))?;
        Ok(mapped)
    }

    /// Whether a group may be read. The first group of a pass also looks at the files' lengths and
    /// times.
    pub fn acquire(&self, group: usize) -> Result<()> {
        if group >= self.groups.len() {
            return Err(Error::internal("store::acquire", format!("no group {group}")));
        }
        if group == 0 {
            self.mappings.iter().flatten().try_for_each(Mapping::check_file)?;
        }
        self.check()
    }

    /// Whether a weight is one of a group's.
    pub fn owns(&self, group: usize, weight: WeightId) -> bool {
        self.groups.get(group).is_some_and(|weights| weights.binary_search(&weight).is_ok())
    }

    /// As [`super::Store::check`].
    pub fn check(&self) -> Result<()> {
        self.mappings.iter().flatten().try_for_each(Mapping::check)
    }

    /// A weight's bytes.
    pub fn weight(&self, id: WeightId) -> Option<&[u8]> {
        self.extent(self.plan.weights.get(id.0 as usize)?.extent)
    }

    fn extent(&self, extent: Extent) -> Option<&[u8]> {
        self.mappings.get(extent.part as usize)?.as_ref()?.slice(extent.offset, extent.bytes)
    }
}

fn outside(weight: &str) -> Error {
    Error::internal("store::open", format!("weight '{weight}' lies outside of the model's files"))
}
