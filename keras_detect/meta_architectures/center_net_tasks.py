"""What a CenterNet predicts: tasks, each with heads of its own and the verbs targets, losses and decode."""

from typing import Any, NamedTuple, Self

import keras
from keras import ops

from keras_detect import schema
from keras_detect.boxes import heatmaps
from keras_detect.heads.box_predictor import checked_num_classes
from keras_detect.heads.point_heads import PointHead
from keras_detect.losses.classification import PenaltyReducedLogisticFocalLoss
from keras_detect.losses.localization import CODES, L1Loss, check_compares
from keras_detect.registry import serializable, unknown_name
from keras_detect.transforms.resizing import true_window


class Frame(NamedTuple):
    """How the feature maps lie on the image.

    Attributes:
        stride: pixels per cell.
        image_shape: `[2]` float32, height and width of the preprocessed images.
        true_image_shapes: `[B, 3]` int32, of the true images within them.
        raster_windows: `[B, 4]`, the true images in the rasters of y, where those have another frame, else `None`.
    """

    stride: int
    image_shape: Any
    true_image_shapes: Any
    raster_windows: Any = None

    def window(self) -> Any:
        """`[B, 4]`, the true images in the preprocessed ones."""
        return true_window(self.true_image_shapes, self.image_shape)

    def cells(self, coordinates: Any) -> Any:
        """Boxes `[..., 4]` or points `[..., 2]`, normalized to the preprocessed image, in cells of the maps."""
        sides = self.image_shape / float(self.stride)
        return coordinates * (sides if coordinates.shape[-1] == 2 else ops.tile(sides, (2,)))

    def normalized(self, coordinates: Any) -> Any:
        """Boxes `[B, ..., 4]` or points `[B, ..., 2]` in cells, normalized to the true images."""
        sides = ops.cast(self.true_image_shapes[:, :2], "float32")
        sides = sides if coordinates.shape[-1] == 2 else ops.tile(sides, (1, 2))
        shape = (-1, *(1,) * (len(coordinates.shape) - 2), coordinates.shape[-1])
        return coordinates * float(self.stride) / ops.reshape(sides, shape)


class Centers(NamedTuple):
    """What was found by its center, best first; all `[B, D]` and `[B, D, 4]`.

    Attributes:
        peaks: `boxes.heatmaps.Peaks`.
        found: bool, False in rows behind the last one that was found.
        boxes: float32, in cells, clipped to the map; `None` where no sizes are predicted.
    """

    peaks: heatmaps.Peaks
    found: Any
    boxes: Any


