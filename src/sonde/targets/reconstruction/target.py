"""Examples pressed into a few numbers and made again: autoencoders, plain and variational (Kingma and Welling 2014).

B example, K number of the code, N example of a split, R row of weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from sonde import metrics
from sonde.base.errors import RecordError, UserError
from sonde.base.gradients import without_gradient
from sonde.base.images import side_by_side
from sonde.base.rng import BatchRng
from sonde.contracts.answers import is_picture, to_picture
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Tensors, stack
from sonde.contracts.input import Input
from sonde.contracts.panel import Panel
from sonde.contracts.part import agree
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, FeatureWidth, InputSpec, OutputSpec
from sonde.contracts.target import Prediction, Target
from sonde.targets._inputs import Shows, asked_of_one, the_input
from sonde.targets._sums import examples, weighted_sum
from sonde.targets.reconstruction import pca
from sonde.targets.reconstruction.decoder import Autoencoder, Reconstructed
from sonde.targets.reconstruction.settings import ReconstructionConfig

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor, nn

# A number of the code whose mean varies by more over examples is used (Burda et al. 2016).
ACTIVE = 0.01
# Hundredths of the training split whose scores are kept, to say how unusual a record is.
HUNDREDTHS = 101
# Records that a network for pictures is trained on in all.
SEEN = 600_000


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Target):
    """Needs no truth of its own: the grid of an input is to be made again out of `config.bottleneck` numbers.

    `channels` and `size` are those of the grid; `mean` and `components` PCA's of as many numbers, fitted to the
    training split: what is to be beaten. Other inputs are told to the decoder. `quantiles` are the training split's
    scores in nats, sorted, once they are known.
    """

    Config = ReconstructionConfig
    best: ClassVar = ("squared_error", "min")
    asks: ClassVar = OutputSpec(per=("pixel", "example"))
    accepts: ClassVar = ("grid",)
    lower_is_better: ClassVar = frozenset({"loss", "squared_error", "pca_squared_error", "reconstruction", "kl"})
    no_shares: ClassVar = lower_is_better | {"active_units", "below_pca"}
    remembers: ClassVar[bool] = True

    config: ReconstructionConfig
    input: str
    channels: int
    size: list[int]
    mean: Tensor
    components: Tensor
    quantiles: list[float]

    @classmethod
    def fit(cls, config: ReconstructionConfig, records: Records, inputs: Mapping[str, Input]) -> Self:
        name = the_input(inputs, "grid", config.input, "reconstruction")
        spec = inputs[name].spec
        numbers = spec.channels * math.prod(spec.size)
        if config.bottleneck >= numbers:
            raise UserError(
                f"target.bottleneck is {config.bottleneck}, and an example has {numbers} numbers",
                expected="fewer: else there is nothing to press together",
            )
        mean, components = pca.fit(inputs[name], records, config.bottleneck)
        return cls(
            config=config,
            input=name,
            channels=spec.channels,
            size=list(spec.size),
            mean=mean,
            components=components,
            quantiles=[],
        )

    def check_fitted(self, inputs: Mapping[str, Input]) -> None:
        agree(
            self.input == the_input(inputs, "grid", self.config.input, "reconstruction"), f"its input is {self.input!r}"
        )
        spec = inputs[self.input].spec
        agree(self.channels == spec.channels, f"its channels are {self.channels}, the input's {spec.channels}")
        agree(self.size == list(spec.size), f"its size is {self.size}, the input's {list(spec.size)}")
        numbers = self.channels * math.prod(self.size)
        agree(self.mean.shape == (numbers,), f"its mean has the shape {tuple(self.mean.shape)}")
        fits = self.components.ndim == 2 and self.components.shape[1] == numbers
        agree(fits and len(self.components) <= self.config.bottleneck, "its components are not of its grid")
        agree(not self.quantiles or len(self.quantiles) == HUNDREDTHS, "its quantiles are not hundredths")

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[ReconstructionConfig, Records]:
        config = ReconstructionConfig(bottleneck=3, variational=True, decoder={"widths": (8, 4)})  # type: ignore[arg-type]
        return config, Records(fields={}, ids=[f"picture {index}" for index in range(count)])

    @staticmethod
    def fields(config: ReconstructionConfig) -> list[str]:
        return []

    @classmethod
    def recommend(cls, config: ReconstructionConfig, inputs: Mapping[str, Any], records: Records) -> Advice:
        epochs = int(np.clip(SEEN / max(1, len(records)), 10, 300))
        return Advice(
            # What augmentation does is learned, too.
            input={"augment": {}},
            network={"kind": "cnn", "widths": [32, 64, 128], "convolutions": [1, 1, 1], "dropout": 0.0},
            training={
                "epochs": epochs,
                "batch_size": 64,
                "optimizer": {"kind": "adamw", "lr": 2e-3},
                "schedule": {"kind": "warmup-cosine", "warmup": 0.05},
            },
            min_steps=2000,
        )

    @property
    def monitor(self) -> tuple[str, Literal["max", "min"]]:
        return ("loss", "min") if self.config.variational else self.best

    def outputs(self, inputs: Mapping[str, InputSpec]) -> dict[str, OutputSpec]:
        return asked_of_one(inputs, self.input, self.asks)

    def head(self, widths: Mapping[str, FeatureWidth]) -> nn.Module:
        return Autoencoder(
            widths,
            main=self.input,
            channels=self.channels,
            size=self.size,
            bottleneck=self.config.bottleneck,
            variational=self.config.variational,
            stages=tuple(self.config.decoder.widths),
        )

    def encode(self, record: Record, given: Mapping[str, Tensors]) -> Tensors:
        return {}

    def encode_many(self, records: Records, given: Mapping[str, Columns]) -> tuple[Columns, dict[int, RecordError]]:
        return {}, {}

    def counts(self, batch: Batch) -> Tensors:
        count = examples(batch)
        return {"reconstruction": count, "kl": count} if self.config.variational else {"reconstruction": count}

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        """Nats per example: minus the log likelihood of its numbers; variational: and the KL divergence of its code."""
        found = network(batch.inputs, rng.normal("code", self.config.bottleneck) if self.config.variational else None)
        terms = {"reconstruction": weighted_sum(self._nats(batch, found), batch.weight_B)}
        if self.config.variational:
            terms["kl"] = weighted_sum(_divergence(found), batch.weight_B) * self.config.kl_weight
        return terms

    def _nats(self, batch: Batch, found: Reconstructed) -> Tensor:
        """Minus the log density of each example's numbers around their reconstruction, (B,)."""
        log_deviation = found[3].float()
        squared_B = (found[0].float() - batch.inputs[self.input]["grid"]).square().flatten(1).sum(1)
        each = log_deviation + 0.5 * math.log(2 * math.pi)
        return 0.5 * squared_B * (-2 * log_deviation).exp() + len(self.mean) * each

    def _squared_error(self, batch: Batch, found: Reconstructed) -> Tensor:
        return (found[0].float() - batch.inputs[self.input]["grid"]).square().flatten(1).mean(1)

    @without_gradient
    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        """{"anomaly": nats, "unusual": share of the training split with fewer, "squared_error", "code": [...],
        "grid": array (C, *size)}; `decode` makes a picture of the grid where the input can."""
        found = network(batch.inputs)
        anomaly_B = self._anomaly(batch, found).cpu().numpy()
        error_B = self._squared_error(batch, found).cpu().tolist()
        answers: list[Prediction] = []
        for place, code in enumerate(found[1].float().cpu().tolist()):
            answer: Prediction = {"anomaly": float(anomaly_B[place])}
            if self.quantiles:
                answer["unusual"] = float(np.interp(anomaly_B[place], self.quantiles, np.linspace(0, 1, HUNDREDTHS)))
            grid = found[0][place].float().cpu().numpy()
            answers.append({**answer, "squared_error": error_B[place], "code": code, "grid": grid})
        return answers

    def _anomaly(self, batch: Batch, found: Reconstructed) -> Tensor:
        """How unlikely an example is, in nats (B,): the larger, the less it is like those of training."""
        nats_B = self._nats(batch, found)
        return nats_B + _divergence(found) if self.config.variational else nats_B

    def decode(
        self, predictions: list[Prediction], inputs: Mapping[str, Input], records: Records | None = None
    ) -> list[Prediction]:
        part = inputs[self.input]
        if not isinstance(part, Shows):
            return predictions
        return [
            {
                **{name: value for name, value in each.items() if name != "grid"},
                "reconstruction": part.picture(each["grid"]),
            }
            for each in predictions
        ]

    @without_gradient
    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        """Per example: "squared_error" of the reconstruction from the mean code, "pca_squared_error", the mean "code"
        (B, K), and in nats "anomaly" and the loss terms, those of a variational one with a code that is drawn."""
        found = network(batch.inputs)
        columns: Columns = {
            "squared_error": self._squared_error(batch, found),
            "pca_squared_error": pca.error(
                batch.inputs[self.input]["grid"],
                self.mean.to(found[0].device),
                self.components.to(found[0].device),
            ),
            "code": found[1].float(),
            "anomaly": self._anomaly(batch, found),
        }
        if self.config.variational:
            rng = BatchRng(seed=0, epoch=0, records_B=batch.records_B)
            columns["kl"] = _divergence(found)
            found = network(batch.inputs, rng.normal("code", self.config.bottleneck))
        columns["reconstruction"] = self._nats(batch, found)
        return columns

    def metrics(self, columns: EvalColumns, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """squared_error: per number, of deviation 1; below_pca: by what share it is below PCA's of as many numbers;
        loss and its terms in nats per example; active_units: numbers of the code that vary over examples."""
        one_N = np.ones(len(columns["squared_error"]))

        def mean(name: str) -> np.ndarray:
            return metrics.per_unit(columns[name], one_N, weights_RN)

        error_R, pca_R, nats_R = mean("squared_error"), mean("pca_squared_error"), mean("reconstruction")
        with np.errstate(divide="ignore", invalid="ignore"):
            below_R = np.where(pca_R > 0, 1 - error_R / pca_R, np.nan)
        scores = {
            "squared_error": error_R,
            "pca_squared_error": pca_R,
            "below_pca": below_R,
            "loss": nats_R + mean("kl") if "kl" in columns else nats_R,
            "reconstruction": nats_R,
        }
        if "kl" in columns:
            scores["kl"] = mean("kl")
        return {**scores, "active_units": (_variance(columns["code"], weights_RN) > ACTIVE).sum(1).astype(float)}

    def costs(self, columns: EvalColumns) -> np.ndarray:
        """How unusual each record is, in nats."""
        return columns["anomaly"]

    def warnings(self, columns: EvalColumns) -> list[str]:
        active = int((_variance(columns["code"], np.ones((1, len(columns["code"])))) > ACTIVE).sum())
        if active > self.config.bottleneck / 4 or self.config.bottleneck < 4:
            return []
        return [
            f"{active} of {self.config.bottleneck} numbers of the code tell anything (posterior collapse): "
            "a smaller target.kl_weight keeps more, or train longer"
        ]

    def panels(self, columns: EvalColumns) -> list[Panel]:
        """How much each number of the code varies."""
        variance_K = np.sort(_variance(columns["code"], np.ones((1, len(columns["code"]))))[0])[::-1]
        rows = [{"x": place, "value": round(float(value), 4)} for place, value in enumerate(variance_K[:64], start=1)]
        return [
            Panel(
                kind="bars",
                title="Numbers of the code",
                note=f"The variance of each number over records, the largest first; below {ACTIVE} it tells nothing.",
                rows=rows,
                x="number",
                y="variance",
            )
        ]

    def remember(self, columns: EvalColumns, ids: Sequence[str]) -> Self:
        return replace(self, quantiles=np.quantile(columns["anomaly"], np.linspace(0, 1, HUNDREDTHS)).tolist())

    def draw(self, prediction: Prediction, record: Record, inputs: Mapping[str, Input]) -> Picture | None:
        """What went in, as the network saw it, and beside it what was made of it."""
        part, made = inputs[self.input], prediction.get("reconstruction")
        if not isinstance(part, Shows) or made is None or not is_picture(made):
            return None
        seen = part.preprocess(part.collate(stack([part.encode(record)], part.ragged)))["grid"]
        return side_by_side([to_picture(part.picture(seen[0].cpu().numpy())), to_picture(made)])


def _divergence(found: Reconstructed) -> Tensor:
    """The KL divergence of each example's code from a standard normal one in nats, (B,)."""
    mean_BK, log_variance_BK = found[1].float(), found[2].float()
    return 0.5 * (mean_BK.square() + log_variance_BK.exp() - 1 - log_variance_BK).sum(1)


def _variance(code_NK: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """The variance of each number of the code over weighted examples, (R, K)."""
    total_R1 = weights_RN.sum(1, keepdims=True)
    centred_NK = code_NK.astype(np.float64) - code_NK.mean(0, dtype=np.float64)
    mean_RK = weights_RN @ centred_NK / total_R1
    return weights_RN @ centred_NK**2 / total_R1 - mean_RK**2
