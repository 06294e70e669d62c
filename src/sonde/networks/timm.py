"""Any image network of the timm library by name: EfficientNet, ConvNeXt, ViT and 1,000 more, pretrained or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sonde.base import weight_files
from sonde.base.config import FilePath
from sonde.base.errors import UserError, near
from sonde.base.quiet import quiet
from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.preprocessing import PicturePreprocessing, Preprocessing
from sonde.contracts.specs import InputSpec, LayoutName, OutputSpec, Per
from sonde.networks import _checkpoints, _hub
from sonde.networks._grids import picture, picture_shape

DEFAULT = "efficientnet_b0"


class TimmConfig(BackboneConfig):
    kind: Literal["timm"] = "timm"
    name: str | None = Field(
        None,
        description=f"a name that timm.list_models() knows; if left out, what the folder of weights says, or {DEFAULT}",
    )
    pretrained: bool = Field(False, description="start from timm's weights, fetched from the Hugging Face hub")
    weights: FilePath | None = Field(
        None,
        description="start from these weights instead: a .safetensors or .pth file, a folder, or package:NAME "
        "(relative to this recipe)",
    )
    settings: dict[str, bool | int | float | str] = Field(
        {}, description="passed to timm.create_model: drop_rate, drop_path_rate, ..."
    )


class Timm(Backbone):
    """(B, C, H, W) to the pooled features (B, width), or to timm's grids of features, finest first."""

    Config = TimmConfig
    accepts: ClassVar[tuple[LayoutName, ...]] = ("grid",)
    gives: ClassVar[tuple[Per, ...]] = ("example", "pixel")
    loads_itself: ClassVar[bool] = True
    tiny: ClassVar[Mapping[str, Any]] = {"name": "test_efficientnet"}
    inner: ClassVar[str] = "model."

    def __init__(self, config: TimmConfig, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        channels, size = picture_shape(spec, config.kind)
        self.model, self.notes = _create(config, (channels, size), output)
        self.to(memory_format=torch.channels_last)
        # Asking the network itself: timm's own account of its width differs from family to family.
        features = self._probe(config, torch.zeros(1, channels, *size))
        self.width = tuple(each.shape[1] for each in features) if output.chosen == "pixel" else features.shape[1]

    @classmethod
    def first_weights(cls, config: TimmConfig) -> Path | None:
        if config.weights is not None:
            return weight_files.locate(config.weights)
        if not config.pretrained:
            return None
        name = config.name or DEFAULT
        _check_name(name)
        from timm.models import get_pretrained_cfg

        try:
            about = get_pretrained_cfg(name)
        except (RuntimeError, KeyError) as error:  # an unknown tag
            raise UserError(f"timm cannot make {name!r}: {error}", hint="name the network without its tag") from error
        if about is None or not about.hf_hub_id:
            raise _hub.out_of_reach(name, ValueError("the hub has no weights of it"))
        return _hub.folder(str(about.hf_hub_id))

    @classmethod
    def resolved(cls, config: TimmConfig) -> TimmConfig:
        """With the name and the settings that the folder of weights says."""
        path = Timm.first_weights(config)
        name, settings = config.name, dict(config.settings)
        about = _about(path) if path is not None and path.is_dir() else {}
        if name is None and "architecture" in about:
            name = str(about["architecture"])
            settings = {**about.get("model_args", {}), **settings}
        return config.model_copy(update={"name": name or DEFAULT, "settings": settings})

    @classmethod
    def preprocessing(cls, config: TimmConfig) -> Preprocessing | None:
        if not config.pretrained and config.weights is None:
            return None
        path = Timm.first_weights(config)
        config = cls.resolved(config)
        _check_name(str(config.name))
        from timm.models import get_pretrained_cfg

        known = get_pretrained_cfg(str(config.name))
        about = {} if known is None else known.to_dict()
        about |= _about(path).get("pretrained_cfg", {}) if path is not None and path.is_dir() else {}
        if "mean" not in about:
            return None
        picture = PicturePreprocessing(
            mean=tuple(about["mean"]),
            deviation=tuple(about["std"]),
            interpolation=about.get("interpolation", "bilinear"),
            size=tuple(about["input_size"][1:]) if "input_size" in about else None,
        )
        return Preprocessing(picture=picture)

    def forward(self, tensors: Tensors) -> Tensor | tuple[Tensor, ...]:
        features = self.model(picture(tensors)[0])
        return tuple(features) if isinstance(features, list) else features

    @torch.no_grad()
    def _probe(self, config: TimmConfig, grid: Tensor) -> Any:
        self.eval()
        try:
            features = self.forward({"grid": grid})
        except (AssertionError, RuntimeError, ValueError) as error:
            height, width = grid.shape[2:]
            raise UserError(
                f"timm network {self.resolved(config).name!r} does not take pictures of {height} x {width} pixels: "
                f"{error}",
                hint="choose another size for the input, or another network",
            ) from error
        self.train()
        return features


def _about(path: Path) -> dict[str, Any]:
    """The config.json beside weights that timm saved; nothing where there is none."""
    file = path / "config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}", expected="the config.json of a timm network") from error
    return found if isinstance(found, dict) else {}