class Task(keras.layers.Layer):
    """One thing that a CenterNet predicts. A subclass states its heads and defines `compute_losses` and `decode`.

    Predictions are named `"task/head"`, each a list of one map per feature map; training learns all of them, inference
    takes the last.

    Args:
        name: of the task; different from the others of a model.
        heads: `PointHead`, how every head of the task is made, or a dict of them by head name.
        **kwargs: Keras' own `dtype`, `trainable`.

    Raises:
        ValueError: heads by a name that the task does not have.
    """

    #: names of the constructor's arguments beside `name` and `heads`, kept as attributes of the same names
    settings: tuple[str, ...] = ()

    #: names the task in the table of upstream's checkpoints; None: there is none
    checkpoint_family: str | None = None

    #: names of the losses that `compute_losses` returns
    loss_names: tuple[str, ...] = ()

    #: keys of y that the task learns, beside boxes and labels
    ground_truth_keys: tuple[str, ...] = ()

    #: whether `decode` needs the boxes of the objects that were found
    needs_boxes: bool = False

    #: pairs of keypoints of the data, counted from 0, that a line joins in drawings
    skeleton: tuple[tuple[int, int], ...] = ()

    def __init__(self, *, name: str, heads: Any = None, **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.heads = PointHead() if heads is None else heads

    def check_classes(self, num_classes: int) -> None:
        """Raises `ValueError` where the task does not fit a model of `num_classes` classes."""

    def channels(self) -> dict[str, tuple[int, float]]:
        """`{head: (channels, start of the bias)}`."""
        raise TypeError(f"{type(self).__name__} must define `channels()`.")

    def build(self, input_shapes: Any) -> None:
        """Makes the heads, one of each per feature map; `input_shapes` are those of the maps, `[B, h, w, c]` each."""
        made: list[Any] = []
        self._places: dict[tuple[str, int], tuple[int, int]] = {}
        rows = self.channels()
        if isinstance(self.heads, dict):
            for head in self.heads:
                if head not in rows:
                    raise ValueError(unknown_name(f"head of {type(self).__name__}", head, rows))
        for head, (channels, bias) in rows.items():
            settings = self.heads.get(head, PointHead()) if isinstance(self.heads, dict) else self.heads
            for index, shape in enumerate(input_shapes):
                layers = settings.layers(f"{head}_{index}", channels, bias)
                self._places[head, index] = (len(made), len(made) + len(layers))
                made += layers
                for layer in layers:
                    layer.build(shape)
                    shape = layer.compute_output_shape(shape)
        self.head_layers = made
        self.built = True

    def call(self, feature_maps: Any, training: bool | None = None) -> dict[str, Any]:
        """`{"task/head": [map, ...]}`, float32 maps `[B, h, w, channels]` in the order of `feature_maps`."""
        predictions: dict[str, Any] = {}
        for (head, index), layers in self.towers().items():
            x = feature_maps[index]
            for layer in layers:
                x = layer(x)
            predictions.setdefault(f"{self.name}/{head}", []).append(ops.cast(x, "float32"))
        return predictions

    def towers(self) -> dict[tuple[str, int], Any]:
        """`{(head, number of the feature map): its layers}` of a built task."""
        return {place: self.head_layers[start:end] for place, (start, end) in self._places.items()}

    def maps(self, predictions: dict[str, Any], head: str) -> Any:
        """The predictions of one head, one per feature map."""
        return predictions[f"{self.name}/{head}"]

    def compute_losses(self, y: Any, predictions: dict[str, Any], frame: Any) -> dict[str, Any]:
        """`{loss name: float32 scalar}`.

        Args:
            y: ground truth as `DetectionModel.compute_losses` takes it, in the frame of the preprocessed image.
            predictions: of all tasks.
            frame: `Frame`.
        """
        raise TypeError(f"{type(self).__name__} must define `compute_losses(y, predictions, frame)`.")

    def decode(self, predictions: dict[str, Any], centers: Any, frame: Any) -> dict[str, Any]:
        """`{key of schema: [B, D, ...]}`, what the task says of the objects that were found.

        Args:
            predictions: of all tasks.
            centers: `Centers`.
            frame: `Frame`.
        """
        raise TypeError(f"{type(self).__name__} must define `decode(predictions, centers, frame)`.")

    def get_config(self) -> dict[str, Any]:
        values = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in (*self.settings, "heads")}
        return {**super().get_config(), **values}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{key: keras.saving.deserialize_keras_object(value) for key, value in config.items()})


