"""Log-mel features: how strong a sound is in bands that are as wide as the ear takes them, over time.

Shape suffixes: N sample, T frame, P frequency point of the transform, F band.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

# Seconds that a frame looks at, and from one frame to the next: usual for speech since Davis and Mermelstein 1980.
WINDOW, HOP = 0.025, 0.010
# Power below which everything is silence: about the rounding noise of 16-bit recordings.
FLOOR = 1e-10


def hop(rate: int) -> int:
    """Samples from one frame to the next."""
    return max(1, round(HOP * rate))


def window(rate: int) -> int:
    """Samples that a frame looks at."""
    return max(2, round(WINDOW * rate))


def n_fft(rate: int) -> int:
    """Length of the Fourier transform: the next power of two."""
    return 1 << (window(rate) - 1).bit_length()


def log_mel(samples_N: Tensor, rate: int, filters_PF: Tensor) -> Tensor:
    """Natural logarithm of the power in each band, float32 (1 + N // hop, F).

    Frame t is centred on sample t * hop (Hann window); beyond its ends the sound is silent.
    """
    spectrum_PT = torch.stft(
        samples_N,
        n_fft(rate),
        hop_length=hop(rate),
        win_length=window(rate),
        window=torch.hann_window(window(rate)),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    power_PT = spectrum_PT.real.square() + spectrum_PT.imag.square()
    return (power_PT.T @ filters_PF).clamp_min(FLOOR).log()


def filters(rate: int, n_mels: int) -> Tensor:
    """Triangular filters from 0 to rate / 2, each of area 2, float32 (P, F).

    The mel scale is that of Slaney's Auditory Toolbox (1998), as in librosa: linear below 1000 Hz, logarithmic above.
    """
    edges = _hertz(torch.linspace(0.0, _mel(rate / 2), n_mels + 2, dtype=torch.float64))
    low_F, centre_F, high_F = edges[:-2], edges[1:-1], edges[2:]
    place_P1 = torch.linspace(0.0, rate / 2, n_fft(rate) // 2 + 1, dtype=torch.float64)[:, None]
    rising_PF = (place_P1 - low_F) / (centre_F - low_F)
    falling_PF = (high_F - place_P1) / (high_F - centre_F)
    return (torch.minimum(rising_PF, falling_PF).clamp_min(0) * 2 / (high_F - low_F)).float()


# Hertz per mel below 1000 Hz; above, 27 mels are a factor of 6.4.
_LINEAR = 200 / 3
_STEP = math.log(6.4) / 27


def _mel(hertz: float) -> float:
    return hertz / _LINEAR if hertz < 1000 else 1000 / _LINEAR + math.log(hertz / 1000) / _STEP


def _hertz(mel: Tensor) -> Tensor:
    knee = 1000 / _LINEAR
    return torch.where(mel < knee, mel * _LINEAR, 1000 * ((mel - knee) * _STEP).exp())
