//! Figures of a real model under a budget, beside the rate at which the same way of reading reads
//! the same file with nothing else to do: `CHORD_FILE=m.gguf CHORD_RAM=1900000000 cargo test
//! --release --test rust -- --ignored streaming::figures --nocapture`, under a memory limit and
//! with a cold cache if they are to mean something.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use node_chord::gguf::File;
use node_chord::load::{LoadOptions, Loaded, load};
use node_chord::place::Io;
use node_chord::store::io::buffer::{Buffer, Target};
use node_chord::store::io::{Read, opener};
use node_chord::store::{GroupStats, Place, StoreStats};

use crate::engine::client::{request, run};

/// Bytes read to know a disk's rate.
const SAMPLE: u64 = 512 << 20;
const BLOCK: u64 = 1 << 20;
/// Blocks of memory read into, in turn: as with weights, more than the processor's caches hold.
/// Into four blocks over and over, a disk reads a tenth faster.
const BLOCKS: u64 = 128;
/// Reads on their way while a disk's rate is measured.
const DEPTHS: [u64; 4] = [2, 4, 8, 32];
/// The depth of the measurements between which tokens are put: disks here are fastest near it.
const DEPTH: u64 = 4;
const TURNS: u64 = 8;

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

/// MB/s of reading some of a file from a place on, around the page cache, with nothing else to do.
fn disk(path: &Path, depth: u64, from: u64) -> f64 {
    let file = File::open(path).unwrap();
    let part = &file.parts()[0];
    let mut buffers = [Buffer::new(BLOCKS * BLOCK).unwrap()];
    let mut io = (opener(file.parts(), true))(&mut buffers).unwrap().io;
    let [buffer] = buffers;
    let (_lent, mut rest) = buffer.lend();
    let sample = SAMPLE.min(part.bytes / BLOCK * BLOCK);
    let from = from.min(part.bytes - sample) / BLOCK * BLOCK;
    let mut free: VecDeque<Target> = (0..BLOCKS)
        .map(|_| {
            let after = rest.split_off(BLOCK as usize);
            std::mem::replace(&mut rest, after)
        })
        .collect();
    let began = Instant::now();
    for done in 0..depth + sample / BLOCK {
        if done >= depth {
            free.push_back(io.wait().unwrap().read.target);
        }
        if done < sample / BLOCK {
            let target = free.pop_front().unwrap();
            io.submit(Read { tag: 0, part: 0, offset: from + done * BLOCK, target });
        }
    }
    sample as f64 / 1e6 / began.elapsed().as_secs_f64()
}

fn tell_placement(loaded: &Loaded) {
    let placement = &loaded.placement;
    println!("budget: {:?}", placement.budget);
    let Some(residence) = &placement.streamed else { return };
    println!(
        "minimum {}, {} of {} groups pinned, ring {} x {}, {} experts of {}, {} B a pass, rows {}",
        placement.minimum,
        residence.pinned.iter().filter(|pinned| **pinned).count(),
        residence.pinned.len(),
        residence.slots,
        residence.slot_bytes,
        residence.expert_slots,
        residence.expert_bytes,
        placement.bytes_per_pass,
        placement.size.rows
    );
}

/// What some tokens have cost.
fn tell(what: &str, (rows, passes): (usize, usize), s: f64, before: &StoreStats, now: &StoreStats) {
    let read = (now.device_bytes - before.device_bytes) as f64 / 1e6;
    println!(
        "{what}: {rows} rows in {s:.3} s, {:.4} tok/s, {read:.0} MB = {:.0} MB/s, {:.1} MB a pass, \
         stall {:.0} ms",
        rows as f64 / s,
        read / s,
        read / passes as f64,
        now.stall_ms - before.stall_ms
    );
    let counted = |of: fn(&GroupStats) -> u64, place: Place| -> u64 {
        let sum = |stats: &StoreStats| -> u64 {
            let is_wanted = |g: &&GroupStats| g.place == place && g.name != "embedding";
            stats.groups.iter().filter(is_wanted).map(of).sum()
        };
        sum(now) - sum(before)
    };
    let figures: [fn(&GroupStats) -> u64; 3] = [|g| g.hits, |g| g.late, |g| g.misses];
    let [hits, late, misses] = figures.map(|of| counted(of, Place::Streamed));
    let in_time = 100.0 * hits as f64 / (hits + late + misses).max(1) as f64;
    println!(
        "  streamed groups: {hits} hits, {late} late, {misses} misses: {in_time:.1} % in time"
    );
    let [hits, late, misses] = figures.map(|of| counted(of, Place::Cached));
    if hits + late + misses > 0 {
        let rate = 100.0 * hits as f64 / (hits + late + misses) as f64;
        let per_pass = |now: u64, before: u64| (now - before) as f64 / 1e6 / passes as f64;
        let bytes = per_pass(now.expert_bytes, before.expert_bytes);
        let guessed = per_pass(now.guessed_bytes, before.guessed_bytes);
        println!(
            "  experts: {hits} hits, {late} late, {misses} misses: {rate:.1} %, {bytes:.2} MB a \
             pass, {guessed:.2} of them guessed, {} guesses of which {} were right",
            counted(|g| g.guessed, Place::Cached),
            counted(|g| g.guessed_right, Place::Cached)
        );
    }
}

