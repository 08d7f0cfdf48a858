//! One HTML file with everything in it: opens from disk, without a network, with or without
//! scripts.

mod block;

use crate::document::{Block, Document, Section};
use crate::escape::code_runs;
use crate::palette::{self, Scheme};

pub use crate::escape::markup;

const PAGE_CSS: &str = include_str!("html/page.css");
/// What a page's script does: colours by choice, values under the pointer, copying. It runs at the end of the body, and
/// for parts that are put in later by `document.dispatchEvent(new CustomEvent('sibo:part', {detail: element}))`.
pub const PAGE_JS: &str = include_str!("html/page.js");

/// Nothing is loaded from anywhere: a browser enforces it.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// The whole page.
pub fn render(document: &Document) -> String {
    let title = markup(&document.title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n\
         <style>\n{styles}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the report</a>\n\
         <header class=\"top\"><p class=\"brand\">sibo <span>report</span></p>\
         <button type=\"button\" id=\"theme\" hidden>Dark colours</button></header>\n\
         <main id=\"main\" tabindex=\"-1\">\n{inner}</main>\n{foot}<script>\n{PAGE_JS}</script>\n</body>\n</html>\n",
        styles = styles(),
        inner = inner(document),
        foot = foot(document),
    )
}

/// What stands in a page's `main` element: title, verdict, facts, contents, sections.
pub fn inner(document: &Document) -> String {
    let sections: String = document.sections.iter().enumerate().map(section).collect();
    let (head, contents) = (head(document), contents(&document.sections));
    format!("{head}{contents}<div class=\"body\">\n{sections}</div>\n")
}

/// One block as it stands on a page.
pub fn block(block: &Block) -> String {
    block::render(block)
}

/// All style rules: both colour schemes, plots, page.
pub fn styles() -> String {
    let (light, dark) = (palette::declarations(Scheme::Light), palette::declarations(Scheme::Dark));
    let (rules, names) = (palette::plot_rules(), palette::name_rules());
    format!(
        ":root{{color-scheme:light dark;{light}}}\n\
         @media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}\n\
         @media screen{{:root[data-theme=light]{{color-scheme:light}}\
         :root[data-theme=dark]{{color-scheme:dark;{dark}}}}}\n{rules}{PAGE_CSS}{names}"
    )
}

fn contents(sections: &[Section]) -> String {
    if sections.len() < 2 {
        return String::new();
    }
    let one = |(i, section): (usize, &Section)| {
        let heading = markup(&section.heading);
        format!("<li><a href=\"#s{}\">{heading}</a></li>\n", i + 1)
    };
    let items: String = sections.iter().enumerate().map(one).collect();
    format!("<nav aria-label=\"Contents\">\n<ol>\n{items}</ol>\n</nav>\n")
}

fn head(document: &Document) -> String {
    let one = |(label, value): &(String, String)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>\n", markup(label), prose(value))
    };
    let facts: String = document.facts.iter().map(one).collect();
    let facts = if facts.is_empty() { facts } else { format!("<dl class=\"facts\">\n{facts}</dl>\n") };
    format!(
        "<div class=\"head\">\n<h1>{}</h1>\n<p class=\"verdict\">{}</p>\n{facts}</div>\n",
        words(&document.title),
        prose(&document.verdict),
    )
}

fn section((i, section): (usize, &Section)) -> String {
    let id = i + 1;
    let lead = if section.lead.is_empty() {
        String::new()
    } else {
        format!("<p class=\"lead\">{}</p>\n", prose(&section.lead))
    };
    let blocks: String = section.blocks.iter().map(block::render).collect();
    format!(
        "<section id=\"s{id}\" aria-labelledby=\"s{id}h\">\n\
         <h2 id=\"s{id}h\">{}</h2>\n{lead}{blocks}</section>\n",
        markup(&section.heading),
    )
}

fn foot(document: &Document) -> String {
    if document.made_by.is_empty() {
        return String::new();
    }
    format!("<footer><p>Made by {}.</p></footer>\n", markup(&document.made_by))
}

/// Text with its backticks turned into code.
fn prose(text: &str) -> String {
    let one = |(code, run): (bool, &str)| {
        if code { format!("<code>{}</code>", markup(run)) } else { words(run) }
    };
    code_runs(text).into_iter().map(one).collect()
}

/// Text in which short words with a hyphen (SIBO-LoRA) stay on one line.
fn words(text: &str) -> String {
    const SHORT: usize = 24;
    let one = |word: &str| {
        let core = word.trim_matches(|c: char| !c.is_alphanumeric());
        if core.contains('-') && word.len() <= SHORT {
            return format!("<span class=\"whole\">{}</span>", markup(word));
        }
        markup(word)
    };
    let parts = text.split_inclusive([' ', '\n']).map(|part| {
        let word = part.trim_end_matches([' ', '\n']);
        one(word) + &part[word.len()..]
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::tests::hostile;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let page = render(&hostile());
        assert_eq!(page.matches("<script").count(), 1);
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(!page.contains("alert('x')"));
        assert!(!page.contains('\u{1b}') && !page.contains('\0'));
        // As text it is all there: title, heading, cells, answers, code.
        assert!(page.matches("alert(&#39;x&#39;)").count() > 15);
    }

    #[test]
    fn the_page_asks_for_nothing_outside() {
        let page = render(&hostile());
        for asks in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(asks), "{asks}");
        }
    }

    #[test]
    fn short_hyphenated_words_stay_whole() {
        assert_eq!(
            prose("a SIBO-LoRA, `x-y` - z"),
            "a <span class=\"whole\">SIBO-LoRA,</span> <code>x-y</code> - z"
        );
    }

    #[test]
    fn the_verdict_comes_before_everything_else() {
        let mut document = Document::new("A & B", "No difference between `a` and b can be told.");
        document.fact("rows", "2,000");
        document.section("One", "");
        let page = render(&document);
        let main = page.split_once("<main").unwrap().1;
        assert!(main.starts_with(
            " id=\"main\" tabindex=\"-1\">\n<div class=\"head\">\n<h1>A &amp; B</h1>\n\
             <p class=\"verdict\">No difference between <code>a</code> and b can be told.</p>\n\
             <dl class=\"facts\">\n<div><dt>rows</dt><dd>2,000</dd></div>\n</dl>\n</div>\n\
             <div class=\"body\">\n\
             <section id=\"s1\" aria-labelledby=\"s1h\">\n<h2 id=\"s1h\">One</h2>\n</section>"
        ));
        assert!(!page.contains("<nav"));
    }
}
