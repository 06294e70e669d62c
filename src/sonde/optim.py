"""Optimizers, schedules, parameter groups and the running average of weights.

A schedule is a pure function of the step: nothing of it has to be saved, except the plateau's memory of scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sonde.base.config import Config


class OptimizerConfig(Config):
    kind: Literal["sgd", "adam", "adamw", "muon"] = Field(default="adamw", description="sgd, adam, adamw or muon")
    lr: float = Field(default=1e-3, gt=0, description="highest learning rate; the schedule scales it")
    weight_decay: float = Field(
        default=0.01, ge=0, description="decay of weight matrices; norms and biases are left out"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd and muon")
    nesterov: bool = Field(default=True, description="sgd and muon: look ahead along the momentum")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="adam and adamw, and muon's other parameters")
    eps: float = Field(default=1e-8, gt=0, description="adam and adamw")
    lr_other: float | None = Field(
        default=None, gt=0, description="muon: learning rate of what AdamW trains (default lr / 10)"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_a_kind(cls, values: dict[str, object]) -> dict[str, object]:
        # A sensible rate differs a hundredfold between optimizers: the default follows the kind.
        rates = {"sgd": 0.1, "muon": 0.02}
        kind = values.get("kind")
        if isinstance(kind, str) and kind in rates and "lr" not in values:
            return {**values, "lr": rates[kind]}
        return values


class ScheduleConfig(Config):
    kind: Literal["constant", "warmup-cosine", "one-cycle", "step", "plateau"] = Field(
        default="warmup-cosine", description="constant, warmup-cosine, one-cycle, step or plateau"
    )
    warmup: float = Field(default=0.05, ge=0, le=1, description="share of the steps over which the rate rises")
    final: float = Field(default=0.0, ge=0, le=1, description="rate at the end, as a share of lr")
    gamma: float = Field(default=0.1, gt=0, lt=1, description="step and plateau: factor of each decrease")
    at: tuple[float, ...] = Field(default=(0.5, 0.75), description="step: where the rate falls, as shares of the steps")
    patience: int = Field(default=5, ge=1, description="plateau: evaluations without improvement before the rate falls")


def rate(schedule: ScheduleConfig, step: int, steps: int) -> float:
    """The factor on the learning rate for step 0 ... steps - 1. Plateau's decreases come from `Plateau`."""
    rising = schedule.warmup * steps
    if schedule.kind == "one-cycle":
        # Linear up and linear down (Smith and Topin 2018), with a rise of 30 % unless the recipe set another.
        rising = (schedule.warmup if "warmup" in schedule.model_fields_set else 0.3) * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    progress = (step - rising) / max(1.0, steps - rising)
    if schedule.kind == "warmup-cosine":
        return schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule.kind == "one-cycle":
        return schedule.final + (1 - schedule.final) * (1 - progress)
    if schedule.kind == "step":
        return schedule.gamma ** sum(step >= share * steps for share in schedule.at)
    return 1.0


def split_parameters(network: nn.Module, *, matrices: bool) -> tuple[dict[str, nn.Parameter], ...]:
    """Named parameters as (muon, decayed, not decayed).

    Norms, biases and other vectors are not decayed. With `matrices`, weights of two or more dimensions inside the
    network go to Muon; embeddings and the head do not (Jordan 2024).
    """
    embeddings = {
        f"{path}.{name}" if path else name
        for path, module in network.named_modules()
        if isinstance(module, nn.Embedding)
        for name, _ in module.named_parameters(recurse=False)
    }
    groups: tuple[dict[str, nn.Parameter], ...] = ({}, {}, {})
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            groups[2][name] = parameter
        elif matrices and name not in embeddings and not name.startswith("head."):
            groups[0][name] = parameter
        else:
            groups[1][name] = parameter
    return groups


