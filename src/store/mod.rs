//! Where the weights are: the groups of a plan, mapped or read as they are needed. It does not know
//! what the bytes mean.

mod experts;
pub mod io;
mod lease;
mod loader;
mod mapped;
mod probe;
mod replace;
mod state;
mod stats;
mod streamed;
pub mod trace;
mod watch;

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::error::{Error, Result};
use crate::gguf;
use crate::plan::residency::Residence;
use crate::plan::{GroupId, Plan};

pub use lease::{Experts, Lease};
pub use stats::{GroupStats, Place, Progress, StoreStats, planned};

use io::Opener;
use mapped::Mapped;
use streamed::Streamed;

/// The weights of one model, by group.
pub struct Store {
    plan: Arc<Plan>,
    parts: Vec<gguf::Part>,
    /// Leases keep the one that they are of.
    kind: RwLock<Kind>,
    /// What streaming has cost before the model was mapped.
    past: Mutex<StoreStats>,
}

#[derive(Clone)]
enum Kind {
    Mapped(Arc<Mapped>),
    Streamed(Arc<Streamed>),
}

impl Store {
    /// Maps what the plan's weights take of the model's files; reads none of it.
    ///
    /// # Errors
    /// `ERR_IO` when mapping fails, `ERR_FILE_CHANGED` when a file is not what it was when its
    /// header was read, `ERR_INTERNAL` when a weight lies outside of the files.
    pub fn open(file: &gguf::File, plan: &Arc<Plan>) -> Result<Self> {
        let mapped = Mapped::open(file.parts(), plan)?;
        Ok(Store::of(file, plan, Kind::Mapped(Arc::new(mapped))))
    }

    /// Reads groups as they are needed, some of which stay; starts at once.
    ///
    /// # Errors
    /// `ERR_IO`, `ERR_FILE_CHANGED`, `ERR_INSUFFICIENT_MEMORY`.
    pub fn stream(
        file: &gguf::File,
        plan: &Arc<Plan>,
        residence: Residence,
        opener: Opener,
    ) -> Result<Self> {
        let streamed = Streamed::open(file.parts(), plan, residence, opener)?;
        Ok(Store::of(file, plan, Kind::Streamed(Arc::new(streamed))))
    }

    fn of(file: &gguf::File, plan: &Arc<Plan>, kind: Kind) -> Self {
        let (parts, past) = (file.parts().to_vec(), Mutex::default());
        Store { plan: plan.clone(), parts, kind: RwLock::new(kind), past }
    }

    fn kind(&self) -> Kind {
        self.kind.read().clone()
    }

    /// Waits for a group and holds it. The first group of a pass also looks at the files' lengths
    /// and times.
    ///
    /// # Errors
    /// `ERR_FILE_CHANGED`, `ERR_IO`; `ERR_INTERNAL` for a group that the plan lacks.
    pub fn acquire(&self, group: GroupId) -> Result<Lease<'_>> {
        let lease = self.acquire_unless(group, &mut || false)?;
        lease.ok_or_else(|| Error::internal("store::acquire", "nobody gave up"))
    }

    /// The same; none if `gives_up`, which is asked now and then while it waits, says so.
    ///
    /// # Errors
    /// As [`Store::acquire`].
    pub fn acquire_unless(
        &self,
        group: GroupId,
        gives_up: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Lease<'_>>> {
        let index = group.0 as usize;
        match self.kind() {
            Kind::Mapped(mapped) => {
                mapped.acquire(index)?;
                Ok(Some(Lease::mapped(mapped, index)))
            }
            Kind::Streamed(streamed) => {
                let held = streamed.acquire(index, gives_up)?;
                Ok(held.map(|held| Lease::streamed(streamed, held)))
            }
        }
    }

    /// Whether all that was read of the files so far was really there. Cheap: ask after each group,
    /// before its result is used.
    ///
    /// # Errors
    /// `ERR_FILE_CHANGED` or `ERR_IO`, from then on always.
    pub fn check(&self) -> Result<()> {
        match self.kind() {
            Kind::Mapped(mapped) => mapped.check(),
            Kind::Streamed(_) => Ok(()),
        }
    }

    /// Bytes of private memory that hold weights now.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        match self.kind() {
            Kind::Mapped(_) => 0,
            Kind::Streamed(streamed) => stats::resident(streamed.shared()),
        }
    }

    /// Milliseconds waited and bytes read so far.
    #[must_use]
    pub fn cost(&self) -> (f64, u64) {
        let (stall_ms, bytes) = match self.kind() {
            Kind::Mapped(_) => (0.0, 0),
            Kind::Streamed(streamed) => stats::cost(streamed.shared()),
        };
        let past = self.past.lock();
        (past.stall_ms + stall_ms, past.bytes_read + bytes)
    }

    /// Where everything is, and what it has cost so far.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let now = match self.kind() {
            Kind::Mapped(_) => stats::mapped(&self.plan),
            Kind::Streamed(streamed) => stats::streamed(&self.plan, streamed.shared()),
        };
        now.after(&self.past.lock())
    }
}

/// Gives the rows of a weight that lies in memory.
fn each_row(
    bytes: &[u8],
    n_rows: u64,
    rows: &[u32],
    each: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    let size = bytes.len() / usize::try_from(n_rows.max(1)).unwrap_or(usize::MAX);
    for (index, row) in rows.iter().enumerate() {
        let start = (*row as usize).checked_mul(size);
        let row = start.and_then(|start| bytes.get(start..start.checked_add(size)?));
        each(index, row.ok_or_else(|| Error::internal("store::gather", "no such row"))?)?;
    }
    Ok(())
}
