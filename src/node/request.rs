//! A request as JavaScript sends it, and how it becomes the engine's: the text is rendered and
//! tokenised on the way, off JavaScript's thread.

use std::sync::Arc;

use napi::bindgen_prelude::Uint32Array;
use napi_derive::napi;

use crate::engine::command::{Generate, GenerationId, Limits, Overflow, SessionId};
use crate::engine::queue::EventQueue;
use crate::engine::sampler::Sampling;
use crate::error::Result;
use crate::node::text::NativeString;
use crate::tools::chat::{Chat, Clock};

/// What a template is rendered from.
#[napi(object)]
#[derive(Clone)]
pub struct NativeChat {
    /// JSON.
    pub messages: String,
    /// JSON.
    pub template_args: String,
    /// Year, month, day, hour, minute, second, weekday, day of the year; local.
    pub clock: Vec<i32>,
}

/// One of `text`, `tokens`, `chat` is the prompt. Numbers were checked.
#[napi(object, use_nullable = true)]
pub struct NativeRequest {
    /// A text to go on from.
    pub text: Option<String>,
    /// Or tokens.
    pub tokens: Option<Uint32Array>,
    /// Or a conversation to answer.
    pub chat: Option<NativeChat>,
    /// Control tokens in `text` count as such.
    pub special: bool,
    /// See `GenerateOptions` for these.
    pub temperature: f64,
    /// 0 = off.
    pub top_k: u32,
    /// 1 = off.
    pub top_p: f64,
    /// 0 = off.
    pub min_p: f64,
    /// 1 = off.
    pub typical_p: f64,
    /// 0 = off.
    pub top_n_sigma: f64,
    /// 0 = off.
    pub xtc_probability: f64,
    /// Above 0.5 = off.
    pub xtc_threshold: f64,
    /// 1 = off.
    pub repeat_penalty: f64,
    /// 0 = off.
    pub frequency_penalty: f64,
    /// 0 = off.
    pub presence_penalty: f64,
    /// Window of the penalties.
    pub repeat_last_tokens: u32,
    /// Tokens with a bias,
    pub bias_ids: Vec<u32>,
    /// and the biases.
    pub biases: Vec<f64>,
    /// Key of the random numbers.
    pub seed: u32,
    /// Null: no limit.
    pub max_tokens: Option<u32>,
    /// Texts that end it.
    pub stop: Vec<String>,
    /// Tokens that end it.
    pub stop_tokens: Uint32Array,
    /// Go on past the end.
    pub ignore_eos: bool,
    /// Alternatives to record; null: none recorded.
    pub logprobs: Option<u32>,
    /// Context full: shift.
    pub shift: bool,
    /// Tokens that shifting never drops.
    pub keep: u32,
    /// Unread chunks at which it pauses.
    pub queue_size: u32,
    /// Whether progress is wanted.
    pub progress: bool,
    /// Called off already, and whether with what there is as the result; null: it is not.
    pub cancelled: Option<bool>,
}

/// What the prompt is made of.
pub enum Prompt {
    /// Text; control tokens in it count as such if so said.
    Text(String, bool),
    /// Tokens.
    Tokens(Vec<u32>),
    /// A conversation.
    Chat(NativeChat),
}

impl Prompt {
    /// Bytes that must be worked through.
    pub fn bytes(&self) -> usize {
        match self {
            Prompt::Text(text, _) => text.len(),
            Prompt::Tokens(_) => 0,
            Prompt::Chat(chat) => chat.messages.len(),
        }
    }

    /// Its tokens; takes its time. `starts`: nothing stands before it, so BOS may.
    pub fn tokens(self, chat: &Chat, starts: bool) -> Result<Vec<u32>> {
        match self {
            Prompt::Text(text, special) => Ok(chat.tokenizer().encode(&text, starts, special)),
            Prompt::Tokens(tokens) => Ok(tokens),
            Prompt::Chat(from) => {
                let clock = clock(&from.clock);
                Ok(chat.render(&from.messages, &from.template_args, clock)?.tokens)
            }
        }
    }
}

impl NativeRequest {
    /// With a long text, if there is one.
    pub fn with(mut self, long: Option<&NativeString>) -> Self {
        self.text = long.map(NativeString::take).or(self.text);
        self
    }

    /// The prompt, and the rest of the request with an empty prompt.
    pub fn split(
        self,
        id: GenerationId,
        session: Option<SessionId>,
        events: Arc<EventQueue>,
    ) -> (Prompt, Generate) {
        let (sampling, limits) = (self.sampling(), self.limits());
        let prompt = match (self.chat, self.tokens, self.text) {
            (Some(chat), _, _) => Prompt::Chat(chat),
            (_, Some(tokens), _) => Prompt::Tokens(tokens.to_vec()),
            (_, _, text) => Prompt::Text(text.unwrap_or_default(), self.special),
        };
        let is_whole = session.is_some() && matches!(prompt, Prompt::Chat(_));
        let generate = Generate {
            id,
            session,
            keep_tokens: None,
            is_whole,
            prompt: Vec::new(),
            sampling,
            limits,
            logprobs: self.logprobs,
            progress: self.progress,
            events,
        };
        (prompt, generate)
    }

    fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            top_n_sigma: self.top_n_sigma,
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            repeat_penalty: self.repeat_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            repeat_last_tokens: self.repeat_last_tokens,
            logit_bias: self.bias_ids.iter().copied().zip(self.biases.iter().copied()).collect(),
            seed: self.seed,
        }
    }

    fn limits(&self) -> Limits {
        let keep = self.keep as usize;
        Limits {
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            stop_tokens: self.stop_tokens.to_vec(),
            ignore_eos: self.ignore_eos,
            overflow: if self.shift { Overflow::Shift { keep } } else { Overflow::Error },
        }
    }
}

/// A local time as a template sees it.
pub fn clock(parts: &[i32]) -> Clock {
    let part = |index: usize| parts.get(index).copied().unwrap_or(0);
    let count = |index: usize| u32::try_from(part(index)).unwrap_or(0);
    Clock {
        year: part(0),
        month: count(1),
        day: count(2),
        hour: count(3),
        minute: count(4),
        second: count(5),
        weekday: count(6),
        day_of_year: count(7),
    }
}
