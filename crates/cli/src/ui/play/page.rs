//! The playground's page.

use super::{AdapterFacts, Facts, ask};
use crate::ui::shell;
use sibo_report::html::markup;

/// A number that is asked for: its name in the form, its label, its value and bounds.
type Setting = (&'static str, &'static str, &'static str, &'static str);

const SETTINGS: [Setting; 6] = [
    ("max_new_tokens", "New tokens, at most", "64", "min=\"1\" step=\"1\""),
    ("temperature", "Temperature (0: the most likely token)", "0", "min=\"0\" step=\"any\""),
    ("top_k", "Top-k (0: all)", "0", "min=\"0\" step=\"1\""),
    ("top_p", "Top-p", "1", "min=\"0.01\" max=\"1\" step=\"any\""),
    ("repetition_penalty", "Repetition penalty", "1", "min=\"0.01\" step=\"any\""),
    ("seed", "Seed", "0", "min=\"0\" step=\"1\""),
];

pub(super) fn without_model() -> String {
    shell::head("Playground", "No model is loaded.")
        + "<div class=\"body\"><p>Start <code>sibo ui</code> with a model, and with adapters to set side by side:</p>\n\
           <pre tabindex=\"0\"><code>sibo ui --model smollm2-135m --adapter runs/plain/adapter --adapter runs/sibo/adapter</code></pre></div>\n"
}

pub(super) fn inner(facts: &Facts) -> String {
    let (sentence, pair, settings) = match &facts.classes {
        None => {
            (format!("{} continues a text, once for each column.", facts.model), String::new(), settings())
        }
        Some(names) if names.len() == 1 => {
            (format!("{} gives a text a score, once for each column.", facts.model), pair(), String::new())
        }
        Some(_) => (format!("{} judges a text, once for each column.", facts.model), pair(), String::new()),
    };
    let label =
        if facts.classes.is_none() { "Text to continue or instruction to follow" } else { "Sentence" };
    shell::head("Playground", &sentence)
        + &format!(
            "<div class=\"body\">\n<noscript><p class=\"bad\">The playground streams its answers and needs a script; \
             <code>sibo generate</code> gives the same without.</p></noscript>\n\
             <form id=\"play\" class=\"play\">\n\
             <p><label for=\"text\">{label}</label><textarea id=\"text\" name=\"text\" rows=\"4\" required \
             aria-describedby=\"how\"></textarea><span id=\"how\" class=\"remark\">It is put to the model {}; an \
             adapter's own template goes before. Ctrl-Enter asks.</span></p>\n{pair}\
             <fieldset><legend>Columns</legend>\n<ul id=\"columns\" class=\"columns\">\n{}</ul>\n{}</fieldset>\n{settings}\
             <p class=\"ask\"><button type=\"submit\" class=\"main\" id=\"ask\">Ask</button> \
             <button type=\"button\" id=\"stop\" disabled>Stop</button> \
             <span id=\"state\" class=\"remark\" role=\"status\"></span></p>\n</form>\n\
             <section aria-label=\"Answers\"><div id=\"answers\" class=\"answers\"></div>\
             <div id=\"layers\"></div></section>\n</div>\n",
            markup(&facts.template),
            columns(facts),
            more(facts),
        )
}

fn pair() -> String {
    "<p><label for=\"second\">Second sentence (for tasks of pairs; may be empty)</label>\
     <textarea id=\"second\" name=\"second\" rows=\"2\"></textarea></p>\n"
        .into()
}

fn settings() -> String {
    let one = |(name, label, value, bounds): &Setting| {
        let most =
            if *name == "max_new_tokens" { format!(" max=\"{}\"", ask::MOST_TOKENS) } else { String::new() };
        format!(
            "<label>{label} <input type=\"number\" name=\"{name}\" value=\"{value}\" {bounds}{most}></label>\n"
        )
    };
    let all: String = SETTINGS.iter().map(one).collect();
    format!(
        "<details class=\"settings\"><summary>How tokens are chosen</summary>\n<div>{all}</div></details>\n"
    )
}

/// The columns to begin with: the base, and every adapter as it was trained.
fn columns(facts: &Facts) -> String {
    let base = facts.base.then(|| column("base", &format!("{}, without an adapter", facts.model), None));
    let adapter = |(n, a): (usize, &AdapterFacts)| {
        column(
            &n.to_string(),
            &format!("{}: {}", a.name, a.what),
            a.takes_sibo.then(|| a.lambda.unwrap_or(0.0)),
        )
    };
    base.into_iter().chain(facts.adapters.iter().enumerate().map(adapter)).collect()
}

/// A line of the list of columns; with a slider where another lambda can be tried.
fn column(value: &str, name: &str, lambda: Option<f32>) -> String {
    let slider = lambda.map_or_else(String::new, |lambda| {
        format!(
            "<label class=\"own\"><input type=\"checkbox\" class=\"other\"> another lambda</label>\
             <label class=\"lambda\" hidden><span class=\"unseen\">lambda of {name}</span>\
             <input type=\"range\" min=\"0\" max=\"0.95\" step=\"0.05\" value=\"{lambda}\"> <output>{lambda}</output></label>",
            name = markup(name)
        )
    });
    format!(
        "<li data-column=\"{value}\"><span class=\"name\">{}</span>{slider}\
         <button type=\"button\" class=\"remove\">Remove<span class=\"unseen\"> the column {}</span></button></li>\n",
        markup(name),
        markup(name)
    )
}

/// Where columns are added.
fn more(facts: &Facts) -> String {
    let base = facts.base.then(|| "<option value=\"base\">without an adapter</option>".to_string());
    let one = |(n, a): (usize, &AdapterFacts)| format!("<option value=\"{n}\">{}</option>", markup(&a.name));
    let options: String = base.into_iter().chain(facts.adapters.iter().enumerate().map(one)).collect();
    format!(
        "<p class=\"more\"><label>One more of <select id=\"which\">{options}</select></label> \
         <button type=\"button\" id=\"add\">Add</button></p>\n"
    )
}
