//! Products of pairs of bf16 with AMX: c = beta c + a b in blocks of 32 x 32, each four tiles of 16 x 16 sums that take
//! 16 pairs of the contraction at once.
//!
//! The left operand is rounded to bf16 once ([`Halves`]) and read where it lies; the right one comes in panels of 32
//! columns, `[pairs][32][2]`. The contraction is cut into pieces whose size follows from
//! its own length alone, and an element is summed by one thread, so that neither the number of threads nor the rows
//! around it change a bit.

use super::engine::{Span, Target, panels_of_part, part};
use super::halves::{Halves, SIDE};
use crate::{awake, work};
use std::arch::asm;
use std::cell::RefCell;
use std::mem::MaybeUninit;

/// Rows and columns of a block of the result.
const BLOCK: usize = 2 * SIDE;
/// The longest piece of the contraction, in pairs: a block's rows of the left operand stay in the first-level cache
/// beside the panel that streams past them. Sums go to the result and back between pieces, which costs less.
const LONGEST: usize = 144;
/// Columns of the result in one task, at most.
const COLUMNS: usize = 256;
/// Blocks of columns that a task should keep: each reads all of its rows' left operand.
const FEWEST_BLOCKS: usize = 4;
/// Rows of the result in one task: at most, and as many as should be left by a cut for more tasks.
const ROWS: usize = 1024;
const FEWEST_ROWS: usize = 64;
/// Tasks for each thread: one more than needed, because threads do not run equally fast.
const TASKS: usize = 2;
/// Products of fewer multiplications of pairs than this run as one task.
const SMALL: usize = 1 << 20;
/// The same where threads are awake.
const SHARED: usize = 1 << 16;

/// A product: c = beta c + a b for a (rows, pairs), b (pairs, columns).
pub(crate) struct Tiled<'a, R> {
    pub(crate) left: &'a Halves,
    pub(crate) columns: usize,
    /// `right(columns, steps, buffer)` gives panels as [`super::Operands::right`] does, steps being pairs,
    pub(crate) right: R,
    /// without the buffer where they are ready.
    pub(crate) ready: bool,
    /// Its alpha is 1.
    pub(crate) target: Target,
}

/// Products that are independent of each other, as one parallel operation.
///
/// # Safety
/// The CPU has AMX; each `right` can give every column and pair; each c is valid for writing, and nothing else reads or
/// writes it meanwhile.
pub(crate) unsafe fn multiply<R>(of: &[Tiled<R>])
where
    R: Fn(Span, Span, *mut f32) -> (*const f32, usize) + Sync,
{
    let alone = of.iter().map(Tiled::size).sum::<usize>() < if awake::is_cheap() { SHARED } else { SMALL };
    let blocks: Vec<(&Tiled<R>, Span, Span)> = of
        .iter()
        .flat_map(|tiled| tiled.blocks(alone).map(move |(rows, columns)| (tiled, rows, columns)))
        .collect();
    let block = |(tiled, rows, columns): (&Tiled<R>, Span, Span)| {
        BUFFERS.with_borrow_mut(|buffer| {
            let task = Task { left: tiled.left, target: tiled.target, rows, columns, piece: tiled.piece() };
            // SAFETY: the caller's promise; tasks write disjoint blocks of c.
            unsafe { task.run(&tiled.right, buffer) }
        });
    };
    match alone {
        true => blocks.into_iter().for_each(block),
        false => awake::share(blocks.len(), |i| block(blocks[i])),
    }
}

