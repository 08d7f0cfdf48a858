//! The loops around the micro-kernel: how a product is cut into tasks, and a task into tiles.
//!
//! All sizes are constants or follow from the shape, and the contraction is cut at multiples of [`DEPTH`], whatever
//! the other two sizes are. So an element of the result is the same sum in the same order for any number of
//! threads and any number of rows around it.

use super::micro::{A_STRIDE, Micro, Order, Plain, Tile};
#[cfg(target_arch = "x86_64")]
use super::micro::{Avx2, Avx512};
use super::pack::{order_of, pack_a, pack_b};
use crate::isa::Isa;
use rayon::prelude::*;
use std::cell::RefCell;

/// Contraction steps between two visits to the result: a tile of `a` fits the first-level cache, a block of panels
/// the second.
pub(super) const DEPTH: usize = 512;
/// Columns of the result in one task, at most; panels of this many columns and `DEPTH` steps take 512 KiB.
const COLUMNS: usize = 256;
/// Rows of the result in one task, at most, where there are columns enough to keep the tasks many.
const ROWS: usize = 1024;
/// Rows that a task should keep if rows are cut to have more tasks: they pay for packing `b` again.
const FEWEST_ROWS: usize = 112;
/// Tasks to aim for.
const TASKS: usize = 6;
/// Products of fewer multiplications than this run as one task.
const SMALL: usize = 1 << 18;

