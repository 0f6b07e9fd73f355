//! Words seen before in the same text: their tokens are copied from the output. A direct-mapped
//! table, so its memory is bounded and what it forgets is only made again.

use super::pieces::Hash;

/// Texts shorter than this repeat too little for a table.
const TEXT_MIN: usize = 2048;
/// Longer words are not remembered.
const WORD_MAX: usize = 96;

/// The table for one text.
#[derive(Debug)]
pub struct Words<'t> {
    hash: Hash,
    mask: usize,
    places: Vec<Place<'t>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place<'t> {
    word: &'t str,
    /// Where its tokens lie in the output.
    from: usize,
    count: usize,
}

impl<'t> Words<'t> {
    /// A table fit for a text of so many bytes.
    pub fn new(text_bytes: usize) -> Self {
        let places = if text_bytes < TEXT_MIN {
            0
        } else {
            (text_bytes / 8).clamp(1 << 8, 1 << 14).next_power_of_two()
        };
        let places = vec![Place::default(); places];
        Words { hash: Hash::new(), mask: places.len().saturating_sub(1), places }
    }

    /// Appends the tokens of a word to `out`: copied if it is known, else made by `encode`.
    pub fn encode(
        &mut self,
        word: &'t str,
        out: &mut Vec<u32>,
        encode: impl FnOnce(&'t str, &mut Vec<u32>),
    ) {
        let at = if word.len() > WORD_MAX || self.places.is_empty() {
            usize::MAX
        } else {
            self.hash.bytes(word.as_bytes()) as usize & self.mask
        };
        let Some(place) = self.places.get_mut(at) else {
            encode(word, out);
            return;
        };
        if place.count > 0 && place.word == word {
            out.extend_from_within(place.from..place.from.wrapping_add(place.count));
            return;
        }
        let from = out.len();
        encode(word, out);
        *place = Place { word, from, count: out.len().wrapping_sub(from) };
    }
}
