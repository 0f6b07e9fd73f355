//! Routers asked ahead of time: the hidden state of one layer, given to the router of the next,
//! names most of the experts that the next layer will use. Pure data; whether somebody reads on it
//! is not known here.

use super::{Group, GroupId, Op, Plan, Step, ValueId, WeightId};

/// The way from a hidden state to a choice of experts.
pub struct Router<'a> {
    /// The hidden state that it reads.
    pub input: ValueId,
    /// Norm of it.
    pub norm: &'a Step,
    /// Scores of all experts.
    pub scores: &'a Step,
    /// The choice.
    pub route: &'a Step,
    /// The experts that are chosen from.
    pub experts: &'a Step,
}

impl Router<'_> {
    /// Its weights.
    pub fn weights(&self) -> impl Iterator<Item = WeightId> + '_ {
        [self.norm, self.scores, self.route].into_iter().flat_map(|s| s.weights.iter().copied())
    }
}

impl Group {
    /// The router of its experts, if it is a norm, a linear step and a choice.
    #[must_use]
    pub fn router(&self) -> Option<Router<'_>> {
        let at = self.steps.iter().position(|step| matches!(step.op, Op::Experts(_)))?;
        let experts = self.steps.get(at)?;
        let writes = |value: &ValueId| self.steps[..at].iter().find(|s| s.output == *value);
        let route = writes(experts.inputs.get(1)?)?;
        let scores = writes(route.inputs.first()?)?;
        let norm = writes(scores.inputs.first()?)?;
        let input = *norm.inputs.first()?;
        let is_router =
            matches!((&norm.op, &scores.op, &route.op), (Op::Norm(_), Op::Linear, Op::Route(_)));
        is_router.then_some(Router { input, norm, scores, route, experts })
    }
}

impl Plan {
    /// The next router behind the experts that give a value, and what to ask it: the hidden state
    /// that their own router has read, if it is still there when they run.
    #[must_use]
    pub fn router_after(&self, experts: ValueId) -> Option<(ValueId, GroupId, Router<'_>)> {
        let mut routers = self.group_ids().filter_map(|id| Some((id, self.group(id).router()?)));
        let (own, Router { input, .. }) =
            routers.find(|(_, router)| router.experts.output == experts)?;
        let (id, next) = routers.next()?;
        let later = self.group(own).steps.iter().skip_while(|step| step.output != experts);
        let is_there = later.skip(1).any(|step| step.inputs.contains(&input));
        let fits = self.value(input).floats() == self.value(next.input).floats();
        (is_there && fits).then_some((input, id, next))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Act, GroupKind, NormKind, Route, Value, ValueKind};
    use super::*;

    fn step(op: Op, inputs: &[u32], output: u32) -> Step {
        let inputs = inputs.iter().map(|id| ValueId(*id)).collect();
        Step { op, inputs, output: ValueId(output), weights: vec![WeightId(output)] }
    }

    /// A layer of experts on value `x`, whose values are numbered from there on.
    fn layer(x: u32, adds: &[u32]) -> Group {
        let route = Route { n_expert: 4, n_used: 2, normalise: true, scale: 1.0 };
        let steps = vec![
            step(Op::Norm(NormKind::Rms { eps: 1e-5 }), &[x], x + 1),
            step(Op::Linear, &[x + 1], x + 2),
            step(Op::Route(route), &[x + 2], x + 3),
            step(Op::Experts(Act::Silu), &[x + 1, x + 3], x + 4),
            step(Op::Add, adds, x + 5),
        ];
        Group { kind: GroupKind::FeedForward { layer: 0 }, steps }
    }

    fn plan(groups: Vec<Group>) -> Plan {
        let value =
            |_| Value { name: String::new(), width: 8, kind: ValueKind::Floats, selected: false };
        Plan {
            weights: Vec::new(),
            values: (0..40).map(value).collect(),
            groups,
            kv_layers: Vec::new(),
            logits: ValueId(0),
            n_vocab: 1,
            n_embd: 8,
            n_ctx_train: 1,
        }
    }

    #[test]
    fn the_hidden_state_of_a_layer_goes_to_the_next_router_whatever_stands_between() {
        let between = Group { kind: GroupKind::Output, steps: vec![step(Op::Linear, &[5], 6)] };
        let plan = plan(vec![layer(0, &[0, 4]), between, layer(10, &[10, 14])]);
        let (input, group, router) = plan.router_after(ValueId(4)).expect("a router");
        assert_eq!((input, group), (ValueId(0), GroupId(2)));
        assert_eq!((router.input, router.experts.output), (ValueId(10), ValueId(14)));
        let weights: Vec<_> = router.weights().map(|id| id.0).collect();
        assert_eq!(weights, [11, 12, 13]);
        assert!(plan.router_after(ValueId(6)).is_none(), "it is of no experts");
        assert!(plan.router_after(ValueId(14)).is_none(), "none comes after them");
    }

    #[test]
    fn a_hidden_state_that_is_gone_is_asked_nobody() {
        let plan = plan(vec![layer(0, &[1, 4]), layer(10, &[10, 14])]);
        assert!(plan.router_after(ValueId(4)).is_none());
    }
}