impl<R> Tiled<'_, R> {
    /// Multiplications of pairs.
    fn size(&self) -> usize {
        self.left.rows * self.columns * self.left.pairs
    }

    /// How many pairs of the contraction are multiplied before the next block's turn.
    fn piece(&self) -> usize {
        // A few rows stay in the first-level cache whole, and their panels are best read from end to end.
        if self.ready && self.left.rows <= BLOCK { self.left.pairs.max(1) } else { piece(self.left.pairs) }
    }

    /// The blocks (rows, columns) that are tasks: as few as can be for one thread alone.
    fn blocks(&self, alone: bool) -> impl Iterator<Item = (Span, Span)> + use<R> {
        let (rows, columns) = (self.left.rows, self.columns);
        let (by_rows, by_columns) = match alone {
            true => (1, columns.div_ceil(COLUMNS)),
            false if rows <= BLOCK => {
                let panels = panels_of_part(self.left.pairs * BLOCK * size_of::<f32>(), 0);
                (1, columns.div_ceil(BLOCK * panels))
            }
            false => cut(rows, columns),
        };
        let block = move |i| {
            let rows = part(rows, by_rows, BLOCK, i / by_columns);
            (rows, part(columns, by_columns, BLOCK, i % by_columns))
        };
        let some = |(rows, columns): &(Span, Span)| rows.count > 0 && columns.count > 0;
        (0..by_rows * by_columns).map(block).filter(some)
    }
}

/// How many blocks of rows and of columns a product is cut into. Columns first: panels that have to be made are then
/// made once.
fn cut(rows: usize, columns: usize) -> (usize, usize) {
    let threads = rayon::current_num_threads();
    let wanted = if threads == 1 { 1 } else { TASKS * threads };
    let blocks = columns.div_ceil(BLOCK);
    let least = columns.div_ceil(COLUMNS).max(wanted.min(blocks / FEWEST_BLOCKS)).max(1);
    let equal = (least..=blocks.min(2 * least)).find(|n| blocks.is_multiple_of(*n));
    let (mut by_rows, by_columns) = (rows.div_ceil(ROWS), equal.unwrap_or(least));
    while by_rows * by_columns < wanted && rows / (by_rows + 1) >= FEWEST_ROWS {
        by_rows += 1;
    }
    (by_rows, by_columns)
}

/// A block of the result for one thread.
#[derive(Clone, Copy)]
struct Task<'a> {
    left: &'a Halves,
    target: Target,
    rows: Span,
    columns: Span,
    /// Pairs of the contraction that are multiplied before the next block's turn.
    piece: usize,
}

/// What a thread needs at hand: panels that are made on the way, their ends filled up with zeros, a block of the result.
struct Buffer {
    panels: Vec<Line>,
    ends: Vec<Line>,
}

/// A cache line of words.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read through a pointer")] [f32; SIDE]);

thread_local! {
    static BUFFERS: RefCell<Buffer> = RefCell::new(Buffer {
        panels: vec![Line([0.0; SIDE]); COLUMNS * LONGEST / SIDE],
        ends: vec![Line([0.0; SIDE]); COLUMNS * SIDE / SIDE],
    });
}

/// The pieces into which a contraction of so many pairs is cut: as equal as whole tiles can be.
fn piece(pairs: usize) -> usize {
    pairs.div_ceil(pairs.div_ceil(LONGEST).max(1)).next_multiple_of(SIDE)
}

