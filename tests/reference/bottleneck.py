"""Bottleneck adapters as forward hooks on transformers: the forms of the design, which PEFT does not have."""

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional

import base
from initial import Initial, Sibo

ACTIVATION = {"tanh": torch.tanh, "relu": functional.relu, "swish": functional.silu, "gelu": functional.gelu}

SUBLAYERS = {
    "bert": ("attention.output.dense", "output.dense", "intermediate"),
    "llama": ("self_attn.o_proj", "mlp.down_proj", "mlp"),
    "gptj": ("attn.out_proj", "mlp.fc_out", "mlp"),
}
"""The last linear of attention and of the FFN, and the module whose input is the FFN's input."""

FAMILY = {"roberta": "bert", "xlm-roberta": "bert", "camembert": "bert", "mistral": "llama", "qwen2": "llama"}


class Branch:
    """s (U f(D x~ + b) + c), x~ = (1 - lambda) x + lambda h0."""

    def __init__(self, tensors, prefix, config, mix):
        down = f"{prefix}.adapter_down.0" if f"{prefix}.adapter_down.0.weight" in tensors else f"{prefix}.adapter_down"
        self.down, self.down_bias = tensors[f"{down}.weight"], tensors.get(f"{down}.bias")
        self.up, self.up_bias = tensors[f"{prefix}.adapter_up.weight"], tensors.get(f"{prefix}.adapter_up.bias")
        self.scaling = config.get("scaling", 1.0)
        self.activation = ACTIVATION[config.get("non_linearity", "tanh")]
        self.mix = mix

    def __call__(self, mixed):
        inner = self.activation(functional.linear(mixed, self.down, self.down_bias))
        return self.scaling * functional.linear(inner, self.up, self.up_bias)


def series(module, branch, skip):
    """z = skip(y) + branch(y~) on the output y of a sub-layer's last linear."""

    def hook(_module, _args, y):
        mixed = branch.mix(y)
        return (mixed if skip == "mixed" else y) + branch(mixed)

    module.register_forward_hook(hook)


def on_sum(norm, branch):
    """s' = s + branch(norm(s)~) on what the post-norm layer's `norm` reads, which is the residual sum s."""

    def hook(_module, args):
        read = functional.layer_norm(args[0], norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return (args[0] + branch(branch.mix(read)),)

    norm.register_forward_pre_hook(hook)


def parallel(reads, joins, branch):
    """z = FFN(x) + branch(x~): x is the input of `reads`, FFN(x) the output of `joins`."""
    caught = {}

    def catch(_module, args):
        caught["x"] = args[0]

    def hook(_module, _args, y):
        return y + branch(branch.mix(caught["x"]))

    reads.register_forward_pre_hook(catch)
    joins.register_forward_hook(hook)


def in_linear(module, branch):
    """W (x + branch(x~)): the adapter stands before a frozen linear."""

    def hook(_module, args):
        return (args[0] + branch(branch.mix(args[0])),)

    module.register_forward_pre_hook(hook)


def install(model, config, sibo, tensors):
    """Hang every adapter of the file where its key says."""
    initial = Initial(model)
    keys = {re.sub(r"\.adapter_(down|up)\b.*", "", name) for name in tensors if ".adapter_down" in name}
    attention, ffn, ffn_input = SUBLAYERS[FAMILY.get(model.config.model_type, model.config.model_type)]
    for key in sorted(keys):
        path = key.removeprefix("base_model.model.")
        layer = int(re.match(re.escape(base.layers_path(model)) + r"\.(\d+)\.", path)[1])
        kind = "after_attention" if path.endswith("attention_adapter") else "after_FFN"
        if config["method"] in ("parallel", "in_linear"):
            kind = "FFN_input"

        def mix(x, place=(layer, kind, path)):
            lam = sibo.at(*place)
            return initial.mix(x, lam, sibo.h0) if sibo.learned() or lam else x

        branch = Branch(tensors, key, config, mix)
        if config["method"] == "in_linear":
            in_linear(model.get_submodule(path), branch)
            continue
        block = base.layers(model)[layer]
        if config.get("original_ln_before"):
            if ffn_input != "intermediate":
                raise SystemExit("original_ln_before is held against adapter-hub on models without a norm behind the sum")
            last = attention if path.endswith("attention_adapter") else ffn
            on_sum(block.get_submodule(last.removesuffix("dense") + "LayerNorm"), branch)
        elif config["method"] == "parallel":
            parallel(block.get_submodule(ffn_input), block.get_submodule(ffn), branch)
        else:
            last = attention if path.endswith("attention_adapter") else ffn
            series(block.get_submodule(last), branch, sibo.skip)


def attach(model, folder):
    """Load a BOTTLENECK or SIBO_BOTTLENECK folder onto the model; returns {parameter name: trained tensor}."""
    config = base.read_json(Path(folder) / "adapter_config.json")
    sibo = Sibo(config, config["peft_type"])
    if sibo.active() and sibo.placement != "paper":
        if not (sibo.placement == "reference" and config["method"] == "in_linear" and model.config.model_type == "llama"):
            raise SystemExit(f"placement {sibo.placement} is not offered for {config['method']} adapters here")
    own = dict(model.named_parameters())
    tensors = load_file(Path(folder) / "adapter_model.safetensors")
    trained = sibo.take_thetas(tensors)
    for name, value in tensors.items():
        if name in trained:
            continue
        if ".adapter_down" in name or ".adapter_up" in name:
            trained[name] = torch.nn.Parameter(value.float())
        else:
            trained[name] = own[name.removeprefix("base_model.model.")]
            trained[name].data.copy_(value)
            trained[name].requires_grad_(True)
    install(model, config, sibo, trained)
    return trained
