//! Text to tokens and back, from a file's metadata; knows no model and no backend. Every text
//! takes time n log n at most, whatever the vocabulary and the pattern.
//! The way of a text: special tokens are cut out (`special`), the rest is normalised
//! (`normalize`), cut into words (`pretokenize`, `split`, `lexicon`), and merged (`bpe`, `spm`).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::cast_possible_truncation, reason = "ids and ranks are checked to fit 32 bits")]

mod alphabet;
mod bpe;
mod decode;
mod lexicon;
mod mark;
mod merge;
mod normalize;
mod patterns;
mod pieces;
mod pretokenize;
mod source;
mod special;
mod split;
mod spm;
mod vocab;
mod words;

#[cfg(test)]
mod tests;

pub use decode::Decoder;
pub use pretokenize::{Pre, names as pre_names};

use bpe::Bpe;
use lexicon::Lexicon;
use merge::Merger;
use source::Source;
use special::{Part, Specials};
use spm::Spm;
use vocab::{Spelling, Texts, Vocab};
use words::Words;

use crate::error::{Code, Error, Result, shown};
use crate::gguf::Meta;

/// Kinds of tokenizers that work, by `tokenizer.ggml.model`.
pub const MODELS: [&str; 3] = ["llama", "gpt2", "gemma4"];

/// Kinds that exist and are not built yet.
const PLANNED: [&str; 7] = ["bert", "t5", "rwkv", "plamo2", "hybriddna", "whitespace", "none"];

/// Longer words are merged in parts: positions are 32-bit.
const WORD_MAX: usize = 1 << 30;

#[derive(Clone, Debug)]
enum Model {
    Spm(Box<Spm>),
    Bpe(Box<Bpe>, Pre),
}

/// A tokenizer: immutable, shared by all that use a file.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    kind: &'static str,
    pre: Option<String>,
    vocab: Vocab,
    specials: Specials,
    model: Model,
    /// A blank goes in front of the text and of what follows a special token.
    space_prefix: bool,
    add_bos: bool,
    add_eos: bool,
    add_sep: bool,
}

impl Tokenizer {
    /// Builds the tokenizer that a file describes.
    ///
    /// # Errors
    /// `ERR_TOKENIZER_INVALID`, naming file, key and token or merge; `ERR_UNSUPPORTED` for a kind
    /// that exists but is not built yet.
    pub fn from_meta(meta: &Meta) -> Result<Self> {
        let source = Source::read(meta)?;
        let Some(kind) = MODELS.into_iter().find(|kind| *kind == source.model) else {
            return Err(unknown_model(&source));
        };
        let texts = Texts::new(&source)?;
        let tokenizer = match kind {
            "llama" => Self::spm(&source, &texts)?,
            _ => Self::bpe(&source, &texts, kind)?,
        };
        if tokenizer.vocab.len() != tokenizer.vocab.pieces.len() {
            return Err(Error::internal("tokenizer", "pieces and tokens differ in number"));
        }
        Ok(tokenizer)
    }

    fn spm(source: &Source<'_>, texts: &Texts<'_>) -> Result<Self> {
        let mut vocab = Vocab::new(source, texts, Spelling::Blanks, [Some(1), Some(2)])?;
        vocab.unknown = vocab.unknown.or(Some(0));
        Ok(Tokenizer {
            kind: "llama",
            pre: source.pre.map(str::to_owned),
            specials: Specials::new(source, &vocab)?,
            model: Model::Spm(Box::new(Spm::new(source, &vocab)?)),
            space_prefix: source.flag("add_space_prefix")?.unwrap_or(true),
            add_bos: source.flag("add_bos_token")?.unwrap_or(true),
            add_eos: source.flag("add_eos_token")?.unwrap_or(false),
            add_sep: source.flag("add_sep_token")?.unwrap_or(false),
            vocab,
        })
    }

    fn bpe(source: &Source<'_>, texts: &Texts<'_>, kind: &'static str) -> Result<Self> {
        let name = if kind == "gemma4" { "gemma4" } else { source.pre.unwrap_or_default() };
        let pre = Pre::named(name)?.ok_or_else(|| {
            let known = "node-chord does not know how its text is split";
            source.error("pre", format!("unknown pre-tokenizer '{}': {known}", shown(name)))
        })?;
        let vocab = Vocab::new(source, texts, pre.spelling(), pre.default_ids())?;
        let bpe = Bpe::new(source, texts, &vocab, pre.spelling(), pre.ignore_merges())?;
        Ok(Tokenizer {
            kind,
            pre: source.pre.map(str::to_owned),
            specials: Specials::new(source, &vocab)?,
            space_prefix: false,
            add_bos: source.flag("add_bos_token")?.unwrap_or(pre.add_bos()),
            add_eos: source.flag("add_eos_token")?.unwrap_or(false),
            add_sep: source.flag("add_sep_token")?.unwrap_or(pre.add_sep()),
            model: Model::Bpe(Box::new(bpe), pre),
            vocab,
        })
    }

