//! [`Lasting`]: arrays that live as long as a model, in huge pages.
//!
//! A product with few rows does little but read its weight, and walking page tables costs it a third of the rate at
//! which it could: weights lie together in regions for which huge pages are asked, as activations do.

use super::{Arenas, LINE};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

static ARENAS: Mutex<Arenas> = Mutex::new(Arenas::new());

/// What is valid as zeros, needs no dropping and no more than a cache line's alignment.
///
/// # Safety
/// That all of this holds.
pub(crate) unsafe trait Plain: Copy + Send + Sync {}

// SAFETY: a float of zeros is 0.
unsafe impl Plain for f32 {}

/// A boxed slice in an arena of its own kind.
pub(crate) struct Lasting<T: Plain> {
    pointer: NonNull<T>,
    length: usize,
    bytes: usize,
}

// SAFETY: it owns its memory exclusively, as a boxed slice does.
unsafe impl<T: Plain> Send for Lasting<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Lasting<T> {}

impl<T: Plain> Lasting<T> {
    /// So many zeros.
    pub(crate) fn zeros(length: usize) -> Self {
        const { assert!(align_of::<T>() <= LINE) };
        let bytes = super::rounded(length * size_of::<T>());
        let (pointer, zero) = ARENAS.lock().unwrap_or_else(PoisonError::into_inner).take(bytes);
        if !zero {
            // SAFETY: the block holds that many bytes and belongs to no one else.
            unsafe { pointer.write_bytes(0, bytes) };
        }
        Lasting { pointer: pointer.cast(), length, bytes }
    }
}

impl<T: Plain> Deref for Lasting<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the block holds `length` valid values, aligned to a line.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.length) }
    }
}

impl<T: Plain> DerefMut for Lasting<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `&mut self` is the only access.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.length) }
    }
}

impl<T: Plain> Drop for Lasting<T> {
    fn drop(&mut self) {
        ARENAS.lock().unwrap_or_else(PoisonError::into_inner).put(self.pointer.cast(), self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_zero_when_they_are_new_and_keep_what_is_put_in() {
        for length in [0, 5, 4096] {
            let mut used = Lasting::<f32>::zeros(length);
            assert!(used.len() == length && used.iter().all(|v| *v == 0.0));
            used.fill(-2.5);
            let other = Lasting::<f32>::zeros(length);
            assert!(used.iter().all(|v| *v == -2.5) && other.iter().all(|v| *v == 0.0));
        }
    }
}
