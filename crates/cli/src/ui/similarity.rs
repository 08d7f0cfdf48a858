//! Token similarity by layer, of every study that measured it, and of several in one plot.

use super::library::{Library, Row};
use super::shell;
use crate::runs::Kind;
use sibo_report::html::{self, markup};
use sibo_report::{Block, Document, LineChart, Tone};
use sibo_serve::url;

/// By this title the studies' own plots are known.
const TITLE: &str = "Token similarity by layer";
/// Looks of the lines in one plot; what a line is called says whose it is.
const LOOKS: [Tone; 7] =
    [Tone::Plain, Tone::Sibo, Tone::Other(0), Tone::Other(1), Tone::Base, Tone::Other(2), Tone::Other(3)];
/// Studies that are looked through.
const MOST: usize = 40;

/// The inside of the page; `chosen` are laid over one another.
pub(super) fn inner(library: &Library, chosen: &[&str]) -> String {
    let listing = library.list();
    let studies = listing.rows.iter().filter(|row| matches!(row.found.kind, Kind::Study | Kind::Cells));
    let charts: Vec<(&Row, LineChart)> = studies
        .take(MOST)
        .filter_map(|row| Some((row, chart(library.study(&row.found).ok()?.as_ref())?)))
        .collect();
    if charts.is_empty() {
        return shell::head("Token similarity by layer", "No study here has measured it yet.")
            + "<div class=\"body\"><p><code>sibo smoothing</code>, <code>sibo compare</code>, <code>sibo sweep</code> \
               and <code>sibo quickstart</code> measure it.</p></div>\n";
    }
    let picked: Vec<&(&Row, LineChart)> =
        charts.iter().filter(|(row, _)| chosen.contains(&row.found.name.as_str())).collect();
    let shown = if picked.is_empty() { &charts[..1].iter().collect::<Vec<_>>() } else { &picked };
    let document = document(shown, charts.len());
    form(&charts, shown) + &html::inner(&document)
}

fn chart(document: &Document) -> Option<LineChart> {
    let blocks = document.sections.iter().flat_map(|s| &s.blocks);
    let mut lines = blocks.filter_map(|block| match block {
        Block::Lines(chart) if chart.title == TITLE => Some(chart.clone()),
        _ => None,
    });
    lines.next()
}

fn document(shown: &[&(&Row, LineChart)], all: usize) -> Document {
    let names: Vec<&str> = shown.iter().map(|(row, _)| row.found.name.as_str()).collect();
    let verdict = match shown.len() {
        1 => format!("How alike tokens become, in {}.", names[0]),
        n => format!("How alike tokens become, in {n} of {all} studies."),
    };
    let mut page = Document::new(TITLE, verdict);
    if shown.len() > 1 {
        page.section(
            "Together",
            "The lines of the chosen studies in one plot; models of different depth end at different layers.",
        )
        .push(together(shown).into());
    }
    for (row, chart) in shown.iter() {
        page.section(row.found.name.clone(), row.what.clone()).push(chart.clone().into());
    }
    page
}

/// All lines in one chart, each with its study's name and a look of its own.
fn together(shown: &[&(&Row, LineChart)]) -> LineChart {
    let mut all = LineChart { caption: String::new(), band: None, series: vec![], ..shown[0].1.clone() };
    for (row, chart) in shown {
        for series in &chart.series {
            let mut series = series.clone();
            series.key.name = format!("{}: {}", row.found.name, series.key.name);
            series.key.tone = LOOKS[all.series.len() % LOOKS.len()];
            series.points.iter_mut().for_each(|point| point.range = None);
            all.series.push(series);
        }
    }
    all
}

fn form(charts: &[(&Row, LineChart)], shown: &[&(&Row, LineChart)]) -> String {
    let one = |(row, _): &(&Row, LineChart)| {
        let name = markup(&row.found.name);
        let ticked = shown.iter().any(|(own, _)| own.found.name == row.found.name);
        let ticked = if ticked { " checked" } else { "" };
        format!(
            "<li><label><input type=\"checkbox\" name=\"of\" value=\"{name}\"{ticked}> {name}</label> \
             <a href=\"/view?of={}\">whole page<span class=\"unseen\"> of {name}</span></a></li>\n",
            url::encode(&row.found.name)
        )
    };
    let items: String = charts.iter().map(one).collect();
    format!(
        "<form class=\"choose\" action=\"/similarity\" method=\"get\"><fieldset><legend>Studies that measured it</legend>\n\
         <ul>{items}</ul><button type=\"submit\" class=\"main\">Show the chosen</button></fieldset></form>\n"
    )
}
