"""What stands between inputs and targets: backbones (one file a kind), the standard head, and their assembly."""

from __future__ import annotations

from collections.abc import Mapping

from sonde.base import lookup
from sonde.base.config import kind_of
from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.task import Task
from sonde.networks import _features as features
from sonde.networks import _lora as lora
from sonde.networks._assemble import Network, assemble, wrap
from sonde.networks._depth import layer_numbers
from sonde.networks._fit import fits

__all__ = ["Network", "assemble", "build", "features", "fits", "layer_numbers", "lora", "wrap"]


def build(configs: Mapping[str, BackboneConfig], task: Task, *, restoring: bool = False) -> Network:
    """The network of a task with its first weights; `configs` are the settings of each input's backbone.

    Raises:
        UserError: a backbone cannot take its input, or give what the target asks.
    """
    kinds = {name: lookup.find("networks", kind_of(config), Backbone) for name, config in configs.items()}
    return assemble(task, configs, kinds, restoring=restoring)
