//! What must be true at the end of a run.

use std::collections::BTreeMap;

use s0_tree::TreePath;

use super::World;
use crate::fs::Node;
use crate::service::in_words;

impl World {
    /// Every disk holds what the Volume holds, and nothing is lost.
    pub(super) fn compare(&mut self) -> Result<(), String> {
        let tree = self.service.tree();
        let volume: BTreeMap<String, String> = tree
            .walk()
            .map(|(path, _, node)| {
                let bytes = node.content().and_then(|content| self.service.bytes(content));
                (path.to_string(), in_words(node, bytes))
            })
            .filter(|(path, what)| {
                !path.split('/').any(|n| n.to_lowercase().starts_with("ign")) && what != "fifo"
            })
            .collect();
        for machine in &self.machines {
            let site = machine.site.borrow();
            let replica = machine.replica.as_ref().ok_or("a replica is not running")?;
            let disk: BTreeMap<String, String> = site
                .fs
                .walk()
                .into_iter()
                .filter(|(path, _)| {
                    !path.split('/').any(|name| name.to_lowercase().starts_with("ign"))
                })
                .map(|(path, inode)| {
                    let entry = &site.fs.inodes[&inode];
                    let what = match &entry.node {
                        Node::File(data) => {
                            format!("file {:o} {}", entry.mode, String::from_utf8_lossy(data))
                        }
                        Node::Dir(_) => format!("directory {:o}", entry.mode),
                        Node::Link(target) => format!("symlink {target}"),
                    };
                    (path, what)
                })
                .collect();
            let spelled = |path: &String| {
                if site.fs.traits.preserving { path.clone() } else { s0_tree::comparison_key(path) }
            };
            let volume: BTreeMap<String, String> =
                volume.iter().map(|(path, what)| (spelled(path), what.clone())).collect();
            let disk: BTreeMap<String, String> =
                disk.iter().map(|(path, what)| (spelled(path), what.clone())).collect();
            let strip = |what: &String| {
                if site.fs.traits.modes {
                    what.clone()
                } else {
                    what.split(' ').enumerate().filter(|(i, _)| *i != 1).map(|(_, w)| w).collect()
                }
            };
            let excused = |path: &String| {
                let Ok(path) = TreePath::new(path) else { return false };
                let state = replica.state();
                let status = replica.status();
                let low = |path: &TreePath| {
                    TreePath::new(&spelled(&path.to_string())).unwrap_or_default()
                };
                state.kept.iter().any(|kept| low(kept).is_at_or_below(&path))
                    || status.problems.keys().any(|p| path.is_at_or_below(&low(p)))
                    || (!status.problems.is_empty() && replica.is_waiting(&path))
                    || state.conflicts.keys().any(|p| path.is_at_or_below(&low(p)))
            };
            for path in volume.keys().chain(disk.keys()) {
                let (a, b) = (volume.get(path).map(strip), disk.get(path).map(strip));
                if a != b && !excused(path) {
                    return Err(format!(
                        "{}: {path} is {b:?}, the Volume has {a:?}\n  row {:?}\n{}",
                        machine.id,
                        TreePath::new(path).ok().and_then(|path| replica.row_for(&path)),
                        replica.debug(),
                    ));
                }
            }
        }
        self.compare_mounts()?;
        let registry = self.registry.borrow();
        for (data, excused) in &registry.written {
            let lives = || {
                registry.known.contains(data)
                    || self.machines.iter().any(|m| m.site.borrow().fs.contents().contains(data))
            };
            if !excused && !lives() {
                return Err(format!("{:?} is lost", String::from_utf8_lossy(data)));
            }
        }
        // What is on a disk was written by somebody, whole.
        for machine in &self.machines {
            for data in machine.site.borrow().fs.contents() {
                if !data.is_empty() && !registry.written.contains_key(&data) {
                    return Err(format!("torn: {:?}", String::from_utf8_lossy(&data)));
                }
            }
        }
        Ok(())
    }
}
