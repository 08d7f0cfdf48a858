//! Which rows make which optimiser step: a function of seed, pass and step alone, so that a resumed run
//! meets the same rows.

use crate::data::Dataset;
use crate::recipe::Training;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Rows of one optimiser step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRows {
    /// The pass over the data, from 0.
    pub epoch: usize,
    /// Indices into the data set, micro-batch by micro-batch.
    pub micro: Vec<Vec<usize>>,
    /// Labelled tokens or rows of all of them: the denominator of the step's mean loss.
    pub count: usize,
}

/// Gives out the steps of a run.
pub struct Feed<'d> {
    data: &'d Dataset,
    seed: u64,
    micro: usize,
    batch: usize,
    group: bool,
    lengths: Vec<usize>,
    /// The pass whose order is at hand.
    order: Option<(usize, Vec<usize>)>,
}

/// Steps in a window that `group_by_length` sorts: transformers' mega-batches have 50 batches.
const WINDOW: usize = 50;

impl<'d> Feed<'d> {
    /// The steps over `data` that this training makes under `seed`.
    pub fn new(data: &'d Dataset, training: &Training, seed: u64) -> Self {
        Feed {
            data,
            seed,
            micro: training.per_device_train_batch_size,
            batch: training.batch(),
            group: training.group_by_length,
            lengths: data.lengths(),
            order: None,
        }
    }

    /// Steps of a pass; the last takes the rows that are left.
    pub fn steps_per_epoch(&self) -> usize {
        self.lengths.len().div_ceil(self.batch).max(1)
    }

    /// Rows of step `k`, from 0 over all passes.
    pub fn step(&mut self, k: usize) -> StepRows {
        let (epoch, at) = (k / self.steps_per_epoch(), k % self.steps_per_epoch());
        if self.order.as_ref().is_none_or(|(e, _)| *e != epoch) {
            let order = order(&self.lengths, self.seed, epoch as u64, self.batch, self.group);
            self.order = Some((epoch, order));
        }
        let order = self.order.as_ref().map_or(&[][..], |(_, order)| order);
        let rows = &order[at * self.batch..((at + 1) * self.batch).min(order.len())];
        let micro: Vec<Vec<usize>> = rows.chunks(self.micro).map(<[usize]>::to_vec).collect();
        let count = rows.iter().map(|i| self.data.rows[*i].count()).sum();
        StepRows { epoch, micro, count }
    }
}

/// The order of a pass: a shuffle; with `group`, windows of it sorted by length and cut into batches whose
/// order is shuffled again, so that long rows do not all come first.
pub fn order(lengths: &[usize], seed: u64, epoch: u64, batch: usize, group: bool) -> Vec<usize> {
    let mut rng = stream(seed, epoch);
    let mut rows: Vec<usize> = (0..lengths.len()).collect();
    shuffle(&mut rng, &mut rows);
    if !group {
        return rows;
    }
    for window in rows.chunks_mut(batch * WINDOW) {
        // Stable, so that equal lengths keep their shuffled order.
        window.sort_by_key(|i| lengths[*i]);
    }
    let mut batches: Vec<&[usize]> = rows.chunks(batch).collect();
    // The last batch may be smaller, and must stay the last.
    let whole = rows.len() / batch;
    shuffle(&mut rng, &mut batches[..whole]);
    batches.concat()
}

/// The stream of a pass's order. The seed is laid out by hand rather than by `seed_from_u64`, whose
/// expansion the crate may change.
fn stream(seed: u64, epoch: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(b"row-ordr");
    key[16..24].copy_from_slice(&epoch.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// Fisher and Yates. The high half of a 64 x 64 bit product picks a place; its bias is below n / 2^64.
fn shuffle<T>(rng: &mut ChaCha8Rng, items: &mut [T]) {
    for left in (1..items.len()).rev() {
        let pick = (u128::from(rng.next_u64()) * (left as u128 + 1)) >> 64;
        items.swap(left, pick as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn lengths() -> Vec<usize> {
        (0..427).map(|i| 3 + testing::number(i, 90) as usize).collect()
    }

    #[test]
    fn a_pass_has_every_row_once_in_an_order_of_its_own() {
        let lengths = lengths();
        for group in [false, true] {
            let first = order(&lengths, 5, 0, 6, group);
            let mut sorted = first.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..427).collect::<Vec<_>>());
            assert_eq!(first, order(&lengths, 5, 0, 6, group));
            assert_ne!(first, order(&lengths, 5, 1, 6, group));
            assert_ne!(first, order(&lengths, 6, 0, 6, group));
        }
        // Recorded once: a change here changes what every seed means.
        assert_eq!(order(&lengths, 5, 0, 6, false)[..6], ORDER);
    }

    const ORDER: [usize; 6] = [408, 59, 346, 368, 247, 115];

    #[test]
    fn grouped_batches_hold_rows_of_like_length() {
        let lengths = lengths();
        let spread = |group: bool| -> usize {
            let order = order(&lengths, 5, 0, 6, group);
            let reach = |b: &[usize]| {
                let of = |i: &usize| lengths[*i];
                b.iter().map(of).max().unwrap_or(0) - b.iter().map(of).min().unwrap_or(0)
            };
            order.chunks(6).map(reach).sum()
        };
        assert!(10 * spread(true) < spread(false), "{} {}", spread(true), spread(false));
        // Long batches do not all come first or last.
        let order = order(&lengths, 5, 0, 6, true);
        let half =
            |rows: &[usize]| rows.iter().map(|i| lengths[*i]).sum::<usize>() as f64 / rows.len() as f64;
        assert!((half(&order[..210]) / half(&order[210..420]) - 1.0).abs() < 0.3);
    }

    #[test]
    fn steps_walk_through_passes_and_count_their_labels() {
        let data = testing::token_rows(14, 60);
        let training = testing::training();
        let mut feed = Feed::new(&data, &training, 9);
        assert_eq!(feed.steps_per_epoch(), 3);
        let steps: Vec<StepRows> = (0..6).map(|k| feed.step(k)).collect();
        assert_eq!(steps.iter().map(|s| s.epoch).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
        assert_eq!(steps[2].micro.concat().len(), 2);
        assert_eq!(steps[0].micro.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
        let counted: usize = steps[..3].iter().map(|s| s.count).sum();
        assert_eq!(counted, data.labelled());
        // Any step at once, as after a resume.
        assert_eq!(Feed::new(&data, &training, 9).step(4), steps[4]);
    }
}
