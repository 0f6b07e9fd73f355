//! What a model is: metadata becomes a [`Spec`], a spec and the tensor directory become a plan.
//! An architecture is one file in `arch/` and one line here. Knows no device, memory or thread.

mod arch;
mod build;
mod keys;
mod known;
mod rope;
mod spec;

pub use rope::{RopeSpec, Scaling};
pub use spec::{ExpertSpec, LayerSpec, Spec};

use crate::error::{Code, Error, Result, shown};
use crate::gguf::{File, Value};
use crate::plan::Plan;
use build::Builder;
use keys::Keys;

/// An architecture: how its keys are read, and its steps.
struct Architecture {
    name: &'static str,
    spec: fn(&mut Keys<'_>) -> Result<Spec>,
    plan: fn(&mut Builder<'_>, &Spec) -> Result<()>,
}

/// The registry: one line an architecture.
const ARCHITECTURES: &[Architecture] = &[arch::llama::LLAMA];

/// The names that `general.architecture` may have.
#[must_use]
pub fn architectures() -> &'static [&'static str] {
    const NAMES: [&str; ARCHITECTURES.len()] = {
        let mut names = [""; ARCHITECTURES.len()];
        let mut index = 0;
        while index < names.len() {
            names[index] = ARCHITECTURES[index].name;
            index += 1;
        }
        names
    };
    &NAMES
}

/// Reads and checks the hyper-parameters; no tensor but the embedding is looked at. Errors:
/// `ERR_MODEL_INVALID`, `ERR_UNSUPPORTED_ARCHITECTURE`, `ERR_UNSUPPORTED`, each naming the key.
pub fn describe(file: &File) -> Result<Spec> {
    read(file).map(|(_, spec)| spec)
}

/// The plan of a model, every key and tensor of it understood. Errors as [`describe`], and
/// `ERR_MODEL_INVALID` or `ERR_UNSUPPORTED_TENSOR_TYPE` naming the tensor.
pub fn plan(file: &File) -> Result<Plan> {
    let (architecture, spec) = read(file)?;
    let mut builder = Builder::new(file, &spec);
    (architecture.plan)(&mut builder, &spec)?;
    builder.finish()
}

fn read(file: &File) -> Result<(&'static Architecture, Spec)> {
    let name = architecture(file)?;
    match file.meta().opt_str("general.type")? {
        None | Some("model") => {}
        Some(other) => {
            let what = format!("is '{}': not a model", shown(other));
            return Err(Error::at(Code::ModelInvalid, file.path(), "key 'general.type'", what));
        }
    }
    keys::check_finite(file.meta(), &name)?;
    let Some(architecture) = ARCHITECTURES.iter().find(|known| known.name == name) else {
        return Err(known::refuse(file, &name));
    };
    let mut keys = Keys::new(file.meta(), architecture.name);
    let mut spec = (architecture.spec)(&mut keys)?;
    let vocab_size = keys.opt_u32("vocab_size")?;
    keys.finish()?;
    spec.n_vocab = spec::n_vocab(file, architecture.name, vocab_size)?;
    spec.architecture = architecture.name;
    Ok((architecture, spec))
}

/// `general.architecture`; what is not even text cannot be a name that we know.
fn architecture(file: &File) -> Result<String> {
    const KEY: &str = "general.architecture";
    match file.meta().get(KEY) {
        Some(Value::String(bytes)) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        // The getter words the refusal of what is absent or no text.
        _ => file.meta().str(KEY).map(str::to_owned),
    }
}
