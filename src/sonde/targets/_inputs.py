"""Which input a target means, where its truth belongs to one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from sonde.base.errors import UserError, unknown
from sonde.contracts.input import Input
from sonde.contracts.specs import InputSpec, LayoutName, OutputSpec


@runtime_checkable
class Shows(Protocol):
    """An input whose grids are pictures that people can look at."""

    def picture(self, grid: np.ndarray) -> np.ndarray: ...


def asked_of_one(inputs: Mapping[str, InputSpec], name: str, output: OutputSpec) -> dict[str, OutputSpec]:
    """What is asked where the truth belongs to the input `name`: of the others one vector of features per example."""
    others = replace(output, per=("example",), causal=False, condition=0)
    return {each: output if each == name else others for each in inputs}


def the_input(inputs: Mapping[str, Input], layout: LayoutName, chosen: str | None, target: str) -> str:
    """The name of the one input that offers `form`, or the chosen one.

    Raises:
        UserError: there is none, or several and none is chosen.
    """
    fitting = [name for name, part in inputs.items() if part.spec.layout == layout]
    if chosen is not None:
        if chosen not in inputs:
            raise unknown(chosen, inputs, what="target.input: the input")
        if chosen not in fitting:
            raise UserError(
                f"target.input is {chosen!r}, which offers {inputs[chosen].spec.layout}",
                expected=f"an input that offers {layout}, as target {target!r} needs",
            )
        return chosen
    if not fitting:
        offered = ", ".join(f"{name} ({part.spec.layout})" for name, part in inputs.items()) or "none"
        raise UserError(f"target {target!r} needs an input that offers {layout}; the inputs are: {offered}")
    if len(fitting) > 1:
        raise UserError(
            f"target {target!r} can belong to several inputs: {', '.join(fitting)}", hint="choose one with target.input"
        )
    return fitting[0]
