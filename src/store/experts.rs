//! The expert cache. Layers are passed in a cycle, where the least recently used layer is the one
//! that is needed next: so every layer has its share of the slots. Routing within a layer is no
//! cycle: there the least recently used expert goes first; never one that is in use, being loaded,
//! or wanted by the group that runs. Experts may also be guessed: they are loaded behind all that
//! is wanted, and make room for it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::io::buffer::Buffer;
use super::state::Content;

/// A group, its experts' step, the expert.
pub type Key = (usize, usize, u32);

/// A group and its experts' step.
type Layer = (usize, usize);

/// Experts that are there or on their way.
pub struct Cache {
    entries: HashMap<Key, Entry>,
    /// Layers that have experts.
    layers: usize,
    /// Slots without an expert.
    free: Vec<Buffer>,
    /// Slots that may still be made.
    unmade: usize,
    clock: u64,
    /// Experts that are guessed now.
    guesses: Vec<Key>,
}

/// Who needs an expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nobody: it is there for later, or not to be loaded after all.
    Nobody,
    /// A group to come, perhaps.
    Guessed,
    /// Somebody is about to use it.
    Wanted,
}

struct Entry {
    content: Content,
    /// When it was last asked for; 0: never.
    stamp: u64,
    need: Need,
}

/// How an expert is found when it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There.
    Ready,
    /// On its way.
    Late,
    /// Not even begun.
    Missing,
}

/// What asking for an expert has led to.
pub enum Wanted {
    /// It is there or comes.
    Known,
    /// It must be loaded, into this slot or a new one.
    Load(Option<Buffer>),
    /// Everything is in use: ask again.
    Full,
}

impl Cache {
    /// Room for so many, of so many layers.
    pub fn new(slots: usize, layers: usize) -> Self {
        Cache {
            entries: HashMap::new(),
            layers,
            free: Vec::new(),
            unmade: slots,
            clock: 0,
            guesses: Vec::new(),
        }
    }

