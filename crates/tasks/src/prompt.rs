//! What a language model is shown: verbatim text, or an instruction or chat for the run's own template.

use crate::answer::{Judged, Reading};
use crate::example::Message;
use serde::Serialize;

/// What stands before a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// These bytes and no template: `lm-eval`, `llm-adapters`, prompt-completion rows.
    Verbatim(String),
    /// For the run's template.
    Instruction {
        /// What to do.
        instruction: String,
        /// What to do it to; often empty.
        input: String,
    },
    /// For the run's template: the turns before the response.
    Chat(Vec<Message>),
}

/// The two texts of the LLM-Adapters project (AGI-Edgerunners/LLM-Adapters, code Apache-2.0, data ODC-By).
///
/// They are data here: `finetune.py` and `evaluate.py` differ in white space, and numbers compare only when
/// every byte is theirs, the indentation of their source included. `sibo-text` has them as a template for rows of
/// one's own, and knows nothing of tasks; a test of `sibo-train`, which knows both, holds the two equal.
pub mod llm_adapters {
    /// What `finetune.py` puts before the response; it tokenises prompt and response as one text.
    pub fn training(instruction: &str, input: &str) -> String {
        if input.is_empty() {
            return format!(
                "Below is an instruction that describes a task. Write a response that appropriately completes \
                 the request.  \n\n{PAD}### Instruction:\n{PAD}{instruction}\n{PAD}\n{PAD}### Response:\n{PAD}"
            );
        }
        format!(
            "Below is an instruction that describes a task, paired with an input that provides further context. \
             Write a response that appropriately completes the request. \n\n{PAD}### Instruction:\n\
             {PAD}{instruction}\n{PAD}\n{PAD}### Input:\n{PAD}{input}\n{PAD}\n{PAD}### Response:\n{PAD}"
        )
    }

    /// What `evaluate.py` and `commonsense_evaluate.py` ask.
    pub fn evaluation(instruction: &str, input: &str) -> String {
        if input.is_empty() {
            return format!(
                "Below is an instruction that describes a task. Write a response that appropriately completes \
                 the request. \n\n{PAD}### Instruction:\n{PAD}{instruction}\n\n{PAD}### Response:\n{PAD}"
            );
        }
        format!(
            "Below is an instruction that describes a task, paired with an input that provides further context. \
             Write a response that appropriately completes the request.\n\n{PAD}### Instruction:\n\
             {PAD}{instruction}\n\n{PAD}### Input:\n{PAD}{input}\n\n{PAD}### Response:\n{PAD}"
        )
    }

    /// Both scripts' source indentation, which is part of their prompts.
    const PAD: &str = "                ";

    /// Their evaluation reads a response up to this mark, should the model write it again.
    pub const CUT: &str = "### Response:";
}

/// A likelihood request: which continuation is likeliest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choose {
    /// The text before each continuation; likelihoods are conditioned on it. All are the same, unless the
    /// choices fill a blank.
    pub contexts: Vec<String>,
    /// What is scored: delimiter and choice (or what follows the blank), in class order.
    pub continuations: Vec<String>,
    /// The choices alone, whose lengths [`crate::metrics::choice::Picks`] normalises by.
    pub choices: Vec<String>,
    /// The right one.
    pub gold: usize,
}

/// A generation request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generate {
    /// What the model is shown.
    pub prompt: Prompt,
    /// Strings that end the response.
    pub until: Vec<String>,
    /// The longest response in tokens.
    pub max_new_tokens: usize,
    /// Beams; 1 is greedy.
    pub beams: usize,
    /// The right answer in the readings' form.
    pub gold: String,
    /// How the response is read.
    pub readings: Vec<Reading>,
    /// Label words, where a reading looks for them.
    pub words: Vec<String>,
    /// Where reading stops without generation having stopped.
    pub cut: Option<&'static str>,
}

impl Generate {
    /// Every reading's judgement of a response, after cutting it at `until` and `cut`.
    pub fn judge(&self, response: &str) -> Vec<Judged> {
        let cuts = self.until.iter().map(String::as_str).chain(self.cut);
        let end = cuts.filter_map(|mark| response.find(mark)).min().unwrap_or(response.len());
        self.readings.iter().map(|r| r.judge(&response[..end], &self.gold, &self.words)).collect()
    }
}

/// What training teaches: `response` after `prompt`, an end-of-text token after both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lesson {
    /// Seen; whether it is also learned is the recipe's choice.
    pub prompt: Prompt,
    /// Learned.
    pub response: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The project's four texts as its Python source prints them, written out line by line.
    #[test]
    fn llm_adapters_texts_are_theirs_to_the_byte() {
        let pad = " ".repeat(16);
        let short = "Below is an instruction that describes a task. Write a response that appropriately completes the request.";
        let long = "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.";
        let lines = |lines: &[&str]| lines.join("\n");
        let (instr, inp, resp) =
            (format!("{pad}### Instruction:"), format!("{pad}### Input:"), format!("{pad}### Response:"));
        let (q, i) = (format!("{pad}Q?"), format!("{pad}I"));
        assert_eq!(
            llm_adapters::training("Q?", ""),
            lines(&[&format!("{short}  "), "", &instr, &q, &pad, &resp, &pad])
        );
        assert_eq!(
            llm_adapters::training("Q?", "I"),
            lines(&[&format!("{long} "), "", &instr, &q, &pad, &inp, &i, &pad, &resp, &pad])
        );
        assert_eq!(
            llm_adapters::evaluation("Q?", ""),
            lines(&[&format!("{short} "), "", &instr, &q, "", &resp, &pad])
        );
        assert_eq!(
            llm_adapters::evaluation("Q?", "I"),
            lines(&[long, "", &instr, &q, "", &inp, &i, "", &resp, &pad])
        );
    }

    /// Sha-256 of what the project's own functions return, run in Python (commit 816657208af4):
    /// `finetune.generate_prompt({instruction, input, output: ""})` and `evaluate.generate_prompt(instruction, input)`
    /// (`commonsense_evaluate` gives the same).
    #[test]
    fn llm_adapters_texts_hash_to_theirs() {
        let hash = |text: String| crate::results::sha256(&text);
        let (plain, with) = (("Which is odd, 3 or 4?", ""), ("Add.", "1 2\n3"));
        for ((instruction, input), training, evaluation) in [
            (
                plain,
                "bbd99ff9c98cefba4aaafcbcf7bf3ef93ed51057ef7a0d26bd81c52548c3e476",
                "9a9e6bbe931fede9d6f3f7e944d62439aeb7e8a0b6bacd0f40c3c3e708987624",
            ),
            (
                with,
                "34513ed51c71693825393ba2f6cdc3de1116022dc1aa8d57e97ade888b939a80",
                "c420118d06f1a71615a4cad77a173e1b76eba0b81df5fb6e0cb70ed4cf975491",
            ),
        ] {
            assert_eq!(hash(llm_adapters::training(instruction, input)), training);
            assert_eq!(hash(llm_adapters::evaluation(instruction, input)), evaluation);
        }
    }

    #[test]
    fn responses_are_cut_before_they_are_read() {
        let request = Generate {
            prompt: Prompt::Verbatim(String::new()),
            until: vec!["Question:".into()],
            max_new_tokens: 5,
            beams: 1,
            gold: "7".into(),
            readings: vec![Reading::LastNumber, Reading::FlexibleExtract],
            words: vec![],
            cut: Some(llm_adapters::CUT),
        };
        assert!(request.judge("so 7\nQuestion: 8").iter().all(|j| j.right));
        assert!(request.judge("so 7 ### Response: 9 Question: 8").iter().all(|j| j.right));
    }
}
