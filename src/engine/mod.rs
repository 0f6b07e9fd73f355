//! The inference thread and the way to talk to it: a [`Handle`] sends commands, answers arrive in
//! event queues and replies. Nothing in here knows napi, GGUF or a kernel.

pub mod answer;
pub mod bounds;
pub mod candidates;
pub mod command;
pub mod inbox;
pub mod kv;
pub mod logprobs;
mod numeric;
mod pass;
pub mod philox;
pub mod queue;
pub mod sampler;
pub mod schedule;
pub mod score;
pub mod session;
pub mod stats;
pub mod text;
pub mod thread;
pub mod vocabulary;
pub mod work;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::backend::Backend;
use crate::engine::bounds::Bounds;
use crate::engine::command::{Command, EngineStats, SharedStats};
use crate::engine::inbox::Inbox;
use crate::engine::vocabulary::{Vocabulary, Weights};
use crate::error::{Error, Result};
use crate::plan::Plan;

/// What an engine is made of.
pub struct Setup {
    /// Runs the plan.
    pub backend: Box<dyn Backend>,
    /// What to run.
    pub plan: Arc<Plan>,
    /// Where the weights are.
    pub store: Arc<dyn Weights>,
    /// The files that the weights come from, as errors name them, by part.
    pub files: Vec<String>,
    /// How tokens become text.
    pub tokenizer: Arc<dyn Vocabulary>,
    /// Tokens that a sequence may hold.
    pub n_ctx: usize,
    /// Generations stepped together that were asked for; with those that wait, all that there are.
    pub max_concurrent: usize,
    /// Generations that may wait beyond those.
    pub max_queued: usize,
    /// Prompt rows in a pass; `None`: as many as keep a group short. Changes no output.
    pub chunk: Option<usize>,
    /// How large passes may be.
    pub bounds: Bounds,
}

/// Talks to an engine thread from any thread. Dropping the last one closes the engine.
#[derive(Clone)]
pub struct Handle {
    owner: Arc<Owner>,
}

struct Owner {
    inbox: Arc<Inbox>,
    stats: SharedStats,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // An error says that it is closed already.
        drop(self.inbox.send(Command::Close));
    }
}

/// Starts an engine thread. Errors: `ERR_INSUFFICIENT_MEMORY` if the system gives no thread.
pub fn start(setup: Setup) -> Result<Handle> {
    let inbox = Arc::new(Inbox::new(setup.max_concurrent.max(1), setup.max_queued));
    let stats = SharedStats::default();
    let engine = thread::Engine::new(setup, inbox.clone(), stats.clone());
    let thread = std::thread::Builder::new()
        .name("chord-engine".to_owned())
        .spawn(move || thread::main(engine))
        .map_err(|error| Error::threads("the engine", 1, 0, &error))?;
    let thread = Mutex::new(Some(thread));
    Ok(Handle { owner: Arc::new(Owner { inbox, stats, thread }) })
}

impl Handle {
    /// Sends a command. Errors: `ERR_CLOSED`, `ERR_QUEUE_FULL`; then nothing else comes of it.
    pub fn send(&self, command: Command) -> Result<()> {
        self.owner.inbox.send(command)
    }

    /// What the engine is doing; after close, what it did last.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        self.owner.stats.lock().clone()
    }

    /// Whether it takes nothing any more: it was closed, or a panic closed it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.owner.inbox.is_closed()
    }

    /// Asks the engine to stop after the group in flight; [`Handle::join`] waits for it.
    pub fn close(&self) {
        // An error says that it is closed already.
        drop(self.send(Command::Close));
    }

    /// Waits until the thread has let go of everything; `false` if it takes longer than `timeout`.
    #[must_use]
    pub fn join(&self, timeout: Duration) -> bool {
        if !self.owner.inbox.wait_finished(timeout) {
            return false;
        }
        let thread = self.owner.thread.lock().take();
        // Its panics are caught inside; there is no result to look at.
        thread.is_none_or(|thread| thread.join().is_ok())
    }
}
