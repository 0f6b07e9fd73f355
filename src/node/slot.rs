//! Where a model keeps its vocabulary and template: closing it lets go of them at once, however
//! long JavaScript keeps its objects.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::error::{Code, Error, Result};
use crate::tools::chat::Chat;

/// A vocabulary with its template, until it is closed.
#[derive(Clone)]
pub struct Slot(Arc<RwLock<Option<Arc<Chat>>>>);

impl Slot {
    /// Holds it.
    pub fn new(chat: Chat) -> Self {
        Slot(Arc::new(RwLock::new(Some(Arc::new(chat)))))
    }

    /// What it holds. Errors: `ERR_CLOSED`.
    pub fn chat(&self) -> Result<Arc<Chat>> {
        self.0
            .read()
            .clone()
            .ok_or_else(|| Error::new(Code::Closed, "this model was closed").with("what", "model"))
    }

    /// Lets go of it.
    pub fn close(&self) {
        self.0.write().take();
    }
}
