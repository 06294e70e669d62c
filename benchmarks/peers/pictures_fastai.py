"""fastai: the network of pictures.py in a Learner, fit_one_cycle, label smoothing, batches taken whole.

bf16 where that is quicker. For flowers the batch is changed by fastai's own aug_transforms.
"""

from __future__ import annotations

from functools import partial

import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.schedule import Learner  # with fit_one_cycle
from fastai.data.core import DataLoaders
from fastai.losses import LabelSmoothingCrossEntropy
from fastai.optimizer import OptimWrapper
from fastai.vision.augment import aug_transforms
from fastai.vision.core import TensorImage
from pictures import BATCH, RATE, SMOOTHING, half, network, prepared
from race_common import Race, Reached
from torch import Tensor
from torch.utils.data import TensorDataset
from with_fastai import Autocast, Whole


class Evaluate(Callback):
    """The accuracy after every epoch's own validation."""

    def __init__(self, race: Race, truth: Tensor) -> None:
        self.race, self.truth = race, truth

    def before_validate(self) -> None:
        self.answers: list[Tensor] = []

    def after_pred(self) -> None:
        if not self.training:
            self.answers.append(self.pred.argmax(1))

    def after_validate(self) -> None:
        try:
            self.race.note((torch.cat(self.answers) == self.truth).float().mean().item())
        except Reached:
            raise CancelFitException from None


class Photos(Callback):
    """Bytes to floats, changed at random in training."""

    def __init__(self) -> None:
        self.changes = aug_transforms(size=64, min_scale=0.7)

    def before_batch(self) -> None:
        x_B = self.x.float().div_(255)
        if self.training:
            x_B = TensorImage(x_B)
            for change in self.changes:
                x_B = change(x_B, split_idx=0)
            x_B = x_B.as_subclass(Tensor)
        self.learn.xb = (x_B.sub(0.43).div(0.27).contiguous(memory_format=torch.channels_last),)


class Sliced(TensorDataset):
    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        chosen = torch.tensor(indices)
        return tuple(tensor[chosen] for tensor in self.tensors)


def main() -> None:
    race = Race()
    formats = [Autocast()] if half(race) else []
    torch.manual_seed(race.seed)
    race.start()
    x, y, x_test, y_test = prepared(race)
    data = DataLoaders(
        Whole(Sliced(x, y), bs=BATCH[race.name], shuffle=True, drop_last=True, num_workers=0, n=len(x)),
        Whole(Sliced(x_test, y_test), bs=500, num_workers=0, n=len(x_test)),
        device="cpu",
    )
    learner = Learner(
        data,
        network(race, x.shape[1], int(y.max()) + 1),
        loss_func=LabelSmoothingCrossEntropy(SMOOTHING),
        opt_func=partial(OptimWrapper, opt=torch.optim.AdamW, fused=True),
        cbs=[Evaluate(race, y_test), *formats, *([Photos()] if race.name == "flowers" else [])],
    )
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(race.epochs, RATE[race.name])
    race.tell()


if __name__ == "__main__":
    main()
