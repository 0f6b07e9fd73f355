//! Finds out how a device likes to be read: how many bytes at a time, and how many reads on their
//! way. It tries a few ways in turns on bytes that are needed anyway and keeps the fastest. It
//! knows no clock and no file: it is told what came in which time.

use std::fmt;

/// Bytes of a turn that count. Two turns of each way even out a hiccup.
const TURN_BYTES: u64 = 16 << 20;
/// A slow device need not bring all of them.
const TURN_SECONDS: f64 = 0.2;
const TURNS: usize = 2;
/// Another way must be so much faster than the first to be taken: less is chance.
const GAIN: f64 = 1.05;

/// How to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Bytes of a read at most, a multiple of a page.
    pub block_bytes: u64,
    /// Reads on their way at a time.
    pub depth: usize,
}

impl Default for Way {
    fn default() -> Self {
        WAYS[0]
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = self.block_bytes >> 10;
        match kib % 1024 {
            0 => write!(f, "{} x {} MiB", self.depth, kib / 1024),
            _ => write!(f, "{} x {kib} KiB", self.depth),
        }
    }
}

/// What is tried; the first is used until the others were. Disks, flash and network volumes are
/// fastest at one of these; where all are alike, the first asks for little memory.
const WAYS: [Way; 5] = [
    Way { block_bytes: 1 << 20, depth: 4 },
    Way { block_bytes: 1 << 20, depth: 8 },
    Way { block_bytes: 512 << 10, depth: 4 },
    Way { block_bytes: 256 << 10, depth: 16 },
    Way { block_bytes: 1 << 20, depth: 32 },
];

/// The search.
pub struct Probe {
    ways: Vec<(Way, Tally)>,
    turn: usize,
    /// Bytes that were on their way in an earlier turn, and so do not count.
    skip: u64,
    now: Tally,
    way: Way,
}

/// What came, in which time.
#[derive(Clone, Copy, Default)]
struct Tally {
    bytes: u64,
    seconds: f64,
}

impl Tally {
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    fn rate(self) -> f64 {
        self.bytes as f64 / self.seconds.max(1e-9)
    }
}

impl Probe {
    /// Nothing is known of a device that takes up to `depth_max` reads at a time.
    pub fn new(depth_max: usize) -> Self {
        let mut ways: Vec<(Way, Tally)> = Vec::new();
        for way in WAYS {
            let way = Way { depth: way.depth.min(depth_max), ..way };
            if ways.iter().all(|(other, _)| *other != way) {
                ways.push((way, Tally::default()));
            }
        }
        let way = ways.first().map_or_else(Way::default, |(way, _)| *way);
        Probe { ways, turn: 0, skip: 0, now: Tally::default(), way }
    }

    /// How to read now.
    pub fn way(&self) -> Way {
        self.way
    }

    /// Whether the search is over.
    pub fn is_done(&self) -> bool {
        self.turn >= self.ways.len() * TURNS
    }

    /// So many bytes came in so many seconds, all the while as many reads as wanted were on their
    /// way.
    pub fn came(&mut self, bytes: u64, seconds: f64) {
        if self.is_done() {
            return;
        }
        if self.skip > 0 {
            self.skip = self.skip.saturating_sub(bytes);
            return;
        }
        self.now.bytes += bytes;
        self.now.seconds += seconds;
        if self.now.bytes < TURN_BYTES && self.now.seconds < TURN_SECONDS {
            return;
        }
        let place = self.turn % self.ways.len();
        let now = std::mem::take(&mut self.now);
        if let Some((_, tally)) = self.ways.get_mut(place) {
            tally.bytes += now.bytes;
            tally.seconds += now.seconds;
        }
        self.skip = self.way.block_bytes * self.way.depth as u64;
        self.turn += 1;
        self.way = self.next();
    }

    /// The way whose turn it is, or the best.
    fn next(&self) -> Way {
        let first = self.ways.first().map_or((self.way, 0.0), |(way, t)| (*way, t.rate() * GAIN));
        if !self.is_done() {
            return self.ways.get(self.turn % self.ways.len()).map_or(first.0, |(way, _)| *way);
        }
        let rates = self.ways.iter().skip(1).map(|(way, tally)| (*way, tally.rate()));
        rates.fold(first, |best, other| if other.1 > best.1 { other } else { best }).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads from a device of some latency and rate until the search is over: its way, and what was
    /// read meanwhile.
    fn found(depth_max: usize, latency: f64, rate: f64) -> (Way, u64) {
        let mut probe = Probe::new(depth_max);
        let mut bytes = 0;
        while !probe.is_done() {
            let Way { block_bytes, depth } = probe.way();
            assert!(depth <= depth_max);
            let one = latency / depth as f64;
            probe.came(block_bytes, one.max(block_bytes as f64 / rate));
            bytes += block_bytes;
        }
        (probe.way(), bytes)
    }

    #[test]
    fn the_way_that_suits_the_device_is_found() {
        // A disk near by: all ways are alike.
        assert_eq!(found(32, 1e-4, 1e9).0, WAYS[0]);
        // A volume far away wants many bytes on their way.
        assert_eq!(found(32, 20e-3, 1e9).0, WAYS[4]);
        // As many as the system takes.
        assert_eq!(found(4, 20e-3, 1e9).0, Way { block_bytes: 1 << 20, depth: 4 });
        assert_eq!(found(1, 1e-4, 1e9).0, Way { block_bytes: 1 << 20, depth: 1 });
        assert!(found(32, 1e-4, 5e9).1 < 300 << 20);
        // A slow one is not kept busy for long: 10 MB/s.
        assert!(found(32, 1e-2, 1e7).1 < 120 << 20);
    }
}
