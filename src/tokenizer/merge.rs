//! Merging symbols of a word in order of rank, then from the left: what BPE and SPM share.
//! Short words scan for the best pair; long ones keep a heap over a linked list, n log n in time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A symbol that is no token, and the rank of a pair that cannot merge.
pub const NONE: u32 = u32::MAX;

/// Up to so many symbols the scan is faster than the heap.
const SCAN_MAX: usize = 40;

/// So many elements stay allocated between words.
const KEPT: usize = 1 << 14;

/// Tells which pairs merge.
pub trait Pairs {
    /// Rank (smaller first) and token of a pair of neighbours, or `(NONE, NONE)`. The pair covers
    /// the bytes `start..end` of the word.
    fn pair(&self, left: u32, right: u32, start: usize, end: usize) -> (u32, u32);
}

#[derive(Clone, Copy, Debug)]
struct Symbol {
    token: u32,
    /// Where it starts in the word.
    start: u32,
    /// Rank and token of the pair with the next symbol.
    rank: u32,
    merged: u32,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    token: u32,
    start: u32,
    rank: u32,
    prev: u32,
    next: u32,
}

/// Memory that is used again from word to word.
#[derive(Debug, Default)]
pub struct Merger {
    /// Token and start of each symbol of the word.
    given: Vec<(u32, u32)>,
    symbols: Vec<Symbol>,
    nodes: Vec<Node>,
    heap: BinaryHeap<Reverse<u64>>,
}

impl Merger {
    /// Starts a word.
    pub fn clear(&mut self) {
        self.given.clear();
    }

    /// Adds a symbol that starts at byte `start` of the word; `NONE` if it is no token.
    pub fn push(&mut self, token: u32, start: usize) {
        self.given.push((token, u32::try_from(start).unwrap_or(NONE)));
    }

    /// Merges all that can be; calls `emit` with token, start and end of what remains.
    pub fn merge(
        &mut self,
        pairs: &impl Pairs,
        len: usize,
        mut emit: impl FnMut(u32, usize, usize),
    ) {
        if self.given.len() <= SCAN_MAX {
            self.scan(pairs, len);
            let mut at = self.symbols.iter().peekable();
            while let Some(symbol) = at.next() {
                let end = at.peek().map_or(len, |next| next.start as usize);
                emit(symbol.token, symbol.start as usize, end);
            }
        } else {
            self.heap(pairs, len);
            let mut at = self.nodes.first();
            while let Some(node) = at {
                let next = self.nodes.get(node.next as usize);
                emit(node.token, node.start as usize, next.map_or(len, |next| next.start as usize));
                at = next;
            }
            self.shrink();
        }
    }

    /// Gives back what only a giant word needed.
    fn shrink(&mut self) {
        self.nodes.clear();
        self.nodes.shrink_to(KEPT);
        self.heap.clear();
        self.heap.shrink_to(KEPT);
    }

    fn scan(&mut self, pairs: &impl Pairs, len: usize) {
        let symbol = |(token, start): &(u32, u32)| Symbol {
            token: *token,
            start: *start,
            rank: NONE,
            merged: NONE,
        };
        self.symbols.clear();
        self.symbols.extend(self.given.iter().map(symbol));
        for at in 0..self.symbols.len() {
            self.rate(pairs, at, len);
        }
        loop {
            let best = self.symbols.iter().enumerate().min_by_key(|(_, symbol)| symbol.rank);
            let Some((at, &Symbol { rank, merged, .. })) = best else { return };
            if rank == NONE {
                return;
            }
            if let Some(symbol) = self.symbols.get_mut(at) {
                symbol.token = merged;
            }
            self.symbols.remove(at.wrapping_add(1));
            self.rate(pairs, at, len);
            if let Some(before) = at.checked_sub(1) {
                self.rate(pairs, before, len);
            }
        }
    }

    /// Looks up the pair that starts at symbol `at`.
    fn rate(&mut self, pairs: &impl Pairs, at: usize, len: usize) {
        let start_of = |s: &Symbol| s.start as usize;
        let end = self.symbols.get(at.wrapping_add(2)).map_or(len, start_of);
        let right = self.symbols.get(at.wrapping_add(1)).map(|symbol| symbol.token);
        let Some(symbol) = self.symbols.get_mut(at) else { return };
        (symbol.rank, symbol.merged) = match right {
            Some(right) => pairs.pair(symbol.token, right, symbol.start as usize, end),
            None => (NONE, NONE),
        };
    }

    fn heap(&mut self, pairs: &impl Pairs, len: usize) {
        self.link();
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.reserve_exact(self.nodes.len());
        for at in 0..self.nodes.len() {
            entries.extend(self.rated(pairs, at as u32, len));
        }
        self.heap = BinaryHeap::from(entries);
        while let Some(Reverse(entry)) = self.heap.pop() {
            let (rank, at) = ((entry >> 32) as u32, entry as u32);
            let Some(&node) = self.nodes.get(at as usize).filter(|node| node.rank == rank) else {
                continue; // the pair has changed since
            };
            let Some(&right) = self.nodes.get(node.next as usize) else { continue };
            let end = self.nodes.get(right.next as usize).map_or(len, |next| next.start as usize);
            let (_, merged) = pairs.pair(node.token, right.token, node.start as usize, end);
            if let Some(gone) = self.nodes.get_mut(node.next as usize) {
                gone.rank = NONE;
            }
            if let Some(after) = self.nodes.get_mut(right.next as usize) {
                after.prev = at;
            }
            if let Some(left) = self.nodes.get_mut(at as usize) {
                (left.token, left.next) = (merged, right.next);
            }
            let here = self.rated(pairs, at, len);
            let before = self.rated(pairs, node.prev, len);
            self.heap.extend(here.into_iter().chain(before));
        }
    }

    /// The symbols as a doubly linked list.
    fn link(&mut self) {
        let count = self.given.len();
        self.nodes.clear();
        self.nodes.reserve_exact(count);
        for (at, (token, start)) in self.given.iter().enumerate() {
            let next = at.wrapping_add(1);
            let next = if next < count { next as u32 } else { NONE };
            let prev = (at as u32).wrapping_sub(1);
            self.nodes.push(Node { token: *token, start: *start, rank: NONE, prev, next });
        }
        self.given.clear();
        self.given.shrink_to(KEPT);
    }

    /// Looks up the pair that starts at node `at`; its entry for the heap if it merges.
    fn rated(&mut self, pairs: &impl Pairs, at: u32, len: usize) -> Option<Reverse<u64>> {
        let node = *self.nodes.get(at as usize)?;
        let right = self.nodes.get(node.next as usize).copied();
        let rank = right.map_or(NONE, |right| {
            let after = self.nodes.get(right.next as usize);
            let end = after.map_or(len, |next| next.start as usize);
            pairs.pair(node.token, right.token, node.start as usize, end).0
        });
        self.nodes.get_mut(at as usize)?.rank = rank;
        (rank != NONE).then(|| Reverse((u64::from(rank) << 32) | u64::from(at)))
    }
}
