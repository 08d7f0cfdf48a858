"""Tables beside the cases: inverse frequencies of the rope variants, and which modules PEFT's target rules hit."""

import peft
import torch
import transformers as hf

ROPES = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 2.5},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192},
    "llama3-b": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.5, "high_freq_factor": 5.0,
                 "original_max_position_embeddings": 4096},
}  # fmt: skip


def rope_table(width, rope, longest, length):
    """Inverse frequencies (width / 2) after a row of `length` tokens, and the factor on cos and sin."""
    config = hf.LlamaConfig(
        hidden_size=2 * width, num_attention_heads=2, head_dim=width, max_position_embeddings=longest, rope_parameters=rope
    )
    rotary = hf.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    rotary(torch.zeros(1), torch.arange(length)[None])
    return {
        "head_dim": width, "rope_parameters": rope, "max_position_embeddings": longest, "length": length,
        "attention_scaling": float(rotary.attention_scaling), "inv_freq": [float(f) for f in rotary.inv_freq],
    }  # fmt: skip


def rope_tables():
    """Every variant at head widths 64 and 128; the dynamic one below, at and above its longest position."""
    found = []
    for width, theta in ((64, 10000.0), (128, 500000.0)):
        for name, rope in ROPES.items():
            for length in (100, 512, 700) if name == "dynamic" else (100,):
                longest = 512 if name == "dynamic" else 131072
                found.append(rope_table(width, rope | {"rope_theta": theta}, longest, length))
    return found


SMALL = {"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 6, "vocab_size": 9}
CLASSES = {
    "bert": (hf.BertForSequenceClassification, lambda: hf.BertConfig(**SMALL)),
    "roberta": (hf.RobertaForSequenceClassification, lambda: hf.RobertaConfig(**SMALL)),
    "bert-headless": (hf.BertModel, lambda: hf.BertConfig(**SMALL)),
    "llama": (hf.LlamaForCausalLM, lambda: hf.LlamaConfig(**SMALL)),
    "mistral": (hf.MistralForCausalLM, lambda: hf.MistralConfig(**SMALL, num_key_value_heads=1)),
    "qwen2": (hf.Qwen2ForCausalLM, lambda: hf.Qwen2Config(**SMALL, num_key_value_heads=1)),
    "gptj": (hf.GPTJForCausalLM, lambda: hf.GPTJConfig(n_layer=2, n_embd=8, n_head=2, rotary_dim=2, vocab_size=9)),
}  # fmt: skip

TARGETS = [
    ("bert", {"target_modules": ["output.dense"]}),
    ("bert", {"target_modules": ["dense"]}),
    ("bert", {"target_modules": ["attention.output.dense"]}),
    ("bert", {"target_modules": ["query", "value"]}),
    ("bert", {"target_modules": ["uery"]}),
    ("bert", {"target_modules": "all-linear"}),
    ("bert", {"target_modules": None}),
    ("bert", {"target_modules": ["classifier"]}),
    ("bert", {"target_modules": ["pooler.dense"]}),
    ("bert", {"target_modules": ["word_embeddings"]}),
    ("bert", {"target_modules": r".*\.query"}),
    ("bert", {"target_modules": r"\.query"}),
    ("bert", {"target_modules": "query"}),
    ("bert", {"target_modules": "(?i).*QUERY"}),
    ("bert", {"target_modules": ["dense"], "exclude_modules": ["output.dense"]}),
    ("bert", {"target_modules": ["dense"], "exclude_modules": r".*pooler.*"}),
    ("bert", {"target_modules": ["dense"], "layers_to_transform": [1]}),
    ("bert", {"target_modules": ["query"], "layers_to_transform": 0}),
    ("bert", {"target_modules": ["query"], "layers_to_transform": [1], "layers_pattern": "layer"}),
    ("bert", {"target_modules": ["query"], "layers_to_transform": [1], "layers_pattern": ["layers", "layer"]}),
    ("bert", {"target_modules": ["query"], "layers_to_transform": [1], "layers_pattern": "h"}),
    ("bert", {"target_modules": ["bert.encoder.layer.1.attention.self.query"]}),
    ("bert", {"target_modules": ["1.attention.self.query"]}),
    ("bert", {"target_modules": ["LayerNorm"]}),
    ("bert-headless", {"target_modules": ["dense"]}),
    ("bert-headless", {"target_modules": "all-linear"}),
    ("bert-headless", {"target_modules": ["encoder.layer.0.output.dense"]}),
    ("roberta", {"target_modules": ["dense"]}),
    ("roberta", {"target_modules": ["out_proj"]}),
    ("roberta", {"target_modules": "all-linear"}),
    ("roberta", {"target_modules": None}),
    ("llama", {"target_modules": ["q_proj", "down_proj"]}),
    ("llama", {"target_modules": ["q_proj", "no_such_proj"]}),
    ("llama", {"target_modules": "all-linear"}),
    ("llama", {"target_modules": None}),
    ("llama", {"target_modules": ["lm_head", "embed_tokens"]}),
    ("llama", {"target_modules": ["mlp.up_proj"]}),
    ("llama", {"target_modules": ["mlp"]}),
    ("llama", {"target_modules": ["proj"]}),
    ("llama", {"target_modules": r".*\.(0|1)\.self_attn\.[qv]_proj"}),
    ("llama", {"target_modules": r"model\.layers\.1\..*_proj"}),
    ("llama", {"target_modules": ["q_proj"], "layers_to_transform": [1, 0]}),
    ("llama", {"target_modules": ["q_proj", "lm_head"], "layers_to_transform": [1]}),
    ("llama", {"target_modules": ["q_proj"], "layers_to_transform": [7]}),
    ("llama", {"target_modules": "all-linear", "exclude_modules": ["down_proj"]}),
    ("llama", {"target_modules": "all-linear", "modules_to_save": ["lm_head"]}),
    ("mistral", {"target_modules": None}),
    ("qwen2", {"target_modules": None}),
    ("gptj", {"target_modules": None}),
    ("gptj", {"target_modules": "all-linear"}),
    ("gptj", {"target_modules": ["q_proj", "fc_in"], "layers_to_transform": [1]}),
    ("gptj", {"target_modules": ["wte"]}),
]


def hit_by(cls, make, options):
    """The modules that get a LoRA on the real class, in the model's order; None where PEFT refuses."""
    model = cls(make())
    kind = "SEQ_CLS" if hasattr(model, "classifier") else "CAUSAL_LM" if hasattr(model, "lm_head") else None
    try:
        wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type=kind, r=2, **options))
    except (ValueError, RuntimeError, TypeError) as refusal:
        return None, f"{type(refusal).__name__}: {str(refusal).splitlines()[0][:200]}"
    inner = wrapped.get_base_model()
    return [name for name, module in inner.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)], None


def target_cases():
    """What PEFT does for every entry of TARGETS, with all module names of each class."""
    found = []
    for name, options in TARGETS:
        hits, refusal = hit_by(*CLASSES[name], options)
        found.append({"model": name, "options": options, "hits": hits, "refusal": refusal})
    return found
