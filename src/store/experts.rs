//! The expert cache. Routing is not cyclic, so the least recently used expert goes first; never one
//! that is in use, being loaded, or wanted by the group that runs.

use std::collections::HashMap;
use std::sync::Arc;

use super::io::buffer::Buffer;
use super::state::Content;

/// A group, its experts' step, the expert.
pub type Key = (usize, usize, u32);

/// Experts that are there or on their way.
pub struct Cache {
    entries: HashMap<Key, Entry>,
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
    /// Room for so many.
    pub fn new(slots: usize) -> Self {
        Cache { entries: HashMap::new(), free: Vec::new(), unmade: slots, clock: 0 }
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
        let slot = match self.slot() {
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

    /// A slot that is free or that nobody needs.
    fn slot(&mut self) -> Option<Buffer> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        if self.unmade > 0 {
            return None;
        }
        let idle = self.entries.iter().filter(|(_, entry)| {
            let is_ready = matches!(&entry.content, Content::Ready(b) if Arc::strong_count(b) == 1);
            is_ready && !entry.is_wanted
        });
        let key = *idle.min_by_key(|(_, entry)| entry.stamp)?.0;
        let Content::Ready(buffer) = self.entries.remove(&key)?.content else { return None };
        Arc::try_unwrap(buffer).ok()
    }
}
