//! The loops around the micro-kernel: how a product is cut into tasks, and a task into tiles.
//!
//! The contraction is cut at multiples of [`DEPTH`], whatever the other two sizes and the number of
//! threads are, and every element is summed by one thread. So an element of the result is the same
//! sum in the same order for any number of threads and any number of rows around it, however rows
//! and columns are shared out.

#[cfg(target_arch = "x86_64")]
use super::f16::Avx512F16;
use super::micro::{A_STRIDE, Ahead, Micro, Order, Plain, Tile};
#[cfg(target_arch = "x86_64")]
use super::micro::{Avx2, Avx512, Avx512Pairs};
use crate::fetch;
use crate::isa::{Isa, Vectors};
use crate::work;
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

/// Contraction steps (single, or pairs of bf16) between two visits to the result: a tile of `a`
/// fits the first-level cache, a block of panels the second.
pub(crate) const DEPTH: usize = 512;
/// Columns of the result in one task, at most, where a column takes 4 bytes a step; panels of this many columns and
/// `DEPTH` steps take 512 KiB.
pub(super) const COLUMNS: usize = 256;
/// Rows of the result in one task, at most.
const ROWS: usize = 1024;
/// Rows that a task should keep: they pay for packing its part of the right operand.
const FEWEST_ROWS: usize = 56;
/// Tasks for each thread: one more than needed, because threads do not run equally fast.
const TASKS: usize = 2;
/// Products of fewer multiplications than this run as one task.
pub(crate) const SMALL: usize = 1 << 18;

/// Where the tiles of the left and the panels of the right operand of a product come from. A step
/// of the contraction is whatever the kernel consumes at once: one index, or a pair for the kernels
/// that multiply pairs.
pub(crate) trait Operands: Copy + Send + Sync {
    /// Counts steps that were multiplied.
    const COUNT: fn(usize) = work::add_f32;

    /// The order of a packed tile of the left operand.
    fn order(&self) -> Order;

    /// Packs rows `first..first + rows` and steps `from..from + depth` of the left operand as one
    /// tile of `height` rows (those beyond `rows` are zeros).
    ///
    /// # Safety
    /// The rows and steps exist; `tile` has room for the tile in [`Operands::order`].
    unsafe fn left(&self, isa: Isa, rows: Span, steps: Span, height: usize, tile: *mut f32);

    /// What [`Operands::left`] would read.
    fn ahead(&self, rows: Span, steps: Span) -> Ahead;

    /// Panels of `nr` columns with `columns` and `steps` of the right operand, packed into `buffer`
    /// or found where they are: the first panel, and the distance from one to the next. `columns`
    /// starts at a multiple of `nr`.
    ///
    /// # Safety
    /// The columns and steps exist; `buffer` has room for whole panels.
    unsafe fn right(
        &self,
        isa: Isa,
        columns: Span,
        steps: Span,
        nr: usize,
        buffer: *mut f32,
    ) -> (*const f32, usize);
}

/// How many panels of a weight, of so many bytes each, are one part of an operation that few rows share out: reading a
/// part takes some microseconds, so that the threads end at about the same time. With more rows a part has more panels,
/// because each part packs the rows anew.
pub(crate) fn panels_of_part(bytes: usize, rows: usize) -> usize {
    const BYTES: usize = 80 << 10;
    const ROWS: usize = 4;
    (BYTES / bytes.max(1)).max(rows / ROWS).clamp(1, COLUMNS / 32)
}

/// `count` indices from `first` on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// Where a product goes: c = beta c + alpha a b, rows contiguous and `row` apart; beta 0 does not
/// read c.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) alpha: f32,
    pub(crate) beta: f32,
    pub(crate) c: *mut f32,
    pub(crate) row: usize,
}

impl Target {
    /// c = beta c + `made` for some columns of row `t`; alpha is 1.
    ///
    /// # Safety
    /// c has this row and these columns, and nothing else reads or writes them meanwhile.
    pub(crate) unsafe fn store(&self, t: usize, columns: Range<usize>, made: &[f32]) {
        let start = self.c.wrapping_add(t * self.row + columns.start);
        // SAFETY: the caller's promise.
        let c = unsafe { std::slice::from_raw_parts_mut(start, columns.len()) };
        for (c, made) in c.iter_mut().zip(made) {
            let old = if self.beta == 0.0 { 0.0 } else { self.beta * *c };
            *c = made + old;
        }
    }
}

// SAFETY: an address; what writes through it on several threads writes disjoint parts of c.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// A product: its shape (rows, columns, steps of the contraction), operands and target.
#[derive(Clone, Copy)]
pub(crate) struct Product<O> {
    pub(crate) shape: (usize, usize, usize),
    pub(crate) operands: O,
    pub(crate) target: Target,
}

