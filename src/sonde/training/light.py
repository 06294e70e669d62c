"""torch's optimizers without the import of torch's compiler.

Their `step` and `add_param_group` import torch._dynamo, only to keep it away from them: longer than importing torch
itself, at the start of every run. The classes here are torch's own with those two wrappers taken off; torch itself is
left as it is.
"""

from __future__ import annotations

from typing import Any

import torch


def unwrapped(method: Any) -> Any:
    """What a decorator was wrapped around, where it says so."""
    return getattr(method, "__wrapped__", method)


class SGD(torch.optim.SGD):
    add_param_group = unwrapped(torch.optim.Optimizer.add_param_group)
    step = torch.no_grad()(unwrapped(torch.optim.SGD.step))


class Adam(torch.optim.Adam):
    add_param_group = unwrapped(torch.optim.Optimizer.add_param_group)
    step = torch.no_grad()(unwrapped(torch.optim.Adam.step))


class AdamW(torch.optim.AdamW):
    add_param_group = unwrapped(torch.optim.Optimizer.add_param_group)
    step = torch.no_grad()(unwrapped(torch.optim.AdamW.step))
