//! Attention against its definition, written out with whole matrices.

use super::head::QUERY_BLOCK;
use super::*;
use crate::drop::{self, DropKey, row_keys};
use crate::frozen::Compute;
use crate::testing::*;

/// One head: probabilities (n, m) over the visible keys, in whole rows; query i is position i + m -
/// n.
fn naive_probabilities<F: Float>(q: &[Vec<F>], k: &[Vec<F>], scale: F, causal: bool) -> Vec<Vec<F>> {
    let offset = k.len() - q.len();
    let rows = q.iter().enumerate();
    rows.map(|(i, q)| {
        let weight = |(j, k): (usize, &Vec<F>)| {
            if causal && j > i + offset {
                return F::zero();
            }
            let dot = q.iter().zip(k).fold(F::zero(), |a, (x, y)| a + *x * *y);
            (dot * scale).exp()
        };
        let e: Vec<F> = k.iter().enumerate().map(weight).collect();
        let sum = e.iter().fold(F::zero(), |a, v| a + *v);
        e.into_iter().map(|v| v / sum).collect()
    })
    .collect()
}

/// Rows of one head out of a packed matrix.
fn head_rows<F: Float>(
    x: &[F],
    width: usize,
    rows: std::ops::Range<usize>,
    head: usize,
    c: usize,
) -> Vec<Vec<F>> {
    rows.map(|t| x[t * width + head * c..t * width + (head + 1) * c].to_vec()).collect()
}

/// The factor of a probability under dropout.
type Mask<'a> = &'a dyn Fn(usize, usize, usize) -> f64;

/// o (T, H * C).
fn naive_forward<F: Float>(s: &AttnShape, seqs: &[Seq], q: &[F], k: &[F], v: &[F], mask: Mask) -> Vec<F> {
    let (qw, kw, c) = (s.heads * s.head_dim, s.kv_heads * s.head_dim, s.head_dim);
    let mut o = vec![F::zero(); q.len()];
    for seq in seqs {
        let rows = seq.start..seq.start + seq.len;
        for h in 0..s.heads {
            let g = h * s.kv_heads / s.heads;
            let [kh, vh] = [k, v].map(|x| head_rows(x, kw, rows.clone(), g, c));
            let p = naive_probabilities(
                &head_rows(q, qw, rows.clone(), h, c),
                &kh,
                F::of(s.scale.into()),
                s.causal,
            );
            for i in 0..seq.len {
                for j in 0..seq.len {
                    let p = p[i][j] * F::of(mask(seq.start + i, h, j));
                    for d in 0..c {
                        let at = (seq.start + i) * qw + h * c + d;
                        o[at] = o[at] + p * vh[j][d];
                    }
                }
            }
        }
    }
    o
}

/// [dq, dk, dv], by dS = P (dP - sum_j P dP) with the sum taken as it is written.
fn naive_backward<F: Float>(
    s: &AttnShape,
    seqs: &[Seq],
    [q, k, v, do_]: [&[F]; 4],
    mask: Mask,
) -> [Vec<F>; 3] {
    let (qw, kw, c) = (s.heads * s.head_dim, s.kv_heads * s.head_dim, s.head_dim);
    let (mut dq, mut dk, mut dv) =
        (vec![F::zero(); q.len()], vec![F::zero(); k.len()], vec![F::zero(); v.len()]);
    let scale = F::of(s.scale.into());
    for seq in seqs {
        let rows = seq.start..seq.start + seq.len;
        for h in 0..s.heads {
            let g = h * s.kv_heads / s.heads;
            let [kh, vh] = [k, v].map(|x| head_rows(x, kw, rows.clone(), g, c));
            let [qh, oh] = [q, do_].map(|x| head_rows(x, qw, rows.clone(), h, c));
            let p = naive_probabilities(&qh, &kh, scale, s.causal);
            for i in 0..seq.len {
                let drop = |j: usize| F::of(mask(seq.start + i, h, j));
                let dp: Vec<F> = (0..seq.len)
                    .map(|j| drop(j) * oh[i].iter().zip(&vh[j]).fold(F::zero(), |a, (x, y)| a + *x * *y))
                    .collect();
                let along = (0..seq.len).fold(F::zero(), |a, j| a + p[i][j] * dp[j]);
                for j in 0..seq.len {
                    let ds = scale * p[i][j] * (dp[j] - along);
                    for d in 0..c {
                        let (a, b) = ((seq.start + i) * qw + h * c + d, (seq.start + j) * kw + g * c + d);
                        dq[a] = dq[a] + ds * kh[j][d];
                        dk[b] = dk[b] + ds * qh[i][d];
                        dv[b] = dv[b] + p[i][j] * drop(j) * oh[i][d];
                    }
                }
            }
        }
    }
    [dq, dk, dv]
}

