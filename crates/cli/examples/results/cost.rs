//! What SIBO costs, off the timings of `bench`: each workload on each machine with SIBO and without, interleaved.

use sibo_tasks::stats::{self, Interval};
use std::path::Path;

/// With SIBO / without, over workloads and machines.
pub(crate) struct Cost {
    /// Workloads, each on one machine.
    pub(crate) count: usize,
    pub(crate) machines: usize,
    pub(crate) time: Interval,
    pub(crate) memory: Interval,
}

/// The rows of every `results*.json` of a folder; none where they are too few for an interval.
pub(crate) fn read(bench: &Path) -> anyhow::Result<Option<Cost>> {
    let (mut time, mut memory, mut machines) = (Vec::new(), Vec::new(), 0);
    let mut files: Vec<_> =
        std::fs::read_dir(bench).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    for file in files {
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if !(name.starts_with("results") && name.ends_with(".json")) {
            continue;
        }
        let before = time.len();
        let value = sibo_files::json::read(&file)?;
        for row in crate::study::list(&value["rows"]) {
            let of = |key: &str| row["sibo"][key].as_f64();
            if let (Some(t), Some(m)) = (of("time_ratio"), of("memory_ratio")) {
                time.push(t.ln());
                memory.push(m.ln());
            }
        }
        machines += usize::from(time.len() > before);
    }
    // Ratios average as their logarithms do: 2 and 1/2 are no cost together.
    let interval = |logs: &[f64]| {
        let found = stats::mean_interval(logs, stats::LEVEL).ok()?;
        let Interval { estimate, low, high, level } = found;
        Some(Interval { estimate: estimate.exp(), low: low.exp(), high: high.exp(), level })
    };
    let cost = interval(&time).zip(interval(&memory));
    Ok(cost.map(|(t, m)| Cost { count: time.len(), machines, time: t, memory: m }))
}

/// The ratio up to which a cost is called marginal.
pub(crate) const MARGINAL: f64 = 1.01;

/// Whether a ratio is marginal.
pub(crate) fn verdict(ratio: &Interval) -> &'static str {
    match (ratio.high <= MARGINAL, ratio.low > MARGINAL) {
        (true, _) => "confirmed",
        (_, true) => "contradicted",
        _ => "not decidable from these timings",
    }
}
