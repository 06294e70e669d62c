"""Weights by name from the Hugging Face hub: what this machine has already, else fetched, else said at once."""

from __future__ import annotations

from pathlib import Path

from sonde.base.errors import UserError

# How long the hub may take to answer at all, in seconds; it is asked once.
PATIENCE = 10
# Code and pickles are not fetched.
WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")
PICKLED = ("*.bin", "*.pth")


def folder(name: str, *, pickled: bool = False) -> Path:
    """The local folder of a repository of the hub, fetched if this machine does not have it; `pickled` weights, which
    are read without running code, are fetched only if asked for.

    Raises:
        UserError: the hub has no such repository, or cannot be reached.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except Exception:  # whatever its client raises when it has nothing; what follows tells why
        pass
    try:
        # One question without retries, before anything that would wait and try again.
        HfApi().model_info(name, timeout=PATIENCE)
        patterns = [*WANTED, *(PICKLED if pickled else ())]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        raise out_of_reach(name, error) from error


def out_of_reach(name: str, error: Exception) -> UserError:
    return UserError(
        f"the weights of {name!r} cannot be fetched: {next(iter(str(error).splitlines()), type(error).__name__)}",
        hint="download them elsewhere and set network.weights to the path of the file or folder",
    )
