//! The rules that every plan keeps: each value written once before it is read, widths and shapes
//! that fit the op. Backends trust a checked plan; a failure is a bug of the model part.

use super::{Op, Plan, Step, ValueId, ValueKind, WeightId};
use crate::error::{Error, Result};

impl Plan {
    /// Checks the plan's own rules. Errors: `ERR_INTERNAL`, naming group and step.
    pub fn check(&self) -> Result<()> {
        let mut written = vec![false; self.values.len()];
        for group in &self.groups {
            for (index, step) in group.steps.iter().enumerate() {
                self.check_step(step, &mut written).map_err(|what| {
                    let at = format!("{} step {index} ({})", group.kind.label(), step.op.name());
                    Error::internal("plan", format!("{at}: {what}"))
                })?;
            }
        }
        match written.get(self.logits.0 as usize) {
            Some(true) if self.value(self.logits).selected => Ok(()),
            _ => Err(Error::internal("plan", "the logits are not written after a selection")),
        }
    }

    fn check_step(&self, step: &Step, written: &mut [bool]) -> Result<(), String> {
        for id in &step.inputs {
            if !written.get(id.0 as usize).copied().unwrap_or(false) {
                return Err(format!("value {} is read before it is written", id.0));
            }
        }
        match written.get_mut(step.output.0 as usize) {
            Some(slot) if !*slot => *slot = true,
            _ => return Err(format!("value {} is unknown or written twice", step.output.0)),
        }
        for id in &step.weights {
            if id.0 as usize >= self.weights.len() {
                return Err(format!("weight {} is unknown", id.0));
            }
        }
        if let Op::Attend(attend) = &step.op {
            let layer = self.kv_layers.get(attend.kv.0 as usize).ok_or("no such KV layer")?;
            let (n, k, v) = (layer.n_head_kv, layer.head_dim_k, layer.head_dim_v);
            if (n, k, v) != (attend.n_head_kv, attend.head_dim_k, attend.head_dim_v) {
                return Err("the KV layer has another shape".to_owned());
            }
        }
        let expected = self.signature(step)?;
        let got: Vec<usize> = step.inputs.iter().map(|id| self.value(*id).width).collect();
        if got != expected.inputs {
            return Err(format!("input widths {got:?}, expected {:?}", expected.inputs));
        }
        let output = self.value(step.output);
        if output.width != expected.output || output.kind != expected.kind {
            return Err(format!("output width {}, expected {}", output.width, expected.output));
        }
        self.check_selection(step)?;
        self.check_weights(step, &expected.weights)
    }

    /// All inputs are of the same rows; only `select` goes from all rows to the selected ones.
    fn check_selection(&self, step: &Step) -> Result<(), String> {
        let selected = |id: &ValueId| self.value(*id).selected;
        let inputs = step.inputs.first().is_some_and(selected);
        if step.inputs.iter().any(|id| selected(id) != inputs) {
            return Err("inputs of all rows and of selected rows are mixed".to_owned());
        }
        let expected = inputs || step.op == Op::Select;
        if self.value(step.output).selected == expected {
            Ok(())
        } else {
            Err("the output's rows are not the inputs'".to_owned())
        }
    }

    /// Weights as expected, of which the last (bias, frequency factors) may be absent if optional.
    fn check_weights(&self, step: &Step, shapes: &Shapes) -> Result<(), String> {
        let got: Vec<&[usize]> =
            step.weights.iter().map(|id| self.weight(*id).shape.as_slice()).collect();
        let (required, all) = (shapes.required.len(), shapes.required.iter());
        let fits = got.len() >= required
            && got.iter().zip(all.chain(&shapes.optional)).all(|(a, b)| *a == b.as_slice())
            && got.len() <= required + usize::from(shapes.optional.is_some());
        if fits { Ok(()) } else { Err(format!("weight shapes {got:?} do not fit")) }
    }

    /// What the op expects, from its parameters and the shapes of its weights.
    fn signature(&self, step: &Step) -> Result<Signature, String> {
        let width = |id: ValueId| self.value(id).width;
        let output = width(step.output);
        let input = step.inputs.first().copied().map_or(0, width);
        Ok(match &step.op {
            Op::Embed => Signature::new(vec![], output, vec![vec![self.n_vocab, output]]),
            Op::Norm(_) => Signature::new(vec![output], output, vec![vec![output]]),
            Op::Linear => Signature::new(vec![input], output, vec![vec![output, input]])
                .optional(vec![output]),
            Op::Rope(rope) => {
                let n = rope.n_head * rope.head_dim;
                if rope.freqs.len() * 2 != rope.n_rot || rope.n_rot > rope.head_dim {
                    return Err("frequencies do not fit the rotated values".to_owned());
                }
                Signature::new(vec![n], n, vec![]).optional(vec![rope.n_rot / 2])
            }
            Op::Attend(a) => {
                if a.n_head_kv == 0 || !a.n_head.is_multiple_of(a.n_head_kv) {
                    return Err("query heads are not a multiple of kv heads".to_owned());
                }
                let kv = a.n_head_kv;
                let inputs = vec![a.n_head * a.head_dim_k, kv * a.head_dim_k, kv * a.head_dim_v];
                Signature::new(inputs, a.n_head * a.head_dim_v, vec![])
            }
            Op::GatedAct(_) | Op::Add => Signature::new(vec![output, output], output, vec![]),
            Op::Route(route) => {
                if route.n_used == 0 || route.n_used > route.n_expert {
                    return Err("more experts used than there are".to_owned());
                }
                Signature::new(vec![route.n_expert], route.n_used, vec![]).routing()
            }
            Op::Experts(_) => {
                let shape = step.weights.first().map(|id: &WeightId| &self.weight(*id).shape);
                let &[n_expert, n_ff, _] = shape.map_or(&[][..], Vec::as_slice) else {
                    return Err("expert weights have three dimensions".to_owned());
                };
                let used = step.inputs.get(1).copied().map_or(0, width);
                let (up, down) = (vec![n_expert, n_ff, output], vec![n_expert, output, n_ff]);
                Signature::new(vec![output, used], output, vec![up.clone(), up, down])
            }
            Op::Select => Signature::new(vec![output], output, vec![]),
        })
    }
}

/// What a step must look like.
struct Signature {
    inputs: Vec<usize>,
    output: usize,
    kind: ValueKind,
    weights: Shapes,
}

/// Weight shapes in order.
struct Shapes {
    required: Vec<Vec<usize>>,
    optional: Option<Vec<usize>>,
}

impl Signature {
    fn new(inputs: Vec<usize>, output: usize, required: Vec<Vec<usize>>) -> Self {
        let weights = Shapes { required, optional: None };
        Signature { inputs, output, kind: ValueKind::Floats, weights }
    }

    fn optional(mut self, shape: Vec<usize>) -> Self {
        self.weights.optional = Some(shape);
        self
    }

    fn routing(mut self) -> Self {
        self.kind = ValueKind::Routing;
        self
    }
}
