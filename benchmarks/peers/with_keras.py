"""Keras 3, on the backend that KERAS_BACKEND names.

default: fit as it comes, with a line an epoch and the accuracy. fast: mixed_bfloat16, jit_compile, verbose=0; under
jax steps_per_execution; under torch channels-first, which that backend computes in.
"""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np
from keras import layers
from worker import SAMPLE, Clock, Go, Job, Spent, serve
from workloads import VOCABULARY, Workload

RATE = 1e-3
TOGETHER = 8


def build(workload: Workload, *, channels_first: bool) -> keras.Model:
    """The layers of networks.py."""
    keras.utils.set_random_seed(0)
    shape = workload.shape
    if workload.form == "pictures" and channels_first:
        shape = (shape[2], *shape[:2])
    inputs = keras.Input(shape, dtype="int32" if workload.form == "tokens" else "float32")
    return keras.Model(inputs, _answer(workload, inputs))


def _answer(workload: Workload, inputs: Any) -> Any:
    head = layers.Dense(workload.classes, dtype="float32")
    if workload.name == "mlp":
        x = layers.Flatten()(inputs)
        return head(layers.Dense(512, activation="relu")(layers.Dense(512, activation="relu")(x)))
    if workload.form == "pictures":
        x = inputs
        for width in (16, 32):
            x = layers.MaxPooling2D(2)(layers.Conv2D(width, 3, padding="same", activation="relu")(x))
        return head(layers.Flatten()(layers.Conv2D(64, 3, padding="same", activation="relu")(x)))
    if workload.name == "transformer":
        width = 128
        x = Places()(layers.Embedding(VOCABULARY, width)(inputs))
        for _ in range(2):
            y = layers.LayerNormalization(epsilon=1e-5)(x)
            x = x + layers.MultiHeadAttention(4, width // 4)(y, y)
            y = layers.Dense(4 * width, activation="gelu")(layers.LayerNormalization(epsilon=1e-5)(x))
            x = x + layers.Dense(width)(y)
        return head(layers.GlobalAveragePooling1D()(layers.LayerNormalization(epsilon=1e-5)(x)))
    if workload.name == "lstm":
        return head(layers.LSTM(128)(layers.Embedding(VOCABULARY, 64)(inputs)))
    return head(layers.Dense(256, activation="relu")(layers.Dense(256, activation="relu")(inputs)))


class Places(layers.Layer):
    """Adds a learnt vector to every position."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.places = self.add_weight(shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.02))

    def call(self, x: Any) -> Any:
        return x + keras.ops.cast(self.places, x.dtype)


class Ticks(keras.callbacks.Callback):
    """Tells the clock of every batch; the reading of the loss waits for what was sent off."""

    def __init__(self, clock: Clock, together: int) -> None:
        super().__init__()
        self.clock, self.together = clock, together

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.clock.count in (0, self.clock.steps):
            float((logs or {})["loss"])
        self.clock.tick()


def start(job: Job) -> Go:
    fast = job.setting == "fast"
    keras.config.set_dtype_policy("mixed_bfloat16" if fast else "float32")
    # The torch backend takes one step an execution only.
    torch = keras.backend.backend() == "torch"
    together = TOGETHER if fast and not torch else 1
    first = fast and torch and job.workload.form == "pictures"
    keras.config.set_image_data_format("channels_first" if first else "channels_last")
    x, y_N = job.arrays()
    x = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if first else x
    x = x.astype(np.int32) if job.workload.form == "tokens" else x
    model = build(job.workload, channels_first=first)
    model.compile(
        optimizer=keras.optimizers.AdamW(RATE, weight_decay=0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[] if fast else ["accuracy"],
        **({"jit_compile": True, "steps_per_execution": together} if fast else {}),
    )
    clock = Clock()

    def go(steps: int) -> tuple[Spent, float]:
        executions = -(-steps // together)
        clock.begin(executions)
        size = job.workload.batch
        # The last batch of an epoch is a smaller one unless the number of examples is a multiple.
        rows = len(x) // (size * together) * size * together
        model.fit(
            x[:rows],
            y_N[:rows],
            batch_size=size,
            steps_per_epoch=clock.needed * together,
            epochs=1,
            shuffle=True,
            verbose=0 if fast else 2,
            callbacks=[Ticks(clock, together)],
        )
        spent = clock.read()
        # Whole executions were timed; the answer is for `steps`.
        share = steps / (executions * together)
        loss = model.evaluate(x[:SAMPLE], y_N[:SAMPLE], batch_size=SAMPLE // 8, verbose=0)
        return Spent(spent.wall * share, spent.processor * share), float(loss if fast else loss[0])

    return go


if __name__ == "__main__":
    serve(start, "keras", os.environ["KERAS_BACKEND"])
