//! What an environment (the main thread, or a worker) has running, and how it ends: engines stop
//! after the group in flight and are joined, a second at most, before Node takes itself apart.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use napi::Env;
use parking_lot::Mutex;

use crate::engine::Handle;

/// How long the end of an environment waits for its engines.
const JOIN_MAX: Duration = Duration::from_secs(1);

thread_local! {
    /// An environment lives on one thread.
    static CURRENT: RefCell<Option<Arc<Environment>>> = const { RefCell::new(None) };
}

/// What one environment has running.
#[derive(Default)]
pub struct Environment {
    is_over: AtomicBool,
    last: AtomicU64,
    running: Mutex<Vec<(u64, Running)>>,
}

enum Running {
    Engine(Handle),
    Load(Arc<AtomicBool>),
}

/// Keeps something on the list while it lives.
pub struct Registered {
    environment: Arc<Environment>,
    number: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.environment.running.lock().retain(|(number, _)| *number != self.number);
    }
}

impl Environment {
    /// Whether it is going away.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Stop this engine when the environment ends.
    pub fn register_engine(self: &Arc<Self>, handle: Handle) -> Registered {
        self.register(Running::Engine(handle))
    }

    /// Call this load off when the environment ends.
    pub fn register_load(self: &Arc<Self>, cancel: Arc<AtomicBool>) -> Registered {
        self.register(Running::Load(cancel))
    }

    fn register(self: &Arc<Self>, running: Running) -> Registered {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let is_over = {
            let mut list = self.running.lock();
            list.push((number, running));
            self.is_over()
        };
        if is_over {
            self.stop();
        }
        Registered { environment: self.clone(), number }
    }

    /// Asks everything to stop; the engines that must be waited for.
    fn stop(&self) -> Vec<Handle> {
        self.is_over.store(true, Ordering::Release);
        let mut engines = Vec::new();
        for (_, running) in self.running.lock().iter() {
            match running {
                Running::Engine(handle) => engines.push(handle.clone()),
                Running::Load(cancel) => cancel.store(true, Ordering::Release),
            }
        }
        engines.iter().for_each(Handle::close);
        engines
    }

    fn end(&self) {
        let until = Instant::now() + JOIN_MAX;
        for engine in self.stop() {
            // One that takes longer is left alone: it touches nothing of Node's.
            let _ = engine.join(until.saturating_duration_since(Instant::now()));
        }
    }
}

/// This thread's environment; the first call sees to its end.
pub fn current(env: &Env) -> napi::Result<Arc<Environment>> {
    let known = CURRENT.with(|current| current.borrow().clone());
    if let Some(environment) = known {
        return Ok(environment);
    }
    let environment = Arc::new(Environment::default());
    env.add_env_cleanup_hook(environment.clone(), |environment| {
        CURRENT.with(|current| current.borrow_mut().take());
        environment.end();
    })?;
    CURRENT.with(|current| *current.borrow_mut() = Some(environment.clone()));
    Ok(environment)
}

/// Ends the environment's work before its time: the process exits.
pub fn shutdown() {
    if let Some(environment) = CURRENT.with(|current| current.borrow().clone()) {
        environment.end();
    }
}
