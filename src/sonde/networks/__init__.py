"""What stands between inputs and targets: bodies (one file a kind), the head, and their assembly."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from sonde.base import lookup
from sonde.base.config import Config, kind_of
from sonde.networks._assemble import Network, assemble
from sonde.networks._assemble import wrap as _wrap
from sonde.task import Body, Task

__all__ = ["Network", "assemble", "build", "wrap"]


def build(configs: Mapping[str, Config], task: Task, *, restoring: bool = False) -> Network:
    """The network of a task with its first weights; `configs` are the settings of each input's body.

    Raises:
        UserError: a body cannot take its input, or give what the target asks.
    """
    kinds = {name: lookup.find("networks", kind_of(config), Body) for name, config in configs.items()}
    return assemble(task.inputs, task.target.ask, configs, kinds, restoring=restoring)


def wrap(module: nn.Module, task: Task) -> Network:
    """Anyone's module as the network of a task with one input: it takes the input's tensor and gives the answer."""
    return _wrap(module, task.inputs, task.target.ask)
