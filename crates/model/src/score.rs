//! Scores over the vocabulary and the likelihood of given continuations.

use crate::head::{self, Head};
use crate::linear::Linear;
use crate::model::labelled;
use crate::{Batch, Error, Labels, Model};
use sibo_kernels::{Rows, loss};

/// What a language model gives to the labelled tokens of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowScore {
    /// Sum of their log-probabilities (natural logarithm).
    pub log_prob: f64,
    /// How many there are.
    pub tokens: usize,
    /// Whether each of them is the most likely token at its place.
    pub greedy: bool,
}

impl Model {
    fn causal_head(&self) -> &Linear {
        match &self.head {
            Head::Causal(linear) => linear,
            _ => panic!("asked a model without a causal head for token scores"),
        }
    }

    /// Scores (n, V) for hidden states (n, D) behind the final norm.
    pub fn token_scores(&self, hidden: &Rows) -> Rows {
        // No branch of a head is ever injected, so no h0 is read.
        let call = sibo_peft::Call { h0: hidden, drop: None, seen: None };
        self.causal_head().forward(&call, &self.params, hidden).0
    }

    /// Scores (rows, V) for the token after each row.
    pub(crate) fn last_scores(&self, batch: &Batch, layers_out: &Rows) -> Rows {
        let at: Vec<usize> = batch.seqs.iter().map(|s| s.start + s.len - 1).collect();
        self.token_scores(&self.normed(&head::pick(layers_out, &at)))
    }

    /// Calls `visit(range, scores)` for chunks of the tokens `at`, with the scores (n, V) of what follows each; the
    /// whole (T, V) matrix never exists.
    pub(crate) fn for_scores(
        &self,
        layers_out: &Rows,
        at: &[usize],
        mut visit: impl FnMut(std::ops::Range<usize>, &Rows),
    ) {
        for start in (0..at.len()).step_by(head::CHUNK) {
            let range = start..(start + head::CHUNK).min(at.len());
            visit(range.clone(), &self.token_scores(&self.normed(&head::pick(layers_out, &at[range]))));
        }
    }

    /// `pooler_output` (rows, D), where the model has a pooler.
    pub fn pooled(&self, last_hidden: &Rows, batch: &Batch) -> Option<Rows> {
        let pooler = match &self.head {
            Head::None(pooler) => pooler.as_ref()?,
            Head::Classes(h) if !h.drop_input => &h.inner,
            _ => return None,
        };
        let first = head::pick(last_hidden, &crate::model::first_tokens(batch));
        let call = sibo_peft::Call { h0: &first, drop: None, seen: None };
        Some(head::tanh(&pooler.forward(&call, &self.params, &first).0))
    }

    /// The likelihood of the labelled tokens of each row, in chunks; nothing is dropped.
    pub fn row_scores(&self, batch: &Batch, labels: &[Vec<i64>]) -> Vec<RowScore> {
        self.awake(|| self.scores_of_rows(batch, labels))
    }

    fn scores_of_rows(&self, batch: &Batch, labels: &[Vec<i64>]) -> Vec<RowScore> {
        let (_, last) = self.run(batch, |_, _| {});
        let (at, targets) = labelled(batch, labels);
        let mut log_probs = Vec::with_capacity(at.len());
        let mut best = Vec::with_capacity(at.len());
        self.for_scores(&last, &at, |range, scores| {
            log_probs.extend(loss::log_probs(scores, &targets[range]));
            best.extend(loss::argmax(scores));
        });
        let mut scores = vec![RowScore { log_prob: 0.0, tokens: 0, greedy: true }; batch.rows()];
        let mut row = 0;
        for (i, t) in at.iter().enumerate() {
            while !batch.range(row).contains(t) {
                row += 1;
            }
            scores[row].log_prob += f64::from(log_probs[i]);
            scores[row].tokens += 1;
            scores[row].greedy &= best[i] == targets[i];
        }
        scores
    }

    /// Refuses to continue rows with a model that cannot, or past where its cache would be exact.
    pub(crate) fn check_generation(&self, prompts: &[Vec<u32>], new_tokens: usize) -> Result<(), Error> {
        if !self.is_causal() {
            return Err(Error::Refused(format!(
                "a {} model without a causal head cannot generate; LLaMA and GPT-J models can",
                self.arch.names.family
            )));
        }
        let rows: Vec<crate::Row> =
            prompts.iter().map(|ids| crate::Row { ids: ids.clone(), ..Default::default() }).collect();
        Batch::new(&self.arch, &rows)?;
        for (at, prompt) in prompts.iter().enumerate() {
            // The last new token is chosen and never read.
            let read = prompt.len().saturating_add(new_tokens.saturating_sub(1));
            if let Some(max) = self.max_len().filter(|max| read > *max) {
                return Err(Error::Row {
                    row: at,
                    reason: format!(
                        "{} tokens and {new_tokens} new ones do not fit the model's {max} positions",
                        prompt.len()
                    ),
                });
            }
            if self.rope.as_ref().is_some_and(|r| r.spec.depends_on(read)) {
                return Err(Error::Row {
                    row: at,
                    reason: format!(
                        "{read} tokens would pass the length at which `dynamic` rope scaling changes the frequencies, where a cache is no longer exact; ask for fewer new tokens"
                    ),
                });
            }
        }
        Ok(())
    }

    /// Whether labels of this kind fit the head.
    pub fn takes(&self, labels: &Labels) -> bool {
        matches!(
            (&self.head, labels),
            (Head::Causal(_), Labels::Tokens(_))
                | (Head::Classes(_), Labels::Classes(_) | Labels::Values(_))
                | (_, Labels::None)
        )
    }
}
