"""The cases of tests/data: a model, an adapter, rows, and the runs whose answers are kept."""

import random
import zlib
from dataclasses import dataclass, field

import zoo
from adapters import bottleneck_adapter, lora

TRACE = {"command": "trace", "options": {}, "expected": "expected.safetensors"}
GRADS = {"command": "trace", "options": {"grads": True}, "expected": "expected.safetensors"}
STEPS = {"command": "trace", "expected": "steps.safetensors", "options": {"optim": {
    "optim_steps": 5, "lr": 0.013, "weight_decay": 0.07, "warmup_steps": 2, "max_grad_norm": 0.6}}}  # fmt: skip
GREEDY = {"command": "generate", "options": {"max_new_tokens": 9, "num_beams": 1}, "expected": "greedy.json"}
BEAM4 = {"command": "generate", "options": {"max_new_tokens": 9, "num_beams": 4}, "expected": "beam4.json"}


@dataclass
class Case:
    """`adapter(model folder, target folder)` writes the adapter; None is the base model."""

    model: str
    ids: dict
    runs: list = field(default_factory=lambda: [GRADS])
    adapter: object = None


def seed_of(name):
    """A seed that depends on the name only."""
    return zlib.crc32(name.encode())


def causal_rows(name, vocab, lengths):
    """Rows of random ids, a third of the labels -100."""
    rng = random.Random(seed_of(name))
    rows = [[rng.randrange(3, vocab) for _ in range(n)] for n in lengths]
    labels = [[-100 if rng.random() < 0.33 else token for token in row] for row in rows]
    return {"input_ids": rows, "labels": labels}


def encoder_rows(name, vocab, lengths, types=1, classes=None):
    """Rows of random ids with token types that change within a row; labels where `classes` is given (1: numbers)."""
    rng = random.Random(seed_of(name))
    data = {"input_ids": [[rng.randrange(2, vocab) for _ in range(n)] for n in lengths]}
    if types > 1:
        data["token_type_ids"] = [sorted(rng.randrange(types) for _ in range(n)) for n in lengths]
    if classes is not None:
        data["labels"] = [round(rng.uniform(-1, 5), 3) if classes == 1 else rng.randrange(classes) for _ in lengths]
    return data


def rows(name, model, lengths=(9, 1, 4), classes=None):
    """Rows that fit a model of the zoo."""
    source = {"bert-old-names": "bert-mlm", "llama-v4-shards": "llama-linear"}.get(model, model)
    _cls, config = zoo.MODELS[source]()
    if config.model_type in ("llama", "mistral", "qwen2", "gptj"):
        return causal_rows(name, config.vocab_size, lengths)
    types = config.type_vocab_size if config.model_type == "bert" else 1
    return encoder_rows(name, config.vocab_size, lengths, types, classes)


def base_cases():
    """Every model without an adapter."""
    found = {}
    for model in [*zoo.MODELS, "bert-old-names", "llama-v4-shards"]:
        name = f"{model}-base"
        classes = {"bert-classifier": 5, "roberta-regression": 1}.get(model)
        causal = not model.startswith(("bert", "roberta", "xlm"))
        generates = causal and model != "llama-dynamic"
        found[name] = Case(model, rows(name, model, classes=classes), [TRACE, GREEDY, BEAM4] if generates else [TRACE])
    return found


ATTENTION = ["q_proj", "k_proj", "v_proj"]
LLAMA_ALL = ATTENTION + ["o_proj", "gate_proj", "up_proj", "down_proj"]
PAPER_LLAMA = ATTENTION + ["up_proj", "down_proj"]
GPTJ_ALL = ATTENTION + ["out_proj", "fc_in", "fc_out"]

