"""The settings of target noise."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sonde.base.config import Config


class Generate(Config):
    """How pictures are made."""

    sampler: Literal["euler", "heun", "ddim"] = Field(
        default="heun", description="euler, heun (two looks a step, more exact) or ddim"
    )
    steps: int = Field(default=25, ge=1, le=1000, description="steps from noise to a picture")
    guidance: float = Field(
        default=1.0,
        ge=0,
        description="how much more a picture is made to fit its class or text: 1 as learned, 2 to 4 clearer and less "
        "varied, 0 without it",
    )
    eta: float = Field(default=0.0, ge=0, le=1, description="ddim: fresh noise in each step; 1 as much as DDPM has")
    seed: int = Field(default=0, ge=0, description="same seed, same number: same picture")

    @model_validator(mode="after")
    def _fresh_noise_is_ddims(self) -> Self:
        if self.eta and self.sampler != "ddim":
            raise ValueError(f"eta is for sampler ddim, and the sampler is {self.sampler}")
        return self


class NoiseConfig(Config):
    kind: Literal["noise"] = "noise"
    input: str | None = Field(
        default=None, description="the input that is made; the only one with a grid if left out. Others steer it"
    )
    process: Literal["flow", "ddpm"] = Field(
        default="flow", description="how pictures turn into noise: flow (flow matching) or ddpm"
    )
    predicts: Literal["velocity", "noise"] = Field(
        default="velocity", description="what the network predicts: velocity, or with ddpm the noise (epsilon)"
    )
    schedule: Literal["cosine", "linear"] = Field(default="cosine", description="ddpm: cosine or linear")
    times: Literal["logit-normal", "uniform"] = Field(
        default="logit-normal", description="how times are drawn in training: logit-normal (more from the middle)"
    )
    drop_condition: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of training examples whose class or text is hidden; guidance needs some",
    )
    generate: Generate = Field(default=Generate(), description="how pictures are made")

    @model_validator(mode="after")
    def _suits(self) -> Self:
        if self.process == "flow" and self.predicts == "noise":
            raise ValueError("flow matching predicts the velocity; predicts = 'noise' is for process = 'ddpm'")
        if self.process == "flow" and self.generate.eta:
            raise ValueError("generate.eta is fresh noise for process = 'ddpm'")
        return self
