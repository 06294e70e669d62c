"""Which input a target means, where its truth belongs to one of them."""

from __future__ import annotations

from collections.abc import Mapping

from sonde.base.errors import UserError, unknown
from sonde.task import Form, Input


def the_input(inputs: Mapping[str, Input], form: Form, chosen: str | None, target: str) -> str:
    """The name of the one input that offers `form`, or the chosen one.

    Raises:
        UserError: there is none, or several and none is chosen.
    """
    fitting = [name for name, part in inputs.items() if part.shape.form == form]
    if chosen is not None:
        if chosen not in inputs:
            raise unknown(chosen, inputs, what="target.input: the input")
        if chosen not in fitting:
            raise UserError(
                f"target.input is {chosen!r}, which offers {inputs[chosen].shape.form}",
                expected=f"an input that offers {form}, as target {target!r} needs",
            )
        return chosen
    if not fitting:
        offered = ", ".join(f"{name} ({part.shape.form})" for name, part in inputs.items()) or "none"
        raise UserError(f"target {target!r} needs an input that offers {form}; the inputs are: {offered}")
    if len(fitting) > 1:
        raise UserError(
            f"target {target!r} can belong to several inputs: {', '.join(fitting)}", hint="choose one with target.input"
        )
    return fitting[0]
