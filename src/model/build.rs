//! Pieces that architectures are put together from. A builder takes tensors from the directory by
//! name, type and exact shape; what nobody took is refused at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::gguf::{File, Tensor};
use crate::plan::{
    Act, Attend, Extent, Group, GroupKind, KvLayer, KvLayerId, NormKind, Op, Plan, Rope, RopeKind,
    Step, Value, ValueId, ValueKind, Weight, WeightId,
};

use super::spec::{LayerSpec, Spec};

/// A plan in the making.
pub struct Builder<'a> {
    file: &'a File,
    spec: &'a Spec,
    plan: Plan,
    taken: BTreeMap<String, WeightId>,
    layer: Option<usize>,
    /// Whether values hold selected rows only from here on.
    selected: bool,
    freqs: Arc<[f64]>,
    embedding: Option<WeightId>,
}

impl<'a> Builder<'a> {
    /// An empty plan over the tensors of a file.
    pub fn new(file: &'a File, spec: &'a Spec) -> Self {
        let plan = Plan {
            weights: Vec::new(),
            values: Vec::new(),
            groups: Vec::new(),
            kv_layers: Vec::new(),
            logits: ValueId(0),
            n_vocab: spec.n_vocab,
            n_embd: spec.n_embd,
            n_ctx_train: spec.n_ctx_train,
        };
        let freqs = spec.rope.freqs();
        let (taken, layer, selected, embedding) = (BTreeMap::new(), None, false, None);
        Builder { file, spec, plan, taken, layer, selected, freqs, embedding }
    }

    /// Begins a group of a layer; tensor names are `blk.{layer}.` from here on.
    pub fn layer(&mut self, layer: usize, kind: fn(u32) -> GroupKind) {
        self.layer = Some(layer);
        self.group(kind(number(layer)));
    }

    /// The first group: rows of the embedding.
    pub fn embed(&mut self, tensor: &str) -> Result<ValueId> {
        self.group(GroupKind::Embedding);
        let (n_vocab, n_embd) = (self.spec.n_vocab, self.spec.n_embd);
        let weight = self.weight(tensor, &[n_vocab, n_embd])?;
        self.embedding = Some(weight);
        Ok(self.step("embedding", Op::Embed, &[], n_embd, vec![weight]))
    }

    /// RMS norm over the whole width.
    pub fn rms_norm(&mut self, name: &str, x: ValueId) -> Result<ValueId> {
        let width = self.plan.value(x).width;
        let weight = self.vector(&self.tensor_name(name, "weight"), width)?;
        let op = Op::Norm(NormKind::Rms { eps: self.spec.rms_eps });
        Ok(self.step(name, op, &[x], width, vec![weight]))
    }

    /// y = W x, and the bias if the file has one.
    pub fn linear(&mut self, name: &str, x: ValueId, n_out: usize) -> Result<ValueId> {
        let n_in = self.plan.value(x).width;
        let weight = self.weight(&self.tensor_name(name, "weight"), &[n_out, n_in])?;
        self.linear_with(name, x, n_out, weight)
    }

    /// Rotates the heads of `x`; divides the frequencies by `rope_freqs.weight` if there is one.
    pub fn rope(
        &mut self,
        name: &str,
        kind: RopeKind,
        x: ValueId,
        n_head: usize,
    ) -> Result<ValueId> {
        const FACTORS: &str = "rope_freqs.weight";
        let rope = &self.spec.rope;
        #[allow(clippy::cast_possible_truncation, reason = "near 1")]
        let magnitude = rope.magnitude() as f32;
        let (head_dim, n_rot, freqs) = (self.spec.head_dim_k, rope.n_rot, self.freqs.clone());
        let op = Op::Rope(Rope { kind, n_head, head_dim, n_rot, freqs, magnitude });
        let factors = match self.file.tensor(FACTORS) {
            Some(_) => vec![self.vector(FACTORS, n_rot / 2)?],
            None => Vec::new(),
        };
        Ok(self.step(name, op, &[x], n_head * head_dim, factors))
    }

