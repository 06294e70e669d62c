"""The documentation runs: README, CONTRIBUTING and every page that people wrote, block by block, on tiny data.

Python blocks run, one after another in a page; one that begins with a path (`# my_kinds/count.py`) is written there.
Recipes and parts of recipes are read strictly. Lines `$ sonde ...` run on tiny data (fits for a few steps), and have to
fail with the error that stands below them, if one does. Shell scripts are parsed, and so are demo and prove, which take
their time and have tests of their own. Every command line, wherever it stands, may only use options that there are.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from sonde import cli
from sonde.base.lookup import ROOMS, find, kinds
from sonde.data.sources.voc import Voc
from sonde.recipe import Recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]
    if not {"_build", "reference"} & set(page.relative_to(ROOT).parts) and page.name != "log.md"
)
BASE = {
    "data": {"source": "sklearn:digits"},
    "inputs": {"image": {"kind": "image"}},
    "target": {"kind": "category"},
    "network": {"kind": "mlp"},
    "training": {},
}
# Commands that are parsed only.
PARSED = ("demo", "prove", "ladder")


class Block(NamedTuple):
    language: str
    line: int
    text: str

    @property
    def path(self) -> str | None:
        """Where the block says that it is written."""
        found = re.match(r"# (\S+\.(?:py|toml))\n", self.text)
        return found[1] if found else None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```([a-z]*)[^\n]*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        yield Block(found[1], text[: found.start()].count("\n") + 1, found[2])


@pytest.fixture(scope="session")
def generator():
    sys.path.insert(0, str(ROOT / "docs"))
    import generator

    sys.path.remove(str(ROOT / "docs"))
    return generator


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the data that the pages speak of, to be run in."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("daisy", "rose", "tulip")):
        (tmp_path / "flowers" / name).mkdir(parents=True)
        for index in range(20):
            pixels = rng.integers(0, 120, (20, 20, 3), dtype=np.uint8)
            pixels[:, :, number] += 120
            Image.fromarray(pixels).save(tmp_path / "flowers" / name / f"{index}.jpg")
    (tmp_path / "mine").mkdir()
    for number in range(2):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "mine" / f"{number}.png")
    rows = [
        f"{index % 6 + 1},{30 + index * 2.5},{'Bergen' if index % 2 else 'Oslo'},{1000 + index * 37}"
        for index in range(60)
    ]
    (tmp_path / "houses.csv").write_text("rooms,area,town,price\n" + "\n".join(rows) + "\n")
    (tmp_path / "cells").mkdir()
    Voc.sample(tmp_path / "cells")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SONDE_CACHE", str(tmp_path / "cache"))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.split(".")[0] == "my_kinds":
            del sys.modules[name]


@pytest.fixture
def sonde(monkeypatch, capsys):
    """A command of sonde, run in this process: its exit code and what it tells of an error."""

    def run(words):
        short = ["--set", "training.steps=2", "--set", "training.precision=fp32"] if words[0] == "fit" else []
        monkeypatch.setattr("sys.argv", ["sonde", *words, *short])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_sample_of(page, place, sonde, generator):
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        if block.path is not None:
            (place / block.path).parent.mkdir(parents=True, exist_ok=True)
            (place / block.path).write_text(block.text)
        elif block.language == "python":
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
        if block.language == "toml":
            check_recipe(block, place)
        if block.language == "console":
            run_console(block, where, sonde, generator)
        if block.language == "sh":
            done = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True, check=False)
            assert done.returncode == 0, (where, done.stderr)
            for words in shell_commands(block.text):
                check_options(words, where, generator)


def check_recipe(block: Block, place: Path) -> None:
    """A whole recipe, or sections that are laid over a small one."""
    tables = tomllib.loads(block.text)
    whole = {**BASE, **tables}
    if "classical" in tables:
        del whole["network"]
    if "network" in tables and not {"kind"} & set(tables["network"]):
        assert set(tables["network"]) == set(whole["inputs"]), "networks are of other inputs"
    source = place / whole["data"]["source"]
    if ":" not in source.name and not source.exists():
        source.write_text("patient,x,label\n1,2,a\n")
    Recipe.of(whole, base=place)


def run_console(block: Block, where: str, sonde, generator) -> None:
    """Every command; one that is followed by an error has to end with it."""
    for command, told in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n?)*)", block.text, flags=re.MULTILINE):
        words = shlex.split(command, comments=True)
        if words[0] != "sonde":
            continue
        check_options(words[1:], where, generator)
        if words[1] in PARSED:
            continue
        code, error = sonde(words[1:])
        if told.startswith("error: "):
            assert code, (where, command)
            assert error.startswith(told.strip()), (where, command, error)
        else:
            assert code == 0, (where, command, error)


def shell_commands(text: str) -> Iterator[list[str]]:
    """The words after `sonde` of every command in a script."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "sonde" in words and words[0] not in ("pip", "uv"):
            yield words[words.index("sonde") + 1 :]


def check_options(words: list[str], where: str, generator) -> None:
    command, *rest = words
    known = generator.command_line.commands()
    assert command in known, (where, command)
    options = {each.spelling.split()[0] for each in generator.command_line.parameters(known[command]) if each.is_option}
    wrong = {word.split("=")[0] for word in rest if word.startswith("--")} - options
    assert not wrong, f"{where}: sonde {command} has no {', '.join(wrong)}, but {', '.join(sorted(options))}"


def test_the_reference_has_every_command_kind_and_setting(generator, tmp_path):
    text = {page.name: page.read_text(encoding="utf-8") for page in generator.write(tmp_path / "reference")}
    for command in generator.command_line.commands():
        assert f"## sonde {command}\n" in text["cli.md"]
    assert "`--set NAME=VALUE`" in text["cli.md"]
    assert "`--json`" in text["cli.md"]
    for room in ROOMS:
        for kind in kinds(room):
            assert f"## {kind}\n" in text[f"{room}.md"]
            for name in find(room, kind, generator.kinds.CONTRACTS[room]).Config.model_fields:
                known = name == "kind" or f"| `{name}` |" in text[f"{room}.md"] + text["recipe.md"]
                assert known, (room, kind, name)
    assert "| `130` | The user stopped the run; its state is saved. |" in text["errors.md"]
    assert "| `lr` | number > 0 | `0.001` | highest learning rate; the schedule scales it |" in text["recipe.md"]


def test_every_setting_has_a_description(generator):
    """The reference and the comments in a recipe are made of them."""
    from sonde.data.settings import DataConfig
    from sonde.training.ladder_settings import LadderConfig
    from sonde.training.settings import TrainingConfig

    def undescribed(config, place):
        for name, field in config.model_fields.items():
            if name != "kind" and not field.description:
                yield f"{place}.{name}"
            for inner in generator.settings.models(field.annotation):
                yield from undescribed(inner, f"{place}.{name}")

    configs = {"data": DataConfig, "training": TrainingConfig, "ladder": LadderConfig}
    for room in ROOMS:
        configs |= {f"{room}.{one}": find(room, one, generator.kinds.CONTRACTS[room]).Config for one in kinds(room)}
    assert not [each for place, config in configs.items() for each in undescribed(config, place)]
