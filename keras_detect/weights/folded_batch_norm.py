"""Batch norm that was folded into convolutions: recognized in a source and in a model, and undone by calibration.

A converter that folds batch norm leaves a kernel and a bias. In a model whose layers are still there, the folded form
is batch norm as the identity plus an offset: gamma `sqrt(1 + epsilon)`, mean 0, variance 1, beta the folded bias. It
predicts the same; but in training, batch norm divides by the deviations of the batch, which are nowhere near 1, and the
network is destroyed in the first epochs. `unfold_batchnorm` gives the layers the statistics of their inputs and leaves
their outputs as they are.
"""

import contextlib
import functools
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from absl import logging
from keras import ops

from keras_detect import compat, registry

_BATCH = 8  # images of an array that the network sees at once
_CONSTANTS = ("gamma", "moving_mean", "moving_variance")


class FoldedWeights:
    """Kernels and folded biases as the source of a model that has batch norm.

    Args:
        reader: has `shapes` and `read` with keys `scope/kernel` and `scope/bias`, `ignored`, `source` and `advice`.
        epsilons: `{scope: epsilon of the batch norm}` of the convolutions behind which our model has one.

    Attributes:
        shapes: the reader's; in the place of `scope/bias`, for the scopes of `epsilons`, `scope/BatchNorm/` and
            "beta", "gamma", "moving_mean" or "moving_variance".
        folded: how many batch norms are folded.
    """

    def __init__(self, reader, epsilons: dict[str, float]):
        self.source, self.ignored, self.advice = reader.source, reader.ignored, reader.advice
        self._reader = reader
        self._epsilons = {scope: epsilon for scope, epsilon in epsilons.items() if f"{scope}/kernel" in reader.shapes}
        self.folded = len(self._epsilons)
        self.shapes = {}
        for key, shape in reader.shapes.items():
            scope, _, variable = key.rpartition("/")
            if scope not in self._epsilons:
                self.shapes[key] = shape
            elif variable == "kernel":
                self.shapes[key] = shape
                channels = reader.shapes.get(f"{scope}/bias", (shape[2] * shape[3] if shape[3] == 1 else shape[3],))
                for name in ("beta", *_CONSTANTS):
                    self.shapes[f"{scope}/BatchNorm/{name}"] = channels

    def read(self, key: str) -> np.ndarray:
        """The value under `key`, float32."""
        scope, _, variable = key.rpartition("/")
        scope, _, layer = scope.rpartition("/")
        if layer != "BatchNorm":
            return self._reader.read(key)
        channels = self.shapes[key]
        if variable == "beta":
            bias = f"{scope}/bias"
            return self._reader.read(bias) if bias in self._reader.shapes else np.zeros(channels, np.float32)
        constants = {"gamma": np.sqrt(1.0 + self._epsilons[scope]), "moving_mean": 0.0, "moving_variance": 1.0}
        return np.full(channels, constants[variable], np.float32)


def batch_norms(model) -> list[keras.layers.BatchNormalization]:
    """All batch norms inside `model`, ours and Keras' own."""
    return [layer for layer in compat.inner_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]


def folded_layers(model) -> list[keras.layers.BatchNormalization]:
    """The batch norms of `model` that hold folded weights: mean 0 and variance 1 as they start, but a trained offset.

    The weights themselves say so, so that it holds for a model however it was saved, loaded and re-headed; training and
    `unfold_batchnorm` end it.
    """
    return [layer for layer in batch_norms(model) if _is_folded(layer)]


def _is_folded(layer):
    if not layer.built or layer.beta is None or layer.gamma is None:
        return False
    beta, mean, variance = (
        ops.convert_to_numpy(value) for value in (layer.beta, layer.moving_mean, layer.moving_variance)
    )
    return bool(np.any(beta) and not np.any(mean) and np.all(variance == 1.0))


def unfold_batchnorm(model: Any, images: Iterable[Any]) -> int:
    """Gives batch norms with folded weights the statistics of their inputs, so that the model can be fine-tuned.

    The moving mean and variance of each become what it sees over `images`, gamma and beta what leaves its output as it
    is: the model detects the same before and after (raw outputs move by some 1e-5). Batch norms whose weights are not
    folded (`docs/weights.md`) stay as they are.

    Args:
        model: a `DetectionModel`.
        images: images of the kind that the model will be trained on, some 48 or more: a `DetectionDataset`, an array
            `[N, H, W, 3]` (uint8, or float in 0...255), or an iterable of what `detect` takes: paths, Pillow
            images, arrays `[H, W, 3]` of any size.

    Returns:
        How many batch norms were un-folded.

    Raises:
        ValueError: no image, or what `detect` raises for one.
    """
    layers = folded_layers(model)
    if not layers:
        return 0
    seen = {id(layer): _Statistics() for layer in layers}
    count = 0
    with _watched(layers, seen):
        for batch in _batches(images):
            model(model.preprocess(batch), training=False)
            count += len(batch)
    if not count:
        raise ValueError("unfold_batchnorm measures on images. Received none. Pass some 48 of the training images.")
    unfolded = [layer for layer in layers if seen[id(layer)].count]
    for layer in unfolded:
        _unfold(layer, seen[id(layer)])
    logging.info("%d folded batch norms hold the statistics of %d images now", len(unfolded), count)
    return len(unfolded)


class _Statistics:
    """Mean and variance per channel over all that was added, in float64 (Chan et al. 1979)."""

    def __init__(self):
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, inputs, axis):
        axes = [number for number in range(len(inputs.shape)) if number != axis % len(inputs.shape)]
        wide = ops.cast(inputs, "float32")
        mean = ops.convert_to_numpy(ops.mean(wide, axis=axes)).astype(np.float64)
        variance = ops.convert_to_numpy(ops.var(wide, axis=axes)).astype(np.float64)
        count = int(np.prod([inputs.shape[number] for number in axes]))
        total, difference = self.count + count, mean - self.mean
        self.squares = self.squares + variance * count + difference**2 * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total

    @property
    def variance(self):
        """The unbiased one, which training remembers too."""
        return self.squares / max(self.count - 1, 1)


@contextlib.contextmanager
def _watched(layers, seen):
    """Adds the inputs of every call of `layers` to their statistics."""

    def call(layer, compute, inputs, *args, **kwargs):
        seen[id(layer)].add(inputs, layer.axis)
        return compute(inputs, *args, **kwargs)

    try:
        for layer in layers:
            layer.call = functools.partial(call, layer, layer.call)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("call", None)


def _unfold(layer, statistics):
    gamma, beta, mean, variance = (
        ops.convert_to_numpy(value).astype(np.float64)
        for value in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    )
    slope = gamma / np.sqrt(variance + layer.epsilon)
    new_mean, new_variance = statistics.mean.astype(np.float32), statistics.variance.astype(np.float32)
    layer.gamma.assign((slope * np.sqrt(new_variance.astype(np.float64) + layer.epsilon)).astype(np.float32))
    layer.beta.assign((beta + slope * (new_mean.astype(np.float64) - mean)).astype(np.float32))
    layer.moving_mean.assign(new_mean)
    layer.moving_variance.assign(new_variance)


def _batches(images):
    """Arrays `[n, H, W, 3]`: of an array of images several at once, else one by one, since sizes differ."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        for start in range(0, len(images), _BATCH):
            yield images[start : start + _BATCH]
        return
    if isinstance(images, str | bytes) or (isinstance(images, np.ndarray) and images.ndim < 4):
        images = [images]
    as_pixels = registry.provided("as_pixels")
    for image in images:
        yield np.asarray(as_pixels(image["image"] if isinstance(image, dict) else image))[None]
