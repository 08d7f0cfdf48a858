//! One short operation in parts, done by the thread that asks for it and by those that are awake beside it. Handing it
//! over takes a store and a load between two cores, where a task of the pool takes some microseconds: as long as the
//! operation itself, when one token is computed.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The parts of an operation.
#[derive(Clone, Copy)]
struct Work {
    parts: usize,
    part: *const (dyn Fn(usize) + Sync),
}

/// Where the operations of one thread, the owner, are handed over.
#[derive(Default)]
pub(super) struct Crew {
    /// Odd while an operation is open; only the owner changes it.
    turn: AtomicUsize,
    /// Threads that look at `work`, or did so a moment ago.
    inside: AtomicUsize,
    /// The next part that nobody has taken.
    next: AtomicUsize,
    work: UnsafeCell<Option<Work>>,
    failed: AtomicBool,
    /// What a part that panicked elsewhere said.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `work` is written by the owner alone while no operation is open, and others read it only while one is: they
// announce themselves by `inside` before they look whether it is still open, the owner closes it before it looks whether
// somebody is inside, and all four are sequentially consistent, so that one of the two sees the other. What it points to
// is `Sync` and lives until the owner has seen `inside` at zero.
unsafe impl Sync for Crew {}
// SAFETY: as above.
unsafe impl Send for Crew {}

/// Closes the operation and waits for those who are inside, also when a part of the owner's panics.
struct Open<'a>(&'a Crew);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.turn.fetch_add(1, Ordering::SeqCst);
        while self.0.inside.load(Ordering::SeqCst) > 0 {
            std::hint::spin_loop();
        }
    }
}

impl Crew {
    /// Does `part(i)` for every i below `parts`, each once. Only the owner may call it, and not from inside a part.
    pub(super) fn share(&self, parts: usize, part: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime is lengthened, and `Open` keeps everybody within it.
        let part =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(part) };
        debug_assert!(self.turn.load(Ordering::Relaxed).is_multiple_of(2), "one operation inside another");
        // SAFETY: no operation is open, and this thread is the only one that opens any.
        unsafe { *self.work.get() = Some(Work { parts, part }) };
        self.next.store(0, Ordering::Relaxed);
        // One may be left of an operation in which the owner's part panicked too.
        self.failed.store(false, Ordering::Relaxed);
        self.turn.fetch_add(1, Ordering::SeqCst);
        let open = Open(self);
        self.take(Work { parts, part });
        drop(open);
        if self.failed.swap(false, Ordering::AcqRel) {
            let said = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
            resume_unwind(said.unwrap_or_else(|| Box::new("a part of an operation panicked")));
        }
    }

    /// Helps with the operation that is open, if there is one after `seen`, which is updated; whether there was.
    pub(super) fn help(&self, seen: &mut usize) -> bool {
        let turn = self.turn.load(Ordering::Relaxed);
        if turn == *seen || turn.is_multiple_of(2) {
            return false;
        }
        *seen = turn;
        self.inside.fetch_add(1, Ordering::SeqCst);
        if self.turn.load(Ordering::SeqCst) == turn {
            // SAFETY: the operation was open after this thread had announced itself.
            let work = unsafe { *self.work.get() };
            let done =
                catch_unwind(AssertUnwindSafe(|| self.take(work.expect("an open operation has parts"))));
            if let Err(said) = done {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
                self.failed.store(true, Ordering::Release);
            }
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
        true
    }

    fn take(&self, work: Work) {
        // SAFETY: the operation is open, or this is the owner: what it points to lives.
        let part = unsafe { &*work.part };
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= work.parts {
                break;
            }
            part(i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Runs `owner` while some threads help.
    fn with_helpers<R>(helpers: usize, owner: impl FnOnce(&Crew) -> R) -> R {
        let crew = Arc::new(Crew::default());
        let over = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..helpers)
            .map(|_| {
                let (crew, over) = (crew.clone(), over.clone());
                std::thread::spawn(move || {
                    let mut seen = 0;
                    while !over.load(Ordering::Acquire) {
                        if !crew.help(&mut seen) {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let done = catch_unwind(AssertUnwindSafe(|| owner(&crew)));
        over.store(true, Ordering::Release);
        for thread in threads {
            thread.join().expect("a helper survives what its part does");
        }
        done.unwrap_or_else(|said| resume_unwind(said))
    }

    /// Every part once, whoever comes and goes, and nobody touches an operation that is over.
    #[test]
    fn every_part_is_done_once() {
        for helpers in [0, 1, 3] {
            with_helpers(helpers, |crew| {
                for round in 0..2000 {
                    let parts = round % 7;
                    let done: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                    crew.share(parts, &|i| {
                        done[i].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(
                        done.iter().all(|d| d.load(Ordering::Relaxed) == 1),
                        "{helpers} helpers, round {round}"
                    );
                }
            });
        }
    }

    #[test]
    fn a_part_that_panics_is_heard_of_and_the_next_operation_runs() {
        for helpers in [0, 2] {
            with_helpers(helpers, |crew| {
                for bad in 0..40 {
                    // The next one too, so that two threads may panic in one operation.
                    let share = || crew.share(40, &|i| assert!(!(bad..bad + 2).contains(&i), "part {i}"));
                    assert!(catch_unwind(AssertUnwindSafe(share)).is_err(), "{helpers} helpers, part {bad}");
                    let done = AtomicUsize::new(0);
                    crew.share(9, &|i| {
                        done.fetch_add(i, Ordering::Relaxed);
                    });
                    assert_eq!(done.into_inner(), 36);
                }
            });
        }
    }
}