fn shape(heads: usize, kv_heads: usize, head_dim: usize, causal: bool) -> AttnShape {
    AttnShape { heads, kv_heads, head_dim, causal, scale: 0.37 }
}

#[test]
fn the_naive_backward_is_the_derivative() {
    let seqs = [Seq { start: 0, len: 3 }, Seq { start: 3, len: 2 }];
    let mask = |t: usize, h: usize, j: usize| if (t + h + 2 * j).is_multiple_of(5) { 0.0 } else { 1.25 };
    for causal in [true, false] {
        let s = shape(4, 2, 3, causal);
        let [q, do_] = [1, 2].map(|i| wide(&noise(5 * 12, i)));
        let [k, v] = [3, 4].map(|i| wide(&noise(5 * 6, i)));
        let [dq, dk, dv] = naive_backward(&s, &seqs, [&q, &k, &v, &do_], &mask);
        let loss = |q: &[f64], k: &[f64], v: &[f64]| inner(&naive_forward(&s, &seqs, q, k, v, &mask), &do_);
        assert_gradient("dq", &q, &dq, |q| loss(q, &k, &v));
        assert_gradient("dk", &k, &dk, |k| loss(&q, k, &v));
        assert_gradient("dv", &v, &dv, |v| loss(&q, &k, v));
    }
}

/// Lengths beside the query block, one token, none; rows 0 and the last belong to no sequence.
fn sequences() -> (Vec<Seq>, usize) {
    let mut start = 1;
    let seqs: Vec<Seq> = [1, 7, 0, QUERY_BLOCK, QUERY_BLOCK + 9, 2 * QUERY_BLOCK + 1]
        .into_iter()
        .map(|len| {
            start += len;
            Seq { start: start - len, len }
        })
        .collect();
    (seqs, start + 1)
}

#[test]
fn fast_equals_naive() {
    let (seqs, t) = sequences();
    let p = 0.2f32;
    let samples: Vec<u64> = (0..t as u64).collect();
    let positions = vec![3; t];
    let keys = row_keys(DropKey { seed: 5, epoch: 2 }, &samples, &positions, 1, 4);
    let kept = |t: usize, h: usize, j: usize| {
        if drop::keep(p, keys[t], h as u32, j as u32) { 1.0 / (1.0 - f64::from(p)) } else { 0.0 }
    };
    let whole = |_: usize, _: usize, _: usize| 1.0;
    for (heads, kv_heads, c, causal, dropped) in
        [(3, 1, 5, true, true), (2, 2, 16, false, true), (6, 2, 33, true, false), (1, 1, 64, false, false)]
    {
        let s = shape(heads, kv_heads, c, causal);
        let mask: Mask = if dropped { &kept } else { &whole };
        let drop = dropped.then(|| drop::Mask { p, keys: keys.clone() });
        let [q, do_] = [1, 2].map(|i| noise_rows(t, heads * c, i));
        let [k, v] = [3, 4].map(|i| noise_rows(t, kv_heads * c, i));
        let [wq, wk, wv, wo] = [&q, &k, &v, &do_].map(|x| wide(x.data()));
        let o = naive_forward(&s, &seqs, &wq, &wk, &wv, mask);
        let [dq, dk, dv] = naive_backward(&s, &seqs, [&wq, &wk, &wv, &wo], mask);
        let run = || {
            let mut o = Rows::zeros(t, heads * c);
            let mut lse = vec![f32::NAN; t * heads];
            forward(&s, &seqs, &q, &k, &v, drop.as_ref(), &mut o, &mut lse);
            let mut dq = Rows::zeros(t, heads * c);
            let [mut dk, mut dv] = [(); 2].map(|()| noise_rows(t, kv_heads * c, 9));
            for x in [&mut dk, &mut dv] {
                x.row_mut(0).fill(0.0);
                x.row_mut(t - 1).fill(0.0);
            }
            backward(&s, &seqs, &q, &k, &v, &o, &lse, &do_, drop.as_ref(), &mut dq, &mut dk, &mut dv);
            [o.data(), dq.data(), dk.data(), dv.data()].concat()
        };
        everywhere(run, |isa, out| {
            let (big, small) = (t * heads * c, t * kv_heads * c);
            let mut at = 0;
            for (name, expected, n) in
                [("o", &o, big), ("dq", &dq, big), ("dk", &dk, small), ("dv", &dv, small)]
            {
                assert_close(&format!("{isa} {s:?} {name}"), &out[at..at + n], expected, 5e-6);
                at += n;
            }
        });
    }
}

