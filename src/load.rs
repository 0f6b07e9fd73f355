//! From a file to a running engine: the only place that knows all parts. Opens, plans, decides what
//! memory is for, refuses what does not fit before it is allocated, maps the weights, starts.

pub mod budget;
pub mod estimate;
mod ledger;
pub mod memory;
mod rates;
pub mod share;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::backend::cpu::{self, Cpu};
use crate::backend::reference::Reference;
use crate::backend::{Backend, KvType};
use crate::engine::vocabulary::Weights;
use crate::engine::{self, Handle, Setup};
use crate::error::{Code, Error, Field, Result};
use crate::gguf;
use crate::load::ledger::{Tenant, Until, Want};
use crate::load::share::{Asked, Share};
use crate::model::{self, Spec};
use crate::place::{self, Placement, Request};
use crate::plan::residency::Units;
use crate::plan::{Op, Plan};
use crate::quant::TensorType;
use crate::store::{self, Store};
use crate::tokenizer::Tokenizer;

/// Generations that may wait by default.
const MAX_QUEUED: usize = 1024;

/// Which backend runs the plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// The fast one.
    #[default]
    Cpu,
    /// The slow and obviously right one, for comparisons.
    Reference,
}

/// What `loadModel` was asked for; `None` means `'auto'`.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Devices in demand; empty: the best that works.
    pub devices: Vec<String>,
    /// Backend on the CPU.
    pub engine: Engine,
    /// Tokens that a session may hold. May exceed the trained length, as in llama.cpp: what the
    /// model makes of positions that it was not trained on is the caller's concern.
    pub n_ctx: Option<usize>,
    /// Types of the keys and values in the KV cache; `None`: f16.
    pub kv_type: Option<(KvType, KvType)>,
    /// Bytes of memory that the model may take, all in all.
    pub ram_bytes: Option<u64>,
    /// Of those, for the KV cache.
    pub kv_bytes: Option<u64>,
    /// Bytes of each device's memory.
    pub vram_bytes: Option<u64>,
    /// CPU threads.
    pub threads: Option<usize>,
    /// Kernel tier.
    pub tier: Option<String>,
    /// Generations stepped together.
    pub max_concurrent: Option<usize>,
    /// Generations that may wait beyond those.
    pub max_queued: Option<usize>,
    /// Prompt rows in a pass; for tests.
    pub chunk: Option<usize>,
    /// Groups read ahead while a model is streamed.
    pub prefetch: Option<usize>,
    /// How weights come from files.
    pub io: place::Io,
}

/// A model that runs.
pub struct Loaded {
    /// Talks to its engine.
    pub handle: Handle,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Its chat template, if the file has one.
    pub template_source: Result<Option<String>>,
    /// Its hyper-parameters.
    pub spec: Spec,
    /// Its header and metadata.
    pub file: gguf::File,
    /// What it computes.
    pub plan: Arc<Plan>,
    /// Tokens that a session may hold.
    pub n_ctx: usize,
    /// Kernel tier.
    pub tier: String,
    /// Types of its weights that are multiplied with, and the kernels for them.
    pub kernels: Vec<(TensorType, String)>,
    /// Backend's name.
    pub backend: String,
    /// Where everything lived when it was loaded.
    pub placement: Placement,
    /// Its share of memory, which may change.
    pub share: Arc<Share>,
    /// Where its weights are, as long as the engine runs.
    pub store: Weak<Store>,
}

/// Loads a model. `progress` hears of bytes done and in all; `cancel` gives up with `ABORT_ERR`.
///
/// # Errors
/// Those of reading, planning and mapping the file; `ERR_DEVICE`, `ERR_INVALID_ARG`,
/// `ERR_INSUFFICIENT_MEMORY`, `ABORT_ERR`.
pub fn load(
    path: &Path,
    options: &LoadOptions,
    progress: &mut dyn FnMut(u64, u64),
    cancel: &AtomicBool,
) -> Result<Loaded> {
    let ways = Ways { patience: ledger::PATIENCE, weights: &|tenant| Arc::new(tenant) };
    load_by(&ways, path, options, progress, cancel)
}

