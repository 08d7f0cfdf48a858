//! How much memory a training step takes, before it is taken: by the shapes of what the passes keep.
//!
//! Held against the allocator's own count in the tests, so it is changed together with `layer.rs`.

use crate::arch::{Block, HeadKind};
use crate::base::is_streamed;
use crate::head::CHUNK;
use crate::layer::Layer;
use crate::stream::WINDOW;
use crate::{Model, Recompute};
use sibo_kernels::frozen::{Compute, FrozenWeight};
use std::sync::Arc;

/// What a step is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanInput {
    /// Most tokens of a micro-batch.
    pub tokens: usize,
    /// Most labelled tokens (or rows) of a micro-batch.
    pub labelled: usize,
    /// Layers that are computed again on the way back.
    pub recompute: Recompute,
    /// Numbers that the optimiser keeps for each trained number: 2 for AdamW, 1 for SGD with momentum.
    pub moments: usize,
    /// Layers that are read whenever a pass comes by.
    pub streamed: usize,
}

/// Bytes by what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Frozen weights.
    pub frozen: usize,
    /// Trained tensors, their gradients and the optimiser's moments.
    pub trained: usize,
    /// What the forward pass keeps for the backward pass.
    pub kept: usize,
    /// The most that is under way beside it.
    pub working: usize,
    /// The program, the tokenizer and what the allocator holds back.
    pub rest: usize,
}

/// A process without any model, measured: code, threads, tables.
const REST: usize = 24 << 20;

impl MemoryPlan {
    /// All of it.
    pub fn total(&self) -> usize {
        self.frozen + self.trained + self.kept + self.working + self.rest
    }

    /// A sentence on what would make a plan fit `available` bytes that it does not fit.
    pub fn remedy(&self, available: usize, input: &PlanInput) -> String {
        let mib = |bytes: usize| bytes >> 20;
        let fixed = self.frozen + self.trained + self.rest;
        if fixed >= available {
            let smaller =
                ", fewer bits for the frozen weights (sibo quantize, or compute bf16 instead of f32)";
            return format!(
                "The weights and what trains alone take {} MiB. Use a smaller model or a lower rank{}{}",
                mib(fixed),
                if self.frozen > self.trained { smaller } else { "" },
                if input.streamed == 0 { ", or --memory SIZE, which reads layers in every pass" } else { "" },
            );
        }
        let fits = input.tokens * (available - fixed) / (self.kept + self.working).max(1);
        let recompute = match input.recompute {
            Recompute::ALL => "",
            _ => ", or gradient_checkpointing, which keeps one input a layer",
        };
        format!(
            "What would fit: micro-batches of {} tokens instead of {} (a smaller per_device_train_batch_size with more \
             gradient_accumulation_steps){recompute}",
            fits.max(1),
            input.tokens
        )
    }

    /// A sentence that refuses a plan that does not fit `available` bytes and says what would fit.
    pub fn refusal(&self, available: usize, input: &PlanInput) -> Option<String> {
        (self.total() > available).then(|| {
            format!(
                "a step needs about {} MiB, and {} MiB are free. {}",
                self.total() >> 20,
                available >> 20,
                self.remedy(available, input)
            )
        })
    }
}

impl Model {
    /// The plan of a training step of this model and adapter; it need only be open.
    pub fn plan(&self, input: &PlanInput) -> MemoryPlan {
        let lowest = self.lowest_trained().unwrap_or(self.layers.len());
        let passed = self.layers.len() - lowest;
        // The lowest layers are those that are computed again, and the embedding's side of them is never passed.
        let again = input.recompute.count(self.layers.len()).saturating_sub(lowest);
        let one = self.kept_in_layer() * input.tokens * 4;
        let row = self.arch.width * input.tokens * 4;
        // h0, the embedding norm's input, and the input of each layer that is passed on the way back.
        let inputs = (1 + usize::from(self.embedding.norm.is_some()) + passed) * row;
        let (head, layer) = self.working_bytes(input);
        let kept = one * (passed - again);
        // What is computed again is there only once the head is done and what the layers above had kept is gone.
        let above = kept + head.max(if passed > again { layer } else { 0 });
        let below = if again > 0 { one + layer } else { 0 };
        MemoryPlan {
            frozen: self.frozen_bytes(input.streamed),
            trained: self.params.numbers() * 4 * (2 + input.moments),
            kept: inputs + kept,
            working: above.max(below) - kept,
            rest: REST,
        }
    }

    /// The most that a pass without a way back holds of `tokens`, bytes: h0 and the input beside the head, or beside one layer,
    /// which holds all that it would keep, what it hands on, and the activated inner rows. Held against the allocator too.
    pub fn forward_bytes(&self, tokens: usize) -> usize {
        let (d, f) = (self.arch.width, self.arch.inner);
        let streamed = self.streamed();
        let input = PlanInput { tokens, labelled: tokens, recompute: Recompute::ALL, moments: 0, streamed };
        let layer = tokens * (self.kept_in_layer() + 3 * d + f) * 4;
        2 * d * tokens * 4 + self.working_bytes(&input).0.max(layer)
    }

