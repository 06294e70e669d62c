"""Networks of the transformers library: found, built, loaded, and what their folders say of their inputs.

Safetensors only unless asked for more, and no code of a repository is ever run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sonde.base.errors import UserError, near
from sonde.base.quiet import quiet
from sonde.contracts.preprocessing import PicturePreprocessing, Preprocessing, SoundPreprocessing, TextPreprocessing
from sonde.contracts.specs import LayoutName
from sonde.contracts.weights import listing

# A limit above this is the library's word for none.
NO_LIMIT = 1_000_000
# The filters of the Python Imaging Library by number.
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
# Which tower of a network of several takes which input.
TOWERS: dict[LayoutName, str] = {"tokens": "text_config", "grid": "vision_config", "frames": "audio_config"}
# Training draws from global generators here: its own augmentation and skipping of layers are off.
SWITCHED_OFF = {"apply_spec_augment": False, "layerdrop": 0.0, "encoder_layerdrop": 0.0, "use_cache": False}


def library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            f"the network 'huggingface' needs the package transformers: {error}", hint="pip install 'sonde[pretrained]'"
        ) from error
    return transformers


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """No progress bars and warnings of the library; afterwards all is as before."""
    logging = library().utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with quiet("transformers"):
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


def read_json(path: Path) -> dict[str, Any]:
    """A file of settings; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}", expected="a whole Hugging Face folder") from error
    return found if isinstance(found, dict) else {}


def architecture(path: Path) -> dict[str, Any]:
    """The config.json of a folder.

    Raises:
        UserError: it has none, or none that names an architecture.
    """
    if not path.is_dir():
        raise UserError(
            f"network.weights: there is no folder {path}", expected="a Hugging Face folder with config.json"
        )
    found = read_json(path / "config.json")
    if "model_type" not in found:
        raise UserError(
            f"network.weights: {path} has no config.json that names a model_type",
            expected="a Hugging Face folder: config.json, model.safetensors, tokenizer.json and the like",
        )
    return found


def configuration(described: Mapping[str, Any], layout: LayoutName, settings: Mapping[str, Any]) -> Any:
    """The library's configuration of the tower that takes an input.

    Raises:
        UserError: the library does not know the architecture, or a setting.
    """
    config_class = library().AutoConfig
    known = dict(described)
    kind = str(known.pop("model_type", ""))
    try:
        config = config_class.for_model(kind, **known)
    except ValueError as error:
        close = near(kind, list(library().CONFIG_MAPPING))
        raise UserError(
            f"transformers {library().__version__} has no architecture {kind!r}",
            hint=f"did you mean {close!r}?" if close else "code that a repository brings along is not run",
        ) from error
    config = getattr(config, TOWERS.get(layout, ""), None) or config
    for name in settings:
        if name not in config.to_dict():
            close = near(name, list(config.to_dict()))
            raise UserError(
                f"network.settings.{name} is not a setting of {kind!r}",
                hint=f"did you mean {close!r}?" if close else None,
            )
    config.update({name: value for name, value in SWITCHED_OFF.items() if name in config.to_dict()})
    config.update(dict(settings))
    return config


def build(config: Any) -> Any:
    """The network with first weights of its own."""
    with silent():
        return library().AutoModel.from_config(config)


def load(config: Any, path: Path, *, pickled: bool) -> tuple[Any, tuple[str, ...]]:
    """The network with the weights of a folder, and what people should know of how they fit.

    Raises:
        UserError: there are no weights, or they do not fit; lists both sides.
    """
    if not pickled and not any(path.glob("*.safetensors")):
        other = sorted(each.name for each in path.glob("*.bin"))
        raise UserError(
            f"network.weights: {path} has no .safetensors file",
            hint="network.pickled = true reads " + other[0] + ", without running code"
            if other
            else "download it whole",
        )
    try:
        with silent():
            model, info = library().AutoModel.from_pretrained(
                path,
                config=config,
                local_files_only=True,
                use_safetensors=None if pickled else True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # files that are cut short, or not what they seem, fail in many ways
        raise UserError(
            f"the weights in {path} cannot be loaded: {next(iter(str(error).splitlines()), type(error).__name__)}",
            expected="the weights of the network in config.json",
        ) from error
    missing, unused = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    other = sorted(str(each[0] if isinstance(each, (tuple, list)) else each) for each in info["mismatched_keys"])
    lists = (
        ("of the network are not in the checkpoint", missing),
        ("of the checkpoint are not in the network", unused),
        ("have another shape", other),
    )
    notes = tuple(f"{path.name}: {len(names)} {what}: {listing(names)}" for what, names in lists if names)
    if len(missing) + len(other) > len(model.state_dict()) / 2:
        raise UserError(
            f"the weights in {path} are not those of {type(model).__name__}: " + "; ".join(notes),
            expected="the weights of the network in config.json",
        )
    return model.float(), notes


def preprocessing(path: Path) -> Preprocessing:
    """How a folder wants texts, pictures and sounds prepared."""
    prepared = read_json(path / "preprocessor_config.json") or read_json(path / "processor_config.json")
    sound = picture = None
    if "feature_extractor_type" in prepared and "image_mean" not in prepared:
        sound = SoundPreprocessing(extractor=prepared)
    elif "image_mean" in prepared or "image_processor_type" in prepared:
        picture = _picture(prepared)
    return Preprocessing(picture=picture, sound=sound, text=_text(path))


def _picture(prepared: Mapping[str, Any]) -> PicturePreprocessing:
    size: Any = prepared.get("crop_size") or prepared.get("size") or 0
    if isinstance(size, Mapping):
        sides: dict[str, int] = {str(name): int(value) for name, value in size.items()}
        side = sides.get("shortest_edge", 0)
        height, width = sides.get("height", side), sides.get("width", side)
    else:
        height = width = int(size)
    normalized = prepared.get("do_normalize", True)
    return PicturePreprocessing(
        mean=tuple(prepared.get("image_mean", (0.5, 0.5, 0.5))) if normalized else (0.0, 0.0, 0.0),
        deviation=tuple(prepared.get("image_std", (0.5, 0.5, 0.5))) if normalized else (1.0, 1.0, 1.0),
        interpolation=FILTERS.get(prepared.get("resample", 2), "bilinear"),
        size=(height, width) if height and width else None,
    )


def _text(path: Path) -> TextPreprocessing | None:
    """The folder's tokenizer, as tokenizer.json has it: older forms are brought into that."""
    names = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
    if not any((path / name).is_file() for name in names):
        return None
    try:
        with silent():
            found = library().AutoTokenizer.from_pretrained(path, local_files_only=True)
            text = found.backend_tokenizer.to_str()
    except Exception as error:  # a tokenizer of a kind that is not known, or a broken file
        raise UserError(
            f"the tokenizer in {path} cannot be read: {next(iter(str(error).splitlines()), type(error).__name__)}",
            expected="a tokenizer.json, or files that transformers makes one of",
        ) from error
    limits = [int(found.model_max_length), _positions(path)]
    return TextPreprocessing(tokenizer=text, length=min((each for each in limits if 0 < each < NO_LIMIT), default=0))


def _positions(path: Path) -> int:
    """How many positions a network has, 0 where that cannot be said."""
    config = read_json(path / "config.json")
    positions = int(config.get("max_position_embeddings") or config.get("n_positions") or 0)
    offset = 0
    # Networks of RoBERTa's family count from beyond the padding token.
    if str(config.get("model_type", "")) in ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer"):
        offset = int(config.get("pad_token_id") or 1) + 1
    return positions - offset
