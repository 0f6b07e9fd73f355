//! The backend's own threads. The caller's thread takes part: it publishes a job of chunks in
//! stages, all threads take chunks from one counter, and a stage opens when the one before it is
//! done. A thread that is late, or asleep, holds no chunk and delays nobody. Who waits spins for
//! some microseconds, then sleeps. The pool does not know what a chunk computes.
#![allow(unsafe_code, reason = "workers call a job on the caller's stack")]

mod seat;

use crate::error::{Error, Result};
use seat::{GATE, IDLE, Seat};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Most threads that a pool may have.
pub const THREADS_MAX: usize = 1024;
/// Most chunks of a job.
pub const CHUNKS_MAX: usize = (1 << 20) - 1;
/// Turns before a waiting thread yields: some 20 microseconds of pauses.
const SPINS: usize = 1500;
/// Yields before it sleeps. Sleeping is what lets the system bring a thread that stands behind
/// somebody else's over to this core.
const YIELDS: usize = 4;
/// `open` when a job is over.
const OVER: usize = usize::MAX;

/// A job: what to do with chunks, which are numbered through all stages.
pub trait Work: Sync {
    /// Computes a chunk, once.
    fn chunk(&self, chunk: usize, worker: usize);

    /// Runs after the last chunk of a stage, on the thread that ran it, before the next opens.
    fn finish(&self, stage: usize, worker: usize) {
        let _ = (stage, worker);
    }

    /// Whether a chunk of an open stage may run; what it waits for is in chunks before it.
    fn is_ready(&self, chunk: usize) -> bool {
        let _ = chunk;
        true
    }

    /// Something small that is of use while a chunk must wait, step by step; `false`: no more.
    fn ahead(&self, chunk: usize, step: usize) -> bool {
        let _ = (chunk, step);
        false
    }
}

/// Work of one stage.
struct Simple<'a>(&'a (dyn Fn(usize, usize) + Sync));

impl Work for Simple<'_> {
    fn chunk(&self, chunk: usize, worker: usize) {
        (self.0)(chunk, worker);
    }
}

struct Job<'a> {
    work: &'a dyn Work,
    /// Where each stage ends.
    ends: &'a [usize],
}

struct Shared {
    /// Epoch (24 bits), chunks (20), next chunk (20): taken by compare-and-swap.
    ticket: AtomicU64,
    /// Chunks below this one may run.
    open: AtomicUsize,
    done: AtomicUsize,
    job: AtomicPtr<Job<'static>>,
    /// Threads that take part; the others sleep.
    active: AtomicUsize,
    /// Threads that sleep in the middle of a job.
    sleepers: AtomicUsize,
    /// Nanoseconds that threads waited for each other beyond a short spin.
    late: AtomicU64,
    failed: AtomicBool,
    stop: AtomicBool,
    seats: Vec<Seat>,
}

