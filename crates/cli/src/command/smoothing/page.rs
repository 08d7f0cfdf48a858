//! Tables, curves and the page of `sibo smoothing`.

use super::{Finding, System};
use crate::app;
use serde_json::{Value, json};
use sibo_report::{Axis, Block, Cell, Column, Document, Estimate, HeatMap, LineChart, Point, Series, Table};
use sibo_tasks::stats::{self, Interval, LEVEL};
use sibo_train::profile::{LayerProfile, Measure, SiteProfile};

/// A measure of a layer: how it is called, with how many decimals it is shown, and where it stands.
struct Shown {
    title: &'static str,
    axis: &'static str,
    digits: usize,
    of: fn(&LayerProfile) -> &Measure,
}

const SIMILARITY: Shown = Shown {
    title: "Token similarity by layer",
    axis: "mean cosine between the tokens of a sequence",
    digits: 3,
    of: |l| &l.similarity,
};

const SHOWN: [Shown; 6] = [
    SIMILARITY,
    Shown {
        title: "Token similarity about the common mean",
        axis: "mean cosine after the mean of all tokens is taken off",
        digits: 3,
        of: |l| &l.centred,
    },
    Shown {
        title: "Effective rank of a sequence's tokens",
        axis: "exp of the entropy of the singular values",
        digits: 1,
        of: |l| &l.effective_rank,
    },
    Shown { title: "Size of a token's state", axis: "mean norm", digits: 2, of: |l| &l.x_norm },
    Shown {
        title: "What is left of h0: direction",
        axis: "mean cosine of a token's state with its h0",
        digits: 3,
        of: |l| &l.h0_cosine,
    },
    Shown {
        title: "What is left of h0: amount",
        axis: "least-squares coefficient of h_l on h0",
        digits: 3,
        of: |l| &l.h0_share,
    },
];

fn estimate(interval: &Interval) -> Estimate {
    Estimate::between(interval.estimate, interval.low, interval.high)
}

/// Similarity of every system, layer by layer.
pub(super) fn similarity(f: &Finding) -> Table {
    by_layer(f, &SIMILARITY)
        .note("Layer 0 is what enters the first layer (h0). Intervals: 95 %, over sequences.")
}

fn by_layer(f: &Finding, shown: &Shown) -> Table {
    let mut table =
        Table::new(format!("{} ({})", shown.title, shown.axis)).column(Column::number("layer", 0));
    for system in &f.systems {
        table = table.column(Column::number(system.name.clone(), shown.digits));
    }
    for layer in 0..f.base().layers.len() {
        let cells = f.systems.iter().filter_map(|s| s.profile.layers.get(layer));
        let cells = cells.map(|l| Cell::Estimate(estimate(&(shown.of)(l).mean)));
        table.push([Cell::Number(layer as f64)].into_iter().chain(cells).collect());
    }
    table
}

/// All measures of one system, layer by layer.
pub(super) fn layers(system: &System) -> Table {
    let mut table = Table::new(format!("Every layer: {}", system.name))
        .column(Column::number("layer", 0))
        .column(Column::number("cosine", 3))
        .column(Column::number("centred", 3))
        .column(Column::number("rank", 1))
        .column(Column::number("|x|", 2))
        .column(Column::number("cosine with h0", 3))
        .column(Column::number("share of h0", 3));
    for layer in &system.profile.layers {
        let cells = SHOWN.iter().map(|shown| Cell::Number((shown.of)(layer).mean.estimate));
        table.push([Cell::Number(layer.layer as f64)].into_iter().chain(cells).collect());
    }
    table
}

