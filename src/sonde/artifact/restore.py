"""From the files of an artifact to its task and network, trusting nothing that they say.

A hash tells that a file is as it was when the manifest was written, not that sonde wrote it. So every value has to be
of its type and to agree with the others, and no size in a file is believed before it was compared with what is really
there: a network is built without memory first, and its weights' names and shapes have to be those of the file.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from safetensors import safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sonde import classical, networks
from sonde.artifact.folder import FORMAT
from sonde.base import lookup
from sonde.base.config import Config
from sonde.base.errors import SondeError, UserError
from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.classical import Estimator
from sonde.contracts.decision import DecisionConfig
from sonde.contracts.input import Input
from sonde.contracts.part import Part
from sonde.contracts.target import Target
from sonde.contracts.task import Task
from sonde.contracts.weights import listing, misfits
from sonde.evaluation.trust import Trust

Contract = TypeVar("Contract")

# Calls of torch that building a network may take, and those for each tensor that its weights file has.
CALLS, CALLS_EACH = 2_000, 200


class SavedPart(Config):
    """An input or the target in task.json."""

    config: dict[str, Any]
    fitted: dict[str, Any]


class SavedTask(Config):
    """What task.json holds. `network`: the settings of each backbone, or of one classical model (which have a kind);
    None for someone's own module."""

    format: int
    parts: dict[str, SavedPart]
    network: dict[str, Any] | None

    @property
    def is_classical(self) -> bool:
        return _is_classical(self.network)


