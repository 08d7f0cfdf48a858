//! Products with a weight in panels: those of codes are expanded to bf16 on the way, the other operand is rounded to
//! bf16, sums are f32.
//!
//! With AMX or AVX-512-BF16 the kernel multiplies pairs of bf16. Elsewhere blocks of the weight are
//! widened to f32 and the f32 kernels run: the rounding points are the same, the order of summation
//! is not.

#[cfg(target_arch = "x86_64")]
use super::pack::round_to_bf16;
use super::pack::{PANEL, round};
use super::panels::{Panels, each};
use crate::Rows;
use crate::gemm::{A_STRIDE, Ahead, Operands, Order, Product, Span, Strided, Target};
#[cfg(target_arch = "x86_64")]
use crate::gemm::{Halves, tiles};
#[cfg(target_arch = "x86_64")]
use crate::isa::kernel;
use crate::isa::{Isa, isa};

/// y = x W^T; x (T, K), y (T, N).
pub(super) fn forward(w: &Panels, x: &Rows, y: &mut Rows) {
    #[cfg(target_arch = "x86_64")]
    if isa().has_bf16() && (1..=super::expand::FEW).contains(&x.rows()) && w.facts().pairs > 0 {
        // SAFETY: the instruction set is that one.
        match w {
            Panels::Eight(w) => return unsafe { super::expand::few_rows(w, &narrow_rows(x), y) },
            Panels::Four(w) => return unsafe { super::expand::few_rows(w, &narrow_rows(x), y) },
            Panels::Bf16(_) => {}
        }
    }
    let target = Target { alpha: 1.0, beta: 0.0, c: y.data_mut().as_mut_ptr(), row: w.facts().out };
    multiply(w, x, target, Direction::Forward);
}

/// Whether a product rounds all of its left operand, of so many rows, before it starts.
pub(super) fn rounds_first(rows: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    return isa() == Isa::Amx && rows > FEWEST_TILED;
    #[cfg(not(target_arch = "x86_64"))]
    return {
        let _ = rows;
        false
    };
}

/// dx = beta dx + dy W; dy (T, N), dx (T, K).
pub(super) fn backward(w: &Panels, dy: &Rows, beta: f32, dx: &mut Rows) {
    let target = Target { alpha: 1.0, beta, c: dx.data_mut().as_mut_ptr(), row: w.facts().inp };
    multiply(w, dy, target, Direction::Backward);
}

/// Up to so many rows tiles would be nearly empty, and reading the weight is the work.
#[cfg(target_arch = "x86_64")]
const FEWEST_TILED: usize = super::expand::FEW;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// Contracts the in features.
    Forward,
    /// Contracts the out features.
    Backward,
}

/// The shapes were checked by the caller: x is as wide as the contraction, the target as the
/// result.
fn multiply(w: &Panels, x: &Rows, target: Target, direction: Direction) {
    let (out, inp) = (w.facts().out, w.facts().inp);
    let (columns, depth) = match direction {
        Direction::Forward => (out, inp),
        Direction::Backward => (inp, out),
    };
    let left = Strided::rows(x.data(), depth);
    let operands = Frozen { left, depth, w, direction };
    let isa = isa();
    // SAFETY: the operands cover the shape, and the target is borrowed exclusively by the caller;
    // pairs are multiplied only where the CPU can.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if rounds_first(x.rows()) && depth > 0 {
            let right = |columns, steps, buffer| Pairs(operands).right(isa, columns, steps, PANEL, buffer);
            let ready = direction == Direction::Forward && matches!(w, Panels::Bf16(_));
            tiles::multiply(&Halves::of(x), columns, right, ready, target);
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if isa.has_bf16() {
            let shape = (x.rows(), columns, depth.div_ceil(2));
            let operands = Pairs(operands);
            Product { shape, operands, target }.compute_pairs(true);
            return;
        }
        let shape = (x.rows(), columns, depth);
        let operands = Widened(operands);
        Product { shape, operands, target }.compute(isa, true);
    }
}

#[derive(Clone, Copy)]
struct Frozen<'a> {
    left: Strided,
    depth: usize,
    w: &'a Panels,
    direction: Direction,
}

// SAFETY: the operands are only read while a product runs.
unsafe impl Send for Frozen<'_> {}
// SAFETY: as above.
unsafe impl Sync for Frozen<'_> {}

impl Frozen<'_> {
    /// Elements `steps` of left row `t`.
    ///
    /// # Safety
    /// They exist.
    unsafe fn left_row(&self, t: usize, steps: Span) -> &[f32] {
        let start = self.left.pointer.wrapping_add(t * self.left.row + steps.first);
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(start, steps.count) }
    }

    /// Elements `steps` of left rows `rows`, to be fetched.
    fn ahead(&self, rows: Span, steps: Span) -> Ahead {
        let start = self.left.pointer.wrapping_add(rows.first * self.left.row + steps.first);
        Ahead::of(start, rows.count, self.left.row, steps.count)
    }
}

