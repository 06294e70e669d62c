"""Metrics as pure functions of columns and of rows of example weights.

`weights_RN` is float64 (R, N), not negative: a row of ones gives the plain value, the records' own weights the weighted
one, multinomial counts a bootstrap resample. Every function answers once for each row: (R,), or (R, K) per class. Where
a row leaves a metric without meaning (a class that does not occur, no weight at all) the answer is NaN, never a
warning. Rows are taken one at a time or through a matrix product, so memory stays near that of the weights themselves.

Shape suffixes: R row of weights, N example, K class.
"""

from sonde.metrics.boxes import BOX_ANSWERS, box_overlaps, box_scores, match_boxes
from sonde.metrics.captions import caption_words, cider_d
from sonde.metrics.classes import (
    SMALLEST,
    Tally,
    accuracy,
    balanced_accuracy,
    brier,
    calibration_error,
    debiased_calibration_error,
    f1,
    log_loss,
    macro_f1,
    micro_f1,
    precision,
    recall,
    rms_calibration_error,
    tally,
    tally_labels,
    top_accuracy,
)
from sonde.metrics.edits import (
    Normaliser,
    character_errors,
    edit_counts,
    error_rate,
    error_shares,
    normalise,
    word_errors,
)
from sonde.metrics.means import distinct_share, mean, mean_of_defined, nanmean, ratio
from sonde.metrics.numbers import mae, r2, rmse
from sonde.metrics.pixels import BLOCK, confusion_of_pixels, iou, tally_of_confusion
from sonde.metrics.ranking import (
    Score,
    Similarity,
    average_precision,
    average_precision_macro,
    draw_supports,
    few_shot,
    retrieval,
    roc_auc,
    roc_auc_macro,
)
from sonde.metrics.sequences import (
    UNNAMED,
    EntityCounts,
    EntityScores,
    Scheme,
    detect_scheme,
    entity_counts,
    entity_f1,
    per_unit,
    perplexity,
    spans,
    tally_words,
)
from sonde.metrics.series import seasonal_differences
from sonde.metrics.shifts import shift_edits
from sonde.metrics.translation import (
    Tokenize,
    bleu,
    bleu_statistics,
    chrf,
    chrf_statistics,
    paired_bootstrap,
    ter,
    ter_statistics,
    tokenize_13a,
)
from sonde.metrics.volumes import case_scores, surface_distances

__all__ = [
    "BLOCK",
    "BOX_ANSWERS",
    "SMALLEST",
    "UNNAMED",
    "EntityCounts",
    "EntityScores",
    "Normaliser",
    "Scheme",
    "Score",
    "Similarity",
    "Tally",
    "Tokenize",
    "accuracy",
    "average_precision",
    "average_precision_macro",
    "balanced_accuracy",
    "bleu",
    "bleu_statistics",
    "box_overlaps",
    "box_scores",
    "brier",
    "calibration_error",
    "caption_words",
    "case_scores",
    "character_errors",
    "chrf",
    "chrf_statistics",
    "cider_d",
    "confusion_of_pixels",
    "debiased_calibration_error",
    "detect_scheme",
    "distinct_share",
    "draw_supports",
    "edit_counts",
    "entity_counts",
    "entity_f1",
    "error_rate",
    "error_shares",
    "f1",
    "few_shot",
    "iou",
    "log_loss",
    "macro_f1",
    "mae",
    "match_boxes",
    "mean",
    "mean_of_defined",
    "micro_f1",
    "nanmean",
    "normalise",
    "paired_bootstrap",
    "per_unit",
    "perplexity",
    "precision",
    "r2",
    "ratio",
    "recall",
    "retrieval",
    "rms_calibration_error",
    "rmse",
    "roc_auc",
    "roc_auc_macro",
    "seasonal_differences",
    "shift_edits",
    "spans",
    "surface_distances",
    "tally",
    "tally_labels",
    "tally_of_confusion",
    "tally_words",
    "ter",
    "ter_statistics",
    "tokenize_13a",
    "top_accuracy",
    "word_errors",
]
