//! What the kernels' own tests do not reach, found by mutation (`docs/mutations.md`).

use sibo_kernels::activation::{self, Activation};
use sibo_kernels::elementwise::{scatter_rows_add, select_rows};
use sibo_kernels::{Rows, embed, frozen};
use sibo_tests::measure::noise;

/// More elements than one task takes (16 Ki), so that a block's offset matters.
#[test]
fn rows_are_selected_in_several_blocks() {
    let (rows, width) = (302, 129);
    let x = Rows::from_vec(noise(rows * width, 3), width);
    let idx: Vec<usize> = (0..rows).map(|i| (i * 7 + 5) % rows).collect();
    let picked = select_rows(&x, &idx);
    for (i, t) in idx.iter().enumerate() {
        assert_eq!(picked.row(i), x.row(*t), "row {i}");
    }
    let mut back = Rows::zeros(rows, width);
    scatter_rows_add(&picked, &idx, &mut back);
    assert_eq!(back.data(), x.data());
}

#[test]
fn tables_are_read_in_several_blocks() {
    let (vocabulary, width) = (61, 130);
    let values = noise(vocabulary * width, 5);
    let ids: Vec<u32> = (0..311).map(|i| (i * 17 + 3) % vocabulary as u32).collect();
    let frozen = frozen::FrozenWeight::new(
        vocabulary,
        width,
        frozen::Store::F32(values.clone()),
        frozen::Compute::F32,
    );
    let start = Rows::from_vec(noise(ids.len() * width, 7), width);
    for accumulate in [false, true] {
        let (mut a, mut b) = (start.copy(), start.copy());
        embed::gather(&frozen, &ids, &mut a, accumulate);
        embed::gather_param(&values, width, &ids, &mut b, accumulate);
        for (t, id) in ids.iter().enumerate() {
            let row = &values[*id as usize * width..(*id as usize + 1) * width];
            let want: Vec<f32> =
                row.iter().zip(start.row(t)).map(|(v, s)| if accumulate { v + s } else { *v }).collect();
            assert_eq!(a.row(t), want, "row {t}");
            assert_eq!(b.row(t), want, "row {t}");
        }
    }
}

/// PyTorch's choice at the kink; a negative zero is a zero.
#[test]
fn the_slope_of_relu_at_zero_is_zero() {
    let x = Rows::from_vec(vec![0.0, -0.0, 1e-30, -1e-30], 4);
    let mut d = Rows::from_vec(vec![3.0; 4], 4);
    activation::backward(Activation::Relu, &x, &mut d);
    assert_eq!(d.data(), [0.0, 0.0, 3.0, 0.0]);
}
