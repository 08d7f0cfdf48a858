//! A weight in panels, in 16, 8 or 4 bits.

use super::Store;
use super::coded::Coded;
use super::pack::{Facts, Packed};

/// In which form the panels are.
pub(super) enum Panels {
    Bf16(Packed),
    Eight(Coded<u16>),
    Four(Coded<u8>),
}

/// Does the same with whatever form it is.
macro_rules! each {
    ($panels:expr, $w:ident => $what:expr) => {
        match $panels {
            $crate::frozen::panels::Panels::Bf16($w) => $what,
            $crate::frozen::panels::Panels::Eight($w) => $what,
            $crate::frozen::panels::Panels::Four($w) => $what,
        }
    };
}
pub(super) use each;

impl Panels {
    /// Packs a weight; one that is coded stays so.
    pub(super) fn new(out: usize, inp: usize, store: &Store) -> Panels {
        match store {
            Store::I8 { q, scale, block } => {
                let byte = |i: usize, c: usize| if c < inp { q[i * inp + c] as u8 } else { 0 };
                let word = |i, k| u16::from_le_bytes([byte(i, 2 * k), byte(i, 2 * k + 1)]);
                Panels::Eight(Coded::new((out, inp), store, (scale, *block), word))
            }
            Store::I4 { q, scale, block } => {
                let word = |i, k| q[i * inp / 2 + k];
                Panels::Four(Coded::new((out, inp), store, (scale, *block), word))
            }
            _ => Panels::Bf16(Packed::new(out, inp, store)),
        }
    }

    pub(super) fn facts(&self) -> &Facts {
        each!(self, w => &w.facts)
    }

    pub(super) fn bytes(&self) -> usize {
        each!(self, w => w.bytes())
    }

    /// Row `i`, widened.
    pub(super) fn row(&self, i: usize, out: &mut [f32]) {
        each!(self, w => w.row(i, out));
    }
}
