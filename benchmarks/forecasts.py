"""Forecasts beside the classical ones: MASE on the test windows of a recipe with one series, for ETS (Hyndman et al.
2002, by statsmodels) and the seasonal naive forecast.

    python benchmarks/forecasts.py recipes/min_temperatures.toml [--every 5]

ETS is fitted anew to all that precedes each test window, which the network is not. `--every` takes each n-th window: a
fit takes a second. The network's own scores are in its run's scores.json.
"""

from __future__ import annotations

import argparse
import json
import warnings

import numpy as np

from sonde import stages
from sonde.recipe import Recipe


def ets(past: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """The forecast of the ETS model with the least AICc of additive error, with and without (damped) trend and season;
    multiplicative seasons, too, where all values are above zero."""
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    seasons = [None]
    if 1 < season <= 24 and len(past) > 2 * season + 5:
        seasons += ["add", *(["mul"] if past.min() > 0 else [])]
    best = None
    for each in seasons:
        for trend, damped in ((None, False), ("add", False), ("add", True)):
            error = "mul" if each == "mul" else "add"
            model = ETSModel(
                past,
                error=error,
                trend=trend,
                damped_trend=damped,
                seasonal=each,
                seasonal_periods=season if each else None,
            )
            try:
                fitted = model.fit(disp=False, maxiter=200)
            except (ValueError, np.linalg.LinAlgError):
                continue
            if best is None or fitted.aicc < best.aicc:
                best = fitted
    assert best is not None
    return np.asarray(best.forecast(horizon))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--last", type=int, default=600, help="steps of the past that ETS is fitted to, at most")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    recipe = Recipe.read(arguments.recipe, changes=["data.lookback=1000000"])
    season = recipe.target.season  # type: ignore[attr-defined]
    data = stages.load_data(recipe)
    train = data.splits["train"].fields["series"][-1][:, 0]
    later = data.splits["train"].fields["future"][-1][:, 0]
    whole = np.concatenate([train, later])
    scale = np.nanmean(np.abs(whole[season:] - whole[:-season]))
    found: dict[str, list[float]] = {"ETS": [], "seasonal naive": []}
    test = data.splits["test"]
    for place in range(0, len(test), arguments.every):
        past, truth = test.fields["series"][place][:, 0], test.fields["future"][place][:, 0]
        past = np.interp(np.arange(len(past)), np.flatnonzero(np.isfinite(past)), past[np.isfinite(past)])
        naive = np.resize(past[-season:], len(truth))
        answer = ets(past[-arguments.last :], len(truth), season)
        for name, forecast in (("ETS", answer), ("seasonal naive", naive)):
            found[name].append(float(np.nanmean(np.abs(truth - forecast)) / scale))
    print(json.dumps({"windows": len(found["ETS"]), **{name: round(np.mean(each), 4) for name, each in found.items()}}))


if __name__ == "__main__":
    main()
