"""`sonde new` on a small table needs no torch: it takes a fraction of the time and memory that loading torch does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = """
import sys
sys.argv = ["sonde", "new", "t.csv", "--target", "label"]
from sonde import cli
try:
    cli.main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {"torch._C", "sklearn", "scipy", "pandas", "transformers", "timm", "torchvision"} & set(sys.modules)
peak = next((line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), "0")
print("loaded", sorted(heavy), int(peak) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_a_small_table_needs_neither_torch_nor_its_memory(tmp_path):
    rows = [f"n{index},{index % 7},{index % 5},{'ab'[index * index % 3 % 2]}" for index in range(400)]
    (tmp_path / "t.csv").write_text("\n".join(["name,x,y,label", *rows]) + "\n")
    done = subprocess.run([sys.executable, "-c", COMMAND], cwd=tmp_path, capture_output=True, text=True, check=True)
    told, megabytes = done.stdout.splitlines()[-1].rsplit(" ", 1)
    assert told == "loaded []"
    assert int(megabytes) < 300
    text = (tmp_path / "recipe.toml").read_text()
    # Comments come from the settings' source.
    assert "# passes over the training split; give this or steps" in text
    assert "# share of each hidden layer's values dropped in training" in text


def test_descriptions_from_source_are_those_of_the_classes():
    from sonde.base import descriptions, lookup
    from sonde.contracts.backbone import Backbone
    from sonde.contracts.input import Input
    from sonde.contracts.target import Target
    from sonde.training.settings import TrainingConfig

    for room, contract in (("inputs", Input), ("targets", Target), ("networks", Backbone)):
        for kind in lookup.kinds(room):
            fields = lookup.find(room, kind, contract).Config.model_fields
            found = descriptions.of_kind(f"{lookup.ROOMS[room]}.{kind.replace('-', '_')}")
            expected = {name: field.description for name, field in fields.items() if field.description}
            # What is put together from values when the module runs cannot be read from its source.
            assert found.items() <= expected.items()
            assert len(found) >= len(expected) - 2, kind
    expected = {name: field.description for name, field in TrainingConfig.model_fields.items()}
    assert descriptions.of_class("sonde.training.settings", "TrainingConfig") == expected
    assert descriptions.of_kind("their.own") == {}


def test_a_module_comes_when_it_is_used():
    code = (
        "import sys\nfrom sonde.base.lazy import import_later\nimport_later('wave')\nimport wave\nimport wave\n"
        "assert type(sys.modules['wave']).__name__ == '_Later'\nassert wave.Error is not None\n"
        "assert type(sys.modules['wave']).__name__ == 'module'\nimport wave as real\nassert real.Error is wave.Error\n"
        "import_later('json')\nimport json\nimport_later('json')\nassert json.dumps(1) == '1'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
