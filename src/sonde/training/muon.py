"""Muon: momentum, orthogonalized, for the matrices inside a network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sonde.training.light import unwrapped


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalized by Newton-Schulz (Jordan 2024), for weights of two or more dimensions.

    torch.optim.Muon takes 2-D matrices only; here a convolution's kernel is a matrix (out, in * height * width), and
    the matrices of one shape are orthogonalized together. The update is scaled by sqrt(max(1, rows / columns)), so
    that one learning rate suits every shape.
    """

    # As torch's fused optimizers have it: 1 (0-d, on the device) leaves weights and momentum as they are.
    found_inf: Tensor | None = None

    add_param_group = unwrapped(torch.optim.Optimizer.add_param_group)

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        matmul_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self.matmul_dtype = matmul_dtype
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
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
        skipped = None if self.found_inf is None else self.found_inf > 0
        for buffer, gradient in zip(buffers, gradients, strict=True):
            if skipped is None:
                buffer.lerp_(gradient, 1 - group["momentum"])
            else:
                buffer.copy_(torch.where(skipped, buffer, buffer.lerp(gradient, 1 - group["momentum"])))
        updates = buffers
        if group["nesterov"]:
            updates = [grad.lerp(buffer, group["momentum"]) for grad, buffer in zip(gradients, buffers, strict=True)]
        whole = orthogonalize(torch.stack([update.reshape(rows, columns) for update in updates]), self.matmul_dtype)
        scale = max(1.0, rows / columns) ** 0.5
        for parameter, update in zip(parameters, whole.unbind(), strict=True):
            change = update.to(parameter.dtype).reshape(parameter.shape)
            if skipped is None:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(change, alpha=-group["lr"] * scale)
            else:
                decayed = parameter * (1 - group["lr"] * group["weight_decay"])
                parameter.copy_(torch.where(skipped, parameter, decayed.add_(change, alpha=-group["lr"] * scale)))


def orthogonalize(matrices_NRC: Tensor, matmul_dtype: torch.dtype = torch.bfloat16, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrices, roughly: singular values end between 0.7 and 1.2.

    Newton-Schulz iteration with the quintic of Jordan et al. 2024; shape (N, R, C) in and out, in the format
    `matmul_dtype`.
    """
    x = matrices_NRC.to(matmul_dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    # On CPUs one matrix alone is quicker than a batch of one.
    alone = len(x) == 1
    x = x[0] if alone else x
    # In bfloat16 the square that the small way works on would lose the small singular values.
    small = matmul_dtype == torch.float32 and x.shape[-1] >= 2 * x.shape[-2]
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
