//! Training data of instructions and chats: a JSON array, one JSON object a line or parquet, in the usual forms.

use super::record::{Layout, Record, kind, records};
use crate::Error;
use crate::example::{Example, Message, Role, Target, Text};
use crate::spec::Format;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The form of a training row, told by its keys unless it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionFormat {
    /// `{messages: [{role, content}]}`
    Messages,
    /// `{conversations: [{from, value}]}`
    ShareGpt,
    /// `{instruction, input, output}`; `input` may be empty, null or absent.
    Alpaca,
    /// `{prompt, completion}`: two strings that stand without a template, or two lists of messages.
    PromptCompletion,
    /// `{text}`: all of it is learned.
    Text,
}

impl InstructionFormat {
    /// All formats, in the order in which detection tries them.
    pub const ALL: [InstructionFormat; 5] =
        [Self::Messages, Self::ShareGpt, Self::Alpaca, Self::PromptCompletion, Self::Text];

    /// The name in recipes and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::ShareGpt => "sharegpt",
            Self::Alpaca => "alpaca",
            Self::PromptCompletion => "prompt-completion",
            Self::Text => "text",
        }
    }

    /// The format of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.name() == name)
    }

    /// The keys that a row of this format must have.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Messages => &["messages"],
            Self::ShareGpt => &["conversations"],
            Self::Alpaca => &["instruction", "output"],
            Self::PromptCompletion => &["prompt", "completion"],
            Self::Text => &["text"],
        }
    }
}

/// Reads training rows from `path`, a file or a folder with one; without a `format` the first row's keys
/// decide it for all rows.
pub fn read(path: &Path, format: Option<InstructionFormat>) -> Result<Vec<Example>, Error> {
    let rows = rows_of(path)?;
    let format = match format {
        Some(format) => format,
        None => detect(&rows[0].0, &rows[0].1)?,
    };
    rows.iter()
        .enumerate()
        .map(|(i, (path, record))| {
            let (text, target) = Row { path, record }.read(format)?;
            Ok(Example { id: i as u64, text, target })
        })
        .collect()
}

/// The texts of one column of a file of rows, whatever else they hold.
pub fn read_column(path: &Path, column: &str) -> Result<Vec<String>, Error> {
    rows_of(path)?.iter().map(|(path, record)| Row { path, record }.string(column)).collect()
}

/// The rows of a file of JSON or parquet, or of the one split of a folder, each with the file that it lies in.
fn rows_of(path: &Path) -> Result<Vec<(Rc<PathBuf>, Record)>, Error> {
    let mut all = Vec::new();
    for path in super::folder::rows_files(path)? {
        let rows = match path.extension().and_then(|end| end.to_str()) {
            _ if super::parquet::is(&path) => super::parquet::records(&path)?,
            Some("arrow") => return Err(Error::Arrow { path }),
            _ => {
                let text = super::text::read(&path)?;
                let format =
                    if text.trim_start().starts_with('[') { Format::Json } else { Format::JsonLines };
                records(&path, &text, Layout { format, header: false, skips_broken: false })?
            }
        };
        let path = Rc::new(path);
        all.extend(rows.into_iter().map(|record| (path.clone(), record)));
    }
    Ok(all)
}

fn detect(path: &Path, first: &Record) -> Result<InstructionFormat, Error> {
    let fits = |f: &InstructionFormat| f.keys().iter().all(|k| first.named(k).is_some());
    InstructionFormat::ALL.into_iter().find(fits).ok_or_else(|| {
        let known: Vec<String> = InstructionFormat::ALL
            .iter()
            .map(|f| format!("{} {{{}}}", f.name(), f.keys().join(", ")))
            .collect();
        Error::UnknownFormat { path: path.to_owned(), keys: first.shown(), known: known.join("; ") }
    })
}

struct Row<'a> {
    path: &'a Path,
    record: &'a Record,
}

