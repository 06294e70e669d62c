"""A finished run as one HTML page that opens from disk, asks nobody for anything, and is read in a minute."""

from __future__ import annotations

import json
from importlib.resources import files as resources
from pathlib import Path

from sonde.base import files
from sonde.base.progress import Progress
from sonde.report.gather import gather

# A page may be sent by mail: pictures of cases are left out, the last first, beyond this.
LARGEST = 5_000_000


def write(folder: Path, out: Path, progress: Progress | None = None) -> Path:
    """Write the report of the run in `folder` to the file `out`.

    Raises:
        UserError: the folder holds no finished run, or the file cannot be written.
    """
    files.check_writable(out)
    facts = gather(folder, progress)
    page = render(facts)
    while len(page) > LARGEST and _shorten(facts):
        page = render(facts)
    files.write_bytes(out, page.encode())
    return out


def render(facts: dict[str, object]) -> str:
    """The page: template, style, the vendored plotting library, the facts."""
    place = resources("sonde.report")
    text = place.joinpath("page.html").read_text(encoding="utf-8")
    # "</" would end the script that holds it.
    data = json.dumps(facts, ensure_ascii=False, allow_nan=False).replace("</", "<\\/").replace("<!--", "<\\!--")
    pieces = {
        "/*STYLE*/": place.joinpath("page.css").read_text(encoding="utf-8"),
        "/*D3*/": place.joinpath("vendor/d3.min.js").read_text(encoding="utf-8"),
        "/*PLOT*/": place.joinpath("vendor/plot.min.js").read_text(encoding="utf-8"),
        "/*PAGE*/": place.joinpath("page.js").read_text(encoding="utf-8"),
        "/*FACTS*/": data,
    }
    for mark, piece in pieces.items():
        text = text.replace(mark, piece)
    return text


def _shorten(facts: dict[str, object]) -> bool:
    """Take the last shown cases out; whether there were any."""
    for name in ("cells", "cases"):
        held = facts.get(name)
        if isinstance(held, dict):
            for key, cases in reversed(list(held.items())):
                if cases:
                    held[key] = cases[: len(cases) // 2]
                    return True
    return False
