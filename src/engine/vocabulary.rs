//! What the engine needs of a tokenizer and of a store, as traits, so that tests can script both.

use std::sync::Arc;

use crate::error::Result;
use crate::plan::GroupId;
use crate::store::Lease;

/// How tokens become text.
pub trait Vocabulary: Send + Sync {
    /// Number of tokens.
    fn n_vocab(&self) -> usize;

    /// Tokens that end a generation.
    fn eog(&self) -> &[u32];

    /// A token's bytes, control tokens printed.
    fn bytes(&self, token: u32) -> Vec<u8>;

    /// A detokeniser for one answer.
    fn decoder(self: Arc<Self>) -> Box<dyn Decode>;
}

/// Turns tokens into text that never splits a UTF-8 character.
pub trait Decode: Send {
    /// The whole characters that this token completes.
    fn push(&mut self, token: u32) -> String;

    /// What is left at the end, with U+FFFD for bytes that are no character.
    fn finish(&mut self) -> String;
}

/// Where weights are.
pub trait Weights: Send + Sync {
    /// Waits for a group and holds it. Errors: `ERR_IO`, `ERR_FILE_CHANGED`.
    fn acquire(&self, group: GroupId) -> Result<Lease<'_>>;
}
