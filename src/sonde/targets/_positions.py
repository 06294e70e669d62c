"""Which positions of a padded batch count, for answers that padding shall not cost anything. B example, T position."""

from __future__ import annotations

import torch
from torch import Tensor


def real_positions(beyond_BT: Tensor) -> Tensor | None:
    """The positions (among B * T) that are not beyond an example's end, int64 (N,); None where that is all of them.

    None too where looking would wait for a device, or a traced graph cannot look.
    """
    if beyond_BT.device.type != "cpu" or torch.compiler.is_compiling() or not bool(beyond_BT.any()):
        return None
    return beyond_BT.flatten().logical_not().nonzero()[:, 0]
