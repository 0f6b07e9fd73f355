//! Every chunk once, stages in order, whatever the number of threads.

use super::*;
use crate::error::Code;

#[test]
fn every_chunk_runs_exactly_once() {
    for threads in [1, 2, 5] {
        let mut pool = Pool::new(threads).unwrap();
        for n in [0, 1, 2, 7, 100, 1000] {
            let counts: Vec<_> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            let body = |chunk: usize, worker: usize| {
                assert!(worker < threads);
                counts[chunk].fetch_add(1, Ordering::Relaxed);
            };
            for round in 0..20 {
                pool.set_active(1 + round % threads);
                pool.run(n, &body).unwrap();
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 20));
        }
    }
}

/// Notes what ran, and asserts that nothing ran before its turn.
struct Ladder<'a> {
    ends: &'a [usize],
    ran: Vec<AtomicUsize>,
    finished: AtomicUsize,
}

impl Work for Ladder<'_> {
    fn chunk(&self, chunk: usize, _: usize) {
        let stage = self.ends.iter().filter(|end| **end <= chunk).count();
        assert_eq!(self.finished.load(Ordering::SeqCst), stage, "chunk {chunk} too early");
        // Only what a chunk before it has said lets an odd one run.
        assert!(chunk.is_multiple_of(2) || self.ran[chunk - 1].load(Ordering::SeqCst) == 1);
        self.ran[chunk].fetch_add(1, Ordering::SeqCst);
    }

    fn finish(&self, stage: usize, _: usize) {
        let end = self.ends[stage];
        assert!(self.ran[..end].iter().all(|ran| ran.load(Ordering::SeqCst) == 1));
        assert_eq!(self.finished.fetch_add(1, Ordering::SeqCst), stage);
    }

    fn is_ready(&self, chunk: usize) -> bool {
        chunk.is_multiple_of(2) || self.ran[chunk - 1].load(Ordering::SeqCst) == 1
    }
}

#[test]
fn stages_run_one_after_the_other_and_empty_ones_only_finish() {
    for threads in [1, 2, 3, 8] {
        let mut pool = Pool::new(threads).unwrap();
        for ends in [&[3, 3, 40][..], &[0, 5, 6], &[0, 0], &[10, 10], &[0, 1, 2, 30, 30]] {
            for _ in 0..50 {
                let ran = (0..40).map(|_| AtomicUsize::new(0)).collect();
                let ladder = Ladder { ends, ran, finished: AtomicUsize::new(0) };
                pool.run_stages(ends, &ladder).unwrap();
                assert_eq!(ladder.finished.load(Ordering::SeqCst), ends.len());
            }
        }
    }
}

#[test]
fn a_panic_in_a_chunk_is_an_error_and_the_pool_works_on() {
    let mut pool = Pool::new(2).unwrap();
    let body = |chunk: usize, _| assert!(chunk != 3, "planned");
    assert_eq!(pool.run(8, &body).unwrap_err().code, Code::Internal);
    assert!(pool.run(3, &body).is_ok());
}

#[test]
fn silly_thread_counts_are_refused() {
    for threads in [0, 10_000] {
        assert_eq!(Pool::new(threads).err().unwrap().code, Code::InvalidArg);
    }
}
