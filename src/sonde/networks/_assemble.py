"""A whole network from its parts: a backbone for each input, and the head that answers.

B example, T position, N chosen position, H row, W column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sonde.base.config import kind_of
from sonde.base.errors import UserError
from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.layouts import LAYOUTS
from sonde.contracts.specs import Features, FeatureWidth, InputSpec, OutputSpec, Per
from sonde.contracts.task import Task
from sonde.networks import _channels, _features, _fit, _lora, _weights, _windows
from sonde.networks._heads import StandardHead
from sonde.networks._sequences import inside


class Network(nn.Module):
    """From preprocessed inputs, by name, to the answers of the head.

    The standard head gives (B, width), (B, T, width), (M, width) or (B, width, *size); a target's own head whatever
    the target takes.
    """

    def __init__(
        self,
        specs: Mapping[str, InputSpec],
        outputs: Mapping[str, OutputSpec],
        backbones: Mapping[str, nn.Module],
        head: nn.Module,
        frozen: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        for name in backbones:
            if name in dir(nn.ModuleDict):
                raise UserError(
                    f"an input cannot be named {name!r}: PyTorch uses that word", hint="choose another name"
                )
        self.specs = dict(specs)
        self.outputs = dict(outputs)
        self.backbones = nn.ModuleDict(backbones)
        self.head = head
        self.frozen = frozen
        for name in frozen:
            self.backbones[name].requires_grad_(False).eval()
        # What steers a backbone comes after the backbones that it is steered by.
        self.order = sorted(backbones, key=lambda name: outputs[name].condition > 0)

    def forward(self, inputs: Mapping[str, Tensors], *extra: Any) -> Any:
        """The answers; `extra` is what the target's head takes beside the features (see `StandardHead` for its own).

        Whole grids, larger than what the network sees at once, are answered for window by window.
        """
        whole = _windows.whole_grid(inputs, self.outputs)
        if whole is not None:
            return _windows.slide(self._whole, inputs, whole, self.specs[whole].size)
        return self.answer(self.features(inputs), *extra)

    def _whole(self, inputs: Mapping[str, Tensors]) -> Tensor:
        return self.answer(self.features(inputs))

    def features(self, inputs: Mapping[str, Tensors]) -> dict[str, Features]:
        """What the backbones make of the inputs: once per prediction, where answers are then given step by step."""
        found: dict[str, Features] = {}
        for name in self.order:
            tensors = inputs[name]
            if self.outputs[name].condition:
                tensors = {**tensors, "condition": self._condition(tensors, found)}
            found[name] = self.features_of(name, tensors)
        return self._by_members({name: found[name] for name in self.backbones})

    def features_of(self, name: str, tensors: Tensors) -> Features:
        """What one backbone makes of its input, unless the batch brings that along (see `sonde.training.frozen`)."""
        known = _features.from_tensors(tensors, self.specs[name].size)
        return known if known is not None else self._featured(name, tensors, self.backbones[name](tensors))

    def fixed_names(self) -> set[str]:
        """What of the state dict is as it was built: weights that are not trained, statistics of frozen backbones."""
        resting = {f"backbones.{name}." for name in self.frozen}
        resting |= {f"{name}." for name, module in self.named_modules() if _is_resting(module)}
        fixed = {name for name, value in self.named_parameters() if not value.requires_grad}
        return fixed | {name for name, _ in self.named_buffers() if any(name.startswith(each) for each in resting)}

    @property
    def members(self) -> int:
        """How many answers each example gets in training: that of every member of a backbone that is several in one."""
        if not self.training:
            return 1
        return max(self._members(name) for name in self.backbones)

    def _members(self, name: str) -> int:
        backbone = self.backbones[name]
        return backbone.members if isinstance(backbone, Backbone) else 1

    def _by_members(self, features: dict[str, Features]) -> dict[str, Features]:
        """Features of one network beside those of several: each of them gets the same."""
        most = max(map(self._members, features))
        if most == 1:
            return features
        return {
            name: each if self._members(name) == most else Features(values=_repeated(each.values, most))
            for name, each in features.items()
        }

    def answer(self, features: Mapping[str, Features], *extra: Any) -> Any:
        answer = self.head(features, *extra)
        most = max(map(self._members, features))
        if most > 1 and not self.training:
            return answer.unflatten(0, (-1, most)).mean(1)
        return answer

    def extend(self, inputs: Mapping[str, Tensors], cache: Any) -> tuple[Tensor, Any]:
        """Answers at further positions, given the cache of the earlier ones (None at the start).

        Raises:
            NotImplementedError: the network is not causal, not sonde's own, or has several inputs.
        """
        if len(self.backbones) > 1:
            raise NotImplementedError("a network with several inputs has no cache")
        ((name, backbone),) = self.backbones.items()
        if not isinstance(backbone, Backbone):
            raise NotImplementedError(f"{type(backbone).__name__} has no cache")
        values, cache = backbone.extend(inputs[name], cache)
        return self.answer({name: Features(values=values)}), cache

    def train(self, mode: bool = True) -> Network:
        """Frozen backbones stay as they are in evaluation: no dropout, and batch norm keeps its statistics. So does
        every batch norm whose own weights are not trained, under adapters say."""
        super().train(mode)
        for name in self.frozen:
            self.backbones[name].eval()
        for module in self.backbones.modules():
            if _is_resting(module):
                module.eval()
        return self

    def _condition(self, tensors: Tensors, found: Mapping[str, Features]) -> Tensor:
        """What the target gives, and the features of the inputs that come before: (B, condition). Of an example whose
        "steered" (B,) is 0 these are zeros: a target hides them so (classifier-free guidance)."""
        steering = [each.values for each in found.values() if isinstance(each.values, Tensor)]
        if "steered" in tensors:
            steering = [values * tensors["steered"][:, None] for values in steering]
        given = [tensors["condition"]] if "condition" in tensors else []
        return torch.cat([*given, *steering], dim=1)

    def _featured(self, name: str, tensors: Tensors, values: Any) -> Features:
        if isinstance(values, Features):
            return values
        chosen = self.outputs[name].chosen
        return Features(
            values=values,
            inside_BT=inside(tensors, values.shape[1]) if chosen == "position" else None,
            length_B=tensors["length"] if chosen == "node" else None,
            size=tuple(tensors["grid"].shape[2:]) if chosen == "pixel" else (),
        )


def _is_resting(module: nn.Module) -> bool:
    """A batch norm whose weights are frozen."""
    if not isinstance(module, nn.modules.batchnorm._BatchNorm) or module.weight is None:
        return False
    return not module.weight.requires_grad


def _repeated(values: Tensor | tuple[Tensor, ...], times: int) -> Tensor:
    assert isinstance(values, Tensor)
    return values.repeat_interleave(times, dim=0)


def assemble(
    task: Task,
    configs: Mapping[str, BackboneConfig],
    kinds: Mapping[str, type[Backbone]],
    *,
    restoring: bool = False,
) -> Network:
    """The network of a task, with its first weights from the global generator.

    `configs` and `kinds` are the settings and the class of each input's backbone. `restoring` builds it for weights
    that will be loaded into it: files and hubs of first weights are not looked for.

    Raises:
        UserError: a backbone cannot take its input, or give what is asked; or its settings do not suit.
    """
    specs = task.specs
    outputs = _fit.resolve(task, {name: kind_of(config) for name, config in configs.items()}, kinds)
    if restoring:
        configs = {name: _weights.without(config) for name, config in configs.items()}
    backbones: dict[str, Backbone] = {}
    for name in sorted(specs, key=lambda each: outputs[each].condition > 0):
        output = outputs[name]
        if output.condition:
            steering = sum(each.width for each in backbones.values() if isinstance(each.width, int))
            output = OutputSpec(
                per=output.per, width=output.width, causal=output.causal, condition=output.condition + steering
            )
        outputs[name] = output
        by_channel = output.chosen == "channel" and "channel" not in kinds[name].gives
        make = _channels.ByChannel.of(kinds[name]) if by_channel else kinds[name]
        backbones[name] = make(configs[name], specs[name], output)
    backbones = {name: backbones[name] for name in specs}
    for name, backbone in backbones.items():
        _weights.start(backbone, configs[name], restoring=restoring)
        lora = configs[name].lora
        if lora is not None:
            _lora.apply(backbone, lora, restoring=restoring)
    head = task.target.head({name: each.width for name, each in backbones.items()})
    if head is None:
        head = StandardHead(specs, outputs, backbones)
    frozen = frozenset(name for name, config in configs.items() if config.freeze)
    return Network(specs, outputs, backbones, head, frozen)


def wrap(module: nn.Module, task: Task) -> Network:
    """Anyone's module as the network of a task with one input: it gets the input's main tensor, preprocessed.

    The tensor is a grid (B, C, H, W), tokens (B, T), frames (B, T, C), a vector (B, C), or the numbers of a table
    (B, C). The module returns the answers themselves, or features where the target brings its own head.
    """
    if len(task.inputs) != 1:
        raise UserError(
            f"a module of your own takes one input; this task has {len(task.inputs)}: " + ", ".join(task.inputs),
            hint="keep one input, or write a network kind (sonde.contracts.backbone.Backbone) for each",
        )
    ((name, spec),) = task.specs.items()
    output = task.outputs[name]
    answerable: list[Per] = [per for per in output.per if per in LAYOUTS[spec.layout].gives]
    per = answerable[0] if answerable else output.chosen
    outputs = {name: output.choose(per)}
    own = UserModule(module, spec, outputs[name])
    head = None if output.width else task.target.head({name: _measured_width(own, spec, per)})
    return Network(task.specs, outputs, {name: own}, AnswerItself() if head is None else head)


class AnswerItself(nn.Module):
    """The head of a module that answers by itself."""

    def forward(self, features: Mapping[str, Features], at_N: Tensor | None = None) -> Any:
        (only,) = features.values()
        if at_N is None:
            return only.values
        assert isinstance(only.values, Tensor)
        return only.values.flatten(0, 1).index_select(0, at_N)


class UserModule(nn.Module):
    """Someone's module, its answers checked for their shape."""

    def __init__(self, module: nn.Module, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__()
        self.module = module
        self.main = LAYOUTS[spec.layout].main
        self.output = output

    def forward(self, tensors: Tensors) -> Any:
        given = tensors[self.main]
        answer = self.module(given)
        if not self.output.width:
            return answer
        if self.output.chosen == "pixel":
            wanted = (len(given), self.output.width, *given.shape[2:])
        else:
            wanted = (len(given), *given.shape[1 : 1 + (self.output.chosen == "position")], self.output.width)
        if not isinstance(answer, Tensor) or tuple(answer.shape) != wanted:
            found = f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
            raise UserError(
                f"the module {type(self.module).__name__} answered with {found}",
                expected=f"a tensor of shape {wanted}, for {self.main} of shape {tuple(given.shape)}",
            )
        return answer


@torch.no_grad()
def _measured_width(own: UserModule, spec: InputSpec, per: Per) -> FeatureWidth:
    """The width of a module's features, found out on two random examples."""
    training = own.training
    given = LAYOUTS[spec.layout].random(spec, 2, torch.Generator().manual_seed(0))
    features = own.eval()(given)
    own.train(training)
    if per == "pixel":
        grids = features if isinstance(features, tuple) else (features,)
        return tuple(grid.shape[1] for grid in grids)
    return features.shape[-1]
