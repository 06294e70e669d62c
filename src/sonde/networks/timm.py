"""Any image network of the timm library by name: EfficientNet, ConvNeXt, ViT and 1,000 more, pretrained or not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sonde.base.config import FilePath
from sonde.base.errors import UserError, near
from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import InputSpec, LayoutName, OutputSpec, Per
from sonde.networks._grids import picture, picture_shape


class TimmConfig(BackboneConfig):
    kind: Literal["timm"] = "timm"
    name: str = Field("efficientnet_b0", description="a name that timm.list_models() knows")
    pretrained: bool = Field(False, description="start from timm's weights, fetched from the Hugging Face hub")
    weights: FilePath | None = Field(
        None, description="start from this file of weights instead: .safetensors or .pth (relative to this recipe)"
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

    def __init__(self, config: TimmConfig, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        channels, size = picture_shape(spec, config.kind)
        self.model = _create(config, (channels, size), output)
        self.to(memory_format=torch.channels_last)
        # Asking the network itself: timm's own account of its width differs from family to family.
        features = self._probe(config, torch.zeros(1, channels, *size))
        self.width = tuple(each.shape[1] for each in features) if output.chosen == "pixel" else features.shape[1]

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
                f"timm network {config.name!r} does not take pictures of {height} x {width} pixels: {error}",
                hint="choose another size for the input, or another network",
            ) from error
        self.train()
        return features


def _create(config: TimmConfig, shape: tuple[int, tuple[int, int]], output: OutputSpec) -> nn.Module:
    try:
        import timm
        from timm.models import get_pretrained_cfg
    except ImportError as error:
        raise UserError(f"timm cannot be imported: {error}", hint="pip install 'sonde[image]'") from error
    _check_name(config.name)
    channels, size = shape
    settings: dict[str, Any] = {"features_only": True} if output.chosen == "pixel" else {"num_classes": 0}
    weights = None if config.weights is None else _read(config.weights)
    try:
        about = get_pretrained_cfg(config.name)
        if about is not None and about.fixed_input_size:
            # ViT, Swin and others are built for one size.
            settings["img_size"] = size
        settings |= {"in_chans": channels, **config.settings}
        source = {} if weights is None else {"pretrained_cfg_overlay": {"state_dict": dict(weights)}}
        model = timm.create_model(config.name, pretrained=bool(weights) or config.pretrained, **source, **settings)
    except OSError as error:
        raise _out_of_reach(config.name, error) from error
    except (TypeError, ValueError, AssertionError, KeyError, RuntimeError) as error:
        what = f" with the weights in {config.weights}" if weights else ""
        raise UserError(
            f"timm cannot make {config.name!r}{what}: {error}",
            hint="network.settings and the picture's size have to suit that network; weights have to be its own",
        ) from error
    except Exception as error:  # whatever the hub's client of the day raises when there is no connection
        raise _out_of_reach(config.name, error) from error
    if weights is not None:
        _check_taken(config, model, weights)
        # timm remembers what it loaded from; a copy of all weights need not stay in memory.
        vars(model)["pretrained_cfg"].pop("state_dict", None)
    return model


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


def _out_of_reach(name: str, error: Exception) -> UserError:
    return UserError(
        f"timm's weights for {name!r} cannot be fetched: {_first_line(error)}",
        hint="download the file of weights elsewhere and set network.weights to its path, or set pretrained = false",
    )


def _read(path: str) -> dict[str, Tensor]:
    """The weights in a file; pickled code is never run."""
    from timm.models import load_state_dict

    if not Path(path).is_file():
        raise UserError(f"network.weights: there is no file {path}", expected="a .safetensors or .pth file")
    try:
        weights = load_state_dict(path, weights_only=True)
        if not weights or not all(isinstance(each, Tensor) for each in weights.values()):
            raise ValueError("it holds no mapping of names to tensors")
    except Exception as error:  # a damaged file can fail in many ways
        raise UserError(
            f"the weights in {path} cannot be read: {_first_line(error)}",
            expected="a .safetensors or .pth file of tensors by name",
        ) from error
    return weights


def _check_taken(config: TimmConfig, model: nn.Module, weights: dict[str, Tensor]) -> None:
    """timm passes over names that do not match: make sure that most of the network did come from the file."""
    held = {(each.numel(), float(each.double().sum())) for each in weights.values()}
    matrices = [each for each in model.parameters() if each.ndim > 1]
    taken = sum((each.numel(), float(each.detach().double().sum())) in held for each in matrices)
    if taken < len(matrices) / 2:
        raise UserError(
            f"the weights in {config.weights} are not those of {config.name!r}: only {taken} of {len(matrices)} fit",
            hint="set network.name to the network that they were saved from",
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
