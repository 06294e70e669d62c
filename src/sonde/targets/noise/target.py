"""Noise that is taken out of pictures step by step: what a network learns from pictures with noise on them.

B example, C channel, N number of a grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch

from sonde import metrics
from sonde.base.errors import RecordError, UserError
from sonde.base.gradients import without_gradient
from sonde.base.rng import BatchRng, key
from sonde.contracts.answers import is_picture, to_picture
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Tensors
from sonde.contracts.input import Input
from sonde.contracts.panel import Panel
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, InputSpec, OutputSpec
from sonde.contracts.target import Prediction, Target
from sonde.targets._inputs import Shows, asked_of_one, the_input
from sonde.targets._sums import examples, weighted_sum
from sonde.targets.noise.advice import advice
from sonde.targets.noise.process import Level, Process, time_features
from sonde.targets.noise.samplers import sample
from sonde.targets.noise.settings import Generate, NoiseConfig

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor, nn

# Numbers that tell a network the time.
TIME = 64
# Records of the other inputs that are kept, to make pictures for where nobody says for what; no more than of training.
PROMPTS = 256
# Training records whose numbers say in what range data are.
SAMPLE = 200
# Parts of the time whose losses are told apart.
QUARTERS = 4


@dataclass(frozen=True, kw_only=True)
class Noise(Target):
    """Needs no truth of its own: noise is put on the grid of one input, and the network predicts it (`process`).

    The other inputs steer: a class of a table, a text. `channels` and `size` are those of the grid, `low` and `high`
    its smallest and largest training number; `given` are fields of the other inputs for some training records.
    """

    Config = NoiseConfig
    best: ClassVar = ("loss", "min")
    asks: ClassVar = OutputSpec(per=("pixel",))
    accepts: ClassVar = ("grid",)
    lower_is_better: ClassVar = frozenset({"loss"})
    no_shares: ClassVar = frozenset({"loss"})
    steered: ClassVar = True

    config: NoiseConfig
    input: str
    channels: int
    size: list[int]
    is_steered: bool
    low: float
    high: float
    given: list[dict[str, Any]]

    @classmethod
    def fit(cls, config: NoiseConfig, records: Records, inputs: Mapping[str, Input]) -> Self:
        name = the_input(inputs, "grid", config.input, "noise")
        others = {key: part for key, part in inputs.items() if key != name}
        if not others and config.generate.guidance != 1:
            raise _nothing_to_guide(config.generate.guidance)
        if others and not config.drop_condition and config.generate.guidance != 1:
            raise UserError(
                f"target.generate.guidance is {config.generate.guidance:g} and target.drop_condition 0: the network "
                "never learns what pictures are without their class or text",
                expected="drop_condition above 0 (0.1 is usual), or guidance = 1",
            )
        low, high = _range(inputs[name], records)
        spec = inputs[name].spec
        return cls(
            config=config,
            input=name,
            channels=spec.channels,
            size=list(spec.size),
            is_steered=bool(others),
            low=low,
            high=high,
            given=_prompts(others, records),
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        agree(self.input == the_input(inputs, "grid", self.config.input, "noise"), f"its input is {self.input!r}")
        spec = inputs[self.input].spec
        agree(self.channels == spec.channels, f"its channels are {self.channels}, the input's {spec.channels}")
        agree(self.size == list(spec.size), f"its size is {self.size}, the input's {list(spec.size)}")
        agree(self.is_steered == (len(inputs) > 1), "it is steered by other inputs than there are")
        agree(self.low <= self.high, "its range is empty")
        agree(len(self.given) <= PROMPTS, "it keeps more records than it ever does")

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[NoiseConfig, Records]:
        config = NoiseConfig(generate=Generate(sampler="euler", steps=2))
        return config, Records(fields={}, ids=[f"picture {index}" for index in range(count)])

    @staticmethod
    def fields(config: NoiseConfig) -> list[str]:
        return []

    @classmethod
    def recommend(cls, config: NoiseConfig, inputs: Mapping[str, Any], records: Records) -> Advice:
        return advice(config, inputs, records)

    @property
    def makes(self) -> tuple[str, ...]:
        return (self.input,)

    @property
    def width(self) -> int:
        return self.channels

    @property
    def process(self) -> Process:
        return Process(name=self.config.process, predicts=self.config.predicts, schedule=self.config.schedule)

    def outputs(self, inputs: Mapping[str, InputSpec]) -> dict[str, OutputSpec]:
        # Beside the time: whether anything else steers.
        condition = TIME + self.is_steered
        return asked_of_one(inputs, self.input, replace(self.asks, width=self.width, condition=condition))

    def encode(self, record: Record, given: Mapping[str, Tensors]) -> Tensors:
        return {}

    def encode_many(self, records: Records, given: Mapping[str, Columns]) -> tuple[Columns, dict[int, RecordError]]:
        return {}, {}

    def counts(self, batch: Batch) -> Tensors:
        return {"loss": examples(batch)}

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        """The mean squared error of each example's numbers, summed over examples."""
        time_B = rng.uniform("time")
        if self.config.times == "logit-normal":
            # Esser et al. 2024: where neither data nor noise is plain to see there is most to learn.
            time_B = torch.sigmoid(rng.normal("time"))
        steered_B = (rng.uniform("drop") >= self.config.drop_condition).float()
        error_B = self._errors(network, batch, time_B, rng, steered_B)
        return {"loss": weighted_sum(error_B, batch.weight_B)}

    def _errors(self, network: nn.Module, batch: Batch, time_B: Tensor, rng: BatchRng, steered_B: Tensor) -> Tensor:
        data = batch.inputs[self.input]["grid"]
        eps = rng.normal("noise", *data.shape[1:])
        level = self.process.level(time_B)
        answer = self._answer(network, batch.inputs, self.process.mixed(data, eps, level), level, steered_B)
        return (answer.float() - self.process.truth(data, eps, level)).square().flatten(1).mean(1)

    def _answer(
        self, network: nn.Module, inputs: Mapping[str, Tensors], mixed: Tensor, level: Level, steered_B: Tensor
    ) -> Tensor:
        """What the network predicts; where `steered_B` is 0 nothing but the time steers it."""
        condition = time_features(level.time.to(mixed.device).expand(len(mixed)), TIME)
        tensors = {"grid": mixed}
        if self.is_steered:
            condition = torch.cat([condition, steered_B[:, None]], dim=1)
            tensors["steered"] = steered_B
        return network({**inputs, self.input: {**tensors, "condition": condition}})

    @without_gradient
    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        """{"grid": array (C, *size)} as the network has it; `decode` makes a picture of it where the input can."""
        return [{"grid": grid} for grid in self.make(network, batch).cpu().numpy()]

    def decode(
        self, predictions: list[Prediction], inputs: Mapping[str, Input], records: Records | None = None
    ) -> list[Prediction]:
        """{"picture": floats in [0, 1], (H, W) or (H, W, 3)} where the input knows pictures."""
        part = inputs[self.input]
        if not isinstance(part, Shows):
            return predictions
        return [{"picture": part.picture(each["grid"])} for each in predictions]

    @without_gradient
    def make(self, network: nn.Module, batch: Batch) -> Tensor:
        """Grids (B, C, *size) out of noise; that of an example hangs on its number (`records_B`) and the seed alone."""
        settings, process = self.config.generate, self.process
        if settings.guidance != 1 and not self.is_steered:
            raise _nothing_to_guide(settings.guidance)
        rng = BatchRng(seed=settings.seed, epoch=0, records_B=batch.records_B)
        shape = (self.channels, *self.size)
        count = len(batch.records_B)
        all_B, none_B = batch.records_B.new_ones(count).float(), batch.records_B.new_zeros(count).float()

        def parts(mixed: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            if settings.guidance == 0:
                answer = self._answer(network, batch.inputs, mixed, level, none_B).float()
            else:
                answer = self._answer(network, batch.inputs, mixed, level, all_B).float()
            if settings.guidance not in (0, 1):
                # Ho and Salimans 2022.
                plain = self._answer(network, batch.inputs, mixed, level, none_B).float()
                answer = plain + settings.guidance * (answer - plain)
            data, noise = process.parts(answer, mixed, level)
            return (data.clamp(self.low, self.high), noise) if process.name == "ddpm" else (data, noise)

        return sample(
            rng.normal("start", *shape),
            process,
            parts,
            sampler=settings.sampler,
            steps=settings.steps,
            eta=settings.eta,
            fresh=lambda step: rng.normal(f"step {step}", *shape),
        )

    def prompts(self, numbers: Sequence[int]) -> list[Record]:
        if not self.is_steered:
            return [{} for _ in numbers]
        if not self.given:
            raise UserError(
                "this model makes pictures for other inputs, and what they were in training is not kept",
                hint="give a table of them, or --given FIELD=VALUE",
            )
        seed = self.config.generate.seed
        return [self.given[key(seed, "prompt", number) % len(self.given)] for number in numbers]

    @without_gradient
    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        """Per example: "loss", the mean squared error at one "time" and for one noise, the same in every evaluation."""
        rng = BatchRng(seed=0, epoch=0, records_B=batch.records_B)
        time_B = rng.uniform("time")
        return {"loss": self._errors(network, batch, time_B, rng, torch.ones_like(time_B)), "time": time_B}

    def metrics(self, columns: EvalColumns, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """loss: the mean squared error of what is predicted, over times that are uniform; numbers have deviation 1."""
        return {"loss": metrics.per_unit(columns["loss"], np.ones(len(columns["loss"])), weights_RN)}

    def costs(self, columns: EvalColumns) -> np.ndarray | None:
        # Each example was asked about another time and noise: that says nothing of the example.
        return None

    def panels(self, columns: EvalColumns) -> list[Panel]:
        """The loss over time."""
        bins = np.minimum((columns["time"] * 5 * QUARTERS).astype(int), 5 * QUARTERS - 1)
        rows = [
            {
                "x": (place + 0.5) / (5 * QUARTERS),
                "y": round(float(columns["loss"][bins == place].mean()), 4),
                "series": "loss",
                "count": int((bins == place).sum()),
            }
            for place in np.unique(bins).tolist()
        ]
        return [
            Panel(
                kind="lines",
                title="Loss over time",
                note="The mean squared error where there is little noise (left) to where there is nothing but noise "
                "(right).",
                rows=rows,
                x="time",
                y="mean squared error",
            )
        ]

    def draw(self, prediction: Prediction, record: Record, inputs: Mapping[str, Input]) -> Picture | None:
        picture = prediction.get("picture")
        return None if picture is None or not is_picture(picture) else to_picture(picture)


def _nothing_to_guide(guidance: float) -> UserError:
    return UserError(
        f"guidance is {guidance:g}, and nothing steers this model: it has one input, the one that is made",
        expected="guidance = 1, or a second input (a class, a text)",
        hint="[inputs.label] kind = 'table', fields = ['label'] steers by a class",
    )


def _range(part: Input, records: Records) -> tuple[float, float]:
    """The smallest and the largest number of training grids, judged by some."""
    some = records.take(np.unique(np.linspace(0, len(records) - 1, min(SAMPLE, len(records))).astype(int)))
    columns, errors = part.encode_many(some)
    if not columns:
        raise next(iter(errors.values()))
    grid = part.preprocess(part.collate(part.make_windows(columns)))["grid"]
    return float(grid.min()), float(grid.max())


def _prompts(others: Mapping[str, Input], records: Records) -> list[dict[str, Any]]:
    """The fields of the other inputs for some training records, where JSON can hold them."""
    if not others or any(part.reads_file for part in others.values()):
        return []
    fields = [name for part in others.values() for name in part.fields(part.config)]
    if any(name not in records.fields or records.fields[name].ndim > 1 for name in fields):
        return []
    some = np.unique(np.linspace(0, len(records) - 1, min(PROMPTS, len(records))).astype(int))
    rows = [{name: _plain(records.fields[name][place]) for name in fields} for place in some.tolist()]
    return [
        row
        for row in rows
        if all(isinstance(value, (str, int, float, bool)) and value == value for value in row.values())
    ]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) and not isinstance(value, np.datetime64) else value
