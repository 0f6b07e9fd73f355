//! Tokens by their text, for the encoders that start from characters: which character is which
//! token, bytes where there is none, and where words can be cut without changing a result.

use super::merge::{Merger, NONE};
use super::pieces::Lookup;
use super::source::{Kind, Source};
use super::vocab::{Spelling, Vocab};

/// Texts of ordinary tokens, and the tokens of bytes.
#[derive(Clone, Debug)]
pub struct Lexicon {
    lookup: Lookup,
    /// The longest text, in bytes.
    longest: usize,
    ascii: [u32; 128],
    bytes: [u32; 256],
    unknown: Option<u32>,
    /// Characters that stand before a blank inside some token; sorted.
    joined: Vec<char>,
    /// What a blank is spelt as in the file.
    blank: &'static str,
}

impl Lexicon {
    /// Indexes the tokens that text can become: not control tokens, not what ends a generation,
    /// not user-defined ones, which are found before.
    pub fn new(source: &Source<'_>, vocab: &Vocab, spelling: Spelling) -> Self {
        let mut lookup = Lookup::with_capacity(vocab.len());
        let stored = |id: u32| vocab.pieces.get(id);
        let mut bytes = [NONE; 256];
        let mut joined = Vec::new();
        let mut longest = 0;
        for id in 0..vocab.len() as u32 {
            let piece = vocab.pieces.get(id);
            match vocab.kind(id) {
                Kind::Byte => {
                    let byte = piece.first().and_then(|byte| bytes.get_mut(usize::from(*byte)));
                    if let Some(place) = byte {
                        *place = id;
                    }
                }
                Kind::Normal | Kind::Unused if !vocab.is_eog(id) && !piece.is_empty() => {
                    // A real blank in such a token can never be matched.
                    let text = source.tokens.get(id as usize);
                    if spelling == Spelling::Blanks && text.contains(&b' ') {
                        continue;
                    }
                    lookup.insert(piece, id, stored);
                    longest = longest.max(piece.len());
                    before_blanks(piece, &mut joined);
                }
                _ => {}
            }
        }
        joined.sort_unstable();
        joined.dedup();
        let blank = if spelling == Spelling::Blanks { "\u{2581}" } else { " " };
        let (unknown, ascii) = (vocab.unknown, [NONE; 128]);
        let mut lexicon = Lexicon { lookup, longest, ascii, bytes, unknown, joined, blank };
        for byte in 0..128_u8 {
            let token = lexicon.find(vocab, &[byte]).unwrap_or(NONE);
            if let Some(place) = lexicon.ascii.get_mut(usize::from(byte)) {
                *place = token;
            }
        }
        lexicon
    }

    /// The token of a text.
    pub fn find(&self, vocab: &Vocab, text: &[u8]) -> Option<u32> {
        if text.len() > self.longest {
            return None;
        }
        self.lookup.get(text, |id| vocab.pieces.get(id))
    }

    /// Gives the merger the characters of a word.
    pub fn symbols(&self, vocab: &Vocab, word: &str, merger: &mut Merger) {
        merger.clear();
        for (at, c) in word.char_indices() {
            let token = match self.ascii.get(c as usize) {
                Some(token) => *token,
                None => self.find(vocab, c.encode_utf8(&mut [0; 4]).as_bytes()).unwrap_or(NONE),
            };
            merger.push(token, at);
        }
    }

    /// Appends a symbol that will not merge any more: its token, or its bytes, or "unknown".
    pub fn finish(&self, word: &str, token: u32, start: usize, end: usize, out: &mut Vec<u32>) {
        if token != NONE {
            out.push(token);
            return;
        }
        let text = match word.get(start..end).unwrap_or_default() {
            " " => self.blank,
            text => text,
        };
        let byte = |b: u8| self.bytes.get(usize::from(b)).copied().filter(|token| *token != NONE);
        if text.bytes().all(|b| byte(b).is_some()) {
            out.extend(text.bytes().filter_map(byte));
        } else if out.last().copied() != self.unknown {
            out.extend(self.unknown); // a row of unknown characters is one unknown token
        }
    }

    /// Cuts a text before the blanks that no token can reach over, and calls `emit` with each part.
    pub fn cut<'t>(&self, text: &'t str, mut emit: impl FnMut(&'t str)) {
        let mut from = 0;
        let mut last = '\0';
        for (at, c) in text.char_indices() {
            if c == ' ' && at > from && self.joined.binary_search(&last).is_err() {
                emit(text.get(from..at).unwrap_or_default());
                from = at;
            }
            last = c;
        }
        if from < text.len() {
            emit(text.get(from..).unwrap_or_default());
        }
    }
}

/// Collects the characters that stand before a blank.
fn before_blanks(piece: &[u8], joined: &mut Vec<char>) {
    let inner = piece.iter().skip(1).any(|byte| *byte == b' ');
    let Some(text) = inner.then(|| std::str::from_utf8(piece).ok()).flatten() else { return };
    for (c, next) in text.chars().zip(text.chars().skip(1)) {
        if next == ' ' {
            joined.push(c);
        }
    }
}