@contextlib.contextmanager
def reading(path: Path, what: str = "") -> Iterator[None]:
    """Whatever goes wrong with what a file says becomes an error that names the file.

    A kind, anyone's too, may fail on nonsense in any way; of that only the first line is told.
    """
    try:
        yield
    except SondeError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = f"{place}: {first['msg']}" if place else first["msg"]
        raise _damaged(path, f"{what}: {message}" if what else message) from error
    except Exception as error:
        told = "it asks for more memory than there is" if isinstance(error, MemoryError) else _first_line(error)
        raise _damaged(path, f"{what}: {told}" if what else told) from error


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"the artifact's {path} does not hold what sonde writes: {why}",
        expected="an artifact as sonde wrote it",
        hint="restore it from a copy, or train again",
    )


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).splitlines()), "")
    return line if type(error) is ValueError and line else f"{type(error).__name__}: {line}".rstrip(": ")


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. NaN and infinity are no JSON.

    Raises:
        UserError: it is something else.
    """
    with reading(path):
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        if not isinstance(value, dict):
            raise ValueError(f"it holds {type(value).__name__}, not an object")
        return value


def read_card(folder: Path) -> dict[str, Any]:
    """What the artifact says of itself; its recipe, where it has one, is a TOML text with tables."""
    path = folder / "card.json"
    card = read_object(path)
    with reading(path, "recipe"):
        if not isinstance(tomllib.loads(card.get("recipe", "")).get("data", {}), dict):
            raise ValueError("data is no table")
    return card


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _is_classical(network: Mapping[str, Any] | None) -> bool:
    return network is not None and isinstance(network.get("kind"), str)


def read_task(folder: Path) -> tuple[Task, Mapping[str, Any] | None, Trust | None]:
    """The task, the settings of its network (see `SavedTask`), and what its answers are doubted by, where there is any.

    Raises:
        UserError: the files say what no artifact of this format says.
    """
    path = folder / "task.json"
    described = read_object(path)
    if described.get("format") != FORMAT:
        raise UserError(
            f"the artifact {folder} has format {described.get('format')!r}",
            expected=f"format {FORMAT}",
            hint="use the version of sonde that wrote it (card.json names it)",
        )
    with reading(path):
        saved = SavedTask.model_validate(described)
        names = [name.removeprefix("inputs.") for name in saved.parts if name not in ("target", "trust")]
        if "target" not in saved.parts or not names or any(f"inputs.{name}" not in saved.parts for name in names):
            raise ValueError(f"its parts are {sorted(saved.parts)}, and have to be inputs.NAME, target and trust")
        if saved.network is not None and not saved.is_classical and saved.network.keys() != set(names):
            raise ValueError(f"network has {sorted(saved.network)}, and the inputs are {sorted(names)}")
    tensors = read_tensors(folder / "task.safetensors", read_header(folder / "task.safetensors"))
    beyond = [name for name in tensors if not any(name.startswith(f"{part}.") for part in saved.parts)]
    if beyond:
        raise _damaged(folder / "task.safetensors", f"it has tensors of no part: {listing(beyond)}")
    inputs = {name: _restore(path, f"inputs.{name}", "inputs", saved, tensors, Input) for name in names}
    target = _restore(path, "target", "targets", saved, tensors, Target)
    task = Task(inputs=inputs, target=target)
    for name, part in [*((f"inputs.{name}", each) for name, each in inputs.items()), ("target", target)]:
        with reading(path, name):
            part.check_fitted(inputs)
    with reading(path):
        if task.outputs.keys() != inputs.keys():
            raise ValueError("the target asks for other inputs")
    return task, saved.network, _restore_trust(path, saved, tensors, task)


def _restore_trust(path: Path, saved: SavedTask, tensors: Mapping[str, Tensor], task: Task) -> Trust | None:
    part = saved.parts.get("trust")
    if part is None:
        return None
    with reading(path, "trust"):
        held = {name.removeprefix("trust."): value for name, value in tensors.items() if name.startswith("trust.")}
        trust = Trust.restore(DecisionConfig.model_validate(part.config), part.fitted, held)
        trust.check_fitted(task.inputs)
        return trust


Kind = TypeVar("Kind", Input, Target)


def _restore(
    path: Path, name: str, room: str, saved: SavedTask, tensors: Mapping[str, Tensor], contract: type[Kind]
) -> Kind:
    part = saved.parts[name]
    with reading(path, name):
        kind = _kind(room, part.config, contract)
        held = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        restored: Part = kind.restore(kind.Config.model_validate(part.config), part.fitted, held)
        assert isinstance(restored, contract)
        return restored


def _kind(room: str, config: Mapping[str, Any], contract: type[Contract]) -> type[Contract]:
    """A kind that an artifact names. One that is not sonde's must be imported already: an artifact runs no code."""
    kind = config.get("kind")
    if not isinstance(kind, str):
        raise ValueError(f"its kind is {kind!r}")
    if "." in kind and kind not in sys.modules:
        raise UserError(
            f"the artifact needs the kind {kind!r}, which is not part of sonde",
            expected="a module that you have imported yourself",
            hint=f"import {kind} before loading, if you trust it",
        )
    return lookup.find(room, kind, contract)


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file without their values: on the meta device, none of them in memory."""
    with reading(path), safe_open(path, framework="pt") as file:
        found: dict[str, Tensor] = {}
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            part = file.get_slice(name)
            found[name] = torch.empty(part.get_shape(), dtype=_DTYPES[part.get_dtype()], device="meta")
        return found


# As safetensors spells them. Others cannot be in an artifact: sonde writes none.
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def read_tensors(path: Path, header: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that a header promised; they take as much memory as the file is long."""
    length = path.stat().st_size
    if sum(value.numel() * value.element_size() for value in header.values()) > length:
        raise _damaged(path, f"its header asks for more than its {length} bytes")
    with reading(path), safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in header}


def read_network(folder: Path, task: Task, backbones: Mapping[str, Any] | None, own: nn.Module | None) -> nn.Module:
    """The network with its weights; `own` is someone's module, for an artifact of one.

    Raises:
        UserError: the settings make another network than the weights are of, or weights are no numbers.
    """
    path = folder / "weights.safetensors"
    header = read_header(path)
    if backbones is not None and _is_classical(backbones):
        weights = read_tensors(path, header)
        with reading(path):
            kind = _kind("estimators", backbones, Estimator)
            return classical.restore(task, kind, backbones, weights)
    network = _own(folder, task, own, header) if backbones is None else _built(folder, task, backbones, header)
    wrong = misfits(network.state_dict(), header)
    if wrong:
        raise _misfit(folder, network, wrong)
    weights = read_tensors(path, header)
    with reading(path):
        network.load_state_dict(weights)
        broken = [name for name, value in network.named_parameters() if not bool(torch.isfinite(value).all())]
        if broken:
            raise ValueError(f"weights that are NaN or infinite: {listing(broken)}")
    return network


