"""The reference, written from the code: the command line, the recipe, every kind on disk, Python, errors.

    python docs/generator FOLDER

docs/conf.py does so at every build. Nothing here knows a kind, a command or a setting by name.
"""

from __future__ import annotations

from pathlib import Path

from generator import command_line, errors, kinds, python, settings
from sonde.base import lookup

INDEX = """# Reference

Written from the code of this version at every build.

```{toctree}
:maxdepth: 1

cli
recipe
sources
inputs
targets
networks
estimators
python
contracts
errors
```
"""


def write(folder: Path) -> list[Path]:
    """Write every page of the reference into a folder; a page that is no longer made is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "index.md": INDEX,
        "cli.md": command_line.page(),
        "recipe.md": settings.page(),
        **{f"{room}.md": kinds.page(room) for room in lookup.ROOMS},
        "python.md": python.public(),
        "contracts.md": python.contracts(),
        "errors.md": errors.page(),
    }
    for old in folder.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        # A page that did not change keeps its time, so that the next build has less to do.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    return [folder / name for name in pages]
