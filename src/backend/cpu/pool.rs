//! The backend's own threads. The caller's thread takes part: it publishes a job of n chunks, all
//! threads take chunks from one counter, and the job is over when every chunk is done. A thread
//! that is late, or asleep, holds no chunk and delays nobody. Workers spin for some microseconds,
//! then park. The pool does not know what a chunk computes.
#![allow(unsafe_code, reason = "workers call a closure on the caller's stack")]

use crate::error::{Code, Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, Thread};

/// Most threads that a pool may have.
pub const THREADS_MAX: usize = 1024;
/// Most chunks of a job.
pub const CHUNKS_MAX: usize = (1 << 20) - 1;
/// Pauses before a waiting thread yields: some 20 microseconds.
const SPINS: u32 = 1500;
/// Yields before an idle worker parks.
const YIELDS: u32 = 16;

/// What a job runs: (chunk, worker).
type Body<'a> = &'a (dyn Fn(usize, usize) + Sync + 'a);

struct Job<'a> {
    body: Body<'a>,
}

struct Shared {
    /// Epoch (24 bits), chunks (20), next chunk (20): taken by compare-and-swap.
    ticket: AtomicU64,
    job: AtomicPtr<Job<'static>>,
    done: AtomicUsize,
    failed: AtomicBool,
    stop: AtomicBool,
    parked: Vec<AtomicBool>,
}

/// Threads that run jobs together.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    handles: Vec<Thread>,
    epoch: u64,
}

impl Shared {
    /// Takes a chunk of the current job, if one is left.
    fn take(&self) -> Option<usize> {
        let mut ticket = self.ticket.load(Ordering::Acquire);
        loop {
            let (n, next) = ((ticket >> 20) & 0xf_ffff, ticket & 0xf_ffff);
            if next >= n {
                return None;
            }
            match self.ticket.compare_exchange_weak(
                ticket,
                ticket + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return usize::try_from(next).ok(),
                Err(now) => ticket = now,
            }
        }
    }

    /// Runs chunks until none is left.
    fn work(&self, worker: usize) {
        while let Some(chunk) = self.take() {
            let job = self.job.load(Ordering::Acquire);
            // SAFETY: this chunk is taken and not done, so `run` still waits and its job lives.
            let body = unsafe { (*job).body };
            if catch_unwind(AssertUnwindSafe(|| body(chunk, worker))).is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
            self.done.fetch_add(1, Ordering::Release);
        }
    }

    fn has_work(&self) -> bool {
        let ticket = self.ticket.load(Ordering::SeqCst);
        (ticket & 0xf_ffff) < ((ticket >> 20) & 0xf_ffff)
    }

    /// A worker's life.
    fn serve(&self, worker: usize) {
        let mut idle = 0;
        while !self.stop.load(Ordering::Acquire) {
            if self.has_work() {
                self.work(worker);
                idle = 0;
            } else if idle < SPINS {
                idle += 1;
                std::hint::spin_loop();
            } else if idle < SPINS + YIELDS {
                idle += 1;
                thread::yield_now();
            } else {
                self.parked[worker - 1].store(true, Ordering::SeqCst);
                if !self.has_work() && !self.stop.load(Ordering::SeqCst) {
                    thread::park();
                }
                self.parked[worker - 1].store(false, Ordering::SeqCst);
            }
        }
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller's among them.
    ///
    /// # Errors
    /// `ERR_INVALID_ARG` for a number outside 1..=1024, `ERR_INSUFFICIENT_MEMORY` if the system
    /// refuses a thread.
    pub fn new(threads: usize) -> Result<Self> {
        if !(1..=THREADS_MAX).contains(&threads) {
            let expected = format!("an integer from 1 to {THREADS_MAX}");
            return Err(Error::invalid_arg("threads", &expected, &threads.to_string()));
        }
        let shared = Arc::new(Shared {
            ticket: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            done: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            parked: (1..threads).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut pool = Pool { shared, workers: Vec::new(), handles: Vec::new(), epoch: 0 };
        for worker in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("chord-cpu-{worker}"));
            let handle = builder.spawn(move || shared.serve(worker)).map_err(|e| {
                let text = format!("cannot start CPU thread {worker} of {threads}: {e}");
                Error::new(Code::InsufficientMemory, text)
            })?;
            pool.handles.push(handle.thread().clone());
            pool.workers.push(handle);
        }
        Ok(pool)
    }

    /// Threads, the caller's among them.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `body(chunk, worker)` for every chunk in `0..chunks`, each exactly once.
    ///
    /// # Errors
    /// `ERR_INTERNAL` if a chunk panicked; the others still ran.
    pub fn run(&mut self, chunks: usize, body: Body<'_>) -> Result<()> {
        if chunks > CHUNKS_MAX {
            return Err(Error::internal("pool", format!("{chunks} chunks")));
        }
        let shared = &*self.shared;
        let job = Job { body };
        shared.done.store(0, Ordering::Relaxed);
        shared.job.store((&raw const job).cast_mut().cast(), Ordering::Release);
        self.epoch = (self.epoch + 1) & 0xff_ffff;
        shared.ticket.store(self.epoch << 40 | (chunks as u64) << 20, Ordering::SeqCst);
        if chunks > 1 {
            self.wake(chunks - 1);
        }
        shared.work(0);
        let mut spins = 0;
        while shared.done.load(Ordering::Acquire) < chunks {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
        if shared.failed.swap(false, Ordering::Relaxed) {
            return Err(Error::internal("pool", "a CPU kernel panicked"));
        }
        Ok(())
    }

    /// Wakes at most `n` parked workers.
    fn wake(&self, n: usize) {
        let sleeping = self.shared.parked.iter().zip(&self.handles);
        for (_, handle) in sleeping.filter(|(p, _)| p.load(Ordering::SeqCst)).take(n) {
            handle.unpark();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for handle in &self.handles {
            handle.unpark();
        }
        for worker in self.workers.drain(..) {
            // A worker catches panics itself, so there is nothing to report.
            let _ = worker.join();
        }
    }
}

/// Threads that pay here: physical cores within affinity and cgroup quota, at least 1.
#[must_use]
pub fn default_threads() -> usize {
    let allowed = thread::available_parallelism().map_or(1, usize::from);
    physical_cores().map_or(allowed, |cores| cores.min(allowed)).clamp(1, THREADS_MAX)
}

/// Physical cores among the CPUs that this process may use, where the system says so.
#[cfg(target_os = "linux")]
fn physical_cores() -> Option<usize> {
    let cpus = core_affinity::get_core_ids()?;
    let mut cores = std::collections::BTreeSet::new();
    for cpu in cpus {
        let path = format!("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu.id);
        cores.insert(std::fs::read_to_string(path).ok()?.trim().to_owned());
    }
    Some(cores.len().max(1))
}

/// Unknown here: the number of logical CPUs stands.
#[cfg(not(target_os = "linux"))]
fn physical_cores() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

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
                for _ in 0..20 {
                    pool.run(n, &body).unwrap();
                }
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 20));
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
        assert!(default_threads() >= 1);
    }
}
