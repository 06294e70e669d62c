"""Between texts and token ids: bytes, characters, and whatever a tokenizer of the tokenizers library knows.

Ids 0, 1 and 2 are kept for padding, the end of a text and what is unknown, as in ByT5 (Xue et al. 2022, "ByT5: Towards
a Token-Free Future"); a tokenizer that comes from elsewhere keeps its own.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Iterable, Sequence
from itertools import chain
from types import ModuleType
from typing import Literal

import numpy as np

from sonde.base.errors import UserError

PADDING, END, UNKNOWN = 0, 1, 2
RESERVED = ("<padding>", "<end>", "<unknown>")
# What other people's tokenizers call them; for hiding tokens a mask is better than an unknown.
_PADDING_NAMES = ("<padding>", "<pad>", "[PAD]", "<|padding|>")
_END_NAMES = ("<end>", "<|endoftext|>", "</s>", "<eos>", "[SEP]")
_UNKNOWN_NAMES = ("<unknown>", "[MASK]", "<mask>", "[UNK]", "<unk>")


class Vocabulary(abc.ABC):
    """Turns texts into token ids and back. `end` and `unknown` are None where a foreign tokenizer has no such token."""

    padding: int = PADDING
    # Tokens around every text, which are kept where a long one is cut.
    before: int = 0
    after: int = 0
    end: int | None = END
    unknown: int | None = UNKNOWN

    @property
    @abc.abstractmethod
    def token_bytes(self) -> list[int]:
        """How many bytes of text each token stands for; 0 where that cannot be said."""

    @abc.abstractmethod
    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts one after another, int32 (total,), and the length of each, int64 (N,)."""

    @abc.abstractmethod
    def encode_words(self, sentences: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The ids and lengths of words with spaces between them, and the place of each word's first token in its
        sentence, int32 (all words,)."""

    @abc.abstractmethod
    def save(self) -> tuple[str, str]:
        """What `restore` makes it again from: its kind, and what it learned as a text."""

    @abc.abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; reserved ones are left out, bytes that are no UTF-8 become U+FFFD."""


class Bytes(Vocabulary):
    """The bytes of UTF-8: byte b is the id b + 3."""

    @property
    def token_bytes(self) -> list[int]:
        return [0] * len(RESERVED) + [1] * 256

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        encoded = [text.encode("utf-8") for text in texts]
        ids = np.frombuffer(b"".join(encoded), dtype=np.uint8).astype(np.int32) + len(RESERVED)
        return ids, _lengths(encoded)

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sizes = [[len(word.encode("utf-8")) for word in words] for words in sentences]
        return *self.encode([" ".join(words) for words in sentences]), _starts(sizes)

    def save(self) -> tuple[str, str]:
        return "bytes", ""

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(one - len(RESERVED) for one in ids if one >= len(RESERVED)).decode("utf-8", errors="replace")


class Characters(Vocabulary):
    """Unicode characters; `known` holds them in the order of their code points."""

    def __init__(self, known: str) -> None:
        self.known = known
        self._codes = _code_points(known)

    @property
    def token_bytes(self) -> list[int]:
        return [0] * len(RESERVED) + [len(character.encode("utf-8")) for character in self.known]

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        codes = _code_points("".join(texts))
        place = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        ids = np.where(self._codes[place] == codes, place + len(RESERVED), UNKNOWN).astype(np.int32)
        return ids, _lengths(texts)

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sizes = [[len(word) for word in words] for words in sentences]
        return *self.encode([" ".join(words) for words in sentences]), _starts(sizes)

    def save(self) -> tuple[str, str]:
        return "characters", self.known

    def decode(self, ids: Sequence[int]) -> str:
        known = [*[""] * len(RESERVED), *self.known]
        return "".join(known[one] for one in ids)


class Trained(Vocabulary):
    """A tokenizer of the tokenizers library, from the text of its tokenizer.json.

    Special tokens are never read out of a text: a text that spells "<end>" does not end there. With `around`, those
    that the tokenizer puts around a text ([CLS] and [SEP]) are there, as pretrained networks want them.
    """

    def __init__(self, text: str, *, around: bool = False) -> None:
        self._text = text
        self._tokenizer = _tokenizers().Tokenizer.from_str(text)
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.padding = self._first(_PADDING_NAMES) or 0
        self.end = self._first(_END_NAMES)
        self.unknown = self._first(_UNKNOWN_NAMES)
        self.around = around
        self.before, self.after = self._around() if around else (0, 0)

    def _around(self) -> tuple[int, int]:
        """How many tokens stand before and after those of a text."""
        # Some tokenizers make no token of a text that is empty.
        mask = self._tokenizer.encode("a", add_special_tokens=True).special_tokens_mask
        inside = [place for place, special in enumerate(mask) if not special]
        return (inside[0], len(mask) - 1 - inside[-1]) if inside else (0, len(mask))

    def _first(self, names: Iterable[str]) -> int | None:
        ids = [self._tokenizer.token_to_id(name) for name in names]
        return next((one for one in ids if one is not None), None)

    @property
    def token_bytes(self) -> list[int]:
        known = self._tokenizer.get_vocab(with_added_tokens=True)
        count = [0] * (max(known.values()) + 1)
        decoder = json.loads(self._tokenizer.to_str())["decoder"] or {}
        # Byte-level tokens are spelt with one character a byte; what others stand for depends on their neighbours.
        if decoder.get("type") == "ByteLevel":
            special = set(self._tokenizer.get_added_tokens_decoder())
            for token, one in known.items():
                count[one] = 0 if one in special else len(token)
        return count

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=self.around)
        encoded = [one.ids for one in found]
        lengths = _lengths(encoded)
        return np.fromiter(chain.from_iterable(encoded), np.int32, int(lengths.sum())), lengths

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # As one text, whatever a tokenizer does with spaces: the first token of a word is the first that ends in it.
        texts = [" ".join(words) for words in sentences]
        found = self._tokenizer.encode_batch(texts, add_special_tokens=self.around)
        lengths = _lengths([one.ids for one in found])
        ids = np.fromiter(chain.from_iterable(one.ids for one in found), np.int32, int(lengths.sum()))
        starts = []
        for words, one in zip(sentences, found, strict=True):
            ends = [stop for _, stop in one.offsets[self.before : len(one.ids) - self.after]]
            place = np.searchsorted(ends, _starts([[len(word) for word in words]]), side="right")
            # A tokenizer may leave nothing of a last word.
            starts.append((place.clip(max=max(0, len(ends) - 1)) + self.before).astype(np.int32))
        return ids, lengths, np.concatenate(starts)

    def save(self) -> tuple[str, str]:
        return "trained", self._text

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)


