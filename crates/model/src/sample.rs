//! Sampling: repetition penalty, temperature, top-k and top-p, in transformers' order.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// How the next token is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerSettings {
    /// 0 takes the most likely token; 1 samples as the model says.
    pub temperature: f32,
    /// Only the k most likely tokens; 0 means all.
    pub top_k: usize,
    /// Only the smallest set of tokens whose probability reaches this; 1 means all.
    pub top_p: f32,
    /// Above 1, tokens that stand in the row already become less likely.
    pub repetition_penalty: f32,
    /// Ids from here on are rows of the embedding without a token, and are never chosen.
    pub vocabulary: Option<usize>,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for SamplerSettings {
    /// Greedy.
    fn default() -> Self {
        SamplerSettings {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            vocabulary: None,
            seed: 0,
        }
    }
}

impl SamplerSettings {
    /// Why these settings make no sense, in words.
    pub fn check(&self) -> Result<(), String> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(format!("temperature {} must be 0 (greedy) or above", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(format!("top_p {} must be above 0 and at most 1", self.top_p));
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return Err(format!("repetition_penalty {} must be above 0", self.repetition_penalty));
        }
        Ok(())
    }
}

/// Draws tokens; row i has a stream of its own, so that a batch gives each row what it gives alone.
pub struct Sampler {
    settings: SamplerSettings,
    streams: Vec<ChaCha12Rng>,
}

impl Sampler {
    /// Streams for `rows` rows.
    pub fn new(settings: SamplerSettings, rows: usize) -> Self {
        let streams = (0..rows)
            .map(|row| {
                let mut rng = ChaCha12Rng::seed_from_u64(settings.seed);
                rng.set_stream(row as u64);
                rng
            })
            .collect();
        Sampler { settings, streams }
    }

    /// The next token of row `row` from its scores (V), which are changed; `context` holds the row so far.
    pub fn next(&mut self, row: usize, scores: &mut [f32], context: impl Iterator<Item = u32>) -> u32 {
        let s = &self.settings;
        if let Some(v) = s.vocabulary.filter(|v| *v < scores.len()) {
            scores[v..].fill(f32::NEG_INFINITY);
        }
        if s.repetition_penalty != 1.0 {
            let mut seen: Vec<u32> = context.collect();
            seen.sort_unstable();
            seen.dedup();
            for id in seen {
                let score = &mut scores[id as usize];
                *score =
                    if *score < 0.0 { *score * s.repetition_penalty } else { *score / s.repetition_penalty };
            }
        }
        if s.temperature == 0.0 {
            return argmax(scores);
        }
        let mut ranked: Vec<(u32, f32)> =
            scores.iter().enumerate().map(|(i, v)| (i as u32, *v / s.temperature)).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if s.top_k > 0 {
            ranked.truncate(s.top_k);
        }
        let max = ranked[0].1;
        let weights: Vec<f64> = ranked.iter().map(|(_, v)| f64::from(v - max).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut kept = weights.len();
        let mut mass = 0.0;
        for (i, w) in weights.iter().enumerate() {
            mass += w / total;
            if mass >= f64::from(s.top_p) {
                kept = i + 1;
                break;
            }
        }
        let total: f64 = weights[..kept].iter().sum();
        let mut draw = self.streams[row].random::<f64>() * total;
        for (i, w) in weights[..kept].iter().enumerate() {
            draw -= w;
            if draw <= 0.0 {
                return ranked[i].0;
            }
        }
        ranked[kept - 1].0
    }
}

fn argmax(scores: &[f32]) -> u32 {
    let mut best = 0;
    for (i, v) in scores.iter().enumerate() {
        if *v > scores[best] {
            best = i;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(settings: SamplerSettings, scores: &[f32], times: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(settings, 2);
        (0..times).map(|_| sampler.next(1, &mut scores.to_vec(), [2, 2, 0].into_iter())).collect()
    }

    #[test]
    fn settings_narrow_the_choice() {
        let scores = [1.0, 2.5, 2.4, -3.0, 0.5];
        assert_eq!(draw(SamplerSettings::default(), &scores, 1), [1]);
        let penal = SamplerSettings { repetition_penalty: 2.0, ..Default::default() };
        assert_eq!(draw(penal, &[1.0, 0.9, 1.5, -3.0, 0.5], 1), [1]);
        let warm = SamplerSettings { temperature: 0.7, seed: 5, ..Default::default() };
        assert!(
            draw(SamplerSettings { top_k: 2, ..warm.clone() }, &scores, 200)
                .iter()
                .all(|t| [1, 2].contains(t))
        );
        assert!(
            draw(SamplerSettings { top_p: 0.5, ..warm.clone() }, &scores, 200)
                .iter()
                .all(|t| [1, 2].contains(t))
        );
        let all = draw(SamplerSettings { temperature: 1.0, ..warm.clone() }, &scores, 4000);
        let share = all.iter().filter(|t| **t == 1).count() as f64 / 4000.0;
        let total: f64 = scores.iter().map(|s| f64::from(*s).exp()).sum();
        assert!((share - 2.5f64.exp() / total).abs() < 0.03, "{share}");
        assert!(draw(SamplerSettings { vocabulary: Some(1), ..warm }, &scores, 50).iter().all(|t| *t == 0));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            SamplerSettings { temperature: -1.0, ..Default::default() },
            SamplerSettings { top_p: 0.0, ..Default::default() },
            SamplerSettings { repetition_penalty: 0.0, ..Default::default() },
        ] {
            assert!(bad.check().is_err());
        }
    }
}
