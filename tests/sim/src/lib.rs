//! A deterministic simulation of replicas, mounts, service, disks and network.
//!
//! The real cores run under a seeded scheduler: the service's ledger, admission
//! and fold, the replica's engine, and what a mount shows and commits. Disks, networks, users and agents are
//! simulated, with everything that goes wrong with them. One seed is one world;
//! the same seed is the same world, step by step.
//!
//! # What is checked
//!
//! - All sides come to rest, and then hold the same.
//! - No content that somebody wrote, and did not replace themselves, is lost:
//!   it is in the Volume, in its journal, in a conflict's record or on a disk.
//! - Nobody replaces what they never saw.
//! - No file is torn.
//! - What a program in a mount was told is kept, is; see `world/mounts.rs`.
//! - A workspace alone has no conflicts but those about names.

#![allow(missing_docs, clippy::expect_used, reason = "a test program")]

pub mod coverage;
pub mod disk;
pub mod fs;
pub mod lines;
pub mod mount;
pub mod service;
pub mod site;
pub mod world;
