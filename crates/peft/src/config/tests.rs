use super::*;
use crate::targets::Targets;

const PLACE: &str = "adapter_config.json";

fn refused(value: Value) -> String {
    AdapterConfig::from_json(PLACE, &value).unwrap_err().to_string()
}

/// What PEFT 0.21.2 itself saves (`LoraConfig(r=3, lora_alpha=5, task_type="CAUSAL_LM")` on LLaMA).
fn as_saved_by_peft() -> Value {
    json!({
        "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null,
        "base_model_name_or_path": null, "bias": "none", "corda_config": null, "ensure_weight_tying": false,
        "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
        "init_lora_weights": true, "kasa_config": null, "layer_replication": null, "layers_pattern": null,
        "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 5, "lora_bias": false, "lora_dropout": 0.05,
        "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": null,
        "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": 3,
        "rank_pattern": {}, "revision": null, "target_modules": ["v_proj", "q_proj"], "target_parameters": null,
        "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_bdlora": null, "use_dora": false,
        "use_qalora": false, "use_rslora": false, "velora_config": null
    })
}

#[test]
fn what_peft_saves_is_read() {
    let config = AdapterConfig::from_json(PLACE, &as_saved_by_peft()).unwrap();
    let Method::Lora(lora) = &config.method else { panic!("not LoRA") };
    assert_eq!((lora.r, lora.alpha, lora.dropout), (3, 5.0, 0.05));
    assert_eq!(lora.targets, Targets::List(vec!["v_proj".into(), "q_proj".into()]));
    assert_eq!(config.task_type, Some(TaskType::CausalLm));
    assert!(config.sibo.is_plain());
    assert_eq!(AdapterConfig::from_json(PLACE, &config.to_json()).unwrap(), config);
    assert_eq!(config.to_json()["peft_type"], "LORA");
}

#[test]
fn an_alpha_may_have_any_sign_and_a_rank_may_not() {
    let mut object = as_saved_by_peft();
    object["alpha_pattern"] = json!({"v_proj": -2.5, "q_proj": 0});
    let Method::Lora(lora) = AdapterConfig::from_json(PLACE, &object).unwrap().method else {
        panic!("not LoRA")
    };
    assert_eq!(lora.alpha_pattern, [("v_proj".to_string(), -2.5), ("q_proj".into(), 0.0)]);
    object["rank_pattern"] = json!({"v_proj": 0});
    assert!(refused(object).contains("numbers above zero"));
}

#[test]
fn a_start_that_only_peft_draws_is_read_and_not_begun() {
    for name in ["orthogonal", "eva"] {
        let mut object = as_saved_by_peft();
        object["init_lora_weights"] = json!(name);
        let config = AdapterConfig::from_json(PLACE, &object).unwrap();
        assert_eq!(config.to_json()["init_lora_weights"], name);
        let recipe = json!({"method": "lora", "init_lora_weights": name});
        let refused = AdapterConfig::from_recipe(PLACE, &recipe).unwrap_err().to_string();
        assert!(refused.contains("`init_lora_weights`") && refused.contains("only PEFT"), "{refused}");
    }
}

#[test]
fn every_option_that_changes_a_number_is_refused_by_name() {
    for (key, value) in [
        ("use_dora", json!(true)),
        ("lora_bias", json!(true)),
        ("init_lora_weights", json!("pissa")),
        ("layer_replication", json!([[0, 2]])),
        ("trainable_token_indices", json!([1])),
        ("target_parameters", json!(["x"])),
        ("use_qalora", json!(true)),
        ("r", json!(0)),
        ("r", json!("8")),
        ("lora_dropout", json!(1.0)),
        ("bias", json!("some")),
        ("task_type", json!("TOKEN_CLS")),
        ("some_new_option", json!(3)),
    ] {
        let mut object = as_saved_by_peft();
        object[key] = value;
        let error = refused(object);
        assert!(error.contains(&format!("`{key}`")), "{key}: {error}");
    }
    assert!(refused(json!({"peft_type": "LORA", "lora_alhpa": 3})).contains("did you mean `lora_alpha`"));
    let all =
        refused(json!({"peft_type": "LORA", "target_modules": "all-linear", "layers_to_transform": [1]}));
    assert!(all.contains("`layers_to_transform`") && all.contains("a list of names"), "{all}");
    let pattern = refused(json!({"peft_type": "LORA", "target_modules": ["q_proj"], "layers_pattern": "h"}));
    assert!(pattern.contains("`layers_pattern`") && pattern.contains("layers_to_transform"), "{pattern}");
    let dora = refused(json!({"peft_type": "LORA", "use_dora": true}));
    assert!(dora.contains("`use_dora`: true is not supported") && !dora.contains("did you mean"), "{dora}");
    assert!(refused(json!({"peft_type": "IA3"})).contains("IA3 is not supported"));
    assert!(refused(json!({"r": 3})).contains("peft_type"));
}

#[test]
fn lambda_and_peft_type_must_agree() {
    let sibo = json!({"version": 1, "lambda": 0.35});
    assert!(refused(json!({"peft_type": "LORA", "sibo": sibo})).contains("SIBO_LORA"));
    assert!(refused(json!({"peft_type": "SIBO_LORA"})).contains("lambda matters"));
    let zero = json!({"peft_type": "SIBO_LORA", "sibo": {"lambda": 0.0}});
    let config = AdapterConfig::from_json(PLACE, &zero).unwrap();
    assert_eq!(config.to_json()["peft_type"], "LORA");
    let boosted = AdapterConfig::from_json(PLACE, &json!({"peft_type": "SIBO_LORA", "sibo": sibo})).unwrap();
    assert_eq!(boosted.to_json()["sibo"]["lambda"], json!(0.35));
}

#[test]
fn recipes_choose_by_name() {
    let read = |v: Value| AdapterConfig::from_recipe("recipe.toml", &v);
    let config = read(json!({"method": "houlsby", "reduction_factor": 4, "sibo": {"lambda": 0.2}})).unwrap();
    assert_eq!(config.to_json()["peft_type"], "SIBO_BOTTLENECK");
    assert_eq!(AdapterConfig::from_json(PLACE, &config.to_json()).unwrap(), config);
    assert!(
        read(json!({"method": "full", "sibo": {"lambda": 0.2}}))
            .unwrap_err()
            .to_string()
            .contains("no branch")
    );
    assert!(read(json!({"method": "lorra"})).unwrap_err().to_string().contains("did you mean `lora`"));
    assert!(
        read(json!({"method": "pfeiffer", "bottleneck_size": 8, "reduction_factor": 4}))
            .unwrap_err()
            .to_string()
            .contains("not both")
    );
}
