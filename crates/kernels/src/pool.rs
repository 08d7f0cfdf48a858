//! Where the storage of [`crate::Rows`] comes from: one arena, in which what is freed is given out again.
//!
//! First touch of memory costs more than most operations that use it, so a training step should touch none that the
//! step before has not touched. A free range is split and grows together with its neighbours, so what was touched once
//! serves matrices of every shape; it is never given back.

mod free;
mod lasting;
mod region;

use free::Free;
pub(crate) use lasting::{Lasting, Plain};
use region::Region;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Cache line, and the widest vector: every block starts on such an address.
const LINE: usize = 64;
/// Blocks of a page or more are whole pages: ranges of few sizes find each other.
const PAGE: usize = 4096;
/// What ranges that fit nothing may add to the live bytes, as a part of them, and at least.
const SLACK: usize = 8;
const SLACK_FLOOR: usize = 32 << 20;

/// One allocation: initialised memory for `bytes / 4` floats.
#[derive(Debug)]
pub(crate) struct Block {
    pointer: NonNull<f32>,
    bytes: usize,
}

// SAFETY: a block owns its memory exclusively and has no thread affinity.
unsafe impl Send for Block {}
// SAFETY: a shared reference gives no access to the memory except through `Rows`, which follows the
// borrow rules.
unsafe impl Sync for Block {}

impl Block {
    pub(crate) fn pointer(&self) -> NonNull<f32> {
        self.pointer
    }
}

/// A region and what of it is in use.
#[derive(Debug)]
struct Arena {
    region: Region,
    free: Free,
    /// Everything in use or in `free` lies below.
    top: usize,
    /// The highest top ever: beyond it lie zeros.
    touched: usize,
}

impl Arena {
    /// The offset of a new block, and whether it is known to be all zero.
    fn take(&mut self, bytes: usize) -> Option<(usize, bool)> {
        if let Some(start) = self.free.take(bytes) {
            return Some((start, false));
        }
        let start = self.top;
        if self.region.bytes - start < bytes {
            return None;
        }
        self.top += bytes;
        let zero = start >= self.touched;
        self.touched = self.touched.max(self.top);
        Some((start, zero))
    }

    fn put(&mut self, start: usize, bytes: usize) {
        self.free.put(start, bytes);
        if let Some(start) = self.free.take_last(self.top) {
            self.top = start;
        }
    }
}

/// Arenas of one kind of data: one after another is added where the others have no room.
#[derive(Debug)]
struct Arenas(Vec<Arena>);

impl Arenas {
    const fn new() -> Arenas {
        Arenas(Vec::new())
    }

    /// A new block, and whether it is known to be all zero.
    fn take(&mut self, bytes: usize) -> (NonNull<u8>, bool) {
        let found = self.0.iter_mut().find_map(|arena| Some((arena.region.start, arena.take(bytes)?)));
        let (base, (start, zero)) = found.unwrap_or_else(|| {
            let mut arena =
                Arena { region: Region::reserve(bytes), free: Free::default(), top: 0, touched: 0 };
            let taken = arena.take(bytes).expect("a new region has room for what it was reserved for");
            let base = arena.region.start;
            self.0.push(arena);
            (base, taken)
        });
        // SAFETY: the offset lies inside the region.
        (unsafe { base.add(start) }, zero)
    }

    /// Takes back what [`Arenas::take`] gave.
    fn put(&mut self, pointer: NonNull<u8>, bytes: usize) {
        let owner = self.0.iter_mut().find_map(|arena| {
            let start = (pointer.as_ptr() as usize).checked_sub(arena.region.start.as_ptr() as usize)?;
            (start < arena.region.bytes).then_some((arena, start))
        });
        let (arena, start) = owner.expect("a block lies in the region that it was taken from");
        arena.put(start, bytes);
    }
}

struct State {
    arenas: Arenas,
    live_bytes: usize,
    peak_bytes: usize,
}

static STATE: Mutex<State> = Mutex::new(State { arenas: Arenas::new(), live_bytes: 0, peak_bytes: 0 });

fn state() -> MutexGuard<'static, State> {
    // No code panics while it holds the lock with the counters half changed, so a poisoned state is
    // sound.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of all live [`crate::Rows`], as rounded up by the pool.
pub fn live_bytes() -> usize {
    state().live_bytes
}

