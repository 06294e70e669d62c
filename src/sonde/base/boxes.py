"""Boxes [x1, y1, x2, y2] in pixels: what can be wrong with one, and how they are drawn on a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw

# Boxes may reach so many pixels beyond the picture, and are then cut: tools round, and count from 0 or from 1.
SLACK, SLACK_SHARE = 2.0, 0.005
# Colours that are told apart by most eyes (Okabe and Ito 2008), for labels in turn.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2")


def fault(box: Sequence[float], size: tuple[float, float]) -> str | None:
    """What is wrong with a box in a picture of `size` (height, width), in words; None: nothing.

    >>> fault([10, 10, 5, 20], (100, 100))
    'has its sides in the wrong order: [10, 10, 5, 20]; is it x, y, width, height?'
    """
    x1, y1, x2, y2 = box
    shown = f"[{x1:g}, {y1:g}, {x2:g}, {y2:g}]"
    if x2 < x1 or y2 < y1:
        return f"has its sides in the wrong order: {shown}; is it x, y, width, height?"
    if x2 == x1 or y2 == y1:
        return f"has no area: {shown}"
    slack = max(SLACK, SLACK_SHARE * max(size))
    if min(x1, y1) < -slack or x2 > size[1] + slack or y2 > size[0] + slack:
        return f"reaches beyond the picture of {size[1]:g} x {size[0]:g} pixels: {shown}"
    if min(x2, size[1]) <= max(x1, 0) or min(y2, size[0]) <= max(y1, 0):
        return f"lies beyond the picture of {size[1]:g} x {size[0]:g} pixels: {shown}"
    return None


def draw(image: Image.Image, objects: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Image.Image:
    """The picture with objects {"label", "box", "score"?} drawn on it; a label's place in `labels` gives its colour.

    Crowds and difficult objects ("crowd", "difficult") have thin lines.
    """
    image = image.convert("RGB")
    canvas = ImageDraw.Draw(image)
    thick = max(1, round(max(image.size) / 300))
    # The best last, on top.
    for each in sorted(objects, key=lambda one: one.get("score", 1.0)):
        place = labels.index(each["label"]) if each["label"] in labels else 0
        colour = COLOURS[place % len(COLOURS)]
        x1, y1, x2, y2 = each["box"]
        x1, y1 = max(0.0, x1), max(0.0, y1)
        x2, y2 = max(x1, min(x2, image.width - 1)), max(y1, min(y2, image.height - 1))
        canvas.rectangle(
            [x1, y1, x2, y2], outline=colour, width=1 if each.get("crowd") or each.get("difficult") else thick
        )
        text = each["label"] + (f" {each['score']:.2f}" if "score" in each else "")
        left, top, right, bottom = canvas.textbbox((x1 + 2, y1 + 1), text)
        canvas.rectangle([left - 1, top - 1, right + 1, bottom + 1], fill=colour)
        canvas.text((x1 + 2, y1 + 1), text, fill="black")
    return image
