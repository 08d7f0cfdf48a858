//! `sibo chat`: a conversation, line by line.

use crate::app::App;
use crate::interrupt;
use crate::places::ModelArgs;
use crate::speaker::{ChoiceArgs, Speaker};
use sibo_text::{Message, Template};
use std::io::{BufRead, IsTerminal};
use std::ops::ControlFlow;

const LONG_ABOUT: &str = "\
Talks with a model, line by line. The conversation is rendered by the template that the adapter was trained \
with, else by the model's own chat template.

Lines that begin with a slash are for the program: /reset forgets the conversation, /undo its last exchange, \
/system TEXT says how the model should behave, /quit ends (so does Ctrl-D). Ctrl-C cuts an answer short.";

/// Talk with a model, line by line
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// How the model should behave, said before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
}

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Say(&'a str),
    Reset,
    Undo,
    System(&'a str),
    Quit,
    Nothing,
    Unknown(&'a str),
}

fn parse(line: &str) -> Line<'_> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match word {
        "" => Line::Nothing,
        "/reset" => Line::Reset,
        "/undo" => Line::Undo,
        "/system" => Line::System(rest.trim()),
        "/quit" | "/exit" => Line::Quit,
        other if other.starts_with('/') => Line::Unknown(other),
        _ => Line::Say(line),
    }
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let speaker = Speaker::load(&app.places, &args.model, args.choice.template.as_deref())?;
    let remembers = matches!(speaker.template, Some(Template::Chat(_)));
    introduce(&speaker, remembers, app);
    interrupt::listen();
    let mut turns: Vec<Message> = args.system.iter().map(|text| Message::new("system", text)).collect();
    let asks = std::io::stdin().is_terminal();
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if asks {
            app.out.piece("> ");
        }
        let Some(line) = lines.next() else { break };
        match parse(&line.map_err(|e| anyhow::anyhow!("stdin: {e}"))?) {
            Line::Nothing => {}
            Line::Quit => break,
            Line::Reset => turns.retain(|turn| turn.role == "system"),
            Line::Undo => undo(&mut turns),
            Line::System(text) => set_system(&mut turns, text),
            Line::Unknown(word) => {
                app.out.note(format!("{word}: not known; there are /reset, /undo, /system TEXT and /quit"));
            }
            Line::Say(text) => {
                turns.push(Message::new("user", text));
                answer(&speaker, &mut turns, &args.choice, app);
                if !remembers {
                    turns.retain(|turn| turn.role == "system");
                }
            }
        }
    }
    Ok(())
}

fn introduce(speaker: &Speaker, remembers: bool, app: &App) {
    match &speaker.template {
        Some(template) if remembers => app.out.note(format!("Template: {}. /quit ends.", template.name())),
        Some(template) => app.out.note(format!(
            "Template: {}, which knows one question and one answer: each line stands alone. /quit ends.",
            template.name()
        )),
        None => app.out.note("No template: each line is continued as plain text. /quit ends."),
    }
}

/// Takes the last exchange back.
fn undo(turns: &mut Vec<Message>) {
    while turns.last().is_some_and(|turn| turn.role == "assistant") {
        turns.pop();
    }
    if turns.last().is_some_and(|turn| turn.role == "user") {
        turns.pop();
    }
}

fn set_system(turns: &mut Vec<Message>, text: &str) {
    turns.retain(|turn| turn.role != "system");
    if !text.is_empty() {
        turns.insert(0, Message::new("system", text));
    }
}

/// Answers the last turn; what goes wrong is said, and the conversation goes on without that turn.
fn answer(speaker: &Speaker, turns: &mut Vec<Message>, choice: &ChoiceArgs, app: &App) {
    let show = |_, piece: &str| {
        app.out.piece(piece);
        ControlFlow::Continue(())
    };
    let answers = speaker.conversation(turns).and_then(|prompt| speaker.sample(&[prompt], choice, show));
    app.out.piece("\n");
    let cut_short = interrupt::take();
    match answers {
        Ok(answers) => {
            if cut_short {
                app.out.note("(cut short)");
            }
            turns.extend(answers.first().map(|a| Message::new("assistant", &a.text)));
        }
        Err(error) => {
            turns.pop();
            app.out.warn(crate::exit::sentence(&error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_said_or_obeyed() {
        assert_eq!(parse("  What is it? "), Line::Say("What is it?"));
        assert_eq!(parse("/system Be brief."), Line::System("Be brief."));
        assert_eq!((parse("/quit"), parse(""), parse("/reset")), (Line::Quit, Line::Nothing, Line::Reset));
        assert_eq!(parse("/rest now"), Line::Unknown("/rest"));
    }

    #[test]
    fn undo_takes_question_and_answer() {
        let turn = |role, text| Message::new(role, text);
        let mut turns = vec![
            turn("system", "s"),
            turn("user", "1"),
            turn("assistant", "2"),
            turn("user", "3"),
            turn("assistant", "4"),
        ];
        undo(&mut turns);
        assert_eq!(turns.last().unwrap().content, "2");
        set_system(&mut turns, "other");
        assert_eq!((turns.len(), turns[0].content.as_str()), (3, "other"));
    }
}
