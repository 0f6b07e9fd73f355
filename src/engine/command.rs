//! What the engine thread is asked and what it answers: commands in, events out. Plain data; knows
//! neither JavaScript nor a kernel.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::engine::bounds::{Bounds, Mover};
use crate::engine::queue::EventQueue;
use crate::engine::sampler::Sampling;
use crate::error::Result;

/// Names a generation while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GenerationId(pub u64);

/// Names a session while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// What to do when the context is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// A prompt too long is refused; generation ends with [`Finish::Context`].
    Error,
    /// Drop the oldest half, but never the first `keep` tokens, and evaluate the rest again.
    Shift {
        /// Tokens at the front that stay.
        keep: usize,
    },
}

/// When a generation ends by itself.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Tokens at most; `None`: until it stops or the context is full.
    pub max_tokens: Option<u32>,
    /// Texts that end it; cut from the answer.
    pub stop: Vec<String>,
    /// Tokens that end it; not part of the answer.
    pub stop_tokens: Vec<u32>,
    /// Go on past end-of-generation tokens.
    pub ignore_eos: bool,
    /// What to do when the context is full.
    pub overflow: Overflow,
}

/// A request to continue a sequence of tokens.
#[derive(Debug)]
pub struct Generate {
    /// Chosen by the caller, unique for the engine.
    pub id: GenerationId,
    /// The session to go on from, or none: a fresh sequence that is dropped at the end.
    pub session: Option<SessionId>,
    /// Session only: tokens of it to keep before the prompt is appended (rolls back to here first).
    /// `None`: all of them.
    pub keep_tokens: Option<usize>,
    /// Session only: the prompt is all that is to be held; what the session has in common with its
    /// beginning stays as it is, and `keep_tokens` does not count.
    pub is_whole: bool,
    /// Tokens to append and go on from.
    pub prompt: Vec<u32>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// When it ends.
    pub limits: Limits,
    /// Alternatives to record for each token, 0..=20; `None`: no log-probabilities.
    pub logprobs: Option<u32>,
    /// Whether `Event::Progress` is wanted.
    pub progress: bool,
    /// Where events go; its capacity is the back-pressure.
    pub events: Arc<EventQueue>,
}

/// How a generation is called off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// Ends with [`Finish::Cancelled`] and what there is; a session keeps it.
    Keep,
    /// Ends with `ABORT_ERR` and the partial result; a session is rolled back.
    Reject,
}

/// Sends one answer back to whoever asked.
pub type Reply<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// Everything that the engine thread can be asked; its loop is one `match` over this.
pub enum Command {
    /// Start (or queue) a generation. Its fate arrives in its events.
    Generate(Box<Generate>),
    /// Call one off; unknown ids are ignored (it has ended already).
    Cancel(GenerationId, Cancel),
    /// The consumer has read from a full queue: the generation may go on.
    Resume(GenerationId),
    /// Log-probabilities of a text, from its second token.
    Score {
        /// The text as tokens.
        tokens: Vec<u32>,
        /// Alternatives for each token, 0..=20.
        top: u32,
        /// Set by the caller to give up; checked every group.
        cancelled: Arc<std::sync::atomic::AtomicBool>,
        /// The answer.
        reply: Reply<Vec<TokenLogprob>>,
    },
    /// Make an empty session under this id.
    SessionOpen(SessionId, Reply<()>),
    /// Make `to`, which shares the pages of `from`.
    SessionFork {
        /// Existing session.
        from: SessionId,
        /// The new one.
        to: SessionId,
        /// The answer.
        reply: Reply<()>,
    },
    /// Forget all tokens from `length` on.
    SessionRewind {
        /// Which session.
        id: SessionId,
        /// Tokens to keep.
        length: usize,
        /// The answer.
        reply: Reply<()>,
    },
    /// Give a session's pages back; ends what it generates with `ERR_CLOSED`.
    SessionClose(SessionId, Reply<()>),
    /// Other bounds, with weights that move, between two passes.
    Configure {
        /// How large passes may be then.
        bounds: Bounds,
        /// Threads that compute then, as `Backend::set_threads` takes them; none: as now.
        threads: Option<Option<usize>>,
        /// Moves weights.
        mover: Mover,
        /// The answer.
        reply: Reply<()>,
    },
    /// Stop after the group in flight; what runs or waits ends with `ERR_CLOSED`.
    Close,
}

