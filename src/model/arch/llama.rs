//! Llama, Mistral and Mixtral: RMS norm before each half, rope on pairs (2i, 2i+1), grouped query
//! heads, gated silu or a mixture of such experts. Any linear may have a bias.

use crate::error::Result;
use crate::model::Architecture;
use crate::model::build::Builder;
use crate::model::keys::Keys;
use crate::model::spec::Spec;
use crate::plan::{GroupKind, Op, RopeKind, Route};

/// The registry's line.
pub const LLAMA: Architecture = Architecture { name: "llama", spec, plan };

fn spec(keys: &mut Keys<'_>) -> Result<Spec> {
    let spec = Spec::decoder(keys)?;
    keys.ignore(&["tensor_data_layout"]);
    // Beyond the trained context a window cannot matter; below it we would be guessing.
    let window = keys.opt_u32("attention.sliding_window")?.unwrap_or(0) as usize;
    if window != 0 && window < spec.n_ctx_train {
        return Err(keys.unsupported("attention.sliding_window", "windowed attention"));
    }
    Ok(spec)
}

fn plan(b: &mut Builder<'_>, spec: &Spec) -> Result<()> {
    let mut x = b.embed("token_embd.weight")?;
    for (layer, own) in spec.layers.iter().enumerate() {
        b.layer(layer, |layer| GroupKind::Attention { layer });
        let h = b.rms_norm("attn_norm", x)?;
        let q = b.linear("attn_q", h, own.n_head * spec.head_dim_k)?;
        let k = b.linear("attn_k", h, own.n_head_kv * spec.head_dim_k)?;
        let v = b.linear("attn_v", h, own.n_head_kv * spec.head_dim_v)?;
        let q = b.rope("q_rope", RopeKind::Norm, q, own.n_head)?;
        let k = b.rope("k_rope", RopeKind::Norm, k, own.n_head_kv)?;
        let o = b.attend(q, k, v, own)?;
        let o = b.linear("attn_output", o, spec.n_embd)?;
        x = b.add("attn_residual", x, o);

        b.layer(layer, |layer| GroupKind::FeedForward { layer });
        let h = b.rms_norm("ffn_norm", x)?;
        let y = match spec.experts {
            None => b.gated_ffn(h, own.n_ff)?,
            Some(experts) => {
                let scores = b.linear("ffn_gate_inp", h, experts.n_expert)?;
                let (n_expert, n_used) = (experts.n_expert, experts.n_used);
                let route = Route { n_expert, n_used, normalise: true, scale: 1.0 };
                let chosen = b.routing("ffn_route", Op::Route(route), scores, n_used);
                b.experts(h, chosen, n_expert, own.n_ff)?
            }
        };
        x = b.add("ffn_residual", x, y);
    }
    b.output(x)
}
