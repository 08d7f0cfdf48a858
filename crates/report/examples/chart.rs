//! A line chart, given as JSON, as an SVG that stands alone: `cargo run -p sibo-report --example chart < chart.json`.
//! For the scripts of `bench`, so that plots have one home.

use sibo_report::LineChart;
use sibo_report::plot::{WIDE, stand_alone};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let chart: LineChart = serde_json::from_reader(std::io::stdin())?;
    println!("{}", stand_alone(&chart, WIDE));
    Ok(())
}