/// A strided matrix operand: element (i, j) is at `pointer + i * row + j * column`. One of the strides is 1.
#[derive(Clone, Copy)]
pub(crate) struct Strided<P> {
    pub(crate) pointer: P,
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// c = beta c + alpha a b.
#[derive(Clone, Copy)]
struct Product {
    rows: usize,
    columns: usize,
    depth: usize,
    alpha: f32,
    a: Strided<*const f32>,
    b: Strided<*const f32>,
    beta: f32,
    c: *mut f32,
    c_row: usize,
}

// SAFETY: tasks read a and b and write disjoint parts of c.
unsafe impl Send for Product {}
// SAFETY: as above.
unsafe impl Sync for Product {}

/// c = beta c + alpha a b, with a (m, k), b (k, n), c (m, n) whose rows are contiguous and `c_row` apart;
/// beta 0 does not read c. With `parallel` the work goes to the current thread pool.
///
/// # Safety
/// Every element named by the shapes and strides lies in memory that is valid for reading (a, b) or writing (c),
/// and c overlaps neither a nor b.
pub(crate) unsafe fn product(
    isa: Isa,
    (rows, columns, depth): (usize, usize, usize),
    alpha: f32,
    a: Strided<*const f32>,
    b: Strided<*const f32>,
    beta: f32,
    (c, c_row): (*mut f32, usize),
    parallel: bool,
) {
    let product = Product { rows, columns, depth, alpha, a, b, beta, c, c_row };
    if rows == 0 || columns == 0 {
        return;
    }
    if depth == 0 {
        // SAFETY: the caller's promise.
        unsafe { product.only_beta() };
        return;
    }
    let parallel = parallel && rows * columns * depth >= SMALL;
    // SAFETY: the caller's promise; an `Isa` names only what this CPU has.
    unsafe {
        match isa {
            Isa::Scalar => product.run::<Plain>(isa, parallel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => product.run::<Avx2>(isa, parallel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 => product.run::<Avx512>(isa, parallel),
            #[cfg(not(target_arch = "x86_64"))]
            _ => product.run::<Plain>(isa, parallel),
        }
    }
}

/// How many blocks of rows and of columns a product is cut into; a function of its shape alone.
fn cut(rows: usize, columns: usize, nr: usize) -> (usize, usize) {
    let by_columns = columns.div_ceil(COLUMNS);
    let by_rows = rows.div_ceil(ROWS);
    if by_rows * by_columns >= TASKS {
        return (by_rows, by_columns);
    }
    let by_rows = TASKS.div_ceil(by_columns).min(rows.div_ceil(FEWEST_ROWS)).max(by_rows);
    let by_columns = TASKS.div_ceil(by_rows).min(columns.div_ceil(nr)).max(by_columns);
    (by_rows, by_columns)
}

/// Part `i` of `total` cut into `parts`, at multiples of `unit`.
fn part(total: usize, parts: usize, unit: usize, i: usize) -> (usize, usize) {
    let size = total.div_ceil(parts).next_multiple_of(unit);
    let start = (i * size).min(total);
    (start, size.min(total - start))
}

impl Product {
    unsafe fn only_beta(&self) {
        for i in 0..self.rows {
            // SAFETY: row i of c is valid for writing.
            let row = unsafe { std::slice::from_raw_parts_mut(self.c.add(i * self.c_row), self.columns) };
            if self.beta == 0.0 {
                row.fill(0.0);
            } else {
                row.iter_mut().for_each(|c| *c *= self.beta);
            }
        }
    }

    unsafe fn run<M: Micro>(&self, isa: Isa, parallel: bool) {
        let task = |rows: (usize, usize), columns: (usize, usize)| {
            BUFFERS.with_borrow_mut(|buffers| {
                let (a, b) = buffers.split_at_mut(A_TILE);
                // SAFETY: the caller's promise; tasks write disjoint blocks of c.
                unsafe { self.task::<M>(isa, rows, columns, a.as_mut_ptr().cast(), b.as_mut_ptr().cast()) }
            });
        };
        if !parallel {
            for j in 0..self.columns.div_ceil(COLUMNS) {
                let first = j * COLUMNS;
                task((0, self.rows), (first, COLUMNS.min(self.columns - first)));
            }
            return;
        }
        let (by_rows, by_columns) = cut(self.rows, self.columns, M::NR);
        (0..by_rows * by_columns).into_par_iter().for_each(|i| {
            let rows = part(self.rows, by_rows, M::MR, i / by_columns);
            let columns = part(self.columns, by_columns, M::NR, i % by_columns);
            if rows.1 > 0 && columns.1 > 0 {
                task(rows, columns);
            }
        });
    }

    /// One block of c: panels of `b` are packed once for each cut of the contraction, tiles of `a` once for each
    /// pass over the panels.
    unsafe fn task<M: Micro>(
        &self,
        isa: Isa,
        (row, rows): (usize, usize),
        (column, columns): (usize, usize),
        a_tile: *mut f32,
        panels: *mut f32,
    ) {
        let order = order_of(self.a);
        for from in (0..self.depth).step_by(DEPTH) {
            let depth = DEPTH.min(self.depth - from);
            let beta = if from == 0 { self.beta } else { 1.0 };
            // SAFETY: the block lies inside the operands; the buffers hold the largest tile and block of panels.
            unsafe {
                pack_b(isa, self.b, (column, columns), (from, depth), M::NR, panels);
                for r in (0..rows).step_by(M::MR) {
                    let count = M::MR.min(rows - r);
                    let height = M::height(count);
                    pack_a(isa, self.a, row + r, count, from, depth, height, a_tile);
                    for (p, j) in (0..columns).step_by(M::NR).enumerate() {
                        let size = (count, M::NR.min(columns - j));
                        let tile = Tile {
                            depth,
                            a: a_tile,
                            b: panels.add(p * M::NR * depth),
                            alpha: self.alpha,
                            beta,
                            c: self.c.add((row + r) * self.c_row + column + j),
                            c_row: self.c_row,
                        };
                        run_tile::<M>(order, height, tile, size);
                    }
                }
            }
        }
    }
}

/// Runs a tile, by way of a buffer where the result has fewer rows or columns than the kernel writes.
unsafe fn run_tile<M: Micro>(order: Order, height: usize, tile: Tile, (rows, columns): (usize, usize)) {
    /// Room for the tile of any kernel.
    const ROOM: usize = 16 * 32;
    if rows == height && columns == M::NR {
        // SAFETY: the whole tile lies inside c.
        unsafe { M::run(order, height, &tile) };
        return;
    }
    let mut whole = [0.0f32; ROOM];
    let aside = Tile { c: whole.as_mut_ptr(), c_row: M::NR, ..tile };
    // SAFETY: the buffer holds MR * NR values, of which rows x columns come from c and go back there. The kernel
    // does all the arithmetic, so that an element at an edge gets the same roundings as any other.
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
    /// Each thread's tile of `a` and block of panels. A task never waits for another, so it has them to itself.
    static BUFFERS: RefCell<Vec<Line>> = RefCell::new(vec![Line([0.0; 16]); A_TILE + PANELS]);
}
