//! How many multiplications and additions a training step takes, by formula over the shapes; the tests hold it against
//! what the kernels count in their innermost loops. Only products count: norms, activations, the mix of SIBO, losses
//! and the optimiser are sums over rows, a few operations for each number that a product reads.

use crate::Model;
use crate::attention::Attention;
use crate::ffn::Ffn;
use crate::head::Head;
use crate::layer::Layer;
use crate::linear::Linear;
use crate::model::Recompute;
use sibo_kernels::attention;
use sibo_peft::Branch;
use std::ops::AddAssign;

/// Multiplications and additions of one step, by what they belong to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepCount {
    /// Products with frozen matrices.
    pub frozen: u64,
    /// Products with matrices that train, and their gradients.
    pub trained: u64,
    /// Scores and sums of attention.
    pub attention: u64,
}

impl StepCount {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.frozen + self.trained + self.attention
    }
}

impl AddAssign for StepCount {
    fn add_assign(&mut self, other: Self) {
        self.frozen += other.frozen;
        self.trained += other.trained;
        self.attention += other.attention;
    }
}

/// Which way a step runs.
#[derive(Clone, Copy, PartialEq)]
enum Pass {
    Forward,
    /// With the gradient of the input where it is wanted.
    Backward {
        wanted: bool,
    },
}

/// 2 t a b.
fn product(t: usize, a: usize, b: usize) -> u64 {
    2 * (t * a * b) as u64
}

impl Model {
    /// The products of one forward and backward pass over rows of these lengths, of which `labelled` tokens or rows
    /// carry a label. `None` for adapters of an embedding, which this does not count.
    pub fn count_step(
        &self,
        lengths: &[usize],
        labelled: usize,
        recompute: impl Into<Recompute>,
    ) -> Option<StepCount> {
        let recompute = recompute.into();
        if self.embedding.tables().any(|t| t.lora.is_some()) {
            return None;
        }
        let mut count = StepCount::default();
        let lowest = self.lowest_trained();
        let causal = self.arch.attention().causal;
        for layer in &self.layers {
            let passed = lowest.is_some_and(|l| layer.number >= l);
            let forward = if passed && recompute.includes(layer.number) { 2 } else { 1 };
            (0..forward).for_each(|_| count += layer.count_forward(lengths, causal));
            if passed {
                let wanted = lowest.is_some_and(|l| layer.number > l) || self.embedding.trains();
                count += layer.count_backward(lengths, wanted, causal);
            }
        }
        count += self.count_head(labelled, lowest.is_some());
        Some(count)
    }

    fn count_head(&self, labelled: usize, wanted: bool) -> StepCount {
        let mut count = StepCount::default();
        match &self.head {
            Head::None(_) => {}
            Head::Causal(linear) => {
                count += linear.count(labelled, Pass::Forward);
                count += linear.count(labelled, Pass::Backward { wanted: true });
            }
            Head::Classes(head) => {
                let deeper = wanted || head.inner.trains();
                for (linear, wanted) in [(&head.last, deeper), (&head.inner, wanted)] {
                    count += linear.count(labelled, Pass::Forward);
                    if deeper || std::ptr::eq(linear, &head.last) {
                        count += linear.count(labelled, Pass::Backward { wanted });
                    }
                }
            }
        }
        count
    }
}

impl Layer {
    fn count_forward(&self, lengths: &[usize], causal: bool) -> StepCount {
        let t = lengths.iter().sum();
        let mut count = self.attention.count_products(lengths, FORWARD_PRODUCTS, causal);
        let inside = self.attention.linears().into_iter().chain(self.ffn.linears());
        inside.for_each(|linear| count += linear.count(t, Pass::Forward));
        let beside = [&self.attention.adapter, &self.ffn.adapter, &self.ffn.parallel];
        beside
            .into_iter()
            .flatten()
            .for_each(|b| count += branch(b, self.width(), self.width(), t, Pass::Forward));
        count
    }

