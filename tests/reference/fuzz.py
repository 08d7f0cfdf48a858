"""Cases nobody has seen: a model of random sizes, a random adapter and random rows, all from one seed."""

import random

import torch
import transformers as hf

import cases
import zoo
from adapters import bottleneck_adapter, lora

LLAMA_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
GPTJ_LINEARS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"]
BERT_LINEARS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense", "pooler.dense"]
CLASSES = {"llama": (hf.LlamaForCausalLM, hf.LlamaConfig), "mistral": (hf.MistralForCausalLM, hf.MistralConfig),
           "qwen2": (hf.Qwen2ForCausalLM, hf.Qwen2Config)}  # fmt: skip


def draw_rope(rng):
    """A random rope variant."""
    theta = rng.uniform(20, 20000)
    return rng.choice([
        {"rope_type": "default", "rope_theta": theta},
        {"rope_type": "linear", "rope_theta": theta, "factor": rng.uniform(1.2, 4)},
        {"rope_type": "dynamic", "rope_theta": theta, "factor": rng.uniform(1.2, 4)},
        zoo.LLAMA3 | {"rope_theta": theta, "factor": rng.uniform(2, 9)},
    ])  # fmt: skip


def draw_llama(rng, family):
    """LLaMA, Mistral or Qwen2 with random sizes."""
    groups, kv = rng.choice([1, 2, 3]), rng.choice([1, 2])
    width = 2 * rng.randint(2, 5)
    sizes = {
        "vocab_size": rng.randint(40, 130), "num_hidden_layers": rng.randint(1, 4), "num_attention_heads": groups * kv,
        "num_key_value_heads": kv, "head_dim": width, "intermediate_size": rng.randint(9, 60),
        "hidden_size": groups * kv * rng.choice([width, rng.randint(4, 11)]), "rms_norm_eps": rng.choice([1e-6, 1e-4]),
        "tie_word_embeddings": rng.random() < 0.5, "max_position_embeddings": rng.choice([7, 64]),
        "eos_token_id": rng.choice([2, [2, 7, 11, 13]]),
    }  # fmt: skip
    sizes["rope_parameters"] = draw_rope(rng)
    if family == "qwen2":
        # Qwen2's config has no head_dim of its own.
        sizes["hidden_size"] = groups * kv * sizes.pop("head_dim")
    if family == "llama":
        sizes |= {"attention_bias": rng.random() < 0.5, "mlp_bias": rng.random() < 0.5}
    if family == "mistral":
        sizes["sliding_window"] = None
    return zoo.llama(*CLASSES[family], **sizes)


