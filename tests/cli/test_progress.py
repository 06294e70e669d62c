"""How much a run says."""

from __future__ import annotations

from sonde.cli import progress


def told(monkeypatch, capsys, seconds):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    lines = progress.Lines()
    lines.begin("train", seconds)
    for second in range(1, seconds + 1):
        clock[0] = float(second)
        lines.at(second, "loss 1")
    return capsys.readouterr().err.splitlines()


def test_a_short_run_says_little_and_a_long_one_something_every_five_minutes(monkeypatch, capsys):
    assert told(monkeypatch, capsys, 4) == []
    assert told(monkeypatch, capsys, 5) == ["train 5/5 loss 1 (0 s left)"]
    # With the eight validations that are told, fewer than twenty lines.
    assert len(told(monkeypatch, capsys, 300)) <= 11
    assert 12 <= len(told(monkeypatch, capsys, 3600)) <= 30
