//! One generation in the making: draws tokens from logits, writes text, knows when it is over. It
//! does not know pages, batches or other generations.

use std::sync::Arc;
use std::time::Instant;

use crate::engine::command::{
    Cancel, Event, Finish, Generate, GenerationId, Limits, Outcome, Overflow, SessionId, StoppedBy,
};
use crate::engine::logprobs::describe;
use crate::engine::queue::EventQueue;
use crate::engine::sampler::Sampler;
use crate::engine::stats::Clock;
use crate::engine::text::Writer;
use crate::engine::vocabulary::Vocabulary;
use crate::error::{Code, Error, Result};

/// Stop strings that one generation may have.
const STOP_MAX: usize = 64;

/// One generation.
pub struct Answer {
    /// Its name.
    pub id: GenerationId,
    /// The session that it goes on from.
    pub session: Option<SessionId>,
    /// Where its events go.
    pub events: Arc<EventQueue>,
    /// Tokens of the whole prompt.
    pub prompt_tokens: usize,
    /// Of those, the ones that needed no evaluation.
    pub cached_tokens: usize,
    /// When it reached which stage.
    pub clock: Clock,
    limits: Limits,
    sampler: Sampler,
    logprobs: Option<u32>,
    wants_progress: bool,
    writer: Writer,
    words: Arc<dyn Vocabulary>,
    /// Tokens drawn so far: the counter of the random numbers.
    drawn: u64,
}

/// Why an answer is over.
#[derive(Debug, PartialEq)]
pub struct End {
    /// The reason.
    pub finish: Finish,
    /// What stopped it.
    pub stopped_by: Option<StoppedBy>,
}

impl Answer {
    /// Checks a request. Errors: `ERR_INVALID_ARG`.
    pub fn new(generate: Generate, sent: Instant, words: &Arc<dyn Vocabulary>) -> Result<Self> {
        let n_vocab = words.n_vocab();
        check_tokens("prompt", &generate.prompt, n_vocab)?;
        check_tokens("stopTokens", &generate.limits.stop_tokens, n_vocab)?;
        check_stops(&generate.limits.stop)?;
        let writer = Writer::new(words.clone().decoder(), &generate.limits.stop);
        Ok(Answer {
            id: generate.id,
            session: generate.session,
            events: generate.events,
            prompt_tokens: 0,
            cached_tokens: 0,
            clock: Clock::since(sent),
            sampler: Sampler::new(generate.sampling, n_vocab)?,
            limits: generate.limits,
            logprobs: generate.logprobs,
            wants_progress: generate.progress,
            writer,
            words: words.clone(),
            drawn: 0,
        })
    }

    /// What to do when the context is full.
    #[must_use]
    pub fn overflow(&self) -> Overflow {
        self.limits.overflow
    }

    /// Tokens drawn so far.
    #[must_use]
    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// Tells how much of the prompt is evaluated, if asked for.
    pub fn progress(&self, evaluated: usize) {
        if self.wants_progress && self.drawn == 0 {
            let total = self.prompt_tokens;
            self.events.push(Event::Progress { done: evaluated.min(total), total });
        }
    }

    /// Draws the next token and appends it to `tokens`, unless it ends the answer by itself.
    /// Errors: `ERR_NUMERIC`, `ERR_INVALID_ARG`.
    pub fn step(&mut self, logits: &[f32], tokens: &mut Vec<u32>) -> Result<Option<End>> {
        self.clock.prompt_done();
        let token = self.sampler.draw(logits, tokens, self.drawn)?;
        self.clock.first_token();
        self.drawn += 1;
        let is_eog = !self.limits.ignore_eos && self.words.eog().contains(&token);
        if is_eog || self.limits.stop_tokens.contains(&token) {
            return Ok(Some(stop(StoppedBy::Token(token))));
        }
        tokens.push(token);
        let words = self.words.as_ref();
        let logprob = self.logprobs.map(|top| describe(logits, token, top, words));
        if self.writer.push(token, logprob) {
            let text = self.writer.stopped_by().unwrap_or_default().to_owned();
            return Ok(Some(stop(StoppedBy::Text(text))));
        }
        if let Some(chunk) = self.writer.chunk() {
            self.events.push(Event::Chunk(chunk));
        }
        let is_long = self.limits.max_tokens.is_some_and(|max| self.writer.count() >= max as usize);
        Ok(is_long.then_some(End { finish: Finish::Length, stopped_by: None }))
    }

    /// Hands out what is left of the text; how many tokens a stop string cut off.
    pub fn flush(&mut self) -> usize {
        let (chunk, cut) = self.writer.finish();
        if let Some(chunk) = chunk {
            self.events.push(Event::Chunk(chunk));
        }
        cut
    }

    /// Ends it well. After [`Answer::flush`].
    pub fn resolve(self, end: End, session_length: usize) {
        let events = self.events.clone();
        events.push(Event::Done(Box::new(self.outcome(end, session_length))));
    }

    /// Ends it with an error; `partial`: with what there is, if it ever started.
    pub fn reject(mut self, error: Error, session_length: usize) {
        let events = self.events.clone();
        let is_abort = error.code == Code::Abort;
        let outcome = (is_abort && self.clock.is_started()).then(|| {
            self.flush();
            let end = End { finish: Finish::Cancelled, stopped_by: None };
            Box::new(self.outcome(end, session_length))
        });
        events.push(Event::Failed(error, outcome));
    }

    fn outcome(self, end: End, session_length: usize) -> Outcome {
        let timings = self.clock.timings();
        let (text, tokens, logprobs) = self.writer.into_parts();
        Outcome {
            text,
            tokens,
            logprobs,
            seed: self.sampler.seed(),
            finish: end.finish,
            stopped_by: end.stopped_by,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            timings,
            session_length,
        }
    }
}

/// How a call-off ends: `None` resolves as cancelled, `Some` rejects.
#[must_use]
pub fn called_off(how: Cancel) -> Option<Error> {
    match how {
        Cancel::Keep => None,
        Cancel::Reject => Some(aborted()),
    }
}

/// `ABORT_ERR`.
#[must_use]
pub fn aborted() -> Error {
    Error::new(Code::Abort, "the operation was aborted")
}

/// Errors `ERR_INVALID_ARG` if a token id is none.
pub fn check_tokens(name: &str, tokens: &[u32], n_vocab: usize) -> Result<()> {
    match tokens.iter().find(|token| **token as usize >= n_vocab) {
        None => Ok(()),
        Some(token) => {
            Err(Error::invalid_arg(name, &format!("token ids below {n_vocab}"), &token.to_string()))
        }
    }
}

fn check_stops(stops: &[String]) -> Result<()> {
    if stops.len() > STOP_MAX {
        let expected = format!("at most {STOP_MAX} strings");
        return Err(Error::invalid_arg("stop", &expected, &stops.len().to_string()));
    }
    if stops.iter().any(String::is_empty) {
        return Err(Error::invalid_arg("stop", "strings that are not empty", "an empty string"));
    }
    Ok(())
}

fn stop(by: StoppedBy) -> End {
    End { finish: Finish::Stop, stopped_by: Some(by) }
}
