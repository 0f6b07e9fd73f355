//! Attention alone: every KV type, tier, head size, window of a context and split gives the bits of
//! the portable tier on one thread, on pages that end (or begin) where nobody may read; and is near
//! attention in f64. On models: how far each type is from f32, and that cuts do not show.

use crate::kernels::{Guarded, Random};
use crate::runner::{Make, Model, Run, chord_path, json, nll};
use node_chord::backend::cpu::kernel::attend::PageView;
use node_chord::backend::cpu::kernel::attend::job::{Attention, Room, Span, attend};
use node_chord::backend::cpu::kv::Pages;
use node_chord::backend::cpu::pool::Pool;
use node_chord::backend::cpu::simd::Tier;
use node_chord::backend::cpu::{Config, Cpu};
use node_chord::backend::{Backend, KvType, PAGE_TOKENS, PageId};
use node_chord::error::Code;
use node_chord::plan::{Attend, KvLayer, KvLayerId, Plan};
use std::sync::Arc;

/// Heads, kv heads, sizes of key and value heads.
const SHAPES: [(usize, usize, usize, usize); 6] =
    [(8, 2, 64, 64), (4, 4, 32, 96), (7, 1, 128, 32), (6, 2, 80, 48), (5, 1, 10, 6), (3, 3, 1, 17)];
/// Rows of a pass, and the context that they end.
const PLACES: [(usize, usize); 8] =
    [(1, 1), (1, 32), (3, 33), (1, 257), (9, 260), (70, 300), (1, 800), (2, 1030)];
/// Relative error (L2) that a type may have on random numbers, where few keys average nothing out.
const NEAR: [f64; 5] = [2e-6, 5e-4, 4e-3, 1.5e-2, 0.25];

