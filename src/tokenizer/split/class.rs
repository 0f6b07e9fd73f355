//! Classes of characters as the patterns of pre-tokenizers ask for them: eight disjoint bits a
//! character in a two-stage table, made once a process from the Unicode tables of `regex-syntax`.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};

/// `\p{Lu}` and `\p{Lt}`.
pub const UPPER: u8 = 1;
/// `\p{Ll}`.
pub const LOWER: u8 = 2;
/// `\p{Lm}` and `\p{Lo}`.
pub const OTHER: u8 = 4;
/// `\p{M}`.
pub const MARK: u8 = 8;
/// `\p{N}`.
pub const NUMBER: u8 = 16;
/// `\p{P}`.
pub const PUNCTUATION: u8 = 32;
/// `\p{S}`.
pub const SYMBOL: u8 = 64;
/// `\s`: the Unicode property `White_Space`.
pub const SPACE: u8 = 128;
/// `\p{L}`.
pub const LETTER: u8 = UPPER | LOWER | OTHER;

const SOURCES: [(u8, &str); 8] = [
    (UPPER, r"[\p{Lu}\p{Lt}]"),
    (LOWER, r"\p{Ll}"),
    (OTHER, r"[\p{Lm}\p{Lo}]"),
    (MARK, r"\p{M}"),
    (NUMBER, r"\p{N}"),
    (PUNCTUATION, r"\p{P}"),
    (SYMBOL, r"\p{S}"),
    (SPACE, r"\s"),
];

const BLOCK: usize = 128;
const CODES: usize = 0x11_0000;

/// The table: a block number for each 128 code points, then the distinct blocks.
struct Table {
    index: Vec<u16>,
    blocks: Vec<[u8; BLOCK]>,
    ascii: [u8; BLOCK],
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut flat = vec![0_u8; CODES];
        for (bit, pattern) in SOURCES {
            for (first, last) in ranges(pattern) {
                for class in flat.get_mut(first..=last).unwrap_or_default() {
                    *class |= bit;
                }
            }
        }
        let (chunks, _) = flat.as_chunks::<BLOCK>();
        let mut blocks: Vec<[u8; BLOCK]> = Vec::new();
        let index = chunks
            .iter()
            .map(|chunk| {
                let known = blocks.iter().position(|block| block == chunk);
                let at = known.unwrap_or_else(|| {
                    blocks.push(*chunk);
                    blocks.len().wrapping_sub(1)
                });
                u16::try_from(at).unwrap_or(0)
            })
            .collect();
        Table { index, ascii: chunks.first().copied().unwrap_or([0; BLOCK]), blocks }
    })
}

/// First and last code point of each range of a class.
fn ranges(pattern: &str) -> Vec<(usize, usize)> {
    let hir = regex_syntax::parse(pattern);
    debug_assert!(hir.is_ok(), "{pattern}");
    match hir.map(|hir| hir.into_kind()) {
        Ok(HirKind::Class(Class::Unicode(class))) => class
            .ranges()
            .iter()
            .map(|range| (range.start() as usize, range.end() as usize))
            .collect(),
        _ => Vec::new(),
    }
}

/// One character of a text: its first byte, its class, its length (0 beyond the end).
#[derive(Clone, Copy)]
pub struct Unit {
    /// The first byte; 0 beyond the end.
    pub byte: u8,
    /// Bits of this module; 0 for control, format, private and unassigned characters.
    pub class: u8,
    /// Bytes in UTF-8.
    pub len: usize,
}

impl Unit {
    /// Whether the character has one of the classes.
    pub fn is(self, mask: u8) -> bool {
        self.class & mask != 0
    }

    /// Whether it is none of the classes, and not the end.
    pub fn is_not(self, mask: u8) -> bool {
        self.class & mask == 0 && self.len != 0
    }

    /// `[\r\n]`.
    pub fn is_newline(self) -> bool {
        matches!(self.byte, b'\n' | b'\r')
    }
}

/// A text with the classes of its characters.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    /// The text itself.
    pub str: &'a str,
    bytes: &'a [u8],
    table: &'static Table,
}

impl<'a> Text<'a> {
    /// Wraps a text.
    pub fn new(text: &'a str) -> Self {
        Text { str: text, bytes: text.as_bytes(), table: table() }
    }

    /// Bytes of the text.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The byte at an offset, 0 beyond the end.
    pub fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// The character that starts at `at`.
    pub fn unit(&self, at: usize) -> Unit {
        let Some(&byte) = self.bytes.get(at) else {
            return Unit { byte: 0, class: 0, len: 0 };
        };
        match self.table.ascii.get(usize::from(byte)) {
            Some(&class) => Unit { byte, class, len: 1 },
            None => self.wide(byte, at),
        }
    }

    fn wide(&self, byte: u8, at: usize) -> Unit {
        let c = self.str.get(at..).and_then(|rest| rest.chars().next()).unwrap_or('\0');
        let code = c as usize;
        let block = self.table.index.get(code / BLOCK).copied().unwrap_or(0);
        let class = self.table.blocks.get(usize::from(block)).and_then(|b| b.get(code % BLOCK));
        Unit { byte, class: class.copied().unwrap_or(0), len: c.len_utf8() }
    }

    /// The end of the run of characters of these classes that starts at `at`.
    pub fn run(&self, mut at: usize, mask: u8) -> usize {
        loop {
            let unit = self.unit(at);
            if !unit.is(mask) {
                return at;
            }
            at = at.wrapping_add(unit.len);
        }
    }

    /// The end of the run of characters of none of these classes that starts at `at`.
    pub fn run_not(&self, mut at: usize, mask: u8) -> usize {
        loop {
            let unit = self.unit(at);
            if !unit.is_not(mask) {
                return at;
            }
            at = at.wrapping_add(unit.len);
        }
    }

    /// Where the character that ends at `end` starts.
    pub fn before(&self, end: usize) -> usize {
        let mut at = end.saturating_sub(1);
        while at > 0 && self.byte(at) & 0xC0 == 0x80 {
            at = at.saturating_sub(1);
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_disjoint_and_cover_the_known_characters() {
        let class = |c: char| Text::new(c.encode_utf8(&mut [0; 4])).unit(0).class;
        assert_eq!(class('A'), UPPER);
        assert_eq!(class('ß'), LOWER);
        assert_eq!(class('漢'), OTHER);
        assert_eq!(class('\u{301}'), MARK);
        assert_eq!(class('½'), NUMBER);
        assert_eq!(class('…'), PUNCTUATION);
        assert_eq!(class('€'), SYMBOL);
        assert_eq!(class('\u{3000}'), SPACE);
        assert_eq!(class('\u{85}'), SPACE);
        assert_eq!(class('\u{200B}'), 0);
        assert_eq!(class('\0'), 0);
        for code in 0..=0x10_FFFF_u32 {
            if let Some(c) = char::from_u32(code) {
                assert!(class(c).count_ones() <= 1, "{code:x}");
                assert_eq!(class(c) == SPACE, c.is_whitespace(), "{code:x}");
            }
        }
    }
}
