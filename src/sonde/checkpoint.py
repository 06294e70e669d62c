"""The state of a run on disk: everything that the next step depends on, in one file that is whole or absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sonde.base import files, tensors
from sonde.base.errors import UserError
from sonde.loop import State

KEPT = 2


def save(folder: Path, state: State, log_position: int) -> None:
    """Write the checkpoint of `state.step`. The newest `KEPT` stay, and the best weights that they refer to."""
    files.make_folder(folder)
    tensors.write(_path(folder, state.step), _tensors(state), {**_values(state), "log_position": log_position})
    best: dict[Path, int] = {}
    for path in _all(folder):
        try:
            best[path] = tensors.read_values(path)["best_step"]
        except UserError:
            # One that was damaged meanwhile must neither count among those kept nor stop the run.
            _set_aside(path)
    for path in list(best)[:-KEPT]:
        files.remove(path)
        del best[path]
    needed = {path for step in {state.best_step, *best.values()} for path in _best_paths(folder, step)}
    for path in set(folder.glob("best-*.safetensors")) - needed:
        files.remove(path)


def restore(folder: Path, state: State, say: Callable[[str], None] = lambda line: None) -> int | None:
    """Bring `state` to the newest checkpoint that is whole; give its position in the log, None without a checkpoint.

    Damaged ones are set aside under another name, and `say` gets a line about each.
    """
    for path in reversed(_all(folder)):
        try:
            held, values = tensors.read(path)
            if values["best_step"]:
                _read_best(folder, values["best_step"])
        except UserError as error:
            say(f"set aside a checkpoint: {error.what}")
            _set_aside(path)
            continue
        _put(state, held, values)
        return values["log_position"]
    return None


def save_best(folder: Path, state: State) -> None:
    """Keep the weights of this step as the best; call before `save`, so that a checkpoint never lacks its best.

    They are written twice: every checkpoint that is kept may depend on them.
    """
    files.make_folder(folder)
    for path in _best_paths(folder, state.step):
        tensors.write(path, weights(state), {"step": state.step})


def read_best(folder: Path, state: State) -> dict[str, Tensor]:
    """The best weights so far."""
    return _read_best(folder, state.best_step)


def _read_best(folder: Path, step: int) -> dict[str, Tensor]:
    first, second = _best_paths(folder, step)
    try:
        return tensors.read(first)[0]
    except UserError:
        return tensors.read(second)[0]


def weights(state: State) -> dict[str, Tensor]:
    """The weights that predictions are made with: the moving average where there is one."""
    held = dict(state.network.state_dict())
    if state.average is not None:
        held |= {name: value for name, value in state.average.weights.items() if name in held}
    return held


def _set_aside(path: Path) -> None:
    """Out of the way, but still there: what looks damaged may only have been unreadable for a moment."""
    try:
        path.replace(path.with_name(f"damaged-{path.name}"))
    except OSError as error:
        raise files.cannot_write(path, error) from error


def _best_paths(folder: Path, step: int) -> tuple[Path, Path]:
    return folder / f"best-{step:09d}.safetensors", folder / f"best-{step:09d}-copy.safetensors"


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
    return held


def _values(state: State) -> dict[str, Any]:
    return {
        "step": state.step,
        "micro_batch": state.micro_batch,
        "best": state.best,
        "best_step": state.best_step,
        "waited": state.waited,
        "plateau": None
        if state.plateau is None
        else {"factor": state.plateau.factor, "best": state.plateau.best, "waited": state.plateau.waited},
    }


def _put(state: State, held: dict[str, Tensor], values: dict[str, Any]) -> None:
    state.network.load_state_dict(_under(held, "network."))
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
            place = torch.empty_like(parameter).copy_(value)
        owner[parameter].state[parameter][slot] = place
    if state.average is not None:
        for name, value in _under(held, "average.").items():
            state.average.weights[name].copy_(value)
    for name in ("step", "micro_batch", "best", "best_step", "waited"):
        setattr(state, name, values[name])
    if state.plateau is not None:
        for name, value in values["plateau"].items():
            setattr(state.plateau, name, value)


def _under(held: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
