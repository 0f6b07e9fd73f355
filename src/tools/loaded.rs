//! A loaded model as the public surface shows it: what it is, what it does and holds. It keeps no
//! file open.

use std::sync::Weak;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::backend::cpu::cores;
use crate::engine::Handle;
use crate::engine::command::EngineStats;
use crate::gguf::Meta;
use crate::load::Loaded;
use crate::load::budget::Memory;
use crate::store::{Place, Progress, Store, StoreStats};
use crate::tools::chat::Chat;
use crate::tools::facts;

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
    threads: usize,
    memory: Memory,
}

impl Facts {
    /// Keeps what is needed of it, and the handle. `threads`: as asked for.
    #[must_use]
    pub fn new(loaded: Loaded, threads: Option<usize>) -> (Self, Handle) {
        let info = info(&loaded);
        let facts = Facts {
            meta: loaded.file.meta().clone(),
            info,
            last: Mutex::new(loaded.store.upgrade().map(|store| store.stats()).unwrap_or_default()),
            store: loaded.store,
            tier: loaded.tier,
            threads: threads.unwrap_or_else(cores::default_threads),
            memory: loaded.memory,
        };
        (facts, loaded.handle)
    }

    /// The file's metadata.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// `{info, sampling}` as JSON: `ModelInfo` without the metadata.
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
        json!({ "info": info, "sampling": facts::sampling(&self.meta) }).to_string()
    }

    /// `Stats` as JSON, but for the peak, which Node knows; the limit is null if nobody says.
    #[must_use]
    pub fn stats(&self, engine: &EngineStats) -> String {
        let (kv, activations) = (engine.kv_bytes as u64, engine.scratch_bytes as u64);
        let ram = Memory { kv, activations, scratch: 0, ..self.memory };
        let mut store = self.last.lock();
        if let Some(now) = self.store.upgrade() {
            *store = now.stats();
        }
        json!({
            "devices": [{ "id": "cpu", "reason": null }],
            "cpu": self.tier, "threads": self.threads,
            "ram": {
                "limit": ram.limit, "weights": ram.weights, "ring": ram.ring, "kv": ram.kv,
                "activations": ram.activations, "scratch": ram.scratch, "staging": ram.staging,
                "total": ram.total(),
            },
            "vram": {}, "peakRam": 0,
            "io": {
                "backend": store.backend, "reason": store.reason, "bytesRead": store.bytes_read,
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
        let place = match group.place {
            Place::Pinned => "pinned",
            Place::Streamed => "streamed",
            Place::Cached => "cached",
        };
        let state = match group.state {
            Progress::Cold => "cold",
            Progress::Loading => "loading",
            Progress::Ready => "ready",
            Progress::Pinned => "pinned",
        };
        json!({
            "name": group.name, "bytes": group.bytes, "device": "cpu", "place": place,
            "state": state, "hits": group.hits, "misses": group.misses, "late": group.late,
        })
    });
    groups.collect()
}
