"""Records that are nearly the same: a picture saved again, a text with a word changed, a row rounded, a louder take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sonde.checks.subject import Subject
from sonde.contracts.finding import Finding, judged
from sonde.contracts.specs import InputSpec
from sonde.data.batches import in_order
from sonde.data.store import Encoded

# Records that are compared, of training and of a held-out split.
MOST_TRAIN, MOST_HELD = 10_000, 3000
# A record is nearly another where their distance is below this share of the median distance from a training record to
# its nearest neighbour: what is usual in these data is no copy. A text with one word of ten changed keeps more than
# half of its pairs of words (Broder 1997, "On the resemblance and containment of documents"); noise that nobody hears
# moves the bands of a recording more than that of a picture moves its cells.
NEAR: Mapping[str, float] = {"tokens": 0.6, "frames": 0.45}
ANY = 0.25
# As for exact copies; and what training records are among themselves counts as chance, twice over.
WARN, FAIL, CHANCE = 0.01, 0.2, 2.0
# A few numbers are near each other by chance more often than pictures, texts or recordings.
COARSE = 0.05
# Fewer records have no usual distance.
FEWEST = 40
BATCH, BUCKETS, CELLS, PARTS = 256, 1024, 12, 8


def near_duplicates(subject: Subject) -> Iterator[Finding]:
    """Held-out records that are nearly a training record, and training records that are nearly another."""
    train = subject.sets["train"]
    if subject.is_stream or len(train.ids) < FEWEST or not subject.layouts <= set(_BY_LAYOUT):
        return
    share = max(NEAR.get(layout, ANY) for layout in subject.layouts)
    ours, rows = _described(subject, train, MOST_TRAIN)
    distance_N, nearest_N = _nearest(ours, ours, itself=True)
    # Exact copies are told of by another check; they would make the usual distance nothing.
    usual = float(np.median(distance_N[distance_N > EXACT])) if (distance_N > EXACT).any() else 0.0
    if not usual:
        return
    near_N = (distance_N > EXACT) & (distance_N < share * usual)
    within = float(near_N.mean())
    order = np.flatnonzero(near_N)[np.argsort(distance_N[near_N])]
    yield Finding(
        check="near duplicates",
        verdict=judged(within, warn=0.1),
        text=f"{int(near_N.sum()):,} of {len(near_N):,} training records ({within:.1%}) are nearly another one",
        fix="keep those that belong together in one split: data.group; a network sees little new in them",
        records=[f"{train.ids[rows[at]]} ~ {train.ids[rows[nearest_N[at]]]}" for at in order[:1000]],
        numbers={"share": within, "usual_distance": usual},
    )
    for split, each in subject.held_out.items():
        theirs, places = _described(subject, each, MOST_HELD)
        distance_M, nearest_M = _nearest(theirs, ours, itself=False)
        near_M = (distance_M > EXACT) & (distance_M < share * usual)
        found = float(near_M.mean())
        beyond = max(0.0, found - CHANCE * within)
        order = np.flatnonzero(near_M)[np.argsort(distance_M[near_M])]
        yield Finding(
            check="near duplicates across splits",
            verdict=judged(beyond, warn=COARSE if subject.layouts <= {"columns"} else WARN, fail=FAIL)
            if near_M.sum() > 2
            else "pass",
            text=f"{int(near_M.sum()):,} of {len(near_M):,} {split} records ({found:.1%}) are nearly a training record"
            + (f"; of training records {within:.1%} are nearly another" if found else ""),
            fix="keep what belongs together on one side: data.group names a column whose records belong together",
            records=[f"{each.ids[places[at]]} ~ {train.ids[rows[nearest_M[at]]]}" for at in order[:1000]],
            numbers={"split": split, "share": found, "share_within_training": within},
        )


# Distances below this are rounding: the same record.
EXACT = 1e-3


def _nearest(ones: Tensor, others: Tensor, *, itself: bool) -> tuple[np.ndarray, np.ndarray]:
    """The distance to the nearest of the others, and which that is, a block at a time."""
    distances, places = [], []
    for start in range(0, len(ones), BATCH):
        apart = torch.cdist(ones[start : start + BATCH], others)
        if itself:
            row = torch.arange(len(apart))
            apart[row, start + row] = torch.inf
        values, found = apart.min(1)
        distances.append(values)
        places.append(found)
    return torch.cat(distances).numpy(), torch.cat(places).numpy()


def _described(subject: Subject, encoded: Encoded, most: int) -> tuple[Tensor, np.ndarray]:
    """A vector for each of up to `most` records, (N, F), and their positions in the split."""
    count = len(encoded.ids)
    rows = np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
    examples = encoded.examples.take(torch.from_numpy(rows))
    found = []
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            batch = subject.task.preprocess(in_order(subject.task, examples, BATCH, start))
            parts = [_BY_LAYOUT[spec.layout](batch.inputs[name], spec) for name, spec in subject.task.specs.items()]
            found.append(torch.cat([part.float().cpu() for part in parts], dim=1))
    return torch.cat(found), rows


def _grid(tensors: Mapping[str, Tensor], spec: InputSpec) -> Tensor:
    """A small copy of mean 0 and length 1: brighter, darker, sharper and noisier copies are near each other."""
    grid = tensors["grid"].float()
    size = [min(CELLS, each) for each in grid.shape[2:]]
    pool = functional.adaptive_avg_pool2d if len(size) == 2 else functional.adaptive_avg_pool3d
    cells = pool(grid, size).flatten(1)  # type: ignore[arg-type]
    return functional.normalize(cells - cells.mean(1, keepdim=True), dim=1)


def _tokens(tensors: Mapping[str, Tensor], spec: InputSpec) -> Tensor:
    """Which tokens and pairs of neighbours there are, in buckets, of length 1."""
    tokens_BT = tensors["tokens"].long()
    inside_BT = (torch.arange(tokens_BT.shape[1]) < tensors["length"][:, None]).float()
    pairs_BT = (tokens_BT[:, :-1] * 1_000_003 + tokens_BT[:, 1:]) % BUCKETS
    found = torch.zeros(len(tokens_BT), 2 * BUCKETS)
    found.scatter_add_(1, tokens_BT % BUCKETS, inside_BT)
    found.scatter_add_(1, BUCKETS + pairs_BT, inside_BT[:, 1:])
    return functional.normalize(found.clamp(max=1), dim=1)


def _frames(tensors: Mapping[str, Tensor], spec: InputSpec) -> Tensor:
    """The channels that stand out in each eighth of the time, of length 1."""
    frames_BTC, length_B1 = tensors["frames"].float(), tensors["length"][:, None].clamp(min=1)
    place_T = torch.arange(frames_BTC.shape[1])
    found = []
    for part in range(PARTS):
        low_B1 = length_B1 * part // PARTS
        high_B1 = torch.maximum(low_B1 + 1, length_B1 * (part + 1) // PARTS)
        weight_BT = ((place_T >= low_B1) & (place_T < high_B1)).float()
        weight_BT = weight_BT / weight_BT.sum(1, keepdim=True).clamp(min=1)
        cells_BC = torch.einsum("bt,btc->bc", weight_BT, frames_BTC)
        # What stands out of each part: loudness and a soft noise change the rest.
        found.append((cells_BC - cells_BC.mean(1, keepdim=True)).clamp(min=0))
    return functional.normalize(torch.cat(found, dim=1), dim=1)


def _columns(tensors: Mapping[str, Tensor], spec: InputSpec) -> Tensor:
    """The standardized numbers, extreme ones cut, and the categories, each as one number of weight 1."""
    parts = [tensors["numbers"].float().clamp(-5, 5)]
    parts += [functional.one_hot(codes % 64, 64).float() for codes in tensors["categories"].long().T]
    return torch.cat(parts, dim=1)


_BY_LAYOUT: dict[str, Callable[[Mapping[str, Tensor], InputSpec], Tensor]] = {
    "grid": _grid,
    "tokens": _tokens,
    "frames": _frames,
    "columns": _columns,
}
