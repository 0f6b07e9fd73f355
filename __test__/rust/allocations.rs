//! What decoding allocates in the backend: nothing, on any of its threads, once passes of a size
//! have been seen. A binary of its own and without a harness: the counting allocator serves the
//! whole process, and a harness has a thread that allocates now and then.
#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail that way")]

#[allow(dead_code, reason = "shared with the other tests")]
#[path = "runner.rs"]
mod runner;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use node_chord::backend::cpu::{Config, Cpu};
use node_chord::backend::{Backend, Batch, PAGE_TOKENS, PageId, Row};
use node_chord::plan::Plan;
use node_chord::store::Store;
use node_chord::{gguf, model};

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: all of it is the system's; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(start, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Passes of a round.
const ROUND: usize = 60;

/// The fewest allocations of four rounds of passes in which each of so many sequences decodes a
/// token. A thread allocates when it comes to life, which may be late; nothing else ever does.
fn of_backend(path: &Path, sequences: u32) -> u64 {
    let file = gguf::File::open(path).unwrap();
    let plan: Arc<Plan> = Arc::new(model::plan(&file).unwrap());
    let store = Store::open(&file, &plan).unwrap();
    let config = Config { threads: Some(2), ..Config::default() };
    let mut cpu = Cpu::new(plan.clone(), config).unwrap();
    let pages = 8;
    let page = |sequence: u32| (0..pages).map(|p| PageId(p * sequences + sequence)).collect();
    let mut batch = Batch { rows: Vec::new(), sequences: (0..sequences).map(page).collect() };
    batch.sequences.iter().flatten().for_each(|page| cpu.page_commit(*page).unwrap());
    let mut rounds = [0; 4];
    for position in 0..4 * ROUND as u32 {
        let row = |sequence| Row { token: position % 200, position, sequence, wants_logits: true };
        batch.rows.clear();
        batch.rows.extend((0..sequences).map(row));
        let before = COUNT.load(Ordering::SeqCst);
        cpu.begin(&batch).unwrap();
        for group in plan.group_ids() {
            let lease = store.acquire(group).unwrap();
            cpu.run(group, &lease, None).unwrap();
            lease.check().unwrap();
        }
        assert!(cpu.logits().iter().all(|logit| logit.is_finite()));
        rounds[position as usize / ROUND] += COUNT.load(Ordering::SeqCst) - before;
    }
    assert!(4 * ROUND <= pages as usize * PAGE_TOKENS);
    rounds.into_iter().min().unwrap_or(0)
}

fn main() {
    let mixture = runner::unpacked("logits/toys/mixtral.gguf");
    let dense = runner::root("models/chord-5m-Q4_K_M.gguf");
    for path in [&dense, &mixture] {
        for sequences in [1, 3, 8] {
            let counted = of_backend(path, sequences);
            assert_eq!(counted, 0, "{}, {sequences} sequences", path.display());
        }
    }
    println!("{ROUND} passes of 1, 3 and 8 sequences allocate nothing, dense and with experts");
}
