//! Beam search as transformers runs it (5.x): see trace.md, "Output of `generate`".

use crate::generate::Decoder;
use crate::{Error, Model};
use sibo_kernels::loss;

/// When a search may stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyStopping {
    /// When K rows are finished.
    True,
    /// When no running beam of the present length could beat the worst finished one.
    False,
    /// When no running beam of any length could.
    Never,
}

/// Settings of a beam search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamSettings {
    /// K.
    pub beams: usize,
    /// At most so many new tokens.
    pub max_new: usize,
    /// Exponent of the length that divides a finished sum.
    pub length_penalty: f64,
    /// When to stop.
    pub early_stopping: EarlyStopping,
    /// Ids from here on are never chosen.
    pub vocabulary: Option<usize>,
}

/// One row's beams.
struct Search {
    /// Sum of log-probabilities and new tokens, best first.
    running: Vec<(f64, Vec<u32>)>,
    /// Score and new tokens, best first, at most K.
    finished: Vec<(f64, Vec<u32>)>,
    done: bool,
}

/// The best finished beam of each row: new tokens only.
pub fn beam_search(
    model: &Model,
    prompts: &[Vec<u32>],
    eos: &[u32],
    settings: &BeamSettings,
) -> Result<Vec<Vec<u32>>, Error> {
    model.check_generation(prompts, settings.max_new)?;
    model.awake(|| prompts.iter().map(|prompt| search(model, prompt, eos, settings)).collect())
}

fn search(model: &Model, prompt: &[u32], eos: &[u32], settings: &BeamSettings) -> Result<Vec<u32>, Error> {
    let mut state = Search { running: vec![(0.0, vec![])], finished: vec![], done: settings.max_new == 0 };
    let mut decoder = Decoder::new(model, 1);
    let mut feed = vec![prompt.to_vec()];
    for t in 1..=settings.max_new {
        if state.done {
            break;
        }
        let mut scores = decoder.feed(&feed);
        loss::log_softmax(&mut scores);
        let parents = state.step(&scores, t, eos, settings);
        decoder.select(&parents);
        feed = state.running.iter().map(|(_, tokens)| tokens.last().copied().into_iter().collect()).collect();
    }
    let best = state.finished.into_iter().next().or(state.running.into_iter().next());
    Ok(best.map(|(_, tokens)| tokens).unwrap_or_default())
}

impl Search {
    /// Takes token t; returns for each beam that runs on which beam it came from.
    fn step(
        &mut self,
        log_probs: &sibo_kernels::Rows,
        t: usize,
        eos: &[u32],
        settings: &BeamSettings,
    ) -> Vec<usize> {
        let k = settings.beams;
        let wanted = (eos.len() + 1).max(2) * k;
        let best = self.best_continuations(log_probs, wanted, settings.vocabulary);
        let length = (t as f64).powf(settings.length_penalty);
        let last_step = t == settings.max_new;
        let ends = |token: u32| eos.contains(&token);
        let extended = |from: usize, token: u32| {
            let mut tokens = self.running[from].1.clone();
            tokens.push(token);
            tokens
        };
        let mut newly: Vec<(f64, Vec<u32>)> = best
            .iter()
            .take(k)
            .filter(|(_, _, token)| ends(*token) || last_step)
            .map(|(sum, from, token)| (sum / length, extended(*from, *token)))
            .collect();
        let on: Vec<&(f64, usize, u32)> = best.iter().filter(|(_, _, token)| !ends(*token)).take(k).collect();
        let parents = on.iter().map(|(_, from, _)| *from).collect();
        let running: Vec<(f64, Vec<u32>)> =
            on.iter().map(|(sum, from, token)| (*sum, extended(*from, *token))).collect();
        self.finished.append(&mut newly);
        self.finished.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.finished.truncate(k);
        self.running = running;
        self.done = last_step || self.running.is_empty() || self.cannot_improve(t, settings);
        parents
    }

    fn cannot_improve(&self, t: usize, settings: &BeamSettings) -> bool {
        if self.finished.len() < settings.beams {
            return false;
        }
        if settings.early_stopping == EarlyStopping::True {
            return true;
        }
        // With a positive penalty a sum, being negative, scores best at the greatest length.
        let length = match settings.early_stopping {
            EarlyStopping::Never if settings.length_penalty > 0.0 => settings.max_new,
            _ => t,
        };
        let reachable = self.running[0].0 / (length as f64).powf(settings.length_penalty);
        self.finished.last().is_some_and(|worst| reachable <= worst.0)
    }

    /// The `wanted` best (sum, beam, token) of all beams, best first.
    fn best_continuations(
        &self,
        log_probs: &sibo_kernels::Rows,
        wanted: usize,
        vocabulary: Option<usize>,
    ) -> Vec<(f64, usize, u32)> {
        let mut all: Vec<(f64, usize, u32)> = Vec::new();
        for (beam, (sum, _)) in self.running.iter().enumerate() {
            let row = log_probs.row(beam);
            let row = &row[..vocabulary.unwrap_or(row.len()).min(row.len())];
            all.extend(best_of(row, wanted).map(|token| (sum + f64::from(row[token as usize]), beam, token)));
        }
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        all.truncate(wanted);
        all
    }
}

/// The places of the `wanted` greatest values, of equal ones the first; one pass, because a vocabulary is long and few
/// of its values come near.
fn best_of(row: &[f32], wanted: usize) -> impl Iterator<Item = u32> {
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(wanted + 1);
    for (token, value) in row.iter().enumerate() {
        if best.len() == wanted && best.last().is_some_and(|(worst, _)| value <= worst) {
            continue;
        }
        let at = best.partition_point(|(other, _)| other >= value);
        best.insert(at, (*value, token as u32));
        best.truncate(wanted);
    }
    best.into_iter().map(|(_, token)| token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_equal_ones_in_their_order() {
        let row = [0.5, -1.0, 2.0, 0.5, f32::NEG_INFINITY, 2.0, 0.25];
        assert_eq!(best_of(&row, 4).collect::<Vec<_>>(), [2, 5, 0, 3]);
        assert_eq!(best_of(&row, 9).count(), 7);
    }
}
