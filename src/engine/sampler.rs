//! How the next token is chosen from logits: biases and penalties on all of them, then the filters
//! of `candidates.rs` in llama.cpp's order, then one draw. A pure function of logits, history, seed
//! and index in the answer; it knows no session and no text.

use crate::engine::candidates::{Candidate, Candidates};
use crate::engine::philox::uniform_pair;
use crate::error::{Code, Error, Result};

/// How tokens are drawn. The default is llama.cpp's; fields may be added, so write
/// `..Sampling::default()`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 = greedy, lowest id wins a tie.
    pub temperature: f64,
    /// Most likely tokens to keep; 0 = off.
    pub top_k: u32,
    /// Keep the fewest tokens whose probabilities reach this; 1 = off.
    pub top_p: f64,
    /// Keep tokens at least this likely, relative to the likeliest; 0 = off.
    pub min_p: f64,
    /// Keep the most typical tokens up to this probability; 1 = off.
    pub typical_p: f64,
    /// Keep logits within so many standard deviations of the largest; 0 = off.
    pub top_n_sigma: f64,
    /// Chance of dropping all tokens above the threshold but the least likely of them; 0 = off.
    pub xtc_probability: f64,
    /// See `xtc_probability`; above 0.5 = off.
    pub xtc_threshold: f64,
    /// Divides positive and multiplies negative logits of tokens in the window; 1 = off.
    pub repeat_penalty: f64,
    /// Subtracted once for each occurrence in the window; 0 = off.
    pub frequency_penalty: f64,
    /// Subtracted if it occurs in the window; 0 = off.
    pub presence_penalty: f64,
    /// Window of the three penalties: last tokens of prompt and answer.
    pub repeat_last_tokens: u32,
    /// Added to logits: (token, bias). Minus infinity forbids.
    pub logit_bias: Vec<(u32, f64)>,
    /// Key of the random numbers.
    pub seed: u32,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            top_n_sigma: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repeat_last_tokens: 64,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

/// Draws the tokens of one answer.
pub struct Sampler {
    sampling: Sampling,
    /// Scratch: logits with biases and penalties, `[n_vocab]`.
    logits: Vec<f32>,
    /// Scratch: the window of the penalties, sorted.
    window: Vec<u32>,
    candidates: Candidates,
}

impl Sampler {
    /// Checks the numbers that a filter relies on. Errors: `ERR_INVALID_ARG`.
    pub fn new(sampling: Sampling, n_vocab: usize) -> Result<Self> {
        let s = &sampling;
        check("temperature", "a number >= 0", s.temperature, s.temperature >= 0.0)?;
        check("repeatPenalty", "a number > 0", s.repeat_penalty, s.repeat_penalty > 0.0)?;
        let others = [
            ("topP", s.top_p),
            ("minP", s.min_p),
            ("typicalP", s.typical_p),
            ("topNSigma", s.top_n_sigma),
            ("xtc.probability", s.xtc_probability),
            ("xtc.threshold", s.xtc_threshold),
            ("frequencyPenalty", s.frequency_penalty),
            ("presencePenalty", s.presence_penalty),
        ];
        for (name, number) in others {
            check(name, "a finite number", number, true)?;
        }
        for &(token, bias) in &s.logit_bias {
            if token as usize >= n_vocab {
                let expected = format!("token ids below {n_vocab}");
                return Err(Error::invalid_arg("logitBias", &expected, &token.to_string()));
            }
            if bias.is_nan() {
                return Err(Error::invalid_arg("logitBias", "numbers", "NaN"));
            }
        }
        let (logits, window) = (Vec::new(), Vec::new());
        Ok(Sampler { sampling, logits, window, candidates: Candidates::default() })
    }

    /// The seed in force.
    #[must_use]
    pub fn seed(&self) -> u32 {
        self.sampling.seed
    }

