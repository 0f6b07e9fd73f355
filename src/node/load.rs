//! What opens files: each on a thread that may be blocked, each to be called off.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::load::{self, LoadOptions};
use crate::node::model::NativeModel;
use crate::node::promise::{promise, thrown, unbounded_blocking};
use crate::node::slot::Slot;
use crate::node::teardown::{self, Environment, Registered};
use crate::node::text::NativeText;
use crate::tools::open::{self, Inspection};
use crate::tools::{comparison, estimated, planned};

/// At most 20 calls a second, the last one included.
const PROGRESS_EVERY: Duration = Duration::from_millis(53);

/// Calls something off.
#[napi]
#[derive(Default)]
pub struct NativeCancel {
    flag: Arc<AtomicBool>,
}

#[napi]
impl NativeCancel {
    /// Nothing is called off yet.
    #[napi(constructor, catch_unwind)]
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Does it.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Release);
    }
}

impl NativeCancel {
    /// What the work looks at.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.flag.clone()
    }
}

/// See `LoadOptions`; null is `'auto'`.
#[napi(object, use_nullable = true)]
pub struct NativeLoadOptions {
    /// Devices in demand.
    pub device: Option<Vec<String>>,
    /// Tokens a session may hold.
    pub context_length: Option<u32>,
    /// `f32`, `f16`, `bf16`, `q8_0` or `q4_0`.
    pub kv_type_k: String,
    /// As for keys.
    pub kv_type_v: String,
    /// CPU threads.
    pub threads: Option<u32>,
    /// Kernel tier.
    pub cpu: Option<String>,
    /// Instead of the file's.
    pub chat_template: Option<String>,
    /// Generations stepped together.
    pub max_concurrent: Option<u32>,
    /// Generations that may wait.
    pub max_queued: u32,
    /// Bytes that the model may take.
    pub ram: Option<f64>,
    /// Of those, for the KV cache.
    pub kv: Option<f64>,
    /// Bytes of each device's memory.
    pub vram: Option<f64>,
    /// Groups read ahead.
    pub prefetch: Option<u32>,
    /// `auto`, `mmap`, `direct` or `buffered`.
    pub io: String,
}

/// A model that is being loaded.
#[napi]
pub struct NativeLoad {
    cancel: Arc<AtomicBool>,
    progress: Arc<tokio::sync::Mutex<Progress>>,
    model: Arc<Mutex<Option<NativeModel>>>,
}

/// What was told of it.
struct Progress {
    steps: watch::Receiver<Step>,
    told: (u64, u64),
}

/// How far it is.
#[derive(Clone, Default)]
struct Step {
    done: u64,
    total: u64,
    end: Option<Result<()>>,
}

#[napi]
impl NativeLoad {
    /// Bytes done and in all; null when it is loaded.
    #[napi(catch_unwind)]
    pub fn next<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, Option<Vec<f64>>>> {
        let progress = self.progress.clone();
        promise(env, async move {
            let mut progress = progress.lock().await;
            // The sender goes right after the end was written: an error is no news.
            let _ = progress.steps.changed().await;
            let step = progress.steps.borrow_and_update().clone();
            let is_told = step.total == 0 || progress.told == (step.done, step.total);
            match step.end {
                Some(Ok(())) if is_told => return Ok(None),
                Some(Err(error)) => return Err(error),
                _ => {}
            }
            progress.told = (step.done, step.total);
            #[allow(clippy::cast_precision_loss, reason = "files are smaller than 2^53 bytes")]
            let numbers = vec![step.done as f64, step.total as f64];
            Ok(Some(numbers))
        })
    }

    /// The model, once.
    #[napi(catch_unwind)]
    pub fn take(&self, env: &Env) -> napi::Result<NativeModel> {
        let gone = || thrown(&Error::internal("loading", "there is no model"));
        let model = self.model.lock().take().ok_or_else(gone)?;
        env.adjust_external_memory(model.held_bytes())?;
        Ok(model)
    }

    /// Gives it up.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.cancel.store(true, Ordering::Release);
    }
}

/// Starts to load a model.
#[napi(catch_unwind)]
pub fn load(env: &Env, path: String, options: NativeLoadOptions) -> napi::Result<NativeLoad> {
    let environment = teardown::current(env)?;
    let cancel = Arc::new(AtomicBool::new(false));
    let (sender, steps) = watch::channel(Step::default());
    let model = Arc::new(Mutex::new(None));
    let (flag, slot) = (cancel.clone(), model.clone());
    napi::bindgen_prelude::spawn(async move {
        let registered = environment.register_load(flag.clone());
        let reports = sender.clone();
        let work = move || load_model(&environment, &path, options, &reports, &flag);
        let end = unbounded_blocking(work).await.map(|model| *slot.lock() = Some(model));
        drop(registered);
        sender.send_modify(|step| step.end = Some(end));
    });
    let progress = Arc::new(tokio::sync::Mutex::new(Progress { steps, told: (0, 0) }));
    Ok(NativeLoad { cancel, progress, model })
}

