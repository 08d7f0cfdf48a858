#!/usr/bin/env python3
"""Write what both sides read: prepare.py WORKLOAD FOLDER. Workloads with one model and adapter share a folder.

    model/           random weights in the workload's shape
    adapter/         the method, its last factor not zero
    adapter-sibo/    the same with SIBO switched on
    <workload>.json  the rows
"""

import json
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
from safetensors.torch import save_file

from workloads import ADAPTERS, LAMBDA, MODELS, ROWS, WORKLOADS

FIRST_WORD = 5
"""Ids below are special in one model or another."""


def make_model(name):
    """Random weights."""
    torch.manual_seed(20)
    config = transformers.AutoConfig.for_model(**MODELS[name])
    kind = transformers.AutoModelForCausalLM if name == "llama" else transformers.AutoModelForSequenceClassification
    return kind.from_config(config)


def make_lora(model, config, task, folder):
    """PEFT's folder."""
    lora = peft.get_peft_model(model, peft.LoraConfig(task_type=task, **config))
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.02)
    lora.peft_config["default"].base_model_name_or_path = "benchmark"
    lora.save_pretrained(folder)


def make_bottlenecks(model, options, folder):
    """Adapters after attention and after the FFN of each layer, with the head trained beside them."""
    config = {"peft_type": "BOTTLENECK", "method": "houlsby", "scaling": 1.0, "init": "bert", "dropout": 0.0,
              "modules_to_save": ["classifier"], "task_type": "SEQ_CLS"} | options  # fmt: skip
    width, size = model.config.hidden_size, options["bottleneck_size"]
    shapes = {"adapter_down.0.weight": (size, width), "adapter_down.0.bias": (size,),
              "adapter_up.weight": (width, size), "adapter_up.bias": (width,)}  # fmt: skip
    tensors = {}
    for layer in range(model.config.num_hidden_layers):
        for place in ("attention_adapter", "ffn_adapter"):
            path = f"base_model.model.{model.config.model_type}.encoder.layer.{layer}.{place}"
            tensors |= {f"{path}.{name}": 0.02 * torch.randn(shape) for name, shape in shapes.items()}
    head = {name: value for name, value in model.state_dict().items() if name.startswith("classifier.")}
    tensors |= {f"base_model.model.{name}": value.clone() for name, value in head.items()}
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def switch_on_sibo(plain, boosted):
    """The same tensors under a configuration with a `sibo` object."""
    shutil.copytree(plain, boosted)
    file = boosted / "adapter_config.json"
    config = json.loads(file.read_text())
    settings = {"version": 1, "lambda": LAMBDA, "placement": "paper", "h0": "raw", "skip": "original"}
    file.write_text(json.dumps(config | {"peft_type": "SIBO_" + config["peft_type"], "sibo": settings}, indent=2) + "\n")


def make_models(plan, folder):
    """The model and its adapters."""
    model = make_model(plan["model"])
    model.save_pretrained(folder / "model")
    adapter, config = folder / "adapter", ADAPTERS[plan["adapter"]]
    if plan["adapter"].startswith("lora"):
        make_lora(model, config, "CAUSAL_LM" if plan["model"] == "llama" else "SEQ_CLS", adapter)
    else:
        make_bottlenecks(model, config, adapter)
    # Last, because a folder without it counts as not made.
    switch_on_sibo(adapter, folder / "adapter-sibo")


def make_rows(rows, vocabulary):
    """Random ids in rows of the given lengths, and labels where something is learned."""

    def words(count):
        return torch.randint(FIRST_WORD, vocabulary, (count,)).tolist()

    if "questions" in rows:
        return {"questions": [[words(context), [words(n) for n in choices]] for context, choices in rows["questions"]]}
    ids = [words(length) for length in rows["lengths"]]
    if rows["labelled"] is None:
        return {"input_ids": ids, "labels": [k % 2 for k in range(len(ids))]}
    if rows["labelled"] == 0.0:
        return {"input_ids": ids}
    start = [round(len(row) * (1 - rows["labelled"])) for row in ids]
    return {"input_ids": ids, "labels": [[-100] * s + row[s:] for s, row in zip(start, ids, strict=True)]}


def main():
    """Write the folder of one workload."""
    if len(sys.argv) != 3 or sys.argv[1] not in WORKLOADS:
        sys.exit(__doc__)
    workload, plan, folder = sys.argv[1], WORKLOADS[sys.argv[1]], Path(sys.argv[2])
    if not (folder / "adapter-sibo").exists():
        shutil.rmtree(folder, ignore_errors=True)
        make_models(plan, folder)
    torch.manual_seed(21)
    rows = make_rows(ROWS[plan["rows"]], MODELS[plan["model"]]["vocab_size"])
    (folder / f"{workload}.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