impl Row<'_> {
    fn read(&self, format: InstructionFormat) -> Result<(Text, Target), Error> {
        self.check_unread(format)?;
        match format {
            InstructionFormat::Alpaca => {
                let instruction = self.filled("instruction")?;
                let input = match self.record.named("input") {
                    None | Some(Value::Null) => None,
                    Some(_) => Some(self.string("input")?),
                };
                let text = Text::Prompt { instruction, input: input.unwrap_or_default() };
                Ok((text, Target::Response(self.filled("output")?)))
            }
            InstructionFormat::PromptCompletion => match self.value("prompt")? {
                Value::Array(mut turns) => {
                    let Value::Array(rest) = self.value("completion")? else {
                        return Err(self.chat("`prompt` is a list of messages, so `completion` must be one"));
                    };
                    let answers = rest.len();
                    if answers != 1 {
                        return Err(self.chat(&format!(
                            "`completion` has {answers} messages; it takes one, the assistant's. Give a longer conversation as `messages`, where every answer is learned"
                        )));
                    }
                    turns.extend(rest);
                    let mut messages = self.turns(&turns, "role", "content")?;
                    let answer = messages.pop().map(|m| m.content).unwrap_or_default();
                    // The prompt's own answers are given, not learned.
                    Ok((Text::Chat(messages), Target::Response(answer)))
                }
                _ => {
                    let completion = Target::Response(self.filled("completion")?);
                    Ok((Text::Verbatim(self.string("prompt")?), completion))
                }
            },
            InstructionFormat::Text => Ok((Text::Plain(self.filled("text")?), Target::InText)),
            InstructionFormat::Messages => self.conversation("messages", "role", "content"),
            InstructionFormat::ShareGpt => self.conversation("conversations", "from", "value"),
        }
    }

    /// Refuses what would change the text or what is learned of it, and is not read.
    fn check_unread(&self, format: InstructionFormat) -> Result<(), Error> {
        let keys: &[&str] = match format {
            InstructionFormat::Alpaca => &["system", "history"],
            InstructionFormat::Messages | InstructionFormat::ShareGpt => &["tools"],
            InstructionFormat::PromptCompletion => &["tools", "system"],
            InstructionFormat::Text => &[],
        };
        match keys.iter().find(|key| self.record.named(key).as_ref().is_some_and(is_filled)) {
            None => Ok(()),
            Some(key) => Err(self.chat(&format!(
                "`{key}` is not read, and would be part of the text; rows of `messages` {{role, content}} hold a system's message and earlier turns"
            ))),
        }
    }

    fn conversation(&self, column: &str, role: &str, content: &str) -> Result<(Text, Target), Error> {
        match self.value(column)? {
            // Some write ShareGPT's column with the keys of the other form.
            Value::Array(turns)
                if turns.first().is_some_and(|t| t.get(role).is_none() && t.get("role").is_some()) =>
            {
                self.messages(&turns, "role", "content")
            }
            Value::Array(turns) => self.messages(&turns, role, content),
            other => Err(self.shape(column, "a list of messages", &other)),
        }
    }

    fn messages(&self, turns: &[Value], role: &str, content: &str) -> Result<(Text, Target), Error> {
        let mut messages = self.turns(turns, role, content)?;
        // Some write the system's message beside the list.
        if self.record.named("system").as_ref().is_some_and(is_filled) {
            if messages[0].role == Role::System {
                return Err(
                    self.chat("the system's message stands both in `system` and in the list; leave one out")
                );
            }
            messages.insert(0, Message { role: Role::System, content: self.filled("system")? });
        }
        Ok((Text::Chat(messages), Target::InText))
    }

    /// Messages of which the last is the assistant's.
    fn turns(&self, turns: &[Value], role: &str, content: &str) -> Result<Vec<Message>, Error> {
        let turn = |(i, turn): (usize, &Value)| {
            let turn = turn.as_object().ok_or_else(|| {
                self.chat(&format!("message {} is {}, not {{{role}, {content}}}", i + 1, kind(turn)))
            })?;
            self.message(i, turn, role, content)
        };
        let messages: Vec<Message> = turns.iter().enumerate().map(turn).collect::<Result<_, _>>()?;
        if let Some(at) = messages.iter().skip(1).position(|m| m.role == Role::System) {
            return Err(self.chat(&format!("message {} is the system's, which may only come first", at + 2)));
        }
        match messages.last().map(|m| m.role) {
            Some(Role::Assistant) => Ok(messages),
            Some(role) => Err(self.chat(&format!(
                "the last message is the {}'s; it must be the assistant's, or there is nothing to learn",
                role.name()
            ))),
            None => Err(self.chat("the conversation is empty")),
        }
    }

    fn message(
        &self,
        i: usize,
        turn: &Map<String, Value>,
        role: &str,
        content: &str,
    ) -> Result<Message, Error> {
        let text = |key: &str| turn.get(key).and_then(Value::as_str).unwrap_or_default();
        let role = match text(role) {
            "system" => Role::System,
            "user" | "human" => Role::User,
            "assistant" | "gpt" => Role::Assistant,
            other => {
                let problem =
                    format!("message {} has the {role} `{other}`; known: system, user, assistant", i + 1);
                return Err(self.chat(&problem));
            }
        };
        if turn.get("tool_calls").is_some_and(is_filled) {
            return Err(self.chat(&format!("message {} has `tool_calls`, which are not supported", i + 1)));
        }
        if turn.get("weight").is_some_and(|w| !w.is_null() && w.as_f64() != Some(1.0)) {
            return Err(self.chat(&format!(
                "message {} has the `weight` {}; every answer of a conversation is learned alike (one answer alone: `prompt` and `completion` as lists of messages)",
                i + 1,
                turn["weight"]
            )));
        }
        if turn.get(content).is_some_and(Value::is_array) {
            return Err(self.chat(&format!("message {} has a list in `{content}`; it must be a text", i + 1)));
        }
        if text(content).trim().is_empty() {
            return Err(self.chat(&format!("message {} has no text in `{content}`", i + 1)));
        }
        Ok(Message { role, content: text(content).to_owned() })
    }

    fn value(&self, column: &str) -> Result<Value, Error> {
        self.record.json().and_then(|row| row.get(column)).cloned().ok_or_else(|| Error::MissingColumn {
            path: self.path.to_owned(),
            place: self.record.place,
            column: column.into(),
            has: self.record.shown(),
        })
    }

    fn string(&self, column: &str) -> Result<String, Error> {
        match self.value(column)? {
            Value::String(text) => Ok(text),
            other => Err(self.shape(column, "a string", &other)),
        }
    }

    fn filled(&self, column: &str) -> Result<String, Error> {
        let text = self.string(column)?;
        if text.trim().is_empty() {
            let (path, place, column) = (self.path.to_owned(), self.record.place, column.into());
            return Err(Error::EmptyText { path, place, column });
        }
        Ok(text)
    }

    fn shape(&self, column: &str, expected: &str, found: &Value) -> Error {
        Error::Shape {
            path: self.path.to_owned(),
            place: self.record.place,
            expected: format!("{expected} in `{column}`"),
            found: kind(found).into(),
        }
    }

    fn chat(&self, problem: &str) -> Error {
        Error::Chat { path: self.path.to_owned(), place: self.record.place, problem: problem.into() }
    }
}

