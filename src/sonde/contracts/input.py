"""The contract of an input: what goes in."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from sonde.base.config import Config
from sonde.base.errors import RecordError, UserError
from sonde.base.rng import BatchRng
from sonde.base.threads import each
from sonde.contracts.at_hand import WeightsAtHand
from sonde.contracts.augment import AugmentParams
from sonde.contracts.columns import Columns, Tensors, stack
from sonde.contracts.layouts import LAYOUTS
from sonde.contracts.part import Part
from sonde.contracts.preprocessing import Preprocessing
from sonde.contracts.records import Record, Records
from sonde.contracts.specs import Advice, InputSpec, OutputSpec, Per

if TYPE_CHECKING:
    from sonde.contracts.classical import FeatureMap


class Input(Part):
    """What goes in. Fitted on the training split only; frozen after that."""

    # Whether a file alone is a record to answer for (a picture is, a row of a table is not).
    takes_file: ClassVar[bool] = False
    # Whether its ragged columns are padded in a batch (graphs are laid end to end): then examples of like length meet.
    pads: ClassVar[bool] = True

    @classmethod
    @abc.abstractmethod
    def fit(cls, config: Any, records: Records) -> Self:
        """Learn statistics, a vocabulary, categories from the records of the training split."""

    @classmethod
    def fit_to(cls, config: Any, records: Records, wanted: Preprocessing) -> Self:
        """`fit`, for a backbone whose pretrained weights want their input prepared as it was in their training.

        Raises:
            UserError: this kind cannot.
        """
        raise UserError(
            f"the input {cls.__name__} cannot prepare its records as the pretrained weights want them: those are for "
            f"{wanted}",
            hint="use another input or network, or train without those weights",
        )

    @classmethod
    def sample(cls, count: int, rng: np.random.Generator) -> tuple[Config, Records]:
        """A tiny data set of this kind and settings to go with it: what the conformance kit tries the kind on."""
        raise NotImplementedError(f"{cls.__name__} has no sample data")

    @staticmethod
    @abc.abstractmethod
    def recommend(config: Any, output: OutputSpec, records: Records) -> Advice:
        """Settings that do well unedited on these records, for what a target asks (`Target.asks`) of this input.

        `config` is of this kind, as the source proposed it.
        """

    @staticmethod
    def fine_tune(config: Any, output: OutputSpec, records: Records, weights: WeightsAtHand) -> Advice | None:
        """Settings that do well with pretrained weights, in place of those of `recommend`: fewer epochs, lower rates.
        None where they do not suit these records, or it is not known that they help."""
        return None

    @property
    @abc.abstractmethod
    def spec(self) -> InputSpec:
        """What a backbone has to accept."""

    @property
    def gives(self) -> tuple[Per, ...]:
        """What can be answered for, where that is less than its layout gives: of a clip no single pixels."""
        return LAYOUTS[self.spec.layout].gives

    def feature_map(self) -> FeatureMap:
        """The features that classical models are given of this input: those of its layout, unless the field uses others
        (the fingerprint of a molecule)."""
        from sonde.contracts.feature_maps import feature_map

        return feature_map(self.spec)

    @property
    def resizes(self) -> bool:
        """Whether augmentation gives some batches another size than `spec` says."""
        return False

    @abc.abstractmethod
    def encode(self, record: Record) -> Tensors:
        """One record as tensors: pure and deterministic, the same in training and in serving.

        Beside its own tensors, what a truth needs to line up with it: a text gives the first token of each word.

        Raises:
            RecordError: this record cannot be read.
        """

    def encode_many(self, records: Records) -> tuple[Columns, dict[int, RecordError]]:
        """A column of records, and the errors of those that cannot be read, by position; the columns hold the others.

        Equal to `encode` record by record. The default uses threads for files; override it where whole columns are
        quicker.
        """
        results = each(self._attempt, records, threads=self.reads_file)
        errors = {index: result for index, result in enumerate(results) if isinstance(result, RecordError)}
        examples = [result for result in results if not isinstance(result, RecordError)]
        return stack(examples, self.ragged) if examples else {}, errors

    def _attempt(self, record: Record) -> Tensors | RecordError:
        try:
            return self.encode(record)
        except RecordError as error:
            return error

    def make_windows(self, columns: Columns) -> Columns:
        """Encoded records as the examples that are taken from them: usually the same, windows for a stream."""
        return columns

    def show(self, record: Record) -> dict[str, Any]:
        """A record as a report can show it: {"picture": data URI}, {"sound": data URI}, {"text": str} or {"values":
        {name: value}}."""
        return {"values": {name: str(record.get(name)) for name in self.fields(self.config)}}

    def annotate(self, tensors: Tensors) -> list[dict[str, Any]]:
        """What every answer says of its input, whatever the target: how far a molecule is from those of training. One
        mapping that JSON can hold for each example of a preprocessed batch; an empty list: nothing."""
        return []

    def named(self, columns: Columns) -> dict[str, np.ndarray]:
        """The parts of encoded examples that people have a name for, (N,) each: the columns of a table."""
        return {}

    def augment(self, tensors: Tensors, rng: BatchRng) -> tuple[Tensors, AugmentParams]:
        """Change a training batch at random, all of it at once, on its device. Never called outside training.

        "focus" (B, D), where a target has it, is a place of each example that deserves to be seen (see `Target.focus`).
        """
        return tensors, AugmentParams()

    @property
    def corruptions(self) -> Sequence[str]:
        """What commonly happens to such inputs in use, and `corrupt` can do to them: noise, typing errors, lost values.
        No corruption changes what the truth of a record is, or where its places lie."""
        return ()

    def corrupt(self, records: Records, kind: str, severity: int, rng: np.random.Generator) -> Records:
        """The records as such a corruption leaves them, from severity 1 (hardly to be seen) to 5."""
        raise NotImplementedError(f"{type(self).__name__} has no corruptions")

    def preprocess(self, tensors: Tensors) -> Tensors:
        """From what `collate` (and `augment`) give to what the layout says, on the device: bytes to normalized floats.

        Pure. It runs after `augment`, so that batches travel and are augmented in their small form.
        """
        return tensors


def each_value(records: Records, field: str, change: Callable[[Any], object]) -> Records:
    """The records with a field's values changed one by one; missing ones, and those that cannot be read, stay."""
    found = np.empty(len(records), dtype=object)
    for index, value in enumerate(records.fields[field]):
        try:
            found[index] = value if value is None else change(value)
        except RecordError:
            found[index] = value
    return records.with_fields(**{field: found})