impl Task<'_> {
    unsafe fn run(&self, right: &impl Fn(Span, Span, *mut f32) -> (*const f32, usize), buffer: &mut Buffer) {
        let (rows, columns, pairs) = (self.rows, self.columns, self.left.pairs);
        // SAFETY: the CPU has AMX.
        unsafe { configure() };
        for first in (0..pairs).step_by(self.piece) {
            let steps = Span { first, count: self.piece.min(pairs - first) };
            let beta = if first == 0 { self.target.beta } else { 1.0 };
            let (panels, distance) = right(columns, steps, buffer.panels.as_mut_ptr().cast());
            let (whole, rest) = (steps.count / SIDE, steps.count % SIDE);
            let ends: *mut f32 = buffer.ends.as_mut_ptr().cast();
            // SAFETY: panels hold `steps.count` pairs, `ends` 16 for each of them; the rest is the caller's promise.
            unsafe {
                if rest > 0 {
                    for p in 0..columns.count.div_ceil(BLOCK) {
                        let from = panels.add(p * distance + whole * SIDE * BLOCK);
                        let to = std::slice::from_raw_parts_mut(ends.add(p * SIDE * BLOCK), SIDE * BLOCK);
                        let from = std::slice::from_raw_parts(from, rest * BLOCK);
                        to[..from.len()].copy_from_slice(from);
                        to[from.len()..].fill(0.0);
                    }
                }
                for r in (rows.first..rows.first + rows.count).step_by(BLOCK) {
                    let high = BLOCK.min(rows.first + rows.count - r);
                    let a = self.left.words.data().as_ptr().add(r * self.left.words.width() + first);
                    for (p, j) in (0..columns.count).step_by(BLOCK).enumerate() {
                        let c = self.target.c.add(r * self.target.row + columns.first + j);
                        let wide = BLOCK.min(columns.count - j);
                        let b = panels.add(p * distance);
                        self.block((a, b, whole), beta, c, (high, wide));
                        if rest > 0 {
                            let (a, b) = (a.add(whole * SIDE), ends.add(p * SIDE * BLOCK).cast_const());
                            let beta = if whole == 0 { beta } else { 1.0 };
                            self.block((a, b, 1), beta, c, (high, wide));
                        }
                    }
                }
            }
        }
        work::add_bf16_pairs(rows.count * columns.count * pairs);
        // SAFETY: as above.
        unsafe { release() };
    }

    /// `steps` tiles of the contraction for one block of c, by way of a buffer where c is smaller.
    unsafe fn block(
        &self,
        (a, b, steps): (*const f32, *const f32, usize),
        beta: f32,
        c: *mut f32,
        (high, wide): (usize, usize),
    ) {
        if steps == 0 {
            return;
        }
        let row = self.target.row;
        let a_row = self.left.words.width();
        // SAFETY: the caller's promise; the buffer is a whole block.
        unsafe {
            if high.is_multiple_of(SIDE) && wide == BLOCK {
                expect(c, row, high);
                scale(beta, c, row, (high, wide));
                kernel(high, (a, a_row), b, steps, (c, row), beta != 0.0);
                return;
            }
            let mut room = MaybeUninit::<[f32; BLOCK * BLOCK]>::uninit();
            let aside: *mut f32 = room.as_mut_ptr().cast();
            if beta != 0.0 {
                // Sums that c has no room for start from anything, and end nowhere.
                scale(beta, c, row, (high, wide));
                copy((c, row), (aside, BLOCK), (high, wide));
            }
            kernel(high, (a, a_row), b, steps, (aside, BLOCK), beta != 0.0);
            copy((aside, BLOCK), (c, row), (high, wide));
        }
    }
}

/// Fetches a block's lines to write, so that its sums need not wait for them at the end.
unsafe fn expect(c: *mut f32, row: usize, high: usize) {
    for r in 0..high {
        let line = c.wrapping_add(r * row);
        // SAFETY: fetching has no effect but in time; whatever CPU has AMX has the instruction.
        unsafe {
            asm!("prefetchw [{0}]", "prefetchw [{0} + 64]", in(reg) line, options(nostack, preserves_flags));
        }
    }
}

/// c = beta c where that is neither 0, which does not read c, nor 1.
unsafe fn scale(beta: f32, c: *mut f32, row: usize, (high, wide): (usize, usize)) {
    if beta == 0.0 || beta == 1.0 {
        return;
    }
    for r in 0..high {
        // SAFETY: the caller's promise.
        let c = unsafe { std::slice::from_raw_parts_mut(c.add(r * row), wide) };
        c.iter_mut().for_each(|c| *c *= beta);
    }
}

unsafe fn copy(from: (*const f32, usize), to: (*mut f32, usize), (high, wide): (usize, usize)) {
    for r in 0..high {
        // SAFETY: the caller's promise.
        unsafe { from.0.add(r * from.1).copy_to_nonoverlapping(to.0.add(r * to.1), wide) };
    }
}

/// Eight tiles of 16 rows of 64 bytes, as `ldtilecfg` reads it.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

const CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Shapes this thread's tiles.
unsafe fn configure() {
    static SHAPES: Configuration = CONFIGURATION;
    // SAFETY: the CPU has AMX and the process may use it; the operand is a valid configuration.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &SHAPES, options(nostack, preserves_flags, readonly)) }
}

/// Puts the tiles back into their first state, in which a switch of threads has nothing to save.
unsafe fn release() {
    // SAFETY: as above.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) }
}

