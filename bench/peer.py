#!/usr/bin/env python3
"""The peer of the benchmark on the CPU: PyTorch + transformers + PEFT, or + adapter-hub's `adapters`.

    peer.py WORKLOAD FOLDER --numbers f32|autocast|bf16|bf16-adapters --parts N --rounds N [--compile]

One process, one way of doing the workload; prints one JSON line {"seconds", "rounds", "loss", "peak_mib"}. `seconds` is
the median of the rounds after one that warms up, `loss` is taken without dropout, `peak_mib` is VmHWM.
"""

import argparse
import contextlib
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

from workloads import WORKLOADS

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()


def peak_mib():
    """VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc/self/status has no VmHWM")


def numbers_of(name):
    """The dtype of the base and the context of its passes."""
    cast = torch.autocast("cpu", dtype=torch.bfloat16) if name == "autocast" else contextlib.nullcontext()
    return (torch.bfloat16 if name in ("bf16", "bf16-adapters") else torch.float32), cast


def load_base(folder, plan, dtype):
    """The base model."""
    kind = transformers.AutoModelForCausalLM if plan["model"] == "llama" else transformers.AutoModelForSequenceClassification
    return kind.from_pretrained(folder / "model", dtype=dtype)


def with_lora(base, folder, train, widened=True):
    """PEFT's LoRA on the base, to train or merged; its values in f32 (PEFT's default) or in the base's numbers."""
    import peft

    model = peft.PeftModel.from_pretrained(base, folder / "adapter", is_trainable=train, autocast_adapter_dtype=widened)
    return model if train else model.merge_and_unload()


def with_bottlenecks(base, folder):
    """Houlsby's adapters by adapter-hub, with the values of the folder."""
    import adapters
    from safetensors.torch import load_file

    options = json.loads((folder / "adapter/adapter_config.json").read_text())
    config = adapters.DoubleSeqBnConfig(
        reduction_factor=base.config.hidden_size / options["bottleneck_size"], non_linearity=options["non_linearity"]
    )
    adapters.init(base)
    base.add_adapter("bench", config=config)
    base.train_adapter("bench")
    base.to(base.dtype)
    values = load_file(folder / "adapter/adapter_model.safetensors")
    own = dict(base.named_parameters())
    places = {"attention_adapter": "attention.output.adapters.bench", "ffn_adapter": "output.adapters.bench"}
    with torch.no_grad():
        for name, value in values.items():
            name = name.removeprefix("base_model.model.")
            for ours, theirs in places.items():
                name = name.replace(ours, theirs)
            own[name].copy_(value)
    for name, parameter in base.named_parameters():
        if name.startswith("classifier."):
            parameter.requires_grad_(True)
    return base


def padded(rows, fill, left=False):
    """Rows of one length, and the mask of what is real."""
    longest = max(map(len, rows))
    pad = [[fill] * (longest - len(row)) for row in rows]
    both = zip(rows, pad, strict=True)
    ids = torch.tensor([p + row if left else row + p for row, p in both])
    ones = [[1] * len(row) for row in rows]
    zeros = [[0] * len(p) for p in pad]
    mask = torch.tensor([z + o if left else o + z for o, z in zip(ones, zeros, strict=True)])
    return ids, mask


