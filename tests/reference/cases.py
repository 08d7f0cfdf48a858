"""The cases of tests/data: a model, an adapter, rows, and the runs whose answers are kept."""

import json
import random
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import base
import zoo

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


def all_cases():
    """Name -> case."""
    return base_cases()
