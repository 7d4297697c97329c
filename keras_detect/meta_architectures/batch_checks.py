"""Every batch that `fit`, `evaluate` and the `_on_batch` methods receive is checked, from every kind of input.

Wrong ground truth trains in silence: with boxes in pixels no anchor matches, and the loss goes to zero. `BatchCheck`
states the rules once, in numpy; `checked` applies them to arrays, `tf.data`, `PyDataset`, generators and torch's
`DataLoader`.
"""

import contextlib
import copy
import dataclasses
import functools
import inspect
import types
import warnings
from typing import Any

import keras
import numpy as np

from keras_detect import schema
from keras_detect.kernels import tf_data
from keras_detect.meta_architectures.model_mixin import ModelMixin
from keras_detect.weights.folded_batch_norm import folded_layers
from keras_detect.weights.restore import UNFOLD

LARGEST_COORDINATE = 4.0  # beyond it, a box can only be in pixels


class BatchCheck:
    """The rules. Used as a context around Keras' call: raises there what the data's own thread raised.

    Args:
        num_classes: K, or `None` where only images are looked at (`predict`).
        what: how messages call the data ("batch", "validation batch").
    """

    def __init__(self, num_classes: int | None, what: str = "batch"):
        self.num_classes, self.what = num_classes, what
        self.error: Exception | None = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        # frameworks wrap what a data thread raises into errors of their own
        if isinstance(error, Exception) and self.error is not None and error is not self.error:
            raise self.error from None

    def __call__(self, index: int | None, batch: Any) -> None:
        """Checks a batch `x`, `(x, y)` or `(x, y, sample_weight)`; `index` says which, `None` if it is the only one."""
        images, shapes, *rest = fields(batch, with_ground_truth=self.num_classes is not None)
        self.look(index, image_facts(images, shapes, first=not index), *map(to_host, rest))

    def look(
        self, index: int | None, image_facts: Any, boxes: Any, labels: Any, weights: Any, sample_weight: Any
    ) -> None:
        """Raises `ValueError` for what would train silently wrong; warns of pixels in 0...1.

        Args:
            index: of the batch, or `None`.
            image_facts: sum and maximum of the pixels and number of wrong shapes, as `image_facts` returns them.
            boxes, labels, weights, sample_weight: numpy arrays, or `None` where the batch has none.
        """
        where = f"this {self.what}" if index is None else f"{self.what} {int(index)}"
        try:
            check_images(image_facts, where)
            if self.num_classes is not None:
                check_ground_truth(boxes, labels, self.num_classes, where)
                check_weights(weights, None if weights is None else labels, "y['weights']", where)
                check_weights(sample_weight, None, "sample_weight", where)
        except ValueError as error:
            self.error = error
            raise
        if 0.0 < image_facts[1] <= 1.0:
            warnings.warn(
                f"Images are uint8 or float in 0...255. Received floats up to {image_facts[1]:.3g} in {where}, which "
                "the model sees as black: multiply by 255, or leave out a division by 255.",
                stacklevel=2,
            )


def check_images(facts, where):
    if not np.isfinite(facts[0]):
        raise ValueError(
            f"Pixels are numbers in 0...255. Received NaN or infinite pixels in {where}: look at what reads or "
            "augments the images."
        )
    if facts[2]:
        raise ValueError(
            "Image shapes are [height, width, channels] of each image on its canvas, in pixels, height first. "
            f"Received a shape larger than the canvas, or a negative one, in {where}."
        )