    /// The tokens of a text. `add_special` adds BOS and EOS as the file asks; with
    /// `parse_special` text that spells a control token becomes that token. User-defined tokens
    /// are found in both modes, but without `parse_special` nothing that ends a generation is.
    #[must_use]
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<u32> {
        let mut out = Vec::with_capacity((text.len() / 4).wrapping_add(2));
        if add_special && self.add_bos {
            out.extend(self.vocab.bos);
        }
        let mut merger = Merger::default();
        let mut after_special = true;
        self.specials.split(text, parse_special, |part| match part {
            Part::Token(token) => {
                out.push(token);
                after_special = true;
            }
            Part::Text(text) => {
                self.encode_text(text, after_special, &mut merger, &mut out);
                after_special = false;
            }
        });
        if add_special && self.add_eos {
            out.extend(self.vocab.eos);
        } else if add_special && self.add_sep {
            out.extend(self.vocab.sep);
        }
        out
    }

    /// Text without special tokens.
    fn encode_text(&self, text: &str, first: bool, merger: &mut Merger, out: &mut Vec<u32>) {
        match &self.model {
            Model::Spm(spm) => {
                let text = normalize::blanks(text, self.space_prefix && first);
                let mut words = Words::new(text.len());
                spm.lexicon().cut(&text, |word| {
                    words.encode(word, out, |word, out| {
                        in_parts(word, |part| spm.encode(&self.vocab, part, merger, out));
                    });
                });
            }
            Model::Bpe(bpe, pre) => {
                let text = pre.normalize(text);
                let mut words = Words::new(text.len());
                let mut encode = |word| {
                    words.encode(word, out, |word, out| {
                        in_parts(word, |part| bpe.encode(&self.vocab, part, merger, out));
                    });
                };
                pre.split(
                    &text,
                    &mut |piece| match bpe.lexicon().filter(|_| !pre.ignore_merges()) {
                        Some(lexicon) => Lexicon::cut(lexicon, piece, &mut encode),
                        None => encode(piece),
                    },
                );
            }
        }
    }

    /// The bytes of tokens, glued together; `special` prints control tokens too.
    #[must_use]
    pub fn decode(&self, tokens: &[u32], special: bool) -> Vec<u8> {
        tokens.iter().flat_map(|token| self.piece(*token, special)).copied().collect()
    }

    /// The bytes of one token: often not whole characters. Nothing for a control token without
    /// `special`, and for an id beyond the vocabulary.
    #[must_use]
    pub fn piece(&self, token: u32, special: bool) -> &[u8] {
        if !special && self.vocab.is_control(token) { &[] } else { self.vocab.pieces.get(token) }
    }

    /// `tokenizer.ggml.model`: "llama", "gpt2" or "gemma4".
    #[must_use]
    pub fn kind(&self) -> &str {
        self.kind
    }

    /// `tokenizer.ggml.pre`, as the file has it.
    #[must_use]
    pub fn pre(&self) -> Option<&str> {
        self.pre.as_deref()
    }

    /// Number of tokens.
    #[must_use]
    pub fn n_vocab(&self) -> usize {
        self.vocab.len()
    }

    /// Begin of sequence.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.vocab.bos
    }

    /// End of sequence.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        self.vocab.eos
    }

    /// The tokens that end a generation, sorted.
    #[must_use]
    pub fn eog(&self) -> &[u32] {
        &self.vocab.eog
    }

    /// Whether `encode` with `add_special` puts BOS first.
    #[must_use]
    pub fn add_bos(&self) -> bool {
        self.add_bos && self.vocab.bos.is_some()
    }

    /// Whether a token is never text.
    #[must_use]
    pub fn is_control(&self, token: u32) -> bool {
        self.vocab.is_control(token)
    }
}

/// Words too long for 32-bit positions in parts.
fn in_parts(mut word: &str, mut encode: impl FnMut(&str)) {
    while word.len() > WORD_MAX {
        let border = (0..=WORD_MAX).rev().find(|at| word.is_char_boundary(*at)).unwrap_or(0);
        let (part, rest) = word.split_at(border);
        encode(part);
        word = rest;
    }
    encode(word);
}

fn unknown_model(source: &Source<'_>) -> Error {
    let (model, known) = (shown(source.model), MODELS.join(", "));
    if PLANNED.contains(&source.model) {
        let feature = format!("tokenizer.ggml.model '{model}'");
        let text = format!("this tokenizer is not supported yet: {feature} (supported: {known})");
        return Error::new(Code::Unsupported, text).with("feature", feature);
    }
    source.error("model", format!("unknown tokenizer '{model}' (supported: {known})"))
}
