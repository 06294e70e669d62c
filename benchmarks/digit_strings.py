"""Strings of spoken digits, joined from single ones: a small task of speech recognition, made and (with --fit) learned.

    python benchmarks/digit_strings.py OUT [--strings 1500] [--held-out SPEAKER] [--fit] [--set KEY=VALUE ...]

Each string is 3 to 7 digits of one speaker of fsdd_4speakers, with pauses of 0.05 to 0.4 s, each digit a little louder
or softer than it was, over noise of 10 to 30 dB below. Test strings are made of the official test takes, validation
strings of a tenth of the training takes, which no training string has; with --held-out a speaker is in the test
strings alone. OUT gets manifest.csv (path, transcript, speaker, split) and the sounds. `sonde new` writes the recipe.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

import numpy as np
import soundfile

RATE = 8000
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHARED = Path(os.environ.get("SONDE_SHARED", Path(__file__).parents[2] / "shared" / "data"))

Clips = dict[tuple[str, str, int], list[np.ndarray]]


def read_clips(root: Path, held_out: str | None) -> Clips:
    """The single digits by split, speaker and digit."""
    clips: Clips = {}
    with (root / "manifest.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            split = row["split"]
            # The speaker who is held out tests only, and nobody else does.
            if held_out is not None and (split == "test") != (row["speaker"] == held_out):
                continue
            if split == "train" and int(row["take"]) % 10 == 0:
                split = "validation"
            sound, rate = soundfile.read(root / row["path"], dtype="float32")
            assert rate == RATE, f"{row['path']} has a rate of {rate}"
            clips.setdefault((split, row["speaker"], int(row["label"])), []).append(sound)
    return clips


def make_string(clips: Clips, split: str, rng: np.random.Generator) -> tuple[np.ndarray, str, str]:
    """The sound, what is said in it, and who says it."""
    speaker = str(rng.choice(sorted({speaker for part, speaker, _ in clips if part == split})))
    parts = [_pause(rng)]
    said = []
    wanted = int(rng.integers(3, 8))
    while len(said) < wanted:
        digit = int(rng.integers(10))
        able = clips.get((split, speaker, digit))
        if able:
            parts += [able[rng.integers(len(able))] * 10 ** (rng.uniform(-3, 3) / 20), _pause(rng)]
            said.append(WORDS[digit])
    sound = np.concatenate(parts)
    loudness = np.sqrt(np.mean(sound**2))
    noise = rng.standard_normal(len(sound)) * loudness * 10 ** (-rng.uniform(10, 30) / 20)
    return np.clip(sound + noise, -1, 1).astype(np.float32), " ".join(said), speaker


def _pause(rng: np.random.Generator) -> np.ndarray:
    return np.zeros(round(rng.uniform(0.05, 0.4) * RATE), np.float32)


def make(out: Path, *, strings: int, held_out: str | None, seed: int = 0) -> Path:
    """Write the data set into the folder `out`; a tenth as many strings validate, a fifth test."""
    clips = read_clips(SHARED / "fsdd_4speakers", held_out)
    rng = np.random.default_rng(seed)
    (out / "wav").mkdir(parents=True, exist_ok=True)
    with (out / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "transcript", "speaker", "split"])
        for split, count in (
            ("train", strings),
            ("validation", max(20, strings // 10)),
            ("test", max(40, strings // 5)),
        ):
            for number in range(count):
                sound, text, speaker = make_string(clips, split, rng)
                path = f"wav/{split}_{number:05}.wav"
                soundfile.write(out / path, sound, RATE, subtype="PCM_16")
                writer.writerow([path, text, speaker, split])
    return out


def fit(out: Path, changes: list[str]) -> None:
    """The recipe that `sonde new` writes, trained as it stands but for `changes`."""
    import sonde
    from sonde.commands.new import write_recipe
    from sonde.recipe import Recipe

    recipe = write_recipe(str(out), out / "recipe.toml", force=True).path
    print(sonde.fit(Recipe.read(recipe, changes=changes), out=out / "run").to_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    parser.add_argument("--strings", type=int, default=1500, help="training strings")
    parser.add_argument("--held-out", help="a speaker who tests only")
    parser.add_argument("--fit", action="store_true", help="train the recipe that sonde new writes")
    parser.add_argument("--set", action="append", default=[], dest="changes", help="as of sonde fit")
    given = parser.parse_args()
    make(given.out, strings=given.strings, held_out=given.held_out)
    if given.fit:
        fit(given.out, given.changes)


if __name__ == "__main__":
    main()
