//! Where the storage of [`crate::Rows`] comes from: freed buffers are kept and given out again.
//!
//! First touch of memory costs more than most operations that use it, so a training step should
//! touch none that the step before has not touched. Large buffers ask the system for huge pages.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Cache line, and the widest vector: every buffer starts on such an address.
const SMALL_ALIGN: usize = 64;
/// The size of a huge page; buffers from here on are aligned to it.
const HUGE: usize = 2 << 20;
/// Buffers are cut to a multiple of this many bytes.
const PAGE: usize = 4096;
/// Idle buffers never exceed the peak of live bytes by more than this part, or `IDLE_FLOOR`.
const IDLE_SLACK: usize = 8;
const IDLE_FLOOR: usize = 32 << 20;

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

    fn layout(bytes: usize) -> Layout {
        let align = if bytes >= HUGE { HUGE } else { SMALL_ALIGN };
        Layout::from_size_align(bytes, align).expect("a buffer is far smaller than isize::MAX")
    }

    /// New memory, all zero. Large blocks come from the system untouched, so zero costs nothing
    /// until used.
    fn from_system(bytes: usize) -> Block {
        #[cfg(target_os = "linux")]
        if bytes >= HUGE {
            return Self { pointer: huge::map(bytes), bytes };
        }
        let layout = Self::layout(bytes);
        // SAFETY: the layout's size is at least one page or one cache line, never zero.
        let raw = unsafe { alloc_zeroed(layout) };
        match NonNull::new(raw.cast::<f32>()) {
            Some(pointer) => Self { pointer, bytes },
            None => handle_alloc_error(layout),
        }
    }

    fn release(self) {
        #[cfg(target_os = "linux")]
        if self.bytes >= HUGE {
            huge::unmap(self.pointer, self.bytes);
            return;
        }
        // SAFETY: the block came from `alloc_zeroed` with this layout and is dropped here for good.
        unsafe { dealloc(self.pointer.as_ptr().cast(), Self::layout(self.bytes)) }
    }
}

#[cfg(target_os = "linux")]
mod huge {
    use super::{Block, HUGE};
    use std::alloc::handle_alloc_error;
    use std::ptr::{NonNull, null_mut};

