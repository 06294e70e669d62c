"""Features of sound as a pretrained network of the transformers library wants them: by that library's own extractor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonde.base.errors import UserError, near


class Extractor:
    """Samples to features (T, F): a waveform has F = 1, a spectrogram its bands.

    `settings` are those of a preprocessor_config.json. Raises UserError where the library knows no such extractor.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        try:
            import transformers
            from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
        except ImportError as error:
            raise UserError(
                f"the network's features of sound need the package transformers: {error}",
                hint="pip install 'sonde[pretrained]'",
            ) from error
        name = str(settings.get("feature_extractor_type", ""))
        kind = getattr(transformers, name, None) if name.endswith("FeatureExtractor") else None
        if not isinstance(kind, type) or not issubclass(kind, SequenceFeatureExtractor):
            close = near(name, [each for each in dir(transformers) if each.endswith("FeatureExtractor")])
            raise UserError(
                f"transformers {transformers.__version__} has no feature extractor {name!r} for sound",
                hint=f"did you mean {close!r}?" if close else None,
            )
        try:
            self._extract: Any = kind(**{key: value for key, value in settings.items() if key != "processor_class"})
        except ImportError as error:
            raise UserError(f"the feature extractor {name} needs another package: {error}") from error
        self.rate = int(self._extract.sampling_rate)
        # How many samples a frame stands for; 1 for a waveform, 0 where the extractor does not say.
        self.hop = int(getattr(self._extract, "hop_length", 0))

    def __call__(self, samples_N: np.ndarray) -> tuple[Tensor, int]:
        """The features float32 (T, F), and how many of them are of the sound and no padding."""
        found = self._extract(samples_N, sampling_rate=self.rate, return_tensors="np")
        values = torch.from_numpy(np.ascontiguousarray(found[self._extract.model_input_names[0]][0], dtype=np.float32))
        bands = int(getattr(self._extract, "feature_size", 1))
        if values.ndim == 1:
            return values[:, None], len(values)
        if bands > 1 and values.shape[0] == bands != values.shape[1]:
            values = values.T.contiguous()
        return values, min(len(values), -(-len(samples_N) // self.hop)) if self.hop else len(values)