impl<O: Operands> Product<O> {
    /// Computes the product with the f32 kernels; with `parallel`, in the current thread pool.
    ///
    /// # Safety
    /// The operands can give every row, column and step of the shape; c is valid for writing, and
    /// nothing else reads or writes it meanwhile.
    pub(crate) unsafe fn compute(&self, isa: Isa, parallel: bool) {
        // SAFETY: the caller's promise; an `Isa` names only what this CPU has.
        unsafe {
            match isa.vectors() {
                Vectors::Plain => self.run::<Plain>(isa, parallel),
                #[cfg(target_arch = "x86_64")]
                Vectors::Avx2 => self.run::<Avx2>(isa, parallel),
                #[cfg(target_arch = "x86_64")]
                Vectors::Avx512 => self.run::<Avx512>(isa, parallel),
                #[cfg(not(target_arch = "x86_64"))]
                _ => self.run::<Plain>(isa, parallel),
            }
        }
    }

    /// The same for operands that are pairs of bf16.
    ///
    /// # Safety
    /// As [`Product::compute`], and the CPU has [`Isa::Avx512Bf16`].
    #[cfg(target_arch = "x86_64")]
    pub(crate) unsafe fn compute_pairs(&self, parallel: bool) {
        // SAFETY: the caller's promise.
        unsafe { self.run::<Avx512Pairs>(Isa::Avx512Bf16, parallel) }
    }

    /// The same for operands that are f16.
    ///
    /// # Safety
    /// As [`Product::compute`], and the CPU has [`Isa::Avx512Fp16`].
    #[cfg(target_arch = "x86_64")]
    pub(crate) unsafe fn compute_f16(&self, parallel: bool) {
        // SAFETY: the caller's promise.
        unsafe { self.run::<Avx512F16>(Isa::Avx512Fp16, parallel) }
    }

    /// Some columns of what [`Product::compute_pairs`] computes, for whoever shares out those of several products.
    ///
    /// # Safety
    /// As [`Product::compute_pairs`]; the contraction has a step, and the columns are at most [`Micro::COLUMNS`], from a multiple of
    /// the kernel's on.
    #[cfg(target_arch = "x86_64")]
    pub(crate) unsafe fn columns_of_pairs(&self, columns: Span) {
        // SAFETY: the caller's promise.
        unsafe { self.block::<Avx512Pairs>(Isa::Avx512Bf16, Span { first: 0, count: self.shape.0 }, columns) }
    }

    /// Multiplications of single indices or of pairs.
    pub(crate) fn size(&self) -> usize {
        self.shape.0 * self.shape.1 * self.shape.2
    }
}

/// How many blocks of rows and of columns a product is cut into. A block costs packing in proportion
/// to its sides and works in proportion to its area, so the longer side is cut first.
fn cut<M: Micro>(rows: usize, columns: usize) -> (usize, usize) {
    let (mut by_rows, mut by_columns) = (rows.div_ceil(ROWS), columns.div_ceil(M::COLUMNS));
    let threads = rayon::current_num_threads();
    let tasks = if threads == 1 { 1 } else { TASKS * threads };
    while by_rows * by_columns < tasks {
        let rows_can = rows / (by_rows + 1) >= FEWEST_ROWS;
        let columns_can = columns / (by_columns + 1) >= M::NR;
        match (rows_can, columns_can) {
            (false, false) => break,
            (true, false) => by_rows += 1,
            (false, true) => by_columns += 1,
            (true, true) if rows * by_columns >= columns * by_rows => by_rows += 1,
            (true, true) => by_columns += 1,
        }
    }
    (by_rows, by_columns)
}

/// Part `i` of `total` cut into `parts`, at multiples of `unit`.
pub(super) fn part(total: usize, parts: usize, unit: usize, i: usize) -> Span {
    let size = total.div_ceil(parts).next_multiple_of(unit);
    let first = (i * size).min(total);
    Span { first, count: size.min(total - first) }
}

impl<O: Operands> Product<O> {
    unsafe fn run<M: Micro>(&self, isa: Isa, parallel: bool) {
        let (rows, columns, steps) = self.shape;
        if rows == 0 || columns == 0 {
            return;
        }
        if steps == 0 {
            // SAFETY: the caller's promise.
            unsafe { self.only_beta() };
            return;
        }
        if !parallel || self.size() < SMALL {
            for first in (0..columns).step_by(M::COLUMNS) {
                let count = M::COLUMNS.min(columns - first);
                // SAFETY: the caller's promise.
                unsafe { self.block::<M>(isa, Span { first: 0, count: rows }, Span { first, count }) };
            }
            return;
        }
        let blocks: Vec<(Span, Span)> = self.blocks::<M>().collect();
        // SAFETY: the caller's promise; blocks are disjoint.
        blocks.into_par_iter().for_each(|(rows, columns)| unsafe { self.block::<M>(isa, rows, columns) });
    }

    /// The blocks that are shared out among threads.
    fn blocks<M: Micro>(&self) -> impl Iterator<Item = (Span, Span)> + use<O, M> {
        let (rows, columns, _) = self.shape;
        let (by_rows, by_columns) = cut::<M>(rows, columns);
        let block = move |i| {
            let rows = part(rows, by_rows, M::MR, i / by_columns);
            (rows, part(columns, by_columns, M::NR, i % by_columns))
        };
        let some = |(rows, columns): &(Span, Span)| rows.count > 0 && columns.count > 0;
        (0..by_rows * by_columns).map(block).filter(some)
    }

