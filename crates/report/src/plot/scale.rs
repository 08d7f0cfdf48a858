//! From values to pixels, and the round numbers that label an axis.

use crate::number::{compact, fixed};
use serde::{Deserialize, Serialize};

/// How values are spread along an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Equal steps are equal lengths.
    #[default]
    Linear,
    /// Equal ratios are equal lengths; values that are not above zero are left out.
    Log,
}

/// A mapped axis: value range, pixel range, ticks.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    scale: Scale,
    low: f64,
    high: f64,
    start: f64,
    end: f64,
    /// Values at the ticks with their labels.
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Mapping {
    /// Maps the range of `values` to pixels `start..end` with about `wanted` ticks; the range is
    /// widened to the outer ticks where `round` is set. Where `whole` is set, no tick stands between whole numbers:
    /// there is no layer 2.5.
    pub(crate) fn new(
        scale: Scale,
        range: (f64, f64),
        (start, end): (f64, f64),
        wanted: usize,
        round: bool,
        whole: bool,
    ) -> Self {
        let (mut low, mut high) = widened(range, scale);
        let ticks = match scale {
            Scale::Linear => {
                let step = nice_step((high - low) / wanted.max(1) as f64);
                let step = if whole { whole_step(step) } else { step };
                if round {
                    low = (low / step + 1e-9).floor() * step;
                    high = (high / step - 1e-9).ceil() * step;
                }
                linear_ticks(low, high, step)
            }
            Scale::Log => {
                if round {
                    low = 10f64.powf(low.log10().floor());
                    high = 10f64.powf(high.log10().ceil());
                }
                log_ticks(low, high)
            }
        };
        Self { scale, low, high, start, end, ticks }
    }

    /// The pixel of `value`; `None` where the axis cannot show it.
    pub(crate) fn place(&self, value: f64) -> Option<f64> {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.log10() - self.low.log10()) / (self.high.log10() - self.low.log10()),
        };
        part.is_finite().then_some(self.start + part * (self.end - self.start))
    }
}

/// Smallest and largest of the finite `values` that `scale` can show.
pub(crate) fn extent(values: impl Iterator<Item = f64>, scale: Scale) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite() && (scale == Scale::Linear || *v > 0.0)).fold(
        None,
        |range, v| match range {
            None => Some((v, v)),
            Some((low, high)) => Some((v.min(low), v.max(high))),
        },
    )
}

/// A range with some length, whatever was given.
fn widened((low, high): (f64, f64), scale: Scale) -> (f64, f64) {
    let (low, high) = if low <= high { (low, high) } else { (high, low) };
    if !(low.is_finite() && high.is_finite()) {
        return if scale == Scale::Linear { (0.0, 1.0) } else { (0.1, 1.0) };
    }
    if scale == Scale::Log {
        let low = low.max(f64::MIN_POSITIVE * 1e6);
        return if high > low * 1.000_001 { (low, high) } else { (low / 3.0, low * 3.0) };
    }
    // Below this relative length the ticks' labels could not be told apart.
    let least = low.abs().max(high.abs()) * 1e-6;
    if high - low > least {
        return (low, high);
    }
    let room = if low == 0.0 { 1.0 } else { low.abs() * 0.05 };
    (low - room, high + room)
}

/// The round number (1, 2, 2.5 or 5 times a power of ten) next above `rough`.
fn nice_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let lead = rough / power;
    let nice = [1.0, 2.0, 2.5, 5.0].into_iter().find(|n| lead <= n * 1.000_001);
    nice.unwrap_or(10.0) * power
}

/// A step that leads from whole number to whole number.
fn whole_step(step: f64) -> f64 {
    match step {
        s if s <= 1.0 => 1.0,
        s if (s - s.round()).abs() > 1e-9 => 5.0,
        s => s,
    }
}

