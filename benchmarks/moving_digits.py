"""Clips of scikit-learn's handwritten digits that move: what moves, and whither, for `recipes/moving_digits.toml`.

    python benchmarks/moving_digits.py FOLDER [--clips 1600] [--label direction|digit]

A clip has 20 frames of 32 x 32 pixels: a real digit (of 8 x 8 pixels, drawn at twice the size) on a dark ground with
noise moves 1 pixel or less a frame to the left, right, up or down. No single frame shows whither. The digits of test
clips are in no training clip. ROOT/{train,validation,test}/CLASS/NUMBER.avi, and labels.csv with both labels.
"""

from __future__ import annotations

import argparse
import csv
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from sklearn.datasets import load_digits

FRAMES, SIDE, RATE = 20, 32, 10
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def render(digit: np.ndarray, direction: str, rng: np.random.Generator) -> np.ndarray:
    """One clip, uint8 (T, H, W): a digit (8, 8) of values from 0 to 16."""
    drawn = np.kron(digit / 16 * 200, np.ones((2, 2)))
    step = np.array(DIRECTIONS[direction]) * rng.uniform(0.5, 0.8)
    # Where it has to begin so that it stays inside.
    room = SIDE - len(drawn)
    low, high = np.maximum(0, -step * (FRAMES - 1)), np.minimum(room, room - step * (FRAMES - 1))
    start = rng.uniform(low, np.maximum(low, high))
    frames = np.zeros((FRAMES, SIDE, SIDE))
    for number in range(FRAMES):
        row, column = np.round(start + number * step).astype(int)
        frames[number, row : row + len(drawn), column : column + len(drawn)] = drawn
    return np.clip(frames + rng.normal(20, 8, frames.shape), 0, 255).astype(np.uint8)


def write(path: Path, frames: np.ndarray) -> None:
    """The frames as an AVI of motion JPEG pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=Fraction(RATE))
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuvj420p"
        stream.codec_context.qmin = stream.codec_context.qmax = 3
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.stack([frame] * 3, axis=2), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def make(folder: Path, clips: int, label: str, seed: int = 0) -> None:
    """All clips of a data set, and a table of them."""
    rng = np.random.default_rng(seed)
    held = load_digits()
    order = rng.permutation(len(held.images))
    ends = np.cumsum([round(share * len(order)) for share in SHARES.values()])
    rows = []
    for (split, share), digits in zip(SHARES.items(), np.split(order, ends[:-1]), strict=True):
        for number in range(round(clips * share)):
            index = int(digits[number % len(digits)])
            direction = list(DIRECTIONS)[number % len(DIRECTIONS)]
            named = {"direction": direction, "digit": str(held.target[index])}
            path = folder / split / named[label] / f"{number:05}.avi"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, render(held.images[index], direction, rng))
            rows.append({"video": path.relative_to(folder).as_posix(), **named, "split": split})
    # Not beside the class folders: they would be taken for a table of files.
    with folder.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["video", "direction", "digit", "split"])
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=1600)
    parser.add_argument("--label", choices=["direction", "digit"], default="direction")
    given = parser.parse_args()
    make(given.folder, given.clips, given.label)
    print(f"wrote {given.clips} clips into {given.folder}")


if __name__ == "__main__":
    main()
