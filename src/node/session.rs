//! A session in JavaScript's hands. The engine does what it is told in order, so most calls need no
//! answer; how long it is, the last outcome tells.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;
use parking_lot::Mutex;

use crate::engine::command::{Command, SessionId};
use crate::error::{Error, Result};
use crate::node::generation::{self, Engine, NativeGeneration, OfSession};
use crate::node::promise::{promise, thrown};
use crate::node::request::NativeRequest;
use crate::node::text::NativeString;

/// Sessions of all models have different numbers.
static LAST: AtomicU64 = AtomicU64::new(0);

/// A session.
#[napi]
pub struct NativeSession {
    engine: Engine,
    of: OfSession,
}

impl Drop for NativeSession {
    fn drop(&mut self) {
        // An error says that the engine is closed, and its sessions with it.
        drop(self.engine.handle.send(Command::SessionClose(self.of.id, Box::new(drop))));
    }
}

#[napi]
impl NativeSession {
    /// Tokens held.
    #[napi(catch_unwind)]
    #[must_use]
    pub fn length(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
        let length = self.of.length() as f64;
        length
    }

    /// Goes on from here.
    #[napi(catch_unwind)]
    #[must_use]
    pub fn generate(
        &self,
        request: NativeRequest,
        long: Option<&NativeString>,
    ) -> NativeGeneration {
        generation::start(&self.engine, request.with(long), Some(self.of.clone()))
    }

    /// A second session over the same tokens.
    #[napi(catch_unwind)]
    pub fn fork(&self) -> napi::Result<NativeSession> {
        let of = OfSession {
            id: next_id(),
            length: Arc::new(AtomicUsize::new(self.of.length.load(Ordering::Acquire))),
            tail: Arc::new(Mutex::new(self.of.tail.lock().clone())),
        };
        let (from, to) = (self.of.id, of.id);
        let command = Command::SessionFork { from, to, reply: Box::new(drop) };
        self.engine.handle.send(command).map_err(|error| thrown(&error))?;
        Ok(NativeSession { engine: self.engine.clone(), of })
    }

    /// Forgets the tokens from `length` on; those of `tail` follow, evaluated with what comes next.
    #[napi(catch_unwind)]
    pub fn rewind(&self, length: u32, tail: &[u32]) -> napi::Result<()> {
        let length = length as usize;
        let command = Command::SessionRewind { id: self.of.id, length, reply: Box::new(drop) };
        self.engine.handle.send(command).map_err(|error| thrown(&error))?;
        self.of.length.store(length, Ordering::Release);
        *self.of.tail.lock() = tail.to_vec();
        Ok(())
    }

    /// Gives its pages back.
    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let reply = Box::new(move |result| drop(sender.send(result)));
        let sent = self.engine.handle.send(Command::SessionClose(self.of.id, reply));
        promise(env, async move {
            // A closed engine has closed its sessions.
            if sent.is_err() {
                return Ok(());
            }
            receiver.await.map_or(Ok(()), |result| result)
        })
    }
}

/// Makes an empty session.
pub fn open(engine: &Engine) -> Result<NativeSession, Error> {
    let of = OfSession { id: next_id(), length: Arc::default(), tail: Arc::default() };
    engine.handle.send(Command::SessionOpen(of.id, Box::new(drop)))?;
    Ok(NativeSession { engine: engine.clone(), of })
}

fn next_id() -> SessionId {
    SessionId(LAST.fetch_add(1, Ordering::Relaxed))
}
