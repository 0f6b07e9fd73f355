//! The CPU backend: kernels by feature tier over the weights as the file lays them out, an own
//! thread pool, a paged KV cache. Results do not depend on threads, batch, chunking or tier.

pub mod arena;
pub mod cores;
mod crew;
mod exec;
pub mod kernel;
pub mod kv;
pub mod pool;
pub mod simd;
mod slabs;
pub mod table;

use super::{Backend, Batch, KvType, PAGE_TOKENS, PageId, Probe};
use crate::error::{Error, Result};
use crate::plan::{GroupId, Plan};
use crate::quant::TensorType;
use crate::store::Lease;
use std::sync::Arc;

/// How the backend runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads, the caller's among them; none: physical cores within affinity and cgroup quota,
    /// of which those that come late are left out while that is faster.
    pub threads: Option<usize>,
    /// Kernel tier by name; none: the best of this CPU.
    pub tier: Option<String>,
    /// Type of the KV cache's keys.
    pub kv_k: KvType,
    /// Type of the KV cache's values.
    pub kv_v: KvType,
}

impl Default for Config {
    fn default() -> Self {
        Config { threads: None, tier: None, kv_k: KvType::F16, kv_v: KvType::F16 }
    }
}

/// The backend.
pub struct Cpu {
    plan: Arc<Plan>,
    exec: exec::Exec,
    pages: kv::Pages,
}

impl Cpu {
    /// A backend for a plan.
    ///
    /// # Errors
    /// `ERR_INVALID_ARG` for a tier that this CPU lacks, an impossible number of threads or a KV
    /// type that a head size does not allow; `ERR_INSUFFICIENT_MEMORY`.
    pub fn new(plan: Arc<Plan>, config: Config) -> Result<Self> {
        let tier = match &config.tier {
            Some(name) => simd::Tier::by_name(name)?,
            None => simd::Tier::detect(),
        };
        let pages = kv::Pages::new(&plan.kv_layers, config.kv_k, config.kv_v)?;
        let (pool, crew) = threads(config.threads)?;
        let exec = exec::Exec::new(Arc::clone(&plan), table::Table::new(tier), pool, crew)?;
        Ok(Cpu { plan, exec, pages })
    }

    /// How often all threads have waited for each other so far. In a pass of at most 4 rows and up
    /// to position 512, a dense layer takes four such barriers, a layer of experts five; beyond
    /// that position attention, whose keys are split then, takes one more.
    #[must_use]
    pub fn barriers(&self) -> u64 {
        self.exec.barriers()
    }

    /// Whether the batch is one that this backend may run.
    fn check(&self, batch: &Batch) -> Result<()> {
        let odd = |what: String| Err(Error::internal("cpu", what));
        for (i, row) in batch.rows.iter().enumerate() {
            if row.token as usize >= self.plan.n_vocab {
                return odd(format!("token {} of {}", row.token, self.plan.n_vocab));
            }
            let Some(pages) = batch.sequences.get(row.sequence as usize) else {
                return odd(format!("row {i} without a sequence"));
            };
            let need = row.position as usize / PAGE_TOKENS + 1;
            let Some(page) = pages.get(..need).filter(|p| p.iter().all(|p| self.pages.has(*p)))
            else {
                return odd(format!("position {} without a committed page", row.position));
            };
            debug_assert!(!page.is_empty());
        }
        Ok(())
    }
}

/// Threads, and who chooses among them.
fn threads(wanted: Option<usize>) -> Result<(pool::Pool, Option<crew::Crew>)> {
    let pool = pool::Pool::new(wanted.unwrap_or_else(cores::default_threads))?;
    // A number that was asked for is kept to.
    let crew = wanted.is_none().then(|| crew::Crew::new(pool.threads()));
    Ok((pool, crew))
}

impl Backend for Cpu {
    fn name(&self) -> &str {
        "cpu"
    }

    fn tier(&self) -> &str {
        self.exec.table().tier().name()
    }

    fn kernel(&self, kind: TensorType) -> Option<String> {
        Some(self.exec.table().name(kind))
    }

    fn page_commit(&mut self, page: PageId) -> Result<()> {
        self.pages.commit(page)
    }

    fn page_free(&mut self, page: PageId) {
        self.pages.free(page);
    }

    fn page_copy(&mut self, from: PageId, to: PageId, tokens: usize) -> Result<()> {
        self.pages.copy(from, to, tokens)
    }

    fn page_bytes(&self) -> usize {
        self.pages.page_bytes() + self.exec.page_bytes()
    }

    fn scratch_bytes(&self) -> usize {
        self.exec.bytes()
    }

    fn activation_bytes(&self, rows: usize, selected: usize) -> usize {
        self.exec.activation_bytes(rows, selected)
    }

    fn set_threads(&mut self, wanted: Option<usize>) -> Result<()> {
        let (pool, crew) = threads(wanted)?;
        self.exec.set_pool(pool, crew)
    }

    fn trim(&mut self) {
        self.exec.trim();
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.check(batch)?;
        self.exec.begin(batch)
    }

    fn run(&mut self, group: GroupId, weights: &Lease<'_>, probe: Option<Probe<'_>>) -> Result<()> {
        self.exec.run(group, &mut self.pages, weights, probe)
    }

    fn logits(&self) -> &[f32] {
        self.exec.value(self.plan.logits)
    }
}
