//! The addon: napi classes that convert, send a command and deliver what comes back. Options were
//! checked in JavaScript; nothing here runs model, disk or tokeniser work on its thread.
#![cfg_attr(test, allow(dead_code, reason = "tests register nothing with Node"))]

mod batch;
mod generation;
mod load;
mod model;
mod promise;
mod request;
mod session;
mod slot;
mod teardown;
mod text;

use napi_derive::napi;

use crate::tools::features;

/// This crate's version, which is the package's.
#[napi]
#[must_use]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// JSON of `Features`, but for the platform.
#[napi(catch_unwind, js_name = "features")]
#[must_use]
pub fn features_json() -> String {
    features::features()
}

/// Kernel tiers of this CPU, slowest first.
#[napi(catch_unwind)]
#[must_use]
pub fn tiers() -> Vec<String> {
    features::tiers()
}

/// Stops every engine of this environment and waits for it, at most a second.
#[napi(catch_unwind)]
pub fn shutdown() {
    teardown::shutdown();
}
