//! Which neighbouring steps run together: found once in a plan, by any backend. A group becomes
//! stages; threads wait for each other between stages and nowhere else. Pure data.

use super::{Group, Op, Step, ValueId};
use std::ops::Range;

/// Steps that follow each other without waiting.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// What threads share.
    pub work: Work,
    /// A step on the columns that [`Work::Linears`] has just written, done with each piece: an
    /// activation of a pair, the addition of the residual.
    pub each: Option<usize>,
    /// Steps that want whole rows and little else (norms, rotations, routes, additions): after the
    /// work, by one thread.
    pub then: Range<usize>,
}

/// What threads share, by columns or heads. Numbers are steps of the group.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Nothing.
    None,
    /// Linear steps over one input.
    Linears(Range<usize>),
    /// q, k and v, their rotations and the attention over them: a head attends as soon as its own
    /// queries and all keys and values are there.
    Heads(Heads),
    /// A step that sees to its threads itself.
    Alone(usize),
}

/// The steps of [`Work::Heads`].
#[derive(Clone, Debug, PartialEq)]
pub struct Heads {
    /// Queries.
    pub q: Turned,
    /// Keys.
    pub k: Turned,
    /// The linear step of the values.
    pub v: usize,
    /// The attention.
    pub attend: usize,
}

/// A linear step and the rotation of what it gives, if there is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turned {
    /// The linear step.
    pub linear: usize,
    /// The rotation.
    pub rope: Option<usize>,
}

impl Stage {
    /// The steps that may run at the same time, in order.
    #[must_use]
    pub fn together(&self) -> Range<usize> {
        match &self.work {
            Work::None => self.then.start..self.then.start,
            Work::Linears(steps) => steps.start..self.each.map_or(steps.end, |each| each + 1),
            Work::Heads(heads) => heads.q.linear.min(heads.k.linear).min(heads.v)..heads.attend + 1,
            Work::Alone(step) => *step..step + 1,
        }
    }
}

impl Group {
    /// The steps as stages, in order; every step stands in one.
    #[must_use]
    pub fn stages(&self) -> Vec<Stage> {
        let mut stages: Vec<Stage> = Vec::new();
        let mut at = 0;
        while let Some(step) = self.steps.get(at) {
            let work = match step.op {
                Op::Linear => self.linears(at),
                Op::Embed | Op::Attend(_) | Op::Experts(_) => Work::Alone(at),
                Op::Norm(_)
                | Op::Rope(_)
                | Op::GatedAct(_)
                | Op::Route(_)
                | Op::Add
                | Op::Select => {
                    match stages.last_mut().filter(|s| !matches!(s.work, Work::Alone(_))) {
                        Some(stage) => stage.then.end = at + 1,
                        None => {
                            let then = at..at + 1;
                            stages.push(Stage { work: Work::None, each: None, then });
                        }
                    }
                    at += 1;
                    continue;
                }
            };
            let mut stage = Stage { work, each: None, then: 0..0 };
            at = stage.together().end;
            if let Work::Linears(linears) = &stage.work {
                stage.each = self.each(linears.clone(), at);
                at += usize::from(stage.each.is_some());
            }
            stage.then = at..at;
            stages.push(stage);
        }
        stages
    }

    /// The linear steps from `at` on that read one input; none if the first is of another kind.
    #[must_use]
    pub fn alike(&self, at: usize) -> Range<usize> {
        let left = self.steps.get(at..).unwrap_or(&[]);
        let same = |step: &&Step| step.op == Op::Linear && step.inputs == left[0].inputs;
        at..at + left.iter().take_while(same).count()
    }

    /// The linear steps over one input from `at` on, with the attention that they lead to.
    fn linears(&self, at: usize) -> Work {
        let linears = self.alike(at);
        let heads = self.heads(linears.clone());
        heads.map_or(Work::Linears(linears), Work::Heads)
    }

    /// The attention over just these linear steps, if nothing but rotations stands between.
    fn heads(&self, linears: Range<usize>) -> Option<Heads> {
        let ropes = self.steps[linears.end..].iter();
        let ropes = ropes.take_while(|step| matches!(step.op, Op::Rope(_))).count();
        let attend = linears.end + ropes;
        let ropes = linears.end..attend;
        let step = self.steps.get(attend).filter(|step| matches!(step.op, Op::Attend(_)))?;
        let writes = |steps: &Range<usize>, value: ValueId| {
            steps.clone().find(|step| self.steps[*step].output == value)
        };
        let turned = |value: ValueId| {
            let rope = writes(&ropes, value);
            let from = rope.map_or(value, |rope| self.steps[rope].inputs[0]);
            Some(Turned { linear: writes(&linears, from)?, rope })
        };
        let &[q, k, v] = &step.inputs[..] else { return None };
        let heads = Heads { q: turned(q)?, k: turned(k)?, v: writes(&linears, v)?, attend };
        let rotations = [heads.q.rope, heads.k.rope].iter().flatten().count();
        let apart = heads.q.linear != heads.k.linear && heads.q.linear != heads.v;
        (linears.len() == 3 && ropes.len() == rotations && apart && heads.k.linear != heads.v)
            .then_some(heads)
    }

