//! What a file says about its tokenizer, read from the metadata and checked one by one: types
//! of arrays, equal lengths, ids in range. Knows keys; does not know what to do with the tokens.

use crate::error::{Code, Error, Result};
use crate::gguf::{Array, Meta, Strings, Value};

/// Where the keys live.
const PREFIX: &str = "tokenizer.ggml.";

/// Types of tokens as GGUF counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ordinary text.
    Normal,
    /// Stands for what cannot be said otherwise.
    Unknown,
    /// Never text: begin, end, roles.
    Control,
    /// Text that is always one token.
    User,
    /// Not used by the model's makers.
    Unused,
    /// One byte, spelt `<0x0A>`.
    Byte,
}

/// The checked raw material of a tokenizer.
#[derive(Debug)]
pub struct Source<'a> {
    /// The file's path, for messages.
    meta: &'a Meta,
    /// `tokenizer.ggml.model`
    pub model: &'a str,
    /// `tokenizer.ggml.pre`
    pub pre: Option<&'a str>,
    /// The tokens' texts, in the order of their ids; at least one.
    pub tokens: &'a Strings,
    /// As many as tokens.
    pub kinds: Vec<Kind>,
    /// Whether the file has token types at all.
    pub typed: bool,
    /// As many as tokens, finite; only the models that merge by score need them.
    pub scores: Option<&'a [f32]>,
    /// Pairs in order of rank, as texts.
    pub merges: Option<&'a Strings>,
}

impl<'a> Source<'a> {
    /// Reads and checks what all kinds of tokenizers share.
    ///
    /// # Errors
    /// `ERR_TOKENIZER_INVALID`, naming file and key.
    pub fn read(meta: &'a Meta) -> Result<Self> {
        let source = Source {
            meta,
            model: text(meta, "model")?.ok_or_else(|| missing(meta, "model"))?,
            pre: text(meta, "pre")?,
            tokens: strings(meta, "tokens")?.ok_or_else(|| missing(meta, "tokens"))?,
            kinds: Vec::new(),
            typed: meta.get(&key("token_type")).is_some(),
            scores: scores(meta)?,
            merges: strings(meta, "merges")?,
        };
        let count = source.tokens.len();
        if count == 0 || count >= u32::MAX as usize {
            return Err(source.error("tokens", format!("a vocabulary of {count} tokens")));
        }
        if let Some(scores) = source.scores.filter(|scores| scores.len() != count) {
            let what = format!("{} scores for {count} tokens", scores.len());
            return Err(source.error("scores", what));
        }
        let kinds = source.read_kinds()?;
        check_charsmap(meta)?;
        Ok(Source { kinds, ..source })
    }

    /// An error about one key of the tokenizer.
    pub fn error(&self, name: &str, what: impl std::fmt::Display) -> Error {
        invalid(self.meta, name, what)
    }

    /// An error about one token.
    pub fn token_error(&self, id: usize, what: impl std::fmt::Display) -> Error {
        let text = crate::error::shown(&String::from_utf8_lossy(self.tokens.get(id)));
        self.error("tokens", format!("token {id} ({text}) {what}"))
    }

    /// `general.name` in lower case, or nothing.
    pub fn model_name(&self) -> String {
        match self.meta.get("general.name") {
            Some(Value::String(name)) => String::from_utf8_lossy(name).to_lowercase(),
            _ => String::new(),
        }
    }