/// Where one key has all the weight its score has no gradient, not a small one: the optimiser divides by its size.
#[test]
fn a_score_that_decides_nothing_has_no_gradient() {
    let whole = |_: usize, _: usize, _: usize| 1.0;
    for (c, causal) in [(48, true), (33, false), (64, true)] {
        let s = shape(2, 1, c, causal);
        // The first query of a causal row sees one key; of the others nearly all weight lies on one.
        let seqs = [Seq { start: 0, len: 1 }, Seq { start: 1, len: 1 }, Seq { start: 2, len: 5 }];
        let [mut q, do_] = [1, 2].map(|i| noise_rows(7, 2 * c, i));
        q.data_mut().iter_mut().for_each(|v| *v *= 9.0);
        let [k, v] = [3, 4].map(|i| noise_rows(7, c, i));
        let [wq, wk, wv, wo] = [&q, &k, &v, &do_].map(|x| wide(x.data()));
        let [expected, _, _] = naive_backward(&s, &seqs, [&wq, &wk, &wv, &wo], &whole);
        let run = || {
            let (mut o, mut lse) = (Rows::zeros(7, 2 * c), vec![f32::NAN; 14]);
            forward(&s, &seqs, &q, &k, &v, None, &mut o, &mut lse);
            let [mut dq, mut dk, mut dv] = [2 * c, c, c].map(|width| Rows::zeros(7, width));
            backward(&s, &seqs, &q, &k, &v, &o, &lse, &do_, None, &mut dq, &mut dk, &mut dv);
            assert!(dk.data()[..2 * c].iter().all(|d| *d == 0.0), "dk");
            dq.data().to_vec()
        };
        everywhere(run, |isa, dq| {
            let alone = if causal { 3 } else { 2 };
            assert!(dq[..alone * 2 * c].iter().all(|d| *d == 0.0), "{isa}, {c}: dq of one key");
            for (r, (dq, expected)) in dq.chunks(c).zip(expected.chunks(c)).enumerate().skip(2 * alone) {
                let size = expected.iter().fold(0.0f64, |m, e| m.max(e.abs()));
                let off = dq.iter().zip(expected).fold(0.0f64, |m, (d, e)| m.max((f64::from(*d) - e).abs()));
                assert!(size > 0.0 && off < 3e-4 * size, "{isa}, {c}, row {r}: {off} off, of {size}");
            }
        });
    }
}

#[test]
fn a_sequence_sees_no_other() {
    let s = shape(2, 1, 8, false);
    let seqs = [Seq { start: 0, len: 70 }, Seq { start: 70, len: 33 }];
    let (q, k, mut v) = (noise_rows(103, 16, 1), noise_rows(103, 8, 2), noise_rows(103, 8, 3));
    let run = |v: &Rows| {
        let (mut o, mut lse) = (Rows::zeros(103, 16), vec![0.0; 206]);
        forward(&s, &seqs, &q, &k, v, None, &mut o, &mut lse);
        o
    };
    let before = run(&v);
    v.row_mut(69).fill(1e6);
    let after = run(&v);
    assert!(before.slice_rows(70..103).data() == after.slice_rows(70..103).data());
    assert!(before.row(3) != after.row(3));
}