@serializable
class ObjectTask(Task):
    """Center, size and offset of objects (Zhou et al. 2019, arXiv:1904.07850, sections 3 and 4).

    Args:
        num_classes: K.
        center_loss: part `(logits, targets, weights) -> [B, A, K]` that compares heatmaps.
        localization_loss: part `(predictions, targets, weights) -> [B, A]` that compares codes, in cells.
        center_weight: factor of the loss of the heatmap.
        size_weight: factor of the loss of heights and widths.
        offset_weight: factor of the loss of the centers' offsets from their cells.
        min_overlap: IoU with the true box that boxes moved within the Gaussian around its center have.
        max_detections: D, how many peaks are looked at.
        peak_size: side of the window, in cells, of which a peak is the maximum; 1: every cell is one.
        center_bias: start of the heatmap's bias; -2.19 is the probability 0.1.
        size_bias: start of the bias of heights and widths, in cells. The nearer to the sides of the objects, the sooner
            boxes fit: from 0, a side of 20 cells takes hundreds of steps.
        boxes: whether sizes and offsets are predicted; without them, a box encloses the object's keypoints.
        name: of the task.
        **kwargs: `heads` as in `Task`; Keras' own `dtype`, `trainable`. The heads are "center", "size" and "offset".

    Raises:
        ValueError: no class, a count below 1, or a localization loss that compares boxes.
    """

    checkpoint_family = "center_net_objects"
    settings = (
        "num_classes",
        "center_loss",
        "localization_loss",
        "center_weight",
        "size_weight",
        "offset_weight",
        "min_overlap",
        "max_detections",
        "peak_size",
        "center_bias",
        "size_bias",
        "boxes",
    )

    def __init__(
        self,
        *,
        num_classes: int,
        center_loss: Any = None,
        localization_loss: Any = None,
        center_weight: float = 1.0,
        size_weight: float = 0.1,
        offset_weight: float = 1.0,
        min_overlap: float = 0.7,
        max_detections: int = 100,
        peak_size: int = 3,
        center_bias: float = -2.19,
        size_bias: float = 0.0,
        boxes: Any = True,
        name: str = "objects",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self.num_classes = checked_num_classes(num_classes)
        self.center_loss = center_loss or PenaltyReducedLogisticFocalLoss()
        self.localization_loss = checked_codes(localization_loss or L1Loss())
        self.center_weight, self.size_weight, self.offset_weight = center_weight, size_weight, offset_weight
        self.min_overlap, self.max_detections = min_overlap, max_detections
        self.peak_size, self.center_bias, self.size_bias, self.boxes = peak_size, center_bias, size_bias, boxes
        self.loss_names = _LOSSES if boxes else _LOSSES[:1]
        for argument in ("max_detections", "peak_size"):
            if getattr(self, argument) < 1:
                raise ValueError(f"{argument} must be at least 1. Received: {argument}={getattr(self, argument)!r}")

    def channels(self) -> dict[str, tuple[int, float]]:
        heads = {"center": (self.num_classes, self.center_bias), "size": (2, self.size_bias), "offset": (2, 0.0)}
        return heads if self.boxes else {"center": heads["center"]}

    def targets(self, y: Any, frame: Any, size: tuple[int, int]) -> "ObjectTargets":
        """`ObjectTargets` of a batch; `size` is `(height, width)` of the maps in cells."""
        boxes = frame.cells(y[schema.BOXES])
        weights, valid = y[schema.WEIGHTS], y["valid"]
        centers, sides = (boxes[..., :2] + boxes[..., 2:]) / 2.0, boxes[..., 2:] - boxes[..., :2]
        cells = ops.clip(ops.floor(centers), 0.0, ops.cast(ops.stack(size), "float32") - 1.0)
        counted = ops.logical_and(valid, weights > 0.0)
        heat = heatmaps.gaussian_heatmap(
            cells,
            heatmaps.gaussian_deviations(sides[..., 0], sides[..., 1], self.min_overlap),
            y[schema.LABELS],
            ops.cast(counted, "float32"),
            num_channels=self.num_classes,
            size=size,
        )
        whole = heatmaps.true_cells(frame.true_image_shapes, frame.stride, size)
        ignored = heatmaps.inside_boxes(boxes, ops.logical_and(valid, ops.logical_not(counted)), size)
        cell_weights = ops.where(ignored, 0.0, whole)[..., None]
        cell_weights = ops.where(heat > 0.0, whole[..., None], cell_weights)
        return ObjectTargets(
            heatmap=heat,
            heatmap_weights=ops.where(heat == 1.0, cell_weights * self._weights_at(cells, y, size), cell_weights),
            cells=ops.cast(cells, "int32"),
            sizes=sides,
            offsets=centers - cells,
            weights=weights,
        )

    def _weights_at(self, cells, y, size):
        """`[B, h, w, K]`: in the cell of each object, its weight (the largest, where several meet)."""
        shape = ops.shape(y[schema.WEIGHTS])
        batch, number = shape[0], shape[1]
        count = size[0] * size[1] * self.num_classes
        cells, labels = ops.cast(cells, "int32"), ops.clip(y[schema.LABELS], 0, self.num_classes - 1)
        places = (cells[..., 0] * size[1] + cells[..., 1]) * self.num_classes + labels
        places = places + ops.expand_dims(ops.arange(batch, dtype="int32"), -1) * count
        flat = ops.reshape(y[schema.WEIGHTS], (batch * number,))
        found = ops.segment_max(flat, ops.reshape(places, (batch * number,)), num_segments=batch * count)
        return ops.reshape(ops.maximum(found, 0.0), (batch, size[0], size[1], self.num_classes))

    def compute_losses(self, y: Any, predictions: dict[str, Any], frame: Any) -> dict[str, Any]:
        centers = self.maps(predictions, "center")
        size = tuple(ops.shape(centers[0])[1:3])
        targets = self.targets(y, frame, size)
        count = ops.maximum(ops.sum(ops.cast(targets.weights > 0.0, "float32")), 1.0) * len(centers)
        flat = (-1, size[0] * size[1], self.num_classes)
        heat, weights = (ops.reshape(each, flat) for each in (targets.heatmap, targets.heatmap_weights))
        center = sum(ops.sum(self.center_loss(ops.reshape(logits, flat), heat, weights)) for logits in centers)
        losses = [self.center_weight * center / count]
        if self.boxes:
            sizes = self._localization(self.maps(predictions, "size"), targets.sizes, targets)
            offsets = self._localization(self.maps(predictions, "offset"), targets.offsets, targets)
            losses += [self.size_weight * sizes / count, self.offset_weight * offsets / count]
        return dict(zip(self.loss_names, losses, strict=True))

    def _localization(self, maps, values, targets):
        rows, columns = targets.cells[..., 0], targets.cells[..., 1]
        found = [heatmaps.values_at(feature_map, rows, columns) for feature_map in maps]
        return sum(ops.sum(self.localization_loss(each, values, targets.weights)) for each in found)

    def find(self, predictions: dict[str, Any], frame: Frame) -> Centers:
        """`Centers`: the best peaks of the last heatmap, with their boxes.

        Upstream compares the numbers of cells with the true size in pixels, so that most of the padding has peaks, too,
        whose boxes have no area on the true image; so does this.
        """
        heat = ops.sigmoid(self.maps(predictions, "center")[-1])
        heat = heat * heatmaps.true_cells(frame.true_image_shapes, 1, tuple(ops.shape(heat)[1:3]))[..., None]
        best = heatmaps.peaks(heat, self.max_detections, self.peak_size)
        if not self.boxes:
            return Centers(best, best.scores > 0.0, None)
        cells = ops.cast(ops.stack([best.rows, best.columns], axis=-1), "float32")
        sizes, offsets = (
            heatmaps.values_at(self.maps(predictions, head)[-1], best.rows, best.columns) for head in ("size", "offset")
        )
        half = ops.maximum(sizes, 0.0) / 2.0
        limits = ops.cast(ops.stack(ops.shape(heat)[1:3]), "float32")
        corners = [ops.clip(cells + offsets + sign * half, 0.0, limits) for sign in (-1.0, 1.0)]
        return Centers(best, best.scores > 0.0, ops.concatenate(corners, axis=-1))

    def decode(self, predictions: dict[str, Any], centers: Any, frame: Any) -> dict[str, Any]:
        """Boxes clipped to the true image, where there are any, scores and labels."""
        found = {schema.SCORES: centers.peaks.scores, schema.LABELS: centers.peaks.labels}
        if centers.boxes is None:
            return found
        return {schema.BOXES: ops.clip(frame.normalized(centers.boxes), 0.0, 1.0), **found}


_LOSSES = ("center_loss", "size_localization_loss", "offset_localization_loss")


class ObjectTargets(NamedTuple):
    """What `ObjectTask` learns; R rows of ground truth, sizes and offsets in cells.

    Attributes:
        heatmap: `[B, h, w, K]`, 1 at the centers.
        heatmap_weights: `[B, h, w, K]`: 0 outside of the true image and, but for objects there, inside objects of
            weight 0 such as crowds; at a center the object's weight.
        cells: `[B, R, 2]` int32, of the centers.
        sizes: `[B, R, 2]`, heights and widths.
        offsets: `[B, R, 2]`, of the centers from the corners of their cells.
        weights: `[B, R]`.
    """

    heatmap: Any
    heatmap_weights: Any
    cells: Any
    sizes: Any
    offsets: Any
    weights: Any


def checked_codes(loss):
    """Raises `ValueError` unless the localization loss compares codes: there are no boxes to decode. Returns it."""
    if check_compares(loss).compares != CODES:
        raise ValueError(
            "The tasks of a CenterNet compare sizes and offsets, not boxes. Received: "
            f"localization_loss={type(loss).__name__}. Use one that compares codes, such as L1Loss."
        )
    return loss
