//! Tokens that are found in the text before anything else: control tokens where the caller allows
//! it, user-defined ones always. Leftmost, then longest, in one pass.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, Input, MatchKind};

use super::source::{Kind, Source};
use super::vocab::Vocab;
use crate::error::Result;

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'t> {
    /// Text between special tokens, not empty.
    Text(&'t str),
    /// A special token.
    Token(u32),
}

/// Finders for both modes.
#[derive(Clone, Debug)]
pub struct Specials {
    /// Found with `parse_special`.
    all: Finder,
    /// Found without.
    user: Finder,
}

#[derive(Clone, Debug)]
struct Finder {
    automaton: Option<AhoCorasick>,
    tokens: Vec<u32>,
    /// Tokens that swallow the white space behind or before them.
    strip_right: Vec<u32>,
    strip_left: Vec<u32>,
}

impl Specials {
    /// Builds both finders.
    ///
    /// # Errors
    /// `ERR_TOKENIZER_INVALID` if there are more special tokens than an automaton can hold.
    pub fn new(source: &Source<'_>, vocab: &Vocab) -> Result<Self> {
        let special = |kind| matches!(kind, Kind::Control | Kind::User | Kind::Unknown);
        let list = |wanted: &dyn Fn(u32) -> bool| -> Vec<u32> {
            let ids = 0..vocab.len() as u32;
            ids.filter(|id| wanted(*id) && !vocab.pieces.get(*id).is_empty()).collect()
        };
        let all = list(&|id| special(vocab.kind(id)) || vocab.named.contains(&id));
        let text = |id| !vocab.is_control(id) && !vocab.is_eog(id);
        let user = list(&|id| vocab.kind(id) == Kind::User && text(id));
        Ok(Specials {
            all: Finder::new(source, vocab, all)?,
            user: Finder::new(source, vocab, user)?,
        })
    }

    /// Where the next token is spelt that is found with `parse_special` only.
    pub fn next_control(&self, text: &str, mut from: usize) -> Option<usize> {
        loop {
            let (start, end, token) = self.all.next(text, from)?;
            if self.user.tokens.binary_search(&token).is_err() {
                return Some(start);
            }
            from = end.max(from.checked_add(1)?);
        }
    }

    /// Cuts a text into special tokens and what is between them.
    pub fn split<'t>(&self, text: &'t str, parse_special: bool, emit: impl FnMut(Part<'t>)) {
        self.cut(if parse_special { &self.all } else { &self.user }, text, None, emit);
    }

    /// The same with all special tokens, but what a mark follows is text: a single character that
    /// is a token cannot be broken.
    pub fn split_marked<'t>(&self, text: &'t str, mark: char, emit: impl FnMut(Part<'t>)) {
        self.cut(&self.all, text, Some(mark), emit);
    }

    fn cut<'t>(
        &self,
        finder: &Finder,
        text: &'t str,
        mark: Option<char>,
        mut emit: impl FnMut(Part<'t>),
    ) {
        let between = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        let mut from = 0;
        for (start, end, token) in finder.find(text) {
            if mark.is_some_and(|mark| between(end, text.len()).starts_with(mark)) {
                continue;
            }
            let mut before = between(from, start);
            if finder.strip_left.binary_search(&token).is_ok() {
                before = before.trim_end();
            }
            if !before.is_empty() {
                emit(Part::Text(before));
            }
            emit(Part::Token(token));
            if end > from {
                from = end;
                if finder.strip_right.binary_search(&token).is_ok() {
                    let rest = between(end, text.len());
                    from = text.len().wrapping_sub(rest.trim_start().len());
                }
            }
        }
        let rest = between(from, text.len());
        if !rest.is_empty() {
            emit(Part::Text(rest));
        }
    }
}

impl Finder {
    fn new(source: &Source<'_>, vocab: &Vocab, tokens: Vec<u32>) -> Result<Self> {
        let texts = tokens.iter().map(|id| vocab.pieces.get(*id));
        let automaton =
            AhoCorasickBuilder::new().match_kind(MatchKind::LeftmostLongest).build(texts);
        let automaton =
            automaton.map_err(|e| source.error("tokens", format!("special tokens: {e}")))?;
        let automaton = Some(automaton).filter(|_| !tokens.is_empty());
        let [strip_left, strip_right] = strips(source, vocab, &tokens);
        Ok(Finder { automaton, tokens, strip_right, strip_left })
    }

    /// Start, end and token of the first special token from there on.
    fn next(&self, text: &str, from: usize) -> Option<(usize, usize, u32)> {
        let input = Input::new(text).range(from.min(text.len())..);
        let hit = self.automaton.as_ref()?.find(input)?;
        Some((hit.start(), hit.end(), *self.tokens.get(hit.pattern().as_usize())?))
    }

    /// Start, end and token of each special token in the text.
    fn find(&self, text: &str) -> impl Iterator<Item = (usize, usize, u32)> {
        let hits = self.automaton.iter().flat_map(move |automaton| automaton.find_iter(text));
        hits.filter_map(|hit| {
            let token = self.tokens.get(hit.pattern().as_usize())?;
            Some((hit.start(), hit.end(), *token))
        })
    }
}

/// Which tokens swallow white space before and behind them. The format has no key for it; these
/// families are known to, by their names.
fn strips(source: &Source<'_>, vocab: &Vocab, tokens: &[u32]) -> [Vec<u32>; 2] {
    let named = |names: &[&str]| -> Vec<u32> {
        let is = |id: &u32| names.iter().any(|name| name.as_bytes() == vocab.pieces.get(*id));
        tokens.iter().copied().filter(is).collect()
    };
    let pre = source.pre.unwrap_or_default();
    let name = source.model_name();
    if pre.starts_with("jina-v2-") {
        [named(&["<mask>"]), Vec::new()]
    } else if pre == "modern-bert" {
        [named(&["[MASK]"]), Vec::new()]
    } else if name.contains("phi-3") || name.contains("phi3") {
        let keep = named(&["<unk>", "<s>", "<|endoftext|>"]);
        [Vec::new(), tokens.iter().copied().filter(|id| !keep.contains(id)).collect()]
    } else {
        [Vec::new(), Vec::new()]
    }
}
