#!/usr/bin/env python3
"""What `sibo trace` and `sibo generate --ids` must answer, computed by transformers + PEFT in f32.

    sibo_reference.py trace    --model DIR [--adapter DIR] --ids FILE.json --out FILE.safetensors [--grads]
                               [--optim-steps N --lr F --weight-decay F --warmup-steps N --max-grad-norm F]
    sibo_reference.py generate --model DIR [--adapter DIR] --ids FILE.json --out FILE.json --max-new-tokens N [--num-beams K]

The options, the files and the names of the tensors are those of `sibo`. Nothing here is shared with the Rust code.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import GenerationConfig
from transformers.utils import logging as hf_logging

import base
import bottleneck
import lora
import training

hf_logging.disable_progress_bar()
hf_logging.set_verbosity_error()

def adapter_classes(adapter):
    """The number of rows of the classification head in an adapter folder with task_type SEQ_CLS, else None."""
    if base.read_json(Path(adapter) / "adapter_config.json").get("task_type") != "SEQ_CLS":
        return None
    with safe_open(Path(adapter) / "adapter_model.safetensors", "pt") as file:
        for name in file.keys():
            if name.endswith(("classifier.weight", "classifier.out_proj.weight")):
                return file.get_slice(name).get_shape()[0]
    raise SystemExit("an adapter with task_type SEQ_CLS holds no classifier")


def load(model_dir, adapter):
    """The model with its adapter in it, and {parameter name: trained tensor}."""
    model = base.load_base(model_dir, adapter_classes(adapter) if adapter else None)
    if adapter is None:
        return model, {}
    kind = base.read_json(Path(adapter) / "adapter_config.json")["peft_type"]
    attach = {"LORA": lora, "SIBO_LORA": lora, "BOTTLENECK": bottleneck, "SIBO_BOTTLENECK": bottleneck}[kind].attach
    trained = attach(model, adapter)
    pooled = getattr(base.backbone(model), "pooler", None) is not None
    if pooled and not base.has_pooler(base.tensor_names(model_dir)) and not base.has_pooler(trained):
        raise SystemExit("neither the model nor the adapter holds the pooler that this classifier needs")
    return model, trained


def trace(model_dir, adapter, data, grads=False, optim=None):
    """The tensors of `sibo trace`; with `optim` (a dict) the optimiser steps instead."""
    model, trained = load(model_dir, adapter)
    if (grads or optim) and (adapter is None or "labels" not in data):
        raise SystemExit("gradients need an adapter and labels")
    if optim:
        return training.train(model, trained, data, optim)
    result = {}
    outputs = training.forward(model, data, hidden=True)
    for i, (output, pooled) in enumerate(outputs):
        if "logits" in output:
            result[f"logits.{i}"] = output.logits[0]
        for layer, state in enumerate(output.hidden_states):
            result[f"hidden.{layer}.{i}"] = state[0]
        if pooled is not None:
            result[f"pooled.{i}"] = pooled
    if "labels" in data:
        loss = training.loss_of(model, outputs, data["labels"])
        result["loss"] = loss.reshape(1)
        if grads:
            loss.backward()
            for name, parameter in trained.items():
                gradient = parameter.grad
                result[f"grad.{name}"] = torch.zeros_like(parameter) if gradient is None else gradient
    return {name: tensor.detach().float().contiguous().clone() for name, tensor in result.items()}


def end_tokens(model_dir):
    """The eos ids as a list: generation_config.json, else config.json."""
    for file in ("generation_config.json", "config.json"):
        ids = base.read_json(Path(model_dir) / file).get("eos_token_id")
        if ids is not None:
            return ids if isinstance(ids, list) else [ids]
    return []


def generate(model_dir, adapter, data, max_new_tokens, num_beams=1):
    """The new tokens of every row, by transformers' greedy or beam search, each row alone."""
    model, _trained = load(model_dir, adapter)
    ends = end_tokens(model_dir)
    # A fresh default: transformers 5 fills unset options from the model's own generation config.
    model.generation_config = GenerationConfig()
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, num_beams=num_beams, do_sample=False, length_penalty=1.0,
        early_stopping=False, eos_token_id=ends or None, pad_token_id=ends[0] if ends else 0,
    )  # fmt: skip
    sequences = []
    for row in data["input_ids"]:
        ids = torch.tensor([row])
        with torch.no_grad():
            found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        new = found[0, len(row) :].tolist()
        stop = next((t for t, token in enumerate(new) if token in ends), len(new) - 1)
        sequences.append(new[: stop + 1])
    return sequences


def arguments():
    """The command line of `sibo trace` and `sibo generate --ids`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["trace", "generate"])
    for name in ("--model", "--ids", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--adapter")
    parser.add_argument("--grads", action="store_true")
    parser.add_argument("--compute", choices=["f32"], default="f32")
    for name, kind in [("optim-steps", int), ("lr", float), ("weight-decay", float), ("warmup-steps", int)]:
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--max-grad-norm", type=float)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--num-beams", type=int, default=1)
    return parser.parse_args()


def main():
    """Run one command and write its file."""
    args = arguments()
    data = json.loads(Path(args.ids).read_text())
    if args.command == "generate":
        found = generate(args.model, args.adapter, data, args.max_new_tokens, args.num_beams)
        Path(args.out).write_text(json.dumps({"sequences": found}) + "\n")
        return
    optim = None
    if args.optim_steps:
        optim = {key: getattr(args, key) for key in ("optim_steps", "lr", "weight_decay", "warmup_steps", "max_grad_norm")}
    save_file(trace(args.model, args.adapter, data, args.grads, optim), args.out)


if __name__ == "__main__":
    main()
