//! The first page: every run and study, the newest first.

use super::library::{ALIVE, Library, Listing, Row, state};
use super::shell;
use crate::runs::Kind;
use sibo_report::html::markup;
use sibo_report::number;
use sibo_serve::url;
use std::time::SystemTime;

/// Rows of the list; a folder with more says so.
const MOST_ROWS: usize = 500;

/// The inside of the page.
pub(super) fn inner(library: &Library) -> String {
    let listing = library.list();
    let root = library.root().display();
    if listing.rows.is_empty() {
        let sentence = format!("Nothing is below {root} yet.");
        return shell::head("Runs and studies", &sentence)
            + "<div class=\"body\"><p>A run of <code>sibo train</code> appears here with its first step, a study of \
               <code>sibo compare</code> or <code>sibo sweep</code> with its first cell.</p></div>\n";
    }
    let form = format!(
        "<form class=\"runs\" action=\"/view\" method=\"get\">\n{}\
         <p class=\"actions\"><button type=\"submit\" class=\"main\">Compare the chosen</button></p>\n{}</form>\n",
        table(&listing),
        remarks(&listing),
    );
    shell::head("Runs and studies", &sentence(&listing, &root.to_string()))
        + "<div class=\"body\">\n"
        + &form
        + "</div>\n"
}

/// `3 runs and 1 study below runs; 1 is training.`
fn sentence(listing: &Listing, root: &str) -> String {
    let is_run = |row: &&Row| matches!(row.found.kind, Kind::Run | Kind::Part);
    let runs = listing.rows.iter().filter(is_run).count();
    let training = listing.rows.iter().filter(|row| word(row) == "training").count();
    let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let studies = match listing.rows.len() - runs {
        0 => String::new(),
        n => format!(" and {}", count(n, "study", "studies")),
    };
    let now = match training {
        0 => "none is training".to_string(),
        1 => "1 is training".to_string(),
        n => format!("{n} are training"),
    };
    format!("{}{studies} below {root}; {now}.", count(runs, "run", "runs"))
}

fn remarks(listing: &Listing) -> String {
    let mut text = format!(
        "<p class=\"remark\">Training: no result yet, and the last record is less than {} minutes old. \
         Last validation: the loss at the last evaluation.</p>\n",
        ALIVE.as_secs() / 60
    );
    if listing.rows.len() > MOST_ROWS {
        text += &format!(
            "<p class=\"remark\">The {MOST_ROWS} newest of {} are listed.</p>\n",
            listing.rows.len()
        );
    }
    if !listing.complete {
        text += "<p class=\"remark\">There is more below this folder than is looked through; start <code>sibo ui</code> \
                 with a folder further down.</p>\n";
    }
    text
}

fn table(listing: &Listing) -> String {
    let rows: String = listing.rows.iter().take(MOST_ROWS).map(row).collect();
    format!(
        "<div class=\"table\"><div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Table: runs and studies\">\n\
         <table class=\"list\"><caption class=\"unseen\">Runs and studies, the newest first</caption>\n\
         <thead><tr><td></td><th scope=\"col\">name</th><th scope=\"col\">state</th>\
         <th scope=\"col\" class=\"number\">step</th><th scope=\"col\" class=\"number\">loss</th>\
         <th scope=\"col\" class=\"number\">last validation</th><th scope=\"col\">written</th></tr></thead>\n\
         <tbody>\n{rows}</tbody></table>\n</div></div>\n"
    )
}

fn row(row: &Row) -> String {
    let name = markup(&row.found.name);
    let number = |value: Option<f64>, digits: usize| match value {
        Some(value) => number::fixed(value, digits),
        None => "<span class=\"unseen\">none</span><span aria-hidden=\"true\">–</span>".into(),
    };
    let what = match &row.trouble {
        Some(trouble) => format!("<span class=\"bad trouble\">{}</span>", markup(trouble)),
        None => format!("<span class=\"what\">{}</span>", markup(&row.what)),
    };
    let word = word(row);
    format!(
        "<tr data-part=\"{name}\"><td><input type=\"checkbox\" name=\"of\" value=\"{name}\" \
         aria-label=\"Choose {name}\"></td>\
         <th scope=\"row\"><a href=\"/view?of={}\">{name}</a>{what}</th>\
         <td><span class=\"state {}\">{word}</span></td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
         <td class=\"number\">{}</td><td class=\"age\">{}</td></tr>\n",
        url::encode(&row.found.name),
        word.replace(' ', "-"),
        number(row.steps, 0),
        number(row.loss, 4),
        number(row.validation, 4),
        row.found.written.map(age).unwrap_or_default(),
    )
}

fn word(row: &Row) -> &'static str {
    match row.found.kind {
        Kind::Study => "finished",
        Kind::Cells => "under way",
        Kind::Part => "in part",
        Kind::Run => {
            let alive = row.found.written.is_some_and(|at| at.elapsed().is_ok_and(|age| age < ALIVE));
            state(row.finished, alive)
        }
    }
}

/// How long ago, in words that do not change every second.
fn age(at: SystemTime) -> String {
    let seconds = at.elapsed().map_or(0, |age| age.as_secs());
    let some = |n: u64, one: &str, many: &str| format!("{n} {} ago", if n == 1 { one } else { many });
    match seconds {
        0..=59 => "just now".into(),
        60..=3599 => some(seconds / 60, "minute", "minutes"),
        3600..=86_399 => some(seconds / 3600, "hour", "hours"),
        _ => some(seconds / 86_400, "day", "days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ages_are_said_roughly() {
        let ago = |seconds| age(SystemTime::now() - Duration::from_secs(seconds));
        assert_eq!(
            [ago(3), ago(61), ago(7250), ago(200_000)],
            ["just now", "1 minute ago", "2 hours ago", "2 days ago"]
        );
    }
}
