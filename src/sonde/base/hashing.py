"""SplitMix64 (Steele et al. 2014): numbers that look random, as a pure function of 64 bits."""

from __future__ import annotations

import numpy as np

# The step between the generator's states: 2^64 by the golden ratio.
GOLDEN = 0x9E3779B97F4A7C15


def splitmix64(states: np.ndarray) -> np.ndarray:
    """The finalizer, on uint64: a bijection in which every bit of the result depends on every bit given."""
    values = (states ^ (states >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
