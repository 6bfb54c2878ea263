"""Float32 master weights in two flat buffers, stepped by torch's fused optimizers; the network may work in bfloat16.

The network's parameters become views of one flat buffer per group, so that casting, clipping, stepping and
writing back are a few passes over memory, however many layers there are, and nothing is cast twice as autocast does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from asr_distill.acoustic.base import Float32Norm
from asr_distill.acoustic.config import TrainerConfig
from asr_distill.parallel.peers import Peers

# Parameters begin at multiples of this many numbers: aligned for vector units, whatever the shapes.
ALIGNMENT = 64


class MasterOptimizer:
    """AdamW or SGD with momentum on float32 masters of `network`, whose parameters are turned into `dtype` views.

    Matrices are decayed, vectors (biases, norms) are not. Everything lives on the network's device.
    """

    def __init__(self, network: nn.Module, config: TrainerConfig, dtype: torch.dtype):
        self.clip = config.gradient_clip
        self.collected = False  # whether the flat gradients hold something of the next step
        self.parameters = list(network.parameters())
        keep = {id(p) for module in network.modules() if isinstance(module, Float32Norm) for p in module.parameters()}
        matrices = [p for p in self.parameters if p.ndim > 1]
        vectors = [p for p in self.parameters if p.ndim <= 1 and id(p) not in keep]
        norms = [p for p in self.parameters if id(p) in keep]
        self.groups = [_Flat(group, kind) for group, kind in
                       ((matrices, dtype), (vectors, dtype), (norms, torch.float32)) if group]
        settings = [{"params": [flat.master], "weight_decay": config.weight_decay * (flat.parameters[0].ndim > 1)}
                    for flat in self.groups]
        if config.optimizer == "adamw":
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                settings, lr=config.learning_rate, betas=(0.9, config.beta2), fused=True)
        else:
            self.optimizer = torch.optim.SGD(settings, lr=config.learning_rate, momentum=config.momentum,
                                             nesterov=config.momentum > 0, fused=True)

    def collect(self) -> list[torch.Tensor]:
        """Take the parameters' .grad, which are freed, to what was taken since the last step; the float32 sums."""
        for flat in self.groups:
            flat.collect_gradients(add=self.collected)
        self.collected = True
        return [flat.gradient for flat in self.groups]

    def step(self, learning_rate: float) -> None:
        """One update from what was collected, or else from the parameters' .grad, which are freed."""
        if not self.collected:
            self.collect()
        self.collected = False
        if self.clip:
            norms = torch.stack([flat.gradient.norm() for flat in self.groups])
            scale = (self.clip / (norms.norm() + 1e-6)).clamp(max=1.0)
            if scale.device.type != "cpu" or scale < 1:
                for flat in self.groups:
                    flat.gradient.mul_(scale)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        for flat in self.groups:
            flat.publish()

    def follow(self, peers: Peers) -> None:
        """Take the chief's weights: processors that round differently would drift apart."""
        if peers.size > 1:
            peers.take_(*(flat.master.data for flat in self.groups))
            for flat in self.groups:
                flat.publish()

    def constrain(self, parameters: Sequence[torch.Tensor], change: Callable[[torch.Tensor], None]) -> None:
        """Let `change` alter the float32 masters of some parameters in place; the network follows."""
        wanted = {id(parameter) for parameter in parameters}
        for flat in self.groups:
            for parameter, view in zip(flat.parameters, flat.split(flat.master.data), strict=True):
                if id(parameter) in wanted:
                    change(view)
            flat.publish()

    def state(self) -> dict[str, torch.Tensor]:
        """Masters and the optimizer's moments, by name; a view of the live tensors, not a copy."""
        tensors: dict[str, torch.Tensor] = {}
        for index, flat in enumerate(self.groups):
            tensors[f"optimizer.{index}.master"] = flat.master.detach()
            for name, value in self.optimizer.state[flat.master].items():
                if value is not None:
                    tensors[f"optimizer.{index}.{name}"] = value
        return tensors

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """The reverse of `state`; the network's parameters follow."""
        for index, flat in enumerate(self.groups):
            prefix = f"optimizer.{index}."
            with torch.no_grad():
                flat.master.copy_(tensors[prefix + "master"])
            for name, value in tensors.items():
                if name.startswith(prefix) and name != prefix + "master":
                    self.optimizer.state[flat.master][name.removeprefix(prefix)] = value.clone()
            flat.publish()

    def master_weights(self) -> list[torch.Tensor]:
        """Float32 copies in the order of network.parameters()."""
        pieces = {id(parameter): view.detach().clone() for flat in self.groups
                  for parameter, view in zip(flat.parameters, flat.split(flat.master), strict=True)}
        return [pieces[id(parameter)] for parameter in self.parameters]


def limit_norms(weight: torch.Tensor, most: float, axis: int = 0) -> None:
    """Shorten, in place, the incoming weights of each unit (all but dimension `axis`) to at most `most`.

    Hinton et al. 2012, "Improving neural networks by preventing co-adaptation of feature detectors".
    """
    others = tuple(dim for dim in range(weight.ndim) if dim != axis)
    length = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
    weight.mul_((most / length.clamp(min=1e-12)).clamp(max=1.0))


class _Flat:
    """Some parameters side by side: master and gradient in float32, and what the network computes with."""

    def __init__(self, parameters: list[nn.Parameter], dtype: torch.dtype):
        self.parameters = parameters
        self.begins = [0]
        for parameter in parameters:
            self.begins.append(self.begins[-1] + -(-parameter.numel() // ALIGNMENT) * ALIGNMENT)
        device = parameters[0].device
        self.master = nn.Parameter(torch.zeros(self.begins[-1], device=device))
        self.gradient = torch.zeros(self.begins[-1], device=device)
        self.master.grad = self.gradient
        self.gradient_views = self.split(self.gradient)
        with torch.no_grad():
            for parameter, view in zip(parameters, self.split(self.master.data), strict=True):
                view.copy_(parameter)
        self.working = self.master.data if dtype == torch.float32 else self.master.data.to(dtype)
        for parameter, view in zip(parameters, self.split(self.working), strict=True):
            parameter.data = view

    def split(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Views of `flat` in the parameters' shapes."""
        return [flat[begin:begin + parameter.numel()].view(parameter.shape)
                for parameter, begin in zip(self.parameters, self.begins, strict=False)]

    def collect_gradients(self, add: bool = False) -> None:
        for parameter, view in zip(self.parameters, self.gradient_views, strict=True):
            if parameter.grad is None:
                raise ValueError("a parameter of the network takes no part in its output")
            if add:
                view.add_(parameter.grad)
            else:
                view.copy_(parameter.grad)
            parameter.grad = None

    def publish(self) -> None:
        """Write the masters back into the parameters that the network computes with."""
        if self.working.dtype != torch.float32:  # else the network computes with the masters themselves
            self.working.copy_(self.master.data)
