//! Where the weights are: the groups of a plan over mapped files. It does not know what the bytes
//! mean. Reading a page that is not in memory waits for the disk inside the kernel.

mod io;

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gguf;
use crate::plan::{Extent, GroupId, Plan, WeightId};

use io::mmap::Mapping;

/// The weights of one model, by group.
pub struct Store {
    plan: Arc<Plan>,
    /// One for each part of the model; none where no weight lies in it.
    mappings: Vec<Option<Mapping>>,
    /// Weights of each group, in ascending order.
    groups: Vec<Vec<WeightId>>,
}

impl Store {
    /// Maps what the plan's weights take of the model's files; reads none of it.
    ///
    /// # Errors
    /// `ERR_IO` when mapping fails, `ERR_FILE_CHANGED` when a file is not what it was when its
    /// header was read, `ERR_INTERNAL` when a weight lies outside of the files.
    pub fn open(file: &gguf::File, plan: &Arc<Plan>) -> Result<Self> {
        let mut ranges: Vec<Option<Range<u64>>> = vec![None; file.parts().len()];
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
        for (part, range) in file.parts().iter().zip(ranges) {
            mappings.push(range.map(|range| Mapping::new(part, range)).transpose()?);
        }
        let groups = plan.groups.iter().map(|group| {
            let mut ids = group.weights();
            ids.sort_unstable();
            ids
        });
        let store = Store { groups: groups.collect(), plan: plan.clone(), mappings };
        let missing = plan.weights.iter().find(|weight| store.extent(weight.extent).is_none());
        missing.map_or(Ok(()), |weight| Err(outside(&weight.name)))?;
        Ok(store)
    }

    /// Holds a group. The first group of a pass also looks at the files' lengths and times.
    ///
    /// # Errors
    /// `ERR_FILE_CHANGED`, `ERR_IO`; `ERR_INTERNAL` for a group that the plan lacks.
    pub fn acquire(&self, group: GroupId) -> Result<Lease<'_>> {
        let Some(weights) = self.groups.get(group.0 as usize) else {
            return Err(Error::internal("store::acquire", format!("no group {}", group.0)));
        };
        if group.0 == 0 {
            self.mappings.iter().flatten().try_for_each(Mapping::check_file)?;
        }
        self.check()?;
        Ok(Lease { source: Source::Store { store: self, weights } })
    }

    /// Whether all that was read of the files so far was really there. Cheap: ask after each group,
    /// before its result is used.
    ///
    /// # Errors
    /// `ERR_FILE_CHANGED` or `ERR_IO`, from then on always.
    pub fn check(&self) -> Result<()> {
        self.mappings.iter().flatten().try_for_each(Mapping::check)
    }

    /// Bytes that are mapped: of the process' address space, not of its memory.
    #[must_use]
    pub fn mapped_bytes(&self) -> u64 {
        self.mappings.iter().flatten().map(Mapping::bytes).sum()
    }

    fn extent(&self, extent: Extent) -> Option<&[u8]> {
        self.mappings.get(extent.part as usize)?.as_ref()?.slice(extent.offset, extent.bytes)
    }

    fn weight(&self, id: WeightId) -> Option<&[u8]> {
        self.extent(self.plan.weights.get(id.0 as usize)?.extent)
    }
}

fn outside(weight: &str) -> Error {
    Error::internal("store::open", format!("weight '{weight}' lies outside of the model's files"))
}

/// The right to read one group's weights while it lives.
pub struct Lease<'a> {
    source: Source<'a>,
}

enum Source<'a> {
    Slices(&'a [Option<&'a [u8]>]),
    Store { store: &'a Store, weights: &'a [WeightId] },
}

impl<'a> Lease<'a> {
    /// A lease over weights that lie in memory, indexed by weight.
    #[must_use]
    pub fn new(slices: &'a [Option<&'a [u8]>]) -> Self {
        Lease { source: Source::Slices(slices) }
    }

    /// The bytes of a weight; empty if it does not belong to the group.
    #[must_use]
    pub fn bytes(&self, weight: WeightId) -> &'a [u8] {
        let bytes = match self.source {
            Source::Slices(slices) => slices.get(weight.0 as usize).copied().flatten(),
            Source::Store { store, weights } => {
                weights.binary_search(&weight).ok().and_then(|_| store.weight(weight))
            }
        };
        bytes.unwrap_or(&[])
    }

    /// As [`Store::check`]: ask when the group has run, before its result is used.
    ///
    /// # Errors
    /// `ERR_FILE_CHANGED` or `ERR_IO`.
    pub fn check(&self) -> Result<()> {
        match self.source {
            Source::Slices(_) => Ok(()),
            Source::Store { store, .. } => store.check(),
        }
    }
}
