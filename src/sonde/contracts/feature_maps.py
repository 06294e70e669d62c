"""Features for classical models, by layout: what the field feeds them with pictures, sounds, texts, tables and graphs.

An input whose layout says too little (the fingerprint of a molecule) brings a map of its own (`Input.feature_map`).
B example, T position, F channel, S stretch, W word, E entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

import torch

from sonde.base.errors import UserError
from sonde.contracts.classical import Bag, FeatureMap, Matrix
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec, LayoutName, Per

if TYPE_CHECKING:
    from torch import Tensor

# The longest side of a picture, in pixels; the stretches of a sound or series.
SIDE, STRETCHES = 32, 10
# The most n-grams, and the fewest training texts that one has to be in.
MOST_GRAMS, MIN_TEXTS = 200_000, 2
# Neighbours whose token and parts say something of a word.
REACH = 2


class Pixels(FeatureMap):
    """The pixels (voxels) themselves, averaged to at most 32 a side."""

    about = "pixels"
    first_choice: ClassVar[str] = "svm"

    def forward(self, tensors: Tensors, per: Per) -> Matrix:
        grid = tensors["grid"].contiguous()
        size = [min(side, SIDE) for side in grid.shape[2:]]
        if size != list(grid.shape[2:]):
            grid = torch.nn.functional.interpolate(grid, size=size, mode="area")
        return Matrix.of(grid.flatten(1), same_scale=True)


class Stretches(FeatureMap):
    """Mean and deviation of every channel in ten stretches of time of equal length."""

    about = "each band's mean and deviation in ten stretches of time"
    first_choice: ClassVar[str] = "svm"

    def forward(self, tensors: Tensors, per: Per) -> Matrix:
        frames_BTF, length_B = tensors["frames"].double(), tensors["length"].clamp_min(1)
        edges_BS = length_B[:, None] * torch.arange(STRETCHES + 1, device=length_B.device) // STRETCHES
        start_BS, stop_BS = edges_BS[:, :-1], torch.maximum(edges_BS[:, 1:], edges_BS[:, :-1] + 1)
        # A sound of fewer frames than stretches gives the same frame to several.
        stop_BS = torch.minimum(stop_BS, length_B[:, None])
        start_BS = torch.minimum(start_BS, stop_BS - 1)
        count_BS1 = (stop_BS - start_BS)[:, :, None]
        mean_BSF = _between(frames_BTF, start_BS, stop_BS) / count_BS1
        square_BSF = _between(frames_BTF.square(), start_BS, stop_BS) / count_BS1
        deviation_BSF = (square_BSF - mean_BSF.square()).clamp_min(0).sqrt()
        return Matrix.of(torch.cat([mean_BSF, deviation_BSF], dim=2).flatten(1).float())


def _between(values_BTF: Tensor, start_BS: Tensor, stop_BS: Tensor) -> Tensor:
    """Sums over stretches, (B, S, F)."""
    sums = torch.nn.functional.pad(values_BTF.cumsum(1), (0, 0, 1, 0))
    wide = values_BTF.shape[2]
    return sums.gather(1, stop_BS[:, :, None].expand(-1, -1, wide)) - sums.gather(
        1, start_BS[:, :, None].expand(-1, -1, wide)
    )


class Columns(FeatureMap):
    """Numbers and categories as they are."""

    about = "the columns"
    first_choice: ClassVar[str] = "gradient-boosting"

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, tensors: Tensors, per: Per) -> Matrix:
        return Matrix(numbers=tensors["numbers"], categories=tensors["categories"], sizes=self.sizes)


class Values(FeatureMap):
    """A vector as it is."""

    about = "the values"
    first_choice: ClassVar[str] = "gradient-boosting"

    def forward(self, tensors: Tensors, per: Per) -> Matrix:
        return Matrix.of(tensors["vector"])


class Pooled(FeatureMap):
    """Sum, mean and largest value of every channel over the elements of a set or the nodes of a graph, and how many
    there are."""

    about = "sums, means and maxima over all elements"
    first_choice: ClassVar[str] = "random-forest"

    def forward(self, tensors: Tensors, per: Per) -> Matrix:
        length_B = tensors["length"]
        if "nodes" in tensors:
            values, row = tensors["nodes"], torch.arange(len(length_B)).repeat_interleave(length_B)
        else:
            inside_BT = torch.arange(tensors["set"].shape[1]) < length_B[:, None]
            values, row = tensors["set"][inside_BT], inside_BT.nonzero()[:, 0]
        # A set may be empty: it has sum, mean and maximum 0.
        total = values.new_zeros(len(length_B), values.shape[1]).index_add(0, row, values)
        index = row[:, None].expand_as(values)
        largest = torch.zeros_like(total).scatter_reduce(0, index, values, "amax", include_self=False)
        count = length_B[:, None].to(values.dtype)
        return Matrix.of(torch.cat([total, total / count.clamp_min(1), largest, count], dim=1))


class Tokens(FeatureMap):
    """TF-IDF of n-grams of tokens (sublinear counts, smooth idf, rows of norm 1: Manning et al. 2008, as scikit-learn's
    TfidfVectorizer). For an answer per word: the word, its parts, and those of its neighbours.

    `keys` are the n-grams that training showed, as sorted int64 numbers; `idf` is their weight.
    """

    first_choice: ClassVar[str] = "linear"
    gives: ClassVar[tuple[Per, ...]] = ("example", "position")
    keys: Tensor
    idf: Tensor

    def __init__(self, spec: InputSpec, grams: tuple[int, int], about: str) -> None:
        super().__init__()
        self.vocabulary, self.subwords, self.about = spec.vocabulary, spec.subwords, about
        # The numbers of n-grams have to fit into 62 bits.
        most = max(1, int(62 - math.log2(grams[1])) // max(1, math.ceil(math.log2(max(2, spec.vocabulary)))))
        self.grams = (min(grams[0], most), min(grams[1], most))
        self.register_buffer("keys", torch.empty(0, dtype=torch.int64))
        self.register_buffer("idf", torch.empty(0, dtype=torch.float64))

    def learn(self, batches: Iterable[Tensors], per: Per) -> None:
        seen, texts = [], 0
        for tensors in batches:
            rows, keys = self._grams(tensors) if per == "example" else self._around(tensors)
            pairs = torch.unique(torch.stack([rows, keys]), dim=1)
            seen.append(pairs[1])
            texts += len(tensors["length"]) if per == "example" else int(tensors["words"].sum())
        keys, in_texts = torch.unique(torch.cat(seen), return_counts=True)
        often = in_texts >= min(MIN_TEXTS, max(1, texts // 2))
        keys, in_texts = keys[often], in_texts[often]
        if len(keys) > MOST_GRAMS:
            kept = in_texts.argsort(descending=True, stable=True)[:MOST_GRAMS].sort().values
            keys, in_texts = keys[kept], in_texts[kept]
        self.keys = keys
        self.idf = torch.log((1 + texts) / (1 + in_texts.double())) + 1

    def restore(self, tensors: Tensors) -> None:
        if not self._are_sound(tensors):
            raise UserError("the n-grams are damaged", expected="sorted int64 keys and a float64 weight for each")
        self.keys, self.idf = tensors["keys"], tensors["idf"]

    @staticmethod
    def _are_sound(tensors: Tensors) -> bool:
        if set(tensors) != {"keys", "idf"}:
            return False
        keys, idf = tensors["keys"], tensors["idf"]
        fits = keys.dtype == torch.int64 and idf.dtype == torch.float64 and keys.shape == idf.shape
        return fits and keys.ndim == 1 and bool((keys[1:] > keys[:-1]).all())

    def forward(self, tensors: Tensors, per: Per) -> Matrix:
        bag = self._words(tensors) if per == "position" else self._texts(tensors)
        return Matrix.of(torch.empty(len(bag.length_B), 0), bag=bag)

    def _grams(self, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """The example and the number of every n-gram, (E,) each."""
        tokens_BT, length_B = tensors["tokens"], tensors["length"]
        rows, keys = [], []
        for size in range(self.grams[0], self.grams[1] + 1):
            count = tokens_BT.shape[1] - size + 1
            if count < 1:
                continue
            key_BT = torch.zeros_like(tokens_BT[:, :count])
            for offset in range(size):
                key_BT = key_BT * self.vocabulary + tokens_BT[:, offset : offset + count]
            inside_BT = torch.arange(count) <= length_B[:, None] - size
            rows.append(inside_BT.nonzero()[:, 0])
            keys.append(key_BT[inside_BT] * self.grams[1] + size - 1)
        return torch.cat(rows), torch.cat(keys)

    def _known(self, rows: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the keys that training showed, one entry for each row and key: row, column and how often, (E,) each."""
        width = max(1, len(self.keys))
        place = torch.searchsorted(self.keys, keys).clamp(max=width - 1)
        known = self.keys[place] == keys if len(self.keys) else torch.zeros(len(keys), dtype=torch.bool)
        entries, times = torch.unique(rows[known] * width + place[known], return_counts=True)
        return entries // width, entries % width, times

    def _texts(self, tensors: Tensors) -> Bag:
        count = len(tensors["length"])
        row, column, times = self._known(*self._grams(tensors))
        values = (1 + times.double().log()) * self.idf[column]
        norm_B = torch.zeros(count, dtype=torch.float64).index_add(0, row, values.square()).sqrt()
        length_B = torch.bincount(row, minlength=count)
        return Bag(columns=column, values=values / norm_B[row], length_B=length_B, width=max(1, len(self.keys)))

    def _words(self, tensors: Tensors) -> Bag:
        row, column, times = self._known(*self._around(tensors))
        length_B = torch.bincount(row, minlength=int(tensors["words"].sum()))
        return Bag(columns=column, values=times.double(), length_B=length_B, width=max(1, len(self.keys)))

    def _around(self, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """Of every word itself and its parts, and those of its neighbours, as keys of their own: the number of the word
        in the batch and the key, (E,) each."""
        starts_BW, words_B = tensors["starts"], tensors["words"]
        inside_BW = torch.arange(starts_BW.shape[1]) < words_B[:, None]
        parts, sizes = [tensors["tokens"].gather(1, starts_BW)[:, :, None] + 1], [self.vocabulary + 1]
        if "subwords" in tensors:
            index_BWP = starts_BW[:, :, None].expand(-1, -1, tensors["subwords"].shape[2])
            parts.append(tensors["subwords"].gather(1, index_BWP) + 1)
            sizes += [self.subwords + 1] * index_BWP.shape[2]
        offsets_P = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        own_BWP = torch.cat(parts, dim=2).masked_fill(~inside_BW[:, :, None], 0)
        wide = torch.nn.functional.pad(own_BWP, (0, 0, REACH, REACH))
        total = starts_BW.shape[1]
        shifted = [wide[:, each : each + total] + (offsets_P + each * sum(sizes)) for each in range(2 * REACH + 1)]
        keys_NE = torch.cat(shifted, dim=2)[inside_BW]
        rows_N1 = torch.arange(len(keys_NE))[:, None].expand_as(keys_NE)
        return rows_N1.flatten(), keys_NE.flatten()


MAPS: dict[LayoutName, Callable[[InputSpec], FeatureMap]] = {
    "grid": lambda spec: Pixels(),
    "frames": lambda spec: Stretches(),
    "tokens": lambda spec: Tokens(spec, (1, 2), "TF-IDF of tokens and pairs of tokens"),
    "columns": lambda spec: Columns(spec.categories),
    "vector": lambda spec: Values(),
    "graph": lambda spec: Pooled(),
    "set": lambda spec: Pooled(),
}


def feature_map(spec: InputSpec) -> FeatureMap:
    """The features of a layout."""
    return MAPS[spec.layout](spec)