def draw_gptj(rng):
    """GPT-J with random sizes."""
    heads, width = rng.randint(1, 4), 2 * rng.randint(2, 6)
    return zoo.gptj(
        vocab_size=rng.randint(40, 130), n_embd=heads * width, n_head=heads, n_layer=rng.randint(1, 4),
        rotary_dim=2 * rng.randint(1, width // 2), n_inner=rng.choice([None, rng.randint(9, 60)]),
        eos_token_id=rng.choice([2, 7]),
    )  # fmt: skip


def draw_encoder(rng, family):
    """BERT or RoBERTa, headless, with random sizes."""
    heads = rng.randint(1, 5)
    sizes = {
        "vocab_size": rng.randint(40, 130), "hidden_size": heads * rng.randint(3, 11), "num_attention_heads": heads,
        "intermediate_size": rng.randint(9, 60), "num_hidden_layers": rng.randint(1, 4),
    }  # fmt: skip
    if family == "bert":
        return zoo.encoder(hf.BertModel, hf.BertConfig, type_vocab_size=rng.randint(1, 3), **sizes)
    return zoo.roberta(hf.RobertaModel, **sizes)


def draw_sibo(rng, layers, series=False):
    """None for the plain method, or a random sibo object."""
    if rng.random() < 0.3:
        return None
    lam = round(rng.uniform(0.05, 0.9), 3)
    return {
        "lambda": rng.choice([lam, [round(rng.uniform(0.0, 0.9), 3) for _ in range(layers)]]),
        "h0": rng.choice(["raw", "rms"]),
        "skip": rng.choice(["original", "mixed"]) if series else "original",
    }


def draw_lora(rng, linears, layers, classes, sibo):
    """A random LoRA; with SIBO at least one target can take h0.

    No bias of an encoder is trained: the gradient of BERT's key bias is rounding and nothing else, and AdamW would make
    full-sized steps of it.
    """
    targets = rng.sample(linears, rng.randint(1, len(linears)))
    if sibo and "q_proj" in linears:
        targets = sorted({*targets, "q_proj"})
    elif sibo:
        targets = sorted({*targets, "query"})
    options = {"r": rng.randint(1, 6), "lora_alpha": rng.randint(1, 13), "use_rslora": rng.random() < 0.3}
    if rng.random() < 0.3:
        options["rank_pattern"] = {targets[0]: rng.randint(1, 8)}
    if rng.random() < 0.3:
        options["alpha_pattern"] = {targets[-1]: rng.randint(1, 20)}
    if rng.random() < 0.25 and sibo is None:
        options["layers_to_transform"] = [rng.randrange(layers)]
    if rng.random() < 0.2 and classes is None:
        options["bias"] = rng.choice(["all", "lora_only"])
    return lora(classes, sibo=sibo, target_modules=targets, **options)


def draw_bottleneck(rng, layers, classes, linears):
    """A random bottleneck adapter."""
    method = rng.choice(["houlsby", "pfeiffer", "parallel"] + (["in_linear"] if linears else []))
    series = method in ("houlsby", "pfeiffer")
    return bottleneck_adapter(
        method, classes, sibo=draw_sibo(rng, layers, series), linears=linears, bottleneck_size=rng.randint(1, 9),
        scaling=rng.choice([1.0, round(rng.uniform(0.3, 3), 2)]), non_linearity=rng.choice(["tanh", "relu", "swish", "gelu"]),
    )  # fmt: skip


def draw(seed, models):
    """Write the model of one seed below `models`; returns (name, case)."""
    rng = random.Random(seed)
    family = rng.choice(["llama", "llama", "mistral", "qwen2", "gptj", "gptj", "bert", "bert", "roberta", "roberta"])
    causal = family not in ("bert", "roberta")
    name = f"random-{seed}-{family}"
    cls, config = draw_gptj(rng) if family == "gptj" else (draw_llama if causal else draw_encoder)(rng, family)
    bare = not causal and rng.random() < 0.4
    model = cls(config, **({"add_pooling_layer": False} if bare else {})).eval()
    zoo.randomise(model, torch.Generator().manual_seed(seed))
    model.save_pretrained(models / name)
    layers = config.num_hidden_layers
    classes = None if causal else rng.randint(1, 6)
    linears = GPTJ_LINEARS if family == "gptj" else LLAMA_LINEARS if causal else BERT_LINEARS
    pooled = family == "bert" and not bare
    linears = [name for name in linears if pooled or name != "pooler.dense"]
    if family == "bert" and bare and rng.random() < 0.5:
        # A pooler that the base lacks belongs to the adapter.
        adapter = lora(classes, r=3, lora_alpha=4, target_modules=["query"], modules_to_save=["pooler"], sibo=draw_sibo(rng, layers))
    elif rng.random() < 0.6 and not (family == "bert" and bare):
        adapter = draw_lora(rng, linears, layers, classes, draw_sibo(rng, layers))
    else:
        inner = ["mlp.fc_in"] if family == "gptj" else ["mlp.gate_proj", "mlp.up_proj"] if causal else []
        adapter = draw_bottleneck(rng, layers, classes, inner)
    lengths = [rng.randint(2, 19), *(rng.randint(1, 15) for _ in range(rng.randint(0, 4)))]
    if causal:
        data = cases.causal_rows(name, config.vocab_size, lengths)
        data["labels"][0][1] = data["input_ids"][0][1]
    else:
        data = cases.encoder_rows(name, config.vocab_size, lengths, config.type_vocab_size if family == "bert" else 1, classes)
    runs = [cases.GRADS, cases.STEPS]
    if causal and config.to_dict().get("rope_parameters", {}).get("rope_type") != "dynamic":
        runs += [cases.GREEDY, cases.BEAM4]
    return name, cases.Case(name, data, runs, adapter=adapter)
