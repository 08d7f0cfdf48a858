//! adapter-hub's `BnConfig` (the Python package `adapters`, 1.3): read where its function is one of ours, refused by
//! name where it is not, and written.
//!
//! Its options say where an adapter reads and where the model's own residual and norm stand. With y the sub-layer's
//! output and x what entered it:
//!
//! | options | function | here |
//! |---|---|---|
//! | `original_ln_before` false (`double_seq_bn`) | norm(x + y + f(y)) | `houlsby`, `pfeiffer` |
//! | `original_ln_before` and `residual_before_ln` true (`seq_bn`) | norm(x + y + f(norm(x + y))) | the same with `original_ln_before` |
//! | `is_parallel` true (`par_bn`) | norm(x + y + f(x)) | `parallel` |

use super::bottleneck::{BottleneckConfig, Form, Size, activation, word};
use super::reader::Reader;
use crate::Error;
use crate::bottleneck::AdapterInit;
use serde_json::{Map, Value, json};

/// What is supported, for every refusal.
const SUPPORTED: &str =
    "supported are seq_bn, double_seq_bn and par_bn, with original_ln_before true or false";

/// Options that add something to the function or to training, with what they add.
const FOREIGN: [(&str, &str); 7] = [
    ("ln_before", "a norm of its own before the bottleneck"),
    ("ln_after", "a norm of its own behind the bottleneck"),
    ("use_gating", "a trained gate"),
    ("phm_layer", "Compacter's hypercomplex layers"),
    ("inv_adapter", "an invertible adapter on the embeddings"),
    ("invertible_adapter", "an invertible adapter on the embeddings"),
    ("leave_out", "layers without an adapter"),
];

/// Options that say something only beside a foreign one, or only how a fresh adapter starts.
const WITHOUT_EFFECT: [&str; 15] = [
    "init_weights_seed",
    "adapter_residual_before_ln",
    "cross_adapter",
    "inv_adapter_reduction_factor",
    "phm_dim",
    "factorized_phm_W",
    "shared_W_phm",
    "shared_phm_rule",
    "factorized_phm_rule",
    "phm_c_init",
    "phm_init_range",
    "learn_phm",
    "hypercomplex_nonlinearity",
    "phm_rank",
    "phm_bias",
];

/// Reads the `config` object of an adapter-hub folder; `width` and `units` are the model's and the stored adapter's.
pub(crate) fn read(
    place: &str,
    value: &Value,
    width: usize,
    units: usize,
) -> Result<BottleneckConfig, Error> {
    let mut reader = Reader::new(place, value)?;
    if let Some(other) = reader.text("architecture")? {
        return Err(refused(place, "architecture", format!("{other} is no bottleneck adapter")));
    }
    refuse_foreign(place, &mut reader)?;
    let form = form(place, &mut reader)?;
    let before = reader.flag("original_ln_before")? && form != Form::Parallel;
    if !reader.flag_or("original_ln_after", true)? {
        return Err(refused(
            place,
            "original_ln_after",
            "false leaves out the model's own residual and norm".into(),
        ));
    }
    let residual = reader.take("residual_before_ln").unwrap_or(json!(true));
    let same = match form {
        Form::Parallel => true,
        _ if before => residual == json!(true),
        _ => residual.is_boolean(),
    };
    if !same {
        let reason =
            format!("{residual} takes the adapter's skip from another state than the sub-layer's output");
        return Err(refused(place, "residual_before_ln", reason));
    }
    let mut config = BottleneckConfig { original_ln_before: before, ..BottleneckConfig::new(form) };
    config.size = size(&mut reader, width, units);
    let name = reader.text("non_linearity")?.unwrap_or_default();
    config.activation = activation(&name.to_ascii_lowercase()).ok_or_else(|| {
        refused(place, "non_linearity", format!("`{name}` is none of tanh, relu, swish and gelu"))
    })?;
    config.scaling = scaling(place, &mut reader)?;
    config.init = match reader.text("init_weights")?.as_deref() {
        Some("mam_adapter") => AdapterInit::MamAdapter,
        // How values started says nothing about values that are there.
        _ => AdapterInit::Bert,
    };
    config.dropout = reader.probability("dropout")?;
    config.dropout_after_up = config.dropout > 0.0;
    if reader.number("stochastic_depth")?.unwrap_or(0.0) > 0.0 {
        return Err(refused(place, "stochastic_depth", "it drops whole adapters in training".into()));
    }
    reader.ignore(&WITHOUT_EFFECT);
    reader.finish()?;
    Ok(config)
}

