//! A generation in JavaScript's hands: pulled by demand, called off, or dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::engine::Handle;
use crate::engine::command::{
    Cancel, Command, Event, Finish, Generate, GenerationId, Outcome, SessionId, Timings,
};
use crate::engine::queue::EventQueue;
use crate::error::{Code, Error, Result};
use crate::node::batch::{self, NativeBatch};
use crate::node::promise::{blocking, promise};
use crate::node::request::{NativeRequest, Prompt};
use crate::node::slot::Slot;

/// Generations of all models have different numbers.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Texts longer than this do not hold back those that come after them.
const ORDERED_BYTES_MAX: usize = 1 << 16;

/// What a generation needs of its model.
#[derive(Clone)]
pub struct Engine {
    /// The inference thread.
    pub handle: Handle,
    /// The vocabulary and the template.
    pub chat: Slot,
    /// Sees to it that requests arrive in the order of the calls.
    pub turns: Arc<Turns>,
}

/// Who was called last: the next one waits until that one is sent.
#[derive(Default)]
pub struct Turns(Mutex<Option<oneshot::Receiver<()>>>);

/// The session that a generation goes on from, as JavaScript sees it.
#[derive(Clone)]
pub struct OfSession {
    /// Its name in the engine.
    pub id: SessionId,
    /// Tokens that the engine holds of it.
    pub length: Arc<AtomicUsize>,
    /// Tokens that follow those and are not evaluated yet.
    pub tail: Arc<Mutex<Vec<u32>>>,
}

impl OfSession {
    /// Tokens that it holds.
    pub fn length(&self) -> usize {
        self.length.load(Ordering::Acquire) + self.tail.lock().len()
    }
}

/// A running generation.
#[napi]
pub struct NativeGeneration {
    call: Arc<Call>,
    with_logprobs: bool,
}

struct Call {
    id: GenerationId,
    handle: Handle,
    events: Arc<EventQueue>,
    session: Option<OfSession>,
    seed: u32,
    started: Instant,
    phase: Mutex<Phase>,
}

/// Where a request is.
enum Phase {
    /// Its prompt becomes tokens.
    Preparing,
    /// The engine has it, since so many milliseconds after the call.
    Sent(f64),
    /// Called off before the engine saw it.
    CalledOff,
}

impl Drop for NativeGeneration {
    fn drop(&mut self) {
        self.call.events.abandon();
    }
}

#[napi]
impl NativeGeneration {
    /// Waits for news.
    #[napi(catch_unwind)]
    pub fn next<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, NativeBatch>> {
        let (call, with_logprobs) = (self.call.clone(), self.with_logprobs);
        promise(env, async move {
            let pull = call.events.pull().await;
            call.note_length(&pull.events);
            Ok(batch::batch(pull.events, pull.is_full, with_logprobs, call.before_ms()))
        })
    }

    /// So many chunks may come with the next batch.
    #[napi(catch_unwind)]
    pub fn demand(&self, chunks: u32) {
        self.call.events.demand(chunks as usize);
    }

    /// All chunks may come.
    #[napi(catch_unwind)]
    pub fn lift(&self) {
        self.call.events.lift();
    }

    /// Calls it off; `keep`: with what there is as the result.
    #[napi(catch_unwind)]
    pub fn cancel(&self, keep: bool) {
        self.call.cancel(how(keep));
    }
}

fn how(keep: bool) -> Cancel {
    if keep { Cancel::Keep } else { Cancel::Reject }
}

/// Starts a generation: its prompt becomes tokens, then the engine gets it.
pub fn start(
    engine: &Engine,
    request: NativeRequest,
    session: Option<OfSession>,
) -> NativeGeneration {
    let id = GenerationId(LAST.fetch_add(1, Ordering::Relaxed));
    let events = Arc::new(EventQueue::new(request.queue_size as usize));
    let with_logprobs = request.logprobs.is_some();
    let cancelled = request.cancelled;
    let session_id = session.as_ref().map(|session| session.id);
    let (prompt, generate) = request.split(id, session_id, events.clone());
    let call = Arc::new(Call {
        id,
        handle: engine.handle.clone(),
        events,
        session,
        seed: generate.sampling.seed,
        started: Instant::now(),
        phase: Mutex::new(Phase::Preparing),
    });
    if let Some(keep) = cancelled {
        call.cancel(how(keep));
    } else {
        napi::bindgen_prelude::spawn(prepare(engine, call.clone(), prompt, generate));
    }
    NativeGeneration { call, with_logprobs }
}

