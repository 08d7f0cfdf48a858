//! Where requests of the playground wait: the model answers one after the other, on the main thread.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Requests that may wait; a ninth is told to come back.
const MOST_WAITING: usize = 8;

/// A request under way, as the model's thread sees it.
pub(crate) struct Job<T> {
    /// What is asked.
    pub(super) ask: T,
    number: u64,
    said: Sender<String>,
    gone: Arc<AtomicBool>,
}

/// The same, as the connection sees it; dropping it withdraws the request.
pub(super) struct Ticket {
    number: u64,
    /// Events, each as its name and its data with a line break between them.
    pub(super) heard: Receiver<String>,
    gone: Arc<AtomicBool>,
}

/// The queue.
pub(crate) struct Desk<T> {
    waiting: Mutex<VecDeque<Job<T>>>,
    came: Condvar,
    next: AtomicU64,
    /// The number of the request that is being answered; 0 for none.
    now: AtomicU64,
}

impl<T> Desk<T> {
    pub(super) fn new() -> Self {
        Desk {
            waiting: Mutex::default(),
            came: Condvar::new(),
            next: AtomicU64::new(1),
            now: AtomicU64::new(0),
        }
    }

    /// Takes a request, unless too many wait.
    pub(super) fn put(&self, ask: T) -> Result<Ticket, String> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|job| !job.withdrawn());
        if waiting.len() >= MOST_WAITING {
            return Err(format!("{MOST_WAITING} requests wait already; try again when some are answered"));
        }
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let (said, heard) = channel();
        let gone = Arc::new(AtomicBool::new(false));
        waiting.push_back(Job { ask, number, said, gone: gone.clone() });
        self.came.notify_one();
        Ok(Ticket { number, heard, gone })
    }

    /// How many are before this one.
    pub(super) fn before(&self, ticket: &Ticket) -> usize {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now.load(Ordering::SeqCst);
        if now == ticket.number {
            return 0;
        }
        let earlier = waiting.iter().filter(|job| job.number < ticket.number && !job.withdrawn()).count();
        earlier + usize::from(now != 0)
    }

    /// The next request, within this time.
    pub(crate) fn take(&self, within: Duration) -> Option<Job<T>> {
        self.now.store(0, Ordering::SeqCst);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            waiting = self.came.wait_timeout(waiting, within).unwrap_or_else(PoisonError::into_inner).0;
        }
        let job = waiting.pop_front()?;
        self.now.store(job.number, Ordering::SeqCst);
        Some(job)
    }
}

impl<T> Job<T> {
    /// Whether nobody waits for the answer any more.
    pub(super) fn withdrawn(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Tells an event; where nobody hears it, the request counts as withdrawn.
    pub(super) fn tell(&self, event: &str, data: &serde_json::Value) {
        if self.said.send(format!("{event}\n{data}")).is_err() {
            self.gone.store(true, Ordering::SeqCst);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_answered_in_turn_and_may_be_withdrawn() {
        let desk = Desk::new();
        let first = desk.put('a').unwrap();
        let second = desk.put('b').unwrap();
        let third = desk.put('c').unwrap();
        assert_eq!((desk.before(&first), desk.before(&third)), (0, 2));
        let job = desk.take(Duration::ZERO).unwrap();
        assert_eq!((job.ask, desk.before(&first), desk.before(&third)), ('a', 0, 2));
        job.tell("piece", &json!({"text": "x\ny"}));
        assert_eq!(first.heard.try_recv().unwrap(), "piece\n{\"text\":\"x\\ny\"}");
        drop(second);
        assert_eq!(desk.before(&third), 1);
        assert!(desk.take(Duration::ZERO).unwrap().withdrawn());
        let job = desk.take(Duration::ZERO).unwrap();
        assert_eq!((job.ask, job.withdrawn()), ('c', false));
        drop(third);
        assert!(job.withdrawn());
        assert!(desk.take(Duration::ZERO).is_none());
    }

    #[test]
    fn the_queue_has_an_end() {
        let desk = Desk::new();
        let held: Vec<Ticket> = (0..MOST_WAITING).map(|n| desk.put(n).unwrap()).collect();
        assert!(desk.put(99).err().unwrap().starts_with("8 requests wait already"));
        drop(held);
        assert!(desk.put(99).is_ok());
    }
}
