//! Copies of matrices in bf16 panels, as the frozen ones are kept, for a stretch in which nothing trains: a branch then
//! reads half the bytes for each token, and nothing is packed again for each product.

use crate::ParamId;
use sibo_kernels::Rows;
use sibo_kernels::frozen::{Compute, FrozenWeight, Store};
use std::sync::OnceLock;

/// alpha W, rounded and packed.
struct Copy {
    alpha: f32,
    weight: FrozenWeight,
}

/// The copies, each made when it is first read; nothing while parameters may change.
#[derive(Default)]
pub(crate) struct Settled(OnceLock<Vec<OnceLock<Copy>>>);

impl Settled {
    /// From now on copies are made, for so many parameters.
    pub(crate) fn begin(&self, parameters: usize) {
        self.0.get_or_init(|| (0..parameters).map(|_| OnceLock::new()).collect());
    }

    /// Forgets what there is.
    pub(crate) fn end(&mut self) {
        self.0.take();
    }

    /// y = beta y + alpha x W^T by the copy of parameter `id`, whose `values` are (N, K); x (T, K), y (T, N). False, and
    /// nothing is done, where there are no copies or the one there is has another alpha.
    pub(crate) fn nt(
        &self,
        id: ParamId,
        values: &[f32],
        alpha: f32,
        x: &Rows,
        beta: f32,
        y: &mut Rows,
    ) -> bool {
        let Some(slot) = self.0.get().and_then(|slots| slots.get(id.index())) else { return false };
        let copy = slot.get_or_init(|| {
            let scaled = Store::F32(values.iter().map(|v| alpha * v).collect());
            Copy { alpha, weight: FrozenWeight::new_alone(y.width(), x.width(), &scaled, Compute::Bf16) }
        });
        let same = copy.alpha.to_bits() == alpha.to_bits();
        if same {
            copy.weight.forward_onto(x, beta, y);
        }
        same
    }
}

impl Clone for Settled {
    /// A copy may change, so it has none.
    fn clone(&self) -> Self {
        Settled::default()
    }
}

impl std::fmt::Debug for Settled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Settled")
    }
}

#[cfg(test)]
mod tests {
    use crate::{Param, Params};
    use sibo_kernels::Rows;
    use sibo_kernels::frozen::Compute;

    fn wave(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (1.0 + i as f32 * step).sin()).collect()
    }

    /// Copies give what the parameters give under the rounding of bf16, another alpha is not served by them, and they do
    /// not outlive a change.
    #[test]
    fn copies_are_read_until_a_value_changes() {
        let (rows, inp, out) = (3, 70, 37);
        let mut params = Params::new(Compute::Bf16);
        let w = params.add(Param::new("w".into(), vec![out, inp], wave(out * inp, 0.37)));
        let x = Rows::from_vec(wave(rows * inp, 0.61), inp);
        let product = |params: &Params, alpha: f32| {
            let mut y = Rows::from_vec(wave(rows * out, 0.83), out);
            params.nt(alpha, &x, w, 1.0, &mut y);
            y.data().to_vec()
        };
        let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let (before, other) = (product(&params, 0.7), product(&params, -1.3));
        params.settle();
        let settled = product(&params, 0.7);
        let distance = far(&before, &settled);
        assert!(distance < 0.1 && distance > 0.0, "rounded to bf16, so near and not equal: {distance}");
        assert_eq!(settled, product(&params, 0.7), "the copy is read again");
        assert_eq!(other, product(&params, -1.3), "the copy has another alpha");
        assert_eq!(before, product(&params.clone(), 0.7), "a clone may change");
        for value in &mut params.get_mut(w).value {
            *value *= -2.0;
        }
        params.settle();
        let changed = product(&params, 0.7);
        assert!(far(&settled, &changed) > 1.0, "the copy of what was");
        params.iter_mut().for_each(|p| p.value.fill(0.0));
        assert!(product(&params, 0.7).iter().zip(wave(rows * out, 0.83)).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn nothing_is_copied_where_branches_multiply_in_f32() {
        let mut params = Params::new(Compute::F32);
        let w = params.add(Param::new("w".into(), vec![5, 4], wave(20, 0.37)));
        let x = Rows::from_vec(wave(8, 0.61), 4);
        let product = |params: &Params| {
            let mut y = Rows::zeros(2, 5);
            params.nt(0.7, &x, w, 0.0, &mut y);
            y.data().to_vec()
        };
        let before = product(&params);
        params.settle();
        assert_eq!(before, product(&params));
    }
}
