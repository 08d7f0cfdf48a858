//! The pages of `sibo ui`: what lies below a folder, told as it grows, and a playground.
//!
//! Every page is whole HTML that reads without a script; with one, an event stream says what has changed and the script
//! puts it in its place. What a run or study looks like is `sibo report`'s own document: there is one home for plots.

mod library;
mod list;
mod play;
mod shell;
mod similarity;

pub(crate) use play::{Bench, Playground};

use library::{Library, Row};
use shell::Tab;
use sibo_report::html;
use sibo_serve::{Events, Method, Reply, Request, Response, url};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const UI_CSS: &str = include_str!("ui.css");
const UI_JS: &str = include_str!("ui.js");
const PLAY_JS: &str = include_str!("play/play.js");

/// Runs and studies on one page.
const MOST_TOGETHER: usize = 8;
/// How often a page that is open is brought up to date.
const LOOK: Duration = Duration::from_millis(700);

/// All pages.
pub(crate) struct Site {
    library: Arc<Library>,
    playground: Option<Arc<Playground>>,
}

impl Site {
    pub(crate) fn new(root: PathBuf, playground: Option<Arc<Playground>>) -> Self {
        Site { library: Arc::new(Library::new(root)), playground }
    }

    /// Answers a request that was let in.
    pub(crate) fn answer(&self, request: &Request) -> Reply {
        if request.method == Method::Post {
            return match (&self.playground, request.path.as_str()) {
                (Some(playground), "/playground/ask") => playground.answer(request),
                _ => missing("nothing is sent to this address"),
            };
        }
        match request.path.as_str() {
            "/" => Response::html(
                200,
                shell::page(Tab::Runs, "Runs", &list::inner(&self.library), Some("/events")),
            )
            .into(),
            "/events" => self.list_events(),
            "/view" => self.view(request),
            "/view/events" => self.view_events(request),
            "/similarity" => {
                let inner = similarity::inner(&self.library, &request.fields("of").collect::<Vec<_>>());
                Response::html(200, shell::page(Tab::Similarity, "Similarity", &inner, None)).into()
            }
            "/playground" => {
                let inner = play::inner(self.playground.as_deref());
                Response::html(200, shell::page(Tab::Playground, "Playground", &inner, None)).into()
            }
            "/style.css" => Response::new(200, "text/css; charset=utf-8", html::styles() + UI_CSS).into(),
            "/page.js" => Response::new(200, "text/javascript; charset=utf-8", html::PAGE_JS).into(),
            "/ui.js" => {
                Response::new(200, "text/javascript; charset=utf-8", [UI_JS, PLAY_JS].concat()).into()
            }
            _ => missing("there is no page at this address"),
        }
    }

    fn list_events(&self) -> Reply {
        let library = self.library.clone();
        Reply::Stream(Box::new(move |events| {
            let mut before = String::new();
            loop {
                let now = list::inner(&library);
                if now != before {
                    events.send("inner", &now)?;
                    before = now;
                }
                events.wait(LOOK)?;
            }
        }))
    }

    fn view(&self, request: &Request) -> Reply {
        let rows = match self.chosen(request) {
            Ok(rows) => rows,
            Err(sentence) => return refused(&sentence),
        };
        let Some(view) = self.library.view(&rows, &mut Vec::new()) else {
            return refused("nothing was chosen");
        };
        let of: Vec<String> = rows.iter().map(|row| format!("of={}", url::encode(&row.found.name))).collect();
        let events = format!("/view/events?{}", of.join("&"));
        let page = shell::page(Tab::Runs, &view.document.title, &html::inner(&view.document), Some(&events));
        Response::html(200, page).into()
    }

    fn view_events(&self, request: &Request) -> Reply {
        let rows = match self.chosen(request) {
            Ok(rows) => rows,
            Err(sentence) => return refused(&sentence),
        };
        let library = self.library.clone();
        Reply::Stream(Box::new(move |events| tell(&library, rows, events)))
    }

    fn chosen(&self, request: &Request) -> Result<Vec<Row>, String> {
        let names: Vec<&str> = request.fields("of").collect();
        match names.len() {
            0 => Err("nothing was chosen: tick runs or studies in the list".into()),
            n if n > MOST_TOGETHER => Err(format!("{n} were chosen; {MOST_TOGETHER} fit on one page")),
            _ => self.library.named(&names),
        }
    }
}

/// Sends a page's inside whenever it has changed; a change of state is said too.
fn tell(library: &Library, rows: Vec<Row>, events: &mut Events) -> io::Result<()> {
    let (mut seen, mut states) = (Vec::new(), Vec::new());
    let mut rows = rows;
    loop {
        if let Some(view) = library.view(&rows, &mut seen) {
            events.send("inner", &html::inner(&view.document))?;
            if !states.is_empty() && states != view.states {
                events.send("said", &view.document.verdict)?;
            }
            states = view.states;
        }
        events.wait(LOOK)?;
        // A folder may become a run, or a study get its page.
        let names: Vec<String> = rows.iter().map(|row| row.found.name.clone()).collect();
        if let Ok(now) = library.named(&names.iter().map(String::as_str).collect::<Vec<_>>()) {
            rows = now;
        }
    }
}

fn missing(sentence: &str) -> Reply {
    words(404, "Not here", sentence)
}

fn refused(sentence: &str) -> Reply {
    words(400, "That cannot be shown", sentence)
}

fn words(status: u16, title: &str, sentence: &str) -> Reply {
    let mut letters = sentence.chars();
    let capital: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let inner = shell::head(title, &format!("{capital}."))
        + "<div class=\"body\"><p><a href=\"/\">To the list of runs and studies</a></p></div>\n";
    Response::html(status, shell::page(Tab::Runs, title, &inner, None)).into()
}
