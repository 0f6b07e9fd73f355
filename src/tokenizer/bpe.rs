//! Byte-pair encoding: a table of merges between tokens, over bytes or over characters.

use super::alphabet;
use super::lexicon::Lexicon;
use super::merge::{Merger, NONE, Pairs};
use super::pieces::{Hash, Lookup};
use super::source::{Kind, Source};
use super::vocab::{Spelling, Texts, Vocab};
use crate::error::Result;

/// Merges by pair: open addressing, 16 bytes a place.
#[derive(Clone, Debug)]
struct Merges {
    hash: Hash,
    mask: usize,
    places: Vec<Merge>,
}

#[derive(Clone, Copy, Debug)]
struct Merge {
    left: u32,
    right: u32,
    rank: u32,
    token: u32,
}

const FREE: Merge = Merge { left: NONE, right: NONE, rank: NONE, token: NONE };

impl Merges {
    fn with_capacity(count: usize) -> Self {
        let places = count.saturating_mul(4).div_ceil(3).max(4).next_power_of_two();
        let mask = places.saturating_sub(1);
        Merges { hash: Hash::new(), mask, places: vec![FREE; places] }
    }

    /// A pair given twice has its last rank, as with Hugging Face.
    fn insert(&mut self, merge: Merge) {
        let mut at = self.hash.pair(merge.left, merge.right) as usize & self.mask;
        while let Some(place) = self.places.get_mut(at) {
            if place.left == NONE || (place.left, place.right) == (merge.left, merge.right) {
                *place = merge;
                return;
            }
            at = at.wrapping_add(1) & self.mask;
        }
    }
}

impl Pairs for Merges {
    fn pair(&self, left: u32, right: u32, _start: usize, _end: usize) -> (u32, u32) {
        let mut at = self.hash.pair(left, right) as usize & self.mask;
        while let Some(place) = self.places.get(at) {
            if place.left == left && place.right == right {
                return (place.rank, place.token);
            }
            if place.left == NONE {
                break;
            }
            at = at.wrapping_add(1) & self.mask;
        }
        (NONE, NONE)
    }
}

/// How words become symbols.
#[derive(Clone, Debug)]
enum Symbols {
    /// The token of each byte, and whole words for `ignore_merges`.
    Bytes { tokens: Box<[u32; 256]>, words: Option<Lookup> },
    /// Characters, and bytes where there is no token for one.
    Chars { lexicon: Box<Lexicon>, words: bool },
}

/// A byte-pair encoder.
#[derive(Clone, Debug)]
pub struct Bpe {
    merges: Merges,
    symbols: Symbols,
    unknown: Option<u32>,
}

impl Bpe {
    /// Reads the merges and the symbols.
    ///
    /// # Errors
    /// `ERR_TOKENIZER_INVALID`, naming the merge.
    pub fn new(
        source: &Source<'_>,
        texts: &Texts<'_>,
        vocab: &Vocab,
        spelling: Spelling,
        ignore_merges: bool,
    ) -> Result<Self> {
        let merges = read_merges(source, texts, spelling)?;
        let symbols = match spelling {
            Spelling::Bytes => Symbols::Bytes {
                tokens: Box::new(byte_tokens(texts, vocab)),
                words: ignore_merges.then(|| word_index(source, vocab)),
            },
            Spelling::Raw | Spelling::Blanks => Symbols::Chars {
                lexicon: Box::new(Lexicon::new(source, vocab, spelling)),
                words: ignore_merges,
            },
        };
        Ok(Bpe { merges, symbols, unknown: vocab.unknown })
    }

    /// The characters between which and a blank no merge reaches, if blanks can be cut at.
    pub fn lexicon(&self) -> Option<&Lexicon> {
        match &self.symbols {
            Symbols::Bytes { .. } => None,
            Symbols::Chars { lexicon, .. } => Some(lexicon),
        }
    }

