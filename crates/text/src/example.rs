//! From a rendered row to the tokens that a causal model learns from.
//!
//! Three things are kept: the prompt's tokens are those that generation would see (the token-level
//! prefix property), the answer survives the length limit before the prompt does, and the last
//! token is EOS whenever it fits.

use crate::template::{Rendered, Specials};
use crate::{TextError, Tokenizer};

/// The label of a token that is not learned.
pub const IGNORE: i32 = -100;

/// What gives way when a row is longer than the cutoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cut {
    /// The middle of the prompt: its beginning (BOS, the instruction) and its end (the marks that
    /// ask for the answer) stay. The default.
    #[default]
    Middle,
    /// The beginning of the prompt, BOS excepted.
    Left,
    /// The end of the row, answer first, as LLM-Adapters and Alpaca cut.
    Right,
}

/// How rows become tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Longest row in tokens.
    pub cutoff: usize,
    /// Learn the prompt's tokens too.
    pub train_on_inputs: bool,
    /// Put EOS at the end where it fits and is not there already.
    pub add_eos: bool,
    /// What gives way in a long row.
    pub cut: Cut,
}

/// A row to train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenExample {
    /// Token ids; one per token.
    pub input_ids: Vec<u32>,
    /// The same ids where a token is learned, [`IGNORE`] elsewhere; not shifted; one per token.
    pub labels: Vec<i32>,
    /// All zero for causal models; one per token.
    pub type_ids: Vec<u32>,
    /// Tokens of the prompt among `input_ids`.
    pub prompt_len: usize,
    /// Prompt tokens that the cutoff took.
    pub cut_prompt: usize,
    /// Answer tokens that the cutoff took.
    pub cut_completion: usize,
    /// Whether the row ends where generation would stop.
    pub ends_in_eos: bool,
}

/// The tokens of a prompt to answer: exactly those that a training row of the same prompt begins with.
///
/// # Errors
/// The tokenizer's own failure.
pub fn encode_prompt(tokenizer: &Tokenizer, rendered: &Rendered) -> Result<Vec<u32>, TextError> {
    tokens(tokenizer, rendered.specials, &rendered.prompt)
}

fn tokens(tokenizer: &Tokenizer, specials: Specials, text: &str) -> Result<Vec<u32>, TextError> {
    match specials {
        Specials::PostProcessor => tokenizer.encode_prompt(text),
        Specials::InText => tokenizer.encode_bare(text),
    }
}

/// Encode a row with its answer.
///
/// # Errors
/// An empty answer; a row or cutoff of fewer than two tokens; the tokenizer's own failure.
pub fn encode_example(
    tokenizer: &Tokenizer,
    rendered: &Rendered,
    options: &EncodeOptions,
) -> Result<TokenExample, TextError> {
    if rendered.completion.is_empty() {
        return Err(TextError::EmptyCompletion);
    }
    if options.cutoff < 2 {
        return Err(TextError::TooShort { tokens: options.cutoff });
    }
    let (mut prompt, mut completion) = split_tokens(tokenizer, rendered)?;
    end_at_stop(tokenizer, &mut completion)?;
    if let Some(eos) = tokenizer.eos_id().filter(|_| options.add_eos)
        && !ends_in_stop(tokenizer, &completion)
    {
        completion.push(eos);
    }
    let mut learned = learned(tokenizer, rendered, &prompt)?;
    let (was_prompt, was_completion) = (prompt.len(), completion.len());
    let (prompt_room, completion_room) = rooms(was_prompt, was_completion, options);
    // BOS is no text: a prompt cut on the left keeps it.
    let kept_start =
        if prompt.starts_with(tokenizer.prefix_ids()) { tokenizer.prefix_ids().len() } else { 0 };
    shorten(&mut prompt, prompt_room, options.cut, kept_start);
    shorten(&mut learned, prompt_room, options.cut, kept_start);
    completion.truncate(completion_room);
    finish(tokenizer, (prompt, &learned), completion, (was_prompt, was_completion), options)
}

