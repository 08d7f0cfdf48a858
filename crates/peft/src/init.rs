//! Initial values. Each tensor draws from a generator of its own, addressed by the run's seed and the
//! tensor's name, so that two methods (or plain and SIBO) start from the same numbers.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// The generator of tensor `name` in a run seeded with `seed`.
fn generator(seed: u64, name: &str) -> ChaCha12Rng {
    // FNV-1a: a fixed, documented hash, since the numbers it leads to are part of a seed's meaning.
    let hash =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    rng.set_stream(hash);
    rng
}

/// Uniform in (-bound, bound). With bound `1 / sqrt(fan_in)` this is `kaiming_uniform_(a = sqrt(5))`.
pub fn uniform(seed: u64, name: &str, count: usize, bound: f32) -> Vec<f32> {
    let mut rng = generator(seed, name);
    (0..count).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * bound).collect()
}

/// PyTorch's and PEFT's `kaiming_uniform_(a = sqrt(5))` for a (`count / fan_in`, `fan_in`) matrix.
pub fn kaiming(seed: u64, name: &str, count: usize, fan_in: usize) -> Vec<f32> {
    uniform(seed, name, count, 1.0 / (fan_in as f32).sqrt())
}

/// Normal with mean 0 and standard deviation `sd` (Box and Muller).
pub fn normal(seed: u64, name: &str, count: usize, sd: f32) -> Vec<f32> {
    let mut rng = generator(seed, name);
    (0..count).map(|_| sd * standard_normal(&mut rng)).collect()
}

fn standard_normal(rng: &mut impl Rng) -> f32 {
    // 1 - u keeps the logarithm's argument above zero.
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_addresses() {
        let x = normal(7, "a", 40_001, 0.02);
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let sd = (x.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / x.len() as f32).sqrt();
        assert!(mean.abs() < 5e-4 && (sd - 0.02).abs() < 5e-4, "{mean} {sd}");
        let u = kaiming(7, "a", 40_001, 25);
        assert!(u.iter().all(|v| v.abs() <= 0.2));
        let variance = u.iter().map(|v| v * v).sum::<f32>() / u.len() as f32;
        assert!((variance - 0.04 / 3.0).abs() < 3e-4, "{variance}");
        assert_eq!(normal(7, "a", 3, 1.0), normal(7, "a", 5, 1.0)[..3]);
        assert_ne!(normal(7, "a", 3, 1.0), normal(7, "b", 3, 1.0));
        assert_ne!(normal(7, "a", 3, 1.0), normal(8, "a", 3, 1.0));
    }
}
