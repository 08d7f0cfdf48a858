//! The blocks of a section as HTML.

use super::prose;
use crate::document::{Answer, Block, Sample, Samples};
use crate::escape::markup;
use crate::number::{fixed, typographic};
use crate::plot::{self, Plot};
use crate::table::{Align, Cell, Table};

/// One block.
pub(super) fn render(block: &Block) -> String {
    match block {
        Block::Lines(plot) => figure(plot),
        Block::HeatMap(plot) => figure(plot),
        Block::PairedDots(plot) => figure(plot),
        Block::Bars(plot) => figure(plot),
        Block::Confusion(plot) => figure(plot),
        Block::Paragraph(text) => format!("<p>{}</p>\n", prose(text)),
        Block::Table(table) => table_block(table),
        Block::Samples(samples) => samples_block(samples),
        Block::Code { language, text } => code(language, text),
        Block::Notes(notes) => {
            let one = |note: &String| format!("<li>{}</li>\n", prose(note));
            let items: String = notes.iter().map(one).collect();
            format!("<ul class=\"notes\">\n{items}</ul>\n")
        }
    }
}

/// A plot in both widths (style rules show one), with its numbers below.
fn figure(plot: &dyn Plot) -> String {
    let caption = match plot.caption() {
        "" => String::new(),
        text => format!("<span>{}</span>", prose(text)),
    };
    format!(
        "<figure>\n<figcaption><strong>{}</strong>{caption}</figcaption>\n\
         {}\n{}\n<details><summary>Numbers<span class=\"unseen\"> of: {}</span></summary>\n\
         {}</details>\n</figure>\n",
        markup(plot.title()),
        plot::inline(plot, plot::WIDE, "wide"),
        plot::inline(plot, plot::NARROW, "narrow"),
        markup(plot.title()),
        table_block(&plot.table()),
    )
}

fn table_block(table: &Table) -> String {
    let width = table.width();
    let heads: String = (0..width).map(|c| head_cell(table, c)).collect();
    let rows: String = (0..table.rows.len())
        .map(|r| {
            let class = if table.emphasised.contains(&r) { " class=\"strong\"" } else { "" };
            let cells: String = (0..width).map(|c| body_cell(table, r, c)).collect();
            format!("<tr{class}>{cells}</tr>\n")
        })
        .collect();
    let note = table
        .note
        .as_ref()
        .map_or_else(String::new, |note| format!("<p class=\"remark\">{}</p>\n", prose(note)));
    let caption = markup(&table.caption);
    // Focus lets a keyboard scroll a table that is wider than the screen.
    format!(
        "<div class=\"table\"><div class=\"scroll\" role=\"region\" tabindex=\"0\" \
         aria-label=\"Table: {caption}\">\n<table>\n<caption><span>{caption}</span></caption>\n\
         <thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n{note}</div>\n"
    )
}

fn side(table: &Table, c: usize) -> &'static str {
    match table.align(c) {
        Align::Right => " class=\"number\"",
        Align::Left => "",
    }
}

fn head_cell(table: &Table, c: usize) -> String {
    let (side, heading) = (side(table, c), table.heading(c));
    if heading.is_empty() {
        return format!("<td{side}></td>");
    }
    format!("<th scope=\"col\"{side}>{}</th>", markup(&heading))
}

fn body_cell(table: &Table, r: usize, c: usize) -> String {
    let side = side(table, c);
    let digits = table.columns.get(c).map_or(3, |column| column.digits);
    let text = match table.cell(r, c) {
        Cell::Text(text) => prose(text),
        Cell::Missing => "<span class=\"unseen\">none</span><span aria-hidden=\"true\">–</span>".into(),
        Cell::Number(value) => typographic(&fixed(*value, digits)),
        Cell::Estimate(estimate) => {
            let value = typographic(&fixed(estimate.value, digits));
            let interval = estimate.interval.map_or_else(String::new, |(low, high)| {
                let (low, high) = (fixed(low, digits), fixed(high, digits));
                let (low, high) = (typographic(&low), typographic(&high));
                format!(" <span class=\"interval\">[{low}, {high}]</span>")
            });
            value + &interval
        }
    };
    if c == 0 {
        return format!("<th scope=\"row\"{side}>{text}</th>");
    }
    format!("<td{side}>{text}</td>")
}

fn code(language: &str, text: &str) -> String {
    let language = markup(language);
    format!(
        "<div class=\"code\"><div class=\"code-head\"><span>{language}</span></div>\
         <pre tabindex=\"0\" aria-label=\"{language}\"><code>{}</code></pre></div>\n",
        markup(text.trim_end_matches('\n')),
    )
}

fn samples_block(samples: &Samples) -> String {
    let cards: String = samples.samples.iter().map(sample).collect();
    format!("<div class=\"samples\">\n<h3>{}</h3>\n{cards}</div>\n", markup(&samples.title))
}

fn sample(sample: &Sample) -> String {
    let expected = sample.expected.as_ref().map_or_else(String::new, |text| {
        format!(
            "<div class=\"answer\"><p class=\"who\">expected</p><p dir=\"auto\">{}</p></div>\n",
            markup(text)
        )
    });
    let answers: String = sample.answers.iter().map(answer).collect();
    format!(
        "<article><h4>{}</h4>\n<p class=\"input\" dir=\"auto\">{}</p>\n{expected}{answers}</article>\n",
        markup(&sample.name),
        markup(&sample.input),
    )
}

fn answer(answer: &Answer) -> String {
    let judged = match answer.correct {
        Some(true) => " <span class=\"good\">✓ right</span>",
        Some(false) => " <span class=\"bad\">✗ wrong</span>",
        None => "",
    };
    format!(
        "<div class=\"answer\"><p class=\"who tone-{}\">{}{judged}</p><p dir=\"auto\">{}</p></div>\n",
        answer.tone.name(),
        markup(&answer.name),
        markup(&answer.text),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::sample;

    #[test]
    fn a_table_has_caption_and_scopes() {
        assert_eq!(
            table_block(&sample()),
            "<div class=\"table\"><div class=\"scroll\" role=\"region\" tabindex=\"0\" \
             aria-label=\"Table: Accuracy on 500 rows\">\n<table>\n\
             <caption><span>Accuracy on 500 rows</span></caption>\n<thead><tr><th scope=\"col\">method</th>\
             <th scope=\"col\" class=\"number\">accuracy</th>\
             <th scope=\"col\" class=\"number\">time (s)</th></tr></thead>\n<tbody>\n\
             <tr><th scope=\"row\">LoRA &lt;b&gt;|x</th><td class=\"number\">0.813 \
             <span class=\"interval\">[0.790, 0.837]</span></td><td class=\"number\">\
             <span class=\"unseen\">none</span><span aria-hidden=\"true\">–</span></td></tr>\n\
             <tr class=\"strong\"><th scope=\"row\"><span class=\"whole\">SIBO-LoRA</span></th><td class=\"number\">0.826</td>\
             <td class=\"number\">12,345.7</td></tr>\n</tbody>\n</table>\n</div>\n\
             <p class=\"remark\">Intervals are 95 %.</p>\n</div>\n"
        );
    }

    #[test]
    fn code_keeps_its_text() {
        let block = Block::Code { language: "toml".into(), text: "r = 8\n[a]\nb = \"<&>\"\n".into() };
        assert_eq!(
            render(&block),
            "<div class=\"code\"><div class=\"code-head\"><span>toml</span></div>\
             <pre tabindex=\"0\" aria-label=\"toml\"><code>r = 8\n[a]\n\
             b = &quot;&lt;&amp;&gt;&quot;</code></pre></div>\n"
        );
    }
}
