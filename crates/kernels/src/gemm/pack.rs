//! Copies of operands in the order in which the kernels of `micro.rs` read them, short of nothing:
//! rows and columns that a matrix does not have are zeros.

use super::engine::{Operands, Product, Span, Target};
use super::micro::{A_GROUP, A_STRIDE, Ahead, Order};
use super::transpose::pack_transposed;
use crate::isa::{Isa, kernel};

/// A strided matrix operand: element (i, j) is at `pointer + i * row + j * column`. One of the
/// strides is 1.
#[derive(Clone, Copy)]
pub(crate) struct Strided {
    pub(crate) pointer: *const f32,
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl Strided {
    /// A row-major matrix.
    pub(crate) fn rows(x: &[f32], width: usize) -> Strided {
        Strided { pointer: x.as_ptr(), row: width, column: 1 }
    }

    /// The transpose.
    pub(crate) fn flip(self) -> Strided {
        Strided { pointer: self.pointer, row: self.column, column: self.row }
    }
}

/// Two f32 matrices, packed on the way.
#[derive(Clone, Copy)]
struct Matrices {
    a: Strided,
    b: Strided,
}

// SAFETY: the operands are only read while a product runs, and its caller keeps them alive.
unsafe impl Send for Matrices {}
// SAFETY: as above.
unsafe impl Sync for Matrices {}

impl Operands for Matrices {
    fn order(&self) -> Order {
        order_of(self.a)
    }

    unsafe fn left(&self, isa: Isa, rows: Span, steps: Span, height: usize, tile: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { pack_a(isa, self.a, rows, steps, height, tile) }
    }

    fn ahead(&self, rows: Span, steps: Span) -> Ahead {
        let a = self.a;
        let start = a.pointer.wrapping_add(rows.first * a.row + steps.first * a.column);
        match self.order() {
            Order::Rows => Ahead::of(start, rows.count, a.row, steps.count),
            // Tiles lie beside one another: the end of this one is where a line may begin.
            Order::Columns if rows.count > 0 => {
                Ahead::of(start.wrapping_add(rows.count - 1), steps.count, a.column, 1)
            }
            Order::Columns => Ahead::of(start, 0, 0, 0),
        }
    }

