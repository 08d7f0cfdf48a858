//! Products with a weight in panels: those of codes are expanded to bf16 on the way, the other operand is rounded to
//! bf16, sums are f32.
//!
//! With AMX or AVX-512-BF16 the kernel multiplies pairs of bf16. With AVX-512-FP16 both operands go as f16, rows
//! rounded to that instead, and short sums are f16 too (see [`super::f16`]). Elsewhere blocks of the weight are widened
//! to f32 and the f32 kernels run: the rounding points are those of pairs, the order of summation is not.

#[cfg(target_arch = "x86_64")]
use super::f16::Sixteen;
use super::few;
#[cfg(target_arch = "x86_64")]
use super::pack::round_to_bf16;
use super::pack::{PANEL, round};
use super::panels::{Panels, each};
use crate::Rows;
#[cfg(target_arch = "x86_64")]
use crate::gemm::Halves;
#[cfg(target_arch = "x86_64")]
use crate::gemm::tiles::{self, Tiled};
use crate::gemm::{A_STRIDE, Ahead, Operands, Order, Product, Span, Strided, Target};
#[cfg(target_arch = "x86_64")]
use crate::isa::kernel;
use crate::isa::{Isa, isa};

/// y = beta y + x W^T for weights that read the same x (T, K), each with its y (T, N).
///
/// # Safety
/// Every y has T rows of its weight's out features, and nothing else reads or writes it meanwhile.
pub(super) unsafe fn forward(x: &Rows, beta: f32, of: &[(&Panels, *mut f32)]) {
    let target = |w: &Panels, y| Target { alpha: 1.0, beta, c: y, row: w.facts().out };
    let of: Vec<(&Panels, Target)> = of.iter().map(|(w, y)| (*w, target(w, *y))).collect();
    // SAFETY: the caller's promise; only AMX rounds first.
    unsafe {
        if few::is_few(x.rows()) && x.width() > 0 {
            return few::forward(x, &of);
        }
        #[cfg(target_arch = "x86_64")]
        if rounds_first(x.rows()) && x.width() > 0 {
            return tiled(x, &of, Direction::Forward);
        }
        of.iter().for_each(|(w, target)| multiply(w, x, *target, Direction::Forward));
    }
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
    // SAFETY: dx is borrowed exclusively, and the caller checked its shape; only AMX rounds first.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if rounds_first(dy.rows()) && dy.width() > 0 {
            return tiled(dy, &[(w, target)], Direction::Backward);
        }
        multiply(w, dy, target, Direction::Backward);
    }
}

/// Up to so many rows tiles would be nearly empty, and reading the weight is the work.
#[cfg(target_arch = "x86_64")]
const FEWEST_TILED: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Contracts the in features.
    Forward,
    /// Contracts the out features.
    Backward,
}

/// # Safety
/// x is as wide as the contraction, the target as the result; nothing else reads or writes the target meanwhile.
unsafe fn multiply(w: &Panels, x: &Rows, target: Target, direction: Direction) {
    let (columns, depth) = sides(w, direction);
    let left = Strided::rows(x.data(), depth);
    let operands = Frozen { left, depth, w, direction };
    let isa = isa();
    // SAFETY: the operands cover the shape, and the target is borrowed exclusively by the caller;
    // pairs are multiplied only where the CPU can.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if isa.has_bf16() {
            pairs(operands, x.rows(), columns, target).compute_pairs(true);
            return;
        }
        let shape = (x.rows(), columns, depth);
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx512Fp16 {
            Product { shape, operands: Sixteen(operands), target }.compute_f16(true);
            return;
        }
        let operands = Widened(operands);
        Product { shape, operands, target }.compute(isa, true);
    }
}

/// Columns and contraction of a product with the weight.
fn sides(w: &Panels, direction: Direction) -> (usize, usize) {
    match direction {
        Direction::Forward => (w.facts().out, w.facts().inp),
        Direction::Backward => (w.facts().inp, w.facts().out),
    }
}

/// Products of the same x with weights, in tiles, as one parallel operation.
///
/// # Safety
/// The CPU has AMX; x is as wide as every contraction, and not empty; as [`multiply`].
#[cfg(target_arch = "x86_64")]
unsafe fn tiled(x: &Rows, of: &[(&Panels, Target)], direction: Direction) {
    // SAFETY: what has AMX has AVX-512 BF16.
    let rounded = unsafe { Halves::of(x) };
    let isa = isa();
    let product = |&(w, target)| {
        let (columns, depth) = sides(w, direction);
        let operands = Pairs(Frozen { left: Strided::rows(x.data(), depth), depth, w, direction });
        // SAFETY: tiles ask for the weight's own columns and pairs.
        let right =
            move |columns, steps, buffer| unsafe { operands.right(isa, columns, steps, PANEL, buffer) };
        let ready = direction == Direction::Forward && matches!(w, Panels::Bf16(_));
        Tiled { left: &rounded, columns, right, ready, target }
    };
    let products: Vec<_> = of.iter().map(product).collect();
    // SAFETY: the caller's promise.
    unsafe { tiles::multiply(&products) };
}

/// A forward product of pairs, to be computed in parts.
#[cfg(target_arch = "x86_64")]
pub(super) fn few_pairs<'a>(w: &'a Panels, x: &Rows, target: Target) -> Product<Pairs<'a>> {
    let depth = x.width();
    let left = Strided::rows(x.data(), depth);
    pairs(Frozen { left, depth, w, direction: Direction::Forward }, x.rows(), w.facts().out, target)
}

/// A product of pairs.
#[cfg(target_arch = "x86_64")]
fn pairs(operands: Frozen<'_>, rows: usize, columns: usize, target: Target) -> Product<Pairs<'_>> {
    Product { shape: (rows, columns, operands.depth.div_ceil(2)), operands: Pairs(operands), target }
}

#[derive(Clone, Copy)]
pub(super) struct Frozen<'a> {
    left: Strided,
    depth: usize,
    pub(super) w: &'a Panels,
    pub(super) direction: Direction,
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
    pub(super) unsafe fn left_row(&self, t: usize, steps: Span) -> &[f32] {
        let start = self.left.pointer.wrapping_add(t * self.left.row + steps.first);
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(start, steps.count) }
    }

    /// Elements `steps` of left rows `rows`, to be fetched.
    pub(super) fn ahead(&self, rows: Span, steps: Span) -> Ahead {
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

/// A step is a pair along the contraction.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a>(Frozen<'a>);

#[cfg(target_arch = "x86_64")]
impl Operands for Pairs<'_> {
    const COUNT: fn(usize) = crate::work::add_bf16_pairs;

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
