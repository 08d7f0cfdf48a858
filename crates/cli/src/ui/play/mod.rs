//! The playground: one model, loaded once, and adapters on it side by side, each with its own lambda or another.

mod ask;
mod bench;
mod desk;
mod page;

pub(crate) use bench::Bench;

use ask::Ask;
use desk::Desk;
use serde_json::json;
use sibo_serve::{Events, Reply, Request, url};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// How often a waiting page is told how many are before it.
const LOOK: Duration = Duration::from_millis(100);

/// What the pages know of the loaded model.
pub(crate) struct Playground {
    desk: Desk<Ask>,
    facts: Facts,
}

/// What can be asked.
pub(crate) struct Facts {
    pub(super) model: String,
    /// Classes by name for an encoder, `None` for a model that continues text.
    pub(super) classes: Option<Vec<String>>,
    /// Whether the base answers too: an encoder's may lack a head.
    pub(super) base: bool,
    pub(super) adapters: Vec<AdapterFacts>,
    /// How a prompt is put to the base, in words.
    pub(super) template: String,
}

/// One adapter.
pub(crate) struct AdapterFacts {
    pub(super) name: String,
    /// `lora, lambda 0.2`.
    pub(super) what: String,
    /// Its lambda, where it is one number.
    pub(super) lambda: Option<f32>,
    /// Whether another lambda can be tried: there must be a branch that reads a state.
    pub(super) takes_sibo: bool,
}

impl Playground {
    fn new(facts: Facts) -> Self {
        Playground { desk: Desk::new(), facts }
    }

    /// Puts a request into the queue and tells what becomes of it.
    pub(super) fn answer(self: &Arc<Self>, request: &Request) -> Reply {
        let fields = std::str::from_utf8(&request.body).ok().and_then(url::fields);
        let ask = fields.ok_or("the form cannot be read".to_string());
        let ask = ask.and_then(|fields| Ask::read(&fields, self.facts.adapters.len()));
        let own = self.clone();
        Reply::Stream(Box::new(move |events| match ask.and_then(|ask| own.desk.put(ask)) {
            Ok(ticket) => own.follow(&ticket, events),
            Err(sentence) => fail(events, &sentence),
        }))
    }

    /// Passes on what the model's thread says, until it is done or nobody listens.
    fn follow(&self, ticket: &desk::Ticket, events: &mut Events) -> io::Result<()> {
        let mut before = usize::MAX;
        let mut begun = false;
        loop {
            match ticket.heard.recv_timeout(LOOK) {
                Ok(said) => {
                    let (name, data) = said.split_once('\n').unwrap_or((&said, "{}"));
                    events.send(name, data)?;
                    begun = true;
                }
                Err(RecvTimeoutError::Timeout) => {
                    events.check()?;
                    let now = self.desk.before(ticket);
                    if !begun && now != before {
                        events.send("queue", &json!({ "words": place(now) }).to_string())?;
                        before = now;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }
}

/// A place in the queue, in words.
fn place(before: usize) -> String {
    match before {
        0 => "The model is at work.".into(),
        1 => "One request is before this one.".into(),
        n => format!("{n} requests are before this one."),
    }
}

fn fail(events: &mut Events, sentence: &str) -> io::Result<()> {
    let mut letters = sentence.chars();
    let capital: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    events.send(
        "failed",
        &json!({"column": null, "sentence": format!("{}.", capital.trim_end_matches('.'))}).to_string(),
    )
}

/// The inside of the page.
pub(super) fn inner(playground: Option<&Playground>) -> String {
    match playground {
        Some(playground) => page::inner(&playground.facts),
        None => page::without_model(),
    }
}
