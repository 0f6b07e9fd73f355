//! The plan: what a model computes, as groups of steps over named weights and values. Pure data,
//! printable; it does not know who runs it, nor which architecture it came from.

mod check;
mod fuse;
mod print;
pub mod residency;
mod router;

pub use fuse::{Heads, Stage, Turned, Work};
pub use print::{Printed, parameters};
pub use router::Router;

use crate::quant::TensorType;

/// Index into [`Plan::weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);

/// Index into [`Plan::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// Index into [`Plan::groups`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// Index into [`Plan::kv_layers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KvLayerId(pub u32);

/// Where bytes lie: which file of a split model, and the range in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Index of the file.
    pub part: u32,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// A tensor that steps read.
#[derive(Clone, Debug)]
pub struct Weight {
    /// The file's name for it, verbatim: `blk.0.attn_q.weight`.
    pub name: String,
    /// How its rows are stored.
    pub kind: TensorType,
    /// Outermost first: `[n_out, n_in]`, experts `[n_expert, n_out, n_in]`, vectors `[n]`.
    pub shape: Vec<usize>,
    /// Where its bytes lie.
    pub extent: Extent,
}

/// What a value holds for each row of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// `width` f32 numbers.
    Floats,
    /// The choice of a router: `width` pairs (expert index, weight), best first. As floats
    /// (probes): index, weight, index, weight ...
    Routing,
}

/// What steps read and write: one entry a batch row. Every value is written by exactly one step.
#[derive(Clone, Debug)]
pub struct Value {
    /// For people: `layer 3 q`.
    pub name: String,
    /// Numbers a row (pairs a row for a routing).
    pub width: usize,
    /// What they are.
    pub kind: ValueKind,
    /// `false`: a row for each batch row; `true`: only those that want logits ([`Op::Select`]).
    pub selected: bool,
}

impl Value {
    /// f32 numbers that one row of it takes.
    #[must_use]
    pub fn floats(&self) -> usize {
        match self.kind {
            ValueKind::Floats => self.width,
            ValueKind::Routing => 2 * self.width,
        }
    }
}

/// How a norm centres and scales.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// x / sqrt(mean(x^2) + eps) * weight.
    Rms {
        /// Added to the mean square.
        eps: f32,
    },
}

/// Which values a rotation pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeKind {
    /// (2i, 2i+1): GGUF's "norm".
    Norm,
    /// (i, i + n_rot/2): GGUF's "neox".
    Neox,
}

/// Rotary position embedding of the heads of one value `[n_head, head_dim]`.
/// Angle of pair i at position p: `p * freqs[i] / (optional weight)[i]`; cos and sin times
/// `magnitude`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Which values are paired.
    pub kind: RopeKind,
    /// Heads in a row.
    pub n_head: usize,
    /// Values a head; those from `n_rot` on pass through.
    pub head_dim: usize,
    /// Rotated values a head, even.
    pub n_rot: usize,
    /// Radians a position for each of the `n_rot / 2` pairs, scaling (linear, yarn) applied.
    pub freqs: std::sync::Arc<[f64]>,
    /// Factor on cos and sin (yarn), else 1.
    pub magnitude: f32,
}

/// Causal attention of query rows over their session's KV cache. Appends the row's k and v first.
/// Query head h reads kv head `h / (n_head / n_head_kv)`; o = softmax(q k^T * scale) v.
#[derive(Clone, Debug, PartialEq)]
pub struct Attend {
    /// Which layer of the KV cache.
    pub kv: KvLayerId,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads; divides `n_head`.
    pub n_head_kv: usize,
    /// Values of a query or key head.
    pub head_dim_k: usize,
    /// Values of a value or output head.
    pub head_dim_v: usize,
    /// Factor on the scores, usually 1/sqrt(head_dim_k).
    pub scale: f32,
}

/// Activation functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// x / (1 + exp(-x)).
    Silu,
}

/// How a router turns scores into a choice. Probability = softmax over all experts; the
/// `n_used` largest are chosen (lower index wins a tie), in descending order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Route {
    /// Experts to choose from.
    pub n_expert: usize,
    /// Experts a row uses.
    pub n_used: usize,
    /// Divide the chosen probabilities by their sum (at least 2^-14, half precision's smallest).
    pub normalise: bool,
    /// Factor on the weights.
    pub scale: f32,
}

