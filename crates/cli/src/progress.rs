//! How far a long work is: a bar with the time left on a terminal, now and then a line elsewhere.

use crate::output::Output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sibo_report::number;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two lines where there is no terminal: a log should not be all progress.
const QUIET_SPELL: Duration = Duration::from_secs(20);

/// The progress of one work of known size.
pub(crate) struct Meter {
    bar: ProgressBar,
    out: Output,
    /// Lines instead of a bar.
    lines: bool,
    begun: Instant,
    said: Instant,
    done: u64,
    total: u64,
    /// Units that were done before this process began.
    skipped: u64,
    message: String,
}

impl Meter {
    /// A work of `total` units, of which `skipped` are done already.
    pub(crate) fn new(out: Output, total: u64, skipped: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = match terminal && !out.quiet() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_position(skipped);
        bar.set_style(style());
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        let now = Instant::now();
        Meter {
            bar,
            out,
            lines: !terminal,
            begun: now,
            said: now,
            done: skipped,
            total,
            skipped,
            message: String::new(),
        }
    }

    /// Now `done` units are done.
    pub(crate) fn at(&mut self, done: u64) {
        self.done = done;
        self.bar.set_position(done);
        self.bar.set_prefix(self.time_left());
        if self.lines && self.said.elapsed() >= QUIET_SPELL {
            self.line();
        }
    }

    /// What is being done.
    pub(crate) fn say(&mut self, message: impl Into<String>) {
        self.message = message.into();
        self.bar.set_message(self.message.clone());
    }

    /// A line that stays, above the bar.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        self.bar.suspend(|| self.out.note(text));
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&mut self) {
        self.said = Instant::now();
        let share = 100.0 * self.done as f64 / self.total.max(1) as f64;
        self.out.note(format!("{share:3.0} %  {}{}", self.message, self.time_left()));
    }

    /// `, 3 min 05 s left`, once it can be told.
    fn time_left(&self) -> String {
        match time_left(self.begun.elapsed(), self.done - self.skipped, self.total.saturating_sub(self.done))
        {
            Some(left) => format!(", {} left", number::duration(left.as_secs_f64())),
            None => String::new(),
        }
    }
}

/// By the mean speed so far; nothing before two seconds have passed.
fn time_left(elapsed: Duration, done: u64, left: u64) -> Option<Duration> {
    if done == 0 || elapsed < Duration::from_secs(2) {
        return None;
    }
    let seconds = elapsed.as_secs_f64() * left as f64 / done as f64;
    Some(Duration::try_from_secs_f64(seconds).ok()?.max(Duration::from_secs(1)))
}

fn style() -> ProgressStyle {
    // The template is ours and known to be one.
    ProgressStyle::with_template("{bar:20} {percent:>3} %{prefix}  {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_the_mean_speed() {
        let seconds = Duration::from_secs;
        assert_eq!(time_left(seconds(30), 3, 7), Some(seconds(70)));
        assert_eq!(time_left(seconds(30), 0, 7), None);
        assert_eq!(time_left(seconds(1), 3, 7), None);
    }
}
