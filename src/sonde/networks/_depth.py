"""How deep each weight of a network lies, for learning rates that fall towards the input."""

from __future__ import annotations

from torch import nn


def layer_numbers(backbone: nn.Module) -> dict[str, int]:
    """The number of the layer that each parameter belongs to: 0 what comes before the first block, then the blocks in
    their order, then what comes after. Blocks are what lists and sequences of layers hold (those in them are theirs).
    """
    blocks = list(_blocks(backbone, ""))
    numbers: dict[str, int] = {}
    highest = 0
    for name, _ in backbone.named_parameters():
        inside = next((at for at, block in enumerate(blocks, start=1) if name.startswith(block)), None)
        if inside is not None:
            highest = inside
        # What lies between two blocks goes with the one before it, what comes after all of them is on top.
        numbers[name] = inside if inside is not None else highest + (highest == len(blocks) > 0)
    return numbers


def _blocks(module: nn.Module, prefix: str) -> list[str]:
    """The names of the blocks inside, in the order in which they were made, each with a dot at its end."""
    found: list[str] = []
    for name, child in module.named_children():
        if not any(True for _ in child.parameters()):
            continue
        place = f"{prefix}{name}."
        is_list = isinstance(module, (nn.ModuleList, nn.Sequential))
        if is_list and not isinstance(child, (nn.ModuleList, nn.Sequential)):
            found.append(place)
        else:
            found += _blocks(child, place)
    return found
