//! A pool of threads that read at positions: what every system can do.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::{Done, Io, Read};
use crate::error::{Error, Result};

/// Threads, and reads on their way at most.
const DEPTH: usize = 8;

/// The pool.
pub struct Pool {
    name: &'static str,
    queue: Arc<Queue>,
    done: Receiver<Done>,
    /// Submitted and not come back.
    pending: usize,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    reads: VecDeque<Read>,
    is_closed: bool,
}

impl Pool {
    /// Threads over some files.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY` if the system gives no thread.
    pub fn new(files: Vec<Arc<File>>, name: &'static str) -> Result<Self> {
        let queue = Arc::new(Queue::default());
        let (sender, done) = channel();
        let mut pool = Pool { name, queue, done, pending: 0, threads: Vec::new() };
        for _ in 0..DEPTH {
            let (queue, files, sender) = (pool.queue.clone(), files.clone(), sender.clone());
            let thread = std::thread::Builder::new()
                .name("chord-read".to_owned())
                .spawn(move || work(&queue, &files, &sender))
                .map_err(|error| Error::threads("reading", DEPTH, pool.threads.len(), &error))?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }
}

impl Io for Pool {
    fn name(&self) -> &str {
        self.name
    }

    fn depth(&self) -> usize {
        DEPTH
    }

    fn submit(&mut self, read: Read) {
        self.pending += 1;
        self.queue.state.lock().reads.push_back(read);
        self.queue.changed.notify_one();
    }

    fn wait(&mut self) -> Option<Done> {
        if self.pending == 0 {
            return None;
        }
        let done = self.done.recv().ok()?;
        self.pending -= 1;
        Some(done)
    }

    fn cancel(&mut self) {
        let reads = std::mem::take(&mut self.queue.state.lock().reads);
        self.pending -= reads.len();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.state.lock().is_closed = true;
        self.queue.changed.notify_all();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn work(queue: &Queue, files: &[Arc<File>], done: &Sender<Done>) {
    loop {
        let mut state = queue.state.lock();
        let mut read = loop {
            if state.is_closed {
                return;
            }
            match state.reads.pop_front() {
                Some(read) => break read,
                None => queue.changed.wait(&mut state),
            }
        };
        drop(state);
        let result = match files.get(read.part as usize) {
            Some(file) => read_at(file, read.target.bytes_mut(), read.offset),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        if done.send(Done { read, result }).is_err() {
            return;
        }
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, offset)
}
