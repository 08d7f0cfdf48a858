//! One bar over all cells of a study, with the time left.

use crate::output::Output;
use crate::progress::Meter;
use sibo_report::number;
use sibo_train::cells::Now;
use sibo_train::events::Event;
use sibo_train::study::Place;
use std::time::Instant;

/// Parts of the bar that a cell has.
const PARTS: u64 = 1000;

/// The share of a cell that is training, before the first cell tells.
const TRAINING: f64 = 0.8;

/// Listens to the cells.
pub(super) struct Watch {
    meter: Meter,
    /// Steps of the present cell.
    steps: usize,
    /// Cells that are done, those of an earlier run too.
    done: usize,
    skipped: usize,
    began: Instant,
}

impl Watch {
    pub(super) fn new(out: Output, cells: usize, skipped: usize) -> Self {
        // Cells that are done already may lie between others: the bar counts those that are not.
        let total = (cells - skipped) as u64 * PARTS;
        Watch { meter: Meter::new(out, total, 0), steps: 1, done: 0, skipped, began: Instant::now() }
    }

    pub(super) fn hear(&mut self, place: Place<'_>, now: Now<'_>) {
        let Place { arm, seed, run, of } = place;
        match now {
            Now::Training(Event::Started(facts)) => {
                self.steps = facts.total_steps.max(1);
                self.began = Instant::now();
                if let Some(step) = facts.resumed_at {
                    self.meter.note(format!("{arm}, seed {seed}: going on after step {step}"));
                }
            }
            Now::Training(Event::Step(step)) => {
                self.meter.say(format!("cell {run} of {of}: {arm}, seed {seed}, loss {:.3}", step.loss));
                self.at(TRAINING * step.step as f64 / self.steps as f64);
            }
            Now::Training(_) => {}
            Now::Judging(task, rows, all) => {
                self.meter.say(format!("cell {run} of {of}: {arm}, seed {seed}, judging by {task}"));
                self.at(TRAINING + (1.0 - TRAINING) * rows as f64 / all.max(1) as f64);
            }
            Now::Done(record) => {
                // A cell of an earlier run is done at once, and is told by its number only.
                let value = record.judged.first().map(|j| format!("{} {:.4}", j.metric.name(), j.value));
                let fresh = self.began.elapsed().as_secs_f64() + 1.0 >= record.seconds && self.steps > 1;
                if fresh || self.skipped == 0 {
                    let time = number::duration(record.seconds);
                    let value = value.unwrap_or_default();
                    self.meter
                        .note(format!("cell {run} of {of}: {arm}, seed {seed}: {value}, trained in {time}"));
                    self.done += 1;
                    self.at(0.0);
                } else {
                    self.skipped -= 1;
                }
                self.steps = 1;
            }
        }
    }

    fn at(&mut self, share: f64) {
        self.meter.at(self.done as u64 * PARTS + (share * PARTS as f64) as u64);
    }

    pub(super) fn finish(&self) {
        self.meter.finish();
    }
}