/// Whether a value says anything.
fn is_filled(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn rows(text: &str) -> Result<Vec<Example>, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        read(file.path(), None).map_err(|e| e.to_string())
    }

    #[test]
    fn each_form_is_told_by_its_keys() {
        let r = rows(r#"[{"instruction": "Add", "input": "1 2", "output": "3"}, {"instruction": "Hi", "output": "x"}]"#)
            .unwrap();
        assert_eq!(r[0].text, Text::Prompt { instruction: "Add".into(), input: "1 2".into() });
        assert_eq!((r[1].id, &r[1].target), (1, &Target::Response("x".into())));
        let r = rows("{\"prompt\": \"a\", \"completion\": \" b\"}\n").unwrap();
        assert_eq!((&r[0].text, &r[0].target), (&Text::Verbatim("a".into()), &Target::Response(" b".into())));
        let r = rows("\u{feff}{\"text\": \"all\"}").unwrap();
        assert_eq!((&r[0].text, &r[0].target), (&Text::Plain("all".into()), &Target::InText));
        let chat = r#"{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}"#;
        let Text::Chat(messages) = &rows(chat).unwrap()[0].text else { panic!() };
        assert_eq!(messages.iter().map(|m| m.role.name()).collect::<Vec<_>>(), ["user", "assistant"]);
        let parted = r#"{"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}"#;
        let r = rows(parted).unwrap();
        assert_eq!(r[0].text, Text::Chat(messages[..1].to_vec()));
        assert_eq!(r[0].target, Target::Response("a".into()));
        let mixed =
            r#"{"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#;
        assert_eq!(rows(mixed).unwrap()[0].text, rows(chat).unwrap()[0].text);
        let beside = r#"{"system": "s", "tools": [], "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}"#;
        let Text::Chat(messages) = &rows(beside).unwrap()[0].text else { panic!() };
        assert_eq!(
            (messages.len(), messages[0].role.name(), messages[0].content.as_str()),
            (3, "system", "s")
        );
        let r = rows(r#"[{"instruction": "Hi", "input": null, "system": "", "output": "x"}]"#).unwrap();
        assert_eq!(r[0].text, Text::Prompt { instruction: "Hi".into(), input: String::new() });
    }

    #[test]
    fn faults_are_sentences_with_their_row() {
        let e = rows("[{\"question\": \"x\"}]").unwrap_err();
        assert!(e.contains("from the keys `question`") && e.contains("alpaca {instruction, output}"), "{e}");
        let e = rows("{\"text\": \"a\"}\n{\"txt\": \"b\"}").unwrap_err();
        assert!(e.contains("line 2: no column `text`; the row has `txt`"), "{e}");
        let e = rows("[{\"instruction\": \"a\", \"output\": \" \"}]").unwrap_err();
        assert!(e.contains("row 1: column `output` is empty"), "{e}");
        let e = rows(r#"{"messages": [{"role": "user", "content": "q"}]}"#).unwrap_err();
        assert!(e.contains("line 1: the last message is the user's"), "{e}");
        let e = rows(r#"{"messages": [{"role": "tool", "content": "q"}]}"#).unwrap_err();
        assert!(e.contains("message 1 has the role `tool`"), "{e}");
        for (row, part) in [
            (
                r#"{"prompt": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "completion": []}"#,
                "`completion` has 0 messages",
            ),
            (
                r#"{"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]}"#,
                "`completion` has 3 messages",
            ),
            (
                r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]}"#,
                "message 2 has the `weight` 0",
            ),
            (
                r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "tool_calls": [{"id": 1}]}]}"#,
                "message 2 has `tool_calls`",
            ),
            (r#"{"messages": [{"role": "user", "content": [{"type": "text"}]}]}"#, "has a list in `content`"),
            (
                r#"{"tools": [{"name": "f"}], "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#,
                "`tools` is not read",
            ),
            (r#"{"instruction": "i", "output": "o", "history": [["a", "b"]]}"#, "`history` is not read"),
        ] {
            let e = rows(row).unwrap_err();
            assert!(e.contains(part), "{e}");
        }
        let e = rows("{\"text\": 3}").unwrap_err();
        assert!(e.contains("expected a string in `text`, found a number"), "{e}");
    }
}
