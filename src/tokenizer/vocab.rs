//! The vocabulary: id to bytes, kinds of tokens, special ids, what ends a generation.
//! Does not know how text becomes tokens.

use super::alphabet;
use super::pieces::{Lookup, Pieces};
use super::source::{Kind, Source};
use crate::error::Result;

/// Texts that end a generation, as published models spell them, whatever the file's keys say.
const ENDS: [&str; 20] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
];

/// Fill-in-the-middle tokens: the key that names one, its spellings, and whether it ends a
/// generation. They are never text, even where the file types them as such.
const FILLS: [(&str, &[&str], bool); 6] = [
    ("fim_pre", &["<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>"], false),
    ("fim_suf", &["<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>"], false),
    ("fim_mid", &["<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>"], false),
    ("fim_pad", &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"], true),
    ("fim_rep", &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"], true),
    ("fim_sep", &["<|file_sep|>"], true),
];

/// Keys of tokens that are special even where the file types them as text.
const NAMED: [&str; 4] = ["bos", "eos", "eot", "eom"];

/// How the text of an ordinary token spells bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// GPT-2's alphabet: a character for each byte.
    Bytes,
    /// Text as it is.
    Raw,
    /// Text with U+2581 for a blank.
    Blanks,
}

/// What is known of each token.
#[derive(Clone, Debug)]
pub struct Vocab {
    /// What each token prints; control tokens print their name.
    pub pieces: Pieces,
    /// Kind of each token.
    pub kinds: Vec<Kind>,
    /// Ends a generation; sorted.
    pub eog: Vec<u32>,
    /// Prints nothing in plain text although it is no control token by kind; sorted.
    silent: Vec<u32>,
    /// Named special by a key of the file, whatever their kind.
    pub named: Vec<u32>,
    /// Put first if the model wants it.
    pub bos: Option<u32>,
    /// The end of a text.
    pub eos: Option<u32>,
    /// Separates texts.
    pub sep: Option<u32>,
    /// Stands for what has no token.
    pub unknown: Option<u32>,
}

/// The texts of the tokens by hash, for what is checked while loading.
pub struct Texts<'a> {
    source: &'a Source<'a>,
    lookup: Lookup,
}

impl<'a> Texts<'a> {
    /// Indexes the texts.
    ///
    /// # Errors
    /// `ERR_TOKENIZER_INVALID` if two tokens have the same text. Empty ones are never looked up.
    pub fn new(source: &'a Source<'a>) -> Result<Self> {
        let mut lookup = Lookup::with_capacity(source.tokens.len());
        let stored = |id: u32| source.tokens.get(id as usize);
        for (id, text) in source.tokens.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
            if let Some(other) = lookup.insert(text, id as u32, stored) {
                return Err(source.token_error(id, format!("is the same as token {other}")));
            }
        }
        Ok(Texts { source, lookup })
    }

    /// The token of a text.
    pub fn get(&self, text: &[u8]) -> Option<u32> {
        self.lookup.get(text, |id| self.source.tokens.get(id as usize))
    }
}