    /// Attention over a KV layer of its own.
    pub fn attend(
        &mut self,
        q: ValueId,
        k: ValueId,
        v: ValueId,
        own: &LayerSpec,
    ) -> Result<ValueId> {
        let Spec { head_dim_k, head_dim_v, .. } = *self.spec;
        let LayerSpec { n_head, n_head_kv, .. } = *own;
        let kv = KvLayerId(number(self.plan.kv_layers.len()));
        self.plan.kv_layers.push(KvLayer { n_head_kv, head_dim_k, head_dim_v });
        #[allow(clippy::cast_possible_truncation, reason = "rounded once")]
        let scale = (1.0 / (head_dim_k as f64).sqrt()) as f32;
        let op = Op::Attend(Attend { kv, n_head, n_head_kv, head_dim_k, head_dim_v, scale });
        Ok(self.step("attend", op, &[q, k, v], n_head * head_dim_v, Vec::new()))
    }

    /// down(silu(gate x) * up x).
    pub fn gated_ffn(&mut self, x: ValueId, n_ff: usize) -> Result<ValueId> {
        let width = self.plan.value(x).width;
        let gate = self.linear("ffn_gate", x, n_ff)?;
        let up = self.linear("ffn_up", x, n_ff)?;
        let h = self.step("ffn_act", Op::GatedAct(Act::Silu), &[gate, up], n_ff, Vec::new());
        self.linear("ffn_down", h, width)
    }

    /// A router's choice of `n_used` pairs.
    pub fn routing(&mut self, name: &str, op: Op, scores: ValueId, n_used: usize) -> ValueId {
        let id = self.step(name, op, &[scores], n_used, Vec::new());
        if let Some(value) = self.plan.values.get_mut(id.0 as usize) {
            value.kind = ValueKind::Routing;
        }
        id
    }

    /// The chosen experts' gated feed-forward, summed by their weights.
    pub fn experts(
        &mut self,
        x: ValueId,
        chosen: ValueId,
        n_expert: usize,
        n_ff: usize,
    ) -> Result<ValueId> {
        let width = self.plan.value(x).width;
        let mut weights = Vec::with_capacity(3);
        for (name, shape) in [
            ("ffn_gate_exps", [n_expert, n_ff, width]),
            ("ffn_up_exps", [n_expert, n_ff, width]),
            ("ffn_down_exps", [n_expert, width, n_ff]),
        ] {
            weights.push(self.weight(&self.tensor_name(name, "weight"), &shape)?);
        }
        Ok(self.step("ffn_experts", Op::Experts(Act::Silu), &[x, chosen], width, weights))
    }

    /// a + b.
    pub fn add(&mut self, name: &str, a: ValueId, b: ValueId) -> ValueId {
        let width = self.plan.value(a).width;
        self.step(name, Op::Add, &[a, b], width, Vec::new())
    }

    /// The last group: rows that want logits, final norm, output matrix (or the embedding's).
    pub fn output(&mut self, x: ValueId) -> Result<()> {
        self.layer = None;
        self.group(GroupKind::Output);
        self.selected = true;
        let (n_vocab, n_embd) = (self.spec.n_vocab, self.spec.n_embd);
        let x = self.step("selected", Op::Select, &[x], n_embd, Vec::new());
        let x = self.rms_norm("output_norm", x)?;
        let own = self.file.tensor("output.weight").is_some();
        let weight = match self.embedding {
            Some(embedding) if !own => embedding,
            _ => self.weight("output.weight", &[n_vocab, n_embd])?,
        };
        self.plan.logits = self.linear_with("output", x, n_vocab, weight)?;
        Ok(())
    }

    /// The plan, once every tensor of the file has a use.
    pub fn finish(self) -> Result<Plan> {
        let mut unused = BTreeSet::new();
        for tensor in self.file.tensors() {
            if !self.taken.contains_key(&tensor.name) {
                unused.insert(tensor.name.as_str());
            }
        }
        if let Some(name) = unused.first() {
            let more = match unused.len() {
                1 => String::new(),
                n => format!(" (and {} others)", n - 1),
            };
            let architecture = self.spec.architecture;
            let what =
                format!("architecture {architecture} of this shape has no such tensor{more}");
            return Err(self.refuse(Code::ModelInvalid, name, what));
        }
        self.plan.check()?;
        Ok(self.plan)
    }

