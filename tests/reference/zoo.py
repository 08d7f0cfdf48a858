"""Tiny random models of every backbone, with sizes that differ from one another and no bias at 0 and no norm at 1."""

import json
import shutil
from pathlib import Path

import torch
import transformers as hf
from safetensors.torch import load_file, save_file


def llama(cls, config_cls, **changes):
    """A LLaMA-like decoder: three query heads per KV head unless `changes` say otherwise."""
    sizes = {
        "vocab_size": 71, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 48,
        "rms_norm_eps": 3e-5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
    }  # fmt: skip
    return cls, config_cls(**(sizes | changes))


def gptj(**changes):
    """GPT-J with a partial rotary width, below the head width."""
    sizes = {
        "vocab_size": 79, "n_positions": 48, "n_embd": 24, "n_layer": 3, "n_head": 3, "rotary_dim": 4, "n_inner": 44,
        "layer_norm_epsilon": 2e-5, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
    }  # fmt: skip
    return hf.GPTJForCausalLM, hf.GPTJConfig(**(sizes | changes))


def encoder(cls, config_cls, **changes):
    """BERT or RoBERTa; dropout stays as their configs say (0.1), the traces switch it off."""
    sizes = {
        "vocab_size": 83, "hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 3,
        "num_attention_heads": 3, "max_position_embeddings": 40, "type_vocab_size": 2,
    }  # fmt: skip
    return cls, config_cls(**(sizes | changes))


def roberta(cls, config_cls=hf.RobertaConfig, **changes):
    """RoBERTa: positions from the padding id + 1, one token type."""
    sizes = {"vocab_size": 77, "max_position_embeddings": 34, "type_vocab_size": 1, "pad_token_id": 1,
             "num_hidden_layers": 2, "num_attention_heads": 4, "layer_norm_eps": 1e-5}  # fmt: skip
    return encoder(cls, config_cls, **(sizes | changes))


LLAMA3 = {"rope_type": "llama3", "rope_theta": 90.0, "factor": 5.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 32}  # fmt: skip
SMALL = {"vocab_size": 61, "hidden_size": 18, "intermediate_size": 22, "num_attention_heads": 3, "num_key_value_heads": 1}