/// How a load goes about others, and how its engine comes by weights.
struct Ways<'a> {
    /// How long other models may take to make room.
    patience: Duration,
    weights: &'a dyn Fn(Tenant) -> Arc<dyn Weights>,
}

fn load_by(
    ways: &Ways<'_>,
    path: &Path,
    options: &LoadOptions,
    progress: &mut dyn FnMut(u64, u64),
    cancel: &AtomicBool,
) -> Result<Loaded> {
    budget::check_machine(options.ram_bytes)?;
    let Read { file, spec, plan, backend } = read(path, options, cancel)?;
    progress(0, file.bytes());
    go_on(cancel)?;
    let tokenizer = Arc::new(Tokenizer::from_meta(file.meta())?);
    check_vocabulary(&tokenizer, &plan, file.path())?;
    let template_source = template_source(file.meta());
    go_on(cancel)?;
    let units = Units::of(&plan);
    let request = budget::request(options, backend.as_ref());
    let (placement, store, tenant) =
        placed(&file, (&plan, &units), options, &request, (ways.patience, cancel))?;
    let n_ctx = placement.n_ctx;
    go_on(cancel)?;
    let number = tenant.number;
    let (tier, name) = (backend.tier().to_owned(), backend.name().to_owned());
    let kernels = kernels(&plan, backend.as_ref());
    let handle = engine::start(Setup {
        backend,
        plan: plan.clone(),
        store: (ways.weights)(tenant),
        files: file.parts().iter().map(|part| part.path.display().to_string()).collect(),
        tokenizer: tokenizer.clone(),
        n_ctx,
        max_concurrent: budget::generations(options),
        max_queued: options.max_queued.unwrap_or(MAX_QUEUED),
        chunk: options.chunk,
        bounds: share::bounds(&placement),
    })?;
    let store = Arc::downgrade(&store);
    let whose = (handle.clone(), store.clone());
    let share = Share::new(
        file.path().to_owned(),
        (plan.clone(), units),
        request,
        (asked(options), placement.clone()),
        whose,
        number,
    );
    progress(file.bytes(), file.bytes());
    Ok(Loaded {
        handle,
        tokenizer,
        template_source,
        spec,
        file,
        plan,
        n_ctx,
        tier,
        kernels,
        backend: name,
        placement,
        share,
        store,
    })
}

fn asked(options: &LoadOptions) -> Asked {
    Asked {
        ram: options.ram_bytes,
        kv: options.kv_bytes,
        prefetch: options.prefetch,
        threads: options.threads,
    }
}

/// Kernels for the types of weights that linear steps have.
fn kernels(plan: &Plan, backend: &dyn Backend) -> Vec<(TensorType, String)> {
    let steps = plan.groups.iter().flat_map(|group| &group.steps);
    let linears = steps.filter(|step| matches!(step.op, Op::Linear | Op::Experts(_)));
    let mut kinds: Vec<_> = linears
        .flat_map(|step| &step.weights)
        .map(|id| plan.weight(*id))
        .filter(|weight| weight.shape.len() > 1)
        .map(|weight| weight.kind)
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.into_iter().filter_map(|kind| Some((kind, backend.kernel(kind)?))).collect()
}

/// A file that was read, and what would run it.
struct Read {
    file: gguf::File,
    spec: Spec,
    plan: Arc<Plan>,
    backend: Box<dyn Backend>,
}

fn read(path: &Path, options: &LoadOptions, cancel: &AtomicBool) -> Result<Read> {
    go_on(cancel)?;
    check_devices(options)?;
    let file = gguf::File::open(path)?;
    go_on(cancel)?;
    let spec = model::describe(&file)?;
    let plan = Arc::new(model::plan(&file)?);
    go_on(cancel)?;
    let backend = backend(options, &plan)?;
    Ok(Read { file, spec, plan, backend })
}

fn go_on(cancel: &AtomicBool) -> Result<()> {
    if cancel.load(Ordering::Relaxed) { Err(aborted()) } else { Ok(()) }
}

