//! `chord diff` as one call: a request in JSON, two backends over a file's model, a report in JSON.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::backend::cpu::{self, Cpu};
use crate::backend::reference::Reference;
use crate::backend::{Backend, KvType};
use crate::error::{Code, Error, Result};
use crate::gguf::File;
use crate::model;
use crate::plan::Plan;
use crate::store::Store;
use crate::tokenizer::Tokenizer;
use crate::tools::diff::{self, Report};

/// Compares; the request is `{path, a, b, prompt, threads, cpu}`. Errors: those of loading;
/// `ERR_INVALID_ARG`; `ABORT_ERR`.
pub fn compare(request: &str, cancel: &AtomicBool) -> Result<String> {
    let request: Value = serde_json::from_str(request).map_err(|e| Error::internal("diff", e))?;
    let text = |name: &str| request.get(name).and_then(Value::as_str).unwrap_or_default();
    let file = File::open(Path::new(text("path")))?;
    let plan = Arc::new(model::plan(&file)?);
    let tokenizer = Tokenizer::from_meta(file.meta())?;
    let tokens = tokenizer.encode(text("prompt"), true, true);
    let store = Store::open(&file, &plan)?;
    let mut a = backend("a", text("a"), &plan, &request)?;
    let mut b = backend("b", text("b"), &plan, &request)?;
    let setup = diff::Setup {
        plan: plan.clone(),
        weights: &|group, call| {
            let lease = store.acquire(group)?;
            call(&lease)
        },
        tokens: &tokens,
        rows: 0,
        kv_rounding: 0.0,
        cancelled: &|| cancel.load(Ordering::Relaxed),
    };
    Ok(report(&diff::run(&setup, a.as_mut(), b.as_mut())?).to_string())
}

/// Keys and values are kept in f32, so that nothing but the steps differs.
fn backend(
    option: &'static str,
    name: &str,
    plan: &Arc<Plan>,
    request: &Value,
) -> Result<Box<dyn Backend>> {
    let threads = request.get("threads").and_then(Value::as_u64);
    let tier = request.get("cpu").and_then(Value::as_str).filter(|tier| *tier != "auto");
    match name {
        "reference" => Ok(Box::new(Reference::new(plan.clone(), KvType::F32, KvType::F32)?)),
        "cpu" => {
            let config = cpu::Config {
                threads: threads.and_then(|threads| usize::try_from(threads).ok()),
                tier: tier.map(str::to_owned),
                kv_k: KvType::F32,
                kv_v: KvType::F32,
            };
            Ok(Box::new(Cpu::new(plan.clone(), config)?))
        }
        _ => {
            let expected = "'reference' or 'cpu'";
            let text = format!("{option}: expected {expected}, got '{name}'");
            let error = Error::new(Code::InvalidArg, text).with("name", option);
            Err(error.with("expected", expected).with("received", format!("'{name}'")))
        }
    }
}

/// JSON has no word for what is infinite or no number: `inf`, `NaN`.
fn number(value: f64) -> Value {
    if value.is_finite() { value.into() } else { value.to_string().into() }
}

fn report(from: &Report) -> Value {
    let difference = from.difference.as_ref().map(|d| {
        json!({
            "step": d.step, "relative": number(d.relative), "allowed": number(d.allowed),
            "position": d.position, "element": d.element,
            "a": number(f64::from(d.a)), "b": number(f64::from(d.b)),
        })
    });
    let not_finite = from.not_finite.as_ref().map(|n| {
        json!({ "step": n.step, "backend": n.backend, "position": n.position, "value": n.value })
    });
    let steps = from.steps.iter().map(|step| {
        json!({
            "group": step.group, "op": step.op, "output": step.output, "rows": step.rows,
            "relative": number(step.relative), "allowed": number(step.allowed),
        })
    });
    json!({
        "a": from.a, "b": from.b, "tokens": from.tokens, "difference": difference,
        "notFinite": not_finite, "steps": steps.collect::<Value>(), "otherBest": from.other_best,
    })
}
