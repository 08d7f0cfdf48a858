//! How each protocol asks a language model about a task's row, and what training teaches on it.

use crate::answer::{Judged, Reading};
use crate::example::{Example, Target, Text};
use crate::llm_adapters::numbered;
use crate::metrics::Metric;
use crate::prompt::{Choose, Generate, Lesson, Prompt, llm_adapters};
use crate::spec::{Kind, PromptSpec, Protocol};
use crate::{Error, Task, template};
use std::borrow::Cow;

/// Asking language models.
impl Task {
    /// What is measured under `protocol`: the prompt's own metrics, or the task's.
    ///
    /// Free responses are measured by exact match, whatever the task measures otherwise.
    pub fn metrics(&self, protocol: Option<Protocol>) -> Vec<Metric> {
        let Some(prompt) = protocol.and_then(|p| self.spec.prompt.get(&p)) else {
            return self.spec.metrics.clone();
        };
        match (&prompt.metrics[..], protocol.is_some_and(|p| self.is_generated(p))) {
            ([], true) => vec![Metric::ExactMatch],
            ([], false) => self.spec.metrics.clone(),
            (own, _) => own.to_vec(),
        }
    }

    /// Whether `protocol` lets the model write its answer ([`Task::generate`]) or scores choices
    /// ([`Task::choose`]).
    pub fn is_generated(&self, protocol: Protocol) -> bool {
        self.spec.kind.is_generated(protocol)
    }

    /// The likelihood request for a row.
    pub fn choose(&self, example: &Example, protocol: Protocol) -> Result<Choose, Error> {
        let prompt = self.prompt(protocol)?;
        if self.is_generated(protocol) {
            return Err(self.protocol_error(protocol, "asks for a free response; use generation".into()));
        }
        let (choices, gold) = self.choices(prompt, example, protocol)?;
        if let Some(blank) = &prompt.blank {
            let (before, after) = self.around(blank, example, protocol)?;
            let contexts = choices.iter().map(|c| format!("{before}{c}")).collect();
            let continuations = vec![format!("{}{after}", prompt.delimiter); choices.len()];
            return Ok(Choose { contexts, continuations, choices, gold });
        }
        let contexts = vec![self.context(prompt, example, protocol)?; choices.len()];
        let continuations = choices.iter().map(|c| format!("{}{c}", prompt.delimiter)).collect();
        Ok(Choose { contexts, continuations, choices, gold })
    }

