"""Transformer: attention over texts, sounds, series or patches (ViT); encoder, or causal decoder (GPT-2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sonde.base.errors import UserError
from sonde.contracts.backbone import Backbone, BackboneConfig
from sonde.contracts.columns import Tensors
from sonde.contracts.specs import Features, InputSpec, LayoutName, OutputSpec, Per
from sonde.networks._channels import ChannelPatches, ChannelTokens
from sonde.networks._layers import Activation, activation
from sonde.networks._packing import Group, Layout, packed, padded
from sonde.networks._patches import Patches, PatchSides, Stem, sinusoids
from sonde.networks._sequences import Entry, Stride, Subsample, answers_in_tokens, check_stride, inside, pool

# Keys and values (B, heads, T, W / heads) of the earlier positions, for each layer.
Cache = list[tuple[Tensor, Tensor]]
# Up to so many positions CPUs attend quicker in float32 than in bfloat16: 5 times at 32, 2 times at 128.
SHORT = 256
Pool = Literal["mean", "max", "class"]


class TransformerConfig(BackboneConfig):
    kind: Literal["transformer"] = "transformer"
    width: int = Field(128, ge=2, description="width of the features; a multiple of heads")
    layers: int = Field(4, ge=1, description="blocks of attention and feed-forward layers")
    heads: int = Field(4, ge=1, description="attention heads")
    mlp_ratio: float = Field(4.0, gt=0, description="width inside the feed-forward layers, as a multiple of width")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of embeddings and of each branch dropped in training")
    activation: Activation = Field("gelu", description="relu, leaky-relu, gelu, silu, tanh or sigmoid")
    norm: Literal["layer", "rms"] = Field("layer", description="layer or rms (without mean and shift)")
    positions: Literal["learned", "rotary", "sinusoidal"] = Field("learned", description="how places are told apart")
    bias: bool = Field(True, description="biases in linear layers and norms")
    tie: bool = Field(True, description="language models: share weights of embedding and answer")
    pool: Pool = Field("mean", description="one vector from all positions; class: a token")
    packing: bool = Field(True, description="leave padding out of the computation (on CPUs); the answers are the same")
    subsample: Stride = Field(1, description="sounds and series: frames that become one position: 1, 2, 4 or 8")
    attend: Literal["patches", "channels"] = Field(
        "patches",
        description="forecasts: attention over the patches of each channel alone (PatchTST), or over channels, each "
        "whole past a token (iTransformer)",
    )
    drop_path: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="stochastic depth: how often the last block is skipped in training, earlier ones less",
    )
    norm_eps: float = Field(1e-5, gt=0, description="what norms add to the variance; weights from elsewhere: theirs")
    patch: PatchSides | None = Field(
        None,
        description="pictures, volumes and clips: side of a patch, or one for each axis; an eighth of the shorter side "
        "if left out. Forecasts: steps of a patch; 16 if left out",
    )
    stem: Stem = Field("patches", description="how patches become positions: patches (one layer) or convolutional")

    @model_validator(mode="after")
    def _heads_fit(self) -> TransformerConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(f"rotary positions need an even width / heads; it is {self.width // self.heads}")
        return self


class Transformer(Backbone):
    """(B, T) tokens, (B, T, C) frames or grids (B, C, *size) to (B, width) or (B, T, width); of grids also to one grid
    (B, width, *size / patch); or each channel of frames to (B, C, width), by its patches or whole.

    Pre-norm blocks and first weights of GPT-2 (Radford et al. 2019); pictures as patches (Dosovitskiy et al. 2021),
    volumes and clips as cubes of them. Its layers work on rows (N, width), one for each position: with `packing`, one
    for each that is not padding. Blocks may be skipped for single examples (Huang et al. 2016).
    """

    Config = TransformerConfig
    accepts: ClassVar[tuple[LayoutName, ...]] = ("tokens", "frames", "grid")
    gives: ClassVar[tuple[Per, ...]] = ("example", "position", "channel", "pixel")
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    causal: ClassVar[bool] = True
    tiny: ClassVar[Mapping[str, Any]] = {"width": 16, "layers": 2, "heads": 2}

    def __init__(self, config: TransformerConfig, spec: InputSpec, output: OutputSpec) -> None:
        super().__init__(config, spec, output)
        self.config = config
        self.is_causal = output.causal
        self.by_channel = output.chosen == "channel"
        check_stride(config.subsample, config.kind, spec, output)
        self.subsample = Subsample(spec, config.width, config.subsample) if config.subsample > 1 else None
        if self.subsample is not None:
            spec = replace(spec, channels=config.width, size=(-(-spec.size[0] // config.subsample),))
        self.entry = self._entry(config, spec)
        # Of a channel the features of all its patches.
        self.width = config.width * (self.entry.steps if isinstance(self.entry, ChannelPatches) else 1)
        self.as_grid = output.chosen == "pixel"
        if self.as_grid:
            self.width = (config.width,)
        self.pool: Pool | None = config.pool if output.chosen == "example" else None
        # A vector, as optimizers decay and orthogonalize matrices only.
        self.cls_token = nn.Parameter(torch.zeros(config.width)) if self.pool == "class" else None
        steps = spec.size[0] + (spec.layout == "tokens") if isinstance(self.entry, Entry) else self.entry.steps
        self.steps = steps + (self.cls_token is not None)
        self.position_embedding = nn.Embedding(self.steps, config.width) if config.positions == "learned" else None
        # Sinusoids start as large as the embeddings of tokens; frames and patches are of size one already.
        self.position_scale = 0.02 * math.sqrt(2) if spec.layout == "tokens" else 1.0
        self.dropout = nn.Dropout(config.dropout)
        # The later a block, the more often it is skipped.
        rate = config.drop_path / max(1, config.layers - 1)
        self.blocks = nn.ModuleList(Block(config, rate * number) for number in range(config.layers))
        self.norm = _norm(config)
        self.tied = config.tie and answers_in_tokens(spec, output)
        self._initialize(config)

    def _entry(self, config: TransformerConfig, spec: InputSpec) -> Entry | Patches | ChannelPatches | ChannelTokens:
        if self.by_channel and config.attend == "channels":
            return ChannelTokens(spec, config.width)
        if self.by_channel:
            if isinstance(config.patch, tuple):
                raise UserError(
                    f"network.patch is {list(config.patch)}; a patch of a series has one side", hint="patch = 16"
                )
            return ChannelPatches(spec, config.width, config.patch or 16)
        return _patches(config, spec) if spec.layout == "grid" else Entry(spec, config.width)

    def _initialize(self, config: TransformerConfig) -> None:
        for name, weights in self.named_parameters():
            if name.startswith(("subsample.", "entry.stem.")):
                continue
            if weights.ndim > 1:
                # Branches are summed over the depth: their last layers start smaller, so that the sum does not grow.
                last = name.endswith(("attention.out.weight", "fc2.weight"))
                nn.init.normal_(weights, std=0.02 / math.sqrt(2 * config.layers) if last else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weights)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)
        if not isinstance(self.entry.layer, nn.Embedding):
            # Frames and patches are numbers of size one: keep their size.
            nn.init.normal_(self.entry.layer.weight, std=self.entry.layer.weight[0].numel() ** -0.5)

    @property
    def embedding_weight(self) -> Tensor | None:
        """The weight (vocabulary, width) that the head shares, or None."""
        return self.entry.layer.weight if self.tied else None

    @classmethod
    def smaller(cls, config: TransformerConfig) -> TransformerConfig:
        # Half the width in half as many heads keeps that of a head.
        heads = max(1, config.heads // 2)
        width = config.width * heads // config.heads
        return config.model_copy(update={"heads": heads, "width": width, "layers": max(1, config.layers // 2)})

    def forward(self, tensors: Tensors) -> Tensor | tuple[Tensor, ...] | Features:
        if self.subsample is not None:
            tensors = self.subsample(tensors)
        x_BTW = self.entry(tensors)
        inside_BT = None if self.by_channel else inside(tensors, x_BTW.shape[1])
        if self.cls_token is not None:
            x_BTW = torch.cat([self.cls_token.to(x_BTW.dtype).expand(len(x_BTW), 1, -1), x_BTW], dim=1)
            inside_BT = None if inside_BT is None else functional.pad(inside_BT, (1, 0), value=True)
        count, steps = x_BTW.shape[:2]
        x_BTW, rope = self._place(x_BTW, 0)
        layout = self._layout(count, steps, inside_BT)
        rope = None if rope is None else layout.pack(rope.expand(count, -1, -1))[:, None, None]
        x_NW = self.dropout(layout.pack(x_BTW))
        for block in self.blocks:
            x_NW, _ = block(x_NW, rope, layout, self.is_causal, None)
        x_BTW = layout.unpack(self.norm(x_NW), count)
        if isinstance(self.entry, ChannelPatches):
            return x_BTW.flatten(1).unflatten(0, (len(tensors["length"]), -1))
        if self.as_grid and isinstance(self.entry, Patches):
            return (x_BTW.transpose(1, 2).unflatten(2, self.entry.shape),)
        if self.pool is None:
            if self.subsample is not None:
                return Features(values=x_BTW, inside_BT=inside_BT, stride=self.subsample.stride)
            return x_BTW
        return x_BTW[:, 0] if self.pool == "class" else pool(x_BTW, inside_BT, self.pool)

    def _layout(self, count: int, steps: int, inside_BT: Tensor | None) -> Layout:
        # How many rows there are has to be known: that would wait for a device, and a traced graph cannot ask.
        can_look = inside_BT is not None and inside_BT.device.type == "cpu" and not torch.compiler.is_compiling()
        if inside_BT is not None and can_look and self.config.packing:
            return packed(inside_BT.sum(1), steps, causal=self.is_causal)
        return padded(count, steps, inside_BT, causal=self.is_causal)

    def extend(self, tensors: Tensors, cache: Cache | None) -> tuple[Tensor, Cache]:
        """Keys and values are appended to those of earlier positions; the given cache is left as it was.

        Raises:
            ValueError: more positions than the input's longest example.
        """
        if not self.is_causal:
            raise NotImplementedError("a network that looks ahead cannot be extended")
        x_BTW = self.entry(tensors)
        start, (count, steps) = cache[0][0].shape[2] if cache else 0, x_BTW.shape[:2]
        mask = None
        if start and steps > 1:
            mask = torch.ones(steps, start + steps, dtype=torch.bool, device=x_BTW.device).tril(start)
        x_BTW, rope = self._place(x_BTW, start)
        layout = Layout(groups=(Group(count=count, steps=steps, mask=mask),))
        rope = None if rope is None else layout.pack(rope.expand(count, -1, -1))[:, None, None]
        x_NW = self.dropout(layout.pack(x_BTW))
        held: Cache = []
        for number, block in enumerate(self.blocks):
            x_NW, pair = block(x_NW, rope, layout, start == 0 and steps > 1, cache[number] if cache else None)
            held.append(pair)
        return layout.unpack(self.norm(x_NW), count), held

    def _place(self, x_BTW: Tensor, start: int) -> tuple[Tensor, Tensor | None]:
        """Features that know their place, counted from `start`, or the rotations (T, R) that tell attention."""
        stop = start + x_BTW.shape[1]
        if self.position_embedding is not None and stop > self.steps:
            raise ValueError(f"position {stop} is beyond the {self.steps} positions that were learned")
        place_T = torch.arange(start, stop, device=x_BTW.device)
        if self.position_embedding is not None:
            return x_BTW + self.position_embedding(place_T), None
        if self.config.positions == "sinusoidal" and isinstance(self.entry, Patches):
            places_TW = self.entry.sinusoids(x_BTW.device)
            if self.cls_token is not None:
                places_TW = functional.pad(places_TW, (0, 0, 1, 0))
            return x_BTW + places_TW.to(x_BTW.dtype), None
        if self.config.positions == "sinusoidal":
            return x_BTW + (self.position_scale * sinusoids(place_T, self.config.width)).to(x_BTW.dtype), None
        return x_BTW, sinusoids(place_T, self.config.width // self.config.heads)


class Block(nn.Module):
    """Attention and feed-forward layers, each added to what comes in.

    In training examples skip either with the probability `skipped`; what is not skipped counts for as much more.
    """

    def __init__(self, config: TransformerConfig, skipped: float = 0.0) -> None:
        super().__init__()
        self.skipped = skipped
        hidden = round(config.mlp_ratio * config.width)
        self.norm1, self.norm2 = _norm(config), _norm(config)
        self.attention = Attention(config)
        self.fc1 = nn.Linear(config.width, hidden, bias=config.bias)
        self.activation = activation(config.activation)
        self.fc2 = nn.Linear(hidden, config.width, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_NW: Tensor,
        rope: Tensor | None,
        layout: Layout,
        causal: bool,
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        seen_NW, pair = self.attention(self.norm1(x_NW), rope, layout, causal, past)
        x_NW = x_NW + self._kept(self.dropout(seen_NW), layout)
        return x_NW + self._kept(self.dropout(self.fc2(self.activation(self.fc1(self.norm2(x_NW))))), layout), pair

    def _kept(self, branch_NW: Tensor, layout: Layout) -> Tensor:
        if not self.training or not self.skipped:
            return branch_NW
        kept = 1 - self.skipped
        scale_B = (torch.rand(layout.num_examples, device=branch_NW.device) < kept).to(branch_NW.dtype) / kept
        return branch_NW * layout.by_row(scale_B)[:, None]


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017). Its weights are not dropped: fused kernels cannot."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)

    def forward(
        self,
        x_NW: Tensor,
        rope: Tensor | None,
        layout: Layout,
        causal: bool,
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What each row sees, and keys and values of the last group; a layout that goes on from a `past` has one."""
        qkv = self.qkv(x_NW).unflatten(1, (3, self.heads, -1))
        both, value_NHR = qkv[:, :2], qkv[:, 2]
        if rope is not None:
            both = rotate(both, rope)
        seen: list[Tensor] = []
        pairs: list[tuple[Tensor, Tensor]] = []
        for (group, part), (_, value) in zip(layout.spread(both), layout.spread(value_NHR), strict=True):
            query, key = part.permute(2, 0, 3, 1, 4)
            value = value.transpose(1, 2)
            if past is not None:
                key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
            seen.append(attend(query, key, value, group.mask, causal).transpose(1, 2).flatten(2))
            pairs.append((key, value))
        return self.out(layout.gather(seen)), pairs[-1]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """softmax(query key^T / sqrt(R)) value; all (B, heads, T, R)."""
    if query.dtype == torch.bfloat16 and query.device.type == "cpu" and key.shape[2] <= SHORT:
        with torch.autocast("cpu", enabled=False):
            return attend(query.float(), key.float(), value.float(), mask, causal).to(query.dtype)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)


def rotate(values: Tensor, rope: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021): each pair of numbers turned by the angle of its place."""
    sine, cosine = rope.to(values.dtype).chunk(2, dim=-1)
    first, second = values.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def _norm(config: TransformerConfig) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(config.width, eps=config.norm_eps)
    return nn.LayerNorm(config.width, eps=config.norm_eps, bias=config.bias)


def _patches(config: TransformerConfig, spec: InputSpec) -> Patches:
    return Patches(spec, config.width, config.patch, config.stem, kind=config.kind)
