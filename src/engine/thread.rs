//! The engine thread.

use std::sync::Arc;

use crate::engine::Setup;
use crate::engine::command::{Command, Event, SharedStats};
use crate::engine::inbox::{Inbox, closed};

/// Runs until it is closed.
pub fn main(setup: Setup, inbox: Arc<Inbox>, _stats: SharedStats) {
    drop(setup);
    loop {
        inbox.wait();
        for command in inbox.take() {
            match command {
                Command::Close => {
                    inbox.close();
                    inbox.finish();
                    return;
                }
                Command::Generate(generate) => {
                    generate.events.push(Event::Failed(closed("model"), None));
                    inbox.ended();
                }
                Command::Score { reply, .. } => reply(Err(closed("model"))),
                Command::SessionOpen(_, reply) => reply(Ok(())),
                Command::SessionFork { reply, .. }
                | Command::SessionRewind { reply, .. }
                | Command::SessionClose(_, reply) => reply(Ok(())),
                Command::Cancel(..) | Command::Resume(_) => {}
            }
        }
    }
}
