"""The state of a run on disk: everything that the next step depends on, in one file that is whole or absent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sonde.base import dist, tensors
from sonde.base.errors import UserError
from sonde.loop import State

KEPT = 2
# The plain numbers of a state.
VALUES = ("step", "micro_batch", "best", "best_step", "waited", "level", "damping", "rolled_back")


def save(folder: Path, state: State, log_position: int) -> None:
    """Write the checkpoint of `state.step`. The newest `KEPT` stay, and the best weights that they refer to.

    Every process of a job has to call it; the main one writes.
    """
    held = _tensors(state)
    if not dist.is_main():
        return
    folder.mkdir(parents=True, exist_ok=True)
    tensors.write(_path(folder, state.step), held, {**_values(state), "log_position": log_position})
    for path in _all(folder)[:-KEPT]:
        path.unlink()
    needed = {state.best_step} | {tensors.read_values(path)["best_step"] for path in _all(folder)}
    for path in folder.glob("best-*.safetensors"):
        if path not in {_best_path(folder, step) for step in needed}:
            path.unlink()


def restore(folder: Path, state: State) -> int | None:
    """Bring `state` to the newest checkpoint that is whole; give its position in the log, None without a checkpoint."""
    for path in reversed(_all(folder)):
        try:
            held, values = tensors.read(path)
            if values["best_step"]:
                tensors.read(_best_path(folder, values["best_step"]))
        except UserError:
            continue
        _put(state, held, values)
        return values["log_position"]
    return None


def save_best(folder: Path, state: State) -> None:
    """Keep the weights of this step as the best; call before `save`, so that a checkpoint never lacks its best."""
    held = weights(state)
    if dist.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        tensors.write(_best_path(folder, state.step), held, {"step": state.step})


def read_best(folder: Path, state: State) -> dict[str, Tensor]:
    """The best weights so far."""
    return tensors.read(_best_path(folder, state.best_step))[0]


def weights(state: State) -> dict[str, Tensor]:
    """The weights that predictions are made with: the moving average where there is one."""
    held = dict(state.network.state_dict())
    if state.average is not None:
        held |= {name: value for name, value in state.average.weights.items() if name in held}
    return {name: dist.whole(value) for name, value in held.items()}


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """The whole weights of a network, which may be spread over the processes of a job."""
    return {name: dist.whole(value) for name, value in network.state_dict().items()}


def put_weights(network: nn.Module, held: Mapping[str, Tensor]) -> None:
    """Put whole weights into a network, which may be spread over the processes of a job."""
    names = network.state_dict()
    network.load_state_dict({name: dist.spread_like(value, names[name]) for name, value in held.items()})


def _best_path(folder: Path, step: int) -> Path:
    return folder / f"best-{step:09d}.safetensors"


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}.safetensors"


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"))


def _names(network: nn.Module) -> dict[Tensor, str]:
    return {parameter: name for name, parameter in network.named_parameters()}


def _tensors(state: State) -> dict[str, Tensor]:
    held = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    names = _names(state.network)
    for optimizer in state.optimizers:
        for parameter, slots in optimizer.state.items():
            for slot, value in slots.items():
                held[f"optimizer.{slot}.{names[parameter]}"] = torch.as_tensor(value)
    if state.average is not None:
        held |= {f"average.{name}": value for name, value in state.average.weights.items()}
    return {name: dist.whole(value) for name, value in held.items()}


def _values(state: State) -> dict[str, Any]:
    return {
        **{name: getattr(state, name) for name in VALUES},
        "plateau": None
        if state.plateau is None
        else {"factor": state.plateau.factor, "best": state.plateau.best, "waited": state.plateau.waited},
    }


def _put(state: State, held: dict[str, Tensor], values: dict[str, Any]) -> None:
    put_weights(state.network, _under(held, "network."))
    by_name = dict(state.network.named_parameters())
    owner = {
        one: optimizer for optimizer in state.optimizers for group in optimizer.param_groups for one in group["params"]
    }
    for name, value in _under(held, "optimizer.").items():
        slot, _, parameter_name = name.partition(".")
        parameter = by_name[parameter_name]
        # Step counters stay where the optimizer keeps them; everything else lives beside its parameter.
        place = value if slot == "step" and parameter.device.type == "cpu" else value.to(parameter.device)
        if value.shape == parameter.shape:
            # As the parameter lies in memory, and spread over the processes as it is.
            place = torch.empty_like(parameter).copy_(dist.spread_like(value, parameter))
        owner[parameter].state[parameter][slot] = place
    if state.average is not None:
        for name, value in _under(held, "average.").items():
            mine = state.average.weights[name]
            mine.copy_(dist.spread_like(value, mine))
    for name in VALUES:
        setattr(state, name, values[name])
    if state.plateau is not None:
        for name, value in values["plateau"].items():
            setattr(state.plateau, name, value)


def _under(held: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
