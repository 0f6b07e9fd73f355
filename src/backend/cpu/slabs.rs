//! Memory of pages, all of one size. The first come one by one; more of them, for long contexts, in
//! slabs of whole huge pages: attention jumps from page to page, and on small pages of the system
//! a third of its time went into address translation. A slab without pages is given back.

use super::kernel::buffer::Buffer;
use crate::error::Result;

/// Pages that come one by one.
const SINGLE: usize = 32;
/// A huge page of x86-64 and most ARM systems.
const HUGE: usize = 2 << 20;
/// Largest slab.
const SLAB_MAX: usize = 16 * HUGE;

/// Where a page lies.
enum Place {
    Alone(Buffer<u8>),
    Slab { slab: usize, index: usize },
}

struct Slab {
    memory: Buffer<u8>,
    taken: Vec<bool>,
}

/// Pages by number.
pub struct Slabs {
    page_bytes: usize,
    /// Pages of a slab; 0: no slabs.
    per_slab: usize,
    slab_bytes: usize,
    places: Vec<Option<Place>>,
    alone: usize,
    slabs: Vec<Option<Slab>>,
}

impl Slabs {
    /// No pages yet, of so many bytes each.
    #[must_use]
    pub fn new(page_bytes: usize) -> Self {
        // The smallest slab that wastes little, if any does.
        let sizes = (1..=SLAB_MAX / HUGE).map(|n| n * HUGE);
        let waste = |slab: &usize| slab % page_bytes.max(1) * 32 <= *slab && *slab >= page_bytes;
        let slab_bytes = sizes.clone().find(waste).unwrap_or(0);
        let per_slab = slab_bytes.checked_div(page_bytes).unwrap_or(0);
        Slabs { page_bytes, per_slab, slab_bytes, places: Vec::new(), alone: 0, slabs: Vec::new() }
    }

    /// Bytes of a page, with its share of what slabs waste.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        match self.per_slab {
            0 => self.page_bytes,
            per_slab => self.slab_bytes.div_ceil(per_slab),
        }
    }

    /// Makes memory for a page; nothing happens if it has some.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn commit(&mut self, index: usize) -> Result<()> {
        if self.get(index).is_some() {
            return Ok(());
        }
        let place = if self.alone < SINGLE || self.per_slab == 0 {
            self.alone += 1;
            Place::Alone(Buffer::new(self.page_bytes).inspect_err(|_| self.alone -= 1)?)
        } else {
            self.take()?
        };
        if index >= self.places.len() {
            self.places.resize_with(index + 1, || None);
        }
        self.places[index] = Some(place);
        Ok(())
    }

    /// A free place of a slab.
    fn take(&mut self) -> Result<Place> {
        for (slab, found) in self.slabs.iter_mut().enumerate() {
            let Some(Slab { taken, .. }) = found else { continue };
            if let Some(index) = taken.iter().position(|taken| !taken) {
                taken[index] = true;
                return Ok(Place::Slab { slab, index });
            }
        }
        let mut taken = vec![false; self.per_slab];
        taken[0] = true;
        let made = Some(Slab { memory: Buffer::new(self.slab_bytes)?, taken });
        let slab = self.slabs.iter().position(Option::is_none).unwrap_or(self.slabs.len());
        match self.slabs.get_mut(slab) {
            Some(place) => *place = made,
            None => self.slabs.push(made),
        }
        Ok(Place::Slab { slab, index: 0 })
    }

    /// Gives a page's memory back.
    pub fn free(&mut self, index: usize) {
        match self.places.get_mut(index).and_then(Option::take) {
            Some(Place::Alone(_)) => self.alone -= 1,
            Some(Place::Slab { slab, index }) => {
                let Some(Some(Slab { taken, .. })) = self.slabs.get_mut(slab) else { return };
                taken[index] = false;
                if !taken.contains(&true) {
                    self.slabs[slab] = None;
                }
            }
            None => {}
        }
    }

    /// A page's bytes, if it has memory.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        match self.places.get(index)?.as_ref()? {
            Place::Alone(memory) => Some(memory),
            Place::Slab { slab, index } => {
                let from = index * self.page_bytes;
                self.slabs.get(*slab)?.as_ref()?.memory.get(from..from + self.page_bytes)
            }
        }
    }

    /// The same, for writing.
    #[must_use]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut [u8]> {
        match self.places.get_mut(index)?.as_mut()? {
            Place::Alone(memory) => Some(memory),
            Place::Slab { slab, index } => {
                let from = *index * self.page_bytes;
                self.slabs.get_mut(*slab)?.as_mut()?.memory.get_mut(from..from + self.page_bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_keep_their_bytes_and_slabs_go_when_empty() {
        let mut slabs = Slabs::new(720_896);
        assert!((720_896..720_896 + 720_896 / 16).contains(&slabs.page_bytes()));
        let n = SINGLE + 3 * slabs.per_slab;
        for page in 0..n {
            slabs.commit(page).unwrap();
            slabs.get_mut(page).unwrap().fill(page as u8);
        }
        assert!(slabs.slabs.len() == 3 && slabs.slabs.iter().all(Option::is_some));
        assert!((0..n).all(|page| slabs.get(page).unwrap().iter().all(|b| *b == page as u8)));
        (SINGLE..SINGLE + slabs.per_slab).for_each(|page| slabs.free(page));
        assert!(slabs.slabs[0].is_none() && slabs.get(SINGLE).is_none());
        slabs.commit(SINGLE).unwrap();
        assert!(slabs.slabs[0].is_some() && slabs.get(n - 1).unwrap()[5] == (n - 1) as u8);
    }

    #[test]
    fn sizes_that_fill_no_slab_come_one_by_one() {
        let mut slabs = Slabs::new(SLAB_MAX + 64);
        assert_eq!((slabs.per_slab, slabs.page_bytes()), (0, SLAB_MAX + 64));
        assert!(slabs.get(3).is_none());
        slabs.free(3);
        let mut small = Slabs::new(64);
        (0..SINGLE + 2).for_each(|page| small.commit(page).unwrap());
        assert!(small.slabs.len() == 1 && small.slab_bytes == HUGE);
    }
}