    /// Bytes of the frozen matrices that are in memory now: a tied one once.
    pub fn frozen_here(&self) -> usize {
        let mut seen: Vec<*const FrozenWeight> = Vec::new();
        let mut total = 0;
        for weight in self.frozen_weights() {
            let address = Arc::as_ptr(weight);
            if !seen.contains(&address) {
                seen.push(address);
                total += weight.bytes();
            }
        }
        total
    }

    /// Bytes of the frozen matrices while it trains, with so many layers streamed.
    fn frozen_bytes(&self, streamed: usize) -> usize {
        let layers = self.layers.len();
        let away = |l: &Layer| {
            l.linears().filter_map(|l| l.weight.away().map(|a| (a.bytes, a.stored))).collect::<Vec<_>>()
        };
        let (mut total, mut places, mut spare) = (self.frozen_here(), vec![], 0);
        for layer in &self.layers {
            let matrices = away(layer);
            let bytes = matrices.iter().map(|m| m.0).sum::<usize>();
            if is_streamed(layer.number, streamed, layers) && bytes > 0 {
                places.push(bytes);
                spare = matrices.iter().map(|m| m.1).fold(spare, usize::max);
            } else {
                total += bytes;
            }
        }
        places.sort_unstable_by(|a, b| b.cmp(a));
        total + places.iter().take(WINDOW).sum::<usize>() + spare
    }

    /// Numbers that a layer keeps for each token, beside its input.
    fn kept_in_layer(&self) -> usize {
        let arch = &self.arch;
        let sums = match arch.block {
            Block::PostNorm => 2,
            Block::PreNorm => 1,
            Block::Parallel => 0,
        };
        let attention = 2 * arch.q_width() + 2 * arch.kv_width() + arch.heads;
        let ffn = arch.inner * (1 + usize::from(arch.names.gate.is_some()));
        let stats = 4;
        sums * arch.width + attention + ffn + stats + self.branches_in_layer()
    }

    /// Numbers that the branches of the widest layer keep for each token.
    fn branches_in_layer(&self) -> usize {
        let of_layer = |layer: &Layer| {
            let series = [
                &layer.attention.adapter,
                &layer.ffn.adapter,
                &layer.ffn.parallel,
                &layer.on_attention,
                &layer.on_ffn,
            ];
            let adapters: usize =
                series.into_iter().flatten().map(|b| b.kept_per_row() + self.arch.width).sum();
            let linears = layer.attention.linears().into_iter().chain(layer.ffn.linears());
            adapters + linears.map(crate::linear::Linear::kept_per_row).sum::<usize>()
        };
        self.layers.iter().map(of_layer).max().unwrap_or(0)
    }

    /// The most that exists at one time beside what is kept: in the head, and in a layer's backward pass.
    fn working_bytes(&self, input: &PlanInput) -> (usize, usize) {
        let arch = &self.arch;
        let (d, f, t) = (arch.width, arch.inner, input.tokens);
        let gated = usize::from(arch.names.gate.is_some());
        let compute = self.frozen_weights().first().map_or(Compute::F32, |w| w.compute());
        let aside = |rows: usize, width: usize| FrozenWeight::set_aside(rows, width, compute);
        let head = match arch.head {
            HeadKind::CausalLm => {
                let rows = input.labelled.min(CHUNK);
                rows * (arch.vocab + 2 * d) + aside(rows, arch.vocab) + input.labelled * 3 * d + 2 * t * d
            }
            _ => input.labelled * 6 * d + 2 * t * d,
        };
        // Post-norm also holds the gradient of the sum that the second norm read; a sub-layer's input is computed
        // again where it is read.
        let rows = 4 + usize::from(arch.block == Block::PostNorm);
        let reads = |sub: fn(&Layer) -> bool| usize::from(self.layers.iter().any(sub));
        let ffn_rows = rows + reads(|layer| layer.ffn.reads_input());
        let attention_rows = rows + reads(|layer| layer.attention.reads_input());
        let ffn = t * ((1 + 2 * gated) * f + ffn_rows * d) + aside(t, f);
        let attention =
            t * (2 * arch.q_width() + 2 * arch.kv_width() + attention_rows * d) + aside(t, arch.q_width());
        (head * 4, ffn.max(attention) * 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let plan = MemoryPlan {
            frozen: 300 << 20,
            trained: 60 << 20,
            kept: 900 << 20,
            working: 100 << 20,
            rest: 24 << 20,
        };
        let input =
            PlanInput { tokens: 1000, labelled: 1000, recompute: false.into(), moments: 2, streamed: 0 };
        assert_eq!(plan.refusal(2 << 30, &input), None);
        let text = plan.refusal(884 << 20, &input).unwrap();
        assert!(
            text.contains("500 tokens instead of 1000") && text.contains("gradient_checkpointing"),
            "{text}"
        );
        assert!(plan.refusal(200 << 20, &input).unwrap().contains("bf16"));
    }
}
