"""Whether inputs, backbones and a target fit together: told before anything is built."""

from __future__ import annotations

from collections.abc import Mapping

from sonde.base import lookup
from sonde.base.errors import UserError
from sonde.contracts.backbone import Backbone
from sonde.contracts.layouts import LAYOUTS
from sonde.contracts.specs import InputSpec, OutputSpec, Per
from sonde.contracts.task import Task

WORDS: dict[Per, str] = {
    "example": "one answer per example",
    "position": "an answer per position",
    "pixel": "an answer per pixel",
    "node": "an answer per node",
    "channel": "an answer per channel",
}
# A target that asks for it, for the hint.
TARGETS: dict[Per, str] = {
    "example": "category",
    "position": "tags",
    "pixel": "mask",
    "node": "category",
    "channel": "future",
}


def resolve(task: Task, names: Mapping[str, str], kinds: Mapping[str, type[Backbone]]) -> dict[str, OutputSpec]:
    """What each backbone is built for: of what its target asks, the first that it and its input can give.

    Raises:
        UserError: there is none; names the fix.
    """
    outputs = task.outputs
    chosen: dict[str, OutputSpec] = {}
    for name, part in task.inputs.items():
        spec, output, kind = part.spec, outputs[name], kinds[name]
        answerable: tuple[Per, ...] = tuple(per for per in output.per if per in part.gives)
        if not answerable and set(output.per) & set(LAYOUTS[spec.layout].gives):
            raise UserError(
                f"the target needs {_words(output.per)}; input {name!r}, as it is set, has {_words(part.gives)} only",
                hint=f"change the settings of input {name!r}, such as its view, or choose another target",
            )
        if not answerable:
            raise UserError(
                f"the target needs {_words(output.per)}; input {name!r} offers {spec.layout}, which has none",
                expected=f"an input that offers {_either(_layouts(output.per))}",
                hint=f"use a target of {WORDS['example']}, such as '{TARGETS['example']}'",
            )
        _check_backbone(name, names[name], kind, spec, output, answerable)
        chosen[name] = output.choose(next(per for per in answerable if per in gives(kind)))
        if part.resizes and (chosen[name].chosen == "pixel" or not kind.any_size):
            pixel = chosen[name].chosen == "pixel"
            why = "masks keep their size" if pixel else f"network {names[name]!r} takes one size"
            raise UserError(
                f"augment.small_fraction of input {name!r} makes pictures smaller at first, and {why}",
                hint="set augment.small_fraction to 0" + ("" if pixel else ", or use network 'cnn' or 'resnet'"),
            )
    _check_fusion(task, chosen)
    return chosen


def _check_fusion(task: Task, chosen: Mapping[str, OutputSpec]) -> None:
    """The standard head adds examples' features to one input's positions, pixels or nodes, no more."""
    if all(output.width == 0 for output in chosen.values()):
        return
    several = [name for name, output in chosen.items() if output.chosen != "example"]
    if len(several) > 1:
        raise UserError(
            f"the target needs an answer for parts of several inputs: {', '.join(several)}",
            expected="one input whose positions, pixels or nodes are answered for",
            hint="choose one with target.input, or keep one input",
        )


def _check_backbone(
    name: str, kind: str, backbone: type[Backbone], spec: InputSpec, output: OutputSpec, answerable: tuple[Per, ...]
) -> None:
    if spec.layout not in backbone.accepts:
        raise UserError(
            f"network {kind!r} takes {_either(backbone.accepts)}; input {name!r} offers {spec.layout}",
            hint=_instead(spec, output),
        )
    if spec.subwords and not backbone.takes_subwords:
        raise UserError(
            f"network {kind!r} knows no subwords; input {name!r} has them",
            hint=f"leave the subwords of input {name!r} out, or {_instead(spec, output)}",
        )
    if spec.layout == "grid" and len(spec.size) not in backbone.dimensions:
        raise UserError(
            f"network {kind!r} takes grids of {_either([str(each) for each in backbone.dimensions])} dimensions; "
            f"input {name!r} offers {len(spec.size)}",
            hint=_instead(spec, output),
        )
    if not set(answerable) & set(gives(backbone)):
        others = " or ".join(repr(TARGETS[per]) for per in backbone.gives if per in LAYOUTS[spec.layout].gives)
        raise UserError(
            f"network {kind!r} answers per {' or '.join(backbone.gives)}; the target needs {_words(output.per)}",
            hint=", or ".join(
                each for each in (_instead(spec, output), f"a target such as {others}" if others else "") if each
            ),
        )
    if output.causal and not backbone.causal:
        raise UserError(
            f"network {kind!r} looks ahead; the target's answers may depend on earlier positions only",
            hint=_instead(spec, output),
        )
    if output.width == 0 and backbone.ensemble:
        raise UserError(
            f"network {kind!r} is several networks in one, and the target answers with a head of its own",
            hint=_instead(spec, output),
        )
    if output.condition and not backbone.conditions:
        raise UserError(f"network {kind!r} cannot be steered by a condition", hint=_instead(spec, output))


def gives(backbone: type[Backbone]) -> tuple[Per, ...]:
    """What a backbone answers for: one for whole examples can be given each channel as an example (see `_channels`)."""
    folded = "frames" in backbone.accepts and "example" in backbone.gives and "channel" not in backbone.gives
    return (*backbone.gives, "channel") if folded else backbone.gives


def fits(spec: InputSpec, output: OutputSpec, backbone: type[Backbone]) -> bool:
    """Whether a backbone can take an input and give what a target asks of it."""
    answerable = set(output.per) & set(LAYOUTS[spec.layout].gives) & set(gives(backbone))
    return (
        spec.layout in backbone.accepts
        and (spec.layout != "grid" or len(spec.size) in backbone.dimensions)
        and bool(answerable)
        and (backbone.takes_subwords or not spec.subwords)
        and (backbone.causal or not output.causal)
        and (backbone.conditions or not output.condition)
        and (output.width > 0 or not backbone.ensemble)
    )


def _instead(spec: InputSpec, output: OutputSpec) -> str | None:
    """The networks on disk that fit."""
    kinds = [kind for kind in lookup.kinds("networks") if fits(spec, output, lookup.find("networks", kind, Backbone))]
    return f"use network {_either([repr(kind) for kind in kinds])}" if kinds else None


def _layouts(per: tuple[Per, ...]) -> list[str]:
    return [name for name, layout in LAYOUTS.items() if set(per) & set(layout.gives)]


def _words(per: tuple[Per, ...]) -> str:
    return _either([WORDS[each] for each in per])


def _either(words: tuple[str, ...] | list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
