//! A model's own chat template: where it is stored, and how it is rendered.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::{Deserialize, Serialize};

use crate::special::read_json;
use crate::{SpecialTokens, TextError, Tokenizer, jinja};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What was said.
    #[serde(default)]
    pub content: String,
    /// Other keys that a template may read, such as `tool_calls`.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Message {
    /// A turn without other keys.
    pub fn new(role: &str, content: &str) -> Self {
        Message { role: role.to_owned(), content: content.to_owned(), extra: serde_json::Map::new() }
    }
}

/// A compiled chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    name: String,
    source: String,
    env: Environment<'static>,
    tokens: Value,
}

/// The name under which the compiled source is registered.
const MAIN: &str = "chat";

impl ChatTemplate {
    /// The model's template called `name` (default: `default`) for this tokenizer.
    ///
    /// `now` is the moment that `strftime_now` shows: seconds since 1970, UTC. Keep it with the run,
    /// or a template that prints the date renders differently tomorrow.
    ///
    /// # Errors
    /// The folder has no template, none of that name, or one that does not parse.
    pub fn of_model(tokenizer: &Tokenizer, name: Option<&str>, now: i64) -> Result<Self, TextError> {
        let folder = tokenizer.folder();
        let mut stored = stored_templates(folder)?;
        if stored.is_empty() {
            return Err(TextError::NoChatTemplate { folder: folder.to_owned() });
        }
        let wanted = name.unwrap_or("default");
        let Some(source) = stored.remove(wanted) else {
            let have: Vec<_> = stored.into_keys().collect();
            let why = format!("the model has no such chat template; it has: {}", have.join(", "));
            return Err(TextError::Template { name: wanted.to_owned(), why });
        };
        Self::from_source(wanted, source, tokenizer.special(), now)
    }

    /// Compile a template's source text.
    ///
    /// # Errors
    /// A syntax error, with its line.
    pub fn from_source(
        name: &str,
        source: String,
        special: &SpecialTokens,
        now: i64,
    ) -> Result<Self, TextError> {
        let mut env = jinja::environment(now);
        let known = jinja::without_generation_markers(&source);
        env.add_template_owned(MAIN, known).map_err(|e| explain(name, &e))?;
        let named = [
            ("bos_token", &special.bos),
            ("eos_token", &special.eos),
            ("pad_token", &special.pad),
            ("unk_token", &special.unk),
            ("cls_token", &special.cls),
            ("sep_token", &special.sep),
            ("mask_token", &special.mask),
        ];
        let tokens = named.into_iter().filter_map(|(key, token)| Some((key, token.as_ref()?.text.clone())));
        let tokens = Value::from_pairs(tokens);
        Ok(ChatTemplate { name: name.to_owned(), source, env, tokens })
    }

    /// The conversation as one text; with `add_generation_prompt`, up to where the assistant's answer begins.
    /// `tools` is a JSON list of function descriptions, for templates that know them.
    ///
    /// # Errors
    /// What the template itself raises, or a fault in it.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Result<String, TextError> {
        let values = context! {
            messages => Serde(messages),
            tools => Serde(tools),
            documents => (),
            add_generation_prompt,
            ..self.tokens.clone()
        };
        let template = self.env.get_template(MAIN).map_err(|e| explain(&self.name, &e))?;
        template.render(values).map_err(|e| explain(&self.name, &e))
    }

    /// The name it was asked for by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The template's source text, to be kept with an adapter.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// The engine's message with its line, and the cause beneath it.
fn explain(name: &str, error: &minijinja::Error) -> TextError {
    let mut why = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    if let Some(line) = error.line() {
        why += &format!(" (line {line})");
    }
    TextError::Template { name: name.to_owned(), why }
}

/// All templates stored with a model, by name. Files of their own count before `tokenizer_config.json`.
fn stored_templates(folder: &Path) -> Result<BTreeMap<String, String>, TextError> {
    let mut found = in_config(&folder.join("tokenizer_config.json"))?;
    found.extend(in_config(&folder.join("chat_template.json"))?);
    let own = folder.join("chat_template.jinja");
    if own.is_file() {
        found.insert("default".to_owned(), read(&own)?);
    }
    let more = folder.join("additional_chat_templates");
    for entry in std::fs::read_dir(&more).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "jinja") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            found.insert(name, read(&path)?);
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<String, TextError> {
    std::fs::read_to_string(path).map_err(|e| TextError::io(path, e))
}

/// `chat_template` of a JSON file: one text, a list of `{name, template}`, or texts by name.
fn in_config(path: &Path) -> Result<BTreeMap<String, String>, TextError> {
    let config = read_json(path)?;
    let text = |v: &serde_json::Value| v.as_str().map(str::to_owned);
    let pairs: Option<BTreeMap<_, _>> = match &config["chat_template"] {
        serde_json::Value::Null => Some(BTreeMap::new()),
        serde_json::Value::String(one) => Some(BTreeMap::from([("default".to_owned(), one.clone())])),
        serde_json::Value::Array(list) => {
            list.iter().map(|item| Some((text(&item["name"])?, text(&item["template"])?))).collect()
        }
        serde_json::Value::Object(named) => named.iter().map(|(k, v)| Some((k.clone(), text(v)?))).collect(),
        _ => None,
    };
    pairs.ok_or_else(|| TextError::bad(path, "chat_template should be a text, or a list of {name, template}"))
}