/// Which of the prompt's tokens are those of an earlier answer, up to the one that ends it.
fn learned(tokenizer: &Tokenizer, rendered: &Rendered, prompt: &[u32]) -> Result<Vec<bool>, TextError> {
    let mut all = vec![false; prompt.len()];
    let up_to = |end: usize| tokens(tokenizer, rendered.specials, &rendered.prompt[..end]);
    for answer in &rendered.answers {
        let (before, mut through) = (up_to(answer.start)?, up_to(answer.end)?);
        // A token that straddles an end of the answer is none that generation would give.
        if !prompt.starts_with(&through) || !through.starts_with(&before) {
            continue;
        }
        let mut own = through.split_off(before.len());
        end_at_stop(tokenizer, &mut own)?;
        all[before.len()..before.len() + own.len()].fill(true);
    }
    Ok(all)
}

fn finish(
    tokenizer: &Tokenizer,
    (prompt, learned): (Vec<u32>, &[bool]),
    completion: Vec<u32>,
    before: (usize, usize),
    options: &EncodeOptions,
) -> Result<TokenExample, TextError> {
    let prompt_len = prompt.len();
    let input_ids = [prompt, completion].concat();
    if input_ids.len() < 2 {
        return Err(TextError::TooShort { tokens: input_ids.len() });
    }
    // Vocabularies stay far below 2^31.
    let mut labels: Vec<i32> = input_ids.iter().map(|&id| id as i32).collect();
    if !options.train_on_inputs {
        labels.iter_mut().zip(learned).filter(|(_, learned)| !**learned).for_each(|(l, _)| *l = IGNORE);
    }
    Ok(TokenExample {
        type_ids: vec![0; input_ids.len()],
        cut_prompt: before.0 - prompt_len,
        cut_completion: before.1 - (input_ids.len() - prompt_len),
        ends_in_eos: ends_in_stop(tokenizer, &input_ids),
        input_ids,
        labels,
        prompt_len,
    })
}

/// Tokens of prompt and answer. Both are tokenised as one text where that leaves the prompt's
/// tokens as they are alone; where a token would straddle the joint, the answer is tokenised alone,
/// for generation starts after the prompt's own tokens.
fn split_tokens(tokenizer: &Tokenizer, rendered: &Rendered) -> Result<(Vec<u32>, Vec<u32>), TextError> {
    let prompt = encode_prompt(tokenizer, rendered)?;
    let whole = format!("{}{}", rendered.prompt, rendered.completion);
    let mut whole = tokens(tokenizer, rendered.specials, &whole)?;
    if whole.starts_with(&prompt) || rendered.joint_tokens {
        let completion = whole.split_off(prompt.len().min(whole.len()));
        return Ok((whole, completion));
    }
    let completion = tokenizer.encode_bare(&rendered.completion)?;
    Ok((prompt, completion))
}

/// A chat template may end the answer itself and add white space after it, which nobody generates:
/// cut after the token that ends the answer.
fn end_at_stop(tokenizer: &Tokenizer, completion: &mut Vec<u32>) -> Result<(), TextError> {
    let Some(at) = completion.iter().rposition(|id| tokenizer.stop_ids().contains(id)) else { return Ok(()) };
    if tokenizer.decode_with_specials(&completion[at + 1..])?.trim().is_empty() {
        completion.truncate(at + 1);
    }
    Ok(())
}

fn ends_in_stop(tokenizer: &Tokenizer, ids: &[u32]) -> bool {
    ids.last().is_some_and(|id| tokenizer.stop_ids().contains(id))
}

/// How many tokens of prompt and answer stay. The prompt gives way first, down to a quarter of the
/// cutoff; an answer that is still too long is cut on the right, and then no EOS is left.
fn rooms(prompt: usize, completion: usize, options: &EncodeOptions) -> (usize, usize) {
    let cutoff = options.cutoff;
    if prompt + completion <= cutoff {
        return (prompt, completion);
    }
    if options.cut == Cut::Right {
        return (prompt.min(cutoff), cutoff.saturating_sub(prompt));
    }
    let least = prompt.min(cutoff / 4);
    let prompt = cutoff.saturating_sub(completion).clamp(least, prompt);
    (prompt, completion.min(cutoff - prompt))
}