/// The `config` object of an adapter-hub folder with the same function.
pub(crate) fn write(config: &BottleneckConfig, width: usize) -> Value {
    let parallel = config.form == Form::Parallel;
    // Python divides the width and cuts: half a unit more keeps the quotient clear of the next lower number.
    let units = config.units(width);
    let factor = match width.is_multiple_of(units) {
        true => json!(width / units),
        false => json!(width as f64 / (units as f64 + 0.5)),
    };
    let number = |x: f32| json!(x.to_string().parse::<f64>().unwrap_or(f64::from(x)));
    let init = if config.init == AdapterInit::Bert { "bert" } else { "mam_adapter" };
    let mut object: Map<String, Value> = [
        ("mh_adapter", json!(config.form == Form::Houlsby)),
        ("output_adapter", json!(true)),
        ("reduction_factor", factor),
        ("non_linearity", json!(word(config.activation))),
        ("original_ln_before", json!(config.original_ln_before)),
        ("original_ln_after", json!(true)),
        ("residual_before_ln", json!(true)),
        ("is_parallel", json!(parallel)),
        ("scaling", number(config.scaling)),
        ("init_weights", json!(init)),
        ("dropout", number(config.dropout)),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .into_iter()
    .collect();
    // Those that adapter-hub reads without a default of its own in older versions.
    for key in
        ["ln_before", "ln_after", "adapter_residual_before_ln", "use_gating", "phm_layer", "cross_adapter"]
    {
        object.insert(key.into(), json!(false));
    }
    object.insert("inv_adapter".into(), Value::Null);
    object.insert("inv_adapter_reduction_factor".into(), Value::Null);
    object.insert("leave_out".into(), json!([]));
    Value::Object(object)
}

fn refused(place: &str, key: &str, what: String) -> Error {
    Error::key(place, &format!("config.{key}"), format!("{what}, which has no form here; {SUPPORTED}"))
}

fn refuse_foreign(place: &str, reader: &mut Reader) -> Result<(), Error> {
    for (key, what) in FOREIGN {
        let off = match reader.take(key) {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(_) => false,
        };
        if !off {
            return Err(refused(place, key, format!("it adds {what}")));
        }
    }
    Ok(())
}

fn form(place: &str, reader: &mut Reader) -> Result<Form, Error> {
    let parallel = reader.flag("is_parallel")?;
    match (reader.flag("mh_adapter")?, reader.flag("output_adapter")?, parallel) {
        (true, true, false) => Ok(Form::Houlsby),
        (false, true, false) => Ok(Form::Pfeiffer),
        (false, true, true) => Ok(Form::Parallel),
        (true, _, true) => Err(refused(place, "mh_adapter", "an adapter beside attention".into())),
        (true, false, false) => {
            Err(refused(place, "output_adapter", "an adapter behind attention alone".into()))
        }
        (false, false, _) => Err(refused(place, "output_adapter", "no adapter at all".into())),
    }
}

/// The stored size, as a fraction where the file gives one number that leads to it.
fn size(reader: &mut Reader, width: usize, units: usize) -> Size {
    let factor = reader.take("reduction_factor").and_then(|v| v.as_f64()).filter(|f| *f > 0.0);
    match factor {
        Some(factor) if ((width as f64 / factor) as usize).max(1) == units => Size::Fraction(factor),
        _ => Size::Units(units),
    }
}

fn scaling(place: &str, reader: &mut Reader) -> Result<f32, Error> {
    match reader.take("scaling") {
        None | Some(Value::Null) => Ok(1.0),
        Some(Value::Number(n)) => Ok(n.as_f64().unwrap_or(1.0) as f32),
        Some(other) => Err(refused(place, "scaling", format!("{other} trains the scaling"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `adapters` 1.3.0 itself saves for `seq_bn`.
    fn seq_bn() -> Value {
        json!({
            "adapter_residual_before_ln": false, "cross_adapter": false, "dropout": 0.0, "factorized_phm_W": true,
            "factorized_phm_rule": false, "hypercomplex_nonlinearity": "glorot-uniform", "init_weights": "bert",
            "init_weights_seed": null, "inv_adapter": null, "inv_adapter_reduction_factor": null, "is_parallel": false,
            "learn_phm": true, "leave_out": [], "ln_after": false, "ln_before": false, "mh_adapter": false,
            "non_linearity": "relu", "original_ln_after": true, "original_ln_before": true, "output_adapter": true,
            "phm_bias": true, "phm_c_init": "normal", "phm_dim": 4, "phm_init_range": 0.0001, "phm_layer": false,
            "phm_rank": 1, "reduction_factor": 16, "residual_before_ln": true, "scaling": 1.0, "shared_W_phm": false,
            "shared_phm_rule": true, "stochastic_depth": 0.0, "use_gating": false
        })
    }

    fn with(changes: Value) -> Result<BottleneckConfig, Error> {
        let mut object = seq_bn();
        for (key, value) in changes.as_object().unwrap() {
            object[key] = value.clone();
        }
        read("f", &object, 48, 3)
    }

    #[test]
    fn its_three_forms_are_ours() {
        let double = json!({"mh_adapter": true, "original_ln_before": false, "non_linearity": "swish", "dropout": 0.25});
        let parallel = json!({"is_parallel": true, "original_ln_before": false, "scaling": 4.0, "reduction_factor": {"default": 9}});
        for (changes, form, before, size) in [
            (json!({}), Form::Pfeiffer, true, Size::Fraction(16.0)),
            (double, Form::Houlsby, false, Size::Fraction(16.0)),
            (parallel, Form::Parallel, false, Size::Units(3)),
        ] {
            let config = with(changes).unwrap();
            assert_eq!((config.form, config.original_ln_before, config.size), (form, before, size));
            assert_eq!(config.dropout_after_up, config.dropout > 0.0);
            let again = read("f", &write(&config, 48), 48, 3).unwrap();
            assert_eq!((again.form, again.scaling, again.units(48)), (form, config.scaling, 3));
            assert_eq!(
                (again.activation, again.dropout, again.init),
                (config.activation, config.dropout, config.init)
            );
            assert_eq!(again.original_ln_before, before);
        }
    }

    #[test]
    fn other_functions_are_refused_by_name() {
        for (key, value) in [
            ("original_ln_after", json!(false)),
            ("residual_before_ln", json!(false)),
            ("residual_before_ln", json!("post_add")),
            ("ln_before", json!(true)),
            ("ln_after", json!(true)),
            ("use_gating", json!(true)),
            ("phm_layer", json!(true)),
            ("inv_adapter", json!("nice")),
            ("invertible_adapter", json!({"block_type": "glow"})),
            ("leave_out", json!([1])),
            ("scaling", json!("learned")),
            ("non_linearity", json!("leakyrelu")),
            ("output_adapter", json!(false)),
            ("stochastic_depth", json!(0.1)),
            ("architecture", json!("lora")),
        ] {
            let error = with(json!({key: value})).unwrap_err().to_string();
            assert!(error.contains(&format!("`config.{key}`")) && error.contains("seq_bn"), "{key}: {error}");
        }
        assert!(with(json!({"new_option": 3})).unwrap_err().to_string().contains("`new_option`"));
    }

    /// int(width // factor), as Python has it, must be the number of units for any width.
    #[test]
    fn the_factor_leads_back_to_the_size() {
        for (width, units) in [(768, 100), (12, 5), (20, 3), (64, 64), (12, 13), (1024, 999)] {
            let config =
                BottleneckConfig { size: Size::Units(units), ..BottleneckConfig::new(Form::Pfeiffer) };
            let factor = write(&config, width)["reduction_factor"].as_f64().unwrap();
            assert_eq!((width as f64).div_euclid(factor) as usize, units, "{width} {units} {factor}");
        }
    }
}