/// The highest [`live_bytes`] since the start or the last [`reset_peak`].
pub fn peak_bytes() -> usize {
    state().peak_bytes
}

/// Bytes that were touched so far, in use or not.
pub fn touched_bytes() -> usize {
    state().arenas.0.iter().map(|arena| arena.touched).sum()
}

/// The most that is expected to be touched where live bytes never exceed `live`.
pub fn bound(live: usize) -> usize {
    (live + live / SLACK).max(SLACK_FLOOR)
}

static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Bytes of all [`crate::Rows`] that were ever made, as they were asked for: it grows by every copy and every result,
/// whatever is idle at the time.
pub fn taken_bytes() -> u64 {
    TAKEN.load(Ordering::Relaxed)
}

/// Starts a new measurement of the peak from what is live now.
pub fn reset_peak() {
    let mut s = state();
    s.peak_bytes = s.live_bytes;
}

/// What a block of so many bytes takes.
fn rounded(bytes: usize) -> usize {
    let bytes = bytes.max(LINE);
    bytes.next_multiple_of(if bytes < PAGE { LINE } else { PAGE })
}

/// A block for `rows` x `width` floats. The second value says whether it is known to be all zero.
pub(crate) fn take(rows: usize, width: usize) -> (Block, bool) {
    TAKEN.fetch_add((rows * width * size_of::<f32>()) as u64, Ordering::Relaxed);
    let bytes = rounded(rows * width * size_of::<f32>());
    let mut s = state();
    s.live_bytes += bytes;
    s.peak_bytes = s.peak_bytes.max(s.live_bytes);
    let (pointer, zero) = s.arenas.take(bytes);
    (Block { pointer: pointer.cast(), bytes }, zero)
}

/// Returns a block for later use.
pub(crate) fn put(block: Block) {
    let mut s = state();
    s.live_bytes -= block.bytes;
    s.arenas.put(block.pointer.cast(), block.bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena() -> Arena {
        Arena { region: Region::reserve(1 << 20), free: Free::default(), top: 0, touched: 0 }
    }

    #[test]
    fn what_was_touched_serves_other_shapes_and_what_was_not_is_zero() {
        let mut arena = arena();
        let taken = [300, 200, 100].map(|bytes| arena.take(bytes).expect("there is room"));
        assert_eq!(taken, [(0, true), (300, true), (500, true)]);
        arena.put(0, 300);
        arena.put(300, 200);
        assert_eq!(arena.take(450), Some((0, false)), "two blocks side by side serve a larger one");
        arena.put(500, 100);
        assert_eq!((arena.top, arena.touched), (450, 600), "the end of the arena is free again");
        assert_eq!(arena.take(120), Some((450, false)), "touched in part");
        assert_eq!(arena.take(100), Some((570, false)));
        assert_eq!(arena.take(100), Some((670, true)));
        assert_eq!(arena.take(arena.region.bytes), None);
    }

    #[test]
    fn sizes_are_whole_lines_and_from_a_page_on_whole_pages() {
        let sizes = [0, 1, 16, 17, 1000, 1024, 1025, 1024 * 576].map(|floats| rounded(4 * floats));
        assert_eq!(sizes, [64, 64, 64, 128, 4032, 4096, 8192, 4 * 1024 * 576]);
    }

    #[test]
    fn live_bytes_and_their_peak_are_counted() {
        // Other tests use the pool meanwhile, so only bounds can be stated.
        let x = crate::Rows::scratch(1000, 4096);
        assert!(live_bytes() >= 16_384_000 && peak_bytes() >= 16_384_000 && touched_bytes() >= 16_384_000);
        drop(x);
        reset_peak();
    }

    #[test]
    fn blocks_are_aligned_and_apart() {
        let blocks = [3, 1000, 70_000].map(|floats| take(floats, 1).0);
        let mut ranges: Vec<(usize, usize)> =
            blocks.iter().map(|b| (b.pointer.as_ptr() as usize, b.bytes)).collect();
        ranges.sort_unstable();
        assert!(ranges.iter().all(|(start, bytes)| start.is_multiple_of(LINE) && bytes.is_multiple_of(LINE)));
        assert!(ranges.is_sorted_by(|a, b| a.0 + a.1 <= b.0), "{ranges:?}");
        blocks.into_iter().for_each(put);
    }
}
