//! The expert cache. Layers are passed in a cycle, where the least recently used layer is the one
//! that is needed next: so every layer has its share of the slots. Routing within a layer is no
//! cycle: there the least recently used expert goes first; never one that is in use, being loaded,
//! or wanted by the group that runs.

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
}

struct Entry {
    content: Content,
    /// When it was last asked for.
    stamp: u64,
    /// Somebody is about to use it.
    is_wanted: bool,
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
        Cache { entries: HashMap::new(), layers, free: Vec::new(), unmade: slots, clock: 0 }
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

    /// Asks for an expert; it stays until it has been got with [`Cache::get`].
    pub fn want(&mut self, key: Key) -> Wanted {
        self.clock += 1;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.stamp = self.clock;
            entry.is_wanted = true;
            return Wanted::Known;
        }
        let slot = match self.slot((key.0, key.1)) {
            Some(slot) => Some(slot),
            None if self.unmade > 0 => {
                self.unmade -= 1;
                None
            }
            None => return Wanted::Full,
        };
        let entry = Entry { content: Content::Loading, stamp: self.clock, is_wanted: true };
        self.entries.insert(key, entry);
        Wanted::Load(slot)
    }

    /// What has become of an expert; got once it is there, it may go when nobody reads it.
    pub fn get(&mut self, key: Key) -> Option<crate::error::Result<Arc<Buffer>>> {
        let entry = self.entries.get_mut(&key)?;
        match &entry.content {
            Content::Ready(buffer) => {
                entry.is_wanted = false;
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

    /// Whether an expert is there or on its way.
    pub fn knows(&self, key: Key) -> bool {
        self.entries.contains_key(&key)
    }

    /// Nobody wants it after all.
    pub fn release(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.is_wanted = false;
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

    /// An expert could not be loaded; its slot, if there is one, is free again.
    pub fn failed(&mut self, key: Key, error: crate::error::Error, slot: Option<Buffer>) {
        match slot {
            Some(slot) => self.free.push(slot),
            None => self.unmade += 1,
        }
        match self.entries.get_mut(&key) {
            Some(entry) if entry.is_wanted => entry.content = Content::Failed(error),
            _ => drop(self.entries.remove(&key)),
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
            is_ready && !entry.is_wanted
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
            hits += usize::from(cache.knows(key));
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
