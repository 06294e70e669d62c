"""Markdown from docstrings, and tables."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence


def doc(value: object) -> str:
    """A docstring as Markdown: what it raises becomes a list, code that is set off a block."""
    lines = (inspect.getdoc(value) or "").splitlines()
    found: list[str] = []
    listed = False
    for line in lines:
        if re.fullmatch(r"(Raises|Returns|Args):", line):
            listed = True
            found += [f"*{line}*", ""]
        elif listed and (match := re.match(r" {4}(\w+): (.*)", line)):
            found.append(f"- `{match[1]}`: {match[2]}")
        elif listed and line.startswith("    "):
            found.append(f"  {line.strip()}")
        else:
            listed = listed and not line
            found.append(line)
    found = _joined(found)
    # A name in <> is no tag.
    return re.sub(r"<(?=[A-Za-z/])", r"\\<", "\n".join(found)).strip()


def _joined(lines: Iterable[str]) -> list[str]:
    """Rows of a table that go on under an empty first cell, as one row."""
    found: list[str] = []
    for line in lines:
        if re.match(r"\|\s+\|", line) and found and found[-1].startswith("|"):
            cells = zip(found[-1].strip("|").split("|"), line.strip("|").split("|"), strict=True)
            found[-1] = "|" + "|".join(f" {one.strip()} {other.strip()} " for one, other in cells) + "|"
        else:
            found.append(line)
    return found


def first(text: str | None) -> str:
    """The first sentence."""
    return whole(text).split(". ")[0].rstrip(".") + "." if text else ""


def whole(text: str | None) -> str:
    """All of it on one line."""
    return " ".join(inspect.cleandoc(text or "").split())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def page(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
