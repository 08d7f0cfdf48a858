#!/usr/bin/env python3
"""The peer of the benchmark: PyTorch + transformers + PEFT on the CPU.

    peer.py prepare WORKLOAD FOLDER     write model/, adapter/ and ids.json, which both sides read
    peer.py train FOLDER --steps N      train N steps after the warm-up; prints one JSON line
                                        {"seconds_per_step", "first_loss", "peak_mib", "rounds"}

`seconds_per_step` is the median of the rounds, `peak_mib` VmHWM of this process.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

SMOLLM2 = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    # Twice the usual spread: the loss then moves if anything is computed differently.
    "initializer_range": 0.04,
}  # fmt: skip
LLAMA_LORA = {"r": 32, "lora_alpha": 64, "lora_dropout": 0.0, "target_modules": ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]}
WORKLOADS = {"llama-full-f32": {"config": SMOLLM2, "lora": LLAMA_LORA, "rows": 4, "length": 256}}


def prepare(workload, folder):
    """Random weights, a LoRA whose B is not zero, and rows in which every token is labelled."""
    plan = WORKLOADS[workload]
    torch.manual_seed(20)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**plan["config"]))
    model.save_pretrained(folder / "model")
    lora = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **plan["lora"]))
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.02)
    lora.peft_config["default"].base_model_name_or_path = workload
    lora.save_pretrained(folder / "adapter")
    rows = torch.randint(3, plan["config"]["vocab_size"], (plan["rows"], plan["length"])).tolist()
    (folder / "ids.json").write_text(json.dumps({"input_ids": rows, "labels": rows}))


def peak_mib():
    """VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc/self/status has no VmHWM")


def train(folder, steps, warmup, threads):
    """Optimiser steps on all rows as one batch."""
    torch.set_num_threads(threads)
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    base.config.use_cache = False
    model = peft.PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True)
    model.train()
    data = json.loads((folder / "ids.json").read_text())
    ids, labels = torch.tensor(data["input_ids"]), torch.tensor(data["labels"])
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    rounds, first = [], None
    for k in range(warmup + steps):
        start = time.perf_counter()
        optimiser.zero_grad()
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimiser.step()
        rounds.append(time.perf_counter() - start)
        first = loss.item() if k == 0 else first
    rounds = rounds[warmup:]
    print(json.dumps({"seconds_per_step": statistics.median(rounds), "first_loss": first,
                      "peak_mib": peak_mib(), "rounds": rounds}))  # fmt: skip


def main():
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("prepare")
    making.add_argument("workload", choices=sorted(WORKLOADS))
    making.add_argument("folder", type=Path)
    training = commands.add_parser("train")
    training.add_argument("folder", type=Path)
    training.add_argument("--steps", type=int, default=3)
    training.add_argument("--warmup", type=int, default=1)
    training.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.command == "prepare":
        prepare(args.workload, args.folder)
    else:
        train(args.folder, args.steps, args.warmup, args.threads)


if __name__ == "__main__":
    main()
