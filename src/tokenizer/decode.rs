//! Turning tokens back into text as they come: whole characters only.

use std::sync::Arc;

use super::Tokenizer;

/// Collects the bytes of tokens and gives out the text that is certain. Control tokens print
/// nothing. What all calls return, glued together, is the lossy text of all bytes.
#[derive(Debug)]
pub struct Decoder {
    tokenizer: Arc<Tokenizer>,
    /// The start of a character that is not whole yet, at most three bytes.
    rest: Vec<u8>,
}

impl Decoder {
    /// A decoder at the start of a text.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Decoder { tokenizer, rest: Vec::new() }
    }

    /// Takes a token and returns the characters that are whole now; often none.
    pub fn push(&mut self, token: u32) -> String {
        let piece = self.tokenizer.piece(token, false);
        if self.rest.is_empty()
            && let Ok(text) = std::str::from_utf8(piece)
        {
            return text.to_owned();
        }
        self.rest.extend_from_slice(piece);
        let mut text = String::with_capacity(self.rest.len());
        let mut kept = 0;
        let mut chunks = self.rest.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let bad = chunk.invalid();
            if chunks.peek().is_none() && is_start(bad) {
                kept = bad.len();
            } else if !bad.is_empty() {
                text.push('\u{FFFD}');
            }
        }
        self.rest.drain(..self.rest.len().saturating_sub(kept));
        text
    }

    /// Ends the text: what is left of a character becomes U+FFFD.
    #[must_use]
    pub fn finish(self) -> String {
        if self.rest.is_empty() { String::new() } else { "\u{FFFD}".to_owned() }
    }
}

/// Whether bytes that are not valid yet may become a character.
fn is_start(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
