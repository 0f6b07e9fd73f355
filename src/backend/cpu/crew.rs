//! How many threads take part when nobody has said: all of them, until passes show that some come
//! late (another process has their core, or the quota is spent); then fewer, if that is faster.
//! Fewer stay if a pass takes less; more are tried again after a pause, which doubles each time it
//! was in vain. So a machine that is ours alone never runs with fewer. It sees times, no thread.

use std::time::Duration;

/// Computing time over which passes are compared: some slices of the scheduler, and more than a
/// period of a quota.
const WINDOW: Duration = Duration::from_millis(120);
/// Passes at least in a window.
const PASSES_MIN: u32 = 4;
/// Share of a window that threads may wait for late ones. A quiet machine stays below 1 %, a busy
/// process on one of two cores makes it 20 to 60 %.
const LATE: f64 = 0.04;
/// Windows before the other number is tried again: at first, and at most (some 15 s).
const PAUSE: [u32; 2] = [4, 128];
/// A number of threads must be that much faster to be taken.
const GAIN: f64 = 0.97;

/// The number, and what is known about it.
#[derive(Debug)]
pub struct Crew {
    /// Numbers of threads to choose from, falling.
    levels: Vec<usize>,
    at: usize,
    /// Level and seconds a pass before the trial that is under way.
    before: Option<(usize, f64)>,
    window: Window,
    /// Windows until fewer, and until more, may be tried, and how many it will be next time.
    pauses: [Pause; 2],
}

/// Passes of one kind.
#[derive(Debug, Default)]
struct Window {
    rows: usize,
    passes: u32,
    time: Duration,
    late: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    left: u32,
    next: u32,
}

const FEWER: usize = 0;
const MORE: usize = 1;

impl Crew {
    /// Chooses among 1 to `threads`.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let halves = std::iter::successors(Some(threads / 2), |n| Some(n / 2));
        let mut levels = vec![threads.max(1)];
        for fewer in std::iter::once(threads.saturating_sub(1)).chain(halves.take_while(|n| *n > 0))
        {
            if fewer > 0 && levels.last().is_some_and(|last| fewer < *last) {
                levels.push(fewer);
            }
        }
        let pauses = [Pause { left: 0, next: PAUSE[0] }, Pause { left: 0, next: PAUSE[0] }];
        Crew { levels, at: 0, before: None, window: Window::default(), pauses }
    }

    /// Threads that should take part in the next pass.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.levels.get(self.at).copied().unwrap_or(1)
    }

    /// A pass of so many rows has taken `time`, of which threads waited `late` for others.
    pub fn saw(&mut self, rows: usize, time: Duration, late: Duration) {
        if rows != self.window.rows {
            // Another kind of pass says nothing about this one; what was tried is not known yet.
            self.window = Window { rows, ..Window::default() };
        }
        self.window.passes += 1;
        self.window.time += time;
        self.window.late += late;
        if self.window.passes >= PASSES_MIN && self.window.time >= WINDOW {
            let window = std::mem::replace(&mut self.window, Window { rows, ..Window::default() });
            let late = window.late.as_secs_f64() / window.time.as_secs_f64();
            self.judge(window.time.as_secs_f64() / f64::from(window.passes), late);
        }
    }

    fn judge(&mut self, cost: f64, late: f64) {
        if let Some((level, before)) = self.before.take() {
            let way = if level < self.at { FEWER } else { MORE };
            if cost < before * GAIN {
                // What was given up is tried again soon: others come and go.
                self.pauses = [FEWER, MORE].map(|_| Pause { left: PAUSE[0], next: PAUSE[0] });
                self.pauses[FEWER].left = 0;
            } else {
                self.at = level;
                let Pause { next, .. } = self.pauses[way];
                self.pauses[way] = Pause { left: next, next: (2 * next).min(PAUSE[1]) };
            }
            return;
        }
        for pause in &mut self.pauses {
            pause.left = pause.left.saturating_sub(1);
        }
        if late > LATE && self.at + 1 < self.levels.len() && self.pauses[FEWER].left == 0 {
            self.before = Some((self.at, cost));
            self.at += 1;
        } else if self.at > 0 && self.pauses[MORE].left == 0 {
            self.before = Some((self.at, cost));
            self.at -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Seconds that `passes` take, where a pass takes as long as `pass` says (milliseconds, of
    /// which so many are late) with a number of threads.
    fn run(crew: &mut Crew, passes: usize, pass: impl Fn(usize) -> (u32, u32)) -> f64 {
        let mut all = 0;
        for _ in 0..passes {
            let (time, late) = pass(crew.threads());
            crew.saw(1, time * MS, late * MS);
            all += time;
        }
        f64::from(all) / 1000.0
    }

    #[test]
    fn threads_that_are_never_late_all_stay() {
        let mut crew = Crew::new(2);
        for _ in 0..1000 {
            assert_eq!(crew.threads(), 2);
            crew.saw(1, 20 * MS, Duration::ZERO);
        }
    }

    #[test]
    fn late_threads_are_left_out_while_that_is_faster_and_no_longer() {
        let mut crew = Crew::new(2);
        let crowded = |threads| if threads == 2 { (70, 35) } else { (35, 0) };
        let seconds = run(&mut crew, 2000, crowded);
        assert_eq!(crew.threads(), 1);
        assert!(seconds < 2000.0 * 0.035 * 1.03, "trials cost {seconds} s");
        run(&mut crew, 3000, |threads| if threads == 2 { (20, 0) } else { (35, 0) });
        assert_eq!(crew.threads(), 2);
    }

    #[test]
    fn late_threads_stay_if_they_help_all_the_same() {
        let mut crew = Crew::new(2);
        let seconds = run(&mut crew, 2000, |threads| if threads == 2 { (25, 5) } else { (35, 0) });
        assert!(seconds < 2000.0 * 0.025 * 1.03, "trials cost {seconds} s");
    }

    #[test]
    fn one_busy_neighbour_takes_one_thread_of_many() {
        let mut crew = Crew::new(16);
        let pass = |threads: usize| {
            let late = if threads == 16 { 60 } else { 0 };
            (u32::try_from(320 / threads).unwrap() + late, late)
        };
        run(&mut crew, 200, pass);
        assert_eq!((crew.levels.clone(), crew.threads()), (vec![16, 15, 8, 4, 2, 1], 15));
    }

    #[test]
    fn passes_of_other_sizes_are_not_compared() {
        let mut crew = Crew::new(2);
        for pass in 0..500 {
            crew.saw(1 + pass % 3, 50 * MS, 25 * MS);
        }
        assert_eq!(crew.threads(), 2);
        assert_eq!(Crew::new(1).levels, [1]);
    }
}
