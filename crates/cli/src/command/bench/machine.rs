//! `sibo bench machine`: the ceilings that a time is held against.

use crate::app::App;
use serde_json::json;
use sibo_kernels::peak;

/// Measure what this machine can do at most: multiplications a second, bytes read a second
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(Args {}: Args, app: &App) -> anyhow::Result<()> {
    let peak = peak::measure();
    let (isa, threads) = (sibo_kernels::isa::isa().name(), sibo_kernels::threads());
    if app.out.json() {
        let line = json!({
            "f32_gflops": peak.f32_gflops, "bf16_gflops": peak.bf16_gflops, "read_gbytes": peak.read_gbytes,
            "isa": isa, "threads": threads,
        });
        app.out.result(line.to_string());
        return Ok(());
    }
    app.out.result(format!(
        "{isa}, {threads} threads: {:.0} GFLOP/s in f32, {:.0} in bf16; {:.1} GB/s read from memory",
        peak.f32_gflops, peak.bf16_gflops, peak.read_gbytes
    ));
    Ok(())
}
