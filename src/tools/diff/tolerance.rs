//! How far two correct backends may be apart after one step with equal inputs, relative L2.

use crate::plan::{Op, Plan, Step};
use crate::quant::TensorType;

/// A relative difference of the inputs may come out of a step that much larger: a linear map, a
/// norm's weight or a softmax stretches some directions more than others. 2.5 was seen.
pub const GAIN: f64 = 4.0;

/// Few f32 operations an element, in any order; exp by a polynomial.
const FLOAT: f64 = 1e-5;
/// A sum of thousands of f32 products, in any order.
const SUM: f64 = 1e-4;
/// Activations rounded to int8 in blocks: 0.5 to 1.5 % were seen, three times that for outliers.
const INT8: f64 = 0.04;

/// What a step may add of its own. `kv_rounding`: how keys and values are rounded.
pub fn own(plan: &Plan, step: &Step, kv_rounding: f64) -> f64 {
    let rounded = |index: usize| {
        step.weights.get(index).is_some_and(|id| {
            let kind = plan.weight(*id).kind;
            !matches!(kind, TensorType::F32 | TensorType::F16 | TensorType::BF16)
        })
    };
    match &step.op {
        Op::Embed | Op::Select => 1e-7,
        Op::Norm(_) | Op::Rope(_) | Op::GatedAct(_) | Op::Add | Op::Route(_) => FLOAT,
        Op::Attend(_) => SUM + GAIN * kv_rounding,
        Op::Linear if rounded(0) => INT8,
        Op::Linear => SUM,
        // Two products in a row.
        Op::Experts(_) if rounded(0) || rounded(2) => INT8 + GAIN * INT8,
        Op::Experts(_) => SUM + GAIN * SUM,
    }
}