    /// A flag of the tokenizer.
    ///
    /// # Errors
    /// `ERR_TOKENIZER_INVALID` if it is no bool.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.meta.get(&key(name)) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.error(name, "must be true or false")),
        }
    }

    /// A token id under `tokenizer.ggml.{name}_token_id`.
    ///
    /// # Errors
    /// `ERR_TOKENIZER_INVALID` if it is no integer or outside the vocabulary.
    pub fn id(&self, name: &str) -> Result<Option<u32>> {
        let name = format!("{name}_token_id");
        let Some(value) = self.meta.get(&key(&name)) else { return Ok(None) };
        let id = match value {
            Value::U8(id) => Some(i128::from(*id)),
            Value::I8(id) => Some(i128::from(*id)),
            Value::U16(id) => Some(i128::from(*id)),
            Value::I16(id) => Some(i128::from(*id)),
            Value::U32(id) => Some(i128::from(*id)),
            Value::I32(id) => Some(i128::from(*id)),
            Value::U64(id) => Some(i128::from(*id)),
            Value::I64(id) => Some(i128::from(*id)),
            _ => None,
        };
        let id = id.ok_or_else(|| self.error(&name, "must be an integer"))?;
        match u32::try_from(id).ok().filter(|id| (*id as usize) < self.tokens.len()) {
            Some(id) => Ok(Some(id)),
            None => {
                let count = self.tokens.len();
                Err(self.error(&name, format!("{id} is no token: the vocabulary has {count}")))
            }
        }
    }

    fn read_kinds(&self) -> Result<Vec<Kind>> {
        let name = "token_type";
        let count = self.tokens.len();
        let kinds: Vec<i64> = match self.meta.get(&key(name)) {
            None => return Ok(vec![Kind::Normal; count]),
            Some(Value::Array(Array::I32(list))) => list.iter().map(|k| i64::from(*k)).collect(),
            Some(Value::Array(Array::U32(list))) => list.iter().map(|k| i64::from(*k)).collect(),
            Some(_) => return Err(self.error(name, "must be an array of 32-bit integers")),
        };
        if kinds.len() != count {
            return Err(self.error(name, format!("{} types for {count} tokens", kinds.len())));
        }
        let kind = |(id, kind): (usize, &i64)| {
            Ok(match kind {
                1 => Kind::Normal,
                2 => Kind::Unknown,
                3 => Kind::Control,
                4 => Kind::User,
                0 | 5 => Kind::Unused,
                6 => Kind::Byte,
                _ => return Err(self.token_error(id, format!("has the unknown type {kind}"))),
            })
        };
        kinds.iter().enumerate().map(kind).collect()
    }
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn invalid(meta: &Meta, name: &str, what: impl std::fmt::Display) -> Error {
    meta.error_of(Code::TokenizerInvalid, &key(name), what)
}

fn missing(meta: &Meta, name: &str) -> Error {
    invalid(meta, name, "is missing, so text cannot be turned into tokens")
}

fn text<'a>(meta: &'a Meta, name: &str) -> Result<Option<&'a str>> {
    match meta.get(&key(name)) {
        None => Ok(None),
        Some(Value::String(bytes)) => std::str::from_utf8(bytes)
            .map(Some)
            .map_err(|_| invalid(meta, name, "is a string that is not UTF-8")),
        Some(_) => Err(invalid(meta, name, "must be a string")),
    }
}

fn strings<'a>(meta: &'a Meta, name: &str) -> Result<Option<&'a Strings>> {
    match meta.get(&key(name)) {
        None => Ok(None),
        Some(Value::Array(Array::Strings(list))) => Ok(Some(list)),
        Some(_) => Err(invalid(meta, name, "must be an array of strings")),
    }
}

fn scores(meta: &Meta) -> Result<Option<&[f32]>> {
    match meta.get(&key("scores")) {
        None => Ok(None),
        Some(Value::Array(Array::F32(list))) => match list.iter().position(|s| !s.is_finite()) {
            None => Ok(Some(list)),
            Some(at) => {
                Err(invalid(meta, "scores", format!("the score of token {at} is not finite")))
            }
        },
        Some(_) => Err(invalid(meta, "scores", "must be an array of f32")),
    }
}

/// The character map of Unigram vocabularies: a little-endian size, then a double-array trie.
/// Not used yet, but what is broken is told as broken.
fn check_charsmap(meta: &Meta) -> Result<()> {
    let name = "precompiled_charsmap";
    let map: Vec<u8> = match meta.get(&key(name)) {
        None => return Ok(()),
        Some(Value::Array(Array::U8(list))) => list.clone(),
        Some(Value::Array(Array::I8(list))) => list.iter().map(|b| b.cast_unsigned()).collect(),
        Some(_) => return Err(invalid(meta, name, "must be an array of bytes")),
    };
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(*map.get(at..)?.first_chunk::<4>()?))
    };
    let Some(size) = word(0).map(|size| size as usize) else {
        return Err(invalid(meta, name, format!("{} bytes cannot hold its size", map.len())));
    };
    if size > map.len().saturating_sub(5) {
        let what = format!("its trie claims {size} bytes, the map has {}", map.len());
        return Err(invalid(meta, name, what));
    }
    let root = word(4).unwrap_or(0);
    if u64::from(root >> 10) << ((root & 512) >> 6) >= (size / 4) as u64 {
        return Err(invalid(meta, name, "its trie points beyond itself"));
    }
    Ok(())
}
