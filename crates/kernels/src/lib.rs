//! The arithmetic of `sibo`: rows in, rows out.
//!
//! Every operation has its forward and its backward side by side in one file, next to a naive twin
//! (plain loops, generic over `f32` and `f64`, test code only) that shares nothing with the fast
//! path.
//!
//! Three rules hold for every function of this crate:
//! - **Shapes are asserted, not returned.** A wrong shape is a mistake in the caller's code, so it
//!   panics with the names of the operands; bad *input* is refused further up, where there is a
//!   file and a line to name.
//! - **Results do not depend on the number of threads.** Work is cut by constants and by the shapes
//!   alone, and every reduction has a fixed order.
//! - **The instruction set is chosen once** ([`isa::isa`]); one body serves all of them.
//!
//! This is the only crate of the workspace that contains `unsafe`.
//!
//! Letters in shapes: `T` packed rows (the tokens of all sequences, end to end), `D` width, `N` out
//! features, `K` in features, `H` query heads, `G` key/value heads, `C` head width, `V` vocabulary,
//! `R` rank.

pub mod activation;
pub mod attention;
pub mod awake;
pub mod drop;
pub mod elementwise;
pub mod embed;
mod fetch;
pub mod frozen;
pub mod gemm;
pub mod isa;
pub mod loss;
mod math;
pub mod mix;
pub mod norm;
pub mod optim;
pub mod peak;
pub mod pool;
pub mod probe;
pub mod rope;
mod rows;
mod split;
pub mod work;

#[cfg(test)]
mod testing;

pub use isa::threads;
pub use norm::{layer_norm, rms_norm};
pub use rows::Rows;
