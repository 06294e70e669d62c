"""Whether an input, a network and a target fit together: told before anything is built."""

from __future__ import annotations

from collections.abc import Mapping

from sonde.base import lookup
from sonde.base.errors import UserError
from sonde.task import Ask, Body, Form, Input, Per, Shape

# The inputs that have a position or a pixel to answer for.
FORMS: dict[Per, tuple[Form, ...]] = {
    "example": ("grid", "tokens", "frames", "vector", "columns"),
    "position": ("tokens", "frames"),
    "pixel": ("grid",),
}
WORDS: dict[Per, str] = {
    "example": "one answer per example",
    "position": "an answer per position",
    "pixel": "an answer per pixel",
}
# A target that asks so, for the hint.
TARGETS: dict[Per, str] = {"example": "category", "position": "next-token", "pixel": "mask"}


def check(inputs: Mapping[str, Input], ask: Ask, kinds: Mapping[str, str], bodies: Mapping[str, type[Body]]) -> None:
    """Raise a UserError that names the mend if a body cannot take its input or give what the target asks."""
    if len(inputs) > 1 and ask.per != "example":
        raise UserError(
            f"the target needs {WORDS[ask.per]}; that takes exactly one input, and there are {len(inputs)}: "
            + ", ".join(inputs),
            hint=f"keep one input, or use a target of {WORDS['example']}, such as '{TARGETS['example']}'",
        )
    for name, part in inputs.items():
        shape = part.shape
        if shape.form not in FORMS[ask.per]:
            raise UserError(
                f"the target needs {WORDS[ask.per]}; input {name!r} offers {shape.form}, which have none",
                expected=f"an input that offers {_either(FORMS[ask.per])}",
                hint=f"use a target of {WORDS['example']}, such as '{TARGETS['example']}'",
            )
        _check_body(name, kinds[name], bodies[name], shape, ask)
        if part.resizes and (ask.per == "pixel" or not bodies[name].any_size):
            why = "masks keep their size" if ask.per == "pixel" else f"network {kinds[name]!r} takes one size"
            raise UserError(
                f"augment.small of input {name!r} makes pictures smaller at first, and {why}",
                hint="set augment.small to 0" + ("" if ask.per == "pixel" else ", or use network 'cnn' or 'resnet'"),
            )


def _check_body(name: str, kind: str, body: type[Body], shape: Shape, ask: Ask) -> None:
    if shape.form not in body.accepts:
        raise UserError(
            f"network {kind!r} takes {_either(body.accepts)}; input {name!r} offers {shape.form}",
            hint=_instead(shape, ask),
        )
    if ask.per not in body.gives:
        others = " or ".join(repr(TARGETS[per]) for per in body.gives if shape.form in FORMS[per])
        raise UserError(
            f"network {kind!r} answers per {' or '.join(body.gives)}; the target needs {WORDS[ask.per]}",
            hint=", or ".join(
                each for each in (_instead(shape, ask), f"a target such as {others}" if others else "") if each
            ),
        )
    if ask.causal and not body.causal:
        raise UserError(
            f"network {kind!r} looks ahead; the target's answers may depend on earlier positions only",
            hint=_instead(shape, ask),
        )


def _instead(shape: Shape, ask: Ask) -> str | None:
    """The networks on disk that fit."""
    fitting = []
    for kind in lookup.kinds("networks"):
        body = lookup.find("networks", kind, Body)  # type: ignore[type-abstract]
        if shape.form in body.accepts and ask.per in body.gives and (body.causal or not ask.causal):
            fitting.append(repr(kind))
    return f"use network {_either(fitting)}" if fitting else None


def _either(words: tuple[str, ...] | list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
