//! What tests of backends share: data of the repository, models held in memory, and a sequence of
//! tokens run through a backend with the logits and the probe's values read back.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use node_chord::backend::{Backend, Batch, KvType, PAGE_TOKENS, PageId, Row};
use node_chord::gguf::File;
use node_chord::model;
use node_chord::plan::{Plan, ValueId};
use node_chord::store::Lease;

/// Makes the backend under test.
pub type Make = fn(Arc<Plan>) -> Box<dyn Backend>;

/// The reference backend.
pub fn reference(plan: Arc<Plan>) -> Box<dyn Backend> {
    let (k, v) = (KvType::F32, KvType::F32);
    Box::new(node_chord::backend::reference::Reference::new(plan, k, v).expect("a checked plan"))
}

/// A path below the repository's root.
pub fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Where a chord model lies, if it does: in the repository, or beside it.
pub fn chord_path(name: &str) -> Option<PathBuf> {
    let file = format!("{name}.gguf");
    let mut places = [root("models").join(&file), root("../shared/models").join(&file)].into_iter();
    places.find(|path| path.exists())
}

/// A compressed file of `__test__/data`, unpacked.
pub fn data(name: &str) -> Vec<u8> {
    let path = root("__test__/data").join(format!("{name}.zst"));
    let packed = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut unpacked = Vec::new();
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(packed.as_slice()).expect("zstd");
    decoder.read_to_end(&mut unpacked).expect("zstd");
    unpacked
}

/// A compressed JSON file of `__test__/data`.
pub fn json(name: &str) -> serde_json::Value {
    serde_json::from_slice(&data(name)).expect("JSON")
}

/// A compressed file of `__test__/data` as a file that can be opened.
pub fn unpacked(name: &str) -> PathBuf {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(name.replace('/', "-"));
    if !path.exists() {
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let part = folder.join(format!("{}-{number}.part", std::process::id()));
        fs::write(&part, data(name)).expect("target/tmp is writable");
        fs::rename(&part, &path).expect("target/tmp is writable");
    }
    path
}

/// A model whose weights lie in memory.
pub struct Model {
    /// Its plan.
    pub plan: Arc<Plan>,
    parts: Vec<Vec<u8>>,
}

impl Model {
    /// Opens a file and reads all of it.
    pub fn open(path: &Path) -> Model {
        let file = File::open(path).expect("a sound file");
        let plan = Arc::new(model::plan(&file).expect("a model that is understood"));
        let parts = file.parts().iter().map(|part| fs::read(&part.path).expect("readable"));
        let parts = parts.collect();
        Model { plan, parts }
    }

    /// Every weight's bytes, by id.
    pub fn slices(&self) -> Vec<Option<&[u8]>> {
        let slice = |weight: &node_chord::plan::Weight| {
            let extent = weight.extent;
            let (from, bytes) = (extent.offset as usize, extent.bytes as usize);
            Some(&self.parts[extent.part as usize][from..from + bytes])
        };
        self.plan.weights.iter().map(slice).collect()
    }
}

/// One sequence on a backend.
pub struct Run<'m> {
    model: &'m Model,
    slices: Vec<Option<&'m [u8]>>,
    backend: Box<dyn Backend>,
    pages: Vec<PageId>,
    length: usize,
}

impl<'m> Run<'m> {
    /// An empty sequence.
    pub fn new(model: &'m Model, make: Make) -> Self {
        let backend = make(model.plan.clone());
        Run { model, slices: model.slices(), backend, pages: Vec::new(), length: 0 }
    }

    /// Appends tokens in one pass; logits of every row, or of the last only.
    pub fn feed(&mut self, tokens: &[u32], all_logits: bool) -> Vec<Vec<f32>> {
        self.feed_probed(tokens, all_logits, &mut |_, _| {})
    }

    /// The same; `probe` sees each value and all its rows.
    pub fn feed_probed(
        &mut self,
        tokens: &[u32],
        all_logits: bool,
        probe: &mut dyn FnMut(ValueId, &[f32]),
    ) -> Vec<Vec<f32>> {
        while self.pages.len() * PAGE_TOKENS < self.length + tokens.len() {
            let page = PageId(u32::try_from(self.pages.len()).expect("few pages"));
            self.backend.page_commit(page).expect("memory for a page");
            self.pages.push(page);
        }
        let last = tokens.len() - 1;
        let row = |(index, token): (usize, &u32)| Row {
            token: *token,
            position: u32::try_from(self.length + index).expect("few tokens"),
            sequence: 0,
            wants_logits: all_logits || index == last,
        };
        let rows = tokens.iter().enumerate().map(row).collect();
        let batch = Batch { rows, sequences: vec![self.pages.clone()] };
        self.backend.begin(&batch).expect("a sound batch");
        let lease = Lease::new(&self.slices);
        for group in self.model.plan.group_ids() {
            let mut seen = |_, _, value, data: &[f32]| probe(value, data);
            self.backend.run(group, &lease, Some(&mut seen)).expect("a group that runs");
        }
        self.length += tokens.len();
        let n_vocab = self.model.plan.n_vocab;
        self.backend.logits().chunks_exact(n_vocab).map(<[f32]>::to_vec).collect()
    }
}

/// -ln softmax(logits)[token], in f64.
pub fn nll(logits: &[f32], token: u32) -> f64 {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - highest).exp()).sum();
    sum.ln() + f64::from(highest - logits[token as usize])
}

/// |a - b| / |b|, both as L2 norms.
pub fn relative_l2(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "compared vectors have one length");
    let difference: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    let size: f64 = b.iter().map(|b| b * b).sum();
    (difference / size.max(f64::MIN_POSITIVE)).sqrt()
}
