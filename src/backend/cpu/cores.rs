//! How many threads pay here: the physical cores that the process may use, and the share of their
//! time that its control groups leave. It starts no thread.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Threads that pay here, at least 1: physical cores within affinity, and no more than the quota
/// of CPU time keeps busy.
///
/// A quota of 1.5 CPUs is rounded to 2 threads: each computes three quarters of the time, which is
/// more than one that computes always as long as two are 1.33 times as fast as one (here 1.77).
#[must_use]
pub fn default_threads() -> usize {
    let system = System { root: PathBuf::from("/") };
    let cores = system.cores();
    let quota = system.quota().map_or(cores, rounded);
    cores.min(quota).clamp(1, super::pool::THREADS_MAX)
}

/// Half a CPU and more counts as one.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of CPUs")]
fn rounded(quota: f64) -> usize {
    ((quota + 0.5).floor() as usize).max(1)
}

/// Where `/proc` and `/sys` are; elsewhere in tests.
struct System {
    root: PathBuf,
}

impl System {
    /// Physical cores among the CPUs that this process may use; logical ones if nobody says.
    fn cores(&self) -> usize {
        let Some(cpus) = core_affinity::get_core_ids().filter(|cpus| !cpus.is_empty()) else {
            return std::thread::available_parallelism().map_or(1, usize::from);
        };
        let siblings = |cpu: &core_affinity::CoreId| {
            let path = format!("sys/devices/system/cpu/cpu{}/topology", cpu.id);
            self.read(Path::new(&path).join("thread_siblings_list"))
        };
        let cores: Option<BTreeSet<String>> = cpus.iter().map(siblings).collect();
        cores.map_or(cpus.len(), |cores| cores.len())
    }

    /// CPUs' worth of time that the control groups of this process leave it, version 1 or 2.
    fn quota(&self) -> Option<f64> {
        let text = self.read("proc/self/cgroup")?;
        let quotas = text.lines().flat_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next(), parts.next(), parts.next());
            let (mounts, read): (&[&str], Read) = match controllers {
                Some("") => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], System::quota_v2),
                Some(names) if names.split(',').any(|name| name == "cpu") => {
                    (&["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"], System::quota_v1)
                }
                _ => (&[], System::quota_v2),
            };
            let group = path.unwrap_or("").trim().trim_start_matches('/');
            let groups = mounts.iter().flat_map(|mount| {
                // In a container the path may be the host's: then its own group is the root.
                Path::new(group).ancestors().map(move |group| Path::new(mount).join(group))
            });
            groups.filter_map(|group| read(self, &group)).collect::<Vec<_>>()
        });
        quotas.min_by(f64::total_cmp)
    }

    /// `cpu.max`: quota (or `max`) and period.
    fn quota_v2(&self, group: &Path) -> Option<f64> {
        let text = self.read(group.join("cpu.max"))?;
        let mut numbers = text.split_whitespace().map(str::parse::<f64>);
        share(numbers.next()?.ok()?, numbers.next()?.ok()?)
    }

    /// `cpu.cfs_quota_us` (or -1) and `cpu.cfs_period_us`.
    fn quota_v1(&self, group: &Path) -> Option<f64> {
        let number = |name: &str| self.read(group.join(name))?.trim().parse::<f64>().ok();
        share(number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
    }

    fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }
}

/// How the quota of a group is read.
type Read = fn(&System, &Path) -> Option<f64>;

fn share(quota: f64, period: f64) -> Option<f64> {
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(name: &str, files: &[(&str, &str)]) -> Option<f64> {
        let root = std::env::temp_dir().join(format!("chord-cores-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        let quota = System { root: root.clone() }.quota();
        fs::remove_dir_all(root).expect("removed");
        quota
    }

    #[test]
    fn the_least_quota_of_all_groups_above_counts() {
        let v2 = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
        ];
        assert_eq!(quota("v2", &v2), Some(1.5));
        let v1 = [
            ("proc/self/cgroup", "4:cpuacct:/\n2:cpu,cpuacct:/docker/x\n0::/\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota("v1", &v1), Some(0.5));
        assert_eq!(quota("none", &[("proc/self/cgroup", "0::/\n")]), None);
        let broken = [("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "0 x y\n")];
        assert_eq!(quota("broken", &broken), None);
    }

    #[test]
    fn half_a_cpu_more_is_a_thread_more() {
        let cases = [(0.1, 1), (1.0, 1), (1.25, 1), (1.5, 2), (2.0, 2), (7.5, 8)];
        assert_eq!(cases.map(|(quota, _)| rounded(quota)), cases.map(|(_, threads)| threads));
        assert!(default_threads() >= 1);
    }
}
