//! Counts of the work that was done: multiplications and additions of all products, added up from the bounds of
//! the innermost loops (not from the shapes that a caller asked for), and bytes of operands that a product must read
//! from memory. They say how far a time is from what the machine could do, and whether a formula for the work is true.

use std::sync::atomic::{AtomicU64, Ordering};

static F32_FLOP: AtomicU64 = AtomicU64::new(0);
static BF16_FLOP: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Work of this process, or of a part of its life (see [`Work::since`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Multiplications and additions of f32 products, attention's among them.
    pub f32_flop: u64,
    /// Those of products whose operands are bf16, or f16 in their stead. A pair of terms of which the second is padding
    /// counts as a pair.
    pub bf16_flop: u64,
    /// Bytes of weights and of kept keys and values, once for each product that reads them.
    pub bytes: u64,
}

impl Work {
    /// What was done after `start`.
    pub fn since(self, start: Work) -> Work {
        Work {
            f32_flop: self.f32_flop - start.f32_flop,
            bf16_flop: self.bf16_flop - start.bf16_flop,
            bytes: self.bytes - start.bytes,
        }
    }
}

/// All work of this process so far.
pub fn done() -> Work {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Work { f32_flop: read(&F32_FLOP), bf16_flop: read(&BF16_FLOP), bytes: read(&BYTES) }
}

/// A task has added `terms` products of f32.
pub(crate) fn add_f32(terms: usize) {
    F32_FLOP.fetch_add(2 * terms as u64, Ordering::Relaxed);
}

/// A task has added `pairs` pairs of products of bf16.
pub(crate) fn add_bf16_pairs(pairs: usize) {
    BF16_FLOP.fetch_add(4 * pairs as u64, Ordering::Relaxed);
}

/// A task has added `terms` products of f16.
#[cfg(target_arch = "x86_64")]
pub(crate) fn add_f16(terms: usize) {
    BF16_FLOP.fetch_add(2 * terms as u64, Ordering::Relaxed);
}

/// A product reads a weight, or keys or values, of this size.
pub(crate) fn add_bytes(bytes: usize) {
    BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}
