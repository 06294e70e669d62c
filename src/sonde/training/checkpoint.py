"""The state of a run on disk: everything that the next step depends on, in one file that is whole or absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sonde.base import dist, files, tensors
from sonde.base.errors import UserError
from sonde.loop import State
from sonde.networks import Network
from sonde.training.schedules import Schedule

KEPT = 2
# The plain numbers of a state.
VALUES = (
    "step",
    "micro_batch",
    "best",
    "best_step",
    "evals_since_best",
    "best_peak",
    "best_tie",
    "loss_ema",
    "lr_scale",
    "rolled_back",
)
# And what the schedule remembers.
SCHEDULE = ("factor", "best", "evals_since_best")


def save(folder: Path, state: State, log_position: int) -> None:
    """Write the checkpoint of `state.step`. The newest `KEPT` stay, and the best weights that they refer to.

    Every process of a job has to call it; the main one writes.
    """
    held = tensors_of(state)
    if not dist.is_main():
        return
    files.make_folder(folder)
    tensors.write(_path(folder, state.step), held, {**_values(state), "log_position": log_position})
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

    Damaged ones are renamed another name, and `say` gets a line about each.
    """
    for path in reversed(_all(folder)):
        try:
            held, values = tensors.read(path)
            if values["best_step"]:
                _read_best(folder, values["best_step"])
        except UserError as error:
            say(f"skipped a damaged checkpoint: {error.what}")
            _set_aside(path)
            continue
        _put(state, held, values)
        return values["log_position"]
    return None


def save_best(folder: Path, state: State) -> None:
    """Keep the weights of this step as the best; call before `save`, so that a checkpoint never lacks its best.

    They are written twice: every checkpoint that is kept may depend on them.
    """
    held = weights(state)
    if not dist.is_main():
        return
    files.make_folder(folder)
    for path in _best_paths(folder, state.step):
        tensors.write(path, held, {"step": state.step})


def read_best(folder: Path, state: State) -> dict[str, Tensor]:
    """The best weights so far."""
    return _read_best(folder, state.best_step)


def _read_best(folder: Path, step: int) -> dict[str, Tensor]:
    first, second = _best_paths(folder, step)
    try:
        return tensors.read(first)[0]
    except UserError:
        return tensors.read(second)[0]


def _trained(network: nn.Module) -> dict[str, Tensor]:
    """What training changes of a network; the rest is built again, from the same seed and first weights."""
    fixed = network.fixed_names() if isinstance(network, Network) else set[str]()
    return {name: value for name, value in network.state_dict().items() if name not in fixed}


def weights(state: State) -> dict[str, Tensor]:
    """The trained weights that predictions are made with: the moving average where there is one."""
    held = _trained(state.network)
    if state.ema is not None:
        held |= {name: value for name, value in state.ema.weights.items() if name in held}
    return {name: dist.full_tensor(value) for name, value in held.items()}


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """The whole weights of a network, which may be spread over the processes of a job."""
    return {name: dist.full_tensor(value) for name, value in network.state_dict().items()}


def put_weights(network: nn.Module, held: Mapping[str, Tensor]) -> None:
    """Put whole weights into a network, which may be spread over the processes of a job; what is not among them stays.

    Raises:
        RuntimeError: a weight that is trained is missing, or one is of another network.
    """
    names = network.state_dict()
    missing = _trained(network).keys() - held.keys()
    if missing or held.keys() - names.keys():
        raise RuntimeError(
            f"these are not the weights of this network: {sorted(missing or held.keys() - names.keys())}"
        )
    given = {name: dist.spread_like(value, names[name]) for name, value in held.items()}
    network.load_state_dict(given, strict=False)


def _set_aside(path: Path) -> None:
    """Out of the way, but still there: what looks damaged may only have been unreadable for a moment."""
    if not dist.is_main():
        return
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


def tensors_of(state: State) -> dict[str, Tensor]:
    """Every tensor that the next step depends on."""
    held = {f"network.{name}": value for name, value in _trained(state.network).items()}
    names = _names(state.network)
    for optimizer in state.optimizers:
        for parameter, slots in optimizer.state.items():
            for slot, value in slots.items():
                held[f"optimizer.{slot}.{names[parameter]}"] = torch.as_tensor(value)
    if state.ema is not None:
        held |= {f"ema.{name}": value for name, value in state.ema.weights.items()}
    return {name: dist.full_tensor(value) for name, value in held.items()}


def _values(state: State) -> dict[str, Any]:
    return {
        **{name: getattr(state, name) for name in VALUES},
        "schedule": {name: getattr(state.schedule, name) for name in SCHEDULE if isinstance(state.schedule, Schedule)},
    }


def _put(state: State, held: dict[str, Tensor], values: dict[str, Any]) -> None:
    put_weights(state.network, _under(held, "network."))
    by_name = dict(state.network.named_parameters())
    owner = {
        one: optimizer for optimizer in state.optimizers for group in optimizer.param_groups for one in group["params"]
    }
    for optimizer in state.optimizers:
        # Rolling back: what was seen since is forgotten, also where the checkpoint is of a time before any step.
        optimizer.state.clear()
    for name, value in _under(held, "optimizer.").items():
        slot, _, parameter_name = name.partition(".")
        parameter = by_name[parameter_name]
        # Step counters stay where the optimizer keeps them; everything else lives beside its parameter.
        place = value if slot == "step" and parameter.device.type == "cpu" else value.to(parameter.device)
        if value.shape == parameter.shape:
            # As the parameter lies in memory, and spread over the processes as it is.
            place = torch.empty_like(parameter).copy_(dist.spread_like(value, parameter))
        owner[parameter].state[parameter][slot] = place
    if state.ema is not None:
        for name, value in _under(held, "ema.").items():
            mine = state.ema.weights[name]
            mine.copy_(dist.spread_like(value, mine))
    for name in VALUES:
        setattr(state, name, values[name])
    for name, value in values["schedule"].items():
        setattr(state.schedule, name, value)


def _under(held: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
