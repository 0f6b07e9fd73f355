//! What the models of this process were promised: a model that streams takes its memory over time,
//! so what the system calls free is not all there for the next one. A model that is closed is
//! forgotten.

use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use crate::store::Store;

static CLAIMS: Mutex<Vec<Claim>> = Mutex::new(Vec::new());

struct Claim {
    promised: u64,
    store: Weak<Store>,
}

/// The ledger, held while a model is placed, so that no other is promised the same.
pub struct Ledger(MutexGuard<'static, Vec<Claim>>);

/// Waits for the ledger.
#[must_use]
pub fn open() -> Ledger {
    Ledger(CLAIMS.lock())
}

impl Ledger {
    /// Bytes that were promised and not taken yet.
    #[must_use]
    pub fn outstanding(&mut self) -> u64 {
        self.0.retain(|claim| claim.store.strong_count() > 0);
        let open = self.0.iter().filter_map(|claim| {
            let store = claim.store.upgrade()?;
            Some(claim.promised.saturating_sub(store.resident_bytes()))
        });
        open.fold(0, u64::saturating_add)
    }

    /// Promises a model its budget as long as its store lives.
    pub fn promise(&mut self, promised: u64, store: &Arc<Store>) {
        self.0.push(Claim { promised, store: Arc::downgrade(store) });
    }
}
