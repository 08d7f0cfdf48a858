//! One bar over all runs of a quickstart, with the time left.

use crate::output::Output;
use crate::progress::Meter;
use sibo_kernels::pool;
use sibo_train::events::Event;
use sibo_train::study::Place;
use std::cell::{Cell, RefCell};

/// Judging and looking at the tokens cost about as much as this share of a run's training.
const AFTER_TRAINING: f64 = 0.25;

/// Listens to the runs.
pub(super) struct Watch {
    meter: RefCell<Meter>,
    out: Output,
    /// Units of a run: its steps, and what comes after them.
    per_run: u64,
    /// Steps of a run.
    steps: u64,
    run: Cell<u64>,
    /// Most bytes that the numbers of each run's training held at a time, weights left out.
    peaks: RefCell<Vec<usize>>,
}

impl Watch {
    pub(super) fn new(out: Output, runs: u64, steps: u64) -> Self {
        let per_run = steps + (steps as f64 * AFTER_TRAINING) as u64;
        let meter = RefCell::new(Meter::new(out, runs * per_run, 0));
        Watch { meter, out, per_run, steps, run: Cell::new(0), peaks: RefCell::default() }
    }

    pub(super) fn event(&self, place: Place<'_>, event: &Event<'_>) {
        self.run.set(place.run as u64 - 1);
        let mut meter = self.meter.borrow_mut();
        match event {
            Event::Started(_) => {
                pool::reset_peak();
                meter.at(self.run.get() * self.per_run);
            }
            Event::Step(step) => {
                let Place { arm, seed, run, of } = place;
                meter.say(format!("run {run} of {of}: {arm}, seed {seed}, loss {:.3}", step.loss));
                meter.at(self.run.get() * self.per_run + step.step as u64);
            }
            Event::Finished(outcome) => {
                self.peaks.borrow_mut().push(pool::peak_bytes());
                let Place { arm, seed, .. } = place;
                let (time, rows) = (sibo_report::number::duration(outcome.seconds), outcome.steps);
                meter.note(format!("{arm}, seed {seed}: {rows} steps in {time}"));
            }
            _ => {}
        }
    }

    /// Training of the present run is over, and so many rows are judged.
    pub(super) fn judging(&self, rows: usize) {
        let mut meter = self.meter.borrow_mut();
        meter.say(format!("run {}: judging {rows} rows", self.run.get() + 1));
        meter.at(self.run.get() * self.per_run + self.steps);
    }

    /// Takes the bar away; the memory of each run.
    pub(super) fn finish(&self) -> Vec<usize> {
        self.meter.borrow().finish();
        self.out.note("");
        self.peaks.borrow().clone()
    }
}
