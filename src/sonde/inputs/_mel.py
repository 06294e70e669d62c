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


def change_speed(frames_BTF: Tensor, length_B: Tensor, factor_B: Tensor, rate: int) -> tuple[Tensor, Tensor]:
    """Log-mel frames as if the sound had been played so many times as fast (Ko et al. 2015, on features): shorter and
    higher, or longer and lower; and the new lengths. A recording never outgrows its frames.
    """
    steps, bands = frames_BTF.shape[1:]
    factor_B = torch.maximum(factor_B, length_B / steps)
    changed_B = (length_B / factor_B).ceil().clamp(min=1, max=steps).long()
    place_BT = torch.arange(steps, device=factor_B.device) * factor_B[:, None]
    frames_BTF = _between(frames_BTF, place_BT.minimum((length_B[:, None] - 1).clamp(min=0).float()))
    # What is heard in a band now, was before in the band of a lower (or higher) pitch.
    edges_E = torch.linspace(0.0, _mel(rate / 2), bands + 2, dtype=torch.float64)
    centre_F = torch.tensor([_hertz_of(float(each)) for each in edges_E[1:-1]], device=factor_B.device)
    mel_BF = _mels(centre_F / factor_B[:, None])
    band_BF = (mel_BF / float(edges_E[1]) - 1).clamp(0, bands - 1)
    return _between(frames_BTF.transpose(1, 2), band_BF).transpose(1, 2), changed_B


def _between(values_BNC: Tensor, place_BN: Tensor) -> Tensor:
    """The values along the second axis at places between two of them, linear."""
    place_BN = place_BN.clamp(0, values_BNC.shape[1] - 1)
    low_BN = place_BN.floor().long()
    share_BN1 = (place_BN - low_BN)[:, :, None]
    high_BN = (low_BN + 1).clamp(max=values_BNC.shape[1] - 1)
    low, high = (
        values_BNC.gather(1, each[:, :, None].expand(-1, -1, values_BNC.shape[2])) for each in (low_BN, high_BN)
    )
    return low + share_BN1 * (high - low)


# Hertz per mel below 1000 Hz; above, 27 mels are a factor of 6.4.
_LINEAR = 200 / 3
_STEP = math.log(6.4) / 27


def _mel(hertz: float) -> float:
    return hertz / _LINEAR if hertz < 1000 else 1000 / _LINEAR + math.log(hertz / 1000) / _STEP


def _mels(hertz: Tensor) -> Tensor:
    return torch.where(hertz < 1000, hertz / _LINEAR, 1000 / _LINEAR + (hertz.clamp(min=1000.0) / 1000).log() / _STEP)


def _hertz_of(mel: float) -> float:
    return float(_hertz(torch.tensor(mel, dtype=torch.float64)))


def _hertz(mel: Tensor) -> Tensor:
    knee = 1000 / _LINEAR
    return torch.where(mel < knee, mel * _LINEAR, 1000 * ((mel - knee) * _STEP).exp())
