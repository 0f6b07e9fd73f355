//! A scripted world for the engine: a backend whose logits are a hash of the whole history that it
//! finds in its pages, so that any mistake with pages, positions or rollback changes the answer.
//! Counts pages, and fails, panics or waits where a test says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use node_chord::backend::{Backend, Batch, PAGE_TOKENS, PageId, Probe};
use node_chord::engine::bounds::Bounds;
use node_chord::engine::sampler::{Sampler, Sampling};
use node_chord::engine::vocabulary::{Decode, Vocabulary, Weights};
use node_chord::engine::{self, Handle, Setup};
use node_chord::error::{Code, Error, Result};
use node_chord::plan::{Group, GroupId, GroupKind, Plan, ValueId};
use node_chord::store::Lease;

pub const N_VOCAB: usize = 60;
/// Ends a generation; likely enough to come up in a long one.
pub const EOG: u32 = 0;
const N_GROUPS: usize = 4;
/// Groups that write keys and values; each has a layer of the KV cache.
const KV_GROUPS: [usize; 2] = [0, 2];

/// What a test does to the world, and sees of it.
#[derive(Default)]
pub struct Control {
    pub pages: AtomicUsize,
    pub pages_peak: AtomicUsize,
    pub groups: AtomicUsize,
    pub passes: AtomicUsize,
    pub rows_max: AtomicUsize,
    /// Microseconds that a group takes.
    pub group_us: AtomicUsize,
    /// Groups until one fails; negative: never.
    pub fail_in: AtomicI64,
    pub panic_now: AtomicBool,
    pub nan_now: AtomicBool,
    pub dropped: AtomicBool,
}

pub struct Double {
    control: Arc<Control>,
    pages: HashMap<PageId, [[u64; PAGE_TOKENS]; 2]>,
    batch: Batch,
    logits: Vec<f32>,
}

impl Drop for Double {
    fn drop(&mut self) {
        self.control.dropped.store(true, Ordering::SeqCst);
    }
}

impl Double {
    fn entry(&mut self, sequence: u32, position: u32, layer: usize) -> &mut u64 {
        let position = position as usize;
        let page = self.batch.sequences[sequence as usize][position / PAGE_TOKENS];
        &mut self.pages.get_mut(&page).expect("committed")[layer][position % PAGE_TOKENS]
    }

    fn write(&mut self, layer: usize) {
        for row in self.batch.rows.clone() {
            *self.entry(row.sequence, row.position, layer) = kv(row.token, row.position, layer);
        }
    }

    fn compute(&mut self) {
        self.logits.clear();
        for row in self.batch.rows.clone().iter().filter(|row| row.wants_logits) {
            let mut state = 0;
            for position in 0..=row.position {
                for layer in 0..KV_GROUPS.len() {
                    state = mix(state ^ *self.entry(row.sequence, position, layer));
                }
            }
            self.logits.extend(logits_of_state(state));
        }
        if self.control.nan_now.load(Ordering::SeqCst) {
            self.logits.fill(f32::NAN);
        }
    }
}

impl Backend for Double {
    fn name(&self) -> &str {
        "double"
    }

    fn tier(&self) -> &str {
        "none"
    }

    fn page_commit(&mut self, page: PageId) -> Result<()> {
        let poison = [[0xDEAD_BEEF; PAGE_TOKENS]; 2];
        assert!(self.pages.insert(page, poison).is_none(), "{page:?} is committed already");
        self.control.pages.store(self.pages.len(), Ordering::SeqCst);
        self.control.pages_peak.fetch_max(self.pages.len(), Ordering::SeqCst);
        Ok(())
    }

    fn page_free(&mut self, page: PageId) {
        assert!(self.pages.remove(&page).is_some(), "{page:?} is not committed");
        self.control.pages.store(self.pages.len(), Ordering::SeqCst);
    }

    fn page_copy(&mut self, from: PageId, to: PageId, tokens: usize) -> Result<()> {
        let source = self.pages[&from];
        let target = self.pages.get_mut(&to).expect("committed");
        for (target, source) in target.iter_mut().zip(source) {
            target[..tokens].copy_from_slice(&source[..tokens]);
        }
        Ok(())
    }

    fn page_bytes(&self) -> usize {
        1024
    }

    fn scratch_bytes(&self) -> usize {
        0
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        for (index, pages) in batch.sequences.iter().enumerate() {
            assert!(pages.iter().all(|page| self.pages.contains_key(page)));
            let rows = batch.rows.iter().filter(|row| row.sequence as usize == index);
            let last = rows.map(|row| row.position as usize).max().expect("rows");
            assert!(last < pages.len() * PAGE_TOKENS, "positions without pages");
        }
        assert!(batch.rows.iter().all(|row| (row.token as usize) < N_VOCAB));
        self.control.passes.fetch_add(1, Ordering::SeqCst);
        self.control.rows_max.fetch_max(batch.rows.len(), Ordering::SeqCst);
        self.batch = batch.clone();
        Ok(())
    }

