"""The settings of low-rank adapters, for every backbone alike."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sonde.base.config import Config, FilePath


class LoraConfig(Config):
    """LoRA (Hu et al. 2022): beside each chosen layer two thin ones are trained, the layer itself stays as it is.
    With `quantize` that is stored in 4 bits (QLoRA, Dettmers et al. 2023)."""

    rank: int = Field(default=8, ge=1, description="width between the two thin layers")
    alpha: float | None = Field(
        default=None, gt=0, description="what they add is multiplied by alpha / rank; twice the rank if left out"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of what goes into them dropped in training")
    layers: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="layers that get adapters, by the end of their names (query, fc1); all linear layers and "
        "convolutions if left out",
    )
    adapter: FilePath | None = Field(
        default=None, description="start from this adapter, a folder in peft's format; it says rank, alpha and layers"
    )
    quantize: Literal["nf4", "fp4"] | None = Field(
        default=None, description="nf4 or fp4: keep the linear layers underneath in 4 bits (needs sonde[qlora])"
    )
    merge: bool = Field(
        default=False, description="add the adapter into the weights of the artifact, unless its answers would move"
    )

    @model_validator(mode="after")
    def _one_source(self) -> LoraConfig:
        if self.adapter is not None and self.layers is not None:
            raise ValueError("the adapter says which layers it belongs to; leave layers out")
        return self

    @property
    def scale(self) -> float:
        """What the output of the thin layers is multiplied by."""
        return (self.alpha or 2.0 * self.rank) / self.rank
