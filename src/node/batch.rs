//! From the engine's events to plain JavaScript objects.

use napi::bindgen_prelude::{Uint8Array, Uint32Array};
use napi_derive::napi;

use crate::engine::command::{Chunk, Event, Finish, Outcome, StoppedBy, Timings, TokenLogprob};
use crate::node::promise;

/// What one pull brings.
#[napi(object, use_nullable = true)]
pub struct NativeBatch {
    /// Prompt tokens evaluated, and in all.
    pub progress: Option<Vec<f64>>,
    /// Oldest first.
    pub chunks: Vec<NativeChunk>,
    /// Nothing comes until more is demanded.
    pub full: bool,
    /// How it ended, or what there was when it failed.
    pub done: Option<NativeOutcome>,
    /// The failure, as JSON.
    pub failed: Option<String>,
}

/// A piece of the answer.
#[napi(object, use_nullable = true)]
pub struct NativeChunk {
    /// Whole characters.
    pub text: String,
    /// Few, so a plain array is cheaper than a typed one.
    pub tokens: Vec<u32>,
    /// One a token, if asked for.
    pub logprobs: Option<Vec<NativeLogprob>>,
}

/// How likely a token was.
#[napi(object)]
pub struct NativeLogprob {
    /// Id.
    pub token: u32,
    /// Its bytes as text.
    pub text: String,
    /// Its bytes.
    pub bytes: Uint8Array,
    /// Natural logarithm.
    pub logprob: f64,
    /// The likeliest.
    pub top: Vec<NativeTop>,
}

/// One of the likeliest tokens.
#[napi(object)]
pub struct NativeTop {
    /// Id.
    pub token: u32,
    /// Its bytes as text.
    pub text: String,
    /// Natural logarithm.
    pub logprob: f64,
}

/// How a generation ended.
#[napi(object, use_nullable = true)]
pub struct NativeOutcome {
    /// The answer.
    pub text: String,
    /// Its tokens.
    pub tokens: Uint32Array,
    /// One a token, if asked for.
    pub logprobs: Option<Vec<NativeLogprob>>,
    /// The seed in force.
    pub seed: u32,
    /// `stop`, `length`, `context` or `cancelled`.
    pub finish: String,
    /// The stop string.
    pub stop_text: Option<String>,
    /// The stop token.
    pub stop_token: Option<u32>,
    /// Of the whole prompt.
    pub prompt_tokens: f64,
    /// Of those, not evaluated.
    pub cached_tokens: f64,
    /// Milliseconds: queue, prompt, first token, total, stall; then bytes read.
    pub timings: Vec<f64>,
    /// Tokens that the session holds.
    pub session_length: f64,
}

/// Turns events into a batch; `with_logprobs`: they were asked for; `before_ms`: what the call took
/// before the engine saw it.
pub fn batch(events: Vec<Event>, full: bool, with_logprobs: bool, before_ms: f64) -> NativeBatch {
    let (progress, chunks) = (None, Vec::new());
    let mut batch = NativeBatch { progress, chunks, full, done: None, failed: None };
    for event in events {
        match event {
            Event::Progress { done, total } => {
                batch.progress = Some(vec![double(done), double(total)]);
            }
            Event::Chunk(chunk) => batch.chunks.push(convert_chunk(chunk, with_logprobs)),
            Event::Done(outcome) => {
                batch.done = Some(convert_outcome(*outcome, with_logprobs, before_ms));
            }
            Event::Failed(error, partial) => {
                let convert = |outcome: Box<_>| convert_outcome(*outcome, with_logprobs, before_ms);
                batch.done = partial.map(convert);
                batch.failed = Some(promise::json(&error));
            }
        }
    }
    batch
}

/// A logprob for JavaScript.
pub fn convert_logprob(from: TokenLogprob) -> NativeLogprob {
    let top = from.top.into_iter().map(|(token, bytes, logprob)| NativeTop {
        token,
        text: String::from_utf8_lossy(&bytes).into_owned(),
        logprob: f64::from(logprob),
    });
    NativeLogprob {
        token: from.token,
        text: String::from_utf8_lossy(&from.bytes).into_owned(),
        bytes: Uint8Array::new(from.bytes),
        logprob: f64::from(from.logprob),
        top: top.collect(),
    }
}

fn convert_chunk(chunk: Chunk, with_logprobs: bool) -> NativeChunk {
    let logprobs = chunk.logprobs.into_iter().map(convert_logprob);
    NativeChunk {
        logprobs: with_logprobs.then(|| logprobs.collect()),
        text: chunk.text,
        tokens: chunk.tokens,
    }
}

fn convert_outcome(from: Outcome, with_logprobs: bool, before_ms: f64) -> NativeOutcome {
    let logprobs = from.logprobs.into_iter().map(convert_logprob);
    let finish = match from.finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Context => "context",
        Finish::Cancelled => "cancelled",
    };
    let (stop_text, stop_token) = match from.stopped_by {
        Some(StoppedBy::Text(text)) => (Some(text), None),
        Some(StoppedBy::Token(token)) => (None, Some(token)),
        None => (None, None),
    };
    NativeOutcome {
        text: from.text,
        tokens: Uint32Array::new(from.tokens),
        logprobs: with_logprobs.then(|| logprobs.collect()),
        seed: from.seed,
        finish: finish.to_owned(),
        stop_text,
        stop_token,
        prompt_tokens: double(from.prompt_tokens),
        cached_tokens: double(from.cached_tokens),
        timings: timings(&from.timings, before_ms),
        session_length: double(from.session_length),
    }
}

fn timings(from: &Timings, before_ms: f64) -> Vec<f64> {
    #[allow(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
    let bytes_read = from.bytes_read as f64;
    let first_token = if from.first_token_ms > 0.0 { from.first_token_ms + before_ms } else { 0.0 };
    let (queue, total) = (from.queue_ms + before_ms, from.total_ms + before_ms);
    vec![queue, from.prompt_ms, first_token, total, from.stall_ms, bytes_read]
}

#[allow(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
fn double(count: usize) -> f64 {
    count as f64
}
