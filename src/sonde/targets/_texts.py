"""Texts as truths: how they are read, the vocabulary that they are written in, and their columns.

B example, U token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from sonde.base import vocabulary
from sonde.base.errors import RecordError, UserError, unknown
from sonde.base.vocabulary import Vocabulary
from sonde.contracts.columns import Ragged
from sonde.contracts.input import Input
from sonde.contracts.records import Records

Tokens = Literal["bpe", "characters", "bytes"]
SIZES: Mapping[Tokens, int] = {"bpe": 4096, "characters": 4096, "bytes": 0}
# Of what is never said a network knows nothing; a text that is longer than any in training by half can still be given.
LONGER, LONGEST = 1.5, 512


@runtime_checkable
class Spells(Protocol):
    """A token input with a vocabulary of its own."""

    vocabulary: Vocabulary


def texts_in(field: str, records: Records) -> list[str | RecordError]:
    """The text of every record, or why it has none.

    Raises:
        UserError: there is no such field, or it holds numbers: their texts are not known any more.
    """
    if field not in records.fields:
        raise unknown(field, records.fields, what="the field")
    values = records.fields[field]
    if values.dtype != object:
        raise UserError(
            f"field {field!r} was read as numbers, and a sequence is learned from texts as they are written",
            expected="texts",
            hint=f'data.texts = ["{field}"] keeps a column of a CSV file as it is',
        )
    return [_text(value, field) for value in values]


def _text(value: object, field: str) -> str | RecordError:
    if value is None:
        return RecordError(f"the record has no text in field {field!r}")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return RecordError(f"{value!r} in field {field!r} is not a text", expected="a text")
    try:
        text = str(value)
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return RecordError(
            f"the text in field {field!r} holds half a character ({str(value)[error.start]!a})",
            expected="whole Unicode characters",
        )
    return text


def training_texts(field: str, records: Records) -> list[str]:
    """The texts of the training split.

    Raises:
        UserError: there are none, or all are alike.
    """
    texts = [text for text in texts_in(field, records) if isinstance(text, str)]
    if not any(text.strip() for text in texts):
        raise UserError(f"none of the {len(records):,} training records has a text in field {field!r}")
    if len(set(texts)) == 1 and len(texts) > 1:
        raise UserError(
            f"all {len(texts):,} training records have the same text in field {field!r}: {texts[0][:60]!r}",
            expected="texts that differ",
            hint="choose another target.field",
        )
    return texts


def learn(tokens: Tokens, texts: Sequence[str], size: int | None, min_count: int) -> Vocabulary:
    """The vocabulary of texts; `size` is the most tokens in it."""
    size = size or SIZES[tokens]
    if tokens == "bytes":
        return vocabulary.Bytes()
    if tokens == "characters":
        return vocabulary.Characters(vocabulary.frequent_characters(texts, size))
    return vocabulary.Trained(vocabulary.train("bpe", texts, size, min_count))


def shared(part: Input, name: str) -> Vocabulary:
    """The vocabulary of a text input, for a target that speaks the same tokens.

    Raises:
        UserError: it has none, or one that cannot write texts.
    """
    if not isinstance(part, Spells):
        raise UserError(
            f"target.joint shares the vocabulary of a text input; input {name!r} has none", hint="leave joint out"
        )
    kind = part.vocabulary
    if kind.end is None or not any(kind.token_bytes):
        raise UserError(
            f"target.joint needs a vocabulary that texts can be written in; that of input {name!r} "
            + ("has no end-of-text token" if kind.end is None else "loses the spaces between words"),
            hint=f'inputs.{name}.tokens = "bpe"',
        )
    return kind


def usual_length(lengths: np.ndarray) -> int:
    """The most tokens of an answer where the recipe does not say."""
    return int(np.clip(np.ceil(LONGER * lengths.max()), 1, LONGEST))


def spelled(texts: Sequence[str]) -> Ragged:
    """Texts as a column of their bytes, uint8."""
    encoded = [text.encode("utf-8") for text in texts]
    lengths = torch.tensor([len(each) for each in encoded], dtype=torch.int64)
    values = torch.from_numpy(np.frombuffer(b"".join(encoded), dtype=np.uint8).copy())
    return Ragged(values=values, starts=lengths.cumsum(0) - lengths, lengths=lengths)


def read_back(bytes_BT: Tensor, length_B: Tensor) -> list[str]:
    """The texts of a padded column of bytes."""
    rows = bytes_BT.to("cpu", torch.uint8).numpy()
    return [bytes(row[:length]).decode() for row, length in zip(rows, length_B.tolist(), strict=True)]
