//! Rows to feed, and everything that a pass gives, in plain vectors that can be compared.

use sibo_kernels::Rows;
use sibo_model::{Batch, Dropout, HeadKind, Labels, Model, Recompute, Row};

/// Uniform in (-1, 1), never near zero, the same for the same seed: splitmix64.
pub fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..count)
        .map(|_| {
            let bits = next();
            let size = 0.05 + 0.95 * (bits >> 40) as f32 / (1u32 << 24) as f32;
            if bits & 1 == 0 { size } else { -size }
        })
        .collect()
}

/// A number below `below` for each of `count` places.
pub fn whole_noise(count: usize, below: usize, seed: u64) -> Vec<usize> {
    noise(count, seed)
        .into_iter()
        .map(|v| (((v + 1.0) / 2.0 * below as f32) as usize).min(below - 1))
        .collect()
}

/// Rows and their labels.
#[derive(Clone)]
pub struct Input {
    /// The rows; sample numbers are not their places.
    pub rows: Vec<Row>,
    /// Labels of the kind that the head reads.
    pub labels: Labels,
}

impl Input {
    /// Rows of these lengths for `model`.
    pub fn new(model: &Model, lengths: &[usize], seed: u64) -> Input {
        let arch = model.arch();
        let rows: Vec<Row> = lengths
            .iter()
            .enumerate()
            .map(|(i, len)| {
                let seed = seed + 31 * i as u64;
                let ids =
                    whole_noise(*len, arch.vocab - 3, seed).into_iter().map(|id| id as u32 + 3).collect();
                let types =
                    whole_noise(*len, arch.types.max(1), seed + 7).into_iter().map(|t| t as u32).collect();
                Row { ids, types: if arch.types > 1 { types } else { vec![] }, sample: 100 + 13 * i as u64 }
            })
            .collect();
        let labels = match arch.head {
            HeadKind::None => Labels::None,
            HeadKind::CausalLm => Labels::Tokens(rows.iter().map(some_labels).collect()),
            HeadKind::Classes(1) => Labels::Values(noise(rows.len(), seed + 3)),
            HeadKind::Classes(n) => {
                Labels::Classes(whole_noise(rows.len(), n, seed + 5).into_iter().map(|c| c as u32).collect())
            }
        };
        labels.check(&rows, arch).expect("the rows were made for this model");
        Input { rows, labels }
    }

    /// The usual rows: uneven, a one-token row among them.
    pub fn usual(model: &Model) -> Input {
        Input::new(model, &[6, 1, 9, 3], 40)
    }

    /// Packed.
    pub fn batch(&self, model: &Model) -> Batch {
        Batch::new(model.arch(), &self.rows).expect("the rows were made for this model")
    }

    /// The rows `at`, in that order.
    pub fn select(&self, at: &[usize]) -> Input {
        let rows = at.iter().map(|i| self.rows[*i].clone()).collect();
        let labels = match &self.labels {
            Labels::None => Labels::None,
            Labels::Tokens(l) => Labels::Tokens(at.iter().map(|i| l[*i].clone()).collect()),
            Labels::Classes(l) => Labels::Classes(at.iter().map(|i| l[*i]).collect()),
            Labels::Values(l) => Labels::Values(at.iter().map(|i| l[*i]).collect()),
        };
        Input { rows, labels }
    }
}

/// Each token predicts the next, but every fourth label is left out.
fn some_labels(row: &Row) -> Vec<i64> {
    row.ids.iter().enumerate().map(|(t, id)| if t % 4 == 2 { -100 } else { i64::from(*id) }).collect()
}

/// The scores of each row: (n, V) or (C).
pub fn scores(model: &Model, batch: &Batch) -> Vec<Vec<f32>> {
    match model.arch().head {
        HeadKind::None => vec![],
        HeadKind::CausalLm => {
            let last = hidden(model, batch).pop().expect("a last hidden state");
            let width = model.arch().width;
            let per_row = |row: Vec<f32>| model.token_scores(&Rows::from_vec(row, width)).data().to_vec();
            last.into_iter().map(per_row).collect()
        }
        HeadKind::Classes(_) => {
            let scores = model.class_scores(batch);
            (0..batch.rows()).map(|i| scores.row(i).to_vec()).collect()
        }
    }
}

/// Hidden states by layer and row, each (n, D).
pub fn hidden(model: &Model, batch: &Batch) -> Vec<Vec<Vec<f32>>> {
    let mut all = Vec::new();
    model.hidden_states(batch, |_, rows| {
        all.push((0..batch.rows()).map(|i| rows.slice_rows(batch.range(i)).data().to_vec()).collect());
    });
    all
}

/// The summed loss and the gradient of every trained tensor.
pub fn gradients(
    model: &mut Model,
    input: &Input,
    dropout: Option<Dropout>,
    recompute: impl Into<Recompute>,
) -> (f64, Vec<Vec<f32>>) {
    model.params_mut().zero_grads();
    let batch = input.batch(model);
    let step = model.forward_backward(&batch, &input.labels, 1.0, dropout, recompute);
    (step.loss_sum, model.params().iter().map(|p| p.grad.clone()).collect())
}

/// The names of the trained tensors.
pub fn names(model: &Model) -> Vec<String> {
    model.params().iter().map(|p| p.name.clone()).collect()
}

/// A line for each pair of vectors that is not bit for bit the same.
pub fn bits_differ<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a [f32], &'a [f32])>) -> Vec<String> {
    pairs
        .into_iter()
        .filter_map(|(name, a, b)| {
            let at = a.iter().zip(b).position(|(x, y)| x.to_bits() != y.to_bits());
            match at {
                _ if a.len() != b.len() => Some(format!("{name}: {} entries against {}", a.len(), b.len())),
                Some(at) => Some(format!("{name}: entry {at} is {} against {}", a[at], b[at])),
                None => None,
            }
        })
        .collect()
}

/// A line for each pair that differs by more than `tolerance` times the largest entry of the pair, or of
/// `floor` times the largest entry of all pairs where that is more.
pub fn far_apart<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a [f32], &'a [f32])>,
    tolerance: f32,
    floor: f32,
) -> Vec<String> {
    let pairs: Vec<_> = pairs.into_iter().collect();
    let largest = |v: &[f32]| v.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let top = pairs.iter().fold(0.0f32, |m, (_, _, b)| m.max(largest(b)));
    pairs
        .into_iter()
        .filter_map(|(name, a, b)| {
            let error = crate::relative_error(a, b, floor * top);
            (error > tolerance).then(|| format!("{name}: off by {error:.1e}"))
        })
        .collect()
}