    /// The token at `index` of the answer. `history`: every token before it, prompt included.
    /// Errors: `ERR_NUMERIC` if a logit is not a number, `ERR_INVALID_ARG` if all are forbidden.
    pub fn draw(&mut self, logits: &[f32], history: &[u32], index: u64) -> Result<u32> {
        check_finite(logits, history.len().saturating_sub(1))?;
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        self.add_biases();
        self.add_penalties(history);
        if self.sampling.temperature == 0.0 {
            return greedy(&self.logits).ok_or_else(forbidden);
        }
        let open = self.logits.iter().zip(0u32..);
        let open = open.filter(|(logit, _)| **logit != f32::NEG_INFINITY);
        self.candidates.fill(open.map(|(&logit, id)| Candidate { id, logit }));
        let s = &self.sampling;
        let [draw, chance] = uniform_pair(s.seed, index);
        self.candidates.top_n_sigma(s.top_n_sigma);
        self.candidates.top_k(s.top_k as usize);
        self.candidates.typical_p(s.typical_p);
        self.candidates.top_p(s.top_p);
        self.candidates.min_p(s.min_p);
        if chance < s.xtc_probability {
            self.candidates.xtc(s.xtc_threshold);
        }
        self.candidates.pick(s.temperature, draw).ok_or_else(forbidden)
    }

    fn add_biases(&mut self) {
        for &(token, bias) in &self.sampling.logit_bias {
            if let Some(logit) = self.logits.get_mut(token as usize) {
                *logit = bounded(f64::from(*logit) + bias);
            }
        }
    }

    /// llama.cpp's penalties: each token of the window once, with its count.
    fn add_penalties(&mut self, history: &[u32]) {
        let s = &self.sampling;
        let is_off =
            s.repeat_penalty == 1.0 && s.frequency_penalty == 0.0 && s.presence_penalty == 0.0;
        let start = history.len().saturating_sub(s.repeat_last_tokens as usize);
        if is_off || start == history.len() {
            return;
        }
        self.window.clear();
        self.window.extend_from_slice(history.get(start..).unwrap_or(&[]));
        self.window.sort_unstable();
        for run in self.window.chunk_by(|a, b| a == b) {
            let Some(logit) = run.first().and_then(|&id| self.logits.get_mut(id as usize)) else {
                continue;
            };
            if *logit == f32::NEG_INFINITY {
                continue;
            }
            let value = f64::from(*logit);
            let factor = if value <= 0.0 { s.repeat_penalty } else { 1.0 / s.repeat_penalty };
            #[allow(clippy::cast_precision_loss, reason = "a window is far below 2^53")]
            let counted = run.len() as f64 * s.frequency_penalty + s.presence_penalty;
            *logit = bounded(value * factor - counted);
        }
    }
}

/// Errors `ERR_NUMERIC` if a logit of the token at `position` is NaN or plus infinity.
pub fn check_finite(logits: &[f32], position: usize) -> Result<()> {
    match logits.iter().find(|logit| logit.is_nan() || **logit == f32::INFINITY) {
        None => Ok(()),
        Some(logit) => {
            let what = if logit.is_nan() { "NaN" } else { "infinite" };
            let text = format!(
                "logits of token {position} are {what}: the model needs more range than this \
                 device computes with"
            );
            Err(Error::new(Code::Numeric, text).with("token", position))
        }
    }
}

/// The largest logit's id, lowest id on a tie; none if all are minus infinity.
fn greedy(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(u32, f32)> = None;
    for (&logit, id) in logits.iter().zip(0u32..) {
        let wins = match best {
            None => logit != f32::NEG_INFINITY,
            Some((_, top)) => logit > top,
        };
        if wins {
            best = Some((id, logit));
        }
    }
    best.map(|(id, _)| id)
}

/// Back to f32 without making an infinity of a large number; minus infinity stays forbidden.
#[allow(clippy::cast_possible_truncation, reason = "clamped to the range of f32")]
fn bounded(value: f64) -> f32 {
    if value == f64::NEG_INFINITY {
        return f32::NEG_INFINITY;
    }
    value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}

fn check(name: &str, expected: &str, number: f64, holds: bool) -> Result<()> {
    if holds && number.is_finite() {
        return Ok(());
    }
    Err(Error::invalid_arg(name, expected, &number.to_string()))
}

fn forbidden() -> Error {
    Error::invalid_arg(
        "logitBias",
        "at least one token that is not forbidden",
        "all of them forbidden",
    )
}

#[cfg(test)]
#[path = "sampler/tests.rs"]
mod tests;