    /// Whether the step at `at` can be done with each piece of what these linear steps write.
    fn each(&self, linears: Range<usize>, at: usize) -> Option<usize> {
        let step = self.steps.get(at)?;
        let written: Vec<_> = self.steps[linears].iter().map(|step| step.output).collect();
        let fits = match step.op {
            Op::GatedAct(_) => step.inputs == written,
            Op::Add => {
                written.len() == 1
                    && (step.inputs[0] == written[0]) != (step.inputs[1] == written[0])
            }
            _ => false,
        };
        fits.then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Act, Attend, GroupKind, KvLayerId, NormKind, Rope, RopeKind, WeightId};
    use super::*;

    fn step(op: Op, inputs: &[u32], output: u32) -> Step {
        let inputs = inputs.iter().map(|id| ValueId(*id)).collect();
        Step { op, inputs, output: ValueId(output), weights: vec![WeightId(output)] }
    }

    fn stages(steps: Vec<Step>) -> Vec<Stage> {
        Group { kind: GroupKind::Output, steps }.stages()
    }

    fn norm() -> Op {
        Op::Norm(NormKind::Rms { eps: 1e-5 })
    }

    #[test]
    fn attention_waits_twice() {
        let rope = Op::Rope(Rope {
            kind: RopeKind::Norm,
            n_head: 1,
            head_dim: 2,
            n_rot: 2,
            freqs: [1.0].into(),
            magnitude: 1.0,
        });
        let attend = Op::Attend(Attend {
            kv: KvLayerId(0),
            n_head: 1,
            n_head_kv: 1,
            head_dim_k: 2,
            head_dim_v: 2,
            scale: 1.0,
        });
        let steps = vec![
            step(norm(), &[0], 1),
            step(Op::Linear, &[1], 2),
            step(Op::Linear, &[1], 3),
            step(Op::Linear, &[1], 4),
            step(rope.clone(), &[2], 5),
            step(rope, &[3], 6),
            step(attend, &[5, 6, 4], 7),
            step(Op::Linear, &[7], 8),
            step(Op::Add, &[0, 8], 9),
        ];
        let (q, k) = (Turned { linear: 1, rope: Some(4) }, Turned { linear: 2, rope: Some(5) });
        let heads = Heads { q, k, v: 3, attend: 6 };
        let want = [
            Stage { work: Work::None, each: None, then: 0..1 },
            Stage { work: Work::Heads(heads), each: None, then: 7..7 },
            Stage { work: Work::Linears(7..8), each: Some(8), then: 9..9 },
        ];
        assert_eq!(stages(steps), want);
    }

    #[test]
    fn a_feed_forward_waits_twice_and_experts_see_to_themselves() {
        let steps = vec![
            step(norm(), &[0], 1),
            step(Op::Linear, &[1], 2),
            step(Op::Linear, &[1], 3),
            step(Op::GatedAct(Act::Silu), &[2, 3], 4),
            step(Op::Linear, &[4], 5),
            step(Op::Add, &[0, 5], 6),
            step(Op::Experts(Act::Silu), &[6, 5], 7),
            step(Op::Add, &[7, 6], 8),
        ];
        let want = [
            Stage { work: Work::None, each: None, then: 0..1 },
            Stage { work: Work::Linears(1..3), each: Some(3), then: 4..4 },
            Stage { work: Work::Linears(4..5), each: Some(5), then: 6..6 },
            Stage { work: Work::Alone(6), each: None, then: 7..7 },
            Stage { work: Work::None, each: None, then: 7..8 },
        ];
        assert_eq!(stages(steps), want);
    }

    #[test]
    fn an_activation_of_other_values_is_no_part_of_a_piece() {
        let steps = vec![
            step(Op::Linear, &[1], 2),
            step(Op::Linear, &[1], 3),
            step(Op::GatedAct(Act::Silu), &[3, 2], 4),
        ];
        let want = [Stage { work: Work::Linears(0..2), each: None, then: 2..3 }];
        assert_eq!(stages(steps), want);
    }
}