MODELS = {
    # Head width 6 is not width / heads (4): o_proj reads 36 columns.
    "llama-gqa": lambda: llama(hf.LlamaForCausalLM, hf.LlamaConfig, head_dim=6, eos_token_id=[2, 26, 41], num_hidden_layers=3,
                               tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 700.0}),
    "llama-tied": lambda: llama(hf.LlamaForCausalLM, hf.LlamaConfig, vocab_size=67, intermediate_size=28, attention_bias=True,
                                mlp_bias=True, eos_token_id=[40, 8], tie_word_embeddings=True, rope_parameters=LLAMA3),
    "llama-linear": lambda: llama(hf.LlamaForCausalLM, hf.LlamaConfig, **SMALL, eos_token_id=35, tie_word_embeddings=True,
                                  rope_parameters={"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5}),
    "llama-dynamic": lambda: llama(hf.LlamaForCausalLM, hf.LlamaConfig, **SMALL, tie_word_embeddings=True, attention_bias=True,
                                   max_position_embeddings=5,
                                   rope_parameters={"rope_type": "dynamic", "rope_theta": 500.0, "factor": 3.0}),
    "mistral": lambda: llama(hf.MistralForCausalLM, hf.MistralConfig, **SMALL, head_dim=8, sliding_window=None,
                             rope_parameters={"rope_type": "default", "rope_theta": 900.0}),
    "qwen2": lambda: llama(hf.Qwen2ForCausalLM, hf.Qwen2Config, **SMALL, eos_token_id=21, tie_word_embeddings=True,
                           rope_parameters={"rope_type": "default", "rope_theta": 1100.0}),
    "gptj": lambda: gptj(eos_token_id=11),
    "gptj-full-rotary": lambda: gptj(eos_token_id=55, vocab_size=61, n_embd=12, n_head=2, n_layer=2, n_inner=None, rotary_dim=6),
    "bert-pooler": lambda: encoder(hf.BertModel, hf.BertConfig),
    "bert-bare": lambda: encoder(hf.BertModel, hf.BertConfig, vocab_size=61, hidden_size=20, intermediate_size=28,
                                 num_hidden_layers=2, num_attention_heads=5, type_vocab_size=3),
    "bert-classifier": lambda: encoder(hf.BertForSequenceClassification, hf.BertConfig, vocab_size=67, hidden_size=18,
                                       intermediate_size=26, num_hidden_layers=2, num_labels=5),
    "bert-mlm": lambda: encoder(hf.BertForMaskedLM, hf.BertConfig, vocab_size=61, hidden_size=18, intermediate_size=26,
                                num_hidden_layers=2),
    "roberta-bare": lambda: roberta(hf.RobertaModel),
    "roberta-regression": lambda: roberta(hf.RobertaForSequenceClassification, num_labels=1),
    "roberta-mlm": lambda: roberta(hf.RobertaForMaskedLM, vocab_size=61, hidden_size=20, intermediate_size=26),
    "xlm-roberta": lambda: roberta(hf.XLMRobertaModel, hf.XLMRobertaConfig, vocab_size=61, hidden_size=20, intermediate_size=26),
}  # fmt: skip
"""Name -> what builds (class, config)."""

BARE = {"bert-bare", "roberta-bare", "xlm-roberta"}
"""Headless models that are saved without a pooler."""


def randomise(model, generator):
    """Give every tensor values that matter: matrices keep the signal's size, vectors leave 0 and 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.add_(0.2 * noise)
            elif "embed" in name or "wte" in name:
                parameter.copy_(0.6 * noise)
            else:
                parameter.copy_(1.1 * noise / parameter.shape[1] ** 0.5)


def build(name, generator):
    """One model with its random weights, in memory."""
    cls, config = MODELS[name]()
    options = {"add_pooling_layer": False} if name in BARE else {}
    model = cls(config, **options).eval()
    randomise(model, generator)
    return model


def save_all(folder):
    """Write every model below `folder`; a model's weights depend on its name only."""
    for name in MODELS:
        generator = torch.Generator().manual_seed(int.from_bytes(name.encode()[-6:], "big"))
        build(name, generator).save_pretrained(Path(folder) / name)
    # The ends of `gptj` stand in config.json alone; those of `mistral` differ, and generation_config.json decides.
    (Path(folder) / "gptj" / "generation_config.json").unlink()
    file = Path(folder) / "mistral" / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": [13, 35]}, indent=2) + "\n")
    save_with_old_names(Path(folder) / "bert-mlm", Path(folder) / "bert-old-names")
    save_as_before_version_5(Path(folder) / "llama-linear", Path(folder) / "llama-v4-shards")


def save_with_old_names(source, target):
    """bert-base as it was first published: `bert.` prefix, gamma and beta, the cls.* heads, a position buffer."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    tensors = {}
    for name, value in load_file(source / "model.safetensors").items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        tensors[name] = value
    width = tensors["bert.embeddings.word_embeddings.weight"].shape[1]
    tensors["bert.embeddings.position_ids"] = torch.arange(40)[None]
    tensors["cls.seq_relationship.weight"] = torch.ones(2, width)
    tensors["cls.seq_relationship.bias"] = torch.ones(2)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def save_as_before_version_5(source, target):
    """A LLaMA folder as transformers 4 wrote it: rope_theta and rope_scaling, torch_dtype, bf16, two shards."""
    target.mkdir(exist_ok=True)
    config = json.loads((source / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config.pop("dtype", None)
    config |= {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "linear", "factor": rope["factor"]},
               "torch_dtype": "bfloat16", "transformers_version": "4.31.0"}  # fmt: skip
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tensors = {name: value.bfloat16() for name, value in load_file(source / "model.safetensors").items()}
    shards = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    for i, (name, value) in enumerate(sorted(tensors.items())):
        shards[sorted(shards)[i % 2]][name] = value
    for file, part in shards.items():
        save_file(part, target / file, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": sum(t.numel() * 2 for t in tensors.values())},
        "weight_map": {name: file for file, part in shards.items() for name in sorted(part)},
    }
    (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
