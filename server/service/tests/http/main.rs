//! The service through its front door: a real server on a free port, asked
//! through the typed client and by hand.

mod changes;
mod contract;
mod documented;
mod history;
mod limits;
mod mounts;
mod platform;
mod refused;
mod replica;
mod rig;
mod running;
mod upkeep;
mod watch;