#[cfg(target_arch = "x86_64")]
kernel!(fn narrow(x: &[f32], to: &mut [u16]) = narrow_body);

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn narrow_body<const FMA: bool>(x: &[f32], to: &mut [u16]) {
    for (to, x) in to.iter_mut().zip(x) {
        *to = round_to_bf16(*x);
    }
}

/// Rows as pairs of bf16, the last pair filled up with zero.
#[cfg(target_arch = "x86_64")]
fn narrow_rows(x: &Rows) -> Vec<u32> {
    let pair = |pair: &[f32]| {
        let odd = pair.get(1).map_or(0, |v| u32::from(round_to_bf16(*v)));
        u32::from(round_to_bf16(pair[0])) | odd << 16
    };
    (0..x.rows()).flat_map(|t| x.row(t).chunks(2).map(pair)).collect()
}

/// A step is a pair along the contraction.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Pairs<'a>(Frozen<'a>);

#[cfg(target_arch = "x86_64")]
impl Operands for Pairs<'_> {
    const PAIRS: bool = true;

    fn order(&self) -> Order {
        Order::Rows
    }

    unsafe fn left(&self, isa: Isa, rows: Span, steps: Span, height: usize, tile: *mut f32) {
        let first = 2 * steps.first;
        let count = (2 * steps.count).min(self.0.depth - first);
        for r in 0..height {
            // SAFETY: the tile has room for `height` rows of `steps.count` pairs, which are as
            // large as floats; the rows and elements read exist.
            unsafe {
                let to = tile.add(r * A_STRIDE).cast::<u16>();
                let to = std::slice::from_raw_parts_mut(to, 2 * steps.count);
                if r < rows.count {
                    narrow(isa, self.0.left_row(rows.first + r, Span { first, count }), to);
                    to[count..].fill(0);
                } else {
                    to.fill(0);
                }
            }
        }
    }

    fn ahead(&self, rows: Span, steps: Span) -> Ahead {
        let first = 2 * steps.first;
        let count = (2 * steps.count).min(self.0.depth - first);
        self.0.ahead(rows, Span { first, count })
    }

    unsafe fn right(
        &self,
        _isa: Isa,
        columns: Span,
        steps: Span,
        nr: usize,
        buffer: *mut f32,
    ) -> (*const f32, usize) {
        debug_assert_eq!(nr, PANEL);
        let w = self.0.w;
        if let (Panels::Bf16(w), Direction::Forward) = (w, self.0.direction) {
            let first = w.at(columns.first / PANEL, steps.first);
            return (first.cast(), w.facts.pairs * PANEL);
        }
        let words = columns.count.div_ceil(nr) * nr * steps.count;
        // SAFETY: the buffer has room for whole panels of 32-bit elements.
        let panels = unsafe { std::slice::from_raw_parts_mut(buffer.cast(), words) };
        // SAFETY: pairs are multiplied only where the CPU has AVX-512 BF16.
        unsafe {
            match (self.0.direction, w) {
                (Direction::Forward, Panels::Eight(w)) => super::expand::forward(w, columns, steps, panels),
                (Direction::Forward, Panels::Four(w)) => super::expand::forward(w, columns, steps, panels),
                (_, w) => each!(w, w => super::turn::turn(w, columns, steps, panels)),
            }
        }
        (buffer, nr * steps.count)
    }
}

/// A step is one index of the contraction; both operands are f32 that bf16 can hold.
#[derive(Clone, Copy)]
struct Widened<'a>(Frozen<'a>);

impl Operands for Widened<'_> {
    fn order(&self) -> Order {
        Order::Rows
    }

    unsafe fn left(&self, isa: Isa, rows: Span, steps: Span, height: usize, tile: *mut f32) {
        for r in 0..height {
            // SAFETY: the tile has room for `height` rows of `steps.count`; the rows and elements
            // read exist.
            unsafe {
                let to = std::slice::from_raw_parts_mut(tile.add(r * A_STRIDE), steps.count);
                if r < rows.count {
                    round(isa, 1.0, self.0.left_row(rows.first + r, steps), to);
                } else {
                    to.fill(0.0);
                }
            }
        }
    }

    fn ahead(&self, rows: Span, steps: Span) -> Ahead {
        self.0.ahead(rows, steps)
    }

    unsafe fn right(
        &self,
        isa: Isa,
        columns: Span,
        steps: Span,
        nr: usize,
        buffer: *mut f32,
    ) -> (*const f32, usize) {
        let floats = columns.count.div_ceil(nr) * nr * steps.count;
        // SAFETY: the buffer has room for whole panels.
        let panels = unsafe { std::slice::from_raw_parts_mut(buffer, floats) };
        each!(self.0.w, w => match self.0.direction {
            Direction::Forward => w.widen_forward(isa, columns, steps, nr, panels),
            Direction::Backward => w.widen_backward(isa, columns, steps, nr, panels),
        });
        (buffer, nr * steps.count)
    }
}
