//! Figures of a real model under a budget: `CHORD_FILE=m.gguf CHORD_RAM=1900000000 ... -- --ignored
//! streaming::figures --nocapture`, under a memory limit and with a cold cache if they are to mean
//! something.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use node_chord::load::{LoadOptions, load};
use node_chord::place::Io;

use crate::engine::client::{request, run};

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn count(name: &str, or: u64) -> usize {
    variable(name).unwrap_or(or) as usize
}

fn options() -> LoadOptions {
    let io = match std::env::var("CHORD_IO").as_deref() {
        Ok("buffered") => Io::Buffered,
        Ok("direct") => Io::Direct,
        Ok("mmap") => Io::Mapped,
        _ => Io::Auto,
    };
    LoadOptions {
        ram_bytes: variable("CHORD_RAM"),
        prefetch: variable("CHORD_PREFETCH").map(|groups| groups as usize),
        n_ctx: Some(count("CHORD_CTX", 768)),
        io,
        ..LoadOptions::default()
    }
}

#[test]
#[ignore = "measures a model that CHORD_FILE names"]
fn decode_and_prefill_of_a_streamed_model() {
    let Ok(path) = std::env::var("CHORD_FILE") else { return println!("skipped: no CHORD_FILE") };
    let options = options();
    let began = Instant::now();
    let loaded = load(Path::new(&path), &options, &mut |_, _| {}, &AtomicBool::new(false)).unwrap();
    println!("load: {:.3} s", began.elapsed().as_secs_f64());
    let placement = &loaded.placement;
    println!("budget: {:?}", placement.budget);
    if let Some(residence) = &placement.streamed {
        let pinned = residence.pinned.iter().filter(|pinned| **pinned).count();
        println!(
            "minimum {}, {} of {} groups pinned, ring {} x {}, {} experts, {} B a pass, rows {}",
            placement.minimum,
            pinned,
            residence.pinned.len(),
            residence.slots,
            residence.slot_bytes,
            residence.expert_slots,
            placement.bytes_per_pass,
            placement.size.rows
        );
    }
    for (what, prompt, tokens) in [
        ("first pass", 1, 1),
        ("decode", 1, count("CHORD_TOKENS", 8)),
        ("prefill", count("CHORD_PROMPT", 512), 1),
    ] {
        let before = loaded.store.upgrade().unwrap().stats();
        let began = Instant::now();
        let prompt: Vec<u32> = (0..prompt as u32).map(|i| 1000 + i * 7 % 20_000).collect();
        let mut generate = request(None, &prompt, tokens);
        generate.limits.ignore_eos = true;
        run(&loaded.handle, generate).outcome();
        let s = began.elapsed().as_secs_f64();
        let after = loaded.store.upgrade().unwrap().stats();
        let read = (after.device_bytes - before.device_bytes) as f64;
        println!(
            "{what}: {} + {tokens} tokens in {s:.3} s, {:.4} tok/s, {:.0} MB read = {:.0} MB/s, \
             stall {:.0} ms",
            prompt.len(),
            (prompt.len() + tokens - 1) as f64 / s,
            read / 1e6,
            read / 1e6 / s,
            after.stall_ms - before.stall_ms
        );
    }
    let stats = loaded.store.upgrade().unwrap().stats();
    println!("{} {:?} {:.0} MB/s", stats.backend, stats.reason, stats.bytes_per_second / 1e6);
    let sum = |of: fn(&node_chord::store::GroupStats) -> u64| stats.groups.iter().map(of).sum();
    let (hits, late, misses): (u64, u64, u64) =
        (sum(|g| g.hits), sum(|g| g.late), sum(|g| g.misses));
    println!("hits {hits}, late {late}, misses {misses}");
}
