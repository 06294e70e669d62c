"""A network that several processes train together: torch's DDP or FSDP2, and batch norm over the whole batch.

Gradients come out as those of one process with the whole batch: the loop divides by the count over all processes, and
batch norm's statistics are those of all processes too.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sonde.base import dist
from sonde.base.errors import UserError

Kind = Literal["ddp", "fsdp"]


def parallelize(network: nn.Module, kind: Kind) -> nn.Module:
    """The module to call in training, for a network whose batch norms are changed in place; alone the network itself.

    `ddp` keeps the whole network in every process; `fsdp` keeps a share of every weight in each.
    """
    if dist.world_size() == 1:
        return network
    _synchronize(network)
    if kind == "fsdp":
        from torch.distributed.fsdp import fully_shard

        for parameter in network.parameters():
            # Convolutions keep theirs channels-last, which cannot be dealt out.
            parameter.data = parameter.data.contiguous()
        for block in _blocks(network):
            fully_shard(block)
        fully_shard(network)
        return network
    return nn.parallel.DistributedDataParallel(network)


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks that a network is a list of: they are gathered and freed one after the other."""
    if isinstance(module, nn.ModuleList):
        return [block for block in module if any(True for _ in block.parameters())]
    return [block for child in module.children() for block in _blocks(child)]


def per_rank_batch_size(size: int) -> int:
    """How many examples of a batch each process gets.

    Raises:
        UserError: a batch cannot be dealt out evenly.
    """
    if size % dist.world_size():
        raise UserError(
            f"a batch of {size} examples cannot be dealt out to {dist.world_size()} processes",
            expected="training.batch_size (and the training split) to be a multiple of the number of processes",
            hint=f"training.batch_size = {max(1, size // dist.world_size()) * dist.world_size()}",
        )
    return size // dist.world_size()


def _synchronize(network: nn.Module) -> None:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, SyncBatchNorm):
                setattr(module, name, SyncBatchNorm.of(child))


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        return dist.all_reduce_sum(values)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return dist.all_reduce_sum(*gradients)


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm with the statistics of all processes. torch's own SyncBatchNorm needs an accelerator."""

    @classmethod
    def of(cls, norm: nn.modules.batchnorm._BatchNorm) -> nn.Module:
        """The same parameters and buffers in a norm over all processes."""
        if norm.running_mean is not None and norm.running_mean.is_cuda:
            return nn.SyncBatchNorm.convert_sync_batchnorm(norm)
        new = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        new._parameters, new._buffers = norm._parameters, norm._buffers
        return new.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.float()
        channels = x.shape[1]
        over = [axis for axis in range(x.ndim) if axis != 1]
        rows = x.new_tensor([x.numel() / channels])
        # Two sums, not one of x and x^2: that would lose digits where the mean is large.
        held = _Sum.apply(torch.cat([x.sum(over), rows]))
        mean, count = held[:-1] / held[-1], held[-1]
        shape = [1, channels] + [1] * (x.ndim - 2)
        centered = x - mean.view(shape)
        variance = _Sum.apply(centered.square().sum(over)) / count
        if self.track_running_stats:
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.detach(), momentum)
                self.running_var.lerp_(variance.detach() * (count / (count - 1)), momentum)
        y = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)