/// Threads that run jobs together.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    epoch: u64,
    barriers: u64,
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
            // SAFETY: this chunk is taken and not done, so `run` still waits and its job lives.
            let job = unsafe { &*self.job.load(Ordering::Acquire) };
            let may_run = || chunk < self.open.load(Ordering::SeqCst) && job.work.is_ready(chunk);
            if !may_run() {
                self.wait(worker, &may_run, &|step| job.work.ahead(chunk, step));
            }
            let stage = job.ends.iter().position(|end| chunk < *end).unwrap_or(0);
            let end = job.ends.get(stage).copied().unwrap_or(0);
            self.guard(|| job.work.chunk(chunk, worker));
            if self.done.fetch_add(1, Ordering::SeqCst) + 1 == end {
                // The last of a stage: the job is not over before this says so.
                self.advance(job, stage, worker);
            } else if self.sleepers.load(Ordering::SeqCst) > 0 {
                self.wake(GATE, 0..self.seats.len());
            }
        }
    }

    /// Finishes a stage and opens the next that has chunks.
    fn advance(&self, job: &Job<'_>, mut stage: usize, worker: usize) {
        let open = loop {
            self.guard(|| job.work.finish(stage, worker));
            stage += 1;
            match job.ends.get(stage) {
                None => break OVER,
                Some(end) if *end > job.ends[stage - 1] => break *end,
                Some(_) => {}
            }
        };
        // Once the job is over it may be gone: nothing of it is touched from here on.
        self.open.store(open, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.wake(GATE, 0..self.seats.len());
        }
    }

    /// Calls what may panic.
    fn guard(&self, body: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
    }

    /// Waits in the middle of a job, doing what helps meanwhile.
    fn wait(&self, worker: usize, is_over: &dyn Fn() -> bool, ahead: &dyn Fn(usize) -> bool) {
        let mut helps = true;
        for step in 0..SPINS {
            if is_over() {
                return;
            }
            helps = helps && ahead(step);
            if !helps {
                std::hint::spin_loop();
            }
        }
        let start = Instant::now();
        for _ in 0..YIELDS {
            thread::yield_now();
        }
        if let Some(seat) = self.seats.get(worker).filter(|_| !is_over()) {
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            seat.sleep(GATE, is_over);
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
        let late = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.late.fetch_add(late, Ordering::Relaxed);
    }

    /// Wakes those of these seats that sleep for this reason.
    fn wake(&self, reason: u8, seats: std::ops::Range<usize>) {
        self.seats.get(seats).unwrap_or(&[]).iter().for_each(|seat| seat.wake(reason));
    }

    fn has_work(&self, worker: usize) -> bool {
        let ticket = self.ticket.load(Ordering::SeqCst);
        (ticket & 0xf_ffff) < ((ticket >> 20) & 0xf_ffff)
            && worker < self.active.load(Ordering::SeqCst)
    }

    /// A worker's life.
    fn serve(&self, worker: usize) {
        let mut idle = 0;
        while !self.stop.load(Ordering::Acquire) {
            if self.has_work(worker) {
                self.work(worker);
                idle = 0;
            } else if idle < SPINS {
                idle += 1;
                std::hint::spin_loop();
            } else if idle < SPINS + YIELDS {
                idle += 1;
                thread::yield_now();
            } else if let Some(seat) = self.seats.get(worker) {
                seat.sleep(IDLE, &|| self.has_work(worker) || self.stop.load(Ordering::SeqCst));
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
            open: AtomicUsize::new(OVER),
            done: AtomicUsize::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            active: AtomicUsize::new(threads),
            sleepers: AtomicUsize::new(0),
            late: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            seats: (0..threads).map(|_| Seat::default()).collect(),
        });
        let mut pool = Pool { shared, workers: Vec::new(), epoch: 0, barriers: 0 };
        for worker in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("chord-cpu-{worker}"));
            let handle = builder
                .spawn(move || shared.serve(worker))
                .map_err(|error| Error::threads("computing", threads, worker, &error))?;
            pool.workers.push(handle);
        }
        Ok(pool)
    }

    /// Threads, the caller's among them.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Threads that take part in jobs now.
    #[must_use]
    pub fn active(&self) -> usize {
        self.shared.active.load(Ordering::Relaxed)
    }

    /// Lets so many threads take part from the next job on, at least one, at most all.
    pub fn set_active(&mut self, threads: usize) {
        self.shared.active.store(threads.clamp(1, self.threads()), Ordering::SeqCst);
    }

    /// How often all threads had to wait for each other so far: stages with chunks.
    #[must_use]
    pub fn barriers(&self) -> u64 {
        self.barriers
    }

    /// How long threads have waited for each other so far, short waits left out; all added up.
    #[must_use]
    pub fn late(&self) -> Duration {
        Duration::from_nanos(self.shared.late.load(Ordering::Relaxed))
    }

    /// Runs `body(chunk, worker)` for every chunk in `0..chunks`, each exactly once.
    ///
    /// # Errors
    /// `ERR_INTERNAL` if a chunk panicked; the others still ran.
    pub fn run(&mut self, chunks: usize, body: &(dyn Fn(usize, usize) + Sync)) -> Result<()> {
        self.run_stages(&[chunks], &Simple(body))
    }

    /// Runs a job: chunks `0..ends[0]`, then those up to `ends[1]`, and so on.
    ///
    /// # Errors
    /// `ERR_INTERNAL` if a chunk panicked; the others still ran.
    pub fn run_stages(&mut self, ends: &[usize], work: &dyn Work) -> Result<()> {
        let chunks = ends.last().copied().unwrap_or(0);
        if chunks > CHUNKS_MAX || !ends.is_sorted() {
            return Err(Error::internal("pool", format!("stages {ends:?}")));
        }
        let starts = std::iter::once(&0).chain(ends);
        self.barriers += starts.zip(ends).filter(|(start, end)| start < end).count() as u64;
        if self.active() == 1 || chunks < 2 {
            self.run_alone(ends, work);
        } else {
            self.share(ends, work);
        }
        if self.shared.failed.swap(false, Ordering::Relaxed) {
            return Err(Error::internal("pool", "a CPU kernel panicked"));
        }
        Ok(())
    }

    fn run_alone(&self, ends: &[usize], work: &dyn Work) {
        let mut chunk = 0;
        for (stage, end) in ends.iter().enumerate() {
            while chunk < *end {
                self.shared.guard(|| work.chunk(chunk, 0));
                chunk += 1;
            }
            self.shared.guard(|| work.finish(stage, 0));
        }
    }

    fn share(&mut self, ends: &[usize], work: &dyn Work) {
        let shared = &*self.shared;
        let (first, chunks) = (ends[0], ends[ends.len() - 1]);
        let job = Job { work, ends };
        shared.done.store(0, Ordering::Relaxed);
        shared.open.store(first, Ordering::SeqCst);
        shared.job.store((&raw const job).cast_mut().cast(), Ordering::Release);
        self.epoch = (self.epoch + 1) & 0xff_ffff;
        shared.ticket.store(self.epoch << 40 | (chunks as u64) << 20, Ordering::SeqCst);
        shared.wake(IDLE, 1..self.active().min(chunks));
        if first == 0 {
            shared.advance(&job, 0, 0);
        }
        shared.work(0);
        let is_over = || shared.open.load(Ordering::SeqCst) == OVER;
        if !is_over() {
            shared.wait(0, &is_over, &|_| false);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake(IDLE, 0..self.shared.seats.len());
        for worker in self.workers.drain(..) {
            // A worker catches panics itself, so there is nothing to report.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests;