class WholeWords(Trained):
    """A tokenizer that gives one token for each word, whatever the word is made of."""

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids, _ = self.encode([word for words in sentences for word in words])
        # A word that is spelt like a reserved token is none.
        ids[ids < len(RESERVED)] = UNKNOWN
        lengths = _lengths(sentences)
        return ids, lengths, np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])


def restore(kind: str, learned: str) -> Vocabulary:
    """The vocabulary that `Vocabulary.save` gave."""
    if kind == "bytes":
        return Bytes()
    return Characters(learned) if kind == "characters" else Trained(learned)


def frequent_characters(texts: Sequence[str], size: int) -> str:
    """The characters of the texts, the most frequent ones if they are too many, in the order of their code points."""
    codes, counts = np.unique(_code_points("".join(texts)), return_counts=True)
    kept = np.sort(codes[np.argsort(-counts, kind="stable")[: size - len(RESERVED)]])
    return kept.astype("<u4").tobytes().decode("utf-32-le")


def train(
    tokens: Literal["words", "bpe"], texts: Sequence[str], size: int, min_count: int, *, whole: bool = False
) -> str:
    """A tokenizer.json trained on the texts: the same texts give the same tokenizer.

    Words are runs of letters and digits, and single marks, unless each text is a `whole` word already; all digits
    become 0, so that numbers of a kind are one word. BPE is that of GPT-2 (Radford et al. 2019), over bytes: nothing
    is unknown to it and no text is changed.
    """
    library = _tokenizers()
    if tokens == "words":
        tokenizer = library.Tokenizer(library.models.WordLevel(unk_token=RESERVED[UNKNOWN]))
        tokenizer.normalizer = library.normalizers.Replace(library.Regex(r"\d"), "0")
        words = library.Regex(r"\w+|[^\w\s]")
        if not whole:
            tokenizer.pre_tokenizer = library.pre_tokenizers.Split(words, "removed", invert=True)
        trainer = library.trainers.WordLevelTrainer(
            vocab_size=size, min_frequency=min_count, special_tokens=list(RESERVED), show_progress=False
        )
    else:
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=min_count,
            special_tokens=list(RESERVED),
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def check_saved(vocabulary: Vocabulary) -> None:
    """Whether a vocabulary is one that `train` or `frequent_characters` made, or a tokenizer that can be used.

    Raises:
        ValueError: it is not.
    """
    if isinstance(vocabulary, Characters):
        known = _code_points(vocabulary.known).astype(np.int64)
        if not len(known) or (np.diff(known) <= 0).any():
            raise ValueError("the known characters are not in order")
    sizes = vocabulary.token_bytes
    ids, _ = vocabulary.encode(["a"])
    if len(ids) and int(ids.max()) >= len(sizes):
        raise ValueError("the vocabulary has ids beyond its size")


def check_tokenizer(text: str, path: object) -> None:
    """Whether a text is a tokenizer.json.

    Raises:
        UserError: it is not.
    """
    try:
        _tokenizers().Tokenizer.from_str(text)
    except UserError:
        raise
    except Exception as error:  # the library raises plain exceptions
        raise UserError(
            f"{path} is not a tokenizer: {error}", expected="a tokenizer.json of the tokenizers library"
        ) from error


def _tokenizers() -> ModuleType:
    try:
        import tokenizers
    except ImportError as error:
        raise UserError(
            "words and bpe need the package tokenizers, which is not installed",
            hint='pip install "sonde[text]", or choose tokens = "characters"',
        ) from error
    return tokenizers


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _starts(sizes: Sequence[Sequence[int]]) -> np.ndarray:
    """Where each word starts in its sentence if there is a space after each, int32 (all words,)."""
    return np.concatenate([np.cumsum([0, *(size + 1 for size in row[:-1])], dtype=np.int32) for row in sizes])


def _lengths(parts: Sequence[Sequence[object]]) -> np.ndarray:
    return np.fromiter(map(len, parts), np.int64, len(parts))