/// Sizes of x and h0 where branches read.
pub(super) fn sites(system: &System) -> Table {
    let mut table = Table::new(format!("What branches read, by site: {}", system.name))
        .column(Column::number("layer", 0))
        .column(Column::text("site"))
        .column(Column::number("|x|", 2))
        .column(Column::number("|h0|", 2))
        .column(Column::number("|h0| / |x|", 3))
        .note(
            "Attention input: query, key, value. FFN input: the FFN's first linears, and adapters beside it. \
             After attention, after FFN: series adapters.",
        );
    for site in &system.profile.sites {
        table.push(vec![
            Cell::Number(site.layer as f64),
            site.site.into(),
            Cell::Estimate(estimate(&site.x_norm.mean)),
            Cell::Number(site.h0_norm.mean.estimate),
            Cell::Estimate(estimate(&site.ratio.mean)),
        ]);
    }
    table
}

/// |h0| / |x| in short: a row for each layer, a column for each kind of site.
pub(super) fn ratios(system: &System) -> Table {
    let names = site_names(&system.profile.sites);
    let mut table = Table::new(format!("|h0| / |x| where branches read: {}", system.name))
        .column(Column::number("layer", 0))
        .note(
            "Attention input: query, key, value. FFN input: the FFN's first linears, and adapters beside it. \
             After attention, after FFN: series adapters. Far below 1, mixing h0 in hardly changes what is read.",
        );
    for name in &names {
        table = table.column(Column::number(*name, 3));
    }
    for layer in 0..system.profile.layers.len() - 1 {
        let at = |name: &&str| system.profile.sites.iter().find(|s| s.layer == layer && s.site == *name);
        let cells =
            names.iter().map(|n| at(n).map_or(Cell::Missing, |s| Cell::Number(s.ratio.mean.estimate)));
        table.push([Cell::Number(layer as f64)].into_iter().chain(cells).collect());
    }
    table
}

/// The kinds of site, each once.
fn site_names(sites: &[SiteProfile]) -> Vec<&'static str> {
    let mut names = Vec::new();
    sites.iter().for_each(|s| {
        if !names.contains(&s.site) {
            names.push(s.site)
        }
    });
    names
}

fn chart(f: &Finding, shown: &Shown) -> LineChart {
    let point = |l: &LayerProfile| {
        let mean = (shown.of)(l).mean;
        Point { x: l.layer as f64, y: mean.estimate, range: Some((mean.low, mean.high)) }
    };
    let series = f.systems.iter().map(|s| {
        let points: Vec<Point> = s.profile.layers.iter().map(point).collect();
        Series::new(s.name.clone(), s.tone, points)
    });
    LineChart {
        title: shown.title.into(),
        caption: String::new(),
        x: Axis::new("layer (0 is what enters the first)", 0),
        y: Axis::new(shown.axis, shown.digits),
        series: series.collect(),
        band: Some("95 % interval over sequences".into()),
    }
}

fn heat(f: &Finding) -> HeatMap {
    let values = |s: &System| s.profile.layers.iter().map(|l| l.similarity.mean.estimate).collect();
    HeatMap {
        title: "Token similarity, model by layer".into(),
        caption: String::new(),
        column_title: "layer".into(),
        columns: (0..f.base().layers.len()).map(|l| l.to_string()).collect(),
        row_title: "model".into(),
        rows: f.systems.iter().map(|s| s.name.clone()).collect(),
        value_title: "mean cosine".into(),
        values: f.systems.iter().map(values).collect(),
        digits: 2,
        diverging: false,
    }
}

/// |h0| / |x| of the base: rows are kinds of site, columns layers.
fn site_heat(f: &Finding) -> HeatMap {
    let base = f.base();
    let mut names: Vec<&str> = Vec::new();
    base.sites.iter().for_each(|s| {
        if !names.contains(&s.site) {
            names.push(s.site)
        }
    });
    let layers = base.layers.len() - 1;
    let value = |name: &str, layer: usize| {
        let site = base.sites.iter().find(|s| s.site == name && s.layer == layer);
        site.map_or(f64::NAN, |s| s.ratio.mean.estimate)
    };
    HeatMap {
        title: "|h0| / |x| where branches read (base)".into(),
        caption: "Far below 1, mixing h0 in hardly changes what a branch reads.".into(),
        column_title: "layer".into(),
        columns: (0..layers).map(|l| l.to_string()).collect(),
        row_title: "site".into(),
        rows: names.iter().map(|n| n.to_string()).collect(),
        value_title: "|h0| / |x|".into(),
        values: names.iter().map(|n| (0..layers).map(|l| value(n, l)).collect()).collect(),
        digits: 2,
        diverging: false,
    }
}

