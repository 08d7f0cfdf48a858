//! Seeded orders. Each purpose has its own stream, so that no draw of one shifts another.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What the random numbers are for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// Which rows of train become validation.
    HeldOut,
    /// Which rows a limit keeps.
    Limit,
    /// Resampling.
    Bootstrap,
    /// Problems of deduction.
    Deduction,
}

/// The stream of `purpose` under `seed`.
///
/// The seed is laid out by hand rather than by `seed_from_u64`, whose expansion the crate may change.
pub(crate) fn stream(purpose: Purpose, seed: u64) -> ChaCha8Rng {
    let label: &[u8; 8] = match purpose {
        Purpose::HeldOut => b"held-out",
        Purpose::Limit => b"limit---",
        Purpose::Bootstrap => b"bootstrp",
        Purpose::Deduction => b"deductio",
    };
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(label);
    ChaCha8Rng::from_seed(key)
}

/// A number below `bound`, each equally likely: the high half of a 64 x 64 bit product, with rejection (Lemire).
pub(crate) fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    let bound = bound as u64;
    let unfair = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        if product as u64 >= unfair {
            return (product >> 64) as usize;
        }
    }
}

/// `count` of the indices `0..n`, drawn under `seed`, in ascending order.
///
/// A smaller count gives a subset of a larger one.
pub(crate) fn choose(purpose: Purpose, seed: u64, n: usize, count: usize) -> Vec<usize> {
    let mut rng = stream(purpose, seed);
    let mut order: Vec<usize> = (0..n).collect();
    let count = count.min(n);
    for i in 0..count {
        let j = i + below(&mut rng, n - i);
        order.swap(i, j);
    }
    order.truncate(count);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_nest_differ_by_seed_and_purpose_and_stay_as_they_are() {
        let small = choose(Purpose::Limit, 3, 97, 7);
        let large = choose(Purpose::Limit, 3, 97, 31);
        assert!(small.iter().all(|i| large.contains(i)));
        assert!(small.windows(2).all(|w| w[0] < w[1]));
        assert_ne!(small, choose(Purpose::Limit, 4, 97, 7));
        assert_ne!(small, choose(Purpose::HeldOut, 3, 97, 7));
        assert_eq!(choose(Purpose::Limit, 3, 5, 50), [0, 1, 2, 3, 4]);
        // Recorded once: a change here changes every published split.
        assert_eq!(small, [9, 14, 52, 63, 76, 77, 82]);
    }

    #[test]
    fn every_index_is_equally_likely() {
        let mut rng = stream(Purpose::Bootstrap, 11);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[below(&mut rng, 7)] += 1;
        }
        assert!(counts.iter().all(|c| c.abs_diff(10_000) < 450), "{counts:?}");
    }
}
