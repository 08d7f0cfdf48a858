"""Writers of adapter folders: LoRA saved by PEFT itself, SIBO as an edit of its config, bottleneck files by hand."""

import json
import zlib
from pathlib import Path

import peft
import torch
from safetensors.torch import load_file, save_file

import base
from initial import THETA


def generator_for(*parts):
    """A generator whose seed depends on the given words only."""
    return torch.Generator().manual_seed(zlib.crc32("/".join(map(str, parts)).encode()))


def shake(parameters, generator):
    """Values that matter for every trained tensor: B is not 0, a trained bias differs from the base's."""
    with torch.no_grad():
        for name, parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.add_(0.15 * noise)
            elif "lora_B" in name or "lora_embedding_B" in name:
                parameter.copy_(0.35 * noise)
            else:
                parameter.copy_(noise / parameter.shape[1] ** 0.5)


def lora(classes=None, sibo=None, metadata=False, thetas=(), **config):
    """A writer of a LoRA folder; `classes` makes it SEQ_CLS, `sibo` (a dict without version) makes it SIBO_LORA."""

    def write(model_dir, target):
        model = base.load_base(model_dir, classes)
        kind = "SEQ_CLS" if classes else "CAUSAL_LM" if base.is_causal(model) else None
        wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type=kind, lora_dropout=0.1, **config))
        generator = generator_for(model_dir.name, target.parent.name)
        shake([(n, p) for n, p in wrapped.named_parameters() if p.requires_grad], generator)
        wrapped.peft_config["default"].base_model_name_or_path = model_dir.name
        wrapped.save_pretrained(target)
        (target / "README.md").unlink(missing_ok=True)
        sort_lists(target / "adapter_config.json")
        if sibo is not None:
            turn_into_sibo(target, sibo, metadata)
        add_thetas(target, thetas, generator)

    return write


def add_thetas(target, thetas, generator):
    """Write the thetas of a learned lambda, named by what shares them, beside the other tensors."""
    if thetas:
        tensors = load_file(target / "adapter_model.safetensors")
        for name in thetas:
            tensors[THETA + name] = 0.5 * torch.randn(1, generator=generator) - 0.4
        save_file(tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})


def sort_lists(file):
    """PEFT keeps lists of names as sets, whose order changes from run to run."""
    config = json.loads(file.read_text())
    for key in ("target_modules", "modules_to_save"):
        if isinstance(config.get(key), list):
            config[key].sort()
    file.write_text(json.dumps(config, indent=2) + "\n")


def turn_into_sibo(target, sibo, metadata):
    """Give a PEFT folder the `sibo` object, in its config and, if asked, in the tensors' metadata too."""
    file = target / "adapter_config.json"
    settings = {"version": 1, "placement": "paper", "h0": "raw", "skip": "original"} | sibo
    config = json.loads(file.read_text()) | {"peft_type": "SIBO_LORA", "sibo": settings}
    file.write_text(json.dumps(config, indent=2) + "\n")
    if metadata:
        tensors = load_file(target / "adapter_model.safetensors")
        save_file(tensors, target / "adapter_model.safetensors", metadata={"sibo": json.dumps(settings)})


def adapter_shapes(model, method, size, linears):
    """The keys and shapes of a bottleneck adapter file for one model."""
    width = model.config.hidden_size
    shapes = {}
    for layer in range(model.config.num_hidden_layers):
        path = f"base_model.model.{base.layers_path(model)}.{layer}"
        if method == "in_linear":
            for linear in linears:
                shapes[f"{path}.{linear}.adapter_down.weight"] = (size, width)
                shapes[f"{path}.{linear}.adapter_up.weight"] = (width, size)
            continue
        for place in ("attention", "ffn") if method == "houlsby" else ("ffn",):
            key = f"{path}.{place}_adapter"
            shapes[f"{key}.adapter_down.0.weight"] = (size, width)
            shapes[f"{key}.adapter_down.0.bias"] = (size,)
            shapes[f"{key}.adapter_up.weight"] = (width, size)
            shapes[f"{key}.adapter_up.bias"] = (width,)
    return shapes


def bottleneck_config(method, saved, classes, sibo, causal, options):
    """The adapter_config.json of a bottleneck adapter; `saved` are the modules trained beside it."""
    config = {
        "peft_type": "BOTTLENECK" if sibo is None else "SIBO_BOTTLENECK", "method": method, "non_linearity": "relu",
        "scaling": 1.0, "init": "bert", "dropout": 0.1, "modules_to_save": saved or None,
        "task_type": "SEQ_CLS" if classes else "CAUSAL_LM" if causal else None,
    }  # fmt: skip
    if sibo is not None:
        config["sibo"] = {"version": 1, "placement": "paper", "h0": "raw", "skip": "original"} | sibo
    return config | options


def bottleneck_adapter(method, classes=None, sibo=None, linears=(), thetas=(), **options):
    """A writer of a bottleneck folder; `options` are keys of its config."""

    def write(model_dir, target):
        model = base.load_base(model_dir, classes)
        saved = ["classifier"] if classes else []
        if classes and hasattr(base.backbone(model), "pooler") and not base.has_pooler(base.tensor_names(model_dir)):
            saved += ["pooler"] if base.backbone(model).pooler is not None else []
        config = bottleneck_config(method, saved, classes, sibo, base.is_causal(model), options)
        size = options.get("bottleneck_size") or model.config.hidden_size // options["reduction_factor"]
        generator = generator_for(model_dir.name, target.parent.name)
        shapes = adapter_shapes(model, method, size, linears)
        for name, parameter in model.named_parameters():
            if any(f".{module}." in f".{name}" for module in saved):
                shapes[f"base_model.model.{name}"] = tuple(parameter.shape)
        tensors = {}
        for name, shape in shapes.items():
            scale = 0.2 if len(shape) == 1 else 0.9 / shape[1] ** 0.5
            tensors[name] = scale * torch.randn(shape, generator=generator)
        target.mkdir(parents=True)
        (target / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})
        add_thetas(target, thetas, generator)

    return write
