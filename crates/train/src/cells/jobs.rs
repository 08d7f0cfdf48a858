//! The cells of a study, one after the other or several at a time.

use super::run::{Now, Watch, run};
use super::sources::Found;
use super::{Cell, Log};
use crate::memory::MemoryPlan;
use crate::study::Place;
use crate::{Error, prepare};
use sibo_kernels::isa;
use sibo_model::Model;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Runs every cell that `log` does not hold, `jobs` at a time, below `folder`; false when the interruption came first.
///
/// Each of several cells at a time has its share of the threads, which changes no bit of a result; lines of the log
/// come in the order in which cells end. After an error the cells under way are still finished, and no other begins.
///
/// # Errors
/// A cell that fails; a finished one whose model or rows are other ones now; another process in the folder.
pub fn run_all(
    cells: &[Cell],
    folder: &Path,
    now: i64,
    log: &mut Log,
    watch: Watch<'_>,
    interrupt: &AtomicBool,
    jobs: usize,
) -> Result<bool, Error> {
    // Two processes in one study would write over each other's lines and run folders.
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create the folder", e))?;
    let _held = sibo_files::hold(folder)?;
    log.reload()?;
    let sources = log.sources(cells)?;
    let waiting = waiting(cells, log, watch);
    let jobs = jobs.clamp(1, waiting.len().max(1));
    let threads = isa::threads();
    let work = Work {
        cells,
        sources,
        folder,
        now,
        interrupt,
        waiting: Mutex::new(waiting),
        log: Mutex::new(log),
        watch: Mutex::new(watch),
        failure: Mutex::new(None),
    };
    match jobs {
        1 => work.go_on(),
        _ => std::thread::scope(|scope| {
            for job in 0..jobs {
                let own = threads / jobs + usize::from(job < threads % jobs);
                let work = &work;
                scope.spawn(move || isa::on_threads(own, || work.go_on()));
            }
        }),
    }
    let Work { log, failure, .. } = work;
    match lock(&failure).take() {
        Some(error) => Err(error),
        None => Ok(cells.iter().all(|cell| lock(&log).find(cell).is_some())),
    }
}