/// The order is taken now, the rest happens later.
fn prepare(
    engine: &Engine,
    call: Arc<Call>,
    prompt: Prompt,
    generate: Generate,
) -> impl Future<Output = ()> + Send + 'static {
    let (chat, turns) = (engine.chat.clone(), engine.turns.clone());
    let turn = (prompt.bytes() <= ORDERED_BYTES_MAX).then(|| turns.take());
    async move {
        let starts = call.session.as_ref().is_none_or(|session| session.length() == 0);
        let tokens = match prompt {
            Prompt::Tokens(tokens) => Ok(tokens),
            prompt => blocking(move || prompt.tokens(chat.chat()?.as_ref(), starts)).await,
        };
        let tokens = tokens.map(|tokens| call.after_tail(tokens, generate.is_whole));
        let mut done = None;
        if let Some((before, this)) = turn {
            if let Some(before) = before {
                // An error says that it is gone, so that it is this one's turn.
                drop(before.await);
            }
            done = Some(this);
        }
        call.send(tokens, generate);
        drop(done);
    }
}

impl Turns {
    /// What to wait for, and what to drop when done.
    fn take(&self) -> (Option<oneshot::Receiver<()>>, oneshot::Sender<()>) {
        let (this, next) = oneshot::channel();
        (self.0.lock().replace(next), this)
    }
}

impl Call {
    /// What goes on from here goes on from the session's tail.
    fn after_tail(&self, tokens: Vec<u32>, is_whole: bool) -> Vec<u32> {
        match &self.session {
            Some(session) if !is_whole => [session.tail.lock().as_slice(), &tokens].concat(),
            _ => tokens,
        }
    }

    fn send(&self, tokens: Result<Vec<u32>>, mut generate: Generate) {
        let mut phase = self.phase.lock();
        if !matches!(*phase, Phase::Preparing) {
            return;
        }
        *phase = Phase::Sent(self.started.elapsed().as_secs_f64() * 1e3);
        let sent = tokens.and_then(|tokens| {
            generate.prompt = tokens;
            self.handle.send(Command::Generate(Box::new(generate)))
        });
        if let Err(error) = sent {
            self.events.push(Event::Failed(error, None));
        }
    }

    fn cancel(&self, how: Cancel) {
        let mut phase = self.phase.lock();
        match *phase {
            // An error says that the engine is closed: it has ended.
            Phase::Sent(_) => drop(self.handle.send(Command::Cancel(self.id, how))),
            Phase::CalledOff => {}
            Phase::Preparing => {
                *phase = Phase::CalledOff;
                self.events.push(match how {
                    Cancel::Keep => Event::Done(Box::new(self.nothing())),
                    Cancel::Reject => {
                        Event::Failed(Error::new(Code::Abort, "The operation was aborted"), None)
                    }
                });
            }
        }
    }

    /// What there is before anything happened.
    fn nothing(&self) -> Outcome {
        let session = self.session.as_ref();
        let total_ms = self.started.elapsed().as_secs_f64() * 1e3;
        Outcome {
            text: String::new(),
            tokens: Vec::new(),
            logprobs: Vec::new(),
            seed: self.seed,
            finish: Finish::Cancelled,
            stopped_by: None,
            prompt_tokens: 0,
            cached_tokens: 0,
            timings: Timings { total_ms, ..Timings::default() },
            session_length: session.map_or(0, OfSession::length),
        }
    }

    /// Milliseconds before the engine saw it.
    fn before_ms(&self) -> f64 {
        match *self.phase.lock() {
            Phase::Sent(ms) => ms,
            _ => 0.0,
        }
    }

    fn note_length(&self, events: &[Event]) {
        let Some(session) = &self.session else { return };
        for event in events {
            if let Event::Done(outcome) = event {
                // Called off before the engine saw it, nothing has changed.
                if matches!(*self.phase.lock(), Phase::Sent(_)) {
                    session.length.store(outcome.session_length, Ordering::Release);
                    session.tail.lock().clear();
                }
            }
        }
    }
}