    /// One block, of [`Micro::COLUMNS`] columns at most, with this thread's buffers.
    unsafe fn block<M: Micro>(&self, isa: Isa, rows: Span, columns: Span) {
        BUFFERS.with_borrow_mut(|buffers| {
            let (a, b) = buffers.split_at_mut(A_TILE);
            // SAFETY: the caller's promise.
            unsafe { self.task::<M>(isa, rows, columns, a.as_mut_ptr().cast(), b.as_mut_ptr().cast()) }
        });
    }

    unsafe fn only_beta(&self) {
        for i in 0..self.shape.0 {
            let start = self.target.c.wrapping_add(i * self.target.row);
            // SAFETY: row i of c is valid for writing.
            let row = unsafe { std::slice::from_raw_parts_mut(start, self.shape.1) };
            if self.target.beta == 0.0 {
                row.fill(0.0);
            } else {
                row.iter_mut().for_each(|c| *c *= self.target.beta);
            }
        }
    }

    /// One block of c: panels of the right operand are made once for each cut of the contraction,
    /// tiles of the left once for each pass over the panels.
    unsafe fn task<M: Micro>(&self, isa: Isa, rows: Span, columns: Span, a_tile: *mut f32, buffer: *mut f32) {
        let (order, target) = (self.operands.order(), &self.target);
        // Sixteen rows are two tiles of eight: fourteen and two would leave the second mostly idle.
        let high = M::height(rows.count.div_ceil(rows.count.div_ceil(M::MR)));
        let stream = fetch::distance() / size_of::<f32>();
        let mut done = 0;
        for from in (0..self.shape.2).step_by(DEPTH) {
            let depth = DEPTH.min(self.shape.2 - from);
            let beta = if from == 0 { target.beta } else { 1.0 };
            let steps = Span { first: from, count: depth };
            // SAFETY: the block lies inside the operands; the buffers hold the largest tile and
            // block of panels.
            unsafe {
                let (panels, distance) = self.operands.right(isa, columns, steps, M::NR, buffer);
                for r in (0..rows.count).step_by(high) {
                    let count = high.min(rows.count - r);
                    let height = M::height(count);
                    let first = rows.first + r;
                    self.operands.left(isa, Span { first, count }, steps, height, a_tile);
                    let next = high.min(rows.count - r - count);
                    let ahead = self.operands.ahead(Span { first: first + count, count: next }, steps);
                    let parts = columns.count.div_ceil(M::NR);
                    for (p, j) in (0..columns.count).step_by(M::NR).enumerate() {
                        let size = (count, M::NR.min(columns.count - j));
                        done += size.0 * size.1 * depth;
                        let tile = Tile {
                            depth,
                            a: a_tile,
                            b: panels.add(p * distance),
                            alpha: target.alpha,
                            beta,
                            c: target.c.add(first * target.row + columns.first + j),
                            c_row: target.row,
                            ahead: ahead.part(p, parts),
                            stream,
                        };
                        run_tile::<M>(order, height, tile, size);
                    }
                }
            }
        }
        O::COUNT(done);
    }
}

/// Runs a tile, by way of a buffer where the result has fewer rows or columns than the kernel
/// writes.
unsafe fn run_tile<M: Micro>(order: Order, height: usize, tile: Tile, (rows, columns): (usize, usize)) {
    /// Room for the tile of any kernel.
    const ROOM: usize = 16 * 64;
    if rows == height && columns == M::NR {
        // SAFETY: the whole tile lies inside c.
        unsafe { M::run(order, height, &tile) };
        return;
    }
    let mut whole = [0.0f32; ROOM];
    let aside = Tile { c: whole.as_mut_ptr(), c_row: M::NR, ..tile };
    // SAFETY: the buffer holds MR * NR values, of which rows x columns come from c and go back
    // there. The kernel does all the arithmetic, so that an element at an edge gets the same
    // roundings as any other.
    unsafe {
        if tile.beta != 0.0 {
            for r in 0..rows {
                let c = std::slice::from_raw_parts(tile.c.add(r * tile.c_row), columns);
                whole[r * M::NR..r * M::NR + columns].copy_from_slice(c);
            }
        }
        M::run(order, height, &aside);
        for r in 0..rows {
            let c = std::slice::from_raw_parts_mut(tile.c.add(r * tile.c_row), columns);
            c.copy_from_slice(&whole[r * M::NR..r * M::NR + columns]);
        }
    }
}

/// A cache line of floats.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read through a pointer")] [f32; 16]);

/// Lines of a tile of `a`: 16 rows cover the tallest kernel, in either order.
const A_TILE: usize = 16 * A_STRIDE / 16;
/// Lines of a block of panels.
const PANELS: usize = COLUMNS * DEPTH / 16;

thread_local! {
    /// Each thread's tile of `a` and block of panels. A task never waits for another, so it has
    /// them to itself.
    static BUFFERS: RefCell<Vec<Line>> = RefCell::new(vec![Line([0.0; 16]); A_TILE + PANELS]);
}
