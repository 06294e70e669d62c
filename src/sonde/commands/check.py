"""`sonde check`: a recipe and its data, judged before anything is spent."""

from __future__ import annotations

import csv
import io
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sonde import checks, stages
from sonde.base import files, rng
from sonde.base.errors import UserError
from sonde.base.progress import NoProgress, Progress
from sonde.contracts.finding import Finding
from sonde.data.store import check_unreadable
from sonde.recipe import Recipe
from sonde.training.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The findings on a recipe, in the order of the checks."""

    findings: list[Finding]
    seconds: float
    out: Path | None = None

    @property
    def failed(self) -> list[str]:
        """The checks that failed."""
        return list(dict.fromkeys(one.check for one in self.findings if one.verdict == "fail"))

    def to_json(self) -> dict[str, Any]:
        return {
            "passed": not self.failed,
            "failed": self.failed,
            "findings": [one.to_json() for one in self.findings],
            "seconds": round(self.seconds, 3),
        }

    def to_text(self) -> str:
        count = {word: sum(one.verdict == word for one in self.findings) for word in ("pass", "warn", "fail")}
        end = f"{count['pass']} passed, {count['warn']} warnings, {count['fail']} failed, in {self.seconds:.0f} s"
        lines = [*(one.to_text() for one in self.findings), end]
        return "\n".join([*lines, f"written to {self.out}"] if self.out else lines)


def check(
    recipe: Recipe,
    *,
    out: Path | None = None,
    network: nn.Module | None = None,
    preflight: bool = True,
    progress: Progress | None = None,
) -> Checked:
    """Audit the data of a recipe and try its pipeline on a copy of the network; nothing is trained for good.

    `out` is a new folder for what was found (check.json) and the labels that look wrong (label_issues.csv).

    Raises:
        UserError: the recipe or the data are wrong, or `out` exists.
    """
    started = time.perf_counter()
    progress = progress or NoProgress()
    if out is not None:
        if out.exists():
            raise UserError(f"{out} exists already", hint="choose another --out")
        files.check_writable(out)
    with (
        rng.preserved(),
        tempfile.TemporaryDirectory() as place,
        RunFolder.open(Path(place) / "run", resume=False) as folder,
    ):
        data = stages.load_data(recipe)
        task = stages.fit_task(recipe, data.splits["train"])
        sets = {split: stages.encode_split(recipe, task, split, data, folder, progress) for split in data.splits}
        check_unreadable(sets, recipe.data.max_unreadable)
        subject = checks.Subject(recipe, data, task, sets)
        findings = checks.audit(subject, progress=progress)
        if preflight:
            findings += checks.fly(subject, network, progress)
    found = Checked(findings=findings, seconds=time.perf_counter() - started, out=out)
    if out is not None:
        files.make_folder(out)
        files.write_json(out / "check.json", found.to_json())
        files.write_bytes(out / "label_issues.csv", _issues(findings).encode())
    return found


def _issues(findings: Sequence[Finding]) -> str:
    """The labels that look wrong, the worst first, as a table to send back to those who labelled."""
    rows = [row for one in findings if one.check == "labels" for row in one.numbers.get("issues", [])]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["record", "label", "suggested", "confidence"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