    /// Anonymous zero pages on a 2 MiB boundary, with huge pages asked for.
    pub(super) fn map(bytes: usize) -> NonNull<f32> {
        let room = bytes + HUGE;
        // SAFETY: a fresh anonymous mapping touches no memory of ours.
        let raw = unsafe {
            libc::mmap(
                null_mut(),
                room,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if raw == libc::MAP_FAILED {
            handle_alloc_error(Block::layout(bytes));
        }
        let start = raw as usize;
        let head = start.next_multiple_of(HUGE) - start;
        let tail = room - head - bytes;
        // SAFETY: head and tail are whole pages (start, HUGE and bytes are) inside the mapping made
        // above, and nothing points into them; the advice concerns the part that is kept.
        unsafe {
            if head > 0 {
                libc::munmap(raw, head);
            }
            let kept = raw.byte_add(head);
            if tail > 0 {
                libc::munmap(kept.byte_add(bytes), tail);
            }
            // Refused advice (a kernel without huge pages) leaves ordinary pages: nothing to do
            // about it.
            libc::madvise(kept, bytes, libc::MADV_HUGEPAGE);
            NonNull::new_unchecked(kept.cast::<f32>())
        }
    }

    pub(super) fn unmap(pointer: NonNull<f32>, bytes: usize) {
        // SAFETY: `map` returned this range, and its only owner gives it up.
        unsafe {
            libc::munmap(pointer.as_ptr().cast(), bytes);
        }
    }
}

struct State {
    /// Idle blocks by size in bytes.
    idle: BTreeMap<usize, Vec<Block>>,
    idle_bytes: usize,
    live_bytes: usize,
    peak_bytes: usize,
    /// The highest `live_bytes` ever: `peak_bytes` may be reset, the bound on idle memory should
    /// not be.
    ever_bytes: usize,
    /// See [`expect_rows`].
    rows: usize,
}

static STATE: Mutex<State> = Mutex::new(State {
    idle: BTreeMap::new(),
    idle_bytes: 0,
    live_bytes: 0,
    peak_bytes: 0,
    ever_bytes: 0,
    rows: 0,
});

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

/// Bytes that are kept for later use: they count for the process, not for any [`crate::Rows`].
pub fn idle_bytes() -> usize {
    state().idle_bytes
}

/// The most that live and idle buffers take together where live ones never exceed `live` bytes.
pub fn bound(live: usize) -> usize {
    (live + live / IDLE_SLACK).max(IDLE_FLOOR)
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

/// Matrices of up to `rows` rows are to come, of many heights: from now on each takes the room of `rows` rows, so that
/// a batch finds the buffers of every other one whatever their lengths. The rest of a buffer is touched by no one, so
/// it takes address space, not memory. It ends when the value is dropped.
#[must_use]
pub fn expect_rows(rows: usize) -> ExpectedRows {
    state().rows = rows;
    ExpectedRows(())
}

/// Given by [`expect_rows`].
#[derive(Debug)]
pub struct ExpectedRows(());

impl Drop for ExpectedRows {
    fn drop(&mut self) {
        state().rows = 0;
    }
}

/// Gives all idle buffers back to the system.
pub fn trim() {
    let idle = {
        let mut s = state();
        s.idle_bytes = 0;
        std::mem::take(&mut s.idle)
    };
    idle.into_values().flatten().for_each(Block::release);
}

/// Bytes of the block for so many floats. From a page on there are eight sizes for each doubling, so that batches of
/// slightly different lengths find each other's blocks; the unused tail of a block is not touched, so it costs
/// little memory.
fn rounded(floats: usize) -> usize {
    let bytes = (floats * size_of::<f32>()).max(SMALL_ALIGN);
    if bytes < PAGE {
        return bytes.next_multiple_of(SMALL_ALIGN);
    }
    let doubling = 1 << bytes.ilog2();
    bytes.next_multiple_of((doubling / 8).max(PAGE))
}

/// A matrix of fewer than this part of the expected rows is another kind of thing (one row a sequence).
const FEW: usize = 8;

impl State {
    /// The rows for which a matrix of `rows` rows gets room.
    fn room(&self, rows: usize) -> usize {
        if rows < self.rows && rows > self.rows / FEW { self.rows } else { rows }
    }

    fn take_idle(&mut self, bytes: usize) -> Option<Block> {
        // A block up to a quarter too large is good enough: the rest is touched memory that nobody
        // else uses now.
        let size = *self.idle.range(bytes..=bytes + bytes / 4).next()?.0;
        let blocks = self.idle.get_mut(&size)?;
        let block = blocks.pop();
        if blocks.is_empty() {
            self.idle.remove(&size);
        }
        if block.is_some() {
            self.idle_bytes -= size;
        }
        block
    }

    fn count_live(&mut self, bytes: usize) {
        self.live_bytes += bytes;
        self.peak_bytes = self.peak_bytes.max(self.live_bytes);
        self.ever_bytes = self.ever_bytes.max(self.live_bytes);
    }

    /// Idle blocks, largest first, until live and idle together respect the bound.
    fn shrink(&mut self) -> Vec<Block> {
        let bound = bound(self.ever_bytes);
        let mut gone = Vec::new();
        while self.live_bytes + self.idle_bytes > bound {
            let Some(mut entry) = self.idle.last_entry() else {
                break;
            };
            let size = *entry.key();
            gone.extend(entry.get_mut().pop());
            if entry.get().is_empty() {
                entry.remove();
            }
            self.idle_bytes -= size;
        }
        gone
    }
}

/// A block for `rows` x `width` floats. The second value says whether it is known to be all zero.
pub(crate) fn take(rows: usize, width: usize) -> (Block, bool) {
    TAKEN.fetch_add((rows * width * size_of::<f32>()) as u64, Ordering::Relaxed);
    let gone;
    let bytes;
    {
        let mut s = state();
        bytes = rounded(s.room(rows) * width);
        if let Some(block) = s.take_idle(bytes) {
            s.count_live(block.bytes);
            return (block, false);
        }
        s.count_live(bytes);
        gone = s.shrink();
    }
    // System calls happen outside the lock.
    gone.into_iter().for_each(Block::release);
    (Block::from_system(bytes), true)
}

/// Returns a block for later use.
pub(crate) fn put(block: Block) {
    let gone;
    {
        let mut s = state();
        s.live_bytes -= block.bytes;
        s.idle_bytes += block.bytes;
        s.idle.entry(block.bytes).or_default().push(block);
        gone = s.shrink();
    }
    gone.into_iter().for_each(Block::release);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> State {
        State { idle: BTreeMap::new(), idle_bytes: 0, live_bytes: 0, peak_bytes: 0, ever_bytes: 0, rows: 0 }
    }

    fn idle(s: &mut State, bytes: usize) {
        s.idle_bytes += bytes;
        s.idle.entry(bytes).or_default().push(Block::from_system(bytes));
    }

    #[test]
    fn the_smallest_block_that_fits_is_taken_and_none_far_too_large() {
        let mut s = empty();
        for bytes in [64 * 40, 64 * 12, 64 * 11] {
            idle(&mut s, bytes);
        }
        let taken = s.take_idle(64 * 10).expect("two blocks fit");
        assert_eq!((taken.bytes, s.idle_bytes), (64 * 11, 64 * 52));
        taken.release();
        assert!(s.take_idle(64 * 20).is_none(), "a block of twice the size was taken");
        assert_eq!(s.idle.values().map(Vec::len).sum::<usize>(), 2);
        s.idle.into_values().flatten().for_each(Block::release);
    }

    #[test]
    fn sizes_are_whole_pages_with_an_eighth_to_spare_at_most() {
        for floats in [1, 16, 17, 1000, 1024, 5000, 589_824, 600_000, 50_000_000] {
            let bytes = 4 * floats;
            let block = rounded(floats);
            assert!(
                block >= bytes && block <= (bytes + bytes / 8).max(64).next_multiple_of(PAGE),
                "{floats}"
            );
            assert!(block.is_multiple_of(if bytes < PAGE { SMALL_ALIGN } else { PAGE }), "{floats}");
        }
        assert_eq!(rounded(1024 * 576), 4 * 1024 * 576, "the sizes of usual shapes fit exactly");
    }

    #[test]
    fn batches_of_all_lengths_find_the_same_buffers() {
        let mut s = empty();
        assert_eq!((s.room(700), s.room(3)), (700, 3));
        s.rows = 1000;
        assert_eq!([1000, 999, 700, 126].map(|rows| s.room(rows)), [1000; 4]);
        assert_eq!([1001, 125, 0].map(|rows| s.room(rows)), [1001, 125, 0]);
    }

    #[test]
    fn idle_memory_is_bounded() {
        let mut s = empty();
        idle(&mut s, IDLE_FLOOR - PAGE);
        assert!(s.shrink().is_empty());
        idle(&mut s, 2 * PAGE);
        let gone = s.shrink();
        assert_eq!(gone.iter().map(|b| b.bytes).sum::<usize>(), IDLE_FLOOR - PAGE, "the largest goes first");
        gone.into_iter().for_each(Block::release);
        s.idle.into_values().flatten().for_each(Block::release);
    }

    #[test]
    fn live_bytes_and_their_peak_are_counted() {
        // Other tests use the pool meanwhile, so only bounds can be stated.
        let x = crate::Rows::scratch(1000, 4096);
        assert!(live_bytes() >= 16_384_000 && peak_bytes() >= 16_384_000);
        drop(x);
        reset_peak();
        trim();
    }

    #[test]
    fn large_blocks_are_zero_and_aligned() {
        let block = Block::from_system(HUGE + PAGE);
        assert!((block.pointer.as_ptr() as usize).is_multiple_of(HUGE));
        // SAFETY: the block holds that many bytes.
        let values = unsafe { std::slice::from_raw_parts(block.pointer.as_ptr(), (HUGE + PAGE) / 4) };
        assert!(values.iter().all(|v| *v == 0.0));
        block.release();
    }
}
