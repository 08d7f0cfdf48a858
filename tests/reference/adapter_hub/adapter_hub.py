#!/usr/bin/env python3
"""Write the cases of tests/data that adapter-hub answers: folders saved by the package `adapters`, and what it computes.

    adapter_hub.py [--data FOLDER] [--only SUBSTRING]          write them
    adapter_hub.py --check SIBO [--data FOLDER]                export stored adapters with the binary, and load those here

`adapters` pins an older transformers than the other cases have, so it has an environment of its own:

    python3 -m venv HUB && HUB/bin/pip install -r tests/reference/adapter_hub/requirements.txt
"""

import argparse
import json
import logging
import random
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

import adapters
from adapters import DoubleSeqBnConfig, ParBnConfig, SeqBnConfig

# Behind the packages: the folder above has an adapters.py of its own.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import training

NAME = "task"
GRADS = {"command": "trace", "options": {"grads": True}, "expected": "expected.safetensors"}
TRACE = {"command": "trace", "options": {}, "expected": "expected.safetensors"}
STEPS = {"command": "trace", "expected": "steps.safetensors", "options": {"optim": {
    "optim_steps": 5, "lr": 0.013, "weight_decay": 0.07, "warmup_steps": 2, "max_grad_norm": 0.6}}}  # fmt: skip

FLEX, STATIC, BARE, CAUSAL = "flex", "static", "bare", "causal"
CASES = {
    "hub-bert-seq-bn": ("bert-pooler", FLEX, SeqBnConfig(reduction_factor=8, dropout=0.1), [GRADS, STEPS]),
    "hub-bert-double-seq-bn": ("bert-pooler", STATIC, DoubleSeqBnConfig(reduction_factor=5, scaling=1.5), [GRADS]),
    "hub-bert-double-ln-before": ("bert-pooler", FLEX, DoubleSeqBnConfig(reduction_factor=8, original_ln_before=True), [GRADS]),
    "hub-bert-par-bn": ("bert-pooler", BARE, ParBnConfig(reduction_factor={"1": 8, "default": 8}), [TRACE]),
    "hub-roberta-seq-bn": ("roberta-bare", FLEX, SeqBnConfig(reduction_factor=8, non_linearity="tanh"), [GRADS, STEPS]),
    "hub-roberta-par-bn": ("roberta-bare", FLEX, ParBnConfig(reduction_factor=6, non_linearity="gelu"), [GRADS]),
    "hub-llama-seq-bn": ("llama-gqa", CAUSAL, SeqBnConfig(reduction_factor=8, non_linearity="swish"), [GRADS, STEPS]),
    "hub-llama-double-ln-before": ("llama-gqa", CAUSAL, DoubleSeqBnConfig(reduction_factor=8, original_ln_before=True), [GRADS]),
    "hub-llama-double-seq-bn": ("llama-gqa", CAUSAL, DoubleSeqBnConfig(reduction_factor=8), [GRADS]),
    "hub-gptj-double-ln-before": ("gptj", CAUSAL, DoubleSeqBnConfig(reduction_factor=8, original_ln_before=True), [GRADS]),
    "hub-gptj-seq-bn": ("gptj", CAUSAL, SeqBnConfig(reduction_factor=8, scaling=0.7), [GRADS]),
}
"""Name -> (model, kind of head, options, runs)."""

CLASSES = 3


def load(folder, kind, classes=CLASSES):
    """The model with room for adapters, in f32 with eager attention."""
    config = transformers.AutoConfig.from_pretrained(folder)
    rope = getattr(config, "rope_parameters", None)
    if rope:
        # transformers 5 writes the rotation under a key that the older one does not read.
        config.rope_theta = rope["rope_theta"]
    options = {"config": config, "attn_implementation": "eager"}
    if kind == FLEX:
        return adapters.AutoAdapterModel.from_pretrained(folder, **options)
    if kind == STATIC:
        config.num_labels = classes
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, **options)
    elif kind == CAUSAL:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
    else:
        model = transformers.AutoModel.from_pretrained(folder, **options)
    adapters.init(model)
    return model


def shake(parameters, name):
    """Values that matter for every trained tensor."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    with torch.no_grad():
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.15 * noise if parameter.dim() == 1 else noise / parameter.shape[1] ** 0.5)


def our_key(model, key):
    """sibo's key of a tensor of the package."""
    family = {"roberta": "roberta", "bert": "bert"}.get(model.config.model_type)
    head = {"bert": {"1": "bert.pooler.dense", "4": "classifier"},
            "roberta": {"1": "classifier.dense", "4": "classifier.out_proj"}}  # fmt: skip
    if found := re.match(rf"heads\.{NAME}\.(\d)\.(.*)", key):
        return f"base_model.model.{head[family][found[1]]}.{found[2]}"
    found = re.match(rf"(.*\.\d+)\.(.*)\.adapters\.{NAME}\.(.*)", key)
    if found is None:
        return f"base_model.model.{key}"
    site = "attention_adapter" if found[2] in ("attention.output", "attention_adapters") else "ffn_adapter"
    return f"base_model.model.{found[1]}.{site}.{found[3]}"


def trained_tensors(model):
    """sibo's key -> parameter, for all that trains."""
    return {our_key(model, n): p for n, p in model.named_parameters() if p.requires_grad}