#[test]
fn cached_equals_whole() {
    let seqs = [Seq { start: 0, len: 5 }, Seq { start: 5, len: QUERY_BLOCK + 20 }];
    let t = QUERY_BLOCK + 25;
    // Heads narrower and wider than what stays in registers (64 values), and one to five of them on a key head.
    for s in [shape(6, 2, 9, true), shape(2, 2, 64, true), shape(5, 1, 70, true), shape(8, 2, 131, true)] {
        let (wide, kept) = (s.heads * s.head_dim, s.kv_width());
        let (q, k, v) = (noise_rows(t, wide, 1), noise_rows(t, kept, 2), noise_rows(t, kept, 3));
        let (mut whole, mut lse) = (Rows::zeros(t, wide), vec![0.0; s.heads * t]);
        forward(&s, &seqs, &q, &k, &v, None, &mut whole, &mut lse);
        // Few queries run unpacked, many packed.
        for asked in [[1, QUERY_BLOCK + 3], [3, 17], [5, 16]] {
            cached_case(&s, &seqs, [&q, &k, &v, &whole], asked, Compute::F32);
        }
    }
}

#[test]
fn what_is_kept_in_bf16_is_rounded_once() {
    let seqs = [Seq { start: 0, len: 5 }, Seq { start: 5, len: BLOCK + 20 }];
    let t = BLOCK + 25;
    for s in [shape(6, 2, 9, true), shape(2, 2, 64, false), shape(5, 1, 83, true)] {
        let (wide, kept) = (s.heads * s.head_dim, s.kv_width());
        let (q, k, v) = (noise_rows(t, wide, 1), noise_rows(t, kept, 2), noise_rows(t, kept, 3));
        let round = |x: &Rows| {
            let rounded: Vec<f32> = x.data().iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect();
            Rows::from_slice(&rounded, x.width())
        };
        let (mut whole, mut lse) = (Rows::zeros(t, wide), vec![0.0; s.heads * t]);
        forward(&s, &seqs, &q, &round(&k), &round(&v), None, &mut whole, &mut lse);
        for asked in [[1, QUERY_BLOCK + 3], [5, 16]] {
            cached_case(&s, &seqs, [&q, &k, &v, &whole], asked, Compute::Bf16);
        }
    }
}

/// A sequence's keys and values, appended in parts of several sizes.
fn kept_blocks(
    s: &AttnShape,
    k: &Rows,
    v: &Rows,
    rows: std::ops::Range<usize>,
    compute: Compute,
) -> Vec<KvBlock> {
    let mut blocks = vec![KvBlock::new(s.kv_heads, s.head_dim, compute)];
    let (mut at, mut part) = (rows.start, 1);
    while at < rows.end {
        let taken = blocks.last_mut().expect("one block").append(k, v, at..(at + part).min(rows.end));
        if taken == 0 {
            blocks.push(KvBlock::new(s.kv_heads, s.head_dim, compute));
        }
        (at, part) = (at + taken, 2 * part + 1);
    }
    blocks
}

fn cached_case(
    s: &AttnShape,
    seqs: &[Seq; 2],
    [q, k, v, whole]: [&Rows; 4],
    asked: [usize; 2],
    compute: Compute,
) {
    let rows: Vec<usize> =
        seqs.iter().zip(asked).flat_map(|(s, n)| s.start + s.len - n..s.start + s.len).collect();
    let queries = crate::elementwise::select_rows(q, &rows);
    let kept: Vec<Vec<KvBlock>> =
        seqs.iter().map(|seq| kept_blocks(s, k, v, seq.start..seq.start + seq.len, compute)).collect();
    let run = || {
        let mut start = 0;
        let cached_seqs: Vec<CachedSeq> = kept
            .iter()
            .zip(asked)
            .zip(seqs)
            .map(|((blocks, q_len), seq)| {
                start += q_len;
                CachedSeq { q_start: start - q_len, q_len, blocks: blocks.iter().collect(), k_len: seq.len }
            })
            .collect();
        let mut o = Rows::zeros(rows.len(), q.width());
        cached(s, &cached_seqs, &queries, &mut o);
        o.data().to_vec()
    };
    let expected = crate::elementwise::select_rows(whole, &rows);
    everywhere(run, |isa, o| assert_close(&format!("{isa} {compute:?} o"), o, expected.data(), 3e-6));
}