def _misfit(folder: Path, module: nn.Module, wrong: str) -> UserError:
    return UserError(
        f"the weights of the artifact {folder} do not fit {type(module).__name__}: {wrong}",
        expected="the network whose weights they are, with the settings that it was trained with",
    )


def _own(folder: Path, task: Task, own: nn.Module | None, header: Mapping[str, Tensor]) -> nn.Module:
    if own is None:
        raise UserError(
            f"the artifact {folder} holds the weights of a network that is not sonde's own",
            hint="sonde.load(path, network=the_module)",
        )
    # Before it is tried on an input, and by the names that its author knows.
    prefix = f"backbones.{next(iter(task.inputs))}.module."
    held = {name.removeprefix(prefix): value for name, value in header.items() if name.startswith(prefix)}
    wrong = misfits(own.state_dict(), held)
    if wrong:
        raise _misfit(folder, own, wrong)
    return networks.wrap(own, task)


def _built(folder: Path, task: Task, backbones: Mapping[str, Any], header: Mapping[str, Tensor]) -> nn.Module:
    """The network of these settings; built in memory only once its outline fits the weights."""
    with reading(folder / "task.json", "network"):
        configs: dict[str, BackboneConfig] = {
            name: _kind("networks", saved, Backbone).Config.model_validate(saved) for name, saved in backbones.items()
        }

        def build() -> nn.Module:
            return networks.build(configs, task, restoring=True)

        outline = _outline(build, len(header))
        wrong = misfits(outline.state_dict(), header) if outline is not None else ""
        if outline is not None and wrong:
            raise _misfit(folder, outline, wrong)
        # Its first weights are drawn for nothing; the caller's generator is not to know of it.
        with torch.random.fork_rng(devices=[]):
            return build()


def _outline(build: Callable[[], nn.Module], tensors: int) -> nn.Module | None:
    """A network without memory; None where a kind cannot be built so, because it looks at values as it is made."""
    try:
        with torch.device("meta"), _Calls(CALLS + CALLS_EACH * tensors):
            return build()
    except NotImplementedError:
        return None
    except RuntimeError as error:
        if "meta" in str(error):
            return None
        raise


# What fills a tensor in place, what makes one of random numbers, and what changes each number of one by itself. Without
# memory there is nothing to fill, draw or compute, and torch would load its compiler for it: three times as long as
# loading torch.
FILLED = frozenset({"normal_", "uniform_", "fill_", "zero_", "constant_", "ones_", "zeros_", "trunc_normal_"})
DRAWN = frozenset({"rand", "randn"})
SCALED = frozenset({"mul", "rmul", "add", "radd", "sub", "rsub", "div", "truediv", "rtruediv", "log", "exp"})


class _Calls(TorchFunctionMode):
    """Stops what asks for many more tensors than there are weights: a number of layers that no memory holds."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueError("its settings make a far larger network than the weights are of")
        named = kwargs or {}
        first = args[0] if args else named.get("tensor")
        if isinstance(first, Tensor) and first.is_meta:
            if func.__name__ in FILLED:
                return first
            plain = first.is_floating_point() and all(isinstance(each, (int, float)) for each in args[1:])
            if plain and func.__name__.strip("_") in SCALED:
                return torch.empty(first.shape, dtype=first.dtype, device="meta")
        if func.__name__ in DRAWN:
            return torch.empty(*args, dtype=named.get("dtype"), device="meta")
        if func.__name__ == "randint" and "size" not in named:
            return torch.empty(args[-1], dtype=named.get("dtype", torch.int64), device="meta")
        return func(*args, **named)