/// Decides where everything lives, and puts the weights there. Nobody else decides meanwhile.
fn placed(
    file: &gguf::File,
    (plan, units): (&Arc<Plan>, &Units),
    options: &LoadOptions,
    request: &Request,
    (patience, cancel): (Duration, &AtomicBool),
) -> Result<(Placement, Arc<Store>, Tenant)> {
    let mut ledger = ledger::open();
    let best = place::place(plan, units, &Request { limit: options.ram_bytes, ..*request })?;
    let want = Want { least: best.minimum, most: best.budget.total() };
    let until = Until::within(patience, Some(cancel));
    let limit = budget::limit(options.ram_bytes, ledger.admit(want, Some(until)));
    go_on(cancel)?;
    let placement = place::place(plan, units, &Request { limit, ..*request })
        .map_err(|error| ledger.explain(error))?;
    let store = Arc::new(match &placement.streamed {
        None => Store::open(file, plan)?,
        Some(residence) => {
            let direct = options.io != place::Io::Buffered;
            let opener = store::io::opener(file.parts(), direct);
            Store::stream(file, plan, residence.clone(), opener)?
        }
    });
    let tenant = ledger.promise(placement.budget.total(), &store);
    Ok((placement, store, tenant))
}

/// `ERR_DEVICE` for a device in demand that this build cannot use.
fn check_devices(options: &LoadOptions) -> Result<()> {
    budget::check_devices(options.vram_bytes)?;
    let other = options.devices.iter().find(|id| !matches!(id.as_str(), "auto" | "cpu" | "cpu:0"));
    let Some(id) = other else { return Ok(()) };
    let kind = id.split(':').next().unwrap_or_default();
    let reason = match kind {
        "cpu" => "there is one CPU device: cpu",
        "cuda" | "vulkan" | "metal" | "dx12" => "this build runs on the CPU only",
        _ => {
            let known = "'auto', 'cpu', 'cuda', 'vulkan', 'metal' or 'dx12'";
            return Err(Error::invalid_arg("device", known, id));
        }
    };
    let text = format!("{id}: {reason}; use device 'auto' or 'cpu'");
    Err(Error::new(Code::Device, text).with("device", id.as_str()).with("reason", reason))
}

fn backend(options: &LoadOptions, plan: &Arc<Plan>) -> Result<Box<dyn Backend>> {
    match options.engine {
        Engine::Reference => {
            let config = cpu_config(options);
            Ok(Box::new(Reference::new(plan.clone(), config.kv_k, config.kv_v)?))
        }
        Engine::Cpu => Ok(Box::new(Cpu::new(plan.clone(), cpu_config(options))?)),
    }
}

fn cpu_config(options: &LoadOptions) -> cpu::Config {
    let (kv_k, kv_v) = options.kv_type.unwrap_or((KvType::F16, KvType::F16));
    cpu::Config { threads: options.threads, tier: options.tier.clone(), kv_k, kv_v }
}

/// The tokenizer must not name tokens that the model cannot embed.
fn check_vocabulary(tokenizer: &Tokenizer, plan: &Plan, path: &str) -> Result<()> {
    let (tokens, rows) = (tokenizer.n_vocab(), plan.n_vocab);
    if tokens <= rows {
        return Ok(());
    }
    let what = format!("the tokenizer has {tokens} tokens, the embedding {rows} rows");
    Err(Error::at(Code::TokenizerInvalid, path, "tokenizer.ggml.tokens", what))
}

/// The chat template of a file. Its errors are for whoever wants to chat, not for loading.
///
/// # Errors
/// `ERR_TEMPLATE` when it is no text.
pub fn template_source(meta: &gguf::Meta) -> Result<Option<String>> {
    let found = meta.opt_str("tokenizer.chat_template").map(|source| source.map(str::to_owned));
    found.map_err(|Error { message: reason, .. }| {
        let error = Error::new(Code::Template, reason.clone());
        error.with("line", Field::Null).with("reason", reason)
    })
}

fn aborted() -> Error {
    Error::new(Code::Abort, "this was called off")
}
