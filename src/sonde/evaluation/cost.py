"""What a model costs: parameters, operations, time and memory for an answer, and the energy of its training."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sonde.contracts.batch import Batch, Examples
from sonde.contracts.task import Task
from sonde.data.batches import in_order

# Seconds that each way of timing takes at most, the largest batch, and the power that is assumed where nobody says it:
# a desktop computer under load, an accelerator with its host.
SECONDS, BATCH, WATTS, WATTS_OF_ACCELERATOR = 0.5, 64, 65.0, 500.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """`flops` are multiplications and additions of one forward pass for one example (matrix products, convolutions and
    attention, as `torch.utils.flop_counter` counts them; None for a model without any). Times are of the network with
    `preprocess`, in seconds: median at batch 1, and examples a second at `batch`. `memory` is what weights take, in
    bytes, and `peak` the most that an accelerator held. `energy` of the training is in watt-hours at `watts`."""

    parameters: int
    flops: int | None
    latency: float
    throughput: float
    batch: int
    memory: int
    peak: int | None
    device: str
    threads: int
    watts: float
    training_seconds: float | None = None
    energy: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_text(self) -> str:
        lines = [
            f"  {'parameters':<18} {self.parameters:,}; weights take {self.memory / 1e6:.3g} MB",
            f"  {'operations':<18} " + ("not counted" if self.flops is None else f"{self.flops:,} FLOP an answer"),
            f"  {'latency':<18} {1000 * self.latency:.3g} ms alone; {self.throughput:,.0f} answers a second, "
            f"{self.batch} at once ({self.device}, {self.threads} threads)",
        ]
        if self.peak is not None:
            lines.append(f"  {'memory':<18} {self.peak / 1e6:.4g} MB at most on the accelerator")
        if self.training_seconds is not None and self.energy is not None:
            lines.append(
                f"  {'training':<18} {self.training_seconds:,.0f} s; about {self.energy:.3g} Wh at {self.watts:g} W "
                "(assumed; --watts says otherwise)"
            )
        return "\n".join(lines)


def measure(
    task: Task,
    network: nn.Module,
    examples: Examples,
    device: torch.device,
    *,
    watts: float | None = None,
    training: Mapping[str, Any] | None = None,
) -> Cost:
    """Measured on some of the examples; `training` is what the run wrote down of its time ("seconds")."""
    network = network.eval()
    count = min(BATCH, len(examples))
    one, several = (in_order(task, examples, size, 0).to(device) for size in (1, count))
    on_accelerator = device.type == "cuda"
    if on_accelerator:
        torch.cuda.reset_peak_memory_stats(device)
    latency = _seconds(task, network, one, device)
    per_batch = _seconds(task, network, several, device)
    used = watts if watts is not None else (WATTS_OF_ACCELERATOR if on_accelerator else WATTS)
    seconds = None if training is None else float(training["seconds"])
    tensors = [*network.parameters(), *network.buffers()]
    learned = [*network.parameters()] or [*network.buffers()]
    return Cost(
        parameters=sum(each.numel() for each in learned),
        flops=_flops(task, network, one),
        latency=latency,
        throughput=count / per_batch,
        batch=count,
        memory=sum(each.numel() * each.element_size() for each in tensors),
        peak=torch.cuda.max_memory_allocated(device) if on_accelerator else None,
        device=device.type,
        threads=torch.get_num_threads(),
        watts=used,
        training_seconds=seconds,
        energy=None if seconds is None else seconds * used / 3600,
    )


def _seconds(task: Task, network: nn.Module, batch: Batch, device: torch.device) -> float:
    """The median time of an answer for a batch."""
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begun < SECONDS / 2:
        started = time.perf_counter()
        with torch.inference_mode():
            task.target.predict(network, task.preprocess(batch))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    # The first is slower: kernels are chosen.
    return statistics.median(times[1:])


def _flops(task: Task, network: nn.Module, batch: Batch) -> int | None:
    # Fused attention is not counted on every device, matrix products are.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _Counter() as counter:
        task.target.predict(network, task.preprocess(batch))
    return counter.total or None


class _Counter(TorchDispatchMode):
    """Counts by the formulas of `torch.utils.flop_counter`. Its own mode would load torch's compiler, for seconds."""

    total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=answer)
        return answer
