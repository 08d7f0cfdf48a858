//! Products of a few rows with weights in panels: reading the weights is the work, and all of them are one parallel
//! operation.
//!
//! Where the processor multiplies pairs of bf16, panels of bf16 go to that kernel; elsewhere each is widened in registers
//! as it is read ([`super::widened`]). Codes go as integers ([`super::integers`]).

#[cfg(target_arch = "x86_64")]
use super::pack::PANEL;
use super::pack::round;
use super::panels::Panels;
use super::product;
use super::widened;
use crate::Rows;
use crate::awake;
#[cfg(target_arch = "x86_64")]
use crate::frozen::coded::{Code, Coded};
#[cfg(target_arch = "x86_64")]
use crate::frozen::integers::{self, Quantised};
use crate::gemm::{FEW_ROWS, SMALL, Target, panels_of_part};
#[cfg(target_arch = "x86_64")]
use crate::gemm::{Product, Span};
use crate::isa::{Isa, isa};
use std::ops::Range;

/// Products of fewer multiplications are done alone even where threads are awake.
const SHARED: usize = 1 << 13;

/// Parts that there is room for at once: those of all but the head's products.
const MANY: usize = 128;

/// Whether so many rows are few, for weights in whatever form.
pub(super) fn is_few(rows: usize) -> bool {
    (1..=FEW_ROWS).contains(&rows) && !product::rounds_first(rows)
}

/// Whether such a weight is multiplied in integers, where rows are few.
#[cfg(target_arch = "x86_64")]
fn in_integers(w: &Panels, isa: Isa) -> bool {
    isa >= Isa::Avx2
        && match w {
            Panels::Bf16(_) => false,
            Panels::Eight(w) => integers::serves(w),
            Panels::Four(w) => integers::serves(w),
        }
}

/// Some panels of one of the products.
enum Part<'a> {
    /// Columns of a product of pairs.
    #[cfg(target_arch = "x86_64")]
    Pairs(Product<product::Pairs<'a>>, Span),
    /// Codes, with the place of the rows that were quantised for them.
    #[cfg(target_arch = "x86_64")]
    Eight(&'a Coded<u16>, Range<usize>, Target, usize),
    #[cfg(target_arch = "x86_64")]
    Four(&'a Coded<u8>, Range<usize>, Target, usize),
    Widened(&'a Panels, Range<usize>, Target),
}

/// The rows in the forms that the parts want.
struct Prepared<'a> {
    x: &'a Rows,
    isa: Isa,
    /// In the integers of each block size.
    #[cfg(target_arch = "x86_64")]
    integers: Vec<(usize, Quantised)>,
    /// (rows, whole pairs), rounded to bf16, where it was asked for.
    rounded: Option<Rows>,
}

impl Prepared<'_> {
    #[cfg(target_arch = "x86_64")]
    fn integers<C: Code>(&mut self, w: &Coded<C>) -> usize {
        self.integers.iter().position(|(block, _)| *block == w.block()).unwrap_or_else(|| {
            let rows = (0..self.x.rows()).map(|t| self.x.row(t));
            self.integers.push((w.block(), Quantised::of(self.isa, w, rows)));
            self.integers.len() - 1
        })
    }

    fn round(&mut self) {
        let (x, isa) = (self.x, self.isa);
        self.rounded.get_or_insert_with(|| {
            let mut rounded = Rows::zeros(x.rows(), x.width().next_multiple_of(2));
            (0..x.rows()).for_each(|t| round(isa, 1.0, x.row(t), &mut rounded.row_mut(t)[..x.width()]));
            rounded
        });
    }
}

/// y = beta y + x W^T for weights that read the same x.
///
/// # Safety
/// [`is_few`] rows, of at least one column; as [`product::forward`].
pub(super) unsafe fn forward(x: &Rows, of: &[(&Panels, Target)]) {
    let (mut parts, mut size) = (Vec::with_capacity(MANY), 0);
    let isa = isa();
    let mut ready = Prepared {
        x,
        isa,
        #[cfg(target_arch = "x86_64")]
        integers: Vec::new(),
        rounded: None,
    };
    for &(w, target) in of {
        let panels = ranges(w, x.rows());
        size += x.rows() * w.facts().out * w.facts().pairs;
        match w {
            #[cfg(target_arch = "x86_64")]
            Panels::Eight(codes) if in_integers(w, isa) => {
                let rows = ready.integers(codes);
                parts.extend(panels.map(|panels| Part::Eight(codes, panels, target, rows)));
            }
            #[cfg(target_arch = "x86_64")]
            Panels::Four(codes) if in_integers(w, isa) => {
                let rows = ready.integers(codes);
                parts.extend(panels.map(|panels| Part::Four(codes, panels, target, rows)));
            }
            #[cfg(target_arch = "x86_64")]
            w if isa.has_bf16() => {
                let product = product::few_pairs(w, x, target);
                parts.extend(panels.map(|panels| {
                    let (first, end) = (panels.start * PANEL, w.facts().out.min(panels.end * PANEL));
                    Part::Pairs(product, Span { first, count: end - first })
                }));
            }
            w => {
                ready.round();
                parts.extend(panels.map(|panels| Part::Widened(w, panels, target)));
            }
        }
    }
    // SAFETY: the caller's promise; parts write disjoint columns.
    let run = |part: &Part| unsafe { part.run(&ready) };
    if size < if awake::is_cheap() { SHARED } else { SMALL } {
        parts.iter().for_each(run);
    } else {
        awake::share(parts.len(), |i| run(&parts[i]));
    }
}

/// The panels of each part of a weight.
fn ranges(w: &Panels, rows: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let panels = w.facts().panels();
    let some = panels_of_part(w.bytes() / panels.max(1), rows);
    (0..panels).step_by(some).map(move |p| p..panels.min(p + some))
}

impl Part<'_> {
    /// # Safety
    /// As [`forward`]; nothing else reads or writes the columns of this part meanwhile.
    unsafe fn run(&self, ready: &Prepared) {
        // SAFETY: the caller's promise; an `Isa` names only what this CPU has.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Part::Pairs(product, columns) => product.columns_of_pairs(*columns),
                #[cfg(target_arch = "x86_64")]
                Part::Eight(w, panels, target, place) => {
                    integers::few_rows(ready.isa, w, panels.clone(), &ready.integers[*place].1, *target);
                }
                #[cfg(target_arch = "x86_64")]
                Part::Four(w, panels, target, place) => {
                    integers::few_rows(ready.isa, w, panels.clone(), &ready.integers[*place].1, *target);
                }
                Part::Widened(w, panels, target) => {
                    let x = ready.rounded.as_ref().expect("rounded for this weight");
                    widened::few_rows(ready.isa, w, panels.clone(), x, *target);
                }
            }
        }
    }
}
