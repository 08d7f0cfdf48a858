//! The frame around every page.

use sibo_report::html::markup;

/// Where a page stands among the others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Runs,
    Similarity,
    Playground,
}

/// A whole page: `inner` is HTML, `title` text. With `events`, the script asks there for what changes.
pub(super) fn page(tab: Tab, title: &str, inner: &str, events: Option<&str>) -> String {
    let link = |own: Tab, address: &str, text: &str| {
        let here = if own == tab { " aria-current=\"page\"" } else { "" };
        format!("<a href=\"{address}\"{here}>{text}</a>")
    };
    let links = [
        link(Tab::Runs, "/", "Runs"),
        link(Tab::Similarity, "/similarity", "Similarity"),
        link(Tab::Playground, "/playground", "Playground"),
    ];
    // What has no table of contents takes the whole width.
    let wide = if inner.contains("<nav ") { "" } else { " class=\"wide\"" };
    let events = events.map(|address| format!(" data-events=\"{}\"", markup(address))).unwrap_or_default();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{}, sibo</title>\n<link rel=\"stylesheet\" href=\"/style.css\">\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the content</a>\n\
         <header class=\"top\"><p class=\"brand\">sibo <span>ui</span></p>\
         <nav class=\"tabs\" aria-label=\"Pages\">{}</nav>\
         <p id=\"live\" class=\"live\" role=\"status\"></p>\
         <button type=\"button\" id=\"theme\" hidden>Dark colours</button></header>\n\
         <main id=\"main\" tabindex=\"-1\"{wide}{events}>\n{inner}</main>\n\
         <script src=\"/ui.js\"></script>\n<script src=\"/page.js\"></script>\n</body>\n</html>\n",
        markup(title),
        links.join(""),
    )
}

/// A heading and a sentence, as every page begins.
pub(super) fn head(title: &str, sentence: &str) -> String {
    format!(
        "<div class=\"head\">\n<h1>{}</h1>\n<p class=\"verdict\">{}</p>\n</div>\n",
        markup(title),
        markup(sentence)
    )
}