def forward(model, data, hidden):
    """Every row alone; the pooled vector is the one that the head makes, where it makes one."""
    outputs, pooled = [], []
    hook = None
    if getattr(model, "heads", None) and model.config.model_type == "bert":
        hook = model.heads[NAME][2].register_forward_hook(lambda _m, _a, out: pooled.append(out))
    types = data.get("token_type_ids") or [None] * len(data["input_ids"])
    for row, kind in zip(data["input_ids"], types):
        output, own = training.run_row(model, row, kind, hidden)
        made = pooled.pop().reshape(-1) if pooled else own
        outputs.append((output, made if model.config.model_type == "bert" else None))
    if hook is not None:
        hook.remove()
    return outputs


def trace(model, data, grads):
    """The tensors of `sibo trace`."""
    result = {}
    outputs = forward(model, data, True)
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
            result.update({f"grad.{n}": p.grad for n, p in trained_tensors(model).items()})
    return {name: tensor.detach().float().contiguous().clone() for name, tensor in result.items()}


def make(name, models):
    """The model of a case with an adapter that has learned something."""
    folder, kind, options, _runs = CASES[name]
    torch.manual_seed(zlib.crc32(name.encode()))
    model = load(models / folder, kind)
    model.add_adapter(NAME, config=options)
    if kind == FLEX:
        model.add_classification_head(NAME, num_labels=CLASSES)
    model.train_adapter(NAME)
    if kind == CAUSAL:
        # The output head is the base's and stays so.
        model.get_output_embeddings().requires_grad_(False)
    if kind == STATIC:
        model.classifier.requires_grad_(True)
    shake([p for p in model.parameters() if p.requires_grad], name)
    return model.eval()


def rows(name, model):
    """Rows with ids that the model has, types for BERT, and labels."""
    rng, vocab, kind = random.Random(zlib.crc32(name.encode())), model.config.vocab_size, CASES[name][1]
    found = {"input_ids": [[rng.randrange(3, vocab) for _ in range(n)] for n in (6, 1, 3)]}
    if kind == CAUSAL:
        found["labels"] = [[-100 if rng.random() < 0.33 else token for token in row] for row in found["input_ids"]]
        return found
    if model.config.model_type == "bert":
        found["token_type_ids"] = [sorted(rng.randrange(2) for _ in row) for row in found["input_ids"]]
    if kind != BARE:
        found["labels"] = [rng.randrange(CLASSES) for _ in found["input_ids"]]
    return found


def versions():
    """The versions that made the files."""
    return {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__, "adapters": adapters.__version__}


def write(name, data):
    """One case, in the form of make_fixtures.py."""
    folder, kind, _options, runs = CASES[name]
    target = data / "cases" / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    model = make(name, data / "models")
    model.save_adapter(str(target / "adapter"), NAME, with_head=kind in (FLEX, STATIC), use_safetensors=True)
    ids = rows(name, model)
    (target / "ids.json").write_text("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in ids.items()) + "\n}\n")
    for run in runs:
        optim = run["options"].get("optim")
        if optim:
            result = training.train(model, trained_tensors(model), ids, optim)
        else:
            result = trace(model, ids, run["options"].get("grads", False))
        save_file(result, target / run["expected"], metadata={"versions": json.dumps(versions())})
    about = {"model": folder, "adapter": True, "runs": runs, "versions": versions()}
    (target / "case.json").write_text("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in about.items()) + "\n}\n")


def exported(binary, name, data, scratch):
    """The largest relative difference of any tensor, for an adapter that the binary wrote for adapter-hub."""
    folder, kind, _options, _runs = CASES[name]
    out, case = Path(scratch) / name, data / "cases" / name
    subprocess.run([binary, "export", str(case / "adapter"), "--format", "adapter-hub", "--model", str(data / "models" / folder),
                    "--output", str(out), "--quiet"], check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    # A classifier comes back as adapter-hub's own head.
    model = load(data / "models" / folder, FLEX if kind == STATIC else kind)
    model.load_adapter(str(out), set_active=True, use_safetensors=True)
    model.eval()
    ids = json.loads((case / "ids.json").read_text())
    want, worst = load_file(case / "expected.safetensors"), 0.0
    for i, (output, _pooled) in enumerate(training.forward(model, ids, True)):
        got = {f"hidden.{layer}.{i}": state[0] for layer, state in enumerate(output.hidden_states)}
        if "logits" in output:
            got[f"logits.{i}"] = output.logits[0]
        for key, tensor in got.items():
            worst = max(worst, float((tensor - want[key]).abs().max() / want[key].abs().max()))
    return worst


def main():
    """Write the cases, or load here what the binary exports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parent.parent.parent / "data")
    parser.add_argument("--only", default="", help="only the cases whose name holds this")
    parser.add_argument("--check", metavar="SIBO", help="the binary whose exports are loaded")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    wrong = 0
    for name in [n for n in CASES if args.only in n]:
        if args.check:
            with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
                worst = exported(args.check, name, args.data, scratch)
            wrong += not worst < 1e-4
            print(f"{name}: {worst:.1e}")
        else:
            write(name, args.data)
            print(name)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
