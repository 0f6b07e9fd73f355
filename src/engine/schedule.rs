//! Who gets how many rows of the next pass. Pure numbers: rows in, rows out. Changes only when
//! tokens are computed, never which.

/// Prompt rows of a pass at most.
const ROWS_MAX: usize = 512;
/// Prompt rows of the first pass, when nothing is measured; few enough for a large model.
const ROWS_FIRST: usize = 16;
/// The same if the weights are read in every pass.
const ROWS_FIRST_STREAMED: usize = 512;
/// Fewer rows than this waste the weights that are read for them.
const ROWS_MIN: usize = 64;
/// Matrix kernels take rows by so many, as long as there are; a part costs as much as the whole.
const ROWS_WHOLE: usize = 32;
/// Fewer rows than this beside running decodes make prompts crawl.
const ROWS_MIN_MIXED: usize = 16;
/// How long the slowest group may take: an abort is answered within it, and in a tenth of a second
/// even if others take most of the machine.
const GROUP_MS: f64 = 15.0;
/// Computing takes so many times as long as the reading behind it: reading slows computing down, as
/// both want memory, and more rows a pass read less. Beyond that, groups take too long to abort.
const READ_SHARE: f64 = 8.0;
/// How long a pass may take that running decodes wait for.
const MIXED_PASS_MS: f64 = 100.0;

/// Rows for each of the ready works, given how many each still has to evaluate. Who needs a single
/// row gets it; the others share `chunk` rows evenly, what one does not need goes to the next.
#[must_use]
pub fn allot(pending: &[usize], chunk: usize) -> Vec<usize> {
    let mut rows: Vec<usize> = pending.iter().map(|&count| usize::from(count == 1)).collect();
    let mut left = chunk.max(1);
    loop {
        let open = pending.iter().zip(&rows).filter(|(want, got)| *got < *want).count();
        if open == 0 || left == 0 {
            return rows;
        }
        let share = (left / open).max(1);
        for (want, got) in pending.iter().zip(&mut rows) {
            let more = (*want - *got).min(share).min(left);
            *got += more;
            left -= more;
        }
    }
}

/// How large a prompt chunk may be, from how long passes took.
pub struct Pace {
    /// The size is fixed.
    fixed: Option<usize>,
    /// Rows at most.
    most: usize,
    /// Rows as long as nothing is measured.
    first: usize,
    /// Milliseconds that reading the weights of a pass takes, if it has kept the engine waiting.
    read_ms: f64,
    /// Averages over recent passes of many rows.
    cost: Option<Cost>,
}

/// Milliseconds that a row takes.
#[derive(Clone, Copy)]
struct Cost {
    in_pass: f64,
    in_slowest_group: f64,
}

impl Pace {
    /// Knows nothing yet; `fixed` sets the size, `most` bounds it; `streams`: a pass reads
    /// the weights.
    #[must_use]
    pub fn new(fixed: Option<usize>, most: usize, streams: bool) -> Self {
        let fixed = fixed.map(|rows| rows.max(1));
        let mut pace = Pace { fixed, most: 0, first: 0, read_ms: 0.0, cost: None };
        pace.bound(most, streams);
        pace
    }

    /// Other bounds: `most` and `streams` as above. What was measured of computing still holds.
    pub fn bound(&mut self, most: usize, streams: bool) {
        self.most = most.clamp(1, ROWS_MAX);
        self.first = if streams { ROWS_FIRST_STREAMED } else { ROWS_FIRST }.min(self.most);
        self.read_ms = 0.0;
    }

    /// A pass took so long, and waited so much of it for weights: reading is what it took. One that
    /// did not wait tells nothing of reading, which was hidden.
    pub fn waited(&mut self, pass_ms: f64, stall_ms: f64) {
        if stall_ms > pass_ms / 8.0 {
            self.read_ms = pass_ms;
        }
    }