    /// Appends the tokens of one word.
    pub fn encode(&self, vocab: &Vocab, word: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        match &self.symbols {
            Symbols::Bytes { tokens, words } => {
                let whole = words.as_ref();
                if let Some(token) = whole.and_then(|index| find_word(index, vocab, word)) {
                    out.push(token);
                    return;
                }
                merger.clear();
                for (at, byte) in word.bytes().enumerate() {
                    merger.push(tokens.get(usize::from(byte)).copied().unwrap_or(NONE), at);
                }
                merger.merge(&self.merges, word.len(), |token, _, _| {
                    out.extend(if token == NONE { self.unknown } else { Some(token) });
                });
            }
            Symbols::Chars { lexicon, words } => {
                if let Some(token) = words.then(|| lexicon.find(vocab, word.as_bytes())).flatten() {
                    out.push(token);
                    return;
                }
                lexicon.symbols(vocab, word, merger);
                merger.merge(&self.merges, word.len(), |token, start, end| {
                    lexicon.finish(word, token, start, end, out);
                });
            }
        }
    }
}

fn find_word(index: &Lookup, vocab: &Vocab, word: &str) -> Option<u32> {
    index.get(word.as_bytes(), |id| vocab.pieces.get(id))
}

/// The token of each byte, by its character of GPT-2's alphabet.
fn byte_tokens(texts: &Texts<'_>, vocab: &Vocab) -> [u32; 256] {
    let mut tokens = [NONE; 256];
    for (byte, token) in (0_u8..=255).zip(&mut tokens) {
        let text = alphabet::char_of(byte);
        let known = texts.get(text.encode_utf8(&mut [0; 4]).as_bytes());
        *token = known.filter(|id| vocab.kind(*id) != Kind::Control).unwrap_or(NONE);
    }
    tokens
}

/// Whole words that are tokens, without those that only look like one.
fn word_index(source: &Source<'_>, vocab: &Vocab) -> Lookup {
    let mut index = Lookup::with_capacity(vocab.len());
    let mut buffer = Vec::new();
    for (id, text) in source.tokens.iter().enumerate() {
        let id = id as u32;
        buffer.clear();
        let text_like = matches!(vocab.kind(id), Kind::Normal | Kind::Unused);
        if text_like && alphabet::decode(text, &mut buffer) && !buffer.is_empty() {
            index.insert(&buffer, id, |id| vocab.pieces.get(id));
        }
    }
    index
}

/// `tokenizer.ggml.merges`: two tokens and a blank between them, and together a token.
fn read_merges(source: &Source<'_>, texts: &Texts<'_>, spelling: Spelling) -> Result<Merges> {
    let list = source
        .merges
        .ok_or_else(|| source.error("merges", "is missing, which this kind of tokenizer needs"))?;
    let mut merges = Merges::with_capacity(list.len());
    let mut joined = Vec::new();
    for (rank, text) in list.iter().enumerate() {
        let error = |what: &str| {
            let text = crate::error::shown(&String::from_utf8_lossy(text));
            source.error("merges", format!("merge {rank} ({text}) {what}"))
        };
        if std::str::from_utf8(text).is_err() {
            return Err(error("is not UTF-8"));
        }
        // Only raw texts have blanks of their own, and then few.
        let blanks_max = if spelling == Spelling::Raw { 8 } else { 1 };
        let mut why = "is not two tokens with a blank between them";
        let mut found = None;
        for at in blanks(text).take(blanks_max) {
            let (left, right) = (text.get(..at), text.get(at.wrapping_add(1)..));
            let (Some(left), Some(right)) = (left, right) else { continue };
            joined.clear();
            joined.extend_from_slice(left);
            joined.extend_from_slice(right);
            let Some((left, right)) = texts.get(left).zip(texts.get(right)) else {
                why = "names an unknown token";
                continue;
            };
            let Some(token) = texts.get(&joined) else {
                why = "makes an unknown token";
                continue;
            };
            found = Some(Merge { left, right, rank: rank as u32, token });
            break;
        }
        merges.insert(found.ok_or_else(|| error(why))?);
    }
    Ok(merges)
}

/// Where a merge may be cut: blanks that are neither first nor last.
fn blanks(text: &[u8]) -> impl Iterator<Item = usize> {
    let inner = text.len().saturating_sub(1);
    text.iter().take(inner).enumerate().skip(1).filter(|(_, byte)| **byte == b' ').map(|(at, _)| at)
}
