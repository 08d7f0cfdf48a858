//! Keeps the threads of the pool awake over a stretch of many short operations.
//!
//! A thread that finds no work for some microseconds goes to sleep, and waking it takes longer than an operation of one
//! token does. Between the operations of a step there is always more to come, so the threads look for it until it ends.
//! What `share` hands over they take without the pool's queues.

mod crew;

use crew::Crew;
use rayon::prelude::*;
use std::cell::RefCell;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long the other threads may take to come; where they are busy with something else, they are left to it.
const PATIENCE: Duration = Duration::from_millis(2);
/// Looks at what the owner hands over, for each look at the pool's queues, which takes much longer.
const GLANCES: usize = 32;
/// Looks in vain between two pauses in which another program may run.
const LOOKS: usize = 256;
/// Looks in vain after which the operations have stopped for longer than a token takes (whoever prints them waits): from
/// then on each pause is a sleep.
const MANY: usize = 256 * LOOKS;
const SLEEP: Duration = Duration::from_micros(200);

#[derive(Default)]
struct Watch {
    over: AtomicBool,
    there: AtomicUsize,
    crew: Crew,
}

thread_local! {
    /// The watch that this thread owns, outside the operations that it shares.
    static OWN: RefCell<Option<Arc<Watch>>> = const { RefCell::new(None) };
}

/// Puts back what was there, also when the work panics.
struct Own(Option<Arc<Watch>>);

impl Own {
    fn set(watch: Option<Arc<Watch>>) -> Own {
        Own(OWN.replace(watch))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        OWN.set(self.0.take());
    }
}

/// Whether [`share`] costs less than a microsecond.
pub(crate) fn is_cheap() -> bool {
    OWN.with_borrow(Option::is_some)
}

/// Does `part(i)` for every i below `parts`, each once, in any order: with the threads that are awake beside this one, or
/// as an operation of the pool.
pub(crate) fn share(parts: usize, part: impl Fn(usize) + Send + Sync) {
    match OWN.take() {
        Some(watch) => {
            // A part that shares is an operation of the pool.
            let own = Own(Some(watch.clone()));
            watch.crew.share(parts, &part);
            drop(own);
        }
        None => (0..parts).into_par_iter().for_each(part),
    }
}

/// Ends the watch, also when the work panics.
struct Over(Arc<Watch>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

/// Does `work`, which must not be part of a parallel operation, while the other threads of the pool stay awake for its
/// operations. Outside a pool, and with one thread, it is only done.
pub fn while_working<R>(work: impl FnOnce() -> R) -> R {
    let others = rayon::current_num_threads() - 1;
    let Some(own) = rayon::current_thread_index().filter(|_| others > 0) else { return work() };
    let watch = Arc::new(Watch::default());
    let over = Over(watch.clone());
    for _ in 0..others {
        let watch = watch.clone();
        rayon::spawn(move || look_for_work(&watch, own));
    }
    let start = Instant::now();
    // Whoever comes late finds the watch over: a thread that waits for a part of an operation must not begin one.
    while watch.there.load(Ordering::Acquire) < others {
        if start.elapsed() > PATIENCE {
            watch.over.store(true, Ordering::Release);
            break;
        }
        spin_loop();
    }
    let own = Own::set(Some(over.0.clone()));
    let done = work();
    drop(own);
    drop(over);
    done
}

fn look_for_work(watch: &Watch, owner: usize) {
    // The owner would wait for itself.
    if rayon::current_thread_index() == Some(owner) {
        return;
    }
    watch.there.fetch_add(1, Ordering::AcqRel);
    let (mut in_vain, mut seen): (usize, usize) = (0, 0);
    while !watch.over.load(Ordering::Acquire) {
        let helped = (0..GLANCES).any(|_| {
            spin_loop();
            watch.crew.help(&mut seen)
        });
        if helped || rayon::yield_now() == Some(rayon::Yield::Executed) {
            in_vain = 0;
            continue;
        }
        in_vain += 1;
        if in_vain > MANY {
            std::thread::sleep(SLEEP);
        } else if in_vain.is_multiple_of(LOOKS) {
            std::thread::yield_now();
        }
        spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started")
    }

    fn sum() -> usize {
        (0..1000usize).into_par_iter().map(|i| i * i).sum()
    }

    #[test]
    fn the_result_of_the_work_comes_back_from_any_number_of_threads() {
        let expected: usize = (0..1000).map(|i| i * i).sum();
        for threads in [1, 2, 5] {
            let rounds = || (0..50).map(|_| while_working(sum)).collect::<Vec<_>>();
            assert!(pool(threads).install(rounds).iter().all(|found| *found == expected), "{threads}");
        }
        assert_eq!(while_working(sum), expected, "outside a pool");
    }

    /// Each part once, with threads awake and without, and operations inside parts and of the pool between them.
    #[test]
    fn shared_parts_are_done_once() {
        let counted = |parts: usize| {
            let done: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
            share(parts, |i| {
                share(3, |_| {
                    done[i].fetch_add(1, Ordering::Relaxed);
                });
            });
            done.iter().all(|d| d.load(Ordering::Relaxed) == 3) && sum() == 332_833_500
        };
        for threads in [1, 2, 5] {
            let all = || (0..200).all(|round| counted(round % 9));
            assert!(pool(threads).install(|| while_working(all)), "{threads}");
            assert!(pool(threads).install(all), "{threads}, asleep");
            let cheap = || (is_cheap(), while_working(is_cheap), is_cheap());
            assert_eq!(pool(threads).install(cheap), (false, threads > 1, false));
        }
    }

    #[test]
    fn one_inside_another_and_one_that_panics_end() {
        let pool = pool(3);
        assert_eq!(pool.install(|| while_working(|| while_working(sum))), sum());
        let panics = || while_working(|| assert_eq!(sum(), 0, "never"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.install(panics))).is_err());
        assert_eq!(pool.install(|| while_working(sum)), sum(), "the threads are free again");
    }
}