/// Take tokens out of the prompt until `room` are left; `start` tokens at its beginning are never taken
/// by [`Cut::Left`].
fn shorten<T>(prompt: &mut Vec<T>, room: usize, cut: Cut, start: usize) {
    let surplus = prompt.len().saturating_sub(room);
    if surplus == 0 {
        return;
    }
    let from = match cut {
        Cut::Middle => room / 2,
        Cut::Left => start.min(room),
        Cut::Right => room,
    };
    prompt.drain(from..from + surplus);
}

/// Cut a prompt to `limit` tokens as [`encode_example`] cuts it, for generation.
pub fn shorten_prompt(tokenizer: &Tokenizer, prompt: &mut Vec<u32>, limit: usize, cut: Cut) {
    let start = if prompt.starts_with(tokenizer.prefix_ids()) { tokenizer.prefix_ids().len() } else { 0 };
    shorten(prompt, limit, cut, start);
}

/// Tokens of a context and of its continuation, for likelihood scoring as lm-evaluation-harness
/// does it: blanks at the context's end go to the continuation, and both are tokenised as one text.
///
/// # Errors
/// The tokenizer's own failure.
pub fn encode_continuation(
    tokenizer: &Tokenizer,
    context: &str,
    continuation: &str,
) -> Result<(Vec<u32>, Vec<u32>), TextError> {
    let kept = context.trim_end();
    let whole = format!("{context}{continuation}");
    let mut context = tokenizer.encode_prompt(kept)?;
    let mut whole = tokenizer.encode_prompt(&whole)?;
    let rest = whole.split_off(context.len().min(whole.len()));
    context = whole;
    Ok((context, rest))
}

/// What encoding did to a whole data set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeStats {
    /// Rows encoded.
    pub rows: usize,
    /// Tokens in them.
    pub tokens: usize,
    /// Tokens that are learned.
    pub learned: usize,
    /// Longest row in tokens.
    pub longest: usize,
    /// Rows whose prompt was cut.
    pub cut_prompts: usize,
    /// Rows whose answer was cut.
    pub cut_answers: usize,
    /// Rows that do not end where generation would stop.
    pub without_eos: usize,
}

impl EncodeStats {
    /// Count one row.
    pub fn add(&mut self, row: &TokenExample) {
        self.rows += 1;
        self.tokens += row.input_ids.len();
        self.learned += row.labels.iter().filter(|&&label| label != IGNORE).count();
        self.longest = self.longest.max(row.input_ids.len());
        self.cut_prompts += usize::from(row.cut_prompt > 0);
        self.cut_answers += usize::from(row.cut_completion > 0);
        self.without_eos += usize::from(!row.ends_in_eos);
    }

    /// Sentences that a person should read before training; none if all is well.
    pub fn warnings(&self, cutoff: usize) -> Vec<String> {
        let mut out = Vec::new();
        if self.rows > 0 && self.without_eos == self.rows {
            out.push(format!(
                "none of the {} rows ends in EOS: the model will not learn to stop (is the cutoff of {cutoff} too short, or does the tokenizer name no EOS?)",
                self.rows
            ));
        } else if self.without_eos > 0 {
            out.push(format!("{} of {} rows do not end in EOS", self.without_eos, self.rows));
        }
        if self.cut_answers > 0 {
            out.push(format!(
                "{} answers are longer than the cutoff of {cutoff} allows and were cut",
                self.cut_answers
            ));
        }
        if self.cut_prompts > 0 {
            out.push(format!("{} prompts were shortened to the cutoff of {cutoff}", self.cut_prompts));
        }
        out
    }
}

#[cfg(test)]
#[path = "example_tests.rs"]
mod tests;
