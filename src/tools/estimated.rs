//! An estimate, and what was recorded to compare with it, as the JSON of the public surface.

use serde_json::{Value, json};

use crate::load::budget::Memory;
use crate::load::estimate::Estimate;
use crate::store::trace::{self, What};
use crate::store::{GroupStats, Place};

/// `Estimate`, and `disk` beside it; the limit is null if nobody says.
#[must_use]
pub fn estimate(estimate: &Estimate) -> String {
    let placement = &estimate.placement;
    json!({
        "fits": estimate.fits,
        "ram": budget(&placement.budget),
        "vram": {},
        "minimum": { "ram": placement.minimum, "vram": 0 },
        "bytesPerPass": placement.bytes_per_pass,
        "contextLength": placement.n_ctx,
        "tokensPerSecond": estimate.speed.decode,
        "promptTokensPerSecond": estimate.speed.prompt,
        "groups": estimate.groups.iter().map(group).collect::<Vec<_>>(),
        "disk": estimate.disk,
    })
    .to_string()
}

/// Has the store remember so many events from now on.
pub fn trace_start(events: usize) {
    trace::start(events);
}

/// What the store has remembered: events of what, group, start and end in seconds.
#[must_use]
pub fn trace() -> String {
    let name = |what| match what {
        What::Read => "read",
        What::Wait => "wait",
        What::Compute => "compute",
    };
    let events = trace::take().into_iter().map(|event| {
        json!({
            "what": name(event.what), "group": event.group,
            "start": event.start, "end": event.end,
        })
    });
    Value::Array(events.collect()).to_string()
}

/// `Budget`.
#[must_use]
pub fn budget(memory: &Memory) -> Value {
    json!({
        "limit": memory.limit, "weights": memory.weights, "ring": memory.ring, "kv": memory.kv,
        "activations": memory.activations, "scratch": memory.scratch,
        "staging": memory.staging, "total": memory.total(),
    })
}

/// `Group`.
#[must_use]
pub fn group(group: &GroupStats) -> Value {
    let place = match group.place {
        Place::Pinned => "pinned",
        Place::Streamed => "streamed",
        Place::Cached => "cached",
    };
    json!({ "name": group.name, "bytes": group.bytes, "device": "cpu", "place": place })
}