/// Queries, keys and values of one layer.
struct Case {
    shape: Attend,
    rows: usize,
    context: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Case {
    fn new((n_head, n_head_kv, k, v): (usize, usize, usize, usize), at: (usize, usize)) -> Case {
        let scale = 1.0 / (k as f32).sqrt();
        let kv = KvLayerId(0);
        let shape = Attend { kv, n_head, n_head_kv, head_dim_k: k, head_dim_v: v, scale };
        let (rows, context) = at;
        let random = &mut Random((n_head * k + context) as u64);
        let mut numbers = |n: usize| (0..n).map(|_| 2.0 * random.float()).collect::<Vec<f32>>();
        let (q, k) = (numbers(rows * n_head * k), numbers(context * n_head_kv * k));
        Case { shape, rows, context, q, k, v: numbers(context * n_head_kv * v) }
    }

    fn layer(&self) -> KvLayer {
        let Attend { n_head_kv, head_dim_k, head_dim_v, .. } = self.shape;
        KvLayer { n_head_kv, head_dim_k, head_dim_v }
    }

    /// Pages with everything appended by a tier, some tokens at a time; beyond the context, NaN.
    fn pages(&self, tier: Tier, kinds: [KvType; 2]) -> Option<Pages> {
        let mut pages = Pages::new(&[self.layer()], kinds[0], kinds[1]).ok()?;
        let (k, v) = (self.k.len() / self.context, self.v.len() / self.context);
        let odd = vec![f32::NAN; k.max(v) * PAGE_TOKENS];
        for page in 0..self.context.div_ceil(PAGE_TOKENS) {
            let id = PageId(page as u32);
            pages.commit(id).expect("memory");
            let whole = (&odd[..k * PAGE_TOKENS], &odd[..v * PAGE_TOKENS]);
            pages.append(tier, KvLayerId(0), (id, 0), whole);
            let (mut at, end) = (page * PAGE_TOKENS, self.context.min((page + 1) * PAGE_TOKENS));
            while at < end {
                let next = end.min(at + 1 + at % 7);
                let part = (&self.k[at * k..next * k], &self.v[at * v..next * v]);
                pages.append(tier, KvLayerId(0), (id, at % PAGE_TOKENS), part);
                at = next;
            }
        }
        Some(pages)
    }

    /// Output bits on pages between guards.
    fn run(&self, tier: Tier, threads: usize, pages: &Pages, at_end: bool) -> Vec<f32> {
        let ids = (0..self.context.div_ceil(PAGE_TOKENS)).map(|page| PageId(page as u32));
        let views: Vec<PageView<'_>> = ids.map(|id| pages.view(KvLayerId(0), id)).collect();
        let guarded: Vec<_> = views
            .iter()
            .map(|view| (Guarded::new(view.k, at_end), Guarded::new(view.v, at_end)))
            .collect();
        let views: Vec<PageView<'_>> =
            guarded.iter().map(|(k, v)| PageView { k: k.get(), v: v.get() }).collect();
        let page = |_: usize, page: usize| views[page];
        let q = Guarded::new(&self.q, at_end);
        let width = self.shape.n_head * self.shape.head_dim_v;
        let mut out = Guarded::new(&vec![0.0f32; self.rows * width], at_end);
        let mut room = Room::new(threads);
        room.reserve(&self.shape).expect("memory");
        let position = self.context - self.rows;
        let spans = [Span { rows: 0..self.rows, position, sequence: 0 }];
        let kv = pages.layer(KvLayerId(0)).expect("a layer");
        let job = Attention { attend: &self.shape, kv, q: q.get(), spans: &spans };
        let mut pool = Pool::new(threads).expect("threads");
        attend((tier, &mut pool), &mut room, &job, &page, out.get_mut()).expect("attention");
        out.get().to_vec()
    }

    /// In f64, nothing rounded.
    fn exact(&self) -> Vec<f64> {
        let Attend { n_head, n_head_kv, head_dim_k: dk, head_dim_v: dv, scale, .. } = self.shape;
        let mut out = Vec::new();
        for (row, q) in self.q.chunks_exact(n_head * dk).enumerate() {
            let seen = self.context - self.rows + row + 1;
            for (head, q) in q.chunks_exact(dk).enumerate() {
                let kv = head / (n_head / n_head_kv);
                let key = |j: usize| &self.k[(j * n_head_kv + kv) * dk..][..dk];
                let dot = |(a, b): (&f32, &f32)| f64::from(*a) * f64::from(*b);
                let score = |j: usize| q.iter().zip(key(j)).map(dot).sum::<f64>();
                let scores: Vec<f64> = (0..seen).map(|j| score(j) * f64::from(scale)).collect();
                let most = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
                let sum: f64 = weights.iter().sum();
                out.extend((0..dv).map(|d| {
                    let value = |j: usize| f64::from(self.v[(j * n_head_kv + kv) * dv + d]);
                    (0..seen).map(|j| weights[j] * value(j)).sum::<f64>() / sum
                }));
            }
        }
        out
    }
}

#[test]
fn every_type_tier_shape_and_split_gives_the_portable_bits_between_guard_pages() {
    let portable = Tier::by_name("portable").expect("always there");
    let mut refused = 0;
    for (shape, place) in SHAPES.iter().flat_map(|s| PLACES.iter().map(move |p| (*s, *p))) {
        let case = Case::new(shape, place);
        let exact = case.exact();
        let size = exact.iter().map(|x| x * x).sum::<f64>();
        for (index, kind) in KvType::ALL.into_iter().enumerate() {
            // A type of keys beside another of values, too.
            let mixed = KvType::ALL[(index + place.1) % 5];
            for kinds in [[kind; 2], [kind, mixed]] {
                let Some(pages) = case.pages(portable, kinds) else {
                    refused += 1;
                    continue;
                };
                let want = case.run(portable, 1, &pages, true);
                let apart = exact.iter().zip(&want).map(|(x, y)| (x - f64::from(*y)).powi(2));
                let off = (apart.sum::<f64>() / size).sqrt();
                let near = NEAR[index].max(NEAR[(index + place.1) % 5]);
                assert!(off < near, "{kinds:?} {shape:?} {place:?}: off by {off:.1e}");
                for tier in Tier::available() {
                    let pages = case.pages(tier, kinds).expect("as before");
                    for (threads, at_end) in [(1, true), (3, false)] {
                        let got = case.run(tier, threads, &pages, at_end);
                        let same = got.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits());
                        let name = tier.name();
                        assert!(same, "{kinds:?} {shape:?} {place:?}: {name}, {threads} threads");
                    }
                }
            }
        }
    }
    // Heads of 80, 10 and 1 in two types, in every place.
    assert!(refused >= 2 * 3 * PLACES.len());
}

#[test]
fn nan_and_infinity_stay_in_their_row() {
    let mut case = Case::new((4, 2, 64, 64), (40, 300));
    let width = case.q.len() / case.rows;
    case.q[7 * width] = f32::NAN;
    case.v[299 * 128] = f32::INFINITY;
    for (kind, tier) in
        KvType::ALL.iter().flat_map(|k| Tier::available().into_iter().map(|t| (*k, t)))
    {
        let pages = case.pages(tier, [kind; 2]).expect("a whole number of blocks");
        let out = case.run(tier, 2, &pages, true);
        for (row, out) in out.chunks_exact(256).enumerate() {
            let odd = out.iter().filter(|x| !x.is_finite()).count();
            // The last row alone sees the last value; a head's NaN reaches that head.
            let expected = if row == 7 || row == 39 { 1..=128 } else { 0..=0 };
            assert!(expected.contains(&odd), "{kind:?} {} row {row}: {odd}", tier.name());
        }
    }
}

