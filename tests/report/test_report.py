"""The report of a real run: one page that holds everything and opens in a browser without an error."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonde import Recipe, fit, report
from sonde.base.errors import UserError
from sonde.evaluation.slices import slices
from sonde.report.gather import gather

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DIGITS: dict[str, Any] = {
    "data": {"source": "sklearn:digits"},
    "inputs": {"image": {"kind": "image"}},
    "target": {"kind": "category"},
    "network": {"kind": "cnn", "widths": [8, 16]},
    "training": {"steps": 60, "batch_size": 32, "evaluate_every": 10, "precision": "fp32", "compile": False},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "digits"
    fit(Recipe.of(DIGITS), out=out)
    report.write(out, out / "report.html")
    return out


def facts_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="facts">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1].replace("<\\/", "</"))


def test_the_page_holds_scores_panels_and_cases(digits: Path) -> None:
    facts = facts_of(digits / "report.html")
    assert facts["scores"] == json.loads((digits / "scores.json").read_text())
    assert {panel["title"] for panel in facts["panels"]} >= {"Confusion", "Reliability", "ROC"}
    total = sum(row["count"] for row in facts["panels"][0]["rows"])
    assert total == facts["records"]["test"]
    costs = [case["cost"] for case in facts["cases"]["worst"]]
    assert costs == sorted(costs, reverse=True)
    assert facts["cases"]["worst"][0]["inputs"]["image"]["picture"].startswith("data:image/png;base64,")
    assert (digits / "report.html").stat().st_size < report.LARGEST


def test_nothing_is_asked_of_the_network(digits: Path) -> None:
    page = (digits / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))
    own = Path(report.__file__).with_name("page.js").read_text()
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|https?://|innerHTML", own)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [390, 820, 1400])
def test_it_opens_in_a_browser(digits: Path, width: int, tmp_path: Path) -> None:
    assert BROWSER is not None
    words = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
    words += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={width},3000", f"--user-data-dir={tmp_path}"]
    done = subprocess.run(
        [*words, "--enable-logging=stderr", "--dump-dom", f"file://{digits / 'report.html'}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "CONSOLE" not in done.stderr
    for part in ('id="glance"', 'id="scores"', 'id="curves"', 'id="answers"', 'id="cases"', 'id="checks"', "<svg"):
        assert part in done.stdout, part


def test_texts_of_the_data_are_never_markup(tmp_path: Path) -> None:
    rows = [f"<script>alert({n})</script></script>,{'ham' if n % 2 else 'spam'}" for n in range(120)]
    (tmp_path / "data.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    recipe = Recipe.of(
        {
            "data": {"source": str(tmp_path / "data.csv")},
            "inputs": {"text": {"kind": "text"}},
            "target": {"kind": "category"},
            "network": {"kind": "recurrent", "width": 8},
            "training": {"steps": 5, "batch_size": 8, "precision": "fp32", "compile": False},
        }
    )
    fit(recipe, out=tmp_path / "run", despite=["duplicates across splits", "conflicting labels"])
    page = report.write(tmp_path / "run", tmp_path / "page.html").read_text()
    assert "alert(1" not in re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)
    assert facts_of(tmp_path / "page.html")["cases"]["worst"][0]["inputs"]["text"]["text"].startswith("<script>")


def test_a_run_whose_data_is_gone_still_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,y\n" + "\n".join(f"{n % 7},{n % 7 + 0.1 * (n % 3)}" for n in range(200)))
    recipe = Recipe.of(
        {
            "data": {"source": str(tmp_path / "data.csv")},
            "inputs": {"table": {"kind": "table", "fields": ["a"]}},
            "target": {"kind": "number", "field": "y"},
            "network": {"kind": "mlp", "hidden": [8]},
            "training": {"steps": 5, "batch_size": 8, "precision": "fp32", "compile": False},
        }
    )
    fit(recipe, out=tmp_path / "run", despite=["duplicates across splits"])
    assert [panel["title"] for panel in gather(tmp_path / "run")["panels"]] == ["Answers for y", "Errors of y"]
    (tmp_path / "data.csv").unlink()
    assert "does not exist" in gather(tmp_path / "run")["without_data"]
    report.write(tmp_path / "run", tmp_path / "page.html")


def test_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run"):
        report.write(tmp_path, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_grows_too_large_leaves_cases_out(
    digits: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = (digits / "report.html").stat().st_size
    monkeypatch.setattr(report, "LARGEST", whole - 1000)
    report.write(digits, tmp_path / "short.html")
    assert (tmp_path / "short.html").stat().st_size <= whole - 1000


def test_slices_find_where_errors_gather_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    age, place = (
        rng.uniform(20, 80, 1000),
        np.array(["north", "south", "west"], dtype=object)[rng.integers(3, size=1000)],
    )
    cost = rng.exponential(0.2, 1000) + 0.8 * (age > 65) * (rng.random(1000) < 0.7)
    found = slices(cost, {"age": age, "place": place})
    assert found[0].worse
    assert re.search(r"age|65|64|66", found[0].name)
    assert not any(one.worse for one in found if one.name.startswith("place"))


def test_slices_of_noise_are_seldom_told() -> None:
    told = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        fields = {"a": rng.normal(size=300), "b": rng.integers(4, size=300).astype(str).astype(object)}
        told += any(one.worse for one in slices(rng.normal(1, 0.3, 300), fields, seed=seed))
    assert told <= 10