/// Cells that are not done, in order; those of one training together, for they share its folder.
fn waiting(cells: &[Cell], log: &Log, watch: Watch<'_>) -> VecDeque<Vec<usize>> {
    let mut groups: VecDeque<(String, Vec<usize>)> = VecDeque::new();
    for (at, cell) in cells.iter().enumerate() {
        if let Some(record) = log.find(cell) {
            watch(place(cells, at), Now::Done(record, true));
            continue;
        }
        let training = cell.training();
        match groups.iter_mut().find(|(own, _)| *own == training) {
            Some((_, group)) => group.push(at),
            None => groups.push_back((training, vec![at])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

fn place(cells: &[Cell], at: usize) -> Place<'_> {
    Place { arm: &cells[at].arm, seed: cells[at].recipe.seed, run: at + 1, of: cells.len() }
}

/// What the threads share.
struct Work<'a, 'w> {
    cells: &'a [Cell],
    /// What each of them is made from.
    sources: Vec<Vec<Found>>,
    folder: &'a Path,
    now: i64,
    interrupt: &'a AtomicBool,
    waiting: Mutex<VecDeque<Vec<usize>>>,
    log: Mutex<&'a mut Log>,
    watch: Mutex<Watch<'w>>,
    failure: Mutex<Option<Error>>,
}

impl Work<'_, '_> {
    /// Takes cells until none is left, one fails, or the interruption comes.
    fn go_on(&self) {
        while let Some(group) = self.next() {
            for at in group {
                match self.one(at) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        lock(&self.failure).get_or_insert(error);
                        return;
                    }
                }
            }
        }
    }

    fn next(&self) -> Option<Vec<usize>> {
        let ends = self.interrupt.load(Ordering::Relaxed) || lock(&self.failure).is_some();
        if ends { None } else { lock(&self.waiting).pop_front() }
    }

    /// One cell; false when the interruption came.
    fn one(&self, at: usize) -> Result<bool, Error> {
        let (cell, place) = (&self.cells[at], place(self.cells, at));
        // The same cell twice in one list is done once.
        if lock(&self.log).find(cell).is_some() {
            return Ok(true);
        }
        let mut tell = |now: Now<'_>| (lock(&self.watch))(place, now);
        let sources = &self.sources[at];
        let failed =
            |error| Error::Cell { arm: cell.arm.clone(), seed: cell.recipe.seed, error: Box::new(error) };
        let done = run(cell, sources, self.folder, self.now, &mut tell, self.interrupt);
        let Some(record) = done.map_err(failed)? else { return Ok(false) };
        let mut log = lock(&self.log);
        log.add(record)?;
        if let Some(record) = log.find(cell) {
            (lock(&self.watch))(place, Now::Done(record, false));
        }
        Ok(true)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked takes the whole study down with it; until then nothing is half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many cells are run at a time, and the sentence about it where that is fewer than was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jobs {
    /// One at least.
    pub jobs: usize,
    /// Why not more.
    pub reason: Option<String>,
}

/// How many of `wanted` cells at a time the threads and the memory of this machine hold, of those that `log` lacks.
/// Each loads its own weights; `base` is the model that all of them are adapters of.
pub fn room(cells: &[Cell], log: &Log, wanted: usize, base: &Model, now: i64) -> Result<Jobs, Error> {
    let missing: Vec<&Cell> = cells.iter().filter(|c| log.find(c).is_none()).collect();
    let useful = wanted.clamp(1, missing.len().max(1));
    let threads = isa::threads();
    if useful > threads {
        let reason = format!("{threads} cells at a time, not {wanted}: there are {threads} threads");
        return memory(&missing, threads, base, now, Some(reason));
    }
    memory(&missing, useful, base, now, None)
}

fn memory(
    missing: &[&Cell],
    wanted: usize,
    base: &Model,
    now: i64,
    reason: Option<String>,
) -> Result<Jobs, Error> {
    let (Some(first), true) = (missing.first(), wanted > 1) else { return Ok(Jobs { jobs: 1, reason }) };
    let rows = prepare::prepare(&first.recipe, &first.places, now)?.train;
    // Seeds change no size.
    let mut kinds: BTreeMap<String, &Cell> = BTreeMap::new();
    for cell in missing {
        kinds.insert(format!("{}{:?}", cell.recipe.adapter.to_json(), cell.recipe.training), cell);
    }
    let (mut largest, mut beside, mut available) = (0, 0, None);
    for cell in kinds.into_values() {
        let mut model = base.clone();
        prepare::attach(&mut model, &cell.recipe.adapter, &cell.recipe.model, cell.recipe.seed)?;
        let plan = MemoryPlan::of(&model, &rows, &cell.recipe.training)?;
        largest = largest.max(plan.total() - plan.program);
        (beside, available) = (plan.program, plan.available);
    }
    let fits = available.map_or(wanted, |bytes| held_by(bytes, beside, largest));
    if fits >= wanted {
        return Ok(Jobs { jobs: wanted, reason });
    }
    let mib = |bytes: u64| bytes >> 20;
    let reason = format!(
        "{fits} at a time, not {wanted}: a cell takes up to {} MiB, and {} MiB are free",
        mib(largest),
        mib(available.unwrap_or(0).saturating_sub(beside))
    );
    Ok(Jobs { jobs: fits, reason: Some(reason) })
}

/// How many cells of `largest` bytes there is room for, one at least: the cell's own plan judges whether it fits.
fn held_by(available: u64, beside: u64, largest: u64) -> usize {
    let free = available.saturating_sub(beside);
    usize::try_from(free / largest.max(1)).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_holds_as_many_cells_as_fit_and_one_at_least() {
        assert_eq!(held_by(10_000, 1_000, 2_500), 3);
        assert_eq!(held_by(10_000, 1_000, 9_001), 1);
        assert_eq!(held_by(1_000, 10_000, 5), 1);
    }
}
