"""The loss of all rows together, its gradients, and optimiser steps."""

import torch
from torch.nn import functional

import base
from initial import THETA


def run_row(model, row, types, hidden=False):
    """One row alone: (transformers' output, pooled vector or None)."""
    base.forget_lengths(model)
    pooled = []
    pooler = getattr(base.backbone(model), "pooler", None)
    hook = pooler.register_forward_hook(lambda _m, _a, out: pooled.append(out[0])) if pooler is not None else None
    ids = torch.tensor([row])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if types is not None:
        inputs["token_type_ids"] = torch.tensor([types])
    if base.is_causal(model):
        inputs["use_cache"] = False
    output = model(**inputs, output_hidden_states=hidden, return_dict=True)
    if hook is not None:
        hook.remove()
    return output, pooled[0] if pooled else None


def forward(model, data, hidden=False):
    """All rows, each alone: a list of (output, pooled)."""
    types = data.get("token_type_ids") or [None] * len(data["input_ids"])
    return [run_row(model, row, kind, hidden) for row, kind in zip(data["input_ids"], types)]


def loss_of(model, outputs, labels):
    """Causal LM: mean over all labelled tokens of all rows together; classifier: mean over rows."""
    logits = [output.logits[0] for output, _pooled in outputs]
    if base.is_causal(model):
        predicted = torch.cat([row[:-1] for row in logits])
        wanted = torch.cat([torch.tensor(row[1:], dtype=torch.long) for row in labels])
        if not (wanted != -100).any():
            raise SystemExit("labels: no token is labelled")
        return functional.cross_entropy(predicted, wanted)
    stacked = torch.stack(logits)
    if stacked.shape[1] == 1:
        return functional.mse_loss(stacked[:, 0], torch.tensor(labels, dtype=torch.float32))
    return functional.cross_entropy(stacked, torch.tensor(labels, dtype=torch.long))


def rate(k, steps, lr, warmup):
    """Learning rate of update k: warm-up from 0, then linear to 0."""
    return lr * k / warmup if k < warmup else lr * (steps - k) / max(1, steps - warmup)


def train(model, trained, data, options):
    """N updates on all rows as one batch; returns the step losses and the tensors after them."""
    spared = [n for n in trained if n.endswith(".bias") or n.startswith(THETA)]
    groups = [
        {"params": [p for n, p in trained.items() if n in spared], "weight_decay": 0.0},
        {"params": [p for n, p in trained.items() if n not in spared], "weight_decay": options["weight_decay"]},
    ]
    optimiser = torch.optim.AdamW(groups, lr=options["lr"], betas=(0.9, 0.999), eps=1e-8)
    result = {}
    for k in range(options["optim_steps"]):
        optimiser.zero_grad()
        loss = loss_of(model, forward(model, data), data["labels"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(trained.values()), options["max_grad_norm"])
        for group in optimiser.param_groups:
            group["lr"] = rate(k, options["optim_steps"], options["lr"], options["warmup_steps"])
        optimiser.step()
        result[f"step.loss.{k}"] = loss.detach().reshape(1)
    for name, parameter in trained.items():
        result[f"param.{name}"] = parameter.detach().clone()
    return result
