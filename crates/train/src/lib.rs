//! One visible loop: batches, optimiser, schedule, evaluation, checkpoints, probes, and an observer that
//! is told what happens. Libraries never print; the command line does.

pub mod optim;
pub mod schedule;
pub mod trace;
