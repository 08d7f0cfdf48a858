//! What must not change a single bit: lambda 0, recomputation, the number of threads.

use serde_json::json;
use sibo_model::{Compute, Dropout, Model};
use sibo_peft::AdapterConfig;
use sibo_tests::measure::{Input, bits_differ, gradients, names, scores};
use sibo_tests::table::{Boost, Case, disturb};

const DROPOUT: Option<Dropout> = Some(Dropout { seed: 8, epoch: 1, base: true });

/// Scores, loss and gradients of two models.
fn compare(a: &mut Model, b: &mut Model, input: &Input) -> Vec<String> {
    let (sa, sb) = (scores(a, &input.batch(a)), scores(b, &input.batch(b)));
    let mut wrong = bits_differ(sa.iter().zip(&sb).map(|(a, b)| ("scores", &a[..], &b[..])));
    let ((loss_a, ga), (loss_b, gb)) =
        (gradients(a, input, DROPOUT, false), gradients(b, input, DROPOUT, false));
    if loss_a.to_bits() != loss_b.to_bits() {
        wrong.push(format!("loss {loss_a} against {loss_b}"));
    }
    wrong.extend(gradients_differ(a, &ga, &gb));
    wrong
}

fn gradients_differ(model: &Model, a: &[Vec<f32>], b: &[Vec<f32>]) -> Vec<String> {
    let names = names(model);
    bits_differ(names.iter().zip(a.iter().zip(b)).map(|(n, (a, b))| (n.as_str(), &a[..], &b[..])))
}

/// From the plain method's initial values, with lambda 0 in every form in which it can be said.
pub(super) fn lambda_zero(case: &Case) -> Option<Vec<String>> {
    if case.boost != Boost::Plain || !case.method.takes_sibo && case.method.name != "lora-down" {
        return None;
    }
    let mut plain = case.trained();
    let input = Input::usual(&plain);
    let mut wrong = Vec::new();
    for lambda in [json!(0), json!(vec![0.0; plain.arch().layers])] {
        let mut model = case.base();
        let mut object = plain.adapter().expect("an adapter").config.to_json();
        object["peft_type"] = format!("SIBO_{}", object["peft_type"].as_str().expect("a word")).into();
        object["sibo"] = json!({"lambda": lambda, "lambda_schedule": "cosine", "h0": "rms", "skip": "mixed"});
        let config = AdapterConfig::from_json("adapter_config.json", &object).expect("a configuration");
        if let Err(e) = model.attach(&config, 23) {
            return Some(vec![format!("lambda {lambda}: {e}")]);
        }
        disturb(&mut model);
        wrong.extend(compare(&mut plain, &mut model, &input));
    }
    Some(wrong)
}

pub(super) fn recompute(case: &Case) -> Vec<String> {
    let mut model = case.trained();
    let input = Input::usual(&model);
    let (loss_kept, kept) = gradients(&mut model, &input, DROPOUT, false);
    let (loss_again, again) = gradients(&mut model, &input, DROPOUT, true);
    let loss_alone = model.loss(&input.batch(&model), &input.labels).loss_sum;
    let loss_taught = gradients(&mut model, &input, None, true).0;
    let mut wrong = gradients_differ(&model, &kept, &again);
    if (loss_alone - loss_taught).abs() > 1e-6 * loss_alone.abs() {
        wrong.push(format!("loss {loss_alone} in evaluation, {loss_taught} in training without dropout"));
    }
    if loss_kept.to_bits() != loss_again.to_bits() {
        wrong.push(format!("loss {loss_kept} against {loss_again}"));
    }
    wrong
}

/// Enough tokens that every operation is cut into several tasks (16 Ki elements each); a few methods, since
/// each operation is in one of them.
pub(super) fn threads(case: &Case) -> Option<Vec<String>> {
    let methods = ["lora-dropout", "lora-embedding", "houlsby-mam", "parallel", "full", "in_linear-all"];
    let backbones = ["bert-pooler", "roberta-bare", "llama-gqa", "llama-tied", "gptj"];
    let known = methods.contains(&case.method.name) && backbones.contains(&case.backbone.name);
    if !known || case.boost == Boost::Mixed {
        return None;
    }
    let mut wrong = Vec::new();
    for compute in [Compute::F32, Compute::Bf16] {
        let run = |threads: usize| {
            let mut model = case.trained_in(compute);
            let lengths: Vec<usize> = (0..44).map(|i| 7 + i * 5 % 23).collect();
            let input = Input::new(&model, &lengths, 40);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| {
                let scores = scores(&model, &input.batch(&model));
                (scores, gradients(&mut model, &input, DROPOUT, false), names(&model))
            })
        };
        let ((sa, (la, ga), names), (sb, (lb, gb), _)) = (run(1), run(2));
        wrong.extend(bits_differ(sa.iter().zip(&sb).map(|(a, b)| ("scores", &a[..], &b[..]))));
        wrong.extend(bits_differ(
            names.iter().zip(ga.iter().zip(&gb)).map(|(n, (a, b))| (n.as_str(), &a[..], &b[..])),
        ));
        if la.to_bits() != lb.to_bits() {
            wrong.push(format!("{compute:?}: loss {la} against {lb}"));
        }
    }
    Some(wrong)
}