fn linear_ticks(low: f64, high: f64, step: f64) -> Vec<(f64, String)> {
    let first = (low / step - 1e-9).ceil();
    let count = ((high / step + 1e-9).floor() - first).clamp(0.0, 50.0) as usize;
    let digits = decimals(step);
    let large = low.abs().max(high.abs()) >= 1e7;
    (0..=count)
        .map(|i| {
            let value = (first + i as f64) * step;
            // Labels of very small steps and very large values would run over their place.
            let plain = digits <= 6 && !large;
            (value, if plain { fixed(value, digits) } else { compact(value) })
        })
        .collect()
}

/// Decimals that a multiple of `step` needs.
fn decimals(step: f64) -> usize {
    let mut digits = 0;
    let mut scaled = step;
    while (scaled - scaled.round()).abs() > scaled * 1e-6 && digits < 12 {
        scaled *= 10.0;
        digits += 1;
    }
    digits
}

fn log_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let leads: &[f64] = match last - first {
        ..=2 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let every = ((last - first) / 8 + 1).max(1);
    let mut ticks = Vec::new();
    for power in (first..=last).filter(|p| (p - first) % every == 0) {
        for lead in leads {
            let value = lead * 10f64.powi(power);
            if value >= low * 0.999_999 && value <= high * 1.000_001 {
                ticks.push((value, compact(value)));
            }
        }
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(range: (f64, f64), wanted: usize) -> Vec<String> {
        let mapping = Mapping::new(Scale::Linear, range, (0.0, 100.0), wanted, true, false);
        mapping.ticks.into_iter().map(|t| t.1).collect()
    }

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        assert_eq!(labels((0.613, 0.872), 5), ["0.6", "0.7", "0.8", "0.9"]);
        assert_eq!(labels((0.0, 117.0), 4), ["0", "50", "100", "150"]);
        assert_eq!(labels((-0.031, 0.012), 4), ["-0.04", "-0.02", "0.00", "0.02"]);
        assert_eq!(labels((0.0, 9.7), 4), ["0.0", "2.5", "5.0", "7.5", "10.0"]);
    }

    #[test]
    fn whole_numbers_have_no_halves_between_them() {
        let labels = |range, wanted, round| {
            let mapping = Mapping::new(Scale::Linear, range, (0.0, 100.0), wanted, round, true);
            mapping.ticks.into_iter().map(|t| t.1).collect::<Vec<_>>()
        };
        assert_eq!(labels((0.0, 3.0), 8, false), ["0", "1", "2", "3"]);
        assert_eq!(labels((0.0, 9.7), 4, false), ["0", "5"]);
        assert_eq!(labels((0.2, 0.9), 5, true), ["0", "1"]);
        assert_eq!(labels((0.0, 100.0), 4, true), ["0", "25", "50", "75", "100"]);
    }

    #[test]
    fn no_range_is_too_strange() {
        for range in [(3.0, 3.0), (0.0, 0.0), (f64::NAN, 1.0), (5.0, -5.0), (1e300, 1e300)] {
            for scale in [Scale::Linear, Scale::Log] {
                let mapping = Mapping::new(scale, range, (0.0, 100.0), 5, true, false);
                assert!(!mapping.ticks.is_empty(), "{range:?} {scale:?}");
                assert!(mapping.ticks.len() < 60, "{range:?} {scale:?}");
            }
        }
    }

    #[test]
    fn places_run_from_start_to_end() {
        let mapping = Mapping::new(Scale::Linear, (2.0, 6.0), (300.0, 20.0), 4, false, false);
        assert_eq!(mapping.place(2.0), Some(300.0));
        assert_eq!(mapping.place(3.0), Some(230.0));
        assert_eq!(mapping.place(f64::NAN), None);
        let log = Mapping::new(Scale::Log, (1e-4, 1e-2), (0.0, 80.0), 4, true, false);
        assert!((log.place(1e-3).unwrap() - 40.0).abs() < 1e-9);
        assert_eq!(log.place(0.0), None);
    }
}
