//! A loaded model as the public surface shows it: what it is, what it does and holds. It keeps no
//! file open.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::engine::Handle;
use crate::engine::command::EngineStats;
use crate::error::{Error, Result};
use crate::gguf::Meta;
use crate::load::Loaded;
use crate::load::budget::{self, Memory};
use crate::load::share::{Change, Share};
use crate::store::{Progress, Store, StoreStats};
use crate::tools::chat::Chat;
use crate::tools::{estimated, facts};

/// What is known of a loaded model.
pub struct Facts {
    meta: Meta,
    /// `ModelInfo` but for what the chat adds.
    info: Map<String, Value>,
    /// Gone when the model is closed.
    store: Weak<Store>,
    /// What was seen of it last.
    last: Mutex<StoreStats>,
    tier: String,
    /// Kernels by the type of weights.
    kernels: Map<String, Value>,
    share: Arc<Share>,
}

impl Facts {
    /// Keeps what is needed of it, and the handle.
    #[must_use]
    pub fn new(loaded: Loaded) -> (Self, Handle) {
        let info = info(&loaded);
        let named = loaded.kernels.into_iter();
        let facts = Facts {
            kernels: named.map(|(kind, name)| (kind.name().to_owned(), name.into())).collect(),
            meta: loaded.file.meta().clone(),
            info,
            last: Mutex::new(loaded.store.upgrade().map(|store| store.stats()).unwrap_or_default()),
            store: loaded.store,
            tier: loaded.tier,
            share: loaded.share,
        };
        (facts, loaded.handle)
    }

    /// Its share of memory.
    #[must_use]
    pub fn share(&self) -> Arc<Share> {
        self.share.clone()
    }

    /// The file's metadata.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// `{info, sampling, kernels}` as JSON: `ModelInfo` without the metadata, kernels by type.
    #[must_use]
    pub fn model(&self, chat: &Chat) -> String {
        let tokenizer = chat.tokenizer();
        let capabilities: &[&str] = if chat.source().is_some() { &["chat"] } else { &[] };
        let mut info = self.info.clone();
        let rest = json!({
            "capabilities": capabilities, "vocabSize": tokenizer.n_vocab(),
            "bos": tokenizer.bos(), "eos": tokenizer.eos(), "eog": tokenizer.eog(),
        });
        if let Value::Object(rest) = rest {
            info.extend(rest);
        }
        let sampling = facts::sampling(&self.meta);
        json!({ "info": info, "sampling": sampling, "kernels": self.kernels }).to_string()
    }

    /// `Stats` as JSON, but for the peak, which Node knows; the limit is null if nobody says.
    #[must_use]
    pub fn stats(&self, engine: &EngineStats) -> String {
        let (kv, activations) = (engine.kv_bytes as u64, engine.scratch_bytes as u64);
        let ram = Memory { kv, activations, scratch: 0, ..self.share.memory() };
        let mut store = self.last.lock();
        if let Some(now) = self.store.upgrade() {
            *store = now.stats();
        }
        json!({
            "devices": [{ "id": "cpu", "reason": null }],
            "cpu": self.tier, "threads": self.share.threads(),
            "ram": estimated::budget(&ram),
            "vram": {}, "peakRam": 0,
            "io": {
                "backend": store.backend, "reason": store.reason, "bytesRead": store.bytes_read,
                "bytesGuessed": store.guessed_bytes,
                "bytesPerSecond": store.bytes_per_second, "inFlight": store.in_flight,
                "stallMs": store.stall_ms,
            },
            "groups": groups(&store),
            "running": engine.running, "queued": engine.queued, "sessions": engine.sessions,
            "kvTokens": {
                "used": engine.kv_used, "shared": engine.kv_shared, "total": engine.kv_total,
            },
            "promptTokens": engine.prompt_tokens, "completionTokens": engine.completion_tokens,
        })
        .to_string()
    }
}

/// A change of what a model keeps to, from JSON: `ram`, `vram`, `kv` in bytes, `prefetch`,
/// `threads`; what is absent stays, null is `'auto'`.
///
/// # Errors
/// `ERR_INSUFFICIENT_MEMORY` for memory of a device that is not there; `ERR_INTERNAL` for anything
/// else.
pub fn change(json: &str) -> Result<Change> {
    let odd = |what: &str| Error::internal("configure", format!("{what} was not refused"));
    let Ok(Value::Object(given)) = serde_json::from_str(json) else { return Err(odd("a text")) };
    let mut change = Change::default();
    for (name, value) in &given {
        let number = match value {
            Value::Null => None,
            value => Some(value.as_u64().ok_or_else(|| odd(name))?),
        };
        let count = number.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        match name.as_str() {
            "ram" => change.ram = Some(number),
            "kv" => change.kv = Some(number),
            "vram" => budget::check_devices(number)?,
            "prefetch" => change.prefetch = Some(count),
            "threads" => change.threads = Some(count),
            other => return Err(odd(other)),
        }
    }
    Ok(change)
}

fn info(loaded: &Loaded) -> Map<String, Value> {
    let (file, spec) = (&loaded.file, &loaded.spec);
    let files: Vec<_> = file.parts().iter().map(|part| part.path.to_string_lossy()).collect();
    let name = file.meta().opt_str("general.name").ok().flatten();
    let parameters: u64 = file.tensors().iter().map(|t| facts::elements(&t.shape)).sum();
    let info = json!({
        "path": file.path(), "files": files, "name": name, "architecture": spec.architecture,
        "type": facts::commonest_type(file), "parameters": parameters,
        "fileBytes": file.bytes(), "contextLength": loaded.n_ctx,
        "trainedContextLength": spec.n_ctx_train, "layers": spec.n_layer(),
        "embeddingLength": spec.n_embd, "vocabSize": 0, "devices": ["cpu"],
    });
    if let Value::Object(info) = info { info } else { Map::new() }
}

fn groups(store: &StoreStats) -> Value {
    let groups = store.groups.iter().map(|group| {
        let state = match group.state {
            Progress::Cold => "cold",
            Progress::Loading => "loading",
            Progress::Ready => "ready",
            Progress::Pinned => "pinned",
        };
        let mut row = estimated::group(group);
        row["state"] = state.into();
        row["hits"] = group.hits.into();
        row["misses"] = group.misses.into();
        row["late"] = group.late.into();
        row["guessed"] = group.guessed.into();
        row["guessedRight"] = group.guessed_right.into();
        row
    });
    groups.collect()
}
