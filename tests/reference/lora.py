"""LoRA through PEFT itself; SIBO-LoRA by a hook on what PEFT's LoRA branch reads."""

import json
import re
import tempfile
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

import base
from initial import Initial, Sibo

INJECTABLE = {
    "attention.self.query", "attention.self.key", "attention.self.value",
    "attention.output.dense", "intermediate.dense",
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj",
    "attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.out_proj", "mlp.fc_in",
}  # fmt: skip
"""Linears inside a layer whose input may be the token's residual-width state."""

REFERENCE = {"mlp.up_proj", "mlp.fc_in"}
"""The linears that the paper's released code mixes h0 into."""


def kind_of(tail):
    """What a linear reads: the attention's input, the heads, or the FFN's input."""
    if tail.endswith(("q_proj", "k_proj", "v_proj", "query", "key", "value")):
        return "attention_input"
    return "attention_heads" if tail.endswith(("o_proj", "out_proj", "attention.output.dense")) else "FFN_input"


def parameter_name(name):
    """PEFT's parameter name as the key of adapter_model.safetensors."""
    return name.replace(".modules_to_save", "").replace(".default", "")


def site(model, name):
    """(layer, tail) of a module inside the layers, such as (2, 'mlp.up_proj'); None outside."""
    match = re.fullmatch(re.escape(base.layers_path(model)) + r"\.(\d+)\.(.+)", name)
    return (int(match[1]), match[2]) if match else None


def names_suffix(name, suffixes):
    """PEFT's rule for a list of targets: the whole name or a dotted suffix of it."""
    return any(name == suffix or name.endswith("." + suffix) for suffix in suffixes)


def chosen(model, placement, name, module):
    """Whether SIBO enters the LoRA of this module."""
    place = site(model, name)
    injectable = place is not None and place[1] in INJECTABLE and module.in_features == model.config.hidden_size
    if isinstance(placement, list):
        if names_suffix(name, placement) and not injectable:
            raise SystemExit(f"placement names {name}, which h0 cannot enter")
        return injectable and names_suffix(name, placement)
    if placement == "reference":
        if model.config.model_type not in ("llama", "mistral", "qwen2", "gptj"):
            raise SystemExit("placement reference: the released code has no encoder")
        return injectable and place[1] in REFERENCE
    return injectable


def inject(model, sibo):
    """Let the chosen LoRA branches read the mixed input; the frozen matmul keeps reading x."""
    initial = Initial(model)
    injected = []
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer) or "default" not in getattr(module, "lora_A", {}):
            continue
        if not chosen(model, sibo.placement, name, module):
            continue
        layer, tail = site(model, name)

        def mixed(_module, args, place=(layer, kind_of(tail), name)):
            return (initial.mix(args[0], sibo.at(*place), sibo.h0),)

        module.lora_A["default"].register_forward_pre_hook(mixed)
        injected.append(name)
    if not injected:
        raise SystemExit("lambda > 0, but no target module can take h0")
    return injected


def attach(model, folder):
    """Load a LORA or SIBO_LORA folder onto the model; returns {parameter name: trained tensor}."""
    config = base.read_json(Path(folder) / "adapter_config.json")
    sibo = Sibo(config, config["peft_type"])
    config.pop("sibo", None)
    config["peft_type"] = "LORA"
    with tempfile.TemporaryDirectory() as plain:
        (Path(plain) / "adapter_config.json").write_text(json.dumps(config))
        stored = load_file(Path(folder) / "adapter_model.safetensors")
        thetas = sibo.take_thetas(stored)
        stored = {name: tensor for name, tensor in stored.items() if name not in thetas}
        save_file(stored, Path(plain) / "adapter_model.safetensors", metadata={"format": "pt"})
        wrapped = PeftModel.from_pretrained(model, plain, is_trainable=True)
    wrapped.eval()
    trained = {parameter_name(n): p for n, p in wrapped.named_parameters() if p.requires_grad}
    check_loaded(trained, stored)
    if sibo.active():
        inject(wrapped.get_base_model(), sibo)
    return trained | thetas


def check_loaded(trained, stored):
    """PEFT only warns about keys that it could not place: here every trained tensor must come from the file."""
    for name, parameter in trained.items():
        if name not in stored or not torch.equal(parameter.data, stored[name].float()):
            raise SystemExit(f"{name} did not get its value from adapter_model.safetensors")
    # With bias "all", PEFT writes a saved module's bias three times; with an embedding target, the frozen table too.
    spare = (".base_layer.", ".original_module.", ".modules_to_save.")
    unread = {name for name in stored if name not in trained and not any(word in name for word in spare)}
    if unread:
        raise SystemExit(f"adapter_model.safetensors holds tensors that nothing reads: {sorted(unread)}")
