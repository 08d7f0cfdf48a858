"""Cases on the real models: English text (or protein letters) through their own tokenizers, plain and with adapters."""

from pathlib import Path

from transformers import AutoTokenizer

import cases
from adapters import bottleneck_adapter, lora

ENGLISH = [
    "The capital of France is Paris, and the river that runs through it is the Seine.",
    "Yes",
    "A farmer has 17 sheep and buys 5 more; how many sheep does she have now?",
]
# Five steps that a real model bears: at a larger rate the loss jumps, and rounding grows with it.
STEPS = {**cases.STEPS, "options": {"optim": cases.STEPS["options"]["optim"] | {"lr": 3e-4}}}
PROTEIN = ["EVQLVESGGGLVQPGGSLRLSCAAS", "Q", "QVQLQQSGAELARPGASVKM"]


def tokenised(folder, texts, causal, classes=None):
    """ids.json of some texts; causal rows are labelled, but for their first third."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [tokenizer(text, add_special_tokens=not causal)["input_ids"] for text in texts]
    data = {"input_ids": rows}
    if causal:
        data["labels"] = [[-100] * (len(row) // 3) + row[len(row) // 3 :] for row in rows]
    elif classes is not None:
        data["labels"] = [i % classes for i in range(len(rows))]
    return data


def encoder_cases(models, name, texts):
    """Base, LoRA, SIBO-LoRA and Houlsby on one encoder."""
    plain, labelled = tokenised(models / name, texts, False), tokenised(models / name, texts, False, 3)
    targets = ["query", "value", "output.dense"]
    pooler = {} if name.startswith(("minilm-l6", "antiberty", "sapiens")) else {"modules_to_save": ["pooler"]}
    return {
        f"{name}/base": cases.Case(name, plain, [cases.TRACE]),
        f"{name}/lora": cases.Case(name, labelled, adapter=lora(3, r=8, lora_alpha=12, target_modules=targets, **pooler)),
        f"{name}/sibo": cases.Case(name, labelled, [cases.GRADS, STEPS],
            adapter=lora(3, r=4, lora_alpha=6, target_modules=targets, sibo={"lambda": 0.7}, **pooler)),
        f"{name}/houlsby": cases.Case(name, labelled,
            adapter=bottleneck_adapter("houlsby", 3, sibo={"lambda": 0.2}, bottleneck_size=16, non_linearity="gelu")),
    }  # fmt: skip


def decoder_cases(models, name):
    """Base, LoRA, SIBO-LoRA and in-linear adapters on one decoder."""
    data = tokenised(models / name, ENGLISH, True)
    targets = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
    small = {"command": "generate", "options": {"max_new_tokens": 12, "num_beams": 4}, "expected": "beam4.json"}
    return {
        f"{name}/base": cases.Case(name, data, [cases.TRACE, cases.GREEDY, small]),
        f"{name}/lora": cases.Case(name, data, adapter=lora(r=8, lora_alpha=12, target_modules=targets)),
        f"{name}/sibo": cases.Case(name, data, [cases.GRADS, small],
            adapter=lora(r=4, lora_alpha=6, target_modules=targets, sibo={"lambda": 0.3, "h0": "rms"})),
        f"{name}/in-linear": cases.Case(name, data,
            adapter=bottleneck_adapter("in_linear", sibo={"lambda": 0.2}, bottleneck_size=8, linears=["mlp.gate_proj", "mlp.up_proj"])),
    }  # fmt: skip


def real_cases(models):
    """Cases of every known model that lies in the folder."""
    models = Path(models)
    found = {}
    for name in ("minilm-l6", "minilm-l3", "minilm-l6-roberta", "sapiens-vh", "antiberty"):
        if (models / name / "model.safetensors").exists():
            found |= encoder_cases(models, name, PROTEIN if name in ("sapiens-vh", "antiberty") else ENGLISH)
    if (models / "smollm2-135m" / "model.safetensors").exists():
        found |= decoder_cases(models, "smollm2-135m")
    return found
