//! A loaded model in JavaScript's hands.

use std::sync::Arc;
use std::time::Duration;

use napi::Env;
use napi::bindgen_prelude::{Either3, ObjectFinalize, PromiseRaw, Uint32Array};
use napi_derive::napi;
use tokio::sync::oneshot;

use crate::engine::command::Command;
use crate::error::{Error, Result};
use crate::load::Loaded;
use crate::node::batch::{NativeLogprob, convert_logprob};
use crate::node::generation::{self, Engine, NativeGeneration, Turns};
use crate::node::load::NativeCancel;
use crate::node::promise::{blocking, promise, thrown, unbounded_blocking};
use crate::node::request::{NativeRequest, Prompt};
use crate::node::session::{self, NativeSession};
use crate::node::slot::Slot;
use crate::node::teardown::Registered;
use crate::node::text::{NativeString, NativeText};
use crate::tools::chat::Chat;
use crate::tools::facts;
use crate::tools::heap;
use crate::tools::loaded::{self, Facts};

/// Closing waits for a group, which takes longer than this only if something is wrong.
const CLOSE_MAX: Duration = Duration::from_secs(60);

/// A loaded model.
#[napi(custom_finalize)]
pub struct NativeModel {
    path: String,
    info: String,
    engine: Engine,
    facts: Facts,
    _registered: Registered,
}

impl Drop for NativeModel {
    fn drop(&mut self) {
        self.engine.handle.close();
    }
}

impl ObjectFinalize for NativeModel {
    fn finalize(self, env: Env) -> napi::Result<()> {
        env.adjust_external_memory(-self.held_bytes()).map(drop)
    }
}

impl NativeModel {
    /// Wraps what was loaded.
    pub fn new(
        path: String,
        loaded: Loaded,
        template: Option<String>,
        registered: Registered,
    ) -> Self {
        let template = template.map_or_else(|| loaded.template_source.clone(), |own| Ok(Some(own)));
        let chat = Chat::new(loaded.tokenizer.clone(), template);
        let (facts, handle) = Facts::new(loaded);
        let info = facts.model(&chat);
        let engine = Engine { handle, chat: Slot::new(chat), turns: Arc::new(Turns::default()) };
        NativeModel { path, info, engine, facts, _registered: registered }
    }

    /// The vocabulary and the template.
    pub fn chat(&self) -> Result<Arc<Chat>> {
        self.engine.chat.chat()
    }

    /// Bytes that stay until JavaScript lets go of it, so that it knows.
    pub fn held_bytes(&self) -> i64 {
        i64::try_from(facts::metadata_bytes(self.facts.meta())).unwrap_or(i64::MAX)
    }
}

#[napi]
impl NativeModel {
    /// JSON of `{info, sampling, kernels}`.
    #[napi(catch_unwind)]
    #[must_use]
    pub fn info(&self) -> String {
        self.info.clone()
    }

    /// The file's metadata, an entry a key.
    #[napi(catch_unwind)]
    #[must_use]
    pub fn metadata(&self) -> Vec<Vec<String>> {
        facts::metadata(self.facts.meta())
    }

    /// Its tokenizer.
    #[napi(catch_unwind)]
    #[must_use]
    pub fn text(&self) -> NativeText {
        NativeText::new(self.path.clone(), self.engine.chat.clone())
    }

    /// JSON of `Stats` but for what Node knows.
    #[napi(catch_unwind)]
    #[must_use]
    pub fn stats(&self) -> String {
        self.facts.stats(&self.engine.handle.stats())
    }

    /// Whether its engine takes nothing any more.
    #[napi(catch_unwind)]
    #[must_use]
    pub fn closed(&self) -> bool {
        self.engine.handle.is_closed()
    }

    /// Starts a generation.
    #[napi(catch_unwind)]
    #[must_use]
    pub fn generate(
        &self,
        request: NativeRequest,
        long: Option<&NativeString>,
    ) -> NativeGeneration {
        generation::start(&self.engine, request.with(long), None)
    }

    /// Makes an empty session.
    #[napi(catch_unwind)]
    pub fn open_session(&self) -> napi::Result<NativeSession> {
        session::open(&self.engine).map_err(|error| thrown(&error))
    }

    /// Log-probabilities of a text's tokens, from the second.
    #[napi(catch_unwind)]
    pub fn score<'env>(
        &self,
        env: &'env Env,
        prompt: Either3<String, &NativeString, Uint32Array>,
        top: u32,
        cancel: &NativeCancel,
    ) -> napi::Result<PromiseRaw<'env, Vec<NativeLogprob>>> {
        let prompt = match prompt {
            Either3::A(text) => Prompt::Text(text, true),
            Either3::B(long) => Prompt::Text(long.take(), true),
            Either3::C(tokens) => Prompt::Tokens(tokens.to_vec()),
        };
        let (engine, cancelled) = (self.engine.clone(), cancel.flag());
        promise(env, async move {
            let chat = engine.chat.clone();
            let tokens = blocking(move || prompt.tokens(chat.chat()?.as_ref(), true)).await?;
            let (sender, receiver) = oneshot::channel();
            let reply = Box::new(move |result| drop(sender.send(result)));
            engine.handle.send(Command::Score { tokens, top, cancelled, reply })?;
            let scores = receiver.await.map_err(|error| Error::internal("scoring", error))??;
            Ok(scores.into_iter().map(convert_logprob).collect())
        })
    }

    /// Changes budgets, read-ahead, threads between two passes: JSON of those that change, in
    /// bytes, groups, threads; null is `'auto'`.
    #[napi(catch_unwind)]
    pub fn configure<'env>(
        &self,
        env: &'env Env,
        change: String,
        cancel: &NativeCancel,
    ) -> napi::Result<PromiseRaw<'env, ()>> {
        let (share, cancelled) = (self.facts.share(), cancel.flag());
        let work = move || share.configure(loaded::change(&change)?, &cancelled);
        promise(env, unbounded_blocking(work))
    }

    /// Ends after the pass in flight.
    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        let (handle, chat) = (self.engine.handle.clone(), self.engine.chat.clone());
        handle.close();
        promise(env, async move {
            let closed = unbounded_blocking(move || wait(&handle)).await;
            chat.close();
            heap::give_back();
            closed
        })
    }
}

fn wait(handle: &crate::engine::Handle) -> Result<()> {
    if handle.join(CLOSE_MAX) {
        return Ok(());
    }
    Err(Error::internal("closing a model", "its thread does not end"))
}
