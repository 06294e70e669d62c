"""A whole network from its parts: each input's front and body, a joint where inputs meet, and the head.

B example, T position, H row, W column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from sonde.base.config import Config, kind_of
from sonde.base.errors import UserError
from sonde.columns import Tensors
from sonde.networks import _fit, _heads
from sonde.task import Ask, Body, Form, Input

# The tensor of an input that someone's own module is given.
MAIN: dict[Form, str] = {
    "grid": "grid",
    "tokens": "tokens",
    "frames": "frames",
    "vector": "vector",
    "columns": "numbers",
}
# Settings that say where first weights come from.
FIRST_WEIGHTS = ("pretrained", "weights")


class Network(nn.Module):
    """From collated inputs, by name, to what was asked: (B, width), (B, T, width) or (B, width, H, W)."""

    def __init__(
        self,
        ask: Ask,
        fronts: Mapping[str, nn.Module],
        bodies: Mapping[str, nn.Module],
        joint: nn.Module | None,
        head: nn.Module | None,
    ) -> None:
        super().__init__()
        for name in bodies:
            if name in dir(nn.ModuleDict):
                raise UserError(
                    f"an input cannot be named {name!r}: PyTorch uses that word", hint="choose another name"
                )
        self.per = ask.per
        self.fronts = nn.ModuleDict(fronts)
        self.bodies = nn.ModuleDict(bodies)
        self.joint = joint
        self.head = head

    def forward(self, inputs: Mapping[str, Tensors], at_N: Tensor | None = None) -> Tensor:
        """Per position, `at_N` int64 (N,) chooses among all B * T positions: then the answers are (N, width)."""
        tensors = {name: front(inputs[name]) for name, front in self.fronts.items()}
        features = [body(tensors[name]) for name, body in self.bodies.items()]
        feature = features[0] if self.joint is None else self.joint(features)
        answer = self._answer(feature if at_N is None else feature.flatten(0, 1).index_select(0, at_N))
        if self.per == "pixel":
            (only,) = tensors.values()
            answer = _heads.resize(answer, only["grid"].shape[2:])
        return answer

    def extend(self, inputs: Mapping[str, Tensors], cache: Any) -> tuple[Tensor, Any]:
        """Answers at further positions, given the cache of the earlier ones (None at the start).

        Raises:
            NotImplementedError: the network is not causal, or not sonde's own.
        """
        ((name, body),) = self.bodies.items()
        if not isinstance(body, Body):
            raise NotImplementedError(f"{type(body).__name__} has no cache")
        features, cache = body.extend(self.fronts[name](inputs[name]), cache)
        return self._answer(features), cache

    def _answer(self, features: Any) -> Tensor:
        if self.head is not None:
            return self.head(features)
        # Without a head of its own the network answers with the weights of its embedding.
        (body,) = self.bodies.values()
        return functional.linear(features, body.embedding_weight)  # type: ignore[arg-type]


def assemble(
    inputs: Mapping[str, Input],
    ask: Ask,
    configs: Mapping[str, Config],
    bodies: Mapping[str, type[Body]],
    *,
    restoring: bool = False,
) -> Network:
    """The network that takes `inputs` and gives what is asked, with its first weights from the global generator.

    `configs` and `bodies` are the settings and the class of each input's body. `restoring` builds it for weights that
    will be loaded into it: files and hubs of first weights are not looked for.

    Raises:
        UserError: a body cannot take its input, or give what is asked; or its settings do not suit.
    """
    _fit.check(inputs, ask, {name: kind_of(config) for name, config in configs.items()}, bodies)
    if restoring:
        configs = {name: _without_first_weights(config) for name, config in configs.items()}
    built = {name: bodies[name](configs[name], part.shape, ask) for name, part in inputs.items()}
    joint = _heads.Joint([body.width for body in built.values()]) if len(built) > 1 else None  # type: ignore[misc]
    (first, *_) = built.values()
    return Network(ask, _fronts(inputs), built, joint, _head(first, first.width if joint is None else joint.width, ask))


def wrap(module: nn.Module, inputs: Mapping[str, Input], ask: Ask) -> Network:
    """Anyone's module as a network: it gets the one input's main tensor and returns the answer itself.

    The tensor is what the input offers, after its front: a grid (B, C, H, W), tokens (B, T), frames (B, T, C), a
    vector (B, C), or the numbers of a table (B, C).
    """
    if len(inputs) != 1:
        raise UserError(
            f"a module of your own takes one input; this task has {len(inputs)}: " + ", ".join(inputs),
            hint="keep one input, or write a network kind (sonde.task.Body) for each",
        )
    ((name, part),) = inputs.items()
    own = Own(module, part.shape.form, ask)
    return Network(ask, _fronts(inputs), {name: own}, None, nn.Identity())


class Own(nn.Module):
    """Someone's module, its answers checked for their shape."""

    def __init__(self, module: nn.Module, form: Form, ask: Ask) -> None:
        super().__init__()
        self.module = module
        self.main = MAIN[form]
        self.ask = ask

    def forward(self, tensors: Tensors) -> Tensor:
        given = tensors[self.main]
        answer = self.module(given)
        if self.ask.per == "pixel":
            wanted = (len(given), self.ask.width, *given.shape[2:])
        else:
            wanted = (len(given), *given.shape[1 : 1 + (self.ask.per == "position")], self.ask.width)
        if not isinstance(answer, Tensor) or tuple(answer.shape) != wanted:
            found = f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
            raise UserError(
                f"the module {type(self.module).__name__} answered with {found}",
                expected=f"a tensor of shape {wanted}, for {self.main} of shape {tuple(given.shape)}",
            )
        return answer


def _fronts(inputs: Mapping[str, Input]) -> dict[str, nn.Module]:
    return {name: part.front() for name, part in inputs.items()}


def _head(body: Body, width: int | tuple[int, ...], ask: Ask) -> nn.Module | None:
    if isinstance(width, tuple):
        return _heads.pixelwise(width, ask.width)
    if isinstance(body, _heads.Embeds) and body.embedding_weight is not None:
        return None
    return _heads.linear(width, ask.width)


def _without_first_weights(config: Config) -> Config:
    fields = type(config).model_fields
    return config.model_copy(update={name: fields[name].default for name in FIRST_WEIGHTS if name in fields})
