//! What a replica says before it has heard of its Volume.

use std::cell::RefCell;
use std::rc::Rc;

use s0_replica::disk::Rules;
use s0_replica::engine::{Config, ForgetError, Replica, ResolveError, VerifyError, WayOut};
use s0_sim::coverage::Shared;
use s0_sim::disk::{Durable, SimDisk, SimStore};
use s0_sim::fs::{Fs, Traits};
use s0_sim::site::{Registry, Site};
use s0_tree::TreePath;

struct NoRules;

impl Rules for NoRules {
    fn is_ignored(&mut self, _: &TreePath, _: bool) -> bool {
        false
    }
    fn changed(&mut self, _: &TreePath) -> bool {
        false
    }
    fn is_guarded(&self, _: &TreePath) -> bool {
        false
    }
    fn is_tracked(&mut self, _: &TreePath) -> bool {
        false
    }
    fn read_again(&mut self) {}
}

fn replica() -> Replica<SimDisk, SimStore> {
    let traits = Traits {
        case_insensitive: false,
        preserving: true,
        windows_names: false,
        modes: true,
        exchange: true,
        born: true,
        grain: 0,
    };
    let registry = Rc::new(RefCell::new(Registry::default()));
    let rng = fastrand::Rng::with_seed(1);
    let site = Site::new("m0", Fs::new(traits), rng, registry, Shared::default(), false);
    let site = Rc::new(RefCell::new(site));
    site.borrow_mut().fs.create("file", b"text", 0o644).expect("a free name");
    let store = SimStore::new(site.clone(), Rc::new(RefCell::new(Durable::default())));
    let disk = SimDisk(site);
    let mut replica = Replica::open(Config::default(), disk, store, Box::new(NoRules), 0)
        .expect("nothing fails here");
    replica.step(1000).expect("nothing fails here");
    replica
}

#[test]
fn nothing_is_equal_to_a_volume_that_nobody_knows() {
    let verified = replica().verify();
    assert!(matches!(verified, Err(VerifyError::VolumeUnknown)), "{verified:?}");
}

#[test]
fn nothing_is_settled_or_forgotten_that_is_not_there() {
    let mut replica = replica();
    let path = TreePath::new("file").expect("a path");
    let settled = replica.resolve(&path, WayOut::Mark, 2000);
    assert!(matches!(settled, Err(ResolveError::NoConflict(_))), "{settled:?}");
    let sides = replica.sides(&path, 2000);
    assert!(matches!(sides, Err(ResolveError::NoConflict(_))), "{sides:?}");
    let forgotten = replica.forget_synced(&[path], 2000);
    assert!(matches!(forgotten, Err(ForgetError::NotSynced(_))), "{forgotten:?}");
    let forgotten = replica.forget_synced(&[TreePath::root()], 2000);
    assert!(matches!(forgotten, Err(ForgetError::Root)), "{forgotten:?}");
}