    fn group(&mut self, kind: GroupKind) {
        self.plan.groups.push(Group { kind, steps: Vec::new() });
    }

    /// Appends a step to the group in the making and names its output.
    fn step(
        &mut self,
        name: &str,
        op: Op,
        inputs: &[ValueId],
        width: usize,
        weights: Vec<WeightId>,
    ) -> ValueId {
        let name = match self.layer {
            Some(layer) => format!("layer {layer} {name}"),
            None => name.to_owned(),
        };
        let output = ValueId(number(self.plan.values.len()));
        let (kind, selected) = (ValueKind::Floats, self.selected);
        self.plan.values.push(Value { name, width, kind, selected });
        if let Some(group) = self.plan.groups.last_mut() {
            group.steps.push(Step { op, inputs: inputs.to_vec(), output, weights });
        }
        output
    }

    fn linear_with(
        &mut self,
        name: &str,
        x: ValueId,
        n_out: usize,
        weight: WeightId,
    ) -> Result<ValueId> {
        let mut weights = vec![weight];
        let bias = self.tensor_name(name, "bias");
        if self.file.tensor(&bias).is_some() {
            weights.push(self.vector(&bias, n_out)?);
        }
        Ok(self.step(name, Op::Linear, &[x], n_out, weights))
    }

    fn tensor_name(&self, name: &str, suffix: &str) -> String {
        match self.layer {
            Some(layer) => format!("blk.{layer}.{name}.{suffix}"),
            None => format!("{name}.{suffix}"),
        }
    }

    /// A norm's weight, a bias, frequency factors: floats only.
    fn vector(&mut self, name: &str, width: usize) -> Result<WeightId> {
        let id = self.weight(name, &[width])?;
        let kind = self.plan.weight(id).kind;
        if kind.block_len() == 1 {
            return Ok(id);
        }
        let what = format!("has type {}, expected F32, F16 or BF16", kind.name());
        Err(self.refuse(Code::UnsupportedTensorType, name, what))
    }

    fn refuse(&self, code: Code, tensor: &str, what: String) -> Error {
        Error::at(code, self.file.path(), format!("tensor '{tensor}'"), what)
    }

    /// Takes a tensor of exactly this shape, outermost first.
    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<WeightId> {
        if let Some(id) = self.taken.get(name) {
            return Ok(*id);
        }
        let refuse = |what: String| self.refuse(Code::ModelInvalid, name, what);
        let Some(tensor) = self.file.tensor(name) else {
            return Err(refuse(format!("is missing, expected with shape {shape:?}")));
        };
        if without_ones(&tensor.shape) != without_ones(shape) {
            return Err(refuse(format!("has shape {:?}, expected {shape:?}", tensor.shape)));
        }
        let id = WeightId(number(self.plan.weights.len()));
        self.plan.weights.push(weight_of(tensor, shape));
        self.taken.insert(name.to_owned(), id);
        Ok(id)
    }
}

fn weight_of(tensor: &Tensor, shape: &[usize]) -> Weight {
    let Tensor { part, offset, bytes, .. } = *tensor;
    let extent = Extent { part, offset, bytes };
    Weight { name: tensor.name.clone(), kind: tensor.kind, shape: shape.to_vec(), extent }
}

/// A shape without leading ones: trailing dimensions of 1 in the file say nothing.
fn without_ones(shape: &[usize]) -> &[usize] {
    let ones = shape.iter().take_while(|n| **n == 1).count();
    shape.get(ones..).unwrap_or(&[])
}

/// Counts here are bounded by the directory and by [`Spec`]'s limits, far below 2^32.
#[allow(clippy::cast_possible_truncation, reason = "bounded, see above")]
fn number(count: usize) -> u32 {
    count as u32
}