def build(
    config: OptimizerConfig, network: nn.Module, products: torch.dtype = torch.bfloat16
) -> list[torch.optim.Optimizer]:
    """The optimizers of a network: one, or Muon and AdamW side by side. Each group keeps its full rate as "peak".

    `products` is the number format of Muon's matrix products.
    """
    muon, decayed, plain = split_parameters(network, matrices=config.kind == "muon")
    optimizers: list[torch.optim.Optimizer] = []
    lr = config.lr
    if muon:
        optimizers.append(
            Muon(
                muon.values(),
                lr=lr,
                momentum=config.momentum,
                nesterov=config.nesterov,
                decay=config.weight_decay,
                products=products,
            )
        )
        lr = config.lr_other or lr / 10
    groups = [
        {"params": list(group.values()), "weight_decay": decay}
        for group, decay in ((decayed, config.weight_decay), (plain, 0.0))
        if group
    ]
    if groups:
        if config.kind == "sgd":
            nesterov = config.nesterov and config.momentum > 0
            optimizers.append(SGD(groups, lr=lr, momentum=config.momentum, nesterov=nesterov, fused=True))
        elif config.kind == "adam":
            optimizers.append(Adam(groups, lr=lr, betas=config.betas, eps=config.eps, fused=True))
        else:
            optimizers.append(AdamW(groups, lr=lr, betas=config.betas, eps=config.eps, fused=True))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def set_rate(optimizers: Sequence[torch.optim.Optimizer], factor: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


def shrink(optimizers: Sequence[torch.optim.Optimizer], factor: float) -> None:
    """Have the next step made with gradients `factor` times what they are."""
    for optimizer in optimizers:
        if isinstance(optimizer, Adam):
            optimizer.shrink = factor
        else:
            _shrink(optimizer, factor)


def _shrink(optimizer: torch.optim.Optimizer, factor: float) -> None:
    gradients = [one.grad for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
    if factor != 1 and gradients:
        torch._foreach_mul_(gradients, factor)  # pyright: ignore[reportPrivateImportUsage]


# torch's optimizers import its compiler (torch._dynamo), only to keep it away from them: as long a start again as
# torch's own. Here nothing compiles an optimizer, so the functions themselves are used, without what is wrapped around.
for _method in (torch.optim.Optimizer.add_param_group, torch.optim.Optimizer.zero_grad):
    _inner: Any = getattr(_method, "__wrapped__", None)
    if _inner is not None:
        _inner.__dynamo_disable = _inner


def _plain_step(kind: type[torch.optim.Optimizer]) -> Any:
    return torch.no_grad()(getattr(kind.step, "__wrapped__", kind.step))


class SGD(torch.optim.SGD):
    step = _plain_step(torch.optim.SGD)


class Adam(torch.optim.Adam):
    """torch's update without what its `step` does anew every time, which for a small network is twice the update.

    `shrink` is a factor on the gradients of the next step, which is cheapest in passing.
    """

    shrink = 1.0
    _torch_step = _plain_step(torch.optim.Adam)
    _update = staticmethod(torch._fused_adam_)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        lists = [_fused_lists(self, group) for group in self.param_groups]
        if None in lists:
            # The first step makes the state; and tensors of several kinds are sorted by torch.
            _shrink(self, self.shrink)
            self._torch_step()
            return
        for group, (parameters, gradients, means, squares, steps) in zip(self.param_groups, lists, strict=True):  # type: ignore[misc]
            torch._foreach_add_(steps, 1)  # pyright: ignore[reportPrivateImportUsage]
            self._update(
                parameters,
                gradients,
                means,
                squares,
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                grad_scale=None if self.shrink == 1 else torch.tensor(1 / self.shrink, device=steps[0].device),
            )

    step.hooked = True  # type: ignore[attr-defined]


class AdamW(Adam, torch.optim.AdamW):
    _torch_step = _plain_step(torch.optim.AdamW)
    _update = staticmethod(torch._fused_adamw_)  # pyright: ignore[reportPrivateImportUsage]


def _fused_lists(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> tuple[list[Tensor], ...] | None:
    """Parameters, gradients, and what Adam keeps of them; None where one call cannot update them all."""
    parameters = [one for one in group["params"] if one.grad is not None]
    slots = [optimizer.state[one] for one in parameters]
    kinds = {(type(one), one.dtype, one.device) for one in parameters}
    if not all(slots) or len(kinds) != 1 or (nn.Parameter, torch.float32) != next(iter(kinds))[:2]:
        return None
    kept = ([each[name] for each in slots] for name in ("exp_avg", "exp_avg_sq", "step"))
    return parameters, [one.grad for one in parameters], *kept  # type: ignore[return-value]


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalized by Newton-Schulz (Jordan 2024), for weights of two or more dimensions.

    torch.optim.Muon takes 2-D matrices only; here a convolution's kernel is a matrix (out, in * height * width), and
    the matrices of one shape are orthogonalized together. The update is scaled by sqrt(max(1, rows / columns)), so
    that one learning rate suits every shape.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        nesterov: bool,
        decay: float,
        products: torch.dtype = torch.bfloat16,
    ) -> None:
        self.products = products
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault((len(parameter), parameter[0].numel()), []).append(parameter)
            for (rows, columns), parameters in by_shape.items():
                self._update(group, parameters, rows, columns)

    def _update(self, group: dict[str, Any], parameters: list[nn.Parameter], rows: int, columns: int) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        buffers = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            buffers.append(state["momentum_buffer"])
        for buffer, gradient in zip(buffers, gradients, strict=True):
            buffer.lerp_(gradient, 1 - group["momentum"])
        updates = buffers
        if group["nesterov"]:
            updates = [grad.lerp(buffer, group["momentum"]) for grad, buffer in zip(gradients, buffers, strict=True)]
        whole = orthogonalize(torch.stack([update.reshape(rows, columns) for update in updates]), self.products)
        scale = max(1.0, rows / columns) ** 0.5
        for parameter, update in zip(parameters, whole.unbind(), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.to(parameter.dtype).reshape(parameter.shape), alpha=-group["lr"] * scale)


def orthogonalize(matrices_NRC: Tensor, products: torch.dtype = torch.bfloat16, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrices, roughly: singular values end between 0.7 and 1.2.

    Newton-Schulz iteration with the quintic of Jordan et al. 2024; shape (N, R, C) in and out, in `products`' format.
    """
    x = matrices_NRC.to(products)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    # On CPUs one matrix alone is quicker than a batch of one.
    alone = len(x) == 1
    x = x[0] if alone else x
    # In bfloat16 the square that the small way works on would lose the small singular values.
    small = products == torch.float32 and x.shape[-1] >= 2 * x.shape[-2]
    x = _by_squares(x, steps) if small else _newton_schulz(x, steps)
    x = x[None] if alone else x
    return x.mT if tall else x


# x becomes (a + b xx' + c (xx')^2) x.
A, B, C = 3.4445, -4.7750, 2.0315


def _newton_schulz(x: Tensor, steps: int) -> Tensor:
    # A product and a sum at once: quicker, and rounded once.
    product = torch.addmm if x.ndim == 2 else torch.baddbmm
    for _ in range(steps):
        gram = x @ x.mT
        x = product(x, product(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x


def _by_squares(x: Tensor, steps: int) -> Tensor:
    """The same on the square xx', which is small where x is wide: two products of x's size, not two a step."""
    product = torch.addmm if x.ndim == 2 else torch.baddbmm
    gram = x @ x.mT
    whole = None
    for step in range(steps):
        factor = product(gram, gram, gram, beta=B, alpha=C)
        factor.diagonal(dim1=-2, dim2=-1).add_(A)
        whole = factor if whole is None else factor @ whole
        if step + 1 < steps:
            gram = factor @ gram @ factor
    return x if whole is None else whole @ x


class Average:
    """Exponential moving average of the weights: short memory at first, so that early weights are forgotten."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in _averaged(network)}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        values = [value for _, value in _averaged(network)]
        for mine, value in zip(self.weights.values(), values, strict=True):
            mine.lerp_(value, 1 - decay)

    @torch.no_grad()
    def swap(self, network: nn.Module) -> None:
        """Exchange the network's weights with the average; the second call undoes the first."""
        for name, value in _averaged(network):
            held = value.detach().clone()
            value.copy_(self.weights[name])
            self.weights[name] = held


def _averaged(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters, and buffers of floats (batch norm's statistics): both belong to the weights that are used."""
    named = [*network.named_parameters(), *network.named_buffers()]
    return [(name, value) for name, value in named if value.is_floating_point()]


class Plateau:
    """Lowers the rate when a score has stopped improving."""

    def __init__(self, config: ScheduleConfig) -> None:
        self.config = config
        self.factor = 1.0
        self.best: float | None = None
        self.waited = 0

    def observe(self, score: float, better: Literal["max", "min"]) -> None:
        value = score if better == "max" else -score
        if self.best is None or value > self.best:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self.waited > self.config.patience:
            self.factor, self.waited = self.factor * self.config.gamma, 0
