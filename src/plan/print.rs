//! A plan as text: one line a step, with values, weights and their types. What `chord inspect
//! --plan` shows; it reads the plan and nothing else.

use std::fmt;

use super::{Group, Op, Plan, Step, ValueId, ValueKind, WeightId};

/// A plan that can be printed.
pub struct Printed<'a> {
    plan: &'a Plan,
}

impl Plan {
    /// The whole plan as text.
    #[must_use]
    pub fn printed(&self) -> Printed<'_> {
        Printed { plan: self }
    }

    /// One step as text: `layer 0 q[256] = linear(layer 0 attn_norm, blk.0.attn_q.weight Q4_K)`.
    #[must_use]
    pub fn describe_step(&self, step: &Step) -> String {
        let inputs = step.inputs.iter().map(|id| self.value(*id).name.clone());
        let weights = step.weights.iter().map(|id| self.describe_weight(*id));
        let arguments: Vec<_> = inputs.chain(weights).chain(parameters(&step.op)).collect();
        let (output, name) = (self.describe_value(step.output), step.op.name());
        format!("{output} = {name}({})", arguments.join(", "))
    }

    /// Bytes of a group's weights, each once.
    #[must_use]
    pub fn group_bytes(&self, group: &Group) -> u64 {
        group.weights().iter().map(|id| self.weight(*id).extent.bytes).sum()
    }

    fn describe_value(&self, id: ValueId) -> String {
        let value = self.value(id);
        let unit = match value.kind {
            ValueKind::Floats => "",
            ValueKind::Routing => " pairs",
        };
        format!("{}[{}{unit}]", value.name, value.width)
    }

    fn describe_weight(&self, id: WeightId) -> String {
        let weight = self.weight(id);
        format!("{} {}", weight.name, weight.kind.name())
    }
}

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.plan;
        let (n, ctx) = (plan.groups.len(), plan.n_ctx_train);
        let (embd, vocab, kv) = (plan.n_embd, plan.n_vocab, plan.kv_layers.len());
        writeln!(
            f,
            "{n} groups, {} weights, width {embd}, vocabulary {vocab}, {kv} KV layers, \
             trained context {ctx}",
            plan.weights.len()
        )?;
        for group in &plan.groups {
            writeln!(f, "{} ({} bytes)", group.kind.label(), plan.group_bytes(group))?;
            for step in &group.steps {
                writeln!(f, "  {}", plan.describe_step(step))?;
            }
        }
        Ok(())
    }
}

/// An op's own numbers, as `name value`.
#[must_use]
pub fn parameters(op: &Op) -> Vec<String> {
    match op {
        Op::Norm(super::NormKind::Rms { eps }) => vec![format!("rms eps {eps}")],
        Op::Rope(rope) => {
            let mut texts = vec![
                format!("{:?}", rope.kind).to_lowercase(),
                format!("{} heads of {}", rope.n_head, rope.head_dim),
                format!("rotates {}", rope.n_rot),
            ];
            #[allow(clippy::float_cmp, reason = "1 is the value that means: none")]
            if rope.magnitude != 1.0 {
                texts.push(format!("magnitude {}", rope.magnitude));
            }
            texts
        }
        Op::Attend(a) => vec![
            format!("kv {}", a.kv.0),
            format!("{} heads over {}", a.n_head, a.n_head_kv),
            format!("sizes {} and {}", a.head_dim_k, a.head_dim_v),
            format!("scale {}", a.scale),
        ],
        Op::GatedAct(act) | Op::Experts(act) => vec![format!("{act:?}").to_lowercase()],
        Op::Route(route) => {
            let mut texts = vec![format!("{} of {}", route.n_used, route.n_expert)];
            if route.normalise {
                texts.push("normalised".to_owned());
            }
            texts
        }
        Op::Embed | Op::Linear | Op::Add | Op::Select => Vec::new(),
    }
}
