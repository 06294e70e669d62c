"""Average precision and recall of boxes by COCO's rules (Lin et al. 2014), and the errors behind them (TIDE).

`match_boxes` compares answers with objects once, picture by picture; `box_scores` weighs what it found, for many rows
of weights at once.

Shape suffixes: R row of weights, B and N picture, A answer, D rank of an answer in its picture, M object, K class, S
size, T overlap that counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sonde.metrics.means import mean_of_defined, ratio

# Overlaps (IoU) from which on an answer finds an object, recalls at which precision is read, and answers of a class in
# a picture that count: as pycocotools has them.
OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
# Areas in pixels: all, small, medium, large.
AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
SIZES = ("", "_small", "_medium", "_large")
FALSE, TRUE, IGNORED = 0, 1, 2
# Kinds of errors, by number from 1 on; an object that no answer is near was missed. Overlaps below `NEAR` are none.
ERRORS = ("place", "class", "duplicate", "background", "both")
NEAR = 0.1
# What `match_boxes` gives of each answer; the rest is of each picture.
BOX_ANSWERS = frozenset({"score", "class", "rank", "hit", "error", "mended"})
# Numbers held at once, in rows of weights times answers.
CELLS = 4_000_000


def box_overlaps(answer_BD4: np.ndarray, object_BM4: np.ndarray, crowd_BM: np.ndarray) -> np.ndarray:
    """Intersection over union (B, D, M); with a crowd, over the area of the answer."""
    low = np.maximum(answer_BD4[:, :, None, :2], object_BM4[:, None, :, :2])
    high = np.minimum(answer_BD4[:, :, None, 2:], object_BM4[:, None, :, 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    answer = _area(answer_BD4)[:, :, None]
    union = np.where(crowd_BM[:, None], answer, answer + _area(object_BM4)[:, None] - common)
    return common / np.maximum(union, 1e-12)


def match_boxes(
    *,
    picture_N: np.ndarray,
    score_N: np.ndarray,
    class_N: np.ndarray,
    box_N4: np.ndarray,
    object_BM4: np.ndarray,
    class_BM: np.ndarray,
    crowd_BM: np.ndarray,
    ignored_BM: np.ndarray,
    area_BM: np.ndarray,
    num_classes: int,
) -> dict[str, np.ndarray]:
    """Which answers find which objects, in B pictures.

    Answers (N,) lie picture by picture, best first; objects are padded, with class -1. Nobody has to find an object
    that is `ignored_BM` or a crowd, and finding one is no error; a crowd may be found many times.

    Of each answer: "score", "class", "rank" among those of its class in the picture, "hit" int8 (N, S * T) (0 false, 1
    true, 2 counts for nothing), "error" int8 (0: none, else the place in `ERRORS` from 1 on) and "mended" int64, the
    class in which it would be right if that error were mended, -1 if it were to go. Of each picture: "objects" (B, S,
    K) that are to be found and "missed" (B, K).
    """
    batch = len(object_BM4)
    count_B = np.bincount(picture_N, minlength=batch)
    place_N = np.arange(len(picture_N)) - (np.cumsum(count_B) - count_B)[picture_N]
    most = int(count_B.max(initial=0))
    box_BD4, class_BD = np.zeros((batch, most, 4)), np.full((batch, most), -2)
    box_BD4[picture_N, place_N], class_BD[picture_N, place_N] = box_N4, class_N
    overlap_BDM = box_overlaps(box_BD4, object_BM4, crowd_BM)
    real_BM = class_BM >= 0
    same_BDM = class_BD[:, :, None] == class_BM[:, None]
    free_BM = ignored_BM | crowd_BM
    outside_BSM = (area_BM[:, None] < AREAS[:, :1]) | (area_BM[:, None] > AREAS[:, 1:])
    free_BSM = free_BM[:, None] | outside_BSM
    hit_BDST, owner_BD = _matched(np.where(same_BDM, overlap_BDM, -1.0), free_BSM, crowd_BM, count_B)
    area_BD1 = _area(box_BD4)[:, :, None]
    odd_BDS = (area_BD1 < AREAS[:, 0]) | (area_BD1 > AREAS[:, 1])
    hit_BDST[(hit_BDST == FALSE) & odd_BDS[..., None]] = IGNORED
    error_BD, mended_BD, missed_BM = _errors(
        overlap_BDM, same_BDM, class_BM, real_BM & ~free_BM, hit_BDST[:, :, 0, 0], owner_BD
    )
    where = (picture_N, place_N)
    of_class_BMK = (class_BM[:, :, None] == np.arange(num_classes)).astype(np.int64)
    return {
        "score": score_N,
        "class": class_N.astype(np.int64),
        "rank": _rank(picture_N, class_N),
        "hit": hit_BDST[where].reshape(len(picture_N), len(AREAS) * len(OVERLAPS)),
        "error": error_BD[where],
        "mended": mended_BD[where],
        "objects": np.einsum("bsm,bmk->bsk", (~free_BSM & real_BM[:, None]).astype(np.int64), of_class_BMK),
        "missed": np.einsum("bm,bmk->bk", missed_BM.astype(np.int64), of_class_BMK),
    }


def _matched(
    overlap_BDM: np.ndarray, free_BSM: np.ndarray, crowd_BM: np.ndarray, count_B: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Every answer in the order of its score takes, of the objects of its class that are left, the one that it overlaps
    most: one that is to be found if there is one, else one that is free. Hits (B, D, S, T), and the object that an
    answer found for overlap 0.5 and all sizes (B, D), or -1."""
    batch, most, objects = overlap_BDM.shape
    hit = np.zeros((batch, most, len(AREAS), len(OVERLAPS)), dtype=np.int8)
    owner_BD = np.full((batch, most), -1)
    if not objects:
        return hit, owner_BD
    taken = np.zeros((batch, len(AREAS), len(OVERLAPS), objects), dtype=bool)
    enough_T1 = np.minimum(OVERLAPS, 1 - 1e-10)[:, None]
    for rank in range(most):
        # Pictures that have such an answer, near to any object.
        rows = np.flatnonzero((count_B > rank) & (overlap_BDM[:, rank].max(1) >= OVERLAPS[0]))
        if not len(rows):
            continue
        overlap_b11M = overlap_BDM[rows, rank][:, None, None]
        open_bSTM = (overlap_b11M >= enough_T1) & (~taken[rows] | crowd_BM[rows][:, None, None])
        free_bS1M = free_BSM[rows][:, :, None]
        found_bST = np.asarray(open_bSTM.any(-1))
        wanted_bSTM = open_bSTM & ~free_bS1M
        plain_bST = np.asarray(wanted_bSTM.any(-1))
        choice_bSTM = np.where(plain_bST[..., None], wanted_bSTM, open_bSTM)
        # Of equals the last, as pycocotools has it.
        chosen_bST = objects - 1 - np.where(choice_bSTM, overlap_b11M, -1.0)[..., ::-1].argmax(-1)
        hit[rows, rank] = np.where(plain_bST, TRUE, np.where(found_bST, IGNORED, FALSE))
        owner_BD[rows, rank] = np.where(found_bST[:, 0, 0], chosen_bST[:, 0, 0], -1)
        row, size, overlap = np.nonzero(found_bST)
        taken[rows[row], size, overlap, chosen_bST[row, size, overlap]] = True
    return hit, owner_BD