def check_ground_truth(boxes, labels, num_classes, where):
    if boxes is None or labels is None:
        return  # `clean_ground_truth` says what is missing
    if boxes.ndim != 3 or boxes.shape[-1] != 4 or boxes.shape[:2] != labels.shape:
        raise ValueError(
            f"y needs boxes [B, M, 4] and labels [B, M]. Received boxes {boxes.shape} and labels {labels.shape} in "
            f"{where}; pad each image's rows to the same M with label -1, and batch the data."
        )
    if labels.dtype.kind == "f" and not (labels == np.floor(labels)).all():
        raise ValueError(f"Labels must be integers. Received fractions or NaN in {where}.")
    if labels.size and labels.max() >= num_classes:
        raise ValueError(
            f"Labels must be in [0, {num_classes}), -1 for padding. Received a label {labels.max():g} in {where}. "
            "Labels are zero-based; build the model with the number of classes of the data, or re-head it "
            "(`from_preset(..., num_classes=n)`)."
        )
    real = boxes[labels >= 0]
    if not real.size:
        return
    largest = np.abs(real).max()
    if not np.isfinite(largest):
        raise ValueError(
            f"Boxes are finite in rows that are not padding (label >= 0). Received NaN or infinite values in {where}: "
            "remove the object, or give its row label -1."
        )
    if largest > LARGEST_COORDINATE:
        raise ValueError(
            f"Boxes are [ymin, xmin, ymax, xmax] normalized to 0...1. Received values up to {largest:g} in {where}: "
            "divide pixel boxes by the image's height and width."
        )
    reversed_rows = (real[:, 2:] < real[:, :2]).any(axis=-1)
    if reversed_rows.any():
        raise ValueError(
            "Boxes are [ymin, xmin, ymax, xmax] with ymin <= ymax and xmin <= xmax. Received "
            f"{[round(float(side), 4) for side in real[reversed_rows][0]]} in {where}: look at the order of the "
            "coordinates."
        )


def check_weights(weights, labels, name, where):
    if weights is None:
        return
    if labels is not None and labels.shape == weights.shape:
        weights = weights[labels >= 0]
    if not (weights >= 0).all() or not np.isfinite(weights).all():
        raise ValueError(f"{name} must contain finite numbers >= 0. Received NaN or a negative one in {where}.")


