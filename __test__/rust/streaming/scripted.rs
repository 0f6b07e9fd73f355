//! A scripted disk: latencies, reordering, short reads, interruptions and errors by seed. A read
//! that fails leaves rubbish behind, so that nobody gets away with using it.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use node_chord::plan::residency::ALIGN;
use node_chord::store::io::{Done, Io, Opened, Opener, Read};

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// What a test does to the disk, and sees of it.
#[derive(Default)]
pub struct Control {
    /// Reads that fail from now on.
    pub fail: AtomicUsize,
    /// Percent of reads that are short, interrupted, or fail once.
    pub trouble: AtomicUsize,
    pub submitted: AtomicU64,
    pub completed: AtomicU64,
    pub deepest: AtomicUsize,
    pub is_dropped: AtomicBool,
    /// Reads do not come back as long as this is so.
    pub is_stuck: AtomicBool,
    /// Reads that are given at most; 0: by seed.
    pub depth: AtomicUsize,
    /// Offsets of reads, in the order in which they were submitted.
    pub log: Mutex<Vec<u64>>,
    /// Offsets whose reads do not come back as long as they stand here.
    pub held: Mutex<Vec<Range<u64>>>,
    /// Offsets whose reads fail.
    pub broken: Mutex<Vec<Range<u64>>>,
}

fn is_in(ranges: &Mutex<Vec<Range<u64>>>, offset: u64) -> bool {
    ranges.lock().unwrap().iter().any(|range| range.contains(&offset))
}

struct Scripted {
    files: Arc<Vec<Vec<u8>>>,
    random: Random,
    control: Arc<Control>,
    depth: usize,
    now: u64,
    queue: Vec<(u64, Read)>,
}

/// A disk with these files.
pub fn opener(files: &Arc<Vec<Vec<u8>>>, seed: u64, control: &Arc<Control>) -> Opener {
    let (files, control) = (files.clone(), control.clone());
    Box::new(move |_| {
        let mut random = Random(seed ^ 0xD15C);
        let depth = match control.depth.load(Ordering::SeqCst) {
            0 => 1 + random.below(8),
            depth => depth,
        };
        let (now, queue) = (0, Vec::new());
        let (files, control) = (files.clone(), control.clone());
        let io = Box::new(Scripted { files, random, control, depth, now, queue });
        Ok(Opened { io, reason: None })
    })
}

impl Drop for Scripted {
    fn drop(&mut self) {
        assert!(self.queue.is_empty(), "nothing is given up while it is on its way");
        self.control.is_dropped.store(true, Ordering::SeqCst);
    }
}

impl Io for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn submit(&mut self, read: Read) {
        let page = ALIGN as usize;
        assert!(read.offset.is_multiple_of(ALIGN) && read.target.start().is_multiple_of(page));
        assert!(read.target.size().is_multiple_of(page) && read.target.size() > 0);
        let slow = if self.random.chance(5) { 1000 } else { 10 };
        let due = self.now + self.random.below(slow) as u64;
        let offset = read.offset;
        self.queue.push((due, read));
        assert!(self.queue.len() <= self.depth);
        self.control.log.lock().unwrap().push(offset);
        self.control.submitted.fetch_add(1, Ordering::SeqCst);
        self.control.deepest.fetch_max(self.queue.len(), Ordering::SeqCst);
    }

    fn wait(&mut self) -> Option<Done> {
        let held = |read: &Read| is_in(&self.control.held, read.offset);
        while self.control.is_stuck.load(Ordering::SeqCst)
            || !self.queue.is_empty() && self.queue.iter().all(|(_, read)| held(read))
        {
            std::thread::yield_now();
        }
        let may = (0..self.queue.len()).filter(|index| !held(&self.queue[*index].1));
        let first = may.min_by_key(|index| self.queue[*index].0)?;
        let (due, mut read) = self.queue.swap_remove(first);
        self.now = self.now.max(due);
        self.control.completed.fetch_add(1, Ordering::SeqCst);
        let result = self.serve(&mut read);
        Some(Done { read, result })
    }

    fn cancel(&mut self) {}
}

impl Scripted {
    fn serve(&mut self, read: &mut Read) -> io::Result<usize> {
        let bytes = read.target.bytes_mut();
        let one_less = |left: usize| left.checked_sub(1);
        let order = Ordering::SeqCst;
        let is_broken = is_in(&self.control.broken, read.offset);
        if is_broken || self.control.fail.fetch_update(order, order, one_less).is_ok() {
            bytes.fill(0xAA);
            return Err(io::Error::from_raw_os_error(5));
        }
        let file = &self.files[read.part as usize];
        let from = (read.offset as usize).min(file.len());
        let mut n = bytes.len().min(file.len() - from);
        let trouble = self.control.trouble.load(Ordering::SeqCst);
        if self.random.chance(trouble) {
            match self.random.below(4) {
                0 => {
                    bytes.fill(0x55);
                    return Err(io::Error::from(io::ErrorKind::Interrupted));
                }
                1 => {
                    bytes.fill(0x77);
                    return Err(io::Error::from_raw_os_error(11));
                }
                _ => n = self.random.below(n).max(1),
            }
        }
        bytes[..n].copy_from_slice(&file[from..from + n]);
        Ok(n)
    }
}