    fn count_backward(&self, lengths: &[usize], wanted: bool, causal: bool) -> StepCount {
        let t: usize = lengths.iter().sum();
        let below = wanted || self.attention.trains() || self.norm1.trains();
        let (into_ffn, attention, into_attention) = match self.block {
            crate::Block::PostNorm => (below, wanted || self.attention.trains(), wanted),
            crate::Block::PreNorm => {
                let norm2 = self.norm2.as_ref().is_some_and(crate::norm::Norm::trains);
                (below || norm2, below, wanted || self.norm1.trains())
            }
            crate::Block::Parallel => {
                let into_norm = wanted || self.norm1.trains();
                (into_norm, true, into_norm)
            }
        };
        let mut count = self.ffn.count_backward(t, self.width(), into_ffn);
        if attention {
            count += self.attention.count_backward(lengths, self.width(), into_attention, causal);
        }
        count
    }

    fn width(&self) -> usize {
        self.attention.query.inp
    }
}

/// Of every pair of a query and a key: a score and a share of a sum.
const FORWARD_PRODUCTS: u64 = 2;
/// The score again, and gradients of score, query, key and value.
const BACKWARD_PRODUCTS: u64 = 5;

impl Attention {
    fn count_products(&self, lengths: &[usize], products: u64, causal: bool) -> StepCount {
        let pairs: usize = lengths.iter().map(|n| attention::computed_pairs(*n, causal)).sum();
        StepCount { attention: products * product(1, pairs, self.query.out), ..StepCount::default() }
    }

    fn count_backward(&self, lengths: &[usize], width: usize, wanted: bool, causal: bool) -> StepCount {
        let t: usize = lengths.iter().sum();
        let mut count = StepCount::default();
        if let Some(b) = &self.adapter {
            count += branch(b, width, width, t, Pass::Backward { wanted: true });
        }
        let deeper = wanted || self.query.trains() || self.key.trains() || self.value.trains();
        count += self.output.count(t, Pass::Backward { wanted: deeper });
        if deeper {
            count += self.count_products(lengths, BACKWARD_PRODUCTS, causal);
            [&self.query, &self.key, &self.value]
                .into_iter()
                .for_each(|l| count += l.count(t, Pass::Backward { wanted }));
        }
        count
    }
}

impl Ffn {
    fn count_backward(&self, t: usize, width: usize, wanted: bool) -> StepCount {
        let mut count = StepCount::default();
        if let Some(b) = &self.adapter {
            count += branch(b, width, width, t, Pass::Backward { wanted: true });
        }
        let deeper = wanted || self.up.trains() || self.gate.as_ref().is_some_and(Linear::trains);
        if deeper || self.down.trains() {
            count += self.down.count(t, Pass::Backward { wanted: deeper });
        }
        if deeper {
            let inner = self.gate.iter().chain([&self.up]);
            inner.for_each(|l| count += l.count(t, Pass::Backward { wanted }));
        }
        if let Some(b) = &self.parallel {
            count += branch(b, width, width, t, Pass::Backward { wanted });
        }
        count
    }
}

impl Linear {
    fn count(&self, t: usize, pass: Pass) -> StepCount {
        let (k, n) = (self.inp, self.out);
        let one = product(t, k, n);
        let through = match pass {
            Pass::Forward => true,
            // The branch before a frozen product is trained through it.
            Pass::Backward { wanted } => wanted || self.before.is_some(),
        };
        let mut count = StepCount::default();
        match (self.weight.trains(), pass) {
            (false, _) => count.frozen = u64::from(through) * one,
            (true, Pass::Forward) => count.trained = one,
            (true, Pass::Backward { .. }) => count.trained = one + u64::from(through) * one,
        }
        let after = if pass == Pass::Forward { pass } else { Pass::Backward { wanted: true } };
        for (b, width_in, width_out, pass) in
            [(&self.before, k, k, pass), (&self.beside, k, n, pass), (&self.after, n, n, after)]
        {
            if let Some(b) = b {
                count += branch(b, width_in, width_out, t, pass);
            }
        }
        count
    }
}

/// Down to the inner width and up again; backward, two gradients of matrices, the gradient inside, and that of the
/// input where it is wanted, which a learned lambda always does.
fn branch(b: &Branch, inp: usize, out: usize, t: usize, pass: Pass) -> StepCount {
    let (down, up) = (product(t, inp, b.kept_per_row()), product(t, b.kept_per_row(), out));
    let trained = match pass {
        Pass::Forward => down + up,
        Pass::Backward { wanted } => 2 * up + down + u64::from(wanted || b.learns()) * down,
    };
    StepCount { trained, ..StepCount::default() }
}