def fields(batch, with_ground_truth=True):
    """`[images, their shapes, boxes, labels, weights, sample_weight]` of a batch, `None` for what it lacks."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(batch) if isinstance(batch, list) else batch)
    images, shapes = x, None
    if isinstance(x, dict):
        images = x.get(schema.IMAGES)
        shapes = x.get(schema.TRUE_IMAGE_SHAPES, x.get(schema.RESIZED_IMAGE_SHAPES))
    if isinstance(images, list | tuple):
        raise ValueError(
            f"x is a batch of images [B, H, W, 3], or a dict that holds one. Received: a {type(images).__name__} of "
            f"{len(images)}. Stack images of one size (`np.stack(images)`); `detect` takes a list of any sizes."
        )
    if not with_ground_truth or not isinstance(y, dict):
        return [images, shapes, None, None, None, None]
    labels = y.get(schema.LABELS, y.get(schema.CLASSES))
    boxes, weights = y.get(schema.BOXES), y.get(schema.WEIGHTS)
    return [images, shapes, boxes, labels, weights, sample_weight]


def image_facts(images, shapes=None, first=True):
    """Three floats of a batch of images [B, H, W, C]: sum, maximum and wrong shapes.

    The sum of the pixels is not finite where one is not; the maximum is taken where `first`, else it is -1. Of integer
    images they are 0 and -1. The third is the number of `shapes` [B, 3] that do not lie on the canvas.
    """
    wrong = 0.0
    if shapes is not None and images is not None and len(shapes.shape) == 2:
        sizes = to_host(shapes)[:, :2]
        wrong = float(((sizes < 0) | (sizes > tuple(images.shape[1:3]))).any(axis=1).sum())
    if images is None or not _is_float(images):
        return 0.0, -1.0, wrong
    images = to_host(images)
    total = float(images.sum(dtype="float32"))
    if not np.isfinite(total) and np.isfinite(images).all():
        total = 0.0  # finite pixels whose sum is not
    return total, largest_pixel(images) if first else -1.0, wrong


def largest_pixel(images):
    """The maximum where it is at most 1, else a number above 1: a few pixels mostly tell."""
    some = images.reshape(-1)[::101]
    if some.size and some.max() > 1.0:
        return float(some.max())
    return float(images.max()) if images.size else -1.0


def to_host(value):
    """An array or a tensor of any framework as a numpy array; `None` stays `None`."""
    if value is None or isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach"):  # torch
        value = value.detach().cpu()
    return np.asarray(value)


def _is_float(images):
    return "float" in str(images.dtype)


def checked(check, x, y=None, sample_weight=None, batch_size=None):
    """`x` as `fit`, `evaluate` or `predict` should get it, so that `check` sees each batch.

    Args:
        check: `BatchCheck`.
        x: arrays, or a `tf.data.Dataset`, `PyDataset`, generator or torch `DataLoader` of batches.
        y, sample_weight: with arrays, the ground truth and a weight per image.
        batch_size: with arrays; default 32, as in Keras.

    Raises:
        TypeError: `x` is a data set of images of any size, not of batches.
        ValueError: arrays that fail the check. Batches fail when they are read.
    """
    if tf_data.is_dataset(x):
        return _checked_tf_dataset(check, x)
    if isinstance(x, keras.utils.PyDataset):
        return _CheckedPyDataset(check, x)
    if isinstance(x, types.GeneratorType):
        return _checked_generator(check, x)
    if any(cls.__name__ == "DataLoader" and cls.__module__.startswith("torch.utils.data") for cls in type(x).__mro__):
        return _checked_loader(check, x)
    if hasattr(x, "batches"):
        raise TypeError(
            f"A model takes batches of images of one size. Received: a {type(x).__name__}. Pass its batches: "
            "dataset.batches(model, batch_size=8)."
        )
    _check_arrays(check, x, y, sample_weight, batch_size or 32)
    return x


def _check_arrays(check, x, y, sample_weight, batch_size):
    data = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
    data = data if isinstance(data, tuple) else (data,)
    fields(data)  # a list of images is refused
    leaves = [leaf for leaf in keras.tree.flatten(data) if leaf is not None]
    if not all(len(getattr(leaf, "shape", ())) for leaf in leaves) or len({len(leaf) for leaf in leaves}) != 1:
        return  # Keras says what is not an array, and what does not fit together
    if not len(leaves[0]):
        raise ValueError("x contains no images. Received arrays of length 0.")
    for index, start in enumerate(range(0, len(leaves[0]), batch_size)):
        check(index, keras.tree.map_structure(functools.partial(_rows, start=start, count=batch_size), data))


def _rows(leaf, start, count):
    return None if leaf is None else leaf[start : start + count]


def _checked_tf_dataset(check, dataset):
    images, shapes, *_ = fields(dataset.element_spec)
    if images is None or (check.num_classes is None and shapes is None and not images.dtype.is_floating):
        return dataset
    present = []

    def wanted(index, batch):
        images, shapes, *rest = fields(batch, with_ground_truth=check.num_classes is not None)
        present[:] = [value is not None for value in rest]
        facts = tf_data.image_facts(images, shapes, index == 0)
        return [index, facts, *(value for value in rest if value is not None)]

    def observe(index, facts, *values):
        values = iter(values)
        check.look(index, facts, *(next(values) if is_present else None for is_present in present))

    return tf_data.observed(dataset, observe, wanted)


class _CheckedPyDataset(keras.utils.PyDataset):
    def __init__(self, check, data):
        super().__init__(
            workers=data.workers, use_multiprocessing=data.use_multiprocessing, max_queue_size=data.max_queue_size
        )
        self.check, self.data = check, data

    @property
    def num_batches(self):
        return self.data.num_batches

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        batch = self.data[index]
        self.check(index, batch)
        return batch

    def on_epoch_begin(self):
        self.data.on_epoch_begin()

    def on_epoch_end(self):
        self.data.on_epoch_end()


def _checked_generator(check, batches):
    for index, batch in enumerate(batches):
        check(index, batch)
        yield batch


def _checked_loader(check, loader):
    class CheckedDataLoader(type(loader)):
        def __iter__(self):
            return _checked_generator(check, super().__iter__())

    loader = copy.copy(loader)
    loader.__class__ = CheckedDataLoader
    return loader


def warn_of_folded_weights(model):
    """Warns before training whose first steps would destroy the network: batch norm that is folded and not frozen."""
    folded = sum(layer.trainable for layer in folded_layers(model))
    if folded:
        warnings.warn(
            f"{folded} batch norms hold folded weights, which training-mode batch norm would destroy: {UNFOLD}.",
            stacklevel=3,
        )


@dataclasses.dataclass(frozen=True)
class FitCall:
    """What a running `fit` was called with, for callbacks.

    Attributes:
        data: its `x` as the caller passed it.
        callbacks: the list of callbacks.
        undo: functions without arguments, called when `fit` ends, with or without an error.
    """

    data: object
    callbacks: list
    undo: list = dataclasses.field(default_factory=list)


class ChecksBatches(ModelMixin):
    """What `DetectionModel` inherits so that no batch reaches it unchecked: `BatchCheck` states the rules."""

    #: the `FitCall` of a running `fit`, else None
    fit_call: FitCall | None = None

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        warn_of_folded_weights(self)
        call = inspect.signature(super().fit).bind(*args, **kwargs)
        given, held_out = call.arguments, call.arguments.get("validation_data")
        callbacks = given.get("callbacks") or []
        running = FitCall(given.get("x"), keras.tree.flatten(getattr(callbacks, "callbacks", callbacks)))
        training, validation = BatchCheck(self.num_classes), BatchCheck(self.num_classes, "validation batch")
        size = given.get("batch_size")
        given["x"] = checked(training, given.get("x"), given.get("y"), given.get("sample_weight"), size)
        if hasattr(given["x"], "element_spec"):  # tf.data has its own order: Keras' default would only be warned about
            given.setdefault("shuffle", False)
        if held_out is not None:
            x, y, weight = keras.utils.unpack_x_y_sample_weight(held_out)
            x = checked(validation, x, y, weight, given.get("validation_batch_size") or size)
            given["validation_data"] = (x, y, weight) if isinstance(held_out, tuple | list) else x
        with training, validation, self._variables_kept(), self._running(running):
            return super().fit(*call.args, **call.kwargs)

    @contextlib.contextmanager
    def _running(self, fit_call):
        self.fit_call = fit_call
        try:
            yield
        finally:
            self.fit_call = None
            for function in fit_call.undo:
                function()

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        call = inspect.signature(super().evaluate).bind(*args, **kwargs)
        given = call.arguments
        if given.get("kwargs"):  # only `fit` passes them, with validation data that are checked already
            return super().evaluate(*args, **kwargs)
        check = BatchCheck(self.num_classes)
        given["x"] = checked(check, given.get("x"), given.get("y"), given.get("sample_weight"), given.get("batch_size"))
        with check, self._variables_kept():
            return super().evaluate(*call.args, **call.kwargs)

    def predict(self, x: Any, batch_size: int | None = None, *args: Any, **kwargs: Any) -> Any:
        check = BatchCheck(None)
        with check:
            return super().predict(checked(check, x, batch_size=batch_size), batch_size, *args, **kwargs)

    def train_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, *args: Any, **kwargs: Any) -> Any:
        BatchCheck(self.num_classes)(None, (x, y, sample_weight))
        return super().train_on_batch(x, y, sample_weight, *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, *args: Any, **kwargs: Any) -> Any:
        BatchCheck(self.num_classes)(None, (x, y, sample_weight))
        return super().test_on_batch(x, y, sample_weight, *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        BatchCheck(None)(None, (x,))
        return super().predict_on_batch(x)

    @contextlib.contextmanager
    def _variables_kept(self):
        """On JAX, `fit` holds the variables' values outside of the model: an error would leave it without them.

        With `steps_per_execution` above 1 it does so between the steps too, where they cannot be got back.
        """
        try:
            yield
        except Exception:
            if hasattr(self, "jax_state_sync"):
                with contextlib.suppress(Exception):  # the error of the data is what counts
                    self.jax_state_sync()
            raise
