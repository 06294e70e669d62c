"""Which units of a network give nothing any more, and which stand at their limit: seen in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

# What lets nothing through below zero; a unit that never rises above this on any example is dead.
_GATES = {"relu", "relu_", "relu6", "gelu", "silu", "elu", "leaky_relu", "hardswish", "mish", "softplus"}
NOTHING = 1e-4
# What has limits, and how near to them a value stands still: its slope is then below 2 % of the highest.
_LIMITED = {"tanh": (-1.0, 1.0), "tanh_": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "sigmoid_": (0.0, 1.0)}
_LIMITED |= {"rnn_tanh": (-1.0, 1.0)}
NEAR = 0.005
_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "batch_norm", "group_norm"}
_PRODUCTS = {"linear", "matmul", "bmm", "layer_norm"}


class Units(TorchFunctionMode):
    """Follows the activations of the passes that are made inside it, whoever calls them: modules or functions.

    `dead` and `saturated` hold 0-d tensors on the device, by place: the share of units that are zero on every example,
    and the share of values within 0.5 % of a limit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dead: dict[str, Tensor] = {}
        self.saturated: dict[str, Tensor] = {}
        self._place: list[str] = []
        self._grid = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in _CONVOLUTIONS or name in _PRODUCTS:
            # In a convolution's answer units lie in the second dimension, in a product's in the last.
            self._grid = name in _CONVOLUTIONS
        elif name in _GATES:
            self._gate(found)
        elif name in _LIMITED:
            self._limited(found[0] if isinstance(found, tuple) else found, *_LIMITED[name])
        return found

    def _gate(self, values: Tensor) -> None:
        if values.ndim < 2 or not values.is_floating_point() or not values.numel():
            return
        unit = 1 if self._grid and values.ndim > 2 else values.ndim - 1
        most = values.detach().abs().amax(dim=[at for at in range(values.ndim) if at != unit])
        self.dead[self._name(self.dead)] = (most <= NOTHING).float().mean()

    def _limited(self, values: Tensor, low: float, high: float) -> None:
        if values.ndim < 2 or not values.numel():
            return
        near = (high - low) * NEAR
        still = (values.detach() > high - near) | (values.detach() < low + near)
        self.saturated[self._name(self.saturated)] = still.float().mean()

    def _name(self, known: Mapping[str, Tensor]) -> str:
        place = self._place[-1] if self._place else "network"
        name, number = place, 1
        while name in known:
            number += 1
            name = f"{place}#{number}"
        return name

    @contextmanager
    def places(self, network: nn.Module) -> Iterator[None]:
        """What runs inside is called by the name of the module that it runs in."""
        handles: list[RemovableHandle] = []

        def enter(name: str) -> Callable[[nn.Module, Any], None]:
            return lambda module, given: self._place.append(name)

        def leave(module: nn.Module, given: Any, answer: Any) -> None:
            self._place.pop()

        for name, module in network.named_modules():
            if name:
                handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
