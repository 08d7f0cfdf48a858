//! How alike tokens became as a run went on (`probe_every`): curves over training for `sibo
//! report`.

use crate::record::PROBE;
use serde_json::Value;
use sibo_report::{Axis, Block, Cell, Column, HeatMap, LineChart, Series, Table, Tone};

/// What a run saw of its tokens.
pub(crate) struct Looks {
    name: String,
    tone: Tone,
    /// Step by step.
    records: Vec<Value>,
}

impl Looks {
    /// Those among a run's lines; none where it was not told to look.
    pub(crate) fn of(name: &str, tone: Tone, lines: &[Value]) -> Option<Looks> {
        let records: Vec<Value> = lines.iter().filter(|r| r["kind"] == PROBE).cloned().collect();
        (!records.is_empty()).then(|| Looks { name: name.into(), tone, records })
    }

    /// A measure of the last layer over steps.
    fn last(&self, key: &str) -> Vec<(f64, f64)> {
        let point = |r: &Value| Some((r["step"].as_f64()?, r[key].as_array()?.last()?.as_f64()?));
        self.records.iter().filter_map(point).collect()
    }

    fn ends(&self, key: &str) -> [Option<f64>; 2] {
        let points = self.last(key);
        [points.first().map(|p| p.1), points.last().map(|p| p.1)]
    }
}

/// The last layer of each run, at the first look and at the last.
pub(crate) fn table(all: &[Looks]) -> Table {
    let mut table = Table::new("Tokens of the last layer as the run went on")
        .column(Column::text("run"))
        .column(Column::number("looks", 0))
        .column(Column::number("mean cosine, first", 3))
        .column(Column::number("last", 3))
        .column(Column::number("|x|, first", 2))
        .column(Column::number("last", 2))
        .column(Column::number("share of h0, first", 3))
        .column(Column::number("last", 3));
    for looks in all {
        let mut row = vec![looks.name.as_str().into(), Cell::Number(looks.records.len() as f64)];
        for key in ["similarity", "x_norm", "h0_share"] {
            row.extend(looks.ends(key).map(|v| v.map_or(Cell::Missing, Cell::Number)));
        }
        table.push(row);
    }
    table
}

/// Table, curves of the last layer, and for each run the similarity of every layer at every look.
pub(crate) fn blocks(all: &[Looks]) -> Vec<Block> {
    let chart = |title: &str, key: &str, axis: &str| {
        let series = all.iter().map(|looks| Series::new(looks.name.clone(), looks.tone, looks.last(key)));
        Block::from(LineChart {
            title: title.into(),
            caption: "The same validation rows each time.".into(),
            x: Axis::new("optimiser step", 0),
            y: Axis::new(axis, 3),
            series: series.collect(),
            band: None,
        })
    };
    let mut blocks = vec![
        table(all).into(),
        chart("Token similarity over training", "similarity", "mean cosine of a row's tokens, last layer"),
        chart("Size of a token's state over training", "x_norm", "mean norm, last layer"),
        chart("What is left of h0 over training", "h0_share", "least-squares coefficient on h0, last layer"),
    ];
    blocks.extend(all.iter().map(|looks| heat(looks).into()));
    blocks
}

fn heat(looks: &Looks) -> HeatMap {
    let numbers = |r: &Value| -> Vec<f64> {
        let all = r["similarity"].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().filter_map(Value::as_f64).collect()
    };
    let values: Vec<Vec<f64>> = looks.records.iter().map(numbers).collect();
    HeatMap {
        title: format!("Token similarity, step by layer: {}", looks.name),
        caption: String::new(),
        column_title: "layer".into(),
        columns: (0..values.first().map_or(0, Vec::len)).map(|l| l.to_string()).collect(),
        row_title: "step".into(),
        rows: looks.records.iter().map(|r| r["step"].to_string()).collect(),
        value_title: "mean cosine".into(),
        values,
        digits: 2,
        diverging: false,
    }
}