/// One token of an answer or of a scored text.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Token id.
    pub token: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability in the raw distribution.
    pub logprob: f32,
    /// The most likely tokens: id, bytes, logprob, descending; lower id first on a tie.
    pub top: Vec<(u32, Vec<u8>, f32)>,
}

/// A piece of the answer: whole UTF-8 characters and the tokens that made them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chunk {
    /// May be empty where `tokens` are not (they become text later, or never).
    pub text: String,
    /// Token ids.
    pub tokens: Vec<u32>,
    /// One a token if asked for.
    pub logprobs: Vec<TokenLogprob>,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// End of generation, a stop string or a stop token.
    Stop,
    /// `max_tokens` reached.
    Length,
    /// The context is full.
    Context,
    /// Called off with [`Cancel::Keep`].
    Cancelled,
}

/// What stopped it.
#[derive(Clone, Debug, PartialEq)]
pub enum StoppedBy {
    /// A stop string.
    Text(String),
    /// An end-of-generation or stop token.
    Token(u32),
}

/// What a generation cost, in milliseconds since it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Waiting for its turn.
    pub queue_ms: f64,
    /// Evaluating the prompt.
    pub prompt_ms: f64,
    /// From the request to the first token.
    pub first_token_ms: f64,
    /// All of it.
    pub total_ms: f64,
    /// Waiting for weights.
    pub stall_ms: f64,
    /// Weight bytes read from disk during it.
    pub bytes_read: u64,
}

/// How a generation ended; `text` is exactly the chunks' texts joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The answer.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// One a token if asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// The seed in force.
    pub seed: u32,
    /// Why it ended.
    pub finish: Finish,
    /// What stopped it, if [`Finish::Stop`].
    pub stopped_by: Option<StoppedBy>,
    /// Tokens of the whole prompt, those held by the session included.
    pub prompt_tokens: usize,
    /// Those that needed no evaluation.
    pub cached_tokens: usize,
    /// What it cost.
    pub timings: Timings,
    /// Tokens that the session holds now (0 without a session).
    pub session_length: usize,
}

/// What a generation says while it runs. After `Done` or `Failed` comes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Prompt tokens evaluated so far, and in all; only if asked for.
    Progress {
        /// Evaluated.
        done: usize,
        /// In all.
        total: usize,
    },
    /// A piece of the answer.
    Chunk(Chunk),
    /// The end.
    Done(Box<Outcome>),
    /// A failure; `ABORT_ERR` brings what there was.
    Failed(crate::error::Error, Option<Box<Outcome>>),
}

/// What the engine is doing, shared with whoever asks for `stats()`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineStats {
    /// Generations in the running set.
    pub running: usize,
    /// Generations that wait.
    pub queued: usize,
    /// Open sessions.
    pub sessions: usize,
    /// KV cache tokens: in use, of those shared, in all.
    pub kv_used: usize,
    /// Of those in use, shared by several sequences.
    pub kv_shared: usize,
    /// Capacity.
    pub kv_total: usize,
    /// Bytes of committed pages.
    pub kv_bytes: usize,
    /// Bytes of activations and scratch.
    pub scratch_bytes: usize,
    /// Prompt tokens evaluated since loading.
    pub prompt_tokens: u64,
    /// Tokens generated since loading.
    pub completion_tokens: u64,
}

/// Shared snapshot of [`EngineStats`].
pub type SharedStats = Arc<Mutex<EngineStats>>;