def micro_batches(data, parts, pad):
    """The rows by length, cut into parts of about as many tokens: (ids, mask, labels, how many labels)."""
    by_length = sorted(zip(data["input_ids"], data["labels"], strict=True), key=lambda pair: len(pair[0]))
    total, before, cut = sum(len(row) for row, _ in by_length), 0, [[] for _ in range(parts)]
    for row, label in by_length:
        # The part that the middle of the row falls into, when they lie end to end.
        cut[(2 * before + len(row)) * parts // (2 * total)].append((row, label))
        before += len(row)
    batches = []
    for part in filter(None, cut):
        rows, labels = zip(*part, strict=True)
        ids, mask = padded(rows, pad)
        labels = torch.tensor(labels) if isinstance(labels[0], int) else padded(labels, -100)[0]
        count = len(labels) if labels.dim() == 1 else int((labels[:, 1:] != -100).sum())
        batches.append((ids, mask if mask.min() == 0 else None, labels, count))
    return batches


def train(folder, plan, args):
    """Optimiser steps; the loss is the mean over all labels, whatever the cut."""
    dtype, cast = numbers_of(args.numbers)
    base = load_base(folder, plan, dtype)
    if plan["model"] == "llama":
        base.config.use_cache = False
    lora = plan["adapter"].startswith("lora")
    model = with_lora(base, folder, True, args.numbers != "bf16-adapters") if lora else with_bottlenecks(base, folder)
    data = json.loads((folder / f"{args.workload}.json").read_text())
    batches = micro_batches(data, args.parts, base.config.pad_token_id or 0)
    total = sum(batch[3] for batch in batches)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    called = torch.compile(model) if args.compile else model

    def loss_of(module, batch):
        ids, mask, labels, count = batch
        with cast:
            return module(input_ids=ids, attention_mask=mask, labels=labels).loss.float() * (count / total)

    def step():
        optimiser.zero_grad()
        for batch in batches:
            loss_of(called, batch).backward()
        optimiser.step()

    model.eval()
    with torch.no_grad():
        loss = sum(loss_of(model, batch).item() for batch in batches)
    model.train(bool(plan["dropout"]))
    return measured(step, args.rounds), loss


def score(folder, plan, args):
    """Likelihoods of whole rows, `parts` questions at a time, by length; scores only of the last tokens."""
    dtype, cast = numbers_of(args.numbers)
    model = with_lora(load_base(folder, plan, torch.float32), folder, False).to(dtype).eval()
    questions = json.loads((folder / f"{args.workload}.json").read_text())["questions"]
    rows = sorted(((c + a, len(a)) for c, answers in questions for a in answers), key=lambda row: len(row[0]))
    size, found = 4 * args.parts, []

    def one_batch(rows):
        ids, mask = padded([row for row, _count in rows], 0, left=True)
        places = (mask.cumsum(1) - 1).clamp(min=0)
        keep = max(count for _row, count in rows) + 1
        with torch.inference_mode(), cast:
            scores = model(input_ids=ids, attention_mask=mask, position_ids=places, logits_to_keep=keep, use_cache=False).logits
            logs = torch.log_softmax(scores[:, :-1].float(), -1)
        return [logs[i, -n:].gather(1, ids[i, -n:, None]).sum().item() for i, (_row, n) in enumerate(rows)]

    def all_rows():
        found.clear()
        for start in range(0, len(rows), size):
            found.extend(one_batch(rows[start : start + size]))

    times = measured(all_rows, args.rounds)
    return times, -sum(found) / sum(count for _row, count in rows)


def generate(folder, plan, args):
    """A number of new tokens from merged weights."""
    dtype, _cast = numbers_of(args.numbers)
    model = with_lora(load_base(folder, plan, torch.float32), folder, False).to(dtype).eval()
    ids = torch.tensor(json.loads((folder / f"{args.workload}.json").read_text())["input_ids"])
    model.generation_config.eos_token_id = None
    options = {"max_new_tokens": plan["new"], "num_beams": plan["beams"], "do_sample": False, "pad_token_id": 0}

    def run():
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        if out.shape[1] != ids.shape[1] + plan["new"]:
            raise SystemExit(f"{out.shape[1] - ids.shape[1]} new tokens, not {plan['new']}")

    times = measured(run, args.rounds)
    with torch.inference_mode():
        loss = model(input_ids=ids, labels=ids).loss.item()
    return times, loss


def measured(work, rounds):
    """Seconds of each round, and the peak of memory so far."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds, peak_mib()


def main():
    """Do one workload in one way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--numbers", choices=("f32", "autocast", "bf16", "bf16-adapters"), default="f32")
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    plan = WORKLOADS[args.workload]
    (seconds, peak), loss = {"train": train, "score": score, "generate": generate}[plan["kind"]](args.folder, plan, args)
    print(json.dumps({"seconds": statistics.median(seconds), "rounds": seconds, "loss": loss, "peak_mib": peak}))


if __name__ == "__main__":
    main()
