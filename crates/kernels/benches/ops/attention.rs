//! Attention over packed sequences, forward and backward.

use crate::{Bench, Op, Target, values};
use sibo_kernels::Rows;
use sibo_kernels::attention::{self, AttnShape, Seq};
use std::sync::Mutex;

/// Sequences, their length, heads, key and value heads, width of a head, causal: SmolLM2's in batches of two lengths,
/// BERT's.
const SHAPES: [(usize, usize, usize, usize, usize, bool); 3] =
    [(4, 256, 9, 3, 64, true), (1, 1024, 9, 3, 64, true), (32, 30, 12, 12, 64, false)];

pub(crate) fn measure(bench: &mut Bench) {
    for (count, len, heads, kv_heads, c, causal) in SHAPES {
        let t = count * len;
        let shape = AttnShape { heads, kv_heads, head_dim: c, causal, scale: 0.125 };
        let seqs: Vec<Seq> = (0..count).map(|i| Seq { start: i * len, len }).collect();
        let (q_width, kv_width) = (heads * c, kv_heads * c);
        let q = Rows::from_vec(values(t * q_width), q_width);
        let k = Rows::from_vec(values(t * kv_width), kv_width);
        let (o, dq) = (Target::new(t, q_width), Target::new(t, q_width));
        let (dk, dv) = (Target::new(t, kv_width), Target::new(t, kv_width));
        let lse = Mutex::new(vec![0.0; t * heads]);
        let forward = || {
            let mut lse = lse.lock().expect("no timed closure panics");
            attention::forward(&shape, &seqs, &q, &k, &k, None, &mut o.get(), &mut lse);
        };
        forward();
        let (out, sums) = (o.get().copy(), lse.lock().expect("no timed closure panics").clone());
        let backward = || {
            let (mut dq, mut dk, mut dv) = (dq.get(), dk.get(), dv.get());
            attention::backward(&shape, &seqs, &q, &k, &k, &out, &sums, &q, None, &mut dq, &mut dk, &mut dv);
        };
        let name = format!("{count}x{len}, {heads}/{kv_heads} heads of {c}");
        let moved = 2 * t * (q_width + kv_width);
        bench.group(
            "attention",
            &[
                Op::new(format!("forward {name}"), moved, forward),
                Op::new(format!("gradient {name}"), 2 * moved, backward),
            ],
        );
    }
}
