"""What forecasts are scored by: sums for each example, and metrics from them.

Shape suffixes: B or N example, C channel, H step ahead, Q quantile, P central interval, m step of a season, R row of
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from sonde.contracts.columns import EvalColumns, Tensors

if TYPE_CHECKING:
    from torch import Tensor


def seasonal_naive(truth: Tensors, horizon: int) -> Tensor:
    """Every step as the one a season before (B, C, H); a value that is missing is taken from the step before it."""
    season_BmC, length_B = _without_gaps(truth["season"]), truth["season_length"]
    place_H = torch.arange(horizon, device=season_BmC.device)
    place_BH = place_H[None, :] % length_B[:, None]
    return season_BmC.gather(1, place_BH[:, :, None].expand(-1, -1, season_BmC.shape[2])).transpose(1, 2)


def naive(truth: Tensors, horizon: int) -> Tensor:
    """Every step as the last one that is known (B, C, H)."""
    season_BmC, length_B = _without_gaps(truth["season"]), truth["season_length"]
    last_B1C = season_BmC.gather(1, (length_B - 1)[:, None, None].expand(-1, 1, season_BmC.shape[2]))
    return last_B1C.expand(-1, horizon, -1).transpose(1, 2)


def _without_gaps(season_BmC: Tensor) -> Tensor:
    place_m = torch.arange(season_BmC.shape[1], device=season_BmC.device)[None, :, None]
    last_BmC = torch.where(season_BmC.isnan(), -1, place_m).cummax(1).values
    filled = season_BmC.gather(1, last_BmC.clamp_min(0))
    return filled.nan_to_num()


def intervals(levels: Sequence[float]) -> list[tuple[int, int, float]]:
    """The central intervals that quantiles make: the places of their ends, and what share they should hold."""
    found = []
    for low, level in enumerate(levels):
        high = next((place for place, other in enumerate(levels) if abs(other - (1 - level)) < 1e-9), None)
        if level < 0.5 and high is not None:
            found.append((low, high, 1 - 2 * level))
    return found


def measure(
    answer_BCHQ: Tensor, truth: Tensors, *, levels: Sequence[float], centre: Tensor, scale: Tensor
) -> dict[str, Tensor]:
    """Sums over what is there of each example: see `metrics`. Answers and truths are on the scale of training."""
    true_BCH, middle = truth["future"].transpose(1, 2).double(), list(levels).index(0.5)
    there_BCH = ~true_BCH.isnan()
    true_BCH = true_BCH.nan_to_num()
    answer_BCHQ = answer_BCHQ.double()
    point_BCH = answer_BCHQ[..., middle]
    error_BCH = torch.where(there_BCH, true_BCH - point_BCH, 0.0)
    units_C11 = scale[:, None]
    true_units, point_units = (each * units_C11 + centre[:, None] for each in (true_BCH, point_BCH))
    size_BCH = true_units.abs() + point_units.abs()
    smape_BCH = 200 * (error_BCH * units_C11).abs() / torch.where(size_BCH > 0, size_BCH, 1.0)
    found = {
        "squared": error_BCH.square().sum(1),
        "absolute": error_BCH.abs().sum(1),
        "count": there_BCH.sum(1).double(),
        "channel_absolute": (error_BCH * units_C11).abs().sum(2),
        "channel_count": there_BCH.sum(2).double(),
        "smape": (smape_BCH * there_BCH).flatten(1).sum(1),
        "true": torch.where(there_BCH, true_units, 0.0).abs().flatten(1).sum(1),
    }
    error_BCHQ = true_BCH[..., None] - answer_BCHQ
    levels_Q = error_BCHQ.new_tensor(list(levels))
    loss_BCHQ = torch.maximum(levels_Q * error_BCHQ, (levels_Q - 1) * error_BCHQ) * there_BCH[..., None]
    found["pinball"] = loss_BCHQ.flatten(1, 2).sum(1)
    found["pinball_units"] = (loss_BCHQ * units_C11[..., None]).flatten(1, 2).sum(1)
    inside = [
        ((error_BCHQ[..., low] >= 0) & (error_BCHQ[..., high] <= 0) & there_BCH).flatten(1).sum(1)
        for low, high, _ in intervals(levels)
    ]
    if inside:
        found["inside"] = torch.stack(inside, dim=1).double()
    if "season" in truth:
        horizon = true_BCH.shape[2]
        for name, other in (("seasonal", seasonal_naive(truth, horizon)), ("naive", naive(truth, horizon))):
            gap_BCH = torch.where(there_BCH, true_BCH - other.double(), 0.0)
            found[f"{name}_absolute"] = gap_BCH.abs().flatten(1).sum(1)
        found |= _scaled(error_BCH * units_C11, there_BCH, truth["error_scales"].double())
    found["fan"] = torch.cat(
        [torch.where(there_BCH, true_units, torch.inf)[:, 0, :, None], _units(answer_BCHQ, scale, centre)], 2
    )
    found["fan"] = found["fan"].nan_to_num(posinf=0.0).float()
    return found


def _units(answer_BCHQ: Tensor, scale: Tensor, centre: Tensor) -> Tensor:
    """The answers for the first channel in the units of the data, (B, H, Q)."""
    return answer_BCHQ[:, 0] * scale[0] + centre[0]


def _scaled(error_BCH: Tensor, there_BCH: Tensor, scales_B2C: Tensor) -> dict[str, Tensor]:
    """Scaled errors of every channel that has a scale: their sums over channels, and how many there are."""
    steps_BC = there_BCH.sum(2)
    usable_BC = (scales_B2C > 0).all(1) & (steps_BC > 0)
    steps_BC = steps_BC.clamp_min(1)
    safe_B2C = torch.where(scales_B2C > 0, scales_B2C, 1.0)
    mase_BC = error_BCH.abs().sum(2) / steps_BC / safe_B2C[:, 0]
    rmsse_BC = (error_BCH.square().sum(2) / steps_BC / safe_B2C[:, 1]).sqrt()
    return {
        "mase": (mase_BC * usable_BC).sum(1),
        "rmsse": (rmsse_BC * usable_BC).sum(1),
        "scaled": usable_BC.sum(1).double(),
    }


def metrics(
    columns: EvalColumns, weights_RN: np.ndarray, levels: Sequence[float], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Each (R,). mse, mae: by the scales of training, over all values; smape in percent; mase, rmsse: the mean over
    series and channels of errors as multiples of the seasonal naive's in training; wql: quantile losses over the size
    of the truth; crps by the scales of training; coverage_P: the share of truths in the central interval of P percent;
    skill: 1 - mae / mae of the seasonal naive forecast; mae/NAME in units of the channel."""
    total_R = weights_RN @ columns["count"].sum(1)
    found = {
        name: _ratio(weights_RN @ columns[key].sum(1), total_R)
        for name, key in (("mse", "squared"), ("mae", "absolute"))
    }
    if "scaled" in columns:
        scaled_R = weights_RN @ columns["scaled"]
        found |= {name: _ratio(weights_RN @ columns[name], scaled_R) for name in ("mase", "rmsse")}
    found["smape"] = _ratio(weights_RN @ columns["smape"], total_R)
    size_R = weights_RN @ columns["true"]
    found["wql"] = 2 * _ratio(weights_RN @ columns["pinball_units"].mean(1), size_R)
    found["crps"] = 2 * _ratio(weights_RN @ columns["pinball"].mean(1), total_R)
    for place, (_, _, share) in enumerate(intervals(levels)):
        found[f"coverage_{100 * share:g}"] = _ratio(weights_RN @ columns["inside"][:, place], total_R)
    if "seasonal_absolute" in columns:
        absolute_R = weights_RN @ columns["absolute"].sum(1)
        for name, other in (("skill", "seasonal_absolute"), ("skill_over_naive", "naive_absolute")):
            # Rounded, as the sums of a naive forecast beside itself differ in their last digits.
            found[name] = np.round(1 - _ratio(absolute_R, weights_RN @ columns[other]), 6)
    if len(names) > 1:
        for place, name in enumerate(names):
            own_R = weights_RN @ columns["channel_count"][:, place]
            found[f"mae/{name}"] = _ratio(weights_RN @ columns["channel_absolute"][:, place], own_R)
    return found


def _ratio(above_R: np.ndarray, below_R: np.ndarray) -> np.ndarray:
    return np.divide(above_R, below_R, out=np.full(len(above_R), np.nan), where=below_R > 0)
