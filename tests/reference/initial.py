"""What SIBO adds: the initial representation h0, caught where it enters the first layer, and its mix with x."""

import torch

import base


class Initial:
    """Holds h0 (batch, tokens, d) of the call in progress; a hook on the first layer fills it."""

    def __init__(self, model):
        self.h0 = None
        base.layers(model)[0].register_forward_pre_hook(self._catch, with_kwargs=True)

    def _catch(self, _module, args, kwargs):
        self.h0 = args[0] if args else kwargs["hidden_states"]

    def mix(self, x, lam, kind):
        """(1 - lambda) x + lambda h0, h0 raw or with each row scaled to the root mean square of its x row."""
        h0 = self.h0
        if kind == "rms":
            x_power = x.detach().pow(2).mean(-1, keepdim=True)
            h_power = h0.detach().pow(2).mean(-1, keepdim=True)
            factor = (x_power / h_power.clamp_min(1e-45)).sqrt()
            h0 = h0 * factor.where(h_power > 0, factor.new_zeros(()))
        return (1 - lam) * x + lam * h0


THETA = "base_model.model.sibo_theta."
"""Before the name of what shares a theta, in the keys of adapter_model.safetensors."""


class Sibo:
    """The `sibo` object of an adapter_config.json; a missing one means lambda = 0."""

    def __init__(self, config, peft_type):
        settings = config.get("sibo") or {}
        if settings and settings.get("version", 1) != 1:
            raise SystemExit(f"sibo version {settings['version']} is not known; 1 is")
        self.lam = settings.get("lambda", 0.0)
        self.placement = settings.get("placement", "paper")
        self.h0 = settings.get("h0", "raw")
        self.skip = settings.get("skip", "original")
        self.per = settings.get("lambda_per", "kind")
        self.thetas = {}
        if self.active() and not peft_type.startswith("SIBO_"):
            raise SystemExit(f"peft_type {peft_type} with lambda > 0 would load as plain elsewhere: refused")

    def learned(self):
        """Whether lambda is sigmoid(theta)."""
        return self.lam == "learned"

    def take_thetas(self, tensors):
        """Keep the thetas among an adapter's tensors as parameters; returns them by their keys."""
        found = {name: torch.nn.Parameter(value.float()) for name, value in tensors.items() if name.startswith(THETA)}
        self.thetas = {name.removeprefix(THETA): parameter for name, parameter in found.items()}
        return found

    def active(self):
        """Whether any layer has lambda > 0."""
        if self.learned():
            return True
        return any(self.lam) if isinstance(self.lam, list) else self.lam > 0

    def at(self, layer, kind, path):
        """lambda of one branch: its layer, the kind of state that it reads, its module's path."""
        if self.learned():
            group = {"kind": kind, "layer": f"layer_{layer}", "module": path}[self.per]
            return torch.sigmoid(self.thetas[group])
        return self.lam[layer] if isinstance(self.lam, list) else self.lam
