"""The settings of target reconstruction."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sonde.base.config import Config

Widths = tuple[Annotated[int, Field(gt=0)], ...]


class DecoderConfig(Config):
    widths: Widths = Field(
        default=(128, 64, 32),
        min_length=1,
        description="channels of each stage; each doubles the size",
    )


class ReconstructionConfig(Config):
    kind: Literal["reconstruction"] = "reconstruction"
    input: str | None = Field(
        default=None, description="the input that is reconstructed; the only one with a grid if left out"
    )
    bottleneck: int = Field(default=16, ge=1, le=65536, description="numbers that an example is pressed into")
    variational: bool = Field(
        default=False, description="a variational autoencoder: its numbers follow a normal distribution"
    )
    kl_weight: float = Field(
        default=1.0, ge=0, description="variational: weight of the KL term; 1 is the likelihood's own bound"
    )
    decoder: DecoderConfig = Field(default=DecoderConfig(), description="what makes an example of the numbers")

    @model_validator(mode="after")
    def _kl_is_variational(self) -> Self:
        if not self.variational and self.kl_weight != 1:
            raise ValueError("kl_weight is for variational = true")
        return self