def _create(
    config: TimmConfig, shape: tuple[int, tuple[int, int]], output: OutputSpec
) -> tuple[nn.Module, tuple[str, ...]]:
    try:
        import timm
        from timm.models import get_pretrained_cfg
    except ImportError as error:
        raise UserError(f"timm cannot be imported: {error}", hint="pip install 'sonde[image]'") from error
    path = Timm.first_weights(config)
    config = Timm.resolved(config)
    name = str(config.name)
    _check_name(name)
    channels, size = shape
    settings: dict[str, Any] = {"features_only": True} if output.chosen == "pixel" else {"num_classes": 0}
    weights = None if path is None else _checkpoints.read(path)
    notes: tuple[str, ...] = ()
    try:
        about = get_pretrained_cfg(name)
        if about is not None and about.fixed_input_size:
            # ViT, Swin and others are built for one size.
            settings["img_size"] = size
        options: dict[str, Any] = dict(config.settings)
        settings |= {"in_chans": channels, **options}
        source: dict[str, Any] = {}
        if weights is not None:
            own = timm.create_model(name, **options).state_dict()
            weights, notes = _named(name, own, weights)
            source = {"pretrained_cfg_overlay": {"state_dict": dict(weights)}}
        with quiet("timm"):
            model = timm.create_model(name, pretrained=weights is not None, **source, **settings)
    except (TypeError, ValueError, AssertionError, KeyError, RuntimeError) as error:
        what = f" with the weights in {path}" if weights else ""
        raise UserError(
            f"timm cannot make {name!r}{what}: {error}",
            hint="network.settings and the picture's size have to suit that network; weights have to be its own",
        ) from error
    if weights is not None:
        _check_taken(name, path, model, weights)
        # timm remembers what it loaded from; a copy of all weights need not stay in memory.
        vars(model)["pretrained_cfg"].pop("state_dict", None)
    return model, notes


def _named(
    name: str, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """The weights under timm's names, and what people should know of how they fit."""
    ordered = _checkpoints.by_order(own, weights)
    if ordered is not None:
        note = f"{name}: no name in the checkpoint is timm's; its {len(weights)} tensors were taken by order and shape"
        return ordered, (note,)
    shared = len(own.keys() & weights.keys())
    if shared <= len(own) / 2:
        # Perhaps in an older form, which timm knows how to read.
        return weights, ()
    return weights, tuple(f"{name}: {each}" for each in _checkpoints.differences(own, weights))


def _check_name(name: str) -> None:
    from timm.models import is_model, list_models

    if not is_model(name.partition(".")[0]):
        guess = near(name, list_models())
        raise UserError(
            f"timm has no network {name!r}",
            expected="a name that timm.list_models() gives",
            hint=f"did you mean {guess!r}?"
            if guess
            else """python -c "import timm; print(timm.list_models('*vit*'))\"""",
        )


def _check_taken(name: str, path: Path | None, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """timm passes over names that do not match: make sure that most of the network did come from the file."""
    held = {(each.numel(), float(each.double().sum())) for each in weights.values()}
    matrices = [each for each in model.parameters() if each.ndim > 1]
    taken = sum((each.numel(), float(each.detach().double().sum())) in held for each in matrices)
    if taken < len(matrices) / 2:
        lists = "; ".join(_checkpoints.differences(model.state_dict(), weights))
        raise UserError(
            f"the weights in {path} are not those of {name!r}: only {taken} of {len(matrices)} matrices fit ({lists})",
            hint="set network.name to the network that they were saved from",
        )
