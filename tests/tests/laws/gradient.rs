//! Gradients against finite differences of the loss.

use sibo_model::{Dropout, Model};
use sibo_peft::AdapterConfig;
use sibo_tests::measure::{Input, gradients, names};
use sibo_tests::table::{Boost, Case, disturb};

/// Backbones that between them hold every piece of backward code.
const SUBSET: [&str; 6] = ["bert-pooler", "roberta-regression", "llama-gqa", "llama-tied", "qwen2", "gptj"];

/// Length of a step. With [`slope`]'s four points the truncation is of order h^4, below 1e-9 of the fifth derivative.
const STEP: f32 = 0.005;
/// What rounding may do to a slope. Losses here are 10 to 150, summed in f64 from f32 values that are off by a
/// few 2^-24 of themselves, some 1e-5 in all; that times 1.5 / h is 3e-3.
const ROUNDING: f64 = 4e-3;
/// Share of the tensor's largest slope that truncation and rounding may take; a lost factor takes far more.
const SHARE: f64 = 5e-3;

/// The rms scale of h0 is held fixed by definition, so differences of the loss see what the gradient leaves
/// out; parity holds those cases.
pub(super) fn is_the_derivative(case: &Case) -> Option<Vec<String>> {
    let known = SUBSET.contains(&case.backbone.name);
    let series = case.method.name.starts_with("houlsby") || case.method.name.starts_with("pfeiffer");
    let useless = case.boost == Boost::Mixed && !series && case.method.name != "in_linear-all";
    if !known || case.boost == Boost::Rms || useless {
        return None;
    }
    let droppy =
        matches!(case.method.name, "lora-dropout" | "houlsby-mam" | "lora-embedding" | "pfeiffer-on-sum");
    let dropout = droppy.then_some(Dropout { seed: 3, epoch: 2, base: true });
    Some(differences(case.trained(), dropout))
}

/// A line for each slope of the usual rows' loss that the gradient misses.
pub(super) fn differences(mut model: Model, dropout: Option<Dropout>) -> Vec<String> {
    let input = Input::usual(&model);
    let (_, grads) = gradients(&mut model, &input, dropout, false);
    let mut loss = Loss { model, input, dropout };
    let mut lines = Vec::new();
    let names = names(&loss.model);
    for (at, grad) in grads.iter().enumerate() {
        for direction in directions(grad, at) {
            let want = slope(&mut loss, at, &direction);
            let got: f64 = direction.iter().zip(grad).map(|(d, g)| f64::from(*d) * f64::from(*g)).sum();
            let largest = grad.iter().fold(0.0f32, |m, g| m.max(g.abs()));
            if (got - want).abs() > ROUNDING + SHARE * f64::from(largest).max(want.abs()) {
                lines.push(format!("{}: gradient {got:.6}, differences say {want:.6}", names[at]));
            }
        }
    }
    lines
}

/// The gradient's own direction (so that all entries count), its largest entry, and another.
fn directions(grad: &[f32], at: usize) -> Vec<Vec<f32>> {
    let largest = |m: usize, i: usize| if grad[i].abs() > grad[m].abs() { i } else { m };
    let top = (0..grad.len()).fold(0, largest);
    let scale = grad[top].abs().max(f32::MIN_POSITIVE);
    let unit = |i: usize| (0..grad.len()).map(|j| if i == j { 1.0 } else { 0.0 }).collect::<Vec<f32>>();
    let mut all = vec![grad.iter().map(|g| g / scale).collect(), unit(top)];
    let other = (at * 7 + 3) % grad.len();
    if other != top {
        all.push(unit(other));
    }
    all
}

struct Loss {
    model: Model,
    input: Input,
    dropout: Option<Dropout>,
}

impl Loss {
    fn value(&mut self) -> f64 {
        let batch = self.input.batch(&self.model);
        match self.dropout {
            None => self.model.loss(&batch, &self.input.labels).loss_sum,
            some => self.model.forward_backward(&batch, &self.input.labels, 1.0, some, false).loss_sum,
        }
    }

    fn moved(&mut self, at: usize, direction: &[f32], by: f32) -> f64 {
        let param = self.model.params_mut().iter_mut().nth(at).expect("a parameter");
        let kept = param.value.clone();
        param.value.iter_mut().zip(direction).for_each(|(v, d)| *v += by * d);
        let value = self.value();
        self.model.params_mut().iter_mut().nth(at).expect("a parameter").value = kept;
        value
    }
}

/// The slope of the loss along `direction` from four points.
fn slope(loss: &mut Loss, at: usize, direction: &[f32]) -> f64 {
    // Many entries move at once along the gradient: keep the distance what it is for one.
    let length = direction.iter().map(|d| d * d).sum::<f32>().sqrt();
    let h = STEP / length.max(1.0);
    let near = loss.moved(at, direction, h) - loss.moved(at, direction, -h);
    let far = loss.moved(at, direction, 2.0 * h) - loss.moved(at, direction, -2.0 * h);
    (8.0 * near - far) / (12.0 * f64::from(h))
}

/// However thetas are shared, and with a skip that carries x~ too; the table has one theta for each kind of site.
#[test]
fn every_sharing_of_theta_is_the_derivative() {
    let cases = Case::all().into_iter().filter(|c| {
        let method =
            ["lora-all", "lora-dropout", "houlsby", "parallel", "in_linear-all"].contains(&c.method.name);
        method && c.boost == Boost::Learned && SUBSET.contains(&c.backbone.name) && c.refusal().is_none()
    });
    let mut thetas = 0;
    for case in cases {
        for per in ["layer", "module"] {
            let mut model = case.base();
            let mut recipe = case.recipe(model.arch().layers);
            recipe["sibo"]["lambda_per"] = per.into();
            recipe["sibo"]["skip"] = "mixed".into();
            let config = AdapterConfig::from_recipe("recipe", &recipe).expect("a configuration");
            model.attach(&config, 23).unwrap_or_else(|e| panic!("{}: {e}", case.name()));
            disturb(&mut model);
            thetas += model.params().iter().filter(|p| p.theta).count();
            let dropout =
                (case.method.name == "lora-dropout").then_some(Dropout { seed: 3, epoch: 2, base: true });
            let wrong = differences(model, dropout);
            assert!(wrong.is_empty(), "{}, a theta for each {per}: {}", case.name(), wrong.join("\n"));
        }
    }
    assert!(thetas > 200, "{thetas}");
}
