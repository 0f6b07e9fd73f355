//! The text of an answer as it grows: detokenised, searched for stop strings across token borders,
//! cut into chunks. Text that may begin a stop string is held back; chunks join to the whole text.

use std::collections::VecDeque;

use crate::engine::command::{Chunk, TokenLogprob};
use crate::engine::vocabulary::Decode;

/// Tokens without text that may wait for text before they make a chunk of their own.
const TEXTLESS_MAX: usize = 16;

/// Writes one answer.
pub struct Writer {
    decoder: Box<dyn Decode>,
    stops: Vec<Matcher>,
    /// All text that is part of the answer for sure and was handed out.
    text: String,
    tokens: Vec<u32>,
    logprobs: Vec<TokenLogprob>,
    /// Text that was not handed out; begins at byte `text.len()` of the answer.
    held: String,
    waiting: VecDeque<Waiting>,
    /// The stop string that ended it.
    stopped_by: Option<String>,
}

/// A token that was not handed out.
struct Waiting {
    token: u32,
    logprob: Option<TokenLogprob>,
    /// Byte of the answer at which its text begins.
    start: usize,
}

impl Writer {
    /// An empty answer.
    #[must_use]
    pub fn new(decoder: Box<dyn Decode>, stops: &[String]) -> Self {
        Writer {
            decoder,
            stops: stops.iter().map(|stop| Matcher::new(stop)).collect(),
            text: String::new(),
            tokens: Vec::new(),
            logprobs: Vec::new(),
            held: String::new(),
            waiting: VecDeque::new(),
            stopped_by: None,
        }
    }

    /// Adds a token. `true`: a stop string is complete; the answer is cut before it.
    pub fn push(&mut self, token: u32, logprob: Option<TokenLogprob>) -> bool {
        let start = self.text.len() + self.held.len();
        self.waiting.push_back(Waiting { token, logprob, start });
        let piece = self.decoder.push(token);
        self.append(&piece)
    }

    /// Tokens so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tokens.len() + self.waiting.len()
    }

    /// What can be handed out now.
    pub fn chunk(&mut self) -> Option<Chunk> {
        let back = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        let length = self.held.len() - back.min(self.held.len());
        let is_textless = self.held.is_empty() && self.waiting.len() > TEXTLESS_MAX;
        if length == 0 && !is_textless {
            return None;
        }
        let end = self.text.len() + length;
        Some(self.hand_out(length, |start| start < end || is_textless))
    }

    /// Ends the answer: what was left to hand out, and how many tokens were cut off with a stop
    /// string. A token that the cut goes through stays.
    pub fn finish(&mut self) -> (Option<Chunk>, usize) {
        if self.stopped_by.is_none() {
            let rest = self.decoder.finish();
            self.append(&rest);
        }
        let before = self.waiting.len();
        if self.stopped_by.is_some() {
            let end = self.text.len() + self.held.len();
            self.waiting.retain(|waiting| waiting.start < end);
        }
        let cut = before - self.waiting.len();
        if self.held.is_empty() && self.waiting.is_empty() {
            return (None, cut);
        }
        (Some(self.hand_out(self.held.len(), |_| true)), cut)
    }

    /// The stop string that ended it.
    #[must_use]
    pub fn stopped_by(&self) -> Option<&str> {
        self.stopped_by.as_deref()
    }

    /// All that was handed out: text, tokens, log-probabilities.
    #[must_use]
    pub fn into_parts(self) -> (String, Vec<u32>, Vec<TokenLogprob>) {
        (self.text, self.tokens, self.logprobs)
    }

    /// Adds text; `true` if it completes a stop string, before which the text then ends.
    fn append(&mut self, piece: &str) -> bool {
        let begin = self.held.len();
        self.held.push_str(piece);
        for (index, byte) in piece.bytes().enumerate() {
            let complete = self.stops.iter_mut().filter_map(|stop| stop.feed(byte));
            if let Some(length) = complete.max() {
                let end = begin + index + 1;
                let start = end.saturating_sub(length);
                self.stopped_by = self.held.get(start..end).map(str::to_owned);
                self.held.truncate(start);
                return true;
            }
        }
        false
    }

    /// Hands out `length` bytes of text and the waiting tokens that `is_due` by their start.
    fn hand_out(&mut self, length: usize, is_due: impl Fn(usize) -> bool) -> Chunk {
        let mut chunk = Chunk { text: self.held.drain(..length).collect(), ..Chunk::default() };
        let due = self.waiting.iter().take_while(|waiting| is_due(waiting.start)).count();
        for waiting in self.waiting.drain(..due) {
            chunk.tokens.push(waiting.token);
            chunk.logprobs.extend(waiting.logprob);
        }
        self.text.push_str(&chunk.text);
        self.tokens.extend_from_slice(&chunk.tokens);
        self.logprobs.extend_from_slice(&chunk.logprobs);
        chunk
    }
}

/// Knuth, Morris, Pratt: finds a string in a stream of bytes in constant time a byte on average.
struct Matcher {
    pattern: Vec<u8>,
    /// `fallback[n]`: length of the longest proper prefix that ends the first `n + 1` bytes, too.
    fallback: Vec<usize>,
    /// Bytes at the end of the stream that begin the pattern.
    matched: usize,
}

impl Matcher {
    fn new(pattern: &str) -> Self {
        let pattern = pattern.as_bytes().to_vec();
        let mut fallback = vec![0; pattern.len()];
        let mut length = 0;
        for index in 1..pattern.len() {
            while length > 0 && pattern[index] != pattern[length] {
                length = fallback[length - 1];
            }
            if pattern[index] == pattern[length] {
                length += 1;
            }
            fallback[index] = length;
        }
        Matcher { pattern, fallback, matched: 0 }
    }

    /// The pattern's length if this byte completes it.
    fn feed(&mut self, byte: u8) -> Option<usize> {
        while self.matched > 0 && self.pattern[self.matched] != byte {
            self.matched = self.fallback[self.matched - 1];
        }
        if self.pattern.get(self.matched) == Some(&byte) {
            self.matched += 1;
        }
        if self.matched < self.pattern.len() || self.pattern.is_empty() {
            return None;
        }
        self.matched = self.fallback[self.matched - 1];
        Some(self.pattern.len())
    }
}

#[cfg(test)]
#[path = "text/tests.rs"]
mod tests;
