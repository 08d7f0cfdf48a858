//! Which parts of a region are free: the smallest that is large enough is given, neighbours grow together again.

use std::collections::{BTreeMap, BTreeSet};

/// Free ranges of bytes, none touching another.
#[derive(Debug, Default)]
pub(super) struct Free {
    /// Start to length.
    by_start: BTreeMap<usize, usize>,
    /// (length, start).
    by_length: BTreeSet<(usize, usize)>,
}

impl Free {
    /// The start of `bytes` that are free no more; the lowest of the smallest ranges that have them.
    pub(super) fn take(&mut self, bytes: usize) -> Option<usize> {
        let (length, start) = *self.by_length.range((bytes, 0)..).next()?;
        self.remove(start, length);
        if length > bytes {
            self.insert(start + bytes, length - bytes);
        }
        Some(start)
    }

    /// Frees a range.
    pub(super) fn put(&mut self, mut start: usize, mut length: usize) {
        if let Some((before, size)) = self.by_start.range(..start).next_back().map(|(s, l)| (*s, *l))
            && before + size == start
        {
            self.remove(before, size);
            (start, length) = (before, length + size);
        }
        if let Some(size) = self.by_start.get(&(start + length)).copied() {
            self.remove(start + length, size);
            length += size;
        }
        self.insert(start, length);
    }

    /// Takes the range that ends at `end`, if there is one: its start.
    pub(super) fn take_last(&mut self, end: usize) -> Option<usize> {
        let (start, length) = self.by_start.last_key_value().map(|(s, l)| (*s, *l))?;
        (start + length == end).then(|| {
            self.remove(start, length);
            start
        })
    }

    fn insert(&mut self, start: usize, length: usize) {
        self.by_start.insert(start, length);
        self.by_length.insert((length, start));
    }

    fn remove(&mut self, start: usize, length: usize) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_range_that_fits_is_taken_the_lowest_of_equals() {
        let mut free = Free::default();
        for (start, length) in [(0, 40), (100, 12), (200, 11), (300, 12)] {
            free.put(start, length);
        }
        assert_eq!([12, 10, 12, 2].map(|bytes| free.take(bytes)), [Some(100), Some(200), Some(300), Some(0)]);
        assert_eq!((free.take(39), free.take(38)), (None, Some(2)));
        assert_eq!(free.take(1), Some(210), "what is left of a range stays free");
    }

    #[test]
    fn neighbours_grow_together() {
        let mut free = Free::default();
        for start in [0, 20, 10] {
            free.put(start, 10);
        }
        assert_eq!(free.take_last(29), None);
        assert_eq!(free.take_last(30), Some(0));
        assert_eq!(free.take(1), None);
    }
}