fn stats(loaded: &Loaded) -> StoreStats {
    loaded.store.upgrade().unwrap().stats()
}

/// Generates `tokens` tokens after a prompt that is not known yet; the seconds this took.
fn generate(loaded: &Loaded, prompt: usize, tokens: usize) -> f64 {
    let began = Instant::now();
    let salt = stats(loaded).bytes_read as u32 % 1000;
    let most = loaded.plan.n_vocab as u32 - 10;
    let prompt: Vec<u32> = (0..prompt as u32).map(|i| 10 + (i * 7 + salt) % most).collect();
    let mut generate = request(None, &prompt, tokens);
    generate.limits.ignore_eos = true;
    run(&loaded.handle, generate).outcome();
    began.elapsed().as_secs_f64()
}

/// A pass that computes nothing: what the ring and the loader make of the disk.
fn walk(loaded: &Loaded) {
    let store = loaded.store.upgrade().unwrap();
    for group in loaded.plan.group_ids() {
        drop(store.acquire(group).unwrap());
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Takes turns: tokens, the same reads with nothing to compute, and the disk alone; tells medians
/// of the rates and of each turn's shares. What is read ahead while the disk is measured counts
/// for none of them.
fn turns(path: &Path, loaded: &Loaded) {
    let rate = |pass: &dyn Fn()| {
        let (before, began) = (stats(loaded).device_bytes, Instant::now());
        pass();
        (stats(loaded).device_bytes - before) as f64 / 1e6 / began.elapsed().as_secs_f64()
    };
    let turns: Vec<[f64; 3]> = (0..count("CHORD_TURNS", TURNS) as u64)
        .map(|i| {
            let decode = rate(&|| _ = generate(loaded, 1, 2));
            let disk = disk(path, DEPTH, i * SAMPLE);
            [decode, rate(&|| walk(loaded)), disk]
        })
        .collect();
    let [decode, alone, disk] = [0, 1, 2].map(|of| median(turns.iter().map(|turn| turn[of])));
    let [of_alone, of_disk] =
        [1, 2].map(|of| 100.0 * median(turns.iter().map(|turn| turn[0] / turn[of])));
    println!(
        "{} turns: decode {decode:.0} MB/s, {of_alone:.0} % of the same reads alone \
         ({alone:.0}), {of_disk:.0} % of the disk ({disk:.0})",
        turns.len()
    );
}

#[test]
#[ignore = "measures a model that CHORD_FILE names"]
fn decode_and_prefill_of_a_streamed_model() {
    let Ok(path) = std::env::var("CHORD_FILE") else { return println!("skipped: no CHORD_FILE") };
    let path = Path::new(&path);
    let reads = std::env::var("CHORD_LIMIT").is_ok();
    if reads {
        println!("disk before: {:.0?} MB/s", DEPTHS.map(|depth| disk(path, depth, 0)));
    }
    let began = Instant::now();
    let loaded = load(path, &options(), &mut |_, _| {}, &AtomicBool::new(false)).unwrap();
    println!("load: {:.3} s", began.elapsed().as_secs_f64());
    tell_placement(&loaded);
    let prompt_tokens = count("CHORD_PROMPT", 512);
    for (what, prompt, tokens) in [
        ("first token", 1, 1),
        ("second token", 1, 1),
        ("decode", 1, count("CHORD_TOKENS", 8)),
        ("prefill", prompt_tokens, 1),
        ("prefill again", prompt_tokens, usize::from(reads)),
    ] {
        if prompt == 0 || tokens == 0 {
            continue;
        }
        let before = stats(&loaded);
        let s = generate(&loaded, prompt, tokens);
        tell(what, (prompt + tokens - 1, tokens), s, &before, &stats(&loaded));
    }
    if reads && loaded.placement.streamed.is_some() && count("CHORD_TURNS", TURNS) > 0 {
        turns(path, &loaded);
    }
    let stats = stats(&loaded);
    println!("{} {:?} {:.0} MB/s", stats.backend, stats.reason, stats.bytes_per_second / 1e6);
    drop(loaded);
    if reads {
        println!("disk after: {:.0?} MB/s", DEPTHS.map(|depth| disk(path, depth, SAMPLE)));
    }
}
