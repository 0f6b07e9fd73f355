//! What the engine needs of a tokenizer and of a store, as traits, so that tests can script both.

use std::sync::Arc;

use crate::error::Result;
use crate::plan::GroupId;
use crate::store::{Lease, Store};
use crate::tokenizer::{Decoder, Tokenizer};

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

    /// The same; none if `gives_up`, which is asked now and then while it waits, says so.
    fn acquire_unless(
        &self,
        group: GroupId,
        gives_up: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Lease<'_>>> {
        let _ = gives_up;
        self.acquire(group).map(Some)
    }

    /// Milliseconds waited for weights and bytes of them read, all in all.
    fn cost(&self) -> (f64, u64) {
        (0.0, 0)
    }
}

impl Vocabulary for Tokenizer {
    fn n_vocab(&self) -> usize {
        Tokenizer::n_vocab(self)
    }

    fn eog(&self) -> &[u32] {
        Tokenizer::eog(self)
    }

    fn bytes(&self, token: u32) -> Vec<u8> {
        self.piece(token, true).to_vec()
    }

    fn decoder(self: Arc<Self>) -> Box<dyn Decode> {
        Box::new(Detokenizer(Some(Decoder::new(self))))
    }
}

/// The tokenizer's decoder until it is finished.
struct Detokenizer(Option<Decoder>);

impl Decode for Detokenizer {
    fn push(&mut self, token: u32) -> String {
        self.0.as_mut().map_or_else(String::new, |decoder| decoder.push(token))
    }

    fn finish(&mut self) -> String {
        self.0.take().map_or_else(String::new, Decoder::finish)
    }
}

impl Weights for Store {
    fn acquire(&self, group: GroupId) -> Result<Lease<'_>> {
        Store::acquire(self, group)
    }

    fn acquire_unless(
        &self,
        group: GroupId,
        gives_up: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Lease<'_>>> {
        Store::acquire_unless(self, group, gives_up)
    }

    fn cost(&self) -> (f64, u64) {
        Store::cost(self)
    }
}