def _errors(
    overlap_BDM: np.ndarray,
    same_BDM: np.ndarray,
    class_BM: np.ndarray,
    wanted_BM: np.ndarray,
    hit_BD: np.ndarray,
    owner_BD: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The kind of error of each false answer, its class were it mended, and which objects nobody was near."""
    error_BD = np.zeros(hit_BD.shape, dtype=np.int8)
    mended_BD = np.full(hit_BD.shape, -1)
    found_BM = _marked(owner_BD, wanted_BM.shape)
    if not wanted_BM.shape[1] or not hit_BD.shape[1]:
        error_BD[hit_BD == FALSE] = 1 + ERRORS.index("background")
        return error_BD, mended_BD, wanted_BM & ~found_BM
    own_BDM = np.where(same_BDM & wanted_BM[:, None], overlap_BDM, 0.0)
    other_BDM = np.where(~same_BDM & wanted_BM[:, None], overlap_BDM, 0.0)
    own_BD, other_BD, enough = own_BDM.max(2), other_BDM.max(2), OVERLAPS[0]
    kinds = np.select(
        [
            (own_BD >= NEAR) & (own_BD < enough),
            other_BD >= enough,
            own_BD >= enough,
            np.maximum(own_BD, other_BD) < NEAR,
        ],
        [1, 2, 3, 4],
        default=5,
    )
    error_BD[:] = np.where(hit_BD == FALSE, kinds, 0)
    meant_BD = np.where(error_BD == 1, own_BDM.argmax(2), np.where(error_BD == 2, other_BDM.argmax(2), -1))
    # The first that means an object which nobody found would be right, the others would be too many.
    seen_BM = found_BM.copy()
    picture_B = np.arange(len(meant_BD))
    for rank in range(meant_BD.shape[1]):
        meant_B = meant_BD[:, rank]
        right_B = (meant_B >= 0) & ~seen_BM[picture_B, meant_B]
        mended_BD[right_B, rank] = class_BM[picture_B, meant_B][right_B]
        seen_BM[picture_B[right_B], meant_B[right_B]] = True
    return error_BD, mended_BD, wanted_BM & ~seen_BM


def _marked(owner_BD: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which objects (B, M) are among the owners."""
    found_BM = np.zeros(shape, dtype=bool)
    picture, rank = np.nonzero(owner_BD >= 0)
    found_BM[picture, owner_BD[picture, rank]] = True
    return found_BM


def _rank(picture_N: np.ndarray, class_N: np.ndarray) -> np.ndarray:
    """Which one of its class in its picture each answer is, from 0 on."""
    order = np.lexsort((np.arange(len(class_N)), class_N, picture_N))
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(picture_N[order]) != 0) | (np.diff(class_N[order]) != 0)
    starts = np.flatnonzero(first)
    rank_N = np.empty(len(order), dtype=np.int64)
    rank_N[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return rank_N


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_scores(
    columns: Mapping[str, np.ndarray], weights_RN: np.ndarray, classes: Sequence[str]
) -> dict[str, np.ndarray]:
    """COCO's twelve scores, AP by class, and errors, each (R,), from the columns of `match_boxes`.

    "map" is the mean over overlaps of 0.5 to 0.95 and over the classes that occur, "ap50" and "ap75" at one of them;
    "ar10" is the recall of the 10 best answers of a class in a picture, mean over overlaps. "error/place" and the
    others say by how much ap50 would rise without that kind of error; they do not add up.
    """
    flat = _flat(columns)
    parts = [_of_rows(flat, columns, weights_RN[part], len(classes)) for part in _rows_at_once(flat, weights_RN)]
    ap_RKST, ar_RKL, ar_RKS, gain_RE = (np.concatenate([part[place] for part in parts]) for place in range(4))
    scores = {
        "map": mean_of_defined(ap_RKST[:, :, 0].mean(-1)),
        "ap50": mean_of_defined(ap_RKST[:, :, 0, 0]),
        "ap75": mean_of_defined(ap_RKST[:, :, 0, 5]),
    }
    scores |= {f"ap{SIZES[size]}": mean_of_defined(ap_RKST[:, :, size].mean(-1)) for size in (1, 2, 3)}
    scores |= {f"ar{most}": mean_of_defined(ar_RKL[:, :, place]) for place, most in enumerate((1, 10, MOST))}
    scores |= {f"ar{SIZES[size]}": mean_of_defined(ar_RKS[:, :, size]) for size in (1, 2, 3)}
    scores |= {f"map/{name}": ap_RKST[:, code, 0].mean(-1) for code, name in enumerate(classes)}
    scores |= {f"ap50/{name}": ap_RKST[:, code, 0, 0] for code, name in enumerate(classes)}
    return scores | {f"error/{name}": gain_RE[:, place] for place, name in enumerate((*ERRORS, "missed"))}


def _flat(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The answers of all pictures together, best first; of equals those of the earlier picture."""
    lengths = np.fromiter(map(len, columns["score"]), np.int64, len(columns["score"]))
    flat = {name: np.concatenate([*columns[name]]) for name in BOX_ANSWERS}
    flat["picture"] = np.repeat(np.arange(len(lengths)), lengths)
    order = np.argsort(-flat["score"], kind="stable")
    return {name: values[order] for name, values in flat.items()}


def _rows_at_once(flat: Mapping[str, np.ndarray], weights_RN: np.ndarray) -> Iterator[slice]:
    step = max(1, CELLS // max(1, len(flat["score"])))
    return (slice(start, start + step) for start in range(0, max(1, len(weights_RN)), step))


def _of_rows(
    flat: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray], weights_RN: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """AP (R, K, S, T), AR at 1, 10 and 100 answers (R, K, 3), AR by size (R, K, S), gains in AP50 (R, errors)."""
    rows = len(weights_RN)
    objects_RSK = np.tensordot(weights_RN, columns["objects"].astype(np.float64), axes=1)
    missed_RK = weights_RN @ columns["missed"].astype(np.float64)
    ap_RKST = np.full((rows, num_classes, len(AREAS), len(OVERLAPS)), np.nan)
    ar_RKL, ar_RKS = np.full((rows, num_classes, 3), np.nan), np.full((rows, num_classes, len(AREAS)), np.nan)
    gain_RKE = np.full((rows, num_classes, len(ERRORS) + 1), np.nan)
    hit_AST = flat["hit"].reshape(-1, len(AREAS), len(OVERLAPS))
    for code in range(num_classes):
        mine = np.flatnonzero((flat["class"] == code) & (flat["rank"] < MOST))
        weight_RA = weights_RN[:, flat["picture"][mine]]
        curve = _Curves(weight_RA)
        for size in range(len(AREAS)):
            for place in range(len(OVERLAPS)):
                ap_RKST[:, code, size, place] = curve.ap(hit_AST[mine, size, place], objects_RSK[:, size, code])
        for limit, most in enumerate((1, 10, MOST)):
            kept = mine[flat["rank"][mine] < most]
            ar_RKL[:, code, limit] = _recall(flat, kept, hit_AST[:, 0], weights_RN, objects_RSK[:, 0, code])
        for size in range(len(AREAS)):
            ar_RKS[:, code, size] = _recall(flat, mine, hit_AST[:, size], weights_RN, objects_RSK[:, size, code])
        plain = ap_RKST[:, code, 0, 0]
        for error in range(len(ERRORS)):
            after = _without(flat, code, error + 1)
            better = _Curves(weights_RN[:, flat["picture"][after]]).ap(
                np.where(flat["error"][after] == error + 1, TRUE, hit_AST[after, 0, 0]).astype(np.int8),
                objects_RSK[:, 0, code],
            )
            gain_RKE[:, code, error] = better - plain
        nothing_missed = curve.ap(hit_AST[mine, 0, 0], objects_RSK[:, 0, code] - missed_RK[:, code])
        gain_RKE[:, code, -1] = np.where(np.isnan(nothing_missed), 0.0, nothing_missed) - plain
    gain_RE = np.stack([mean_of_defined(gain_RKE[:, :, error]) for error in range(len(ERRORS) + 1)], 1)
    return ap_RKST, ar_RKL, ar_RKS, gain_RE


def _without(flat: Mapping[str, np.ndarray], code: int, error: int) -> np.ndarray:
    """The answers for a class once an error is mended: those without it, and those that are right then."""
    has = flat["error"] == error
    return np.flatnonzero(np.where(has, flat["mended"] == code, flat["class"] == code) & (flat["rank"] < MOST))


class _Curves:
    """Precision over recall of the answers (A,) of a class, best first, for every row of their weights (R, A)."""

    def __init__(self, weight_RA: np.ndarray) -> None:
        self.weight_RA = weight_RA
        self.counted: dict[bytes, np.ndarray] = {}

    def ap(self, hit_A: np.ndarray, objects_R: np.ndarray) -> np.ndarray:
        """The precision, taken as never rising with recall, at 101 recalls; NaN where a row has no object."""
        true = np.flatnonzero(hit_A == TRUE)
        found_Rt = self.weight_RA[:, true].cumsum(1)
        precision_Rt = found_Rt / np.maximum(self._counted(hit_A)[:, true], 1e-12)
        best_Rt = np.maximum.accumulate(precision_Rt[:, ::-1], axis=1)[:, ::-1]
        defined_R = objects_R > 0
        recall_Rt = found_Rt / np.where(defined_R, objects_R, 1.0)[:, None]
        reached_Rt = np.searchsorted(RECALLS, recall_Rt.ravel(), side="right").reshape(recall_Rt.shape)
        steps_Rt = np.diff(reached_Rt, axis=1, prepend=0)
        return np.where(defined_R, (best_Rt * steps_Rt).sum(1) / len(RECALLS), np.nan)

    def _counted(self, hit_A: np.ndarray) -> np.ndarray:
        """How many answers, true or false, there are up to each: alike for most overlaps."""
        counts_A = hit_A != IGNORED
        name = counts_A.tobytes()
        if name not in self.counted:
            if len(self.counted) > 1:
                self.counted.popitem()
            self.counted[name] = (self.weight_RA * counts_A).cumsum(1)
        return self.counted[name]


def _recall(
    flat: Mapping[str, np.ndarray],
    which_A: np.ndarray,
    hit_AT: np.ndarray,
    weights_RN: np.ndarray,
    objects_R: np.ndarray,
) -> np.ndarray:
    """The share of objects that some answers found, mean over overlaps (R,)."""
    true_A = (hit_AT[which_A] == TRUE).sum(1)
    found_N = np.bincount(flat["picture"][which_A], weights=true_A, minlength=weights_RN.shape[1])
    return ratio(weights_RN @ found_N, objects_R * len(OVERLAPS))