LORA = {
    # Every linear; r and alpha differ, ranks differ, rsLoRA, some layers only, other tensors trained beside LoRA.
    "llama-gqa-lora": ("llama-gqa", lora(r=3, lora_alpha=7, target_modules=LLAMA_ALL), [GRADS, STEPS, BEAM4]),
    "llama-gqa-lora-head-saved": ("llama-gqa", lora(r=2, lora_alpha=3, target_modules=["v_proj"], modules_to_save=["lm_head"])),
    "llama-gqa-lora-embedding": ("llama-gqa", lora(r=2, lora_alpha=5, target_modules=["embed_tokens", "q_proj", "lm_head"]), [GRADS, STEPS, GREEDY]),
    "llama-gqa-lora-regex": ("llama-gqa", lora(r=2, lora_alpha=3, target_modules=r".*\.[02]\.self_attn\.(q|o)_proj")),
    "llama-tied-lora-patterns": ("llama-tied", lora(r=3, lora_alpha=7, use_rslora=True, target_modules=LLAMA_ALL,
        rank_pattern={"q_proj": 5, "layers.1.mlp.up_proj": 2}, alpha_pattern={"v_proj": 11, "mlp.down_proj": 4})),
    "llama-tied-lora-bias-all": ("llama-tied", lora(r=2, lora_alpha=3, bias="all", target_modules=["q_proj", "down_proj"]), [GRADS, STEPS]),
    "llama-tied-lora-bias-only": ("llama-tied", lora(r=2, lora_alpha=3, bias="lora_only", target_modules=["k_proj", "up_proj"])),
    "llama-tied-lora-one-layer": ("llama-tied", lora(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj"], layers_to_transform=[1])),
    "llama-linear-lora": ("llama-linear", lora(r=2, lora_alpha=3, target_modules=PAPER_LLAMA)),
    "llama-dynamic-lora": ("llama-dynamic", lora(r=2, lora_alpha=3, target_modules="all-linear")),
    "mistral-lora": ("mistral", lora(r=2, lora_alpha=3, target_modules=LLAMA_ALL)),
    "qwen2-lora": ("qwen2", lora(r=2, lora_alpha=3, target_modules=LLAMA_ALL), [GRADS, BEAM4]),
    "gptj-lora": ("gptj", lora(r=3, lora_alpha=7, target_modules=GPTJ_ALL), [GRADS, STEPS, BEAM4]),
    "gptj-lora-head": ("gptj", lora(r=2, lora_alpha=3, target_modules=["wte", "fc_in", "lm_head"])),
    "gptj-full-rotary-lora-bias-all": ("gptj-full-rotary", lora(r=2, lora_alpha=3, bias="all", target_modules=["q_proj", "fc_out"])),
    "bert-pooler-lora-4": ("bert-pooler", lora(4, r=3, lora_alpha=7, target_modules=["query", "value"]), [GRADS, STEPS]),
    "bert-pooler-lora-dense": ("bert-pooler", lora(3, r=2, lora_alpha=3, target_modules=["dense"])),
    "bert-pooler-lora-output-dense": ("bert-pooler", lora(3, r=2, lora_alpha=3, target_modules=["output.dense"])),
    "bert-pooler-lora-all-linear": ("bert-pooler", lora(3, r=2, lora_alpha=3, target_modules="all-linear")),
    "bert-pooler-lora-headless": ("bert-pooler", lora(r=2, lora_alpha=3, target_modules=["query", "key"]), [TRACE]),
    "bert-bare-lora-new-pooler": ("bert-bare", lora(3, r=2, lora_alpha=3, target_modules=["key"], modules_to_save=["pooler"]), [GRADS, STEPS]),
    # Trained norms under weight decay: by trace.md only names ending in .bias are spared.
    "bert-pooler-lora-norms": ("bert-pooler", lora(3, r=2, lora_alpha=3, target_modules=["query"], modules_to_save=["output.LayerNorm"]), [GRADS, STEPS]),
    "llama-tied-lora-norms": ("llama-tied", lora(r=2, lora_alpha=3, target_modules=["v_proj"], modules_to_save=["input_layernorm"]), [GRADS, STEPS]),
    "bert-classifier-lora": ("bert-classifier", lora(5, r=2, lora_alpha=3, target_modules=["query"])),
    "bert-classifier-lora-bias-all": ("bert-classifier", lora(5, r=2, lora_alpha=3, bias="all", target_modules=["value"])),
    "bert-pooler-lora-embedding": ("bert-pooler", lora(3, r=2, lora_alpha=3, target_modules=["word_embeddings", "query"])),
    "bert-mlm-lora": ("bert-mlm", lora(r=2, lora_alpha=3, target_modules=["query", "intermediate.dense"]), [TRACE]),
    "roberta-bare-lora-3": ("roberta-bare", lora(3, r=3, lora_alpha=7, target_modules=["query", "value"]), [GRADS, STEPS]),
    "roberta-bare-lora-number": ("roberta-bare", lora(1, r=2, lora_alpha=3, target_modules=["key", "attention.output.dense"]), [GRADS, STEPS]),
    "roberta-regression-lora": ("roberta-regression", lora(1, r=2, lora_alpha=3, target_modules=["intermediate.dense"])),
    "xlm-roberta-lora": ("xlm-roberta", lora(2, r=2, lora_alpha=3, target_modules=["query", "value"])),
}  # fmt: skip
"""Name -> (model, writer, runs); a case without runs keeps trace and gradients. The seven kinds of plain LoRA."""

SIBO = {
    "llama-gqa-sibo-35": ("llama-gqa", lora(r=3, lora_alpha=7, target_modules=LLAMA_ALL, sibo={"lambda": 0.35}, metadata=True), [GRADS, STEPS, BEAM4]),
    "llama-gqa-sibo-70-rms": ("llama-gqa", lora(r=2, lora_alpha=5, target_modules=PAPER_LLAMA, sibo={"lambda": 0.7, "h0": "rms"}), [GRADS, STEPS, GREEDY]),
    "llama-gqa-sibo-list": ("llama-gqa", lora(r=2, lora_alpha=3, target_modules=["q_proj", "up_proj"], sibo={"lambda": [0.7, 0.0, 0.35]})),
    "llama-gqa-sibo-reference": ("llama-gqa", lora(r=2, lora_alpha=3, target_modules=PAPER_LLAMA, sibo={"lambda": 0.35, "placement": "reference"})),
    "llama-gqa-sibo-embedding": ("llama-gqa", lora(r=2, lora_alpha=3, target_modules=["embed_tokens", "k_proj"], sibo={"lambda": 0.35})),
    "llama-gqa-sibo-zero": ("llama-gqa", lora(r=2, lora_alpha=3, target_modules=["q_proj", "o_proj"], sibo={"lambda": 0.0})),
    "llama-tied-sibo-70": ("llama-tied", lora(r=2, lora_alpha=3, target_modules=LLAMA_ALL, sibo={"lambda": 0.7})),
    "llama-tied-sibo-places": ("llama-tied", lora(r=2, lora_alpha=3, target_modules=LLAMA_ALL, sibo={"lambda": 0.35, "placement": ["self_attn.q_proj", "gate_proj"]})),
    "llama-tied-sibo-embedding-rms": ("llama-tied", lora(r=2, lora_alpha=3, target_modules=["embed_tokens", "o_proj"], sibo={"lambda": 0.35, "h0": "rms"})),
    "mistral-sibo-35": ("mistral", lora(r=2, lora_alpha=3, target_modules=PAPER_LLAMA, sibo={"lambda": 0.35})),
    "qwen2-sibo-70": ("qwen2", lora(r=2, lora_alpha=3, target_modules=PAPER_LLAMA, sibo={"lambda": 0.7})),
    "gptj-sibo-35": ("gptj", lora(r=2, lora_alpha=3, target_modules=GPTJ_ALL, sibo={"lambda": 0.35}), [GRADS, STEPS, BEAM4]),
    "gptj-sibo-70-rms": ("gptj", lora(r=2, lora_alpha=3, target_modules=GPTJ_ALL, sibo={"lambda": 0.7, "h0": "rms"})),
    "gptj-sibo-reference": ("gptj", lora(r=2, lora_alpha=3, target_modules=["q_proj", "fc_in", "fc_out"], sibo={"lambda": 0.35, "placement": "reference"})),
    "bert-pooler-sibo-35": ("bert-pooler", lora(4, r=2, lora_alpha=3, target_modules=["query", "value", "dense"], sibo={"lambda": 0.35}), [GRADS, STEPS]),
    "bert-pooler-sibo-70-rms": ("bert-pooler", lora(3, r=2, lora_alpha=3, target_modules=["query", "key", "intermediate.dense"], sibo={"lambda": 0.7, "h0": "rms"})),
    "bert-pooler-sibo-embedding": ("bert-pooler", lora(3, r=2, lora_alpha=3, target_modules=["word_embeddings", "value"], sibo={"lambda": 0.35})),
    "bert-classifier-sibo-bias-all": ("bert-classifier", lora(5, r=2, lora_alpha=3, bias="all", target_modules=["query"], sibo={"lambda": 0.35})),
    "roberta-bare-sibo-70": ("roberta-bare", lora(3, r=2, lora_alpha=3, target_modules=["query", "value", "output.dense"], sibo={"lambda": 0.7}), [GRADS, STEPS]),
    "roberta-bare-sibo-35-rms": ("roberta-bare", lora(1, r=2, lora_alpha=3, target_modules=["query", "intermediate.dense"], sibo={"lambda": 0.35, "h0": "rms"})),
}  # fmt: skip
"""SIBO-LoRA: lambda a number or a list, every placement, both kinds of h0, and h0 with a gradient of its own."""

MIXED = {"lambda": 0.7, "skip": "mixed"}
BOTTLENECK = {
    "llama-gqa-houlsby": ("llama-gqa", bottleneck_adapter("houlsby", bottleneck_size=3, non_linearity="tanh", scaling=1.7), [GRADS, STEPS]),
    "llama-gqa-houlsby-sibo-35": ("llama-gqa", bottleneck_adapter("houlsby", bottleneck_size=3, non_linearity="swish", sibo={"lambda": 0.35}), [GRADS, BEAM4]),
    "llama-tied-houlsby-sibo-70-mixed": ("llama-tied", bottleneck_adapter("houlsby", reduction_factor=8, sibo=MIXED)),
    "llama-tied-pfeiffer": ("llama-tied", bottleneck_adapter("pfeiffer", bottleneck_size=3, non_linearity="gelu")),
    "llama-gqa-pfeiffer-sibo-35-rms": ("llama-gqa", bottleneck_adapter("pfeiffer", bottleneck_size=3, sibo={"lambda": 0.35, "h0": "rms"})),
    "llama-gqa-parallel": ("llama-gqa", bottleneck_adapter("parallel", bottleneck_size=3, scaling=0.6)),
    "llama-gqa-parallel-sibo-70-rms": ("llama-gqa", bottleneck_adapter("parallel", bottleneck_size=3, sibo={"lambda": 0.7, "h0": "rms"}), [GRADS, STEPS]),
    "llama-gqa-in-linear": ("llama-gqa", bottleneck_adapter("in_linear", bottleneck_size=3, non_linearity="tanh", linears=["mlp.gate_proj", "mlp.up_proj"])),
    "llama-gqa-in-linear-sibo-35": ("llama-gqa", bottleneck_adapter("in_linear", bottleneck_size=3, non_linearity="tanh", linears=["mlp.gate_proj", "mlp.up_proj"], sibo={"lambda": 0.35, "placement": "reference"}), [GRADS, STEPS]),
    "gptj-houlsby": ("gptj", bottleneck_adapter("houlsby", bottleneck_size=3, non_linearity="gelu")),
    "gptj-houlsby-sibo-35": ("gptj", bottleneck_adapter("houlsby", bottleneck_size=2, sibo={"lambda": 0.35}), [GRADS, BEAM4]),
    "gptj-pfeiffer-sibo-70-mixed": ("gptj", bottleneck_adapter("pfeiffer", bottleneck_size=3, non_linearity="tanh", sibo=MIXED)),
    "gptj-parallel-sibo-35": ("gptj", bottleneck_adapter("parallel", bottleneck_size=3, non_linearity="swish", sibo={"lambda": 0.35})),
    "gptj-in-linear-sibo-70": ("gptj", bottleneck_adapter("in_linear", bottleneck_size=3, linears=["mlp.fc_in"], sibo={"lambda": 0.7})),
    "bert-pooler-houlsby": ("bert-pooler", bottleneck_adapter("houlsby", 4, bottleneck_size=3, non_linearity="gelu"), [GRADS, STEPS]),
    "bert-pooler-houlsby-sibo-35-mixed": ("bert-pooler", bottleneck_adapter("houlsby", 3, bottleneck_size=2, sibo={"lambda": 0.35, "skip": "mixed"})),
    "bert-pooler-pfeiffer-sibo-70": ("bert-pooler", bottleneck_adapter("pfeiffer", 3, reduction_factor=8, non_linearity="swish", sibo={"lambda": 0.7})),
    "bert-pooler-houlsby-on-sum-sibo-35": ("bert-pooler", bottleneck_adapter("houlsby", 3, bottleneck_size=3, original_ln_before=True, sibo={"lambda": 0.35}), [GRADS, STEPS]),
    "bert-pooler-parallel-sibo-35": ("bert-pooler", bottleneck_adapter("parallel", 3, bottleneck_size=3, scaling=2.5, sibo={"lambda": 0.35})),
    "bert-bare-houlsby-new-pooler": ("bert-bare", bottleneck_adapter("houlsby", 3, bottleneck_size=2)),
    "roberta-bare-houlsby-sibo-70-rms": ("roberta-bare", bottleneck_adapter("houlsby", 3, bottleneck_size=3, sibo={"lambda": 0.7, "h0": "rms"})),
    "roberta-bare-pfeiffer-on-sum-sibo-70-rms": ("roberta-bare", bottleneck_adapter("pfeiffer", 3, bottleneck_size=3, original_ln_before=True, sibo={"lambda": 0.7, "h0": "rms"})),
    "roberta-bare-pfeiffer": ("roberta-bare", bottleneck_adapter("pfeiffer", 1, bottleneck_size=3, non_linearity="tanh")),
    "roberta-bare-parallel-sibo-70": ("roberta-bare", bottleneck_adapter("parallel", 2, bottleneck_size=3, non_linearity="gelu", sibo={"lambda": 0.7})),
}  # fmt: skip
"""Bottleneck adapters of every method and backbone, plain and with SIBO."""

LEARNED = {
    "llama-gqa-learned-module": ("llama-gqa", lora(r=2, lora_alpha=3, target_modules=["v_proj", "up_proj", "down_proj"], sibo={"lambda": "learned", "lambda_init": 0.2, "lambda_per": "module"},
        thetas=[f"model.layers.{layer}.{path}" for layer in range(3) for path in ("self_attn.v_proj", "mlp.up_proj")]), [GRADS, STEPS]),
    "gptj-learned-layer-rms": ("gptj", lora(r=2, lora_alpha=3, target_modules=["q_proj", "fc_in"], sibo={"lambda": "learned", "lambda_per": "layer", "h0": "rms"}, thetas=["layer_0", "layer_1", "layer_2"])),
    "llama-tied-learned-embedding": ("llama-tied", lora(r=2, lora_alpha=3, target_modules=["embed_tokens", "k_proj", "gate_proj"], sibo={"lambda": "learned"}, thetas=["attention_input", "FFN_input"])),
    "bert-pooler-learned": ("bert-pooler", lora(3, r=2, lora_alpha=3, target_modules=["query", "intermediate.dense"], sibo={"lambda": "learned"}, thetas=["attention_input", "FFN_input"]), [GRADS, STEPS]),
    "llama-gqa-houlsby-learned-mixed": ("llama-gqa", bottleneck_adapter("houlsby", bottleneck_size=3, sibo={"lambda": "learned", "skip": "mixed"}, thetas=["after_attention", "after_FFN"])),
}  # fmt: skip
"""Lambda as sigmoid(theta): every sharing, both kinds of h0, a trained embedding below, a skip that carries the mix."""

CLASSES = {
    "bert-pooler-lora-4": 4, "bert-pooler-lora-headless": None, "bert-classifier-lora": 5, "bert-classifier-lora-bias-all": 5,
    "bert-mlm-lora": None, "roberta-bare-lora-number": 1, "roberta-regression-lora": 1, "xlm-roberta-lora": 2,
    "bert-pooler-sibo-35": 4, "bert-classifier-sibo-bias-all": 5, "roberta-bare-sibo-35-rms": 1,
    "bert-pooler-houlsby": 4, "roberta-bare-pfeiffer": 1, "roberta-bare-parallel-sibo-70": 2,
}  # fmt: skip
"""Classes of the encoder cases (1: a number is predicted); 3 where a case is not named."""


def adapter_cases():
    """The four tables above."""
    found = {}
    for name, (model, adapter, *runs) in (LORA | SIBO | BOTTLENECK | LEARNED).items():
        found[name] = Case(model, rows(name, model, (6, 1, 3), CLASSES.get(name, 3)), *runs, adapter=adapter)
    return found


def all_cases():
    """Name -> case."""
    return base_cases() | adapter_cases()