    fn run(&mut self, group: GroupId, _: &Lease<'_>, _: Option<Probe<'_>>) -> Result<()> {
        self.control.groups.fetch_add(1, Ordering::SeqCst);
        let us = self.control.group_us.load(Ordering::SeqCst);
        if us > 0 {
            std::thread::sleep(Duration::from_micros(us as u64));
        }
        assert!(!self.control.panic_now.load(Ordering::SeqCst), "as the test wants");
        if self.control.fail_in.load(Ordering::SeqCst) >= 0
            && self.control.fail_in.fetch_sub(1, Ordering::SeqCst) == 0
        {
            return Err(Error::new(Code::Io, "scripted failure"));
        }
        let group = group.0 as usize;
        if let Some(layer) = KV_GROUPS.iter().position(|&writer| writer == group) {
            self.write(layer);
        }
        if group == N_GROUPS - 1 {
            self.compute();
        }
        Ok(())
    }

    fn logits(&self) -> &[f32] {
        &self.logits
    }
}

/// Token t is the letter t of an alphabet with two-byte characters in it; control tokens none.
pub struct Letters;

impl Vocabulary for Letters {
    fn n_vocab(&self) -> usize {
        N_VOCAB
    }

    fn eog(&self) -> &[u32] {
        &[EOG]
    }

    fn bytes(&self, token: u32) -> Vec<u8> {
        letter(token).into_bytes()
    }

    fn decoder(self: Arc<Self>) -> Box<dyn Decode> {
        Box::new(Letters)
    }
}

impl Decode for Letters {
    fn push(&mut self, token: u32) -> String {
        letter(token)
    }

    fn finish(&mut self) -> String {
        String::new()
    }
}

pub fn letter(token: u32) -> String {
    if token == EOG {
        return String::new();
    }
    char::from_u32(0x60 + token).expect("a letter").to_string()
}

struct NoWeights;

impl Weights for NoWeights {
    fn acquire(&self, _: GroupId) -> Result<Lease<'_>> {
        Ok(Lease::new(&[]))
    }
}

/// The shape of an engine over the double.
#[derive(Clone, Copy)]
pub struct Shape {
    pub kv_pages: usize,
    pub n_ctx: usize,
    pub max_concurrent: usize,
    pub max_queued: usize,
    pub chunk: Option<usize>,
}

pub const SHAPE: Shape =
    Shape { kv_pages: 64, n_ctx: 1024, max_concurrent: 4, max_queued: 64, chunk: None };

pub fn start(shape: Shape) -> (Handle, Arc<Control>) {
    let control = Arc::new(Control { fail_in: AtomicI64::new(-1), ..Control::default() });
    let backend = Double {
        control: control.clone(),
        pages: HashMap::new(),
        batch: Batch::default(),
        logits: Vec::new(),
    };
    let group = Group { kind: GroupKind::Output, steps: Vec::new() };
    let plan = Plan {
        weights: Vec::new(),
        values: Vec::new(),
        groups: vec![group; N_GROUPS],
        kv_layers: Vec::new(),
        logits: ValueId(0),
        n_vocab: N_VOCAB,
        n_embd: 1,
        n_ctx_train: shape.n_ctx,
    };
    let setup = Setup {
        backend: Box::new(backend),
        plan: Arc::new(plan),
        store: Arc::new(NoWeights),
        files: Vec::new(),
        tokenizer: Arc::new(Letters),
        n_ctx: shape.n_ctx,
        max_concurrent: shape.max_concurrent,
        max_queued: shape.max_queued,
        chunk: shape.chunk,
        bounds: Bounds {
            rows: 512,
            generations: shape.max_concurrent,
            logits_rows: 64,
            kv_pages: shape.kv_pages,
            streams: false,
        },
    };
    (engine::start(setup).expect("a thread"), control)
}

/// What the double says after these tokens.
pub fn logits(tokens: &[u32]) -> Vec<f32> {
    let mut state = 0;
    for (position, &token) in tokens.iter().enumerate() {
        for layer in 0..KV_GROUPS.len() {
            state = mix(state ^ kv(token, position as u32, layer));
        }
    }
    logits_of_state(state).collect()
}

/// The answer of an engine that does nothing else: at most `max` tokens, and whether EOG ended it.
pub fn expected(prompt: &[u32], sampling: &Sampling, max: usize) -> (Vec<u32>, bool) {
    let mut sampler = Sampler::new(sampling.clone(), N_VOCAB).expect("valid");
    let (mut tokens, mut answer) = (prompt.to_vec(), Vec::new());
    while answer.len() < max {
        let token = sampler.draw(&logits(&tokens), &tokens, answer.len() as u64).expect("a token");
        if token == EOG {
            return (answer, true);
        }
        tokens.push(token);
        answer.push(token);
    }
    (answer, false)
}

fn kv(token: u32, position: u32, layer: usize) -> u64 {
    mix((u64::from(token) << 40) ^ (u64::from(position) << 8) ^ layer as u64)
}

fn logits_of_state(state: u64) -> impl Iterator<Item = f32> {
    (0..N_VOCAB as u64).map(move |id| (mix(state ^ (id << 50)) >> 40) as f32 / 2_000_000.0)
}

/// The finaliser of SplitMix64.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