/// c += a b, or c = a b where not `add`: 32 columns, 16 rows or 32; `steps` tiles of the contraction. Distances of rows
/// in floats.
///
/// # Safety
/// The tiles are configured; a holds 16 or 32 rows of `steps` x 16 words, b so many times 16 rows of 32 words, c 16 or
/// 32 rows of 32.
unsafe fn kernel(
    high: usize,
    a: (*const f32, usize),
    b: *const f32,
    steps: usize,
    c: (*mut f32, usize),
    add: bool,
) {
    let lower = |pointer: *const f32, row: usize| pointer.wrapping_add(SIDE * row);
    if high > SIDE {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "test {add:e}, {add:e}",
                "jz 3f",
                "tileloadd tmm0, [{c} + {c_row}]",
                "tileloadd tmm1, [{c} + {c_row} + 64]",
                "tileloadd tmm2, [{c_low} + {c_row}]",
                "tileloadd tmm3, [{c_low} + {c_row} + 64]",
                "jmp 2f",
                "3:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{a} + {a_row}]",
                "tileloadd tmm6, [{b} + {b_row}]",
                "tileloadd tmm7, [{b} + {b_row} + 64]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                // The next step's lines of the panel, between products: they come from the second-level cache.
                ".irp line, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10",
                "prefetcht0 [{b} + 2048 + 64 * \\line]",
                ".endr",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a_low} + {a_row}]",
                ".irp line, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21",
                "prefetcht0 [{b} + 2048 + 64 * \\line]",
                ".endr",
                "tdpbf16ps tmm2, tmm5, tmm6",
                ".irp line, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
                "prefetcht0 [{b} + 2048 + 64 * \\line]",
                ".endr",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 64",
                "add {a_low}, 64",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{c} + {c_row}], tmm0",
                "tilestored [{c} + {c_row} + 64], tmm1",
                "tilestored [{c_low} + {c_row}], tmm2",
                "tilestored [{c_low} + {c_row} + 64], tmm3",
                add = in(reg) u32::from(add),
                a = inout(reg) a.0 => _,
                a_low = inout(reg) lower(a.0, a.1) => _,
                a_row = in(reg) 4 * a.1,
                b = inout(reg) b => _,
                b_row = in(reg) 4 * BLOCK,
                c = in(reg) c.0,
                c_low = in(reg) lower(c.0, c.1),
                c_row = in(reg) 4 * c.1,
                steps = inout(reg) steps => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    } else {
        // SAFETY: as above.
        unsafe {
            asm!(
                "test {add:e}, {add:e}",
                "jz 3f",
                "tileloadd tmm0, [{c} + {c_row}]",
                "tileloadd tmm1, [{c} + {c_row} + 64]",
                "jmp 2f",
                "3:",
                "tilezero tmm0",
                "tilezero tmm1",
                "2:",
                "tileloadd tmm4, [{a} + {a_row}]",
                "tileloadd tmm6, [{b} + {b_row}]",
                "tileloadd tmm7, [{b} + {b_row} + 64]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                // So few rows wait for memory: what comes four steps on is asked for.
                ".irp line, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                "prefetcht1 [{b} + 8192 + 64 * \\line]",
                ".endr",
                "tdpbf16ps tmm1, tmm4, tmm7",
                ".irp line, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
                "prefetcht1 [{b} + 8192 + 64 * \\line]",
                ".endr",
                "add {a}, 64",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{c} + {c_row}], tmm0",
                "tilestored [{c} + {c_row} + 64], tmm1",
                add = in(reg) u32::from(add),
                a = inout(reg) a.0 => _,
                a_row = in(reg) 4 * a.1,
                b = inout(reg) b => _,
                b_row = in(reg) 4 * BLOCK,
                c = in(reg) c.0,
                c_row = in(reg) 4 * c.1,
                steps = inout(reg) steps => _,
                out("tmm0") _, out("tmm1") _,
                out("tmm4") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// Multiplies tiles in registers; returns the multiplications and additions that this was.
///
/// # Safety
/// The CPU has AMX.
pub(crate) unsafe fn in_registers(rounds: usize) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        configure();
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {rounds}",
            "jnz 2b",
            rounds = inout(reg) rounds.max(1) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, nomem),
        );
        release();
    }
    4 * 2 * (SIDE * SIDE * 2 * SIDE * rounds.max(1)) as u64
}
