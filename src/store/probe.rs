//! Finds out how a device likes to be read: how many bytes at a time, and how many reads on their
//! way. It tries a few ways in turns on bytes that are needed anyway, and takes the one with the
//! least on its way that is about as fast as any: what is asked for next waits for all of that. It
//! knows no clock and no file: it is told what came in which time.

use std::fmt;

/// Bytes of a turn that count: more than any way has on its way, so that a burst is none of them.
const TURN_BYTES: u64 = 48 << 20;
/// A slow device need not bring all of them.
const TURN_SECONDS: f64 = 0.2;
/// Turns of each way; the middle one counts, so that a hiccup does not.
const TURNS: usize = 3;
/// Reads after which a way that the ring has no room for is given up.
const RESTS_MAX: usize = 1000;
/// Ways that are slower by less than this are as fast: the rest is chance.
const SLACK: f64 = 0.9;

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

/// What is tried, the least on its way first. Disks, flash and network volumes are fastest at one
/// of these.
const WAYS: [Way; 6] = [
    Way { block_bytes: 1 << 20, depth: 2 },
    Way { block_bytes: 512 << 10, depth: 4 },
    Way { block_bytes: 1 << 20, depth: 4 },
    Way { block_bytes: 256 << 10, depth: 16 },
    Way { block_bytes: 1 << 20, depth: 8 },
    Way { block_bytes: 1 << 20, depth: 32 },
];

/// The search.
pub struct Probe {
    /// With the rates of their turns, in bytes a second.
    ways: Vec<(Way, Vec<f64>)>,
    turn: usize,
    /// What was on its way in an earlier turn, and so does not count.
    skip: Tally,
    now: Tally,
    /// Reads of this turn that came while the device had too few to do.
    rests: usize,
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

/// What a way has on its way.
fn in_flight(way: Way) -> Tally {
    Tally { bytes: way.block_bytes * way.depth as u64, seconds: 0.0 }
}

/// The middle one of some rates.
fn middle(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

impl Probe {
    /// Nothing is known of a device that takes up to `depth_max` reads at a time.
    pub fn new(depth_max: usize) -> Self {
        let mut ways: Vec<(Way, Vec<f64>)> = Vec::new();
        for way in WAYS {
            let way = Way { depth: way.depth.min(depth_max), ..way };
            if ways.iter().all(|(other, _)| *other != way) {
                ways.push((way, Vec::new()));
            }
        }
        let way = ways.first().map_or_else(Way::default, |(way, _)| *way);
        Probe { ways, turn: 0, skip: Tally::default(), now: Tally::default(), rests: 0, way }
    }

    /// How to read now.
    pub fn way(&self) -> Way {
        self.way
    }

    /// Whether the search is over.
    pub fn is_done(&self) -> bool {
        self.turn >= self.ways.len() * TURNS
    }

    /// Something else than the device took time. What has piled up meanwhile will seem to come at
    /// once, most where most is on its way: it does not count.
    pub fn rested(&mut self) {
        self.skip = in_flight(self.way);
    }

    /// The device had fewer reads to do than the way has. A way that never keeps it busy is none.
    pub fn starved(&mut self) {
        self.rested();
        self.rests += 1;
        if self.rests >= RESTS_MAX && !self.is_done() {
            self.turn_ends(0.0);
        }
    }

    /// So many bytes came in so many seconds, all the while as many reads as wanted were on their
    /// way.
    pub fn came(&mut self, bytes: u64, seconds: f64) {
        if self.is_done() {
            return;
        }
        if self.skip.bytes > 0 && self.skip.seconds < TURN_SECONDS {
            self.skip.bytes = self.skip.bytes.saturating_sub(bytes);
            self.skip.seconds += seconds;
            return;
        }
        self.now.bytes += bytes;
        self.now.seconds += seconds;
        if self.now.bytes < TURN_BYTES && self.now.seconds < TURN_SECONDS {
            return;
        }
        let rate = self.now.rate();
        self.turn_ends(rate);
    }

    fn turn_ends(&mut self, rate: f64) {
        let place = self.turn % self.ways.len();
        if let Some((_, rates)) = self.ways.get_mut(place) {
            rates.push(rate);
        }
        // What is on its way is of this turn.
        self.skip = in_flight(self.way);
        (self.now, self.rests) = (Tally::default(), 0);
        self.turn += 1;
        self.way = self.next();
    }

    /// The way whose turn it is, or the one to stay with.
    fn next(&self) -> Way {
        if !self.is_done() {
            return self.ways.get(self.turn % self.ways.len()).map_or(self.way, |(way, _)| *way);
        }
        let best = self.ways.iter().map(|(_, rates)| middle(rates)).fold(0.0, f64::max);
        let as_fast = |(_, rates): &&(Way, Vec<f64>)| middle(rates) >= best * SLACK;
        self.ways.iter().find(as_fast).map_or(self.way, |(way, _)| *way)
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
    fn a_hiccup_decides_nothing_and_of_equals_the_one_with_the_least_on_its_way_wins() {
        for hiccup in 0..18 {
            let mut probe = Probe::new(32);
            while !probe.is_done() {
                let Way { block_bytes, depth } = probe.way();
                // Ways with more on their way are a little faster.
                let rate = 1e9 * (1.0 + depth as f64 / 1000.0);
                let slow = if probe.turn == hiccup { 10.0 } else { 1.0 };
                probe.came(block_bytes, slow * block_bytes as f64 / rate);
            }
            assert_eq!(probe.way(), WAYS[0], "turn {hiccup}");
        }
    }

    #[test]
    fn what_has_piled_up_while_the_device_rested_does_not_count() {
        let mut probe = Probe::new(32);
        while !probe.is_done() {
            let Way { block_bytes, depth } = probe.way();
            probe.rested();
            // All that was on its way is there at once; then it takes its time.
            (0..depth).for_each(|_| probe.came(block_bytes, 1e-6));
            (0..200).for_each(|_| probe.came(block_bytes, block_bytes as f64 / 1e9));
        }
        assert_eq!(probe.way(), WAYS[0]);
        // A ring that holds two blocks keeps no other way busy.
        let mut probe = Probe::new(32);
        while !probe.is_done() {
            match probe.way() {
                way if way == WAYS[0] => probe.came(way.block_bytes, 1e-3),
                _ => probe.starved(),
            }
        }
        assert_eq!(probe.way(), WAYS[0]);
        // Memory that is being made says nothing against a way.
        let mut probe = Probe::new(32);
        (0..5000).for_each(|_| probe.rested());
        assert_eq!((probe.way(), probe.turn), (WAYS[0], 0));
    }

    #[test]
    fn the_way_that_suits_the_device_is_found() {
        // A disk near by: all ways are alike.
        assert_eq!(found(32, 1e-4, 1e9).0, WAYS[0]);
        // A volume far away wants many bytes on their way.
        assert_eq!(found(32, 20e-3, 1e9).0, WAYS[5]);
        // As many as the system takes.
        assert_eq!(found(4, 20e-3, 1e9).0, Way { block_bytes: 1 << 20, depth: 4 });
        assert_eq!(found(1, 1e-4, 1e9).0, Way { block_bytes: 1 << 20, depth: 1 });
        assert!(found(32, 1e-4, 5e9).1 < 1536 << 20);
        // A slow one is not kept busy for long: 10 MB/s.
        assert!(found(32, 1e-2, 1e7).1 < 120 << 20);
    }
}
