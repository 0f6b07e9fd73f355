//! What loading a model with some options would lead to, told by the functions that loading itself
//! uses. Reads a header, and a little of the file to see how fast the disk is; nothing is loaded.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::ledger::{self, Want};
use super::{LoadOptions, budget, cpu_config, rates, read};
use crate::error::{Code, Result};
use crate::place::rates::{Rates, Speed, speed};
use crate::place::{self, Io, Placement, Request};
use crate::plan::residency::Units;
use crate::store::{self, GroupStats};

/// What to expect.
pub struct Estimate {
    /// Whether loading with these options would work here and now.
    pub fits: bool,
    /// Where everything would live; of the smallest budget that works if it does not fit.
    pub placement: Placement,
    /// The groups, in plan order.
    pub groups: Vec<GroupStats>,
    /// Tokens a second.
    pub speed: Speed,
    /// Bytes a second of the disk that this counts on; none if all fits into memory.
    pub disk: Option<f64>,
}

/// Estimates. `disk`: bytes a second that the disk is said to give; none: it is measured.
///
/// # Errors
/// Those of reading and planning the file; `ERR_DEVICE`, `ERR_INVALID_ARG`, `ABORT_ERR`;
/// `ERR_INSUFFICIENT_MEMORY` where no budget would do.
pub fn estimate(
    path: &Path,
    options: &LoadOptions,
    disk: Option<f64>,
    cancel: &AtomicBool,
) -> Result<Estimate> {
    let super::Read { file, plan, backend, .. } = read(path, options, cancel)?;
    let units = Units::of(&plan);
    let request = budget::request(options, backend.as_ref());
    let (fits, placement) = placed(&plan, &units, options, &request)?;
    super::go_on(cancel)?;
    let groups = store::planned(&plan, &units, placement.streamed.as_ref());
    let streams = placement.streamed.is_some();
    let disk = match disk.filter(|_| streams) {
        None if streams => Some(rates::of_disk(file.parts(), &units, options.io != Io::Buffered)?),
        given => given,
    };
    super::go_on(cancel)?;
    let tier = backend.tier().to_owned();
    let (weights, step_s) = rates::of_plan(&plan, &cpu_config(options), &tier)?;
    let rates = Rates { disk: disk.unwrap_or(0.0), step_s, weights };
    let speed = speed(&plan, &units, &placement, &rates);
    Ok(Estimate { fits, placement, groups, speed, disk })
}

/// Where loading would put everything; a budget that this machine lacks is one that does not fit.
fn placed(
    plan: &crate::plan::Plan,
    units: &Units,
    options: &LoadOptions,
    request: &Request,
) -> Result<(bool, Placement)> {
    let asked = options.ram_bytes;
    let best = place::place(plan, units, request)?;
    let here = budget::check_machine(asked).is_ok();
    let limit = if here {
        let most = asked.map_or(best.budget.total(), |asked| best.budget.total().min(asked));
        let room = ledger::open().admit(Want { least: best.minimum, most }, None);
        budget::limit(asked, room)
    } else {
        asked
    };
    match place::place(plan, units, &Request { limit, ..*request }) {
        Ok(placement) => Ok((here, placement)),
        Err(error) if error.code == Code::InsufficientMemory => {
            let least = Request { limit: Some(best.minimum), ..*request };
            let mut placement = place::place(plan, units, &least)?;
            placement.budget.limit = limit;
            Ok((false, placement))
        }
        Err(error) => Err(error),
    }
}
