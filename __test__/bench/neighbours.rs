//! Decode beside others: tokens a second alone, beside a busy process on one of the cores, and
//! under quotas of CPU time. `cargo bench --bench neighbours -- FILE [seconds]`, as root for the
//! quotas. Each measurement is a process of its own; two rounds, alternating.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool for developers")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use node_chord::backend::cpu::{Config, Cpu};
use node_chord::backend::{Backend, Batch, PAGE_TOKENS, PageId, Row};
use node_chord::store::Store;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Threads, busy processes beside, quota of CPUs.
const CASES: &[(&str, usize, Option<f64>)] = &[
    ("auto", 0, None),
    ("2", 0, None),
    ("1", 0, None),
    ("auto", 1, None),
    ("2", 1, None),
    ("1", 1, None),
    ("auto", 2, None),
    ("1", 2, None),
    ("auto", 0, Some(1.5)),
    ("2", 0, Some(1.5)),
    ("1", 0, Some(1.5)),
    ("auto", 0, Some(1.0)),
    ("2", 0, Some(1.0)),
    ("1", 0, Some(1.0)),
];
/// Where a measurement's rate and threads are not counted: the engine's own warming up.
const WARM: Duration = Duration::from_millis(1500);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match args.first().map(String::as_str) {
        Some("--busy") => busy(),
        Some("--decode") => decode(&args[1], &args[2], args[3].parse().unwrap()),
        Some(file) => compare(file, args.get(1).map_or("3", String::as_str)),
        None => println!("usage: neighbours FILE [seconds]"),
    }
}

/// A process that wants a core.
fn busy() {
    let mut x = 1u64;
    loop {
        x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

fn compare(file: &str, seconds: &str) {
    println!("| threads | beside | quota | tok/s | |");
    println!("| --- | --- | --- | --- | --- |");
    let mut rates = vec![Vec::new(); CASES.len()];
    for _ in 0..2 {
        for (rates, (threads, beside, quota)) in rates.iter_mut().zip(CASES) {
            rates.push(measure(&[file, threads, seconds], *beside, *quota));
        }
    }
    for (rates, (threads, beside, quota)) in rates.iter().zip(CASES) {
        let quota = quota.map_or("none".to_owned(), |quota| quota.to_string());
        println!("| {threads} | {beside} | {quota} | {} |", rates.join(" | "));
    }
}

/// The rate that a decoding process prints.
fn measure(args: &[&str], beside: usize, quota: Option<f64>) -> String {
    let group = quota.map(|quota| Group::new(quota).ok_or("no control group here".to_owned()));
    let group = match group.transpose() {
        Ok(group) => group,
        Err(text) => return text,
    };
    let this = std::env::current_exe().unwrap();
    let mut others: Vec<Child> = Vec::new();
    for _ in 0..beside {
        others.push(Command::new(&this).arg("--busy").spawn().unwrap());
    }
    let mut command = Command::new(&this);
    command.arg("--decode").args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    if let Some(group) = &group {
        group.take(child.id());
    }
    // It starts when its input ends: not before it is in its group.
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    for other in &mut others {
        other.kill().unwrap();
        other.wait().unwrap();
    }
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A control group with a quota of CPU time, version 1 or 2.
struct Group(PathBuf);

impl Group {
    fn new(quota: f64) -> Option<Self> {
        let name = format!("chord-bench-{}", std::process::id());
        let micros = (quota * 100_000.0).round();
        let v1 = Path::new("/sys/fs/cgroup/cpu").join(&name);
        if std::fs::create_dir(&v1).is_ok() {
            std::fs::write(v1.join("cpu.cfs_period_us"), "100000").ok()?;
            std::fs::write(v1.join("cpu.cfs_quota_us"), micros.to_string()).ok()?;
            return Some(Group(v1));
        }
        let root = Path::new("/sys/fs/cgroup");
        let _ = std::fs::write(root.join("cgroup.subtree_control"), "+cpu");
        let v2 = root.join(&name);
        std::fs::create_dir(&v2).ok()?;
        std::fs::write(v2.join("cpu.max"), format!("{micros} 100000")).ok()?;
        Some(Group(v2))
    }

    fn take(&self, process: u32) {
        std::fs::write(self.0.join("cgroup.procs"), process.to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Decodes for some seconds; prints the rate and the barriers of a pass.
fn decode(path: &str, threads: &str, seconds: f64) {
    let _ = std::io::read_to_string(std::io::stdin());
    let file = node_chord::gguf::File::open(Path::new(path)).unwrap();
    let plan = Arc::new(node_chord::model::plan(&file).unwrap());
    let store = Store::open(&file, &plan).unwrap();
    let config = Config { threads: threads.parse().ok(), ..Config::default() };
    let mut cpu = Cpu::new(plan.clone(), config).unwrap();
    let pages: Vec<_> = (0..8).map(PageId).collect();
    pages.iter().for_each(|page| cpu.page_commit(*page).unwrap());
    let sequences = vec![pages];
    let start = Instant::now();
    let (mut passes, mut warm) = (0, None);
    loop {
        let position = (passes % (8 * PAGE_TOKENS)) as u32;
        let row = Row { token: 7, position, sequence: 0, wants_logits: true };
        cpu.begin(&Batch { rows: vec![row], sequences: sequences.clone() }).unwrap();
        for group in plan.group_ids() {
            cpu.run(group, &store.acquire(group).unwrap(), None).unwrap();
        }
        passes += 1;
        let at = Instant::now();
        if warm.is_none() && at - start > WARM {
            warm = Some((passes, at));
        }
        if let Some((before, since)) = warm
            && (at - since).as_secs_f64() > seconds
        {
            let rate = (passes - before) as f64 / (at - since).as_secs_f64();
            return println!("{rate:.1}");
        }
    }
}
