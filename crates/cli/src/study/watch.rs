//! One bar over all cells of a study, with the time left.

use crate::output::Output;
use crate::progress::Meter;
use sibo_report::number;
use sibo_train::cells::Now;
use sibo_train::events::Event;
use sibo_train::study::Place;

/// Parts of the bar that a cell has.
const PARTS: u64 = 1000;

/// The share of a cell that is training, before the first cell tells.
const TRAINING: f64 = 0.8;

/// Listens to the cells.
pub(super) struct Watch {
    meter: Meter,
    /// Steps of the present cell.
    steps: usize,
    /// Cells that were done in this process.
    done: usize,
}

impl Watch {
    /// For so many cells that are not done yet: those that are may lie between them.
    pub(super) fn new(out: Output, cells: usize) -> Self {
        Watch { meter: Meter::new(out, cells as u64 * PARTS, 0), steps: 1, done: 0 }
    }

    pub(super) fn hear(&mut self, place: Place<'_>, now: Now<'_>) {
        let Place { arm, seed, run, of } = place;
        match now {
            Now::Training(Event::Started(facts)) => {
                self.steps = facts.total_steps.max(1);
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
            Now::Done(_, true) => {}
            Now::Done(record, false) => {
                let value = record.judged.first().map(|j| format!("{} {:.4}", j.metric.name(), j.value));
                let (value, time) = (value.unwrap_or_default(), number::duration(record.seconds));
                self.meter
                    .note(format!("cell {run} of {of}: {arm}, seed {seed}: {value}, trained in {time}"));
                self.done += 1;
                self.at(0.0);
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
