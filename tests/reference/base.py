"""The frozen model of a Hugging Face folder, as transformers builds it, in f32 with eager attention and dropout off."""

import json
from pathlib import Path

import torch
import transformers
from safetensors import safe_open

LAYERS = {
    "bert": "encoder.layer",
    "roberta": "encoder.layer",
    "xlm-roberta": "encoder.layer",
    "camembert": "encoder.layer",
    "llama": "layers",
    "mistral": "layers",
    "qwen2": "layers",
    "gptj": "h",
}
"""Where the transformer layers lie below the headless model, by `model_type`."""


def read_json(path):
    """The JSON file as a dict, or an empty one where there is no such file."""
    path = Path(path)
    return json.loads(path.read_text()) if path.exists() else {}


def tensor_names(folder):
    """The names of all tensors of a model folder, of one file or of shards."""
    index = read_json(Path(folder) / "model.safetensors.index.json")
    if index:
        return set(index["weight_map"])
    with safe_open(Path(folder) / "model.safetensors", "pt") as file:
        return set(file.keys())


def has_pooler(names):
    """Whether a set of tensor names holds BERT's or RoBERTa's pooler, with or without a prefix."""
    return any("pooler.dense.weight" in name for name in names)


def load_base(folder, n_classes=None):
    """Load a folder; `n_classes` asks for a classifier on an encoder (an adapter with task_type SEQ_CLS)."""
    config = read_json(Path(folder) / "config.json")
    architecture = (config.get("architectures") or [""])[0]
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    if n_classes is not None:
        cls = transformers.AutoModelForSequenceClassification
        options["num_labels"] = n_classes
        options["ignore_mismatched_sizes"] = True
    elif architecture.endswith(("ForCausalLM", "ForSequenceClassification")):
        cls = getattr(transformers, architecture)
    else:
        # A headless folder, or one with a masked-LM head, which is read as headless.
        cls = transformers.AutoModel
        options["add_pooling_layer"] = has_pooler(tensor_names(folder))
    model = cls.from_pretrained(folder, **options).eval()
    model.requires_grad_(False)
    return model


def backbone(model):
    """The headless part of a transformers model (the model itself where it has no head)."""
    return getattr(model, model.base_model_prefix, model)


def layers(model):
    """The list of transformer layers."""
    return backbone(model).get_submodule(LAYERS[model.config.model_type])


def layers_path(model):
    """The dotted path of the list of layers in the model with its head, such as `model.layers`."""
    path = LAYERS[model.config.model_type]
    return path if backbone(model) is model else f"{model.base_model_prefix}.{path}"


def is_causal(model):
    """Whether the model is a causal language model."""
    return type(model).__name__.endswith("ForCausalLM")


def is_classifier(model):
    """Whether the model is a sequence classifier."""
    return type(model).__name__.endswith("ForSequenceClassification")


def forget_lengths(model):
    """Undo what a dynamic rope has learned from earlier rows, so that every row is computed as if alone."""
    rotary = getattr(backbone(model), "rotary_emb", None)
    if rotary is not None and getattr(rotary, "rope_type", "") == "dynamic":
        rotary.inv_freq = rotary.original_inv_freq.clone()
        rotary.max_seq_len_cached = rotary.original_max_seq_len
