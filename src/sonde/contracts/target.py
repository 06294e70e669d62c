"""The contract of a target: what comes out, how wrong an answer is, and the head that gives it."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError
from sonde.base.rng import BatchRng
from sonde.contracts.augment import AugmentParams
from sonde.contracts.batch import Batch
from sonde.contracts.columns import Columns, EvalColumns, Tensors, stack
from sonde.contracts.decision import DecisionConfig
from sonde.contracts.input import Input
from sonde.contracts.panel import Panel
from sonde.contracts.part import Part
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, FeatureWidth, InputSpec, LayoutName, OutputSpec

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor, nn

    from sonde.contracts.classical import Problem

# An answer that JSON can hold, but for arrays: `sonde.contracts.answers.to_json` makes pictures of these.
Prediction = dict[str, Any]


class Target(Part):
    """What comes out. Fitted on the training split only, after the inputs; frozen after that."""

    # The score that picks the best checkpoint, and which way is better.
    best: ClassVar[tuple[str, Literal["max", "min"]]]
    # A score that tells apart what `best` cannot on few examples, and which way is better: a proper score.
    tie_break: ClassVar[tuple[str, Literal["max", "min"]] | None] = None
    # The scores of which a lower one is better, for `training.monitor`; "rmse" also stands for "rmse/<field>".
    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    # The scores that are no shares from 0 to 1: 0 or 1 says nothing special there (BLEU goes to 100).
    no_shares: ClassVar[frozenset[str]] = frozenset()
    # What is asked of the input that it belongs to, as far as it is known before anything is fitted.
    asks: ClassVar[OutputSpec] = OutputSpec(per=("example",))
    # The layouts of the inputs that it can belong to; all that can give what is asked if left out.
    accepts: ClassVar[tuple[LayoutName, ...]] = ()
    # How many axes the grids that it can belong to may have.
    dimensions: ClassVar[tuple[int, ...]] = (1, 2, 3)
    # What the answer of `baseline` is, in the field's words.
    baseline_name: ClassVar[str] = ""
    # Whether a record without a value in its fields has no truth (else a missing value is one: no labels at all).
    needs_truth: ClassVar[bool] = True
    # The ragged truths whose padding costs computation: batches bring together what is alike in these lengths, too.
    padded: ClassVar[tuple[str, ...]] = ()
    # Whether the loss of right answers is near zero: what overfitting a few examples is judged by. It is not for pairs
    # of a batch, for soft truths (how well a box fits), and for tokens of which the first come from nowhere.
    loss_reaches_zero: ClassVar[bool] = True
    # Whether inputs beside its own steer what it makes: `sonde new` then offers the field that was to be learned.
    steered: ClassVar[bool] = False
    # How many inputs it takes at least; with two, what was to be learned of the first can be the second.
    num_inputs: ClassVar[int] = 1
    # Whether `remember` wants the outputs of the training split.
    remembers: ClassVar[bool] = False
    # The ways in which `calibrate` can bring its probabilities to what is observed, the plainest first.
    calibrations: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abc.abstractmethod
    def fit(cls, config: Any, records: Records, inputs: Mapping[str, Input]) -> Self:
        """Learn classes, scales from the records of the training split. `inputs` are fitted already."""

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator, given: Records) -> tuple[Config, Records]:
        """Truths for `given` records of an input, and settings to go with them, for the conformance kit.

        Fields that it gives replace those of the input: words in place of a text, where truths belong to words.
        """
        raise NotImplementedError(f"{cls.__name__} has no sample data")

    @classmethod
    def recommend(cls, config: Any, inputs: Mapping[str, Config], records: Records) -> Advice:
        """Settings that do well unedited, laid over the advice of the inputs."""
        return Advice()

    @property
    def monitor(self) -> tuple[str, Literal["max", "min"]]:
        """`best`, unless that hangs on what was fitted."""
        return self.best

    @property
    def signatures(self) -> Mapping[str, str]:
        """How exactly a score is computed, where a field knows several ways (the tokens of BLEU, the normaliser of
        WER): by the score's name."""
        return {}

    @property
    def width(self) -> int:
        """How many answers the standard head gives; 0 where the target brings its own head."""
        return 0

    @property
    def makes(self) -> tuple[str, ...]:
        """The inputs that answers are made without, because they are what is made: pictures out of noise."""
        return ()

    def prompts(self, numbers: Sequence[int]) -> list[Record]:
        """What the answers of these numbers are made for where nobody says it: records of the other inputs' fields.

        Raises:
            UserError: it has to be said.
        """
        return [{} for _ in numbers]

    def outputs(self, inputs: Mapping[str, InputSpec]) -> dict[str, OutputSpec]:
        """What is asked of the backbone of each input: usually the same of all."""
        return dict.fromkeys(inputs, replace(self.asks, width=self.width))

    def head(self, widths: Mapping[str, FeatureWidth]) -> nn.Module | None:
        """The target's own head, from the widths of each input's features; None: the standard one.

        It is called as `head(features, *extra)` with the `Features` of each input by name, and what the target passed
        to the network beside the inputs. The layer that gives the final answers is called `answer`: AdamW trains it
        where Muon trains the rest.
        """
        return None

    def encode(self, record: Record, given: Mapping[str, Tensors]) -> Tensors:
        """The truth of one record as tensors; `given` are the record's encoded inputs, by name.

        A kind writes this or `encode_many`: each is made of the other.

        Raises:
            RecordError: the truth of this record is missing or wrong.
        """
        if type(self).encode_many is Target.encode_many:
            raise NotImplementedError(f"{type(self).__name__} has no truth for single records")
        alone = {name: stack([tensors]) for name, tensors in given.items()}
        columns, errors = self.encode_many(Records.of([record]), alone)
        for error in errors.values():
            raise error
        return {name: column[0] for name, column in columns.items()}

    def encode_many(self, records: Records, given: Mapping[str, Columns]) -> tuple[Columns, dict[int, RecordError]]:
        """The truths of records whose inputs are encoded, and the errors by position; the columns hold the others.

        Equal to `encode` record by record; override it where whole columns are quicker.
        """
        examples: list[Tensors] = []
        errors: dict[int, RecordError] = {}
        for index in range(len(records)):
            mine = {name: {key: column[index] for key, column in columns.items()} for name, columns in given.items()}
            try:
                examples.append(self.encode(records[index], mine))
            except RecordError as error:
                errors[index] = error
        return stack(examples, self.ragged) if examples else {}, errors

    def focus(self, truth: Tensors, rng: BatchRng) -> Tensor | None:
        """A place of each example that is worth seeing, float (B, D), in voxels from the border of the grid that went
        in: where an input cuts patches out of large grids. NaN where an example has none; None: all are alike."""
        return None

    def files(self, prediction: Prediction, record: Record, inputs: Mapping[str, Input]) -> dict[str, bytes]:
        """An answer as files of its field's formats, by the ending of their names (".nii.gz"): what `sonde predict
        --files` writes.

        Raises:
            RecordError: what it is for cannot be read (any more).
        """
        return {}

    def apply_augment(self, truth: Tensors, params: AugmentParams) -> Tensors:
        """What augmentation did to an input, done to the truth. The default is right when nothing is moved or mixed
        that the truth could see: override it to support mixing, or where the truth has places itself."""
        if params.mix_weight_B is not None:
            raise NotImplementedError(f"{type(self).__name__} does not support mixed examples")
        return truth

    @abc.abstractmethod
    def counts(self, batch: Batch) -> Tensors:
        """What the sum of each loss term is divided by, under the term's name: 0-d floats, additive over batches."""

    @abc.abstractmethod
    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        """The loss of a batch as SUMS, one 0-d tensor per term; loss(A + B) = loss(A) + loss(B)."""

    def attack_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """What an adversary makes large by changing the inputs, 0-d. The loss of training does where it is large only
        if answers are wrong; smoothed labels, say, make it large for answers that are too sure."""
        terms = self.loss(network, batch, BatchRng(seed=0, epoch=0, records_B=batch.records_B, progress=0.0))
        return sum(list(terms.values())[1:], next(iter(terms.values())))

    @abc.abstractmethod
    def predict(self, network: nn.Module, batch: Batch) -> list[Prediction]:
        """The answers for a batch, one per example. The batch has no truth, and none of the inputs in `makes`."""

    def decode(
        self, predictions: list[Prediction], inputs: Mapping[str, Input], records: Records | None = None
    ) -> list[Prediction]:
        """The answers put into words with the help of the inputs: token ids become text. Most need none.

        `records` are what is answered for, where they are at hand: the words that tags belong to.
        """
        return predictions

    @abc.abstractmethod
    def eval_outputs(self, network: nn.Module, batch: Batch) -> Columns:
        """What `metrics` needs to know of each example: columns of B examples, ragged where they are sets."""

    @abc.abstractmethod
    def metrics(self, columns: EvalColumns, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """The scores that this field reports, each (R,): once for every row of example weights.

        Weights make one function serve the plain value (all ones), weighted records and the bootstrap (counts).
        """

    def baseline(self, truth: Columns) -> Columns | None:
        """What `eval_outputs` would give for an answer that never looks at the inputs (see `baseline_name`), learned
        from the training split; None where there is none."""
        return None

    def draw(self, prediction: Prediction, record: Record, inputs: Mapping[str, Input]) -> Picture | None:
        """An answer drawn on what it is for, as `sonde predict --draw` writes it; None where it cannot be drawn.

        Raises:
            RecordError: what it is for cannot be read (any more).
        """
        return None

    @classmethod
    def draw_truth(cls, config: Any, record: Record, inputs: Mapping[str, Config]) -> Picture | None:
        """A record with its truth drawn on it, before anything is fitted: `sonde new` shows some, since places that are
        written in another way than they are read cannot be seen in numbers."""
        return None

    def draw_batch(self, batch: Batch) -> Picture | None:
        """An augmented batch with its truth, as training sees them, in one picture; None where it cannot be drawn."""
        return None

    def notes(self) -> list[str]:
        """What people should know of what was fitted, told before training."""
        return []

    def panels(self, columns: EvalColumns) -> list[Panel]:
        """Pictures of the answers for a held-out split, for the report."""
        return []

    def costs(self, columns: EvalColumns) -> np.ndarray | None:
        """How wrong each answer is, (N,), higher is worse: what sorts the cases of a report; None where single examples
        have none."""
        return None

    def classical(self, truth: Columns) -> Problem | None:
        """What these truths ask of a classical model, which answers as the standard head would; None where there is no
        such model, as for pictures and texts that are made."""
        return None

    def warnings(self, columns: EvalColumns) -> list[str]:
        """What is wrong with the answers for the validation split, in plain words, told while it trains."""
        return []

    def remember(self, columns: EvalColumns, ids: Sequence[str]) -> Self:
        """The target with what it keeps of the trained network's outputs for the training split (see `remembers`):
        it goes into the artifact."""
        return self

    def calibrate(self, columns: EvalColumns, method: str, weight_N: np.ndarray | None = None) -> Self:
        """The target whose probabilities are brought to what was observed, by one of its `calibrations`; `columns` are
        those of the target without any, on records that training did not see. No example's order of answers changes.

        `costs` says whether it pays (see `sonde.evaluation.calibration`): that is not decided here.
        """
        raise NotImplementedError(f"{type(self).__name__} has no probabilities to calibrate")

    def calibrated(self, columns: EvalColumns) -> EvalColumns:
        """What `eval_outputs` gives for a network of which the target without calibration gives `columns`."""
        return columns

    def before_calibration(self, columns: EvalColumns) -> EvalColumns:
        """The columns that `calibrated` would make these of."""
        return columns

    def uncalibrated(self) -> Self:
        """The target as it was before `calibrate` and `decide`."""
        return self

    def check_decision(self, config: DecisionConfig) -> None:
        """Whether the target can decide so, known before training.

        Raises:
            UserError: it cannot, or a class does not exist.
        """
        if config.decides:
            raise UserError(
                f"decision: a {type(self).__name__.lower()} is not chosen by costs or a wish for recall",
                expected="a target that gives probabilities of classes, such as category",
                hint="leave out decision.costs and decision.recall",
            )

    def decide(self, config: DecisionConfig, columns: EvalColumns) -> tuple[Self, list[str]]:
        """The target that chooses its answers by the recipe's `[decision]`, with what it learns for that of held-out
        answers (calibrated ones); and what people should know of it."""
        return self, []

    def decision_in_words(self, columns: EvalColumns) -> str | None:
        """What the decision does on held-out answers: what is found and what it costs; None without one."""
        return None

    def nonconformity(self, columns: EvalColumns) -> np.ndarray | None:
        """How far each truth is from what was answered, (N,) or (N, F) for F numbers an example: the scores of split
        conformal prediction (Vovk et al. 2005). None where answers have no such regions."""
        return None

    def regions(self, answers: Tensor, limits: np.ndarray) -> list[Prediction]:
        """For each example all answers whose nonconformity is at most its limit, (B, F) for F numbers an example, else
        (B, 1); a limit may be infinite. `answers` are the network's. They are laid beside the prediction."""
        raise NotImplementedError(f"{type(self).__name__} has no regions")

    def region_sizes(self, regions: Sequence[Prediction]) -> list[float]:
        """How large each region is: the number of classes in a set, the width of an interval (the mean of several)."""
        raise NotImplementedError(f"{type(self).__name__} has no regions")

    def unsureness(self, answers: Tensor) -> Mapping[str, Tensor]:
        """How unsure the network's answers (B, ...) are, (B,) by the name of the measure ("max-softmax", "energy"):
        higher where a record is more likely of another world. Empty where answers do not tell."""
        return {}

    def right(self, columns: EvalColumns) -> np.ndarray | None:
        """Which answers are right, bool (N,); None where they are not right or wrong."""
        return None


class PairwiseTarget(Target):
    """A target whose loss is over pairs of examples: contrastive, triplet, image-text matching.

    Such a loss is no sum over examples. The loop keeps its gradient equal under micro-batches and over processes by
    gradient caching (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup").
    """

    loss_reaches_zero: ClassVar[bool] = False

    @abc.abstractmethod
    def embed(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        """What the loss needs of each example, (B, ...) each: embeddings, and the codes or weights beside them."""

    @abc.abstractmethod
    def compare(self, embeddings: Tensors) -> Tensors:
        """The loss of the WHOLE batch from its embeddings: sums, one 0-d tensor per term."""

    def loss(self, network: nn.Module, batch: Batch, rng: BatchRng) -> Tensors:
        return self.compare(self.embed(network, batch, rng))

    def together(self, truth: Columns) -> tuple[Tensor, int] | None:
        """A code for each example, int64 (N,), and how many of one code should meet in a batch (P x K sampling,
        Hermans et al. 2017); None: batches are drawn as for any other target."""
        return None