/// One mathematical operation. Inputs, output and weights stand in the [`Step`].
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Rows of the token's embedding. Inputs none; weights `[n_vocab, n_embd]`.
    Embed,
    /// Inputs x; weights `[n]`; output as x.
    Norm(NormKind),
    /// y = W x (+ bias). Inputs x; weights `[n_out, n_in]`, optionally `[n_out]`.
    Linear,
    /// Inputs x `[n_head, head_dim]`; weights none or frequency factors `[n_rot / 2]`.
    Rope(Rope),
    /// Inputs q, k, v; output `[n_head, head_dim_v]`.
    Attend(Attend),
    /// act(gate) * up. Inputs gate, up.
    GatedAct(Act),
    /// Inputs router scores `[n_expert]`; output a routing.
    Route(Route),
    /// Sum over the chosen experts e of weight_e * down_e(act(gate_e x) * up_e x).
    /// Inputs x, routing; weights gate and up `[n_expert, n_ff, n_embd]`, down
    /// `[n_expert, n_embd, n_ff]`.
    Experts(Act),
    /// Inputs a, b of equal width.
    Add,
    /// Keeps only the rows that want logits.
    Select,
}

/// One op applied to values.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is computed.
    pub op: Op,
    /// Values read.
    pub inputs: Vec<ValueId>,
    /// Value written.
    pub output: ValueId,
    /// Weights read, in the order that the op says.
    pub weights: Vec<WeightId>,
}

/// What a group is, for placement and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// Token embedding: rows are gathered, never loaded whole.
    Embedding,
    /// Norm, q, k, v, attention, output projection of a layer.
    Attention {
        /// Layer index.
        layer: u32,
    },
    /// The feed-forward half of a layer.
    FeedForward {
        /// Layer index.
        layer: u32,
    },
    /// Final norm and output matrix.
    Output,
}

/// The unit of residency: steps that run together, with the weights that they need.
#[derive(Clone, Debug)]
pub struct Group {
    /// What it is.
    pub kind: GroupKind,
    /// In order.
    pub steps: Vec<Step>,
}

/// One layer of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayer {
    /// Key and value heads.
    pub n_head_kv: usize,
    /// Values of a key head.
    pub head_dim_k: usize,
    /// Values of a value head.
    pub head_dim_v: usize,
}

/// What a model computes. Running all groups in order is one pass.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Every tensor that a step reads.
    pub weights: Vec<Weight>,
    /// Every value.
    pub values: Vec<Value>,
    /// In order.
    pub groups: Vec<Group>,
    /// KV cache layers.
    pub kv_layers: Vec<KvLayer>,
    /// The value that holds the logits, `[n_vocab]` for each row that wants them.
    pub logits: ValueId,
    /// Width of the logits.
    pub n_vocab: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Trained context length in tokens.
    pub n_ctx_train: usize,
}

impl GroupKind {
    /// For people: `layer 3 attention`.
    #[must_use]
    pub fn label(self) -> String {
        match self {
            GroupKind::Embedding => "embedding".to_owned(),
            GroupKind::Attention { layer } => format!("layer {layer} attention"),
            GroupKind::FeedForward { layer } => format!("layer {layer} feed-forward"),
            GroupKind::Output => "output".to_owned(),
        }
    }
}

impl Group {
    /// The weights of its steps, each once, in order of first use.
    #[must_use]
    pub fn weights(&self) -> Vec<WeightId> {
        let mut ids = Vec::new();
        for id in self.steps.iter().flat_map(|step| &step.weights) {
            if !ids.contains(id) {
                ids.push(*id);
            }
        }
        ids
    }
}

impl Op {
    /// The word for it in reports: `linear`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed => "embed",
            Op::Norm(_) => "norm",
            Op::Linear => "linear",
            Op::Rope(_) => "rope",
            Op::Attend(_) => "attend",
            Op::GatedAct(_) => "gated_act",
            Op::Route(_) => "route",
            Op::Experts(_) => "experts",
            Op::Add => "add",
            Op::Select => "select",
        }
    }
}

impl Plan {
    /// Every group's id, in order.
    pub fn group_ids(&self) -> impl Iterator<Item = GroupId> + use<> {
        (0..self.groups.len() as u32).map(GroupId)
    }

    /// The weight behind an id.
    #[must_use]
    pub fn weight(&self, id: WeightId) -> &Weight {
        &self.weights[id.0 as usize]
    }

    /// The value behind an id.
    #[must_use]
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// The group behind an id.
    #[must_use]
    pub fn group(&self, id: GroupId) -> &Group {
        &self.groups[id.0 as usize]
    }
}
