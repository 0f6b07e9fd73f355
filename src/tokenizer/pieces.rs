//! Compact stores: many byte strings in one blob, and a hash index over strings that keeps 8
//! bytes an entry. The hash is keyed anew in every process, so no file can aim at collisions.

use std::hash::{BuildHasher, RandomState};

/// Byte strings by number.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    blob: Vec<u8>,
    /// Where each ends in the blob.
    ends: Vec<u32>,
}

impl Pieces {
    /// Room for so many strings of so many bytes together.
    pub fn with_capacity(count: usize, bytes: usize) -> Self {
        Pieces { blob: Vec::with_capacity(bytes), ends: Vec::with_capacity(count) }
    }

    /// Adds a string; false if all together would exceed 4 GiB.
    #[must_use]
    pub fn push(&mut self, bytes: impl IntoIterator<Item = u8>) -> bool {
        self.blob.extend(bytes);
        match u32::try_from(self.blob.len()) {
            Ok(end) => {
                self.ends.push(end);
                true
            }
            Err(_) => false,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The string of a number; empty if there is none.
    pub fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let before = id.checked_sub(1).and_then(|before| self.ends.get(before));
        let start = before.copied().unwrap_or(0) as usize;
        let end = self.ends.get(id).copied().unwrap_or(0) as usize;
        self.blob.get(start..end).unwrap_or(&[])
    }
}

/// Keyed hash of byte strings and of pairs: folded multiplication, as in wyhash.
#[derive(Clone, Copy, Debug)]
pub struct Hash {
    seed: u64,
    key: u64,
}

impl Hash {
    /// New random keys.
    pub fn new() -> Self {
        let state = RandomState::new();
        Hash { seed: state.hash_one(1_u8), key: state.hash_one(2_u8) | 1 }
    }

    fn fold(a: u64, b: u64) -> u64 {
        let product = u128::from(a).wrapping_mul(u128::from(b));
        (product as u64) ^ ((product >> 64) as u64)
    }

    /// The hash of a string.
    pub fn bytes(self, bytes: &[u8]) -> u64 {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut state = self.seed ^ (bytes.len() as u64);
        for word in words {
            state = Self::fold(state ^ u64::from_le_bytes(*word), self.key);
        }
        let mut last = [0_u8; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        state = Self::fold(state ^ u64::from_le_bytes(last), self.key);
        Self::fold(state ^ self.key, self.seed | 1)
    }

    /// The hash of two numbers.
    pub fn pair(self, left: u32, right: u32) -> u64 {
        let both = (u64::from(left) << 32) | u64::from(right);
        Self::fold(Self::fold(both ^ self.seed, self.key), self.seed | 1)
    }
}

/// From byte strings to their numbers; the strings themselves are the caller's.
#[derive(Clone, Debug)]
pub struct Lookup {
    hash: Hash,
    mask: usize,
    /// Upper half of the hash, number; `u32::MAX` is a free place. Linear probing.
    slots: Vec<(u32, u32)>,
}

const FREE: u32 = u32::MAX;

impl Lookup {
    /// Room for so many strings.
    pub fn with_capacity(count: usize) -> Self {
        let places = count.saturating_mul(3).div_ceil(2).max(4).next_power_of_two();
        let mask = places.saturating_sub(1);
        Lookup { hash: Hash::new(), mask, slots: vec![(0, FREE); places] }
    }

    /// The number of a string; `stored` tells the string of a number.
    pub fn get<'a>(&self, bytes: &[u8], stored: impl Fn(u32) -> &'a [u8]) -> Option<u32> {
        let hash = self.hash.bytes(bytes);
        let tag = (hash >> 32) as u32;
        let mut at = (hash as usize) & self.mask;
        loop {
            let &(found, id) = self.slots.get(at)?;
            if id == FREE {
                return None;
            }
            if found == tag && stored(id) == bytes {
                return Some(id);
            }
            at = at.wrapping_add(1) & self.mask;
        }
    }

    /// Adds a string, or returns the number that it already has.
    pub fn insert<'a>(
        &mut self,
        bytes: &[u8],
        id: u32,
        stored: impl Fn(u32) -> &'a [u8],
    ) -> Option<u32> {
        let hash = self.hash.bytes(bytes);
        let tag = (hash >> 32) as u32;
        let mut at = (hash as usize) & self.mask;
        loop {
            let slot = self.slots.get_mut(at)?;
            if slot.1 == FREE {
                *slot = (tag, id);
                return None;
            }
            if slot.0 == tag && stored(slot.1) == bytes {
                return Some(slot.1);
            }
            at = at.wrapping_add(1) & self.mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_found_again_and_duplicates_are_told() {
        let texts: Vec<Vec<u8>> = (0..1000_u32).map(|n| n.to_string().into_bytes()).collect();
        let mut pieces = Pieces::default();
        let mut lookup = Lookup::with_capacity(texts.len());
        for text in &texts {
            let id = u32::try_from(pieces.len()).unwrap();
            assert!(pieces.push(text.iter().copied()));
            assert_eq!(lookup.insert(text, id, |id| pieces.get(id)), None);
        }
        assert_eq!(lookup.insert(b"77", 5000, |id| pieces.get(id)), Some(77));
        assert_eq!(lookup.get(b"999", |id| pieces.get(id)), Some(999));
        assert_eq!(lookup.get(b"1000", |id| pieces.get(id)), None);
        assert_eq!(pieces.get(1000), b"");
    }
}
