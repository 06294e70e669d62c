"""Several processes as one job, under torchrun: who am I, and what do the others have. One process needs none of it.

The process group is torch's own (nccl on CUDA, gloo elsewhere). Every function works in a single process too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as pg
from torch import Tensor, nn

from sonde.base.errors import SondeError

Value = TypeVar("Value")


class Lost(SondeError):
    """Another process of this job ended, so that this one cannot go on."""


def world_size() -> int:
    """How many processes this job has."""
    return pg.get_world_size() if pg.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return pg.get_rank() if pg.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def launched() -> tuple[int, int]:
    """Rank and number of the processes that torchrun started; asks the environment only, and needs no torch."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def restarted() -> bool:
    """Whether torchrun started this job again after a process of it had ended (--max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """While the block runs this process belongs to the job that torchrun started; alone nothing happens.

    Raises:
        Lost: another process ended meanwhile.
    """
    if launched()[1] == 1 or pg.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    rank, size = launched()
    store, _, _ = next(iter(rendezvous("env://", rank, size)))
    # torchrun keeps its store over restarts: without a name of its own a start would read addresses of the one before.
    store = PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    pg.init_process_group("nccl" if torch.cuda.is_available() else "gloo", store=store, rank=rank, world_size=size)
    try:
        yield
    except RuntimeError as error:
        # What the process group raises has no type of its own in gloo; its messages name the connection.
        if isinstance(error, pg.DistError) or any(word in str(error).lower() for word in ("gloo", "nccl", "peer")):
            raise _lost() from error
        raise
    finally:
        pg.destroy_process_group()


def _lost() -> Lost:
    return Lost(
        f"another process of this job of {world_size()} ended; process {rank()} cannot go on without it",
        hint="look above for what that process said; the same command with --resume goes on from the last checkpoint",
    )


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum over all processes; the tensor itself where there is one."""
    if world_size() == 1:
        return values
    values = values.detach().clone()
    pg.all_reduce(values)
    return values


def any_rank(flag: bool) -> bool:
    """Whether the flag is up in any process. All processes must call it."""
    if world_size() == 1:
        return flag
    device = "cuda" if pg.get_backend() == "nccl" else "cpu"
    return bool(all_reduce_sum(torch.tensor(float(flag), device=device)).item())


def all_gather(value: Value) -> list[Value]:
    """The value of every process, by rank, in every process."""
    if world_size() == 1:
        return [value]
    held: list[Any] = [None] * world_size()
    pg.all_gather_object(held, value)
    return held


def concatenate(values: Tensor) -> Tensor:
    """The tensors of all processes, of one shape each, after one another by rank; in every process."""
    if world_size() == 1:
        return values
    held = [torch.empty_like(values) for _ in range(world_size())]
    pg.all_gather(held, values.contiguous())
    return torch.cat(held)


def barrier() -> None:
    """Until all processes have come here."""
    if world_size() > 1:
        pg.barrier()


def full_tensor(value: Tensor) -> Tensor:
    """A tensor in one piece, which may be spread over the processes (FSDP); all of them must call it."""
    if world_size() == 1:
        return value
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value


def spread_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, spread over the processes as `like` is."""
    if world_size() == 1:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def gradient_sync(module: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[object]:
    """While it holds, gradients are summed over the processes in the `last` micro-batch of a step only."""
    if isinstance(module, nn.parallel.DistributedDataParallel):
        return contextlib.nullcontext() if last else module.no_sync()
    if world_size() > 1:
        from torch.distributed.fsdp import FSDPModule

        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(last)
    return contextlib.nullcontext()


def reshard(network: nn.Module) -> None:
    """Back to each process's share of the weights, which FSDP leaves gathered after a forward pass alone."""
    if world_size() > 1:
        from torch.distributed.fsdp import FSDPModule

        for module in network.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
