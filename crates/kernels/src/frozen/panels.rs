//! A weight in panels, in 16, 8 or 4 bits.

use super::coded::Coded;
use super::pack::{By, Facts, PANEL, Packed};
use super::{Bits, Store};
use crate::isa::Isa;
use std::borrow::Cow;

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
    /// Room for a weight that is stored so; one that is coded stays so.
    fn empty(out: usize, inp: usize, store: &Store) -> Panels {
        match store {
            Store::I8 { block, .. } => Panels::Eight(Coded::empty(out, inp, *block)),
            Store::I4 { block, .. } => Panels::Four(Coded::empty(out, inp, *block)),
            _ => Panels::Bf16(Packed::empty(out, inp)),
        }
    }

    /// Packs a weight.
    pub(super) fn new(out: usize, inp: usize, store: &Store, by: By) -> Panels {
        let mut panels = Panels::empty(out, inp, store);
        panels.fill(store, by);
        panels
    }

    /// Packs another weight of this shape into the same memory, or into new memory where it is stored otherwise.
    pub(super) fn refill(&mut self, store: &Store, by: By) {
        let same = match (&*self, store) {
            (Panels::Eight(w), Store::I8 { block, .. }) => w.block() == *block,
            (Panels::Four(w), Store::I4 { block, .. }) => w.block() == *block,
            (Panels::Bf16(_), Store::F32(_) | Store::F16(_) | Store::Bf16(_)) => true,
            _ => false,
        };
        if !same {
            *self = Panels::empty(self.facts().out, self.facts().inp, store);
        }
        self.fill(store, by);
    }

    fn fill(&mut self, store: &Store, by: By) {
        let inp = self.facts().inp;
        match (self, store) {
            (Panels::Eight(w), Store::I8 { q, scale, .. }) => {
                let byte = |i: usize, c: usize| if c < inp { q[i * inp + c] as u8 } else { 0 };
                let word = |i, k| u16::from_le_bytes([byte(i, 2 * k), byte(i, 2 * k + 1)]);
                w.fill(scale, word, by);
            }
            (Panels::Four(w), Store::I4 { q, scale, .. }) => w.fill(scale, |i, k| q[i * inp / 2 + k], by),
            (Panels::Bf16(w), store) => w.fill(store, by),
            _ => unreachable!("the panels were made for the store"),
        }
    }

    /// Bytes of the panels of a weight of this shape, coded with so many bits in such blocks, or in bf16.
    pub(super) fn bytes_for(out: usize, inp: usize, coding: Option<(Bits, usize)>) -> usize {
        let (rows, pairs) = (out.next_multiple_of(PANEL), inp.div_ceil(2));
        match coding {
            None => rows * pairs * 4,
            Some((bits, block)) => {
                let word = if bits == Bits::Eight { 2 } else { 1 };
                rows * (pairs * word + inp.div_ceil(block) * 4)
            }
        }
    }

    pub(super) fn facts(&self) -> &Facts {
        each!(self, w => &w.facts)
    }

    /// The words of panel `p` in bf16: those that are there, or made of codes.
    pub(super) fn panel(&self, isa: Isa, p: usize) -> Cow<'_, [[u32; PANEL]]> {
        match self {
            Panels::Bf16(w) => Cow::Borrowed(w.panel(p)),
            Panels::Eight(w) => Cow::Owned(w.panel(isa, p)),
            Panels::Four(w) => Cow::Owned(w.panel(isa, p)),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        each!(self, w => w.bytes())
    }

    /// Row `i`, widened.
    pub(super) fn row(&self, i: usize, out: &mut [f32]) {
        each!(self, w => w.row(i, out));
    }
}