    /// Prompt rows for the next pass; `is_mixed`: decodes wait for it.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a positive estimate, clamped; a float that is too large saturates"
    )]
    pub fn chunk(&self, is_mixed: bool) -> usize {
        if let Some(rows) = self.fixed {
            return rows;
        }
        let Some(cost) = self.cost else { return self.first };
        // While weights are read, as many rows as can be computed cost nothing.
        let hidden = self.read_ms / cost.in_pass;
        let rows = GROUP_MS / cost.in_slowest_group;
        let (rows, least) = if is_mixed {
            (rows.min(MIXED_PASS_MS / cost.in_pass).max(hidden / 4.0), ROWS_MIN_MIXED)
        } else {
            (rows.max(hidden * READ_SHARE), ROWS_MIN)
        };
        let rows = rows as usize;
        let whole = rows - rows % ROWS_WHOLE;
        (if whole > 0 { whole } else { rows }).clamp(least.min(self.most), self.most)
    }

    /// A pass of `rows` rows took so long, its slowest group so much of it.
    #[allow(clippy::cast_precision_loss, reason = "rows of a pass are few")]
    pub fn took(&mut self, rows: usize, pass_ms: f64, group_ms: f64) {
        // Few rows cost the reading of the weights, which says little about many.
        if rows < ROWS_FIRST {
            return;
        }
        let each = |ms: f64| (ms / rows as f64).max(1e-6);
        let now = Cost { in_pass: each(pass_ms), in_slowest_group: each(group_ms) };
        let before = self.cost.unwrap_or(now);
        let mix = |before: f64, now: f64| 0.5 * before + 0.5 * now;
        self.cost = Some(Cost {
            in_pass: mix(before.in_pass, now.in_pass),
            in_slowest_group: mix(before.in_slowest_group, now.in_slowest_group),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_always_get_their_row_and_prompts_share_the_rest() {
        let check = |pending: &[usize], chunk, expected: &[usize]| {
            assert_eq!(allot(pending, chunk), expected, "{pending:?} in {chunk}");
        };
        check(&[1, 1, 1], 1, &[1, 1, 1]);
        check(&[1000], 512, &[512]);
        check(&[1, 1000, 1], 512, &[1, 512, 1]);
        check(&[1000, 1000], 64, &[32, 32]);
        check(&[1000, 10, 1000], 64, &[27, 10, 27]);
        check(&[1000, 1000, 1000], 2, &[1, 1, 0]);
        check(&[5, 7], 64, &[5, 7]);
        check(&[], 64, &[]);
        check(&[3, 0], 64, &[3, 0]);
    }

    #[test]
    fn a_slow_model_gets_smaller_chunks() {
        let mut pace = Pace::new(None, ROWS_MAX, false);
        assert_eq!(pace.chunk(false), 16);
        pace.took(100, 50.0, 10.0);
        assert_eq!((pace.chunk(false), pace.chunk(true)), (128, 128));
        pace.took(100, 500.0, 10.0);
        assert_eq!((pace.chunk(false), pace.chunk(true)), (128, 32));
        pace.took(64, 64_000.0, 9000.0);
        assert_eq!((pace.chunk(false), pace.chunk(true)), (64, 16));
        assert_eq!(Pace::new(Some(7), ROWS_MAX, false).chunk(true), 7);
    }

    #[test]
    fn prompts_of_a_streamed_model_take_rows_that_hide_its_reading_however_many_there_are() {
        let mut pace = Pace::new(None, ROWS_MAX, true);
        assert_eq!(pace.chunk(false), 512);
        // A decode: 800 of its 900 ms were waited for weights.
        pace.waited(900.0, 800.0);
        for _ in 0..20 {
            // 27 ms a row: 900 * 8 / 27 = 266 rows compute eight times as long as reading takes.
            pace.took(256, 27.0 * 256.0, 60.0);
            pace.waited(27.0 * 256.0, 0.0);
            assert_eq!(pace.chunk(false), 256);
        }
        pace.bound(100, true);
        assert_eq!(pace.chunk(false), 64);
    }
}
