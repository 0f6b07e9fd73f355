//! Models split into parts `name-00001-of-0000N.gguf`: where the others are, and whether they
//! belong together.

use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result, shown};

use super::meta::Meta;

const COUNT: &str = "split.count";
const NUMBER: &str = "split.no";
const TENSORS: &str = "split.tensors.count";

/// Number and path of each part after the first; none when the model is one file.
pub(super) fn others(path: &Path, meta: &Meta) -> Result<Vec<(u32, PathBuf)>> {
    let Some(count) = meta.opt_u32(COUNT)? else { return Ok(Vec::new()) };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(Name { stem, number, of }) = parse(&name) else {
        // A file that was merged from parts says 0.
        if count <= 1 {
            return Ok(Vec::new());
        }
        let what = format!("is {count}, but the file is not named 'name-00001-of-{count:05}.gguf'");
        return Err(meta.error(COUNT, what));
    };
    if count != of {
        return Err(meta.error(COUNT, format!("is {count}, but the file's name says {of}")));
    }
    let index = meta.u32(NUMBER)?;
    if index != 0 || number != 1 {
        let first = shown(&format!("{stem}-00001-of-{of:05}.gguf"));
        let part = index.saturating_add(1);
        let what = format!("says that this is part {part} of {of}; open the first, '{first}'");
        return Err(meta.error(NUMBER, what));
    }
    let paths = (2..=count).map(|number| {
        (number, path.with_file_name(format!("{stem}-{number:05}-of-{count:05}.gguf")))
    });
    Ok(paths.collect())
}

/// Checks that part `number` goes with the first.
pub(super) fn check(first: &Meta, part: &Meta, number: u32) -> Result<()> {
    let (index, count) = (part.u32(NUMBER)?, part.u32(COUNT)?);
    if index.checked_add(1) != Some(number) {
        return Err(part.error(NUMBER, format!("is {index} in part {number} (counted from 0)")));
    }
    if first.opt_u32(COUNT)? != Some(count) {
        return Err(part.error(COUNT, format!("is {count}, another than the first part says")));
    }
    let own = [NUMBER, COUNT, TENSORS];
    for (key, value) in part.iter().filter(|(key, _)| !own.contains(key)) {
        if first.get(key).is_some_and(|known| known != value) {
            return Err(part.error(key, "differs from the first part's"));
        }
    }
    Ok(())
}

/// Checks the number of tensors in all parts.
pub(super) fn check_count(first: &Meta, n_parts: usize, n_tensors: usize) -> Result<()> {
    let count = match n_parts {
        1 => return Ok(()),
        _ => first.u32(TENSORS)?,
    };
    if usize::try_from(count) == Ok(n_tensors) {
        return Ok(());
    }
    let what = format!("is {count}, but the parts hold {n_tensors} tensors");
    let place = format!("key '{}'", TENSORS);
    Err(Error::at(Code::ModelInvalid, first.path(), place, what))
}

struct Name<'a> {
    stem: &'a str,
    number: u32,
    of: u32,
}

/// Takes `stem-00001-of-00003.gguf` apart.
fn parse(name: &str) -> Option<Name<'_>> {
    let rest = name.strip_suffix(".gguf")?;
    let (rest, of) = rest.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let five = |digits: &str| {
        let plain = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if plain { digits.parse().ok() } else { None }
    };
    Some(Name { stem, number: five(number)?, of: five(of)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_names_are_taken_apart() {
        let parts = |name| parse(name).map(|name| (name.stem, name.number, name.of));
        assert_eq!(parts("a-b-00001-of-00003.gguf"), Some(("a-b", 1, 3)));
        assert_eq!(parts("a-1-of-3.gguf"), None);
        assert_eq!(parts("a-00001-of-+0003.gguf"), None);
        assert_eq!(parts("a.gguf"), None);
    }
}
