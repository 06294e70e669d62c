"""Transformer: attention over texts, sounds, series or picture patches; encoder, or causal decoder (GPT-2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sonde.base.config import Config
from sonde.columns import Tensors
from sonde.networks._grids import picture_shape
from sonde.networks._layers import Activation, activation
from sonde.networks._sequences import Entry, answers_in_tokens, inside, pool
from sonde.task import Ask, Body, Form, Per, Shape

# Keys and values (B, heads, T, W / heads) of the earlier positions, for each layer.
Cache = list[tuple[Tensor, Tensor]]
# Up to so many positions CPUs attend quicker in float32 than in bfloat16: 5 times at 32, 2 times at 128.
SHORT = 256
Pool = Literal["mean", "max", "class"]


class TransformerConfig(Config):
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
    patch: Annotated[int, Field(ge=1)] | None = Field(
        None, description="pictures: side of a patch in pixels; an eighth of the shorter side if left out"
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> TransformerConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(f"rotary positions need an even width / heads; it is {self.width // self.heads}")
        return self


class Transformer(Body):
    """(B, T) tokens, (B, T, C) frames or (B, C, H, W) pictures to (B, width) or (B, T, width).

    Pre-norm blocks and first weights of GPT-2 (Radford et al. 2019); pictures as patches (Dosovitskiy et al. 2021).
    Two more tensors may come with tokens or frames: "segment" int (B, T), where several texts share a row (attention
    stays inside a segment), and "place" int (B, T), the position of each inside its text.
    """

    Config = TransformerConfig
    accepts: ClassVar[tuple[Form, ...]] = ("tokens", "frames", "grid")
    gives: ClassVar[tuple[Per, ...]] = ("example", "position")
    causal: ClassVar[bool] = True
    tiny: ClassVar[Mapping[str, Any]] = {"width": 16, "layers": 2, "heads": 2}

    def __init__(self, config: TransformerConfig, shape: Shape, ask: Ask) -> None:
        nn.Module.__init__(self)
        self.width = config.width
        self.config = config
        self.is_causal = ask.causal
        self.entry = Patches(config, shape) if shape.form == "grid" else Entry(shape, config.width)
        self.pool: Pool | None = config.pool if ask.per == "example" else None
        # A vector, as optimizers decay and orthogonalize matrices only.
        self.first = nn.Parameter(torch.zeros(config.width)) if self.pool == "class" else None
        steps = self.entry.steps if isinstance(self.entry, Patches) else shape.size[0] + (shape.form == "tokens")
        self.steps = steps + (self.first is not None)
        self.places = nn.Embedding(self.steps, config.width) if config.positions == "learned" else None
        # Waves as strong as the embeddings of tokens start out; frames and patches are of size one already.
        self.loudness = 0.02 * math.sqrt(2) if shape.form == "tokens" else 1.0
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = _norm(config)
        self.tied = config.tie and answers_in_tokens(shape, ask)
        self._initialize(config)

    def _initialize(self, config: TransformerConfig) -> None:
        for name, weights in self.named_parameters():
            if weights.ndim > 1:
                # Branches are summed over the depth: their last layers start smaller, so that the sum does not grow.
                last = name.endswith(("attention.out.weight", "shrink.weight"))
                nn.init.normal_(weights, std=0.02 / math.sqrt(2 * config.layers) if last else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weights)
        if self.first is not None:
            nn.init.normal_(self.first, std=0.02)
        if not isinstance(self.entry.layer, nn.Embedding):
            # Frames and patches are numbers of size one: keep their size.
            nn.init.normal_(self.entry.layer.weight, std=self.entry.layer.weight[0].numel() ** -0.5)

    @property
    def embedding_weight(self) -> Tensor | None:
        """The weight (vocabulary, width) that the head shares, or None."""
        return self.entry.layer.weight if self.tied else None

    def forward(self, tensors: Tensors) -> Tensor:
        x_BTW = self.entry(tensors)
        inside_BT = inside(tensors, x_BTW.shape[1])
        if self.first is not None:
            x_BTW = torch.cat([self.first.to(x_BTW.dtype).expand(len(x_BTW), 1, -1), x_BTW], dim=1)
            inside_BT = None if inside_BT is None else functional.pad(inside_BT, (1, 0), value=True)
        mask = _mask(tensors.get("segment"), inside_BT, causal=self.is_causal)
        x_BTW, turn = self._place(x_BTW, self._places_of(tensors, x_BTW, 0))
        for block in self.blocks:
            x_BTW, _ = block(x_BTW, turn, mask, self.is_causal and mask is None, None)
        x_BTW = self.norm(x_BTW)
        if self.pool is None:
            return x_BTW
        return x_BTW[:, 0] if self.pool == "class" else pool(x_BTW, inside_BT, self.pool)

    def extend(self, tensors: Tensors, cache: Cache | None) -> tuple[Tensor, Cache]:
        """Keys and values are appended to those of earlier positions; the given cache is left as it was.

        Raises:
            ValueError: more positions than the input's longest example.
        """
        if not self.is_causal:
            raise NotImplementedError("a network that looks ahead cannot be extended")
        x_BTW = self.entry(tensors)
        start, steps = cache[0][0].shape[2] if cache else 0, x_BTW.shape[1]
        mask = None
        if start and steps > 1:
            mask = torch.ones(steps, start + steps, dtype=torch.bool, device=x_BTW.device).tril(start)
        x_BTW, turn = self._place(x_BTW, self._places_of(tensors, x_BTW, start))
        held: Cache = []
        for number, block in enumerate(self.blocks):
            x_BTW, pair = block(x_BTW, turn, mask, start == 0 and steps > 1, cache[number] if cache else None)
            held.append(pair)
        return self.norm(x_BTW), held

    def _places_of(self, tensors: Tensors, x_BTW: Tensor, start: int) -> Tensor:
        """The position of each feature in its sequence, (T,) or (B, T)."""
        if "place" in tensors:
            return tensors["place"]
        stop = start + x_BTW.shape[1]
        if self.places is not None and stop > self.steps:
            raise ValueError(f"position {stop} is beyond the {self.steps} positions that were learnt")
        return torch.arange(start, stop, device=x_BTW.device)

    def _place(self, x_BTW: Tensor, place: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features that know their place, or the rotations (T, R) or (B, 1, T, R) that tell attention."""
        turn = None
        if self.places is not None:
            x_BTW = x_BTW + self.places(place)
        elif self.config.positions == "sinusoidal":
            x_BTW = x_BTW + (self.loudness * waves(place, self.config.width)).to(x_BTW.dtype)
        else:
            turn = waves(place, self.config.width // self.config.heads)
            turn = turn[:, None] if place.ndim == 2 else turn
        return self.dropout(x_BTW), turn


class Block(nn.Module):
    """Attention and feed-forward layers, each added to what comes in."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        inner = round(config.mlp_ratio * config.width)
        self.norm1, self.norm2 = _norm(config), _norm(config)
        self.attention = Attention(config)
        self.grow = nn.Linear(config.width, inner, bias=config.bias)
        self.activation = activation(config.activation)
        self.shrink = nn.Linear(inner, config.width, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BTW: Tensor,
        turn: Tensor | None,
        mask: Tensor | None,
        causal: bool,
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        seen_BTW, pair = self.attention(self.norm1(x_BTW), turn, mask, causal, past)
        x_BTW = x_BTW + self.dropout(seen_BTW)
        return x_BTW + self.dropout(self.shrink(self.activation(self.grow(self.norm2(x_BTW))))), pair


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017). Its weights are not dropped: fused kernels cannot."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.inner = nn.Linear(config.width, 3 * config.width, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)

    def forward(
        self,
        x_BTW: Tensor,
        turn: Tensor | None,
        mask: Tensor | None,
        causal: bool,
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        query, key, value = self.inner(x_BTW).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if turn is not None:
            query, key = rotate(query, turn), rotate(key, turn)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        y = attend(query, key, value, mask, causal)
        return self.out(y.transpose(1, 2).flatten(2)), (key, value)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """softmax(query key^T / sqrt(R)) value; all (B, heads, T, R)."""
    if query.dtype == torch.bfloat16 and query.device.type == "cpu" and key.shape[2] <= SHORT:
        with torch.autocast("cpu", enabled=False):
            return attend(query.float(), key.float(), value.float(), mask, causal).to(query.dtype)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)


class Patches(nn.Module):
    """A picture (B, C, H, W) as its patches, row by row: (B, T, width). Rests at the edges are filled with zeros."""

    def __init__(self, config: TransformerConfig, shape: Shape) -> None:
        super().__init__()
        channels, size = picture_shape(shape, config.kind)
        self.patch = config.patch or max(1, round(min(size) / 8))
        self.layer = nn.Conv2d(channels, config.width, self.patch, stride=self.patch)
        self.steps = math.prod(math.ceil(side / self.patch) for side in size)

    def forward(self, tensors: Tensors) -> Tensor:
        grid = tensors["grid"]
        height, width = grid.shape[2:]
        if height % self.patch or width % self.patch:
            grid = functional.pad(grid, (0, -width % self.patch, 0, -height % self.patch))
        return self.layer(grid).flatten(2).transpose(1, 2)


def waves(place: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of a place at `width` / 2 wavelengths from 2 pi to 20,000 pi: (..., width)."""
    half = (width + 1) // 2
    rate_F = 10_000.0 ** (-torch.arange(half, device=place.device) / half)
    angle = place[..., None] * rate_F
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[..., :width]


def rotate(values: Tensor, turn: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021): each pair of numbers turned by the angle of its place."""
    sine, cosine = turn.to(values.dtype).chunk(2, dim=-1)
    first, second = values.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def _norm(config: TransformerConfig) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(config.width, eps=1e-5)
    return nn.LayerNorm(config.width, bias=config.bias)


def _mask(segment_BT: Tensor | None, inside_BT: Tensor | None, *, causal: bool) -> Tensor | None:
    """Which keys each query may see, bool (B, 1, T or 1, T); None: all, or all earlier ones where causal."""
    if segment_BT is not None:
        if inside_BT is not None:
            # Padding is a segment of its own: no row may be left with nothing to see.
            segment_BT = torch.where(inside_BT, segment_BT, -1)
        mask_BTT = segment_BT[:, :, None] == segment_BT[:, None, :]
        return (mask_BTT.tril() if causal else mask_BTT)[:, None]
    # Padding stands at the end, where a causal position never looks.
    return None if causal or inside_BT is None else inside_BT[:, None, None, :]