#[test]
fn a_head_size_that_a_type_does_not_allow_is_a_coded_error() {
    let layer = KvLayer { n_head_kv: 2, head_dim_k: 64, head_dim_v: 80 };
    for kind in [KvType::Q8_0, KvType::Q4_0] {
        assert!(Pages::new(&[layer], kind, KvType::F16).is_ok());
        let error = Pages::new(&[layer], KvType::F16, kind).err().expect("a refusal");
        assert_eq!(error.code, Code::InvalidArg);
        assert!(error.message.contains("heads of 80 values"), "{}", error.message);
    }
}

fn cpu<const KIND: usize, const THREADS: usize>(plan: Arc<Plan>) -> Box<dyn Backend> {
    let kind = KvType::ALL[KIND];
    let config = Config { threads: Some(THREADS), tier: None, kv_k: kind, kv_v: kind };
    Box::new(Cpu::new(plan, config).expect("a CPU"))
}

const ONE: [Make; 5] = [cpu::<0, 1>, cpu::<1, 1>, cpu::<2, 1>, cpu::<3, 1>, cpu::<4, 1>];
const THREE: [Make; 5] = [cpu::<0, 3>, cpu::<1, 3>, cpu::<2, 3>, cpu::<3, 3>, cpu::<4, 3>];

#[test]
fn cuts_of_a_long_prompt_do_not_show_with_any_type() {
    let path = chord_path("chord-5m-Q4_K_M").expect("in the repository");
    let model = Model::open(&path);
    let tokens: Vec<u32> = (0..620).map(|i| (i * 37 + i * i * 11) % 1000 + 5).collect();
    for (one, three) in ONE.into_iter().zip(THREE) {
        let want = Run::new(&model, one).feed(&tokens, true);
        let mut run = Run::new(&model, three);
        let mut got = Vec::new();
        // Far into the context single rows are cut between tiles.
        let cuts = [0, 31, 32, 250, 263, 590, 591, 592, 593, 600, 601, 620];
        for pair in cuts.windows(2) {
            got.extend(run.feed(&tokens[pair[0]..pair[1]], true));
        }
        for (position, (got, want)) in got.iter().zip(&want).enumerate() {
            let same = got.iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "position {position}");
        }
    }
}

/// How far a text's losses may be from those with keys and values in f32: mean |difference|, and
/// difference of the means, which is that of ln perplexity. Rounding the last bit of a value
/// anywhere moves int8 activations, so a mean |difference| of 0.03 is these models' noise.
const DRIFT: [(f64, f64); 5] = [(0.0, 0.0), (0.05, 0.01), (0.05, 0.01), (0.06, 0.01), (0.3, 0.1)];

#[test]
fn losses_drift_no_further_from_f32_than_each_type_may() {
    let oracle = json("logits/chord.json");
    let ids = oracle["inputs"]["chord"]["sequences"]["long"].as_array().expect("ids");
    let tokens: Vec<u32> = ids.iter().map(|id| id.as_u64().expect("an id") as u32).collect();
    for name in ["chord-5m-Q4_K_M", "chord-5m-F16", "chord-29m-Q4_K_M"] {
        let Some(path) = chord_path(name) else { continue };
        let model = Model::open(&path);
        let losses = |make: Make| -> Vec<f64> {
            let logits = Run::new(&model, make).feed(&tokens, true);
            tokens[1..].iter().zip(&logits).map(|(next, row)| nll(row, *next)).collect()
        };
        let exact = losses(ONE[0]);
        let n = exact.len() as f64;
        for (index, (single, mean)) in DRIFT.into_iter().enumerate() {
            let apart: Vec<f64> =
                losses(THREE[index]).iter().zip(&exact).map(|(a, b)| a - b).collect();
            let each = apart.iter().map(|x| x.abs()).sum::<f64>() / n;
            let all = (apart.iter().sum::<f64>() / n).abs();
            println!("{name} {}: |d| {each:.5}, d {all:.5} over {n}", KvType::ALL[index].name());
            assert!(each <= single && all <= mean, "{name}, type {index}: {each}, {all}");
        }
    }
}