    unsafe fn right(
        &self,
        isa: Isa,
        columns: Span,
        steps: Span,
        nr: usize,
        buffer: *mut f32,
    ) -> (*const f32, usize) {
        // SAFETY: the caller's promise.
        unsafe { pack_b(isa, self.b, columns, steps, nr, buffer) };
        (buffer, nr * steps.count)
    }
}

/// c = beta c + alpha a b, with a (m, k), b (k, n), c (m, n).
///
/// # Safety
/// Every element named by the shapes and strides lies in memory that is valid for reading (a, b) or
/// writing (c), and c overlaps neither a nor b.
pub(crate) unsafe fn product(
    isa: Isa,
    shape: (usize, usize, usize),
    a: Strided,
    b: Strided,
    target: Target,
    parallel: bool,
) {
    let operands = Matrices { a, b };
    // SAFETY: the caller's promise.
    unsafe { Product { shape, operands, target }.compute(isa, parallel) }
}

/// The order in which `a` is cheaper to copy: along its contiguous direction.
pub(super) fn order_of(a: Strided) -> Order {
    if a.column == 1 { Order::Rows } else { Order::Columns }
}

kernel!(
    /// Rows `first..first + rows` and contraction steps `from..from + depth` of `a`, as one tile of
    /// `mr` rows.
    ///
    /// # Safety
    /// Those elements of `a` are valid for reading; `tile` has room for `mr` rows of `depth` in
    /// `order_of(a)`.
    pub(super) unsafe fn pack_a(a: Strided, rows: Span, steps: Span, mr: usize, tile: *mut f32) = pack_a_body
);

#[inline(always)]
unsafe fn pack_a_body<const FMA: bool>(a: Strided, rows: Span, steps: Span, mr: usize, tile: *mut f32) {
    let (first, rows) = (rows.first, rows.count);
    let (from, depth) = (steps.first, steps.count);
    // SAFETY: the caller's promise covers every read below; writes stay within mr rows of depth
    // steps.
    unsafe {
        match order_of(a) {
            Order::Rows => {
                for r in 0..mr {
                    let to = std::slice::from_raw_parts_mut(tile.add(r * A_STRIDE), depth);
                    if r < rows {
                        let start = a.pointer.add((first + r) * a.row + from);
                        copy_row(std::slice::from_raw_parts(start, depth), to);
                    } else {
                        to.fill(0.0);
                    }
                }
            }
            Order::Columns => {
                let start = a.pointer.add(first * a.row + from * a.column);
                // The heights of the kernels; a tile that is not full has zeros below.
                match (rows == mr, mr) {
                    (true, 14) => copy_groups::<14>(start, a.column, depth, tile),
                    (true, 8) => copy_groups::<8>(start, a.column, depth, tile),
                    (true, 6) => copy_groups::<6>(start, a.column, depth, tile),
                    (true, 4) => copy_groups::<4>(start, a.column, depth, tile),
                    _ => {
                        for k in 0..depth {
                            let to = std::slice::from_raw_parts_mut(tile.add(k * A_GROUP), mr);
                            let values = std::slice::from_raw_parts(start.add(k * a.column), rows);
                            to[..rows].copy_from_slice(values);
                            to[rows..].fill(0.0);
                        }
                    }
                }
            }
        }
    }
}

/// A copy in vectors of this function's instruction set: rows are often too short for a call.
#[inline(always)]
fn copy_row(from: &[f32], to: &mut [f32]) {
    let (chunks, rest) = from.as_chunks::<16>();
    let (to_chunks, to_rest) = to.as_chunks_mut::<16>();
    for (to, from) in to_chunks.iter_mut().zip(chunks) {
        *to = *from;
    }
    for (to, from) in to_rest.iter_mut().zip(rest) {
        *to = *from;
    }
}

/// Groups of `M` contiguous floats, `column` apart, to groups `A_GROUP` apart.
#[inline(always)]
unsafe fn copy_groups<const M: usize>(start: *const f32, column: usize, depth: usize, tile: *mut f32) {
    for k in 0..depth {
        // SAFETY: the promise of `pack_a`.
        unsafe {
            let group = start.add(k * column).cast::<[f32; M]>().read_unaligned();
            tile.add(k * A_GROUP).cast::<[f32; M]>().write_unaligned(group);
        }
    }
}

/// Columns `first..first + columns` and contraction steps `from..from + depth` of `b`, as panels of
/// `nr` columns: element (k, j) of panel p at p * nr * depth + k * nr + j.
///
/// # Safety
/// Those elements of `b` are valid for reading; `panels` has room for whole panels.
pub(super) unsafe fn pack_b(isa: Isa, b: Strided, columns: Span, steps: Span, nr: usize, panels: *mut f32) {
    let depth = steps.count;
    let start = b.pointer.wrapping_add(columns.first * b.column + steps.first * b.row);
    // SAFETY: the caller's promise.
    unsafe {
        if b.column == 1 {
            pack_rows(isa, start, b.row, columns.count, depth, nr, panels);
            return;
        }
        for p in 0..columns.count.div_ceil(nr) {
            let width = nr.min(columns.count - p * nr);
            let start = start.add(p * nr * b.column);
            pack_transposed(isa, start, b.column, width, depth, nr, panels.add(p * nr * depth));
        }
    }
}

kernel!(
    /// Panels whose columns are contiguous in the source.
    unsafe fn pack_rows(
        start: *const f32, row: usize, columns: usize, depth: usize, nr: usize, panels: *mut f32,
    ) = pack_rows_body
);

#[inline(always)]
unsafe fn pack_rows_body<const FMA: bool>(
    start: *const f32,
    row: usize,
    columns: usize,
    depth: usize,
    nr: usize,
    panels: *mut f32,
) {
    let whole = columns / nr;
    // SAFETY: the promise of `pack_b`.
    unsafe {
        match nr {
            32 => copy_steps::<32>(start, row, whole, depth, panels),
            16 => copy_steps::<16>(start, row, whole, depth, panels),
            _ => copy_steps::<8>(start, row, whole, depth, panels),
        }
        let width = columns - whole * nr;
        if width > 0 {
            for k in 0..depth {
                let from = std::slice::from_raw_parts(start.add(k * row + whole * nr), width);
                let to = std::slice::from_raw_parts_mut(panels.add((whole * depth + k) * nr), nr);
                to[..width].copy_from_slice(from);
                to[width..].fill(0.0);
            }
        }
    }
}

/// Rows of `panels` times `N` floats, `row` apart, into as many panels: along each row, because memory is read best
/// that way.
#[inline(always)]
unsafe fn copy_steps<const N: usize>(
    start: *const f32,
    row: usize,
    panels: usize,
    depth: usize,
    to: *mut f32,
) {
    for k in 0..depth {
        for p in 0..panels {
            // SAFETY: the promise of `pack_b`.
            unsafe {
                let values = start.add(k * row + p * N).cast::<[f32; N]>().read_unaligned();
                to.add((p * depth + k) * N).cast::<[f32; N]>().write_unaligned(values);
            }
        }
    }
}
