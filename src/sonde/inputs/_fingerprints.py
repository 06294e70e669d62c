"""Fingerprints of molecules as features for classical models: what chemists feed a random forest."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from sonde.base import molecules
from sonde.contracts.classical import FeatureMap, Matrix
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import Per


class Fingerprints(FeatureMap):
    """The 2,048 bits of ECFP4 as zeros and ones."""

    about = "ECFP4 fingerprints"
    first_choice: ClassVar[str] = "random-forest"

    def forward(self, tensors: Tensors, per: Per) -> Matrix:
        bits = np.unpackbits(tensors["fingerprint"].cpu().numpy(), axis=1, count=molecules.BITS)
        return Matrix.of(torch.from_numpy(bits.astype(np.float32)), same_scale=True)
