//! Why logits are not finite: runs the pass again with a probe, finds the first step that gives NaN
//! or infinity, and looks at what it reads. Weights are not looked through at loading, so this is
//! where a damaged file shows.

use crate::backend::Batch;
use crate::backend::finite::{NotFinite, Search};
use crate::engine::thread::Engine;
use crate::engine::work::Fate;
use crate::error::{Code, Error, Result, shown};
use crate::plan::{GroupId, Op, Plan};

/// Where numbers go wrong.
struct Origin {
    /// The step in words.
    step: String,
    /// The weight that is to blame; none: they are all finite, as far as was looked.
    weight: Option<NotFinite>,
}

impl Engine {
    /// Tells those who fail for logits that are not finite why. Others go on as they are.
    pub(super) fn explain(&mut self, batch: &Batch, fates: &mut [(u64, Fate)]) {
        let is_odd = |fate: &Fate| matches!(fate, Fate::Rejected(e) if e.code == Code::Numeric);
        let odd = fates.iter().filter(|(_, fate)| is_odd(fate)).map(|(number, _)| *number);
        let odd: Vec<u64> = odd.collect();
        if odd.is_empty() {
            return;
        }
        self.in_pass = true;
        let origin = self.origin(batch, &odd);
        self.in_pass = false;
        for (_, fate) in fates.iter_mut().filter(|(_, fate)| is_odd(fate)) {
            let Fate::Rejected(error) = fate else { continue };
            match &origin {
                Ok(Some(origin)) => self.name(origin, error),
                // Nobody waits any more, or a backend shows no steps.
                Ok(None) => {}
                Err(other) => *error = other.clone(),
            }
        }
    }

    /// The first step whose result is not finite. None if all of `odd` have left meanwhile.
    fn origin(&mut self, batch: &Batch, odd: &[u64]) -> Result<Option<Origin>> {
        self.backend.begin(batch)?;
        let (plan, store) = (self.plan.clone(), self.store.clone());
        for id in plan.group_ids() {
            let lease = store.acquire_unless(id, &mut || self.have_left(odd))?;
            let Some(lease) = lease else { return Ok(None) };
            let mut first = None;
            let mut probe = |_, step, _, data: &[f32]| {
                if first.is_none() && data.iter().any(|value| !value.is_finite()) {
                    first = Some(step);
                }
            };
            self.backend.run(id, &lease, Some(&mut probe))?;
            lease.check()?;
            let Some(step) = first.and_then(|index: usize| plan.group(id).steps.get(index)) else {
                if self.have_left(odd) {
                    return Ok(None);
                }
                continue;
            };
            let mut weight = {
                let tokens: Vec<u32> = batch.rows.iter().map(|row| row.token).collect();
                let mut go_on = || !self.have_left(odd);
                Search::new(&plan, &mut go_on).step(step, &lease, &tokens)?
            };
            drop(lease);
            if matches!(step.op, Op::Attend(_)) {
                // Keys or values of an earlier pass.
                weight = self.up_to(id, odd)?;
            }
            let step = plan.describe_step(step);
            return Ok((!self.have_left(odd)).then_some(Origin { step, weight }));
        }
        Ok(None)
    }

    /// A weight that is not finite in any group up to one.
    fn up_to(&mut self, last: GroupId, odd: &[u64]) -> Result<Option<NotFinite>> {
        let (plan, store) = (self.plan.clone(), self.store.clone());
        let works = self.works.iter().filter(|work| odd.contains(&work.number));
        let mut tokens: Vec<u32> =
            works.flat_map(|work| work.sequence.tokens.iter().copied()).collect();
        tokens.sort_unstable();
        tokens.dedup();
        for id in plan.group_ids().take_while(|id| *id <= last) {
            let lease = store.acquire_unless(id, &mut || self.have_left(odd))?;
            let Some(lease) = lease else { return Ok(None) };
            let mut go_on = || !self.have_left(odd);
            let mut search = Search::new(&plan, &mut go_on);
            for step in &plan.group(id).steps {
                if let Some(found) = search.step(step, &lease, &tokens)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Does what was asked meanwhile; whether nobody waits for the reason any more.
    fn have_left(&mut self, odd: &[u64]) -> bool {
        self.attend();
        self.is_closing || odd.iter().all(|number| self.index_of(*number).is_none())
    }

    fn name(&self, origin: &Origin, error: &mut Error) {
        let Some(bad) = &origin.weight else {
            let (before, step) = (&error.message, shown(&origin.step));
            error.message = format!("{before}; finite weights become that first in {step}");
            return;
        };
        let weight = self.plan.weight(bad.weight);
        let file = self.files.get(weight.extent.part as usize).map_or("the model", String::as_str);
        *error = Error::at(Code::ModelInvalid, file, &weight.name, place(bad, &self.plan));
    }
}

/// `row 3, column 32 is NaN, so that ...`.
fn place(bad: &NotFinite, plan: &Plan) -> String {
    let expert = bad.expert.map_or_else(String::new, |expert| format!("expert {expert}, "));
    let row = if plan.weight(bad.weight).shape.len() > 1 {
        format!("row {}, column {}", bad.row, bad.column)
    } else {
        format!("element {}", bad.column)
    };
    let what = if bad.value.is_nan() { "NaN" } else { "infinite" };
    format!("{expert}{row} is {what}, so the model gives no numbers; get the file again")
}