    /// What stands before and after the blank of a question; blanks around the latter are dropped, as the
    /// harness does.
    fn around<'a>(
        &self,
        blank: &str,
        example: &'a Example,
        protocol: Protocol,
    ) -> Result<(&'a str, &'a str), Error> {
        let cut = match &example.text {
            Text::Question { question, .. } => question.split_once(blank),
            _ => None,
        };
        cut.map(|(before, after)| (before, after.trim())).ok_or_else(|| {
            self.protocol_error(
                protocol,
                format!("row {} has no blank `{blank}` in its question", example.id),
            )
        })
    }

    /// The generation request for a row.
    pub fn generate(&self, example: &Example, protocol: Protocol) -> Result<Generate, Error> {
        let prompt = self.prompt(protocol)?;
        if !self.is_generated(protocol) {
            return Err(self.protocol_error(protocol, "scores choices by likelihood; use those".into()));
        }
        let shown = match protocol {
            Protocol::LmEval => Prompt::Verbatim(self.context(prompt, example, protocol)?),
            Protocol::Clean => self.instruction(prompt, example, protocol)?,
            Protocol::LlmAdapters => Prompt::Verbatim(llm_adapters::evaluation(
                &self.instruction_text(prompt, example, protocol)?,
                "",
            )),
        };
        let gold = match &example.target {
            Target::Answer { gold, .. } => Some(gold.clone()),
            _ => self.word(example).map(Cow::into_owned),
        };
        let gold =
            gold.ok_or_else(|| self.protocol_error(protocol, "has no word for the right class".into()))?;
        Ok(self.request(prompt, protocol, shown, gold))
    }

    /// What each reading makes of a response whose right answer is `gold`: the task's readings, or those given.
    pub fn judge(
        &self,
        protocol: Protocol,
        response: &str,
        gold: &str,
        readings: &[Reading],
    ) -> Result<Vec<Judged>, Error> {
        let shown = Prompt::Verbatim(String::new());
        let mut request = self.request(self.prompt(protocol)?, protocol, shown, gold.to_owned());
        if !readings.is_empty() {
            request.readings = readings.to_vec();
        }
        Ok(request.judge(response))
    }

    fn request(&self, prompt: &PromptSpec, protocol: Protocol, shown: Prompt, gold: String) -> Generate {
        let words = match &self.spec.llm_adapters {
            Some(form) => form.words_to_read(),
            None => self.spec.labels.clone(),
        };
        Generate {
            prompt: shown,
            until: prompt.until.clone(),
            max_new_tokens: prompt.max_new_tokens,
            beams: prompt.beams,
            gold,
            readings: prompt.reading.clone(),
            words,
            cut: (protocol == Protocol::LlmAdapters).then_some(llm_adapters::CUT),
        }
    }

    /// What training teaches on a row under `protocol`.
    pub fn lesson(&self, example: &Example, protocol: Protocol) -> Result<Lesson, Error> {
        let prompt = self.prompt(protocol)?;
        if protocol == Protocol::LmEval && self.spec.kind == Kind::MultipleChoice && prompt.response.is_none()
        {
            // The right choice as it would be scored, in its place.
            let mut asked = self.choose(example, protocol)?;
            let prompt = Prompt::Verbatim(asked.contexts.swap_remove(asked.gold));
            return Ok(Lesson { prompt, response: asked.continuations.swap_remove(asked.gold) });
        }
        if protocol == Protocol::LmEval {
            let context = Prompt::Verbatim(self.context(prompt, example, protocol)?);
            let learned = match (&prompt.response, self.spec.kind) {
                (Some(response), _) => self.fill(response, example, protocol)?,
                (None, Kind::Generation) => self.fill("{answer}", example, protocol)?,
                (None, _) => {
                    let (mut choices, gold) = self.choices(prompt, example, protocol)?;
                    choices.swap_remove(gold)
                }
            };
            return Ok(Lesson { prompt: context, response: format!("{}{learned}", prompt.delimiter) });
        }
        let default = self.spec.llm_adapters.as_ref().map(|form| &form.response);
        let response = prompt.response.as_ref().or(default).ok_or_else(|| {
            self.protocol_error(protocol, "has no `response`, so there is nothing to teach".into())
        })?;
        let shown = match protocol {
            Protocol::LlmAdapters => Prompt::Verbatim(llm_adapters::training(
                &self.instruction_text(prompt, example, protocol)?,
                "",
            )),
            _ => self.instruction(prompt, example, protocol)?,
        };
        Ok(Lesson { prompt: shown, response: self.fill(response, example, protocol)? })
    }

    /// Worked rows before a request's context, as lm-evaluation-harness joins them (`lm-eval` only).
    pub fn few_shot(&self, shots: &[Example]) -> Result<String, Error> {
        let mut text = String::new();
        for shot in shots {
            let lesson = self.lesson(shot, Protocol::LmEval)?;
            if let Prompt::Verbatim(context) = &lesson.prompt {
                text += &format!("{context}{}\n\n", lesson.response);
            }
        }
        Ok(text)
    }

    /// The protocol that it is asked by where nobody names one: clean, or where it has no prompts for that (GLUE's tasks are
    /// asked in lm-evaluation-harness's words only) the first that it has prompts for.
    pub fn usual_protocol(&self) -> Protocol {
        let has = |protocol: &Protocol| self.spec.prompt.contains_key(protocol);
        let first = std::iter::once(Protocol::Clean).chain(Protocol::ALL).find(has);
        first.unwrap_or(Protocol::Clean)
    }

    /// Refuses a protocol that the task has no prompts for.
    ///
    /// # Errors
    /// With those that it has.
    pub fn check_protocol(&self, protocol: Protocol) -> Result<(), Error> {
        self.prompt(protocol).map(|_| ())
    }

    fn prompt(&self, protocol: Protocol) -> Result<&PromptSpec, Error> {
        self.spec.prompt.get(&protocol).ok_or_else(|| {
            let has: Vec<&str> = self.spec.prompt.keys().map(|p| p.name()).collect();
            let problem = match has.is_empty() {
                true => "the task has no prompts for a language model; train a classification head".into(),
                false => format!("the task has prompts for {} only", has.join(", ")),
            };
            self.protocol_error(protocol, problem)
        })
    }

    /// The first context whose places the row fills.
    fn context(&self, prompt: &PromptSpec, example: &Example, protocol: Protocol) -> Result<String, Error> {
        let contexts = prompt.context.as_ref().map(|c| c.as_slice()).unwrap_or_default();
        let mut missing = String::from("context");
        let own = |place: &str| match (place, &prompt.choice) {
            ("choices", Some(_)) => {
                let (choices, _) = self.choices(prompt, example, protocol).ok()?;
                Some(Cow::from(choices.join(" ")))
            }
            _ => self.place(place, example),
        };
        for context in contexts {
            match template::fill(context, own) {
                Ok(text) => return Ok(text),
                Err(place) => missing = place,
            }
        }
        Err(self.protocol_error(protocol, format!("row {} has no `{missing}` for its context", example.id)))
    }

    fn instruction(
        &self,
        prompt: &PromptSpec,
        example: &Example,
        protocol: Protocol,
    ) -> Result<Prompt, Error> {
        let instruction = self.instruction_text(prompt, example, protocol)?;
        Ok(Prompt::Instruction { instruction, input: String::new() })
    }

    fn instruction_text(
        &self,
        prompt: &PromptSpec,
        example: &Example,
        protocol: Protocol,
    ) -> Result<String, Error> {
        if let Some(own) = &prompt.instruction {
            return self.fill(own, example, protocol);
        }
        match (&self.spec.llm_adapters, &example.text) {
            (Some(form), Text::Question { question, .. }) => Ok(form.write(question, choices_of(example))),
            _ => Err(self.protocol_error(protocol, "has no `instruction` for such rows".into())),
        }
    }

    fn fill(&self, text: &str, example: &Example, protocol: Protocol) -> Result<String, Error> {
        template::fill(text, |place| self.place(place, example)).map_err(|place| {
            self.protocol_error(protocol, format!("row {} has no `{place}` to fill in", example.id))
        })
    }

    fn place<'a>(&'a self, name: &str, example: &'a Example) -> Option<Cow<'a, str>> {
        match (name, &self.spec.llm_adapters) {
            ("word", _) => self.word(example),
            ("choices", Some(form)) => Some(Cow::from(form.write_choices(choices_of(example)))),
            ("words", Some(form)) => Some(Cow::from(form.words(choices_of(example).len()).join("/"))),
            ("choice", _) => match &example.target {
                Target::Class(class) => self.spec.labels.get(*class as usize).map(Cow::from),
                _ => example.place(name),
            },
            _ => example.place(name),
        }
    }

    /// The label word of the right class: LLM-Adapters' where it has words, the label's name otherwise.
    fn word<'a>(&'a self, example: &Example) -> Option<Cow<'a, str>> {
        let (gold, choices) = match &example.target {
            Target::Choice { choices, gold } => (*gold, choices.len()),
            Target::Class(class) => (*class as usize, self.spec.labels.len()),
            _ => return None,
        };
        let words = self.spec.llm_adapters.as_ref().map(|f| f.words(choices)).unwrap_or_default();
        words.get(gold).cloned().map(Cow::from).or_else(|| self.spec.labels.get(gold).map(Cow::from))
    }

    fn choices(
        &self,
        prompt: &PromptSpec,
        example: &Example,
        protocol: Protocol,
    ) -> Result<(Vec<String>, usize), Error> {
        let (own, gold) = match &example.target {
            Target::Choice { choices, gold } => (choices.clone(), *gold),
            Target::Class(class) => (self.spec.labels.clone(), *class as usize),
            _ => return Err(self.protocol_error(protocol, "has no choices to score".into())),
        };
        let plain = prompt.choices.clone().unwrap_or(own);
        let written = plain.iter().enumerate().map(|(i, choice)| match &prompt.choice {
            None => Ok(choice.clone()),
            Some(form) => write_choice(form, i, choice)
                .map_err(|place| self.protocol_error(protocol, format!("`choice` has no place {{{place}}}"))),
        });
        Ok((written.collect::<Result<_, _>>()?, gold))
    }

    fn protocol_error(&self, protocol: Protocol, problem: String) -> Error {
        Error::Protocol { task: self.name().into(), protocol: protocol.to_string(), problem }
    }
}

/// Choice `i` (from 0) in a prompt's form; the error is the name of a place that choices do not fill.
fn write_choice(form: &str, i: usize, choice: &str) -> Result<String, String> {
    template::fill(form, |place| match place {
        "choice" => Some(Cow::from(choice)),
        "n" | "letter" => Some(Cow::from(numbered(&format!("{{{place}}}"), i))),
        _ => None,
    })
}

fn choices_of(example: &Example) -> &[String] {
    match &example.target {
        Target::Choice { choices, .. } => choices,
        _ => &[],
    }
}