impl Vocab {
    /// Builds the tables. `defaults` are the ids of BOS and EOS where the file has no such key.
    ///
    /// # Errors
    /// `ERR_TOKENIZER_INVALID`: byte tokens or special ids that make no sense.
    pub fn new(
        source: &Source<'_>,
        texts: &Texts<'_>,
        spelling: Spelling,
        defaults: [Option<u32>; 2],
    ) -> Result<Self> {
        let or_default = |name: &str, id: Option<u32>| -> Result<Option<u32>> {
            let known = source.id(name)?;
            Ok(known.or_else(|| id.filter(|id| is_special(source, *id))))
        };
        let mut vocab = Vocab {
            pieces: pieces(source, spelling)?,
            kinds: source.kinds.clone(),
            eog: Vec::new(),
            silent: Vec::new(),
            bos: or_default("bos", defaults[0])?,
            eos: or_default("eos", defaults[1])?,
            sep: source.id("seperator")?,
            named: Vec::new(),
            unknown: source.id("unknown")?,
        };
        for name in ["cls", "mask", "prefix", "suffix", "middle"] {
            source.id(name)?;
        }
        for name in NAMED {
            vocab.named.extend(source.id(name)?);
        }
        vocab.find_ends(source, texts)?;
        Ok(vocab)
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The kind of a token; beyond the last all are unused.
    pub fn kind(&self, token: u32) -> Kind {
        self.kinds.get(token as usize).copied().unwrap_or(Kind::Unused)
    }

    /// Whether a token ends a generation.
    pub fn is_eog(&self, token: u32) -> bool {
        self.eog.binary_search(&token).is_ok()
    }

    /// Whether a token is never text: by kind, or because it ends generations by its name.
    pub fn is_control(&self, token: u32) -> bool {
        matches!(self.kind(token), Kind::Control | Kind::Unknown)
            || self.silent.binary_search(&token).is_ok()
    }

    /// What ends a generation: the file's keys and the well-known names.
    fn find_ends(&mut self, source: &Source<'_>, texts: &Texts<'_>) -> Result<()> {
        let named = |text: &str| texts.get(text.as_bytes());
        let mut silent: Vec<u32> = ENDS.iter().filter_map(|text| named(text)).collect();
        // With these the model ends a call, not a turn, or the name is ordinary text.
        let has = |text: &str| named(text).is_some();
        let harmony =
            (has("<|return|>") && has("<|call|>")) || (has("<|calls|>") && has("<|flush|>"));
        if harmony {
            silent.retain(|id| Some(*id) != named("<|end|>"));
        }
        if has("<|tool_response>") {
            silent.retain(|id| Some(*id) != named("</s>"));
        }
        let mut eog = silent.clone();
        for (name, spellings, ends) in FILLS {
            let known = source.id(name)?;
            let spelt = || spellings.iter().find_map(|text| named(text));
            let id = known.or_else(spelt);
            eog.extend(id.filter(|_| ends));
            silent.extend(id.filter(|_| known.is_none()));
        }
        for name in ["eot", "eom"] {
            eog.extend(source.id(name)?);
        }
        eog.extend(self.eos);
        for list in [&mut eog, &mut silent] {
            list.sort_unstable();
            list.dedup();
        }
        (self.eog, self.silent) = (eog, silent);
        Ok(())
    }
}

/// Whether a default id can stand for BOS or EOS: it exists and is no ordinary text.
fn is_special(source: &Source<'_>, id: u32) -> bool {
    let kind = source.kinds.get(id as usize);
    kind.is_some_and(|kind| !source.typed || !matches!(kind, Kind::Normal | Kind::Byte))
}

/// What each token prints.
fn pieces(source: &Source<'_>, spelling: Spelling) -> Result<Pieces> {
    let bytes = source.tokens.bytes();
    let mut pieces = Pieces::with_capacity(source.tokens.len(), bytes);
    let mut buffer = Vec::new();
    let mut seen = [false; 256];
    for (id, (text, kind)) in source.tokens.iter().zip(&source.kinds).enumerate() {
        buffer.clear();
        match kind {
            Kind::Byte => {
                let byte = byte_of(text).ok_or_else(|| {
                    source.token_error(id, "is a byte token, which must be spelt <0x00> to <0xFF>")
                })?;
                if let Some(seen) = seen.get_mut(usize::from(byte)) {
                    if *seen {
                        return Err(source.token_error(id, "is the second token of its byte"));
                    }
                    *seen = true;
                }
                buffer.push(byte);
            }
            Kind::Normal | Kind::Unused => match spelling {
                Spelling::Bytes => {
                    if !alphabet::decode(text, &mut buffer) {
                        buffer.clear();
                        buffer.extend_from_slice(text);
                    }
                }
                Spelling::Raw => buffer.extend_from_slice(text),
                Spelling::Blanks => unescape(text, &mut buffer),
            },
            Kind::Control | Kind::Unknown | Kind::User => buffer.extend_from_slice(text),
        }
        if !pieces.push(buffer.iter().copied()) {
            return Err(source.error("tokens", "more than 4 GiB of texts"));
        }
    }
    Ok(pieces)
}

/// `<0x0A>` as a byte.
fn byte_of(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits = std::str::from_utf8(digits).ok()?;
    let hex = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if hex { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// Appends a text with a blank for each U+2581.
pub fn unescape(mut text: &[u8], out: &mut Vec<u8>) {
    const BLANK: &[u8] = "\u{2581}".as_bytes();
    while let Some((first, rest)) = text.split_first() {
        match text.strip_prefix(BLANK) {
            Some(rest) => {
                out.push(b' ');
                text = rest;
            }
            None => {
                out.push(*first);
                text = rest;
            }
        }
    }
}