    /// Room for so many from now on: those asked for longest ago go. Only while none is loading.
    pub fn resize(&mut self, slots: usize) {
        self.free.clear();
        while self.entries.len() > slots {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.stamp);
            let Some(key) = oldest.map(|(key, _)| *key) else { break };
            self.entries.remove(&key);
        }
        self.unmade = slots - self.entries.len();
    }

    /// How an expert would be found, and whether it is there on a guess alone.
    pub fn look(&self, key: Key) -> (Found, bool) {
        match self.entries.get(&key) {
            None => (Found::Missing, false),
            Some(entry) => match entry.content {
                Content::Ready(_) => (Found::Ready, entry.stamp == 0),
                _ => (Found::Late, entry.stamp == 0),
            },
        }
    }

    /// Asks for an expert; it stays until it has been got with [`Cache::get`].
    pub fn want(&mut self, key: Key) -> Wanted {
        self.clock += 1;
        if let Some(entry) = self.entries.get_mut(&key) {
            (entry.stamp, entry.need) = (self.clock, Need::Wanted);
            return Wanted::Known;
        }
        let mut wanted = self.load(key, self.clock, Need::Wanted);
        if matches!(wanted, Wanted::Full) && !self.guesses.is_empty() {
            self.settle(&mut |_| false);
            wanted = self.load(key, self.clock, Need::Wanted);
        }
        wanted
    }

    /// Asks for an expert that may be wanted. It takes nothing that is wanted or guessed, and stays
    /// until guesses are settled.
    pub fn guess(&mut self, key: Key) -> Wanted {
        let wanted = match self.entries.get_mut(&key) {
            Some(entry) if entry.need == Need::Wanted => return Wanted::Known,
            Some(entry) => {
                entry.need = Need::Guessed;
                Wanted::Known
            }
            None => self.load(key, 0, Need::Guessed),
        };
        if !matches!(wanted, Wanted::Full) {
            self.guesses.push(key);
        }
        wanted
    }

    /// Guesses that do not stand are nobody's: they are not loaded if they have not come, and go
    /// first if they have.
    pub fn settle(&mut self, stands: &mut dyn FnMut(Key) -> bool) {
        let entries = &mut self.entries;
        self.guesses.retain(|key| match entries.get_mut(key) {
            Some(entry) if entry.need == Need::Guessed => {
                let stays = stands(*key);
                entry.need = if stays { Need::Guessed } else { Need::Nobody };
                stays
            }
            _ => false,
        });
    }

    /// Who needs an expert that is there or on its way.
    pub fn need(&self, key: Key) -> Option<Need> {
        self.entries.get(&key).map(|entry| entry.need)
    }

    fn load(&mut self, key: Key, stamp: u64, need: Need) -> Wanted {
        let slot = match self.slot((key.0, key.1)) {
            Some(slot) => Some(slot),
            None if self.unmade > 0 => {
                self.unmade -= 1;
                None
            }
            None => return Wanted::Full,
        };
        self.entries.insert(key, Entry { content: Content::Loading, stamp, need });
        Wanted::Load(slot)
    }

    /// What has become of an expert; got once it is there, it may go when nobody reads it.
    pub fn get(&mut self, key: Key) -> Option<crate::error::Result<Arc<Buffer>>> {
        let entry = self.entries.get_mut(&key)?;
        match &entry.content {
            Content::Ready(buffer) => {
                entry.need = Need::Nobody;
                Some(Ok(buffer.clone()))
            }
            Content::Failed(error) => {
                let error = error.clone();
                self.entries.remove(&key);
                Some(Err(error))
            }
            Content::Cold | Content::Loading => None,
        }
    }

    /// Experts that are there or on their way.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nobody wants it after all.
    pub fn release(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.need = Need::Nobody;
            if matches!(entry.content, Content::Failed(_)) {
                self.entries.remove(&key);
            }
        }
    }

    /// An expert has come.
    pub fn came(&mut self, key: Key, buffer: Buffer) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.content = Content::Ready(Arc::new(buffer));
        } else {
            self.free.push(buffer);
        }
    }

    /// An expert could not be loaded; its slot, if there is one, is free again. Whoever wants it
    /// is told; a guess is no error.
    pub fn failed(&mut self, key: Key, error: crate::error::Error, slot: Option<Buffer>) {
        self.give(slot);
        match self.entries.get_mut(&key) {
            Some(entry) if entry.need == Need::Wanted => entry.content = Content::Failed(error),
            _ => drop(self.entries.remove(&key)),
        }
    }

    /// An expert that nobody needs is not loaded after all; its slot comes with [`Cache::give`].
    pub fn forget(&mut self, key: Key) {
        self.entries.remove(&key);
    }

    /// A slot is free, or one that was never made.
    pub fn give(&mut self, slot: Option<Buffer>) {
        match slot {
            Some(slot) => self.free.push(slot),
            None => self.unmade += 1,
        }
    }

    /// A slot for a layer: one that is free, or that of an expert that nobody needs. A layer that
    /// has its share gives up its own; another takes from the layers that have most, and of those
    /// from the one that is needed last.
    fn slot(&mut self, own: Layer) -> Option<Buffer> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        if self.unmade > 0 {
            return None;
        }
        let mut held: HashMap<Layer, usize> = HashMap::new();
        for key in self.entries.keys() {
            *held.entry((key.0, key.1)).or_default() += 1;
        }
        let share = (self.entries.len() / self.layers.max(1)).max(1);
        let has_share = held.get(&own).is_some_and(|held| *held >= share);
        let idle = self.entries.iter().filter(|(_, entry)| {
            let is_ready = matches!(&entry.content, Content::Ready(b) if Arc::strong_count(b) == 1);
            is_ready && entry.need == Need::Nobody
        });
        let rank = |(key, entry): &(&Key, &Entry)| {
            let layer = (key.0, key.1);
            let held = held.get(&layer).copied().unwrap_or(0);
            (has_share && layer == own, held, layer < own, layer, Reverse(entry.stamp))
        };
        let key = *idle.max_by_key(rank)?.0;
        let Content::Ready(buffer) = self.entries.remove(&key)?.content else { return None };
        Arc::try_unwrap(buffer).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses experts, layer after layer; how many of them were there.
    fn hits(slots: usize, passes: &[&[(usize, u32)]]) -> usize {
        let mut cache = Cache::new(slots, 3);
        let mut hits = 0;
        for &(layer, expert) in passes.iter().copied().flatten() {
            let key = (layer, 0, expert);
            hits += usize::from(cache.look(key).0 == Found::Ready);
            if let Wanted::Load(slot) = cache.want(key) {
                let slot = slot.unwrap_or_else(|| Buffer::new(4096).expect("memory"));
                cache.came(key, slot);
            }
            assert!(cache.get(key).is_some_and(|got| got.is_ok()));
            assert!(cache.len() <= slots);
        }
        hits
    }

    #[test]
    fn a_cache_smaller_than_a_pass_keeps_a_share_of_every_layer() {
        // The same expert of three layers, over and over: two slots hit every other time.
        let pass: &[(usize, u32)] = &[(0, 5), (1, 6), (2, 7)];
        assert_eq!(hits(3, &[pass; 5]), 12);
        assert_eq!(hits(2, &[pass; 5]), 6);
        // Within a layer the least recently used goes.
        let one: &[(usize, u32)] = &[(0, 1), (0, 2), (0, 1), (0, 3), (0, 1), (0, 2)];
        assert_eq!(hits(2, &[one]), 2);
    }
}
