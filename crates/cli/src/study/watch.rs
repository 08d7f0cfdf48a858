//! One bar over all cells of a study, with the time left.

use crate::output::Output;
use crate::progress::Meter;
use sibo_report::number;
use sibo_train::cells::Now;
use sibo_train::events::Event;
use sibo_train::study::Place;
use std::collections::BTreeMap;

/// Parts of the bar that a cell has.
const PARTS: u64 = 1000;

/// The share of a cell that is training, before the first cell tells.
const TRAINING: f64 = 0.8;

/// A cell under way.
struct UnderWay {
    steps: usize,
    /// The part of it that is done.
    share: f64,
    text: String,
}

/// Listens to the cells.
pub(super) struct Watch {
    meter: Meter,
    /// By number; several with `--jobs`.
    under_way: BTreeMap<usize, UnderWay>,
    /// Cells that were done in this process.
    done: usize,
}

impl Watch {
    /// For so many cells that are not done yet: those that are may lie between them.
    pub(super) fn new(out: Output, cells: usize) -> Self {
        Watch { meter: Meter::new(out, cells as u64 * PARTS, 0), under_way: BTreeMap::new(), done: 0 }
    }

    pub(super) fn hear(&mut self, place: Place<'_>, now: Now<'_>) {
        let Place { arm, seed, run, of } = place;
        let own = self.under_way.entry(run).or_insert(UnderWay { steps: 1, share: 0.0, text: String::new() });
        match now {
            Now::Training(Event::Started(facts)) => {
                own.steps = facts.total_steps.max(1);
                if let Some(step) = facts.resumed_at {
                    self.meter.note(format!("{arm}, seed {seed}: going on after step {step}"));
                }
            }
            Now::Training(Event::Step(step)) => {
                own.text = format!("{arm}, seed {seed}, loss {:.3}", step.loss);
                own.share = TRAINING * step.step as f64 / own.steps as f64;
                self.show(of);
            }
            Now::Training(_) => {}
            Now::Judging(task, rows, all) => {
                own.text = format!("{arm}, seed {seed}, judging by {task}");
                own.share = TRAINING + (1.0 - TRAINING) * rows as f64 / all.max(1) as f64;
                self.show(of);
            }
            Now::Done(record, before) => {
                self.under_way.remove(&run);
                if before {
                    return;
                }
                let value = record.judged.first().map(|j| format!("{} {:.4}", j.metric.name(), j.value));
                let time = number::duration(record.seconds);
                let end = match &record.diverged {
                    Some(why) => format!("diverged after {time}: {why}"),
                    None => format!("{}, trained in {time}", value.unwrap_or_default()),
                };
                self.meter.note(format!("cell {run} of {of}: {arm}, seed {seed}: {end}"));
                self.done += 1;
                self.show(of);
            }
        }
    }

    /// `cell 2 of 8: lora, seed 1, loss 1.306`, or all that are under way.
    fn show(&mut self, of: usize) {
        let texts: Vec<String> =
            self.under_way.iter().map(|(run, cell)| format!("{run} of {of}: {}", cell.text)).collect();
        if !texts.is_empty() {
            self.meter.say(format!("cell {}", texts.join(" | ")));
        }
        let share: f64 = self.under_way.values().map(|cell| cell.share).sum();
        self.meter.at(self.done as u64 * PARTS + (share * PARTS as f64) as u64);
    }

    pub(super) fn finish(&self) {
        self.meter.finish();
    }
}
