//! Tables and reports as plain text for a terminal.

use crate::document::{Block, Document};
use crate::escape::terminal as clean;
use crate::table::{Align, Table};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal; wider tables lose the ends of their words, never numbers.
    pub width: usize,
    /// Whether escape sequences for bold and dim text may be written.
    pub colour: bool,
}

impl Default for Style {
    /// 100 columns without colour: what a file or a pipe gets.
    fn default() -> Self {
        Self { width: 100, colour: false }
    }
}

impl Style {
    fn bold(self, text: &str) -> String {
        self.sequence("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.sequence("2", text)
    }

    fn sequence(self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// The table with aligned columns, its caption above and its note below.
pub fn table(table: &Table, style: Style) -> String {
    const GAP: &str = "  ";
    let columns = table.width();
    let widths = column_widths(table, style.width.saturating_sub(GAP.len() * columns.saturating_sub(1)));
    let line = |text: &dyn Fn(usize) -> String| {
        let cells = (0..columns).map(|c| pad(&text(c), widths[c], table.align(c)));
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    let mut out = String::new();
    if !table.caption.is_empty() {
        out += &format!("{}\n", style.bold(&clean(&table.caption)));
    }
    out += &format!("{}\n", style.dim(&line(&|c| table.heading(c))));
    let total = widths.iter().sum::<usize>() + GAP.len() * columns.saturating_sub(1);
    out += &format!("{}\n", style.dim(&"─".repeat(total)));
    for r in 0..table.rows.len() {
        let text = line(&|c| table.text(r, c));
        let strong = table.emphasised.contains(&r);
        out += &if strong { style.bold(&text) } else { text };
        out.push('\n');
    }
    if let Some(note) = &table.note {
        out += &wrap(&clean(note), style.width, |line| style.dim(line));
    }
    out
}

/// Width of each column; columns of words shrink, widest first, until the line fits.
fn column_widths(table: &Table, room: usize) -> Vec<usize> {
    let mut widths: Vec<usize> = (0..table.width())
        .map(|c| {
            let cells = (0..table.rows.len()).map(|r| clean(&table.text(r, c)).width());
            cells.chain([clean(&table.heading(c)).width()]).max().unwrap_or(0)
        })
        .collect();
    const LEAST: usize = 8;
    while widths.iter().sum::<usize>() > room {
        let words = (0..widths.len()).filter(|c| table.align(*c) == Align::Left);
        let Some(widest) = words.max_by_key(|c| widths[*c]).filter(|c| widths[*c] > LEAST) else {
            break;
        };
        widths[widest] -= 1;
    }
    widths
}

/// `text` cut or filled to `width` columns.
fn pad(text: &str, width: usize, align: Align) -> String {
    let text = cut(&clean(text), width);
    let fill = " ".repeat(width.saturating_sub(text.width()));
    match align {
        Align::Left => text + &fill,
        Align::Right => fill + &text,
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used + 1 > width {
            break;
        }
        kept.push(c);
    }
    kept + "…"
}

/// `text` in lines of at most `width` columns, broken at blanks, each line through `dress`.
fn wrap(text: &str, width: usize, dress: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.width() + 1 + word.width() > width {
            out += &format!("{}\n", dress(&line));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        out += &format!("{}\n", dress(&line));
    }
    out
}

/// The report in short: verdict, facts, tables, notes, and each plot as a few lines.
///
/// Examples and code stay in the file.
pub fn render(document: &Document, style: Style) -> String {
    let mut out = format!("{}\n\n", style.dim(&clean(&document.title)));
    out += &wrap(&clean(&document.verdict), style.width, |line| style.bold(line));
    out.push('\n');
    let widest = document.facts.iter().map(|f| clean(&f.0).width()).max().unwrap_or(0);
    for (label, value) in &document.facts {
        let label = style.dim(&pad(label, widest, Align::Left));
        out += &format!("{label}  {}\n", clean(value));
    }
    for section in &document.sections {
        let blocks: String = section.blocks.iter().map(|b| block(b, style)).collect();
        if !blocks.is_empty() {
            out += &format!("\n{}\n{blocks}", style.bold(&clean(&section.heading)));
        }
    }
    out
}

fn block(block: &Block, style: Style) -> String {
    match block {
        Block::Table(t) => format!("\n{}", table(t, style)),
        Block::Lines(chart) => {
            let widest = chart.series.iter().map(|s| clean(&s.key.name).width()).max();
            let mut out = format!("\n{}\n", style.bold(&clean(&chart.title)));
            for series in &chart.series {
                let values: Vec<f64> = series.points.iter().map(|p| p.y).collect();
                let name = pad(&series.key.name, widest.unwrap_or(0), Align::Left);
                let ends = ends(&values, chart.y.digits);
                out += &format!("{name}  {}  {ends}\n", sparkline(&values, 40));
            }
            out
        }
        Block::Notes(notes) => {
            let one = |note: &String| wrap(&format!("- {}", clean(note)), style.width, str::to_owned);
            format!("\n{}", notes.iter().map(one).collect::<String>())
        }
        other => other.plot().map_or_else(String::new, |plot| format!("\n{}", table(&plot.table(), style))),
    }
}

fn ends(values: &[f64], digits: usize) -> String {
    match (values.first(), values.last()) {
        (Some(first), Some(last)) => {
            let text = |v: &f64| crate::number::fixed(*v, digits);
            format!("{} → {}", text(first), text(last))
        }
        _ => "no values".to_owned(),
    }
}

/// A line of at most `width` block characters that shows how `values` go up and down.
///
/// Neighbours are averaged where there are more values than places. A value that is not finite
/// shows as `×`; equal values show as a line at half height.
pub fn sparkline(values: &[f64], width: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let places = values.len().min(width);
    let means: Vec<f64> = (0..places)
        .map(|i| {
            let part = &values[i * values.len() / places..(i + 1) * values.len() / places];
            part.iter().sum::<f64>() / part.len() as f64
        })
        .collect();
    let finite = means.iter().copied().filter(|v| v.is_finite());
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let block = |value: &f64| match value {
        v if !v.is_finite() => '×',
        _ if high <= low => BLOCKS[3],
        v => BLOCKS[((v - low) / (high - low) * 7.0).round().clamp(0.0, 7.0) as usize],
    };
    means.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Column;

    #[test]
    fn columns_line_up() {
        let text = table(&crate::table::tests::sample(), Style::default());
        let expected = "\
Accuracy on 500 rows
method                  accuracy  time (s)
──────────────────────────────────────────
LoRA <b>|x  0.813 [0.790, 0.837]         –
SIBO-LoRA                  0.826  12,345.7
Intervals are 95 %.
";
        assert_eq!(text, expected);
    }

    #[test]
    fn wide_letters_count_twice_and_control_codes_are_shown() {
        let mut wide = Table::new("").column(Column::text("名前")).column(Column::number("n", 0));
        wide.push(vec!["日本語".into(), 7.0.into()]);
        wide.push(vec!["a\u{1b}[2Jb".into(), 11.0.into()]);
        let text = table(&wide, Style::default());
        assert_eq!(text, "名前     n\n──────────\n日本語   7\na␛[2Jb  11\n");
    }

    #[test]
    fn narrow_terminals_cut_words_not_numbers() {
        let style = Style { width: 34, colour: false };
        let text = table(&crate::table::tests::sample(), style);
        assert!(text.contains("0.813 [0.790, 0.837]"), "{text}");
        let mut long = Table::new("").column(Column::text("name")).column(Column::number("n", 1));
        long.push(vec!["a name that is far too long".into(), 0.5.into()]);
        assert!(table(&long, Style { width: 20, colour: false }).contains("a name that is…  0.5"));
    }

    #[test]
    fn colour_is_written_only_when_allowed() {
        let sample = crate::table::tests::sample();
        assert!(!table(&sample, Style::default()).contains('\u{1b}'));
        let style = Style { width: 80, colour: true };
        assert!(table(&sample, style).contains("\u{1b}[1mSIBO-LoRA"));
    }

    #[test]
    fn sparklines_rise_and_fall() {
        assert_eq!(sparkline(&[1.0, 2.0, 8.0, 4.5, f64::NAN], 10), "▁▂█▅×");
        assert_eq!(sparkline(&[3.0, 3.0], 10), "▄▄");
        assert_eq!(sparkline(&[0.0, 2.0, 5.0, 9.0], 2), "▁█");
        assert_eq!(sparkline(&[], 10), "");
    }

    #[test]
    fn a_report_in_short_holds_verdict_facts_and_curves() {
        let mut document = Document::new("T", "A verdict that is longer than one line of text.");
        document.fact("rows", "2,000");
        document.section("Curves", "").push(crate::plot::tests::losses().into());
        let expected = "\
T

A verdict that is longer
than one line of text.

rows  2,000

Curves

Training <loss>
LoRA  █▄▁  0.850 → 0.450
SIBO  █×▁  0.850 → -0.300
";
        assert_eq!(render(&document, Style { width: 24, colour: false }), expected);
    }
}
