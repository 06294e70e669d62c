"""`sonde ladder`: climb, and leave the table, the figures and the picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sonde.base.progress import Progress
from sonde.ladder import Ladder, climb
from sonde.ladder.picture import draw
from sonde.recipe import Recipe


def ladder(
    recipe: Recipe, *, out: Path, resume: bool = False, despite: Sequence[str] = (), progress: Progress
) -> Ladder:
    """Climb the ladder of a recipe, and write the picture of score against cost beside ladder.json."""
    found = climb(recipe, out=out, resume=resume, despite=despite, progress=progress)
    if draw(found) is None:
        progress.message('no picture: it needs the package matplotlib (pip install "sonde[ladder]")')
    return found
