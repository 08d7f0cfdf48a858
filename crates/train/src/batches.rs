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
