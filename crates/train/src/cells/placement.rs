//! The placement ablation: where h0 enters, where the adapter stands, what its skip carries, how h0 is scaled.

use serde_json::{Value, json};
use sibo_model::Model;
use sibo_peft::{AdapterConfig, Site};

/// A variation of a recipe.
#[derive(Debug, Clone, PartialEq)]
pub struct Variation {
    /// Its name in tables.
    pub name: String,
    /// The recipe's whole `[adapter]` table, or the sentence that says why there is none.
    pub adapter: Result<Value, String>,
    /// The variation that it is held against.
    pub against: Option<String>,
}

/// Everything that can be varied about `adapter` (a recipe's table with lambda above zero) on `base`, a model without
/// an adapter.
pub fn variations(base: &Model, adapter: &Value) -> Vec<Variation> {
    let method = adapter.get("method").and_then(Value::as_str).unwrap_or("lora");
    let mut all = match method {
        "houlsby" | "pfeiffer" => series(adapter),
        _ => {
            let mut own = vec![plain(adapter, method), boosted(adapter, method, "every site", &[], method)];
            own.extend(by_site(base, adapter, method));
            own
        }
    };
    all.push(boosted(adapter, method, "h0 rms", &[("h0", json!("rms"))], method));
    let skip = boosted(adapter, method, "skip mixed", &[("skip", json!("mixed"))], method);
    all.push(match method {
        "houlsby" | "pfeiffer" => skip,
        _ => refused(
            skip,
            format!("{method} has no skip of its own that could carry the mix; series adapters do"),
        ),
    });
    let reference = ("placement", json!("reference"));
    all.push(boosted(adapter, method, "reference (the released code)", &[reference], method));
    all.into_iter().map(|v| judged(v, base)).collect()
}

/// Adapters after attention, after the FFN and after both; h0 into all of them or some.
fn series(adapter: &Value) -> Vec<Variation> {
    let of = |method: &str| {
        let mut table = adapter.clone();
        table["method"] = json!(method);
        table
    };
    let (both, ffn) = (of("houlsby"), of("pfeiffer"));
    let list = |name: &str| ("placement", json!([name]));
    vec![
        plain(&both, "houlsby"),
        boosted(&both, "houlsby", "after attention and FFN", &[], "houlsby"),
        boosted(&both, "houlsby", "h0 after attention only", &[list("attention_adapter")], "houlsby"),
        boosted(&both, "houlsby", "h0 after FFN only", &[list("ffn_adapter")], "houlsby"),
        plain(&ffn, "pfeiffer"),
        boosted(&ffn, "pfeiffer", "adapter after FFN only", &[], "pfeiffer"),
        Variation {
            name: "adapter after attention only".into(),
            adapter: Err("no method has adapters after attention alone; houlsby with h0 after attention only is the nearest".into()),
            against: None,
        },
    ]
}

/// h0 at the targets around attention, and at those of the FFN.
fn by_site(base: &Model, adapter: &Value, method: &str) -> Vec<Variation> {
    let at = |name: &str, wanted: &[Site]| {
        let names = injected_names(base, adapter, wanted);
        let variation = boosted(adapter, method, name, &[("placement", json!(names))], method);
        match names.is_empty() {
            false => variation,
            true => refused(variation, "the recipe trains no such site that reads the token's state".into()),
        }
    };
    vec![
        at("attention sites", &[Site::Query, Site::Key, Site::Value, Site::AttnOut]),
        at("FFN sites", &[Site::FfnUp, Site::FfnGate, Site::Ffn]),
    ]
}

/// The paths within a layer at which h0 enters under `paper`, of these sites.
fn injected_names(base: &Model, adapter: &Value, wanted: &[Site]) -> Vec<String> {
    let mut table = adapter.clone();
    set(&mut table, "placement", json!("paper"));
    let mut model = base.clone();
    let attached = AdapterConfig::from_recipe("ablation", &table).map(|c| model.attach(&c, 1).is_ok());
    let Some(adapter) = model.adapter().filter(|_| attached.unwrap_or(false)) else { return vec![] };
    let shape = base.shape();
    let mut names: Vec<String> = Vec::new();
    for path in &adapter.injected {
        let site = shape.modules.iter().find(|m| m.path == *path).map_or(Site::Ffn, |m| m.site);
        // The last part alone would not do: BERT has two `output.dense` in a layer.
        let below = shape.layer_paths.iter().find_map(|l| path.strip_prefix(l.as_str())?.strip_prefix('.'));
        let name = below.unwrap_or(path).to_string();
        if wanted.contains(&site) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn set(adapter: &mut Value, key: &str, value: Value) {
    if let Some(table) = adapter.as_object_mut() {
        let sibo = table.entry("sibo").or_insert_with(|| json!({}));
        if let Some(sibo) = sibo.as_object_mut() {
            sibo.insert(key.into(), value);
        }
    }
}

fn plain(adapter: &Value, method: &str) -> Variation {
    let mut table = adapter.clone();
    if let Some(table) = table.as_object_mut() {
        table.remove("sibo");
    }
    Variation { name: format!("{method}, plain"), adapter: Ok(table), against: None }
}

fn boosted(adapter: &Value, method: &str, name: &str, keys: &[(&str, Value)], against: &str) -> Variation {
    let mut table = adapter.clone();
    for (key, value) in [("placement", json!("paper")), ("h0", json!("raw")), ("skip", json!("original"))] {
        set(&mut table, key, value);
    }
    keys.iter().for_each(|(key, value)| set(&mut table, key, value.clone()));
    Variation {
        name: format!("{method}, {name}"),
        adapter: Ok(table),
        against: Some(format!("{against}, plain")),
    }
}

fn refused(variation: Variation, why: String) -> Variation {
    Variation { adapter: Err(why), ..variation }
}

/// A variation that the model refuses, with its sentence.
fn judged(variation: Variation, base: &Model) -> Variation {
    let Ok(table) = &variation.adapter else { return variation };
    let mut model = base.clone();
    let tried = AdapterConfig::from_recipe("ablation", table)
        .map_err(|e| e.to_string())
        .and_then(|config| crate::prepare::attach(&mut model, &config, "base", 1).map_err(|e| e.to_string()));
    match tried {
        Ok(()) => variation,
        Err(why) => refused(variation, why),
    }
}