/// What three decimals do not show: an adapter that has hardly trained moves every sequence a little, and surely.
const UNSEEN: f64 = 5e-4;

/// The last layer's similarity of each system beside the base's, on the same sequences.
pub(super) fn sentence(f: &Finding) -> String {
    let last = |s: &System| s.profile.layers.last().map(|l| l.similarity.clone());
    let Some(base) = last(&f.systems[0]) else { return String::new() };
    let first = &f.base().layers[0].similarity.mean;
    let mut text = format!(
        "Tokens of a sequence have a mean cosine of {:.3} at h0 and {:.3} in the last layer of the base.",
        first.estimate, base.mean.estimate
    );
    for system in f.systems.iter().skip(1) {
        let Some(own) = last(system) else { continue };
        let difference = stats::paired_t(&base.by_sequence, &own.by_sequence, LEVEL).map(|t| t.difference);
        let Ok(d) = difference else { continue };
        if d.low.abs().max(d.high.abs()) < UNSEEN {
            text.push_str(&format!(" With {} they are as alike as in the base, to {UNSEEN}.", system.name));
            continue;
        }
        let word = match (d.holds_zero(), d.estimate > 0.0) {
            (true, _) => "no different from the base",
            (false, true) => "more alike than in the base",
            (false, false) => "less alike than in the base",
        };
        text.push_str(&format!(
            " With {} they are {word}: {:.3}, {:+.3} [{:+.3}, {:+.3}].",
            system.name, own.mean.estimate, d.estimate, d.low, d.high
        ));
    }
    text
}

/// The whole page.
pub(super) fn document(f: &Finding) -> Document {
    let mut page = Document::new(format!("Over-smoothing of {}", f.model), sentence(f));
    page.made_by = app::made_by();
    page.fact("Rows", f.source.clone());
    page.fact("Intervals", "95 %, Student's t over sequences");
    let section = page.section("How alike tokens become", "");
    section.push(chart(f, &SHOWN[0]).into()).push(heat(f).into()).push(by_layer(f, &SHOWN[0]).into());
    section.push(chart(f, &SHOWN[1]).into()).push(chart(f, &SHOWN[2]).into());
    page.section(
        "How much of h0 is left",
        "The paper argues that with SIBO the last representation keeps at least a lambda portion of the first. \
         That follows only where the adapter's own skip carries the mix; here it is measured.",
    )
    .push(chart(f, &SHOWN[4]).into())
    .push(chart(f, &SHOWN[5]).into());
    page.section(
        "Sizes",
        "Raw h0 can be far smaller than what a branch reads; then lambda is mostly a rescaling.",
    )
    .push(chart(f, &SHOWN[3]).into())
    .push(site_heat(f).into())
    .push(sites(&f.systems[0]).into());
    let every = page.section("All numbers", "");
    f.systems.iter().for_each(|s| {
        every.push(layers(s).into());
    });
    if !f.signs.is_empty() {
        page.section("Signs", "").push(Block::Notes(f.signs.clone()));
    }
    page
}

/// Everything, for programs.
pub(super) fn results(f: &Finding) -> Value {
    let system = |s: &System| json!({"name": s.name, "injected": s.injected, "profile": s.profile});
    json!({
        "model": f.model, "rows": f.source, "sentence": sentence(f), "signs": f.signs,
        "systems": f.systems.iter().map(system).collect::<Vec<_>>(), "sibo": app::version(),
    })
}
