//! Address space from the system: zeros that cost memory only where they are touched.

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::NonNull;

/// How much is reserved at once: far more than a run touches, so that one region serves it.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
const REGION: usize = 64 << 30;
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
const REGION: usize = 64 << 20;
/// The size of a huge page: regions start at a multiple of it.
const HUGE: usize = 2 << 20;

/// A range of zeros that is never given back: it lives as long as the process.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) start: NonNull<u8>,
    pub(super) bytes: usize,
}

// SAFETY: a region is plain memory without thread affinity; what lies in it belongs to blocks.
unsafe impl Send for Region {}

impl Region {
    /// Room for `least` bytes and more: less than a whole region where the process may not reserve one.
    pub(super) fn reserve(least: usize) -> Region {
        let least = least.next_multiple_of(HUGE);
        let mut bytes = REGION.max(least);
        loop {
            let layout = Layout::from_size_align(bytes, HUGE).expect("a region is smaller than isize::MAX");
            match system::zeros(layout) {
                Some(start) => return Region { start, bytes },
                None if bytes == least => handle_alloc_error(layout),
                None => bytes = (bytes / 2).next_multiple_of(HUGE).max(least),
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use super::{Layout, NonNull};
    use std::ptr::null_mut;

    /// Anonymous pages, no memory set aside for them, huge ones asked for.
    pub(super) fn zeros(layout: Layout) -> Option<NonNull<u8>> {
        let room = layout.size() + layout.align();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping touches no memory of ours.
        let raw = unsafe { libc::mmap(null_mut(), room, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if raw == libc::MAP_FAILED {
            return None;
        }
        let head = (raw as usize).next_multiple_of(layout.align()) - raw as usize;
        // SAFETY: the aligned part lies inside the mapping. Refused advice (a kernel without huge pages) leaves
        // ordinary pages.
        unsafe {
            let start = raw.byte_add(head);
            libc::madvise(start, layout.size(), libc::MADV_HUGEPAGE);
            NonNull::new(start.cast())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::{Layout, NonNull};

    pub(super) fn zeros(layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the layout's size is a huge page at least, never zero.
        NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })
    }
}
