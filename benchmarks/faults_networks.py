"""Modules with one thing wrong each, as someone might bring them, for `benchmarks/faults.py`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Mlp(nn.Module):
    """A plain one, which the others change."""

    def __init__(self, given: int = 64, classes: int = 10, width: int = 64) -> None:
        super().__init__()
        self.one, self.two, self.answer = nn.Linear(given, width), nn.Linear(width, width), nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        return functional.relu(self.two(functional.relu(self.one(x.flatten(1)))))

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.features(x))


class SoftmaxTwice(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


class SigmoidTwice(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid()


class Dead(Mlp):
    """The first units are far below zero."""

    def __init__(self, **settings: int) -> None:
        super().__init__(**settings)
        nn.init.constant_(self.one.bias, -1e4)


class HalfDead(Mlp):
    """Nearly all of the second layer's units are far below zero."""

    def __init__(self, **settings: int) -> None:
        super().__init__(**settings)
        with torch.no_grad():
            self.two.bias[: int(0.95 * len(self.two.bias))] = -1e4


class Frozen(Mlp):
    def __init__(self, **settings: int) -> None:
        super().__init__(**settings)
        self.one.requires_grad_(False)
        self.two.requires_grad_(False)


class AllFrozen(Mlp):
    """All but the last bias."""

    def __init__(self, **settings: int) -> None:
        super().__init__(**settings)
        self.requires_grad_(False)
        self.answer.bias.requires_grad_(True)


class Detached(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.features(x).detach())


class Unused(Mlp):
    """A layer that nothing goes through."""

    def __init__(self, **settings: int) -> None:
        super().__init__(**settings)
        self.forgotten = nn.Linear(8, 8)


class Mixing(Mlp):
    """Normalizes over the batch, in evaluation too."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.features(x)
        return self.answer((hidden - hidden.mean(0)) / (hidden.std(0, unbiased=False) + 1e-3))


class WrongSoftmax(Mlp):
    """Attends over the examples of the batch instead of over positions."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.features(x)
        return self.answer((hidden @ hidden.T / 8).softmax(0) @ hidden)


class Huge(Mlp):
    """A head that starts with large weights."""

    def __init__(self, **settings: int) -> None:
        super().__init__(**settings)
        nn.init.normal_(self.answer.weight, std=60.0)


class Unscaled(Mlp):
    """Takes its inputs for bytes, which they are not any more."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 255 * 4)


class Constant(Mlp):
    """Looks at nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.zeros_like(x))


class Saturated(Mlp):
    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(200 * self.two(torch.tanh(200 * self.one(x.flatten(1)))))


class DeepSigmoid(nn.Module):
    """Many layers of sigmoids: no gradient reaches the first."""

    def __init__(self, given: int = 64, classes: int = 10, depth: int = 14) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for _ in range(depth):
            layers += [nn.Linear(given, 32), nn.Sigmoid()]
            given = 32
        self.layers, self.answer = nn.Sequential(*layers), nn.Linear(given, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.layers(x))


class NotFinite(Mlp):
    """The square root of what is sometimes negative."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.sqrt(x.flatten(1).sum(1, keepdim=True) + 11)


class Collapsed(nn.Module):
    """Embeds everything at the same place."""

    def __init__(self, given: int = 64, width: int = 16) -> None:
        super().__init__()
        self.one = nn.Linear(given, width)

    def forward(self, x: Tensor) -> Tensor:
        return 1e-6 * self.one(x.flatten(1)) + 1


class Exploding(nn.Module):
    """A linear recurrence whose state triples at every step."""

    def __init__(self, vocabulary: int, classes: int, width: int = 16) -> None:
        super().__init__()
        self.embedding, self.answer = nn.Embedding(vocabulary, width), nn.Linear(width, classes)
        self.step = nn.Linear(width, width, bias=False)
        nn.init.orthogonal_(self.step.weight, gain=3000.0)

    def forward(self, tokens: Tensor) -> Tensor:
        state = self.embedding(tokens[:, 0])
        for at in range(1, tokens.shape[1]):
            state = self.step(state) + self.embedding(tokens[:, at])
        return self.answer(state)


class SeesAhead(nn.Module):
    """A language model that reads in both directions."""

    def __init__(self, vocabulary: int, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.read = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.answer = nn.Linear(2 * width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.answer(self.read(self.embedding(tokens))[0])


class MeanOfAll(nn.Module):
    """A language model that adds the mean of the whole text to every place."""

    def __init__(self, vocabulary: int, width: int = 16) -> None:
        super().__init__()
        self.embedding, self.answer = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        values = self.embedding(tokens)
        return self.answer(values + values.mean(1, keepdim=True))