/// Opens a tokenizer.
#[napi(catch_unwind)]
pub fn open_tokenizer<'env>(
    env: &'env Env,
    path: String,
    cancel: &NativeCancel,
) -> napi::Result<PromiseRaw<'env, NativeText>> {
    let flag = cancel.flag();
    let work = move || {
        let chat = open::chat(Path::new(&path), &flag)?;
        Ok(NativeText::new(path, Slot::new(chat)))
    };
    promise(env, unbounded_blocking(work))
}

/// What loading would lead to: JSON of `Estimate`. `disk`: bytes a second that it gives; null: it
/// is measured.
#[napi(catch_unwind)]
pub fn estimate<'env>(
    env: &'env Env,
    path: String,
    options: NativeLoadOptions,
    disk: Option<f64>,
    cancel: &NativeCancel,
) -> napi::Result<PromiseRaw<'env, String>> {
    let flag = cancel.flag();
    let work = move || {
        let options = convert(options)?;
        let found = load::estimate::estimate(Path::new(&path), &options, disk, &flag)?;
        Ok(estimated::estimate(&found))
    };
    promise(env, unbounded_blocking(work))
}

/// Remembers so many events of reading and computing from now on.
#[napi(catch_unwind)]
pub fn trace_start(events: u32) {
    estimated::trace_start(events as usize);
}

/// JSON of what was remembered.
#[napi(catch_unwind)]
#[must_use]
pub fn trace_take() -> String {
    estimated::trace()
}

/// What a file holds.
#[napi]
pub struct NativeInspection(Inspection);

#[napi]
impl NativeInspection {
    /// JSON of `GgufInfo` without the metadata.
    #[napi(catch_unwind)]
    #[must_use]
    pub fn info(&self) -> String {
        self.0.info.clone()
    }

    /// The metadata, an entry a key.
    #[napi(catch_unwind)]
    #[must_use]
    pub fn metadata(&self) -> Vec<Vec<String>> {
        self.0.metadata.clone()
    }
}

/// Reads a file's header.
#[napi(catch_unwind)]
pub fn inspect<'env>(
    env: &'env Env,
    path: String,
    cancel: &NativeCancel,
) -> napi::Result<PromiseRaw<'env, NativeInspection>> {
    let flag = cancel.flag();
    let work = move || open::inspect(Path::new(&path), &flag).map(NativeInspection);
    promise(env, unbounded_blocking(work))
}

fn load_model(
    environment: &Arc<Environment>,
    path: &str,
    options: NativeLoadOptions,
    reports: &watch::Sender<Step>,
    cancel: &AtomicBool,
) -> Result<NativeModel> {
    let mut last: Option<Instant> = None;
    let mut report = |done: u64, total: u64| {
        if done < total && last.is_some_and(|last| last.elapsed() < PROGRESS_EVERY) {
            return;
        }
        last = Some(Instant::now());
        reports.send_modify(|step| (step.done, step.total) = (done, total));
    };
    let template = options.chat_template.clone();
    let has_template = template.is_some();
    let options = convert(options)?;
    let loaded = load::load(Path::new(path), &options, &mut report, cancel)?;
    let registered: Registered = environment.register_engine(loaded.handle.clone());
    let model = NativeModel::new(path.to_owned(), loaded, template, registered);
    if has_template {
        // A template that was given has to be one; dropping the model ends its engine.
        model.chat()?.template()?;
    }
    Ok(model)
}

fn convert(from: NativeLoadOptions) -> Result<LoadOptions> {
    let count = |number: Option<u32>| number.map(|number| number as usize);
    let kv = (open::kv_type(&from.kv_type_k)?, open::kv_type(&from.kv_type_v)?);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "JavaScript has checked that it is a whole number of bytes"
    )]
    let bytes = |number: Option<f64>| number.map(|number| number as u64);
    Ok(LoadOptions {
        devices: from.device.unwrap_or_default(),
        n_ctx: count(from.context_length),
        kv_type: Some(kv),
        threads: count(from.threads),
        tier: from.cpu.filter(|tier| tier != "auto"),
        max_concurrent: count(from.max_concurrent),
        max_queued: Some(from.max_queued as usize),
        ram_bytes: bytes(from.ram),
        kv_bytes: bytes(from.kv),
        vram_bytes: bytes(from.vram),
        prefetch: count(from.prefetch),
        io: open::io(&from.io)?,
        ..LoadOptions::default()
    })
}

/// Compares two backends: `chord diff`.
#[napi(catch_unwind)]
pub fn diff<'env>(
    env: &'env Env,
    request: String,
    cancel: &NativeCancel,
) -> napi::Result<PromiseRaw<'env, String>> {
    let flag = cancel.flag();
    promise(env, unbounded_blocking(move || comparison::compare(&request, &flag)))
}

/// What a model computes, as text or as JSON: `chord inspect --plan`.
#[napi(catch_unwind)]
pub fn plan<'env>(
    env: &'env Env,
    path: String,
    as_json: bool,
    cancel: &NativeCancel,
) -> napi::Result<PromiseRaw<'env, String>> {
    let flag = cancel.flag();
    let work = move || planned::planned(Path::new(&path), as_json, &flag);
    promise(env, unbounded_blocking(work))
}
