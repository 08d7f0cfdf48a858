//! What a model should have said: the texts whose likelihood judges a task of written answers without writing any.

use crate::example::{Example, Target};
use crate::prompt::Prompt;
use crate::spec::{Kind, Protocol};
use crate::{Error, Task};

/// A gold text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gold {
    /// The benchmark's own worked solution, its answer at the end.
    Reasoning,
    /// The answer alone.
    Answer,
    /// A solution that another model wrote, of rows where it reaches the gold answer.
    OthersReasoning,
}

impl Gold {
    /// All of them.
    pub const ALL: [Gold; 3] = [Gold::Reasoning, Gold::Answer, Gold::OthersReasoning];

    /// The name that stands as filter beside a likelihood in result files.
    pub fn name(self) -> &'static str {
        match self {
            Gold::Reasoning => "reasoning",
            Gold::Answer => "answer",
            Gold::OthersReasoning => "others-reasoning",
        }
    }
}

/// A likelihood request: gold texts after one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Golds {
    /// What the model is shown, as when it writes its answer.
    pub prompt: Prompt,
    /// What it should say, as training would teach it; never empty.
    pub texts: Vec<(Gold, String)>,
}

impl Task {
    /// The gold texts of a row whose answer is written under `protocol`: the answer alone, and the worked solution:
    /// the benchmark's own where `solutions` says so ([`crate::Split::own_solutions`]), else another model's if one
    /// of the task's readings finds the gold answer in it.
    pub fn golds(&self, example: &Example, protocol: Protocol, solutions: bool) -> Result<Golds, Error> {
        let request = self.generate(example, protocol)?;
        let mut texts = Vec::new();
        if self.spec.kind != Kind::Generation {
            // The word of the right choice, in the sentence that training teaches.
            texts.push((Gold::Answer, self.lesson(example, protocol)?.response));
            return Ok(Golds { prompt: request.prompt, texts });
        }
        let delimiter = match protocol {
            Protocol::LmEval => self.spec.prompt.get(&protocol).map_or(" ", |p| p.delimiter.as_str()),
            _ => "",
        };
        if let Target::Answer { solution: Some(solution), .. } = &example.target {
            let text = format!("{delimiter}{}", solution.trim_start());
            match solutions {
                true => texts.push((Gold::Reasoning, text)),
                false if request.judge(solution).iter().any(|j| j.right) => {
                    texts.push((Gold::OthersReasoning, text));
                }
                false => {}
            }
        }
        texts.push((Gold::Answer, format!("{delimiter}{}", request.gold)));
        Ok(Golds { prompt: request.prompt, texts })
    }
}
