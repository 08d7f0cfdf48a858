//! Tables and whole reports as Markdown (GitHub's kind).

use crate::document::{Block, Document, Sample, Samples};
use crate::escape::{code_runs, markdown};
use crate::plot::Plot;
use crate::table::{Align, Table};

/// A table with its caption above and its note below.
pub fn table(table: &Table) -> String {
    let width = table.width();
    if width == 0 {
        return format!("**{}**\n", markdown(&table.caption));
    }
    let mut out = String::new();
    if !table.caption.is_empty() {
        out += &format!("**{}**\n\n", markdown(&table.caption));
    }
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    out += &line((0..width).map(|c| markdown(&table.heading(c))).collect());
    let rule = |c| match table.align(c) {
        Align::Left => "---".to_owned(),
        Align::Right => "---:".to_owned(),
    };
    out += &line((0..width).map(rule).collect());
    for r in 0..table.rows.len() {
        let strong = table.emphasised.contains(&r);
        let cell = |c| {
            let text = markdown(&table.text(r, c));
            if strong && !text.trim().is_empty() { format!("**{text}**") } else { text }
        };
        out += &line((0..width).map(cell).collect());
    }
    if let Some(note) = &table.note {
        out += &format!("\n{}\n", prose(note));
    }
    out
}

/// The whole report; plots appear as the tables of their numbers.
pub fn render(document: &Document) -> String {
    let mut out = format!("# {}\n\n**{}**\n", markdown(&document.title), markdown(&document.verdict));
    if !document.facts.is_empty() {
        out.push('\n');
    }
    for (label, value) in &document.facts {
        out += &format!("- {}: {}\n", markdown(label), prose(value));
    }
    for section in &document.sections {
        out += &format!("\n## {}\n", markdown(&section.heading));
        if !section.lead.is_empty() {
            out += &format!("\n{}\n", prose(&section.lead));
        }
        for block in &section.blocks {
            out.push('\n');
            out += &block_text(block);
        }
    }
    if !document.made_by.is_empty() {
        out += &format!("\nMade by {}.\n", markdown(&document.made_by));
    }
    out
}

fn block_text(block: &Block) -> String {
    match block {
        Block::Lines(plot) => numbers(plot),
        Block::HeatMap(plot) => numbers(plot),
        Block::PairedDots(plot) => numbers(plot),
        Block::Bars(plot) => numbers(plot),
        Block::Confusion(plot) => numbers(plot),
        Block::Paragraph(text) => prose(text) + "\n",
        Block::Table(t) => table(t),
        Block::Samples(s) => samples(s),
        Block::Code { language, text } => code(language, text),
        Block::Notes(notes) => notes.iter().map(|n| format!("- {}\n", prose(n))).collect(),
    }
}

/// A plot as its caption and the table of its numbers.
fn numbers(plot: &dyn Plot) -> String {
    let caption = match plot.caption() {
        "" => String::new(),
        text => format!("{}\n\n", prose(text)),
    };
    caption + &table(&plot.table())
}

/// A fence longer than any run of backticks in the text.
fn code(language: &str, text: &str) -> String {
    let runs = text.split(|c| c != '`').map(str::len);
    let fence = "`".repeat(runs.max().unwrap_or(0).max(2) + 1);
    let language: String = language.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end_matches('\n'))
}

fn samples(samples: &Samples) -> String {
    let mut out = format!("### {}\n", markdown(&samples.title));
    for sample in &samples.samples {
        out += &one_sample(sample);
    }
    out
}

fn one_sample(sample: &Sample) -> String {
    let mut out = format!("\n{}\n\n", markdown(&sample.name));
    for line in sample.input.lines() {
        out += &format!("> {}\n", markdown(line));
    }
    out.push('\n');
    if let Some(expected) = &sample.expected {
        out += &format!("- expected: {}\n", markdown(expected));
    }
    for answer in &sample.answers {
        let judged = match answer.correct {
            Some(true) => " (right)",
            Some(false) => " (wrong)",
            None => "",
        };
        let (name, text) = (markdown(&answer.name), markdown(&answer.text));
        out += &format!("- {name}{judged}: {text}\n");
    }
    out
}

/// Text whose pairs of backticks stay code.
fn prose(text: &str) -> String {
    let one = |(code, run): (bool, &str)| {
        if code { format!("`{}`", run.replace('\n', " ")) } else { markdown(run) }
    };
    code_runs(text).into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_its_numbers() {
        assert_eq!(
            table(&crate::table::tests::sample()),
            "**Accuracy on 500 rows**\n\n\
             | method | accuracy | time (s) |\n| --- | ---: | ---: |\n\
             | LoRA &lt;b&gt;\\|x | 0.813 \\[0.790, 0.837\\] | – |\n\
             | **SIBO-LoRA** | **0.826** | **12,345.7** |\n\nIntervals are 95 %.\n"
        );
    }

    #[test]
    fn a_fence_is_longer_than_what_it_holds() {
        assert_eq!(code("md", "```\nx\n```\n"), "````md\n```\nx\n```\n````\n");
        assert_eq!(code("to ml\n", "a"), "```toml\na\n```\n");
    }

    #[test]
    fn a_report_reads_from_the_verdict_on() {
        let mut document = Document::new("LoRA on QNLI", "No difference.");
        document.fact("rows", "`train` 2,000");
        document.section("Details", "See `x_y`, a_b.").push(Block::Notes(vec!["one".into(), "two".into()]));
        assert_eq!(
            render(&document),
            "# LoRA on QNLI\n\n**No difference.**\n\n- rows: `train` 2,000\n\n## Details\n\n\
             See `x_y`, a\\_b.\n\n- one\n- two\n"
        );
    }

    #[test]
    fn hostile_text_starts_no_markup() {
        let text = render(&crate::document::tests::hostile());
        assert!(!text.contains("<script>alert('x')</script>\"&|*_`\u{1b}") || text.contains("```"));
        let outside_fence: String = text.split("````").step_by(2).collect();
        let outside_fence: String = outside_fence.split("\n```").step_by(2).collect();
        assert!(!outside_fence.contains("<script>"));
    }
}
