//! Memory that this process may still use: the least of what the machine has, its control groups
//! allow and its limits leave, less a reserve. Where the system does not say, it is unknown.

use std::fs;
use std::path::{Path, PathBuf};

/// Left for everything else: an eighth, at most this.
const RESERVE_MAX: u64 = 512 << 20;

/// Bytes that may still be used; none if the system does not say.
#[must_use]
pub fn available() -> Option<u64> {
    let system = System { root: PathBuf::from("/") };
    let least = [system.physical(), system.cgroup(), system.address_space()];
    let least = least.into_iter().flatten().min()?;
    Some(least - (least / 8).min(RESERVE_MAX))
}

/// Bytes that this machine or container has in all; none if the system does not say.
#[must_use]
pub fn total() -> Option<u64> {
    let system = System { root: PathBuf::from("/") };
    let all = [system.installed(), system.cgroup_limit(), system.address_limit()];
    all.into_iter().flatten().min()
}

/// Where `/proc` and `/sys` are; elsewhere in tests.
struct System {
    root: PathBuf,
}

impl System {
    /// What the kernel can give without swapping.
    fn physical(&self) -> Option<u64> {
        let text = self.read("proc/meminfo")?;
        field(&text, "MemAvailable:")?.checked_mul(1024)
    }

    /// What the machine has.
    fn installed(&self) -> Option<u64> {
        field(&self.read("proc/meminfo")?, "MemTotal:")?.checked_mul(1024)
    }

    /// The address space that `ulimit -v` allows.
    fn address_limit(&self) -> Option<u64> {
        field(&self.read("proc/self/limits")?, "Max address space")
    }

    /// What is left of it.
    fn address_space(&self) -> Option<u64> {
        let limit = self.address_limit()?;
        let used = field(&self.read("proc/self/status")?, "VmSize:")?.checked_mul(1024)?;
        Some(limit.saturating_sub(used))
    }

    /// The least that is left in the control groups above this process, version 1 or 2.
    fn cgroup(&self) -> Option<u64> {
        self.least(&|kind, group| self.room(kind, group))
    }

    /// The least that they allow.
    fn cgroup_limit(&self) -> Option<u64> {
        self.least(&|kind, group| self.number(group, kind.limit))
    }

    /// The least of a figure of the groups above this process.
    fn least(&self, figure: &Figure<'_>) -> Option<u64> {
        let text = self.read("proc/self/cgroup")?;
        let rooms = text.lines().flat_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next(), parts.next(), parts.next());
            let kind = match controllers {
                Some("") => Some(&V2),
                Some(names) if names.split(',').any(|name| name == "memory") => Some(&V1),
                _ => None,
            };
            kind.zip(path).map_or(Vec::new(), |(kind, path)| rooms(kind, path, figure))
        });
        rooms.min()
    }

    fn room(&self, kind: &Hierarchy, group: &Path) -> Option<u64> {
        let limit = self.number(group, kind.limit)?;
        let used = self.number(group, kind.used)?;
        // File pages that nobody uses are given back before anything is refused.
        let stat = self.read(group.join("memory.stat")).unwrap_or_default();
        let idle = field(&stat, kind.idle).unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(idle)))
    }

    /// A figure of a group. "max" is no number: no limit.
    fn number(&self, group: &Path, name: &str) -> Option<u64> {
        self.read(group.join(name))?.trim().parse().ok()
    }

    fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }
}

/// A figure of a control group, by its folder.
type Figure<'a> = dyn Fn(&Hierarchy, &Path) -> Option<u64> + 'a;

/// A figure of a group and of all groups above it.
fn rooms(kind: &Hierarchy, path: &str, figure: &Figure<'_>) -> Vec<u64> {
    let mut rooms = Vec::new();
    let mut group = Path::new(path.trim_start_matches('/'));
    loop {
        rooms.extend(figure(kind, &Path::new(kind.mount).join(group)));
        let Some(parent) = group.parent() else { return rooms };
        group = parent;
    }
}

/// Names of a version of control groups.
struct Hierarchy {
    mount: &'static str,
    limit: &'static str,
    used: &'static str,
    idle: &'static str,
}

const V1: Hierarchy = Hierarchy {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    idle: "total_inactive_file",
};
const V2: Hierarchy = Hierarchy {
    mount: "sys/fs/cgroup",
    limit: "memory.max",
    used: "memory.current",
    idle: "inactive_file",
};

/// The first number after a name that begins a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(name: &str, files: &[(&str, &str)]) -> System {
        let root = std::env::temp_dir().join(format!("chord-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        System { root }
    }

    #[test]
    fn the_tightest_group_above_the_process_counts() {
        let two = system(
            "v2",
            &[
                ("proc/self/cgroup", "0::/a/b\n"),
                ("sys/fs/cgroup/a/b/memory.max", "max\n"),
                ("sys/fs/cgroup/a/b/memory.current", "10\n"),
                ("sys/fs/cgroup/a/memory.max", "1000\n"),
                ("sys/fs/cgroup/a/memory.current", "700\n"),
                ("sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 200\n"),
            ],
        );
        assert_eq!((two.cgroup(), two.cgroup_limit()), (Some(500), Some(1000)));
        let one = system(
            "v1",
            &[
                ("proc/self/cgroup", "5:cpu:/x\n4:memory:/d\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "900\n"),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", "100\n"),
            ],
        );
        assert_eq!(one.cgroup(), Some(800));
        for system in [one, two] {
            fs::remove_dir_all(system.root).expect("removed");
        }
    }

    #[test]
    fn the_limit_of_the_address_space_counts_what_is_mapped() {
        let limited = system(
            "as",
            &[
                ("proc/self/limits", "Max address space         1048576      unlimited   bytes\n"),
                ("proc/self/status", "VmPeak:	 900 kB\nVmSize:	     512 kB\n"),
                ("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    8 kB\n"),
            ],
        );
        assert_eq!((limited.address_space(), limited.physical()), (Some(524_288), Some(8192)));
        let all = (limited.address_limit(), limited.installed());
        assert_eq!(all, (Some(1_048_576), Some(9216)));
        assert_eq!((limited.cgroup(), limited.cgroup_limit()), (None, None));
        fs::remove_dir_all(limited.root).expect("removed");
    }

    #[test]
    fn unlimited_is_unknown() {
        assert_eq!(field("Max address space unlimited unlimited bytes", "Max address space"), None);
    }
}
