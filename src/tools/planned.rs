//! `chord inspect --plan`: what a model computes, step by step, as text or as JSON. Reads a file's
//! header and no weights.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

use crate::error::Result;
use crate::gguf::File;
use crate::model;
use crate::plan::{Group, Plan, Step, ValueKind, WeightId, parameters};
use crate::tools::open::go_on;

/// The plan of a file's model. Errors: those of reading and planning it; `ABORT_ERR`.
pub fn planned(path: &Path, as_json: bool, cancel: &AtomicBool) -> Result<String> {
    let file = File::open(path)?;
    go_on(cancel)?;
    let plan = model::plan(&file)?;
    Ok(if as_json { whole(&plan).to_string() } else { plan.printed().to_string() })
}

fn whole(plan: &Plan) -> Value {
    let groups = plan.groups.iter().map(|group| one(plan, group));
    json!({
        "embeddingLength": plan.n_embd, "vocabSize": plan.n_vocab,
        "kvLayers": plan.kv_layers.len(), "trainedContextLength": plan.n_ctx_train,
        "groups": groups.collect::<Value>(),
    })
}

fn one(plan: &Plan, group: &Group) -> Value {
    let steps = group.steps.iter().map(|of| step(plan, of));
    json!({
        "name": group.kind.label(), "bytes": plan.group_bytes(group),
        "steps": steps.collect::<Value>(),
    })
}

fn step(plan: &Plan, step: &Step) -> Value {
    let output = plan.value(step.output);
    let inputs = step.inputs.iter().map(|id| Value::from(plan.value(*id).name.as_str()));
    let weights = step.weights.iter().map(|id| weight(plan, *id));
    json!({
        "op": step.op.name(), "output": output.name, "width": output.width,
        "pairs": output.kind == ValueKind::Routing, "inputs": inputs.collect::<Value>(),
        "weights": weights.collect::<Value>(), "parameters": parameters(&step.op),
    })
}

fn weight(plan: &Plan, id: WeightId) -> Value {
    let weight = plan.weight(id);
    let (name, kind) = (&weight.name, weight.kind.name());
    json!({ "name": name, "type": kind, "shape": weight.shape, "bytes": weight.extent.bytes })
}
