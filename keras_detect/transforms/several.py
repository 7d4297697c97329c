"""Augmentations that make one image of several."""

import abc
from typing import Any

from keras_detect import schema
from keras_detect.registry import part
from keras_detect.transforms.augmentation import check_probability, draw, join_rows, keep_rows
from keras_detect.transforms.frames import area, enough, reframe, resized, tightened

_HIDDEN_POINT = 1  # COCO: annotated, but not visible


class _Several(abc.ABC):
    """Base: `_join(examples, seed)` with a `probability`; else the first example stays as it is."""

    probability: float

    @property
    def num_examples(self) -> int:
        """How many images make one."""
        return 2

    def __call__(self, examples: tuple[dict[str, Any], ...], seed: Any) -> dict[str, Any]:
        """One example of `num_examples`, dicts of tensors as a `DetectionDataset` has; `seed`: int64 [2]."""
        import tensorflow as tf

        join = lambda: dict(self._join(examples, seed))  # noqa: E731
        if self.probability >= 1.0:
            return join()
        return tf.cond(draw(seed, 0) < self.probability, join, lambda: dict(examples[0]))

    @abc.abstractmethod
    def _join(self, examples, seed):
        """One example made of `num_examples`."""


@part
class Mosaic(_Several):
    """A grid of images, each resized and cropped to fill its cell (Bochkovskiy et al. 2020, arXiv:2004.10934).

    The lines of the grid are drawn at random; each image is scaled so that it fills its cell, times a random scale, and
    a random window of it is shown.

    Args:
        grid: cells in a row and in a column: 2 for a mosaic of 4 images, 3 for one of 9.
        size: height and width of the result in pixels; None: those of the first image.
        max_scale: largest scale beyond the one that fills the cell.
        min_cell: shortest side of a cell, as a part of an even one.
        min_visibility: an object of whose box a smaller part is left is dropped.
        probability: how often.

    Raises:
        ValueError: a setting outside its range.
    """

    grid: int = 2
    size: tuple | None = None
    max_scale: float = 1.5
    min_cell: float = 0.5
    min_visibility: float = 0.25
    probability: float = 1.0

    def __post_init__(self):
        check_probability(self.probability)
        check_probability(self.min_visibility)
        if not 2 <= self.grid <= 4:
            raise ValueError(f"grid must be 2, 3 or 4. Received: grid={self.grid}")
        if self.max_scale < 1.0 or not 0.0 < self.min_cell <= 1.0:
            raise ValueError(
                "max_scale must be at least 1 and min_cell in (0, 1]. Received: "
                f"max_scale={self.max_scale}, min_cell={self.min_cell}"
            )
        if self.size is not None and not (len(self.size) == 2 and min(self.size) >= 4 * self.grid):
            raise ValueError(f"size must be (height, width) of at least {4 * self.grid}. Received: size={self.size}")

    @property
    def num_examples(self) -> int:
        """How many images make one."""
        return self.grid**2

    def largest_size(self, height: int, width: int) -> tuple[int, int]:
        """Sides that hold every result, for images of `height` x `width` pixels."""
        return (max(height, self.size[0]), max(width, self.size[1])) if self.size else (height, width)

    def _join(self, examples, seed):
        import tensorflow as tf

        whole = tf.shape(examples[0]["image"])[:2] if self.size is None else tf.constant(self.size, tf.int32)
        rows, columns = (self._lines(draw(seed, 1 + axis, (self.grid - 1,)), whole[axis]) for axis in (0, 1))
        parts, images = [], []
        for row in range(self.grid):
            line = []
            for column in range(self.grid):
                start = tf.stack([rows[row], columns[column]])
                size = tf.stack([rows[row + 1], columns[column + 1]]) - start
                number = row * self.grid + column
                # The image whose turn it is has a cell at random: it is not always at the top left.
                shift = tf.cast(draw(seed, 3) * self.num_examples, tf.int32)
                cell = self._cell(_chosen(examples, (number + shift) % self.num_examples), size, seed, number)
                line.append(cell["image"])
                parts.append(reframe(cell, -start, whole))
            images.append(tf.concat(line, axis=1))
        image = tf.ensure_shape(tf.concat(images, axis=0), [None, None, 3])
        return examples[0] | join_rows(parts) | {"image": image}

    def _lines(self, drawn, length):
        """int32 [grid + 1]: where the cells of one axis begin, and their end."""
        import tensorflow as tf

        even = tf.range(1.0, self.grid) / self.grid
        moved = even + (drawn * 2.0 - 1.0) * (1.0 - self.min_cell) / (2.0 * self.grid)
        lines = tf.cast(tf.round(moved * tf.cast(length, tf.float32)), tf.int32)
        return tf.concat([[0], lines, [length]], axis=0)

    def _cell(self, example, size, seed, number):
        """A window of the example, resized to `size` [2] int32."""
        import tensorflow as tf

        whole = tf.cast(tf.shape(example["image"])[:2], tf.float32)
        wanted = tf.cast(size, tf.float32)
        drawn = draw(seed, 10 + number, (3,))
        scale = tf.reduce_max(wanted / whole) * (1.0 + drawn[0] * (self.max_scale - 1.0))
        source = tf.clip_by_value(tf.round(wanted / scale), 1.0, whole)
        start = tf.floor(drawn[1:] * (whole - source + 1.0))
        start = tf.minimum(start, whole - source)
        return resized(reframe(example, start, source, min_visibility=self.min_visibility), size)


@part
class MixUp(_Several):
    """The weighted mean of two images, with the objects of both (Zhang et al. 2019, arXiv:1902.04103).

    The images share a canvas that holds both, at its top left.

    Args:
        alpha: of the Beta distribution that the first image's share is drawn from.
        probability: how often.

    Raises:
        ValueError: a setting outside its range.
    """

    alpha: float = 1.5
    probability: float = 0.5

    def __post_init__(self):
        check_probability(self.probability)
        if not self.alpha > 0.0:
            raise ValueError(f"alpha must be positive. Received: alpha={self.alpha}")

    def _join(self, examples, seed):
        import tensorflow as tf

        canvas = tf.reduce_max(tf.stack([tf.shape(example["image"])[:2] for example in examples]), axis=0)
        first, second = (reframe(example, (0, 0), canvas) for example in examples)
        own = tf.random.experimental.stateless_fold_in(seed, 1)
        gammas = tf.random.stateless_gamma((2,), own, alpha=self.alpha)
        share = tf.math.divide_no_nan(gammas[0], gammas[0] + gammas[1])
        mixed = share * tf.cast(first["image"], tf.float32) + (1.0 - share) * tf.cast(second["image"], tf.float32)
        return first | join_rows((first, second)) | {"image": tf.saturate_cast(tf.round(mixed), tf.uint8)}


@part
class CutMix(_Several):
    """A rectangle of one image over another (Yun et al. 2019, arXiv:1905.04899).

    The rectangle has the same place in both. An object under it keeps the box of what is left, and is dropped where
    that is less than `min_visibility` of it.

    Args:
        min_size, max_size: sides of the rectangle, as a part of the image's.
        min_visibility: as in `Mosaic`.
        probability: how often.

    Raises:
        ValueError: a setting outside its range.
    """

    min_size: float = 0.25
    max_size: float = 0.6
    min_visibility: float = 0.25
    probability: float = 0.5

    def __post_init__(self):
        check_probability(self.probability)
        check_probability(self.min_visibility)
        if not 0.0 < self.min_size <= self.max_size < 1.0:
            raise ValueError(
                "min_size and max_size must be in order in (0, 1). Received: "
                f"min_size={self.min_size}, max_size={self.max_size}"
            )

    def _join(self, examples, seed):
        import tensorflow as tf

        whole = tf.shape(examples[0]["image"])[:2]
        sides = draw(seed, 1, (2,), self.min_size, self.max_size) * tf.cast(whole, tf.float32)
        size = tf.clip_by_value(tf.cast(tf.round(sides), tf.int32), 1, whole)
        start = tf.cast(draw(seed, 2, (2,)) * tf.cast(whole - size + 1, tf.float32), tf.int32)
        start = tf.minimum(start, whole - size)
        window = tf.cast(tf.concat([start, start + size], 0), tf.float32) / tf.cast(tf.tile(whole, [2]), tf.float32)
        pasted = reframe(examples[1], start, size, min_visibility=self.min_visibility)
        pasted = reframe(pasted, -start, whole)
        ones = tf.ones(size, tf.bool)
        cover = tf.pad(ones, tf.stack([start, whole - start - size], axis=1))
        under = _uncovered(examples[0], window, cover, self.min_visibility)
        image = tf.where(cover[..., None], pasted["image"], examples[0]["image"])
        return examples[0] | join_rows((under, pasted)) | {"image": image}


@part
class CopyPaste(_Several):
    """Pastes objects of one image, cut out along their masks, into another (Ghiasi et al. 2021, arXiv:2012.07177).

    The pasted objects keep their place and size. An object under them keeps the mask and the box of what is left, and
    is dropped where that is less than `min_visibility` of its mask.

    Args:
        object_probability: how often each object is pasted.
        min_visibility: of an object under pasted ones.
        probability: how often.

    Raises:
        ValueError: a setting outside its range; when called, examples without masks.
    """

    object_probability: float = 0.5
    min_visibility: float = 0.25
    probability: float = 0.5

    def __post_init__(self):
        check_probability(self.probability)
        check_probability(self.object_probability)
        check_probability(self.min_visibility)

    def _join(self, examples, seed):
        import tensorflow as tf

        if schema.MASKS not in examples[0]:
            raise ValueError(
                "CopyPaste cuts objects out along their masks. Received examples without masks: pass batches(masks="
                "True) for a data set that has them, or use CutMix."
            )
        whole = tf.shape(examples[0]["image"])[:2]
        source = reframe(examples[1], (0, 0), whole)
        chosen = draw(seed, 1, tf.shape(source[schema.LABELS])) < self.object_probability
        chosen &= tf.reduce_any(source[schema.MASKS] > 0, axis=(1, 2))
        if schema.IS_CROWD in source:
            chosen &= ~source[schema.IS_CROWD]
        pasted = tightened(keep_rows(source, chosen))
        cover = tf.reduce_any(pasted[schema.MASKS] > 0, axis=0)
        under = _under_masks(examples[0], cover, self.min_visibility)
        image = tf.where(cover[..., None], pasted["image"], examples[0]["image"])
        return examples[0] | join_rows((under, pasted)) | {"image": image}


def _chosen(examples, number):
    """The example of a number that is known at run time."""
    import tensorflow as tf

    return tf.switch_case(number, [lambda example=example: dict(example) for example in examples])


def _uncovered(example, window, cover, min_visibility):
    """The example with what a rectangle leaves of its objects.

    Args:
        example: dict of tensors.
        window: float32 [4], the rectangle, normalized.
        cover: bool [H, W], the same in pixels.
        min_visibility: part of a box that must be left.
    """
    import tensorflow as tf

    boxes = example[schema.BOXES]
    low, high = tf.maximum(boxes[:, :2], window[:2]), tf.minimum(boxes[:, 2:], window[2:])
    hidden = area(tf.concat([low, high], axis=1))
    sides = []
    for axis in (0, 1):
        begin, end = boxes[:, axis], boxes[:, axis + 2]
        other = 1 - axis
        # A side moves only where the rectangle covers the box's whole length along the other axis.
        across = (window[other] <= boxes[:, other]) & (window[other + 2] >= boxes[:, other + 2])
        meets = across & (window[axis] < end) & (window[axis + 2] > begin)
        new_begin = tf.where(meets & (window[axis] <= begin), tf.minimum(window[axis + 2], end), begin)
        new_end = tf.where(meets & (window[axis + 2] >= end), tf.maximum(window[axis], begin), end)
        sides.append((new_begin, new_end))
    (ymin, ymax), (xmin, xmax) = sides
    left = tf.stack([ymin, xmin, ymax, xmax], axis=1)
    example = _cover(example | {schema.BOXES: left}, cover)
    touched = hidden > 0.0
    keep = enough(area(boxes) - hidden, area(boxes), min_visibility) & enough(area(left), area(left), 0.0)
    return keep_rows(tightened(example, touched), keep | ~touched)


def _under_masks(example, cover, min_visibility):
    import tensorflow as tf

    def sizes(example):
        return tf.reduce_sum(tf.cast(example[schema.MASKS] > 0, tf.float32), axis=(1, 2))

    before = sizes(example)
    under = _cover(example, cover)
    touched = sizes(under) < before
    return keep_rows(tightened(under, touched), enough(sizes(under), before, min_visibility) | ~touched)


def _cover(example, cover):
    """Rasters without what is covered, and points there as hidden; boxes stay."""
    import tensorflow as tf

    example = dict(example)
    for field in schema.object_fields():
        if field.key not in example:
            continue
        if field.moves == schema.AS_RASTER:
            example[field.key] = tf.where(cover[None], tf.zeros_like(example[field.key]), example[field.key])
        if field.moves == schema.AS_POINTS and field.visibility in example:
            points, shape = example[field.key], tf.shape(cover)
            inside = tf.reduce_all((points >= 0.0) & (points < 1.0), axis=-1)
            places = tf.cast(tf.where(inside[..., None], points, 0.0) * tf.cast(shape, tf.float32), tf.int32)
            hidden = inside & tf.gather_nd(cover, tf.minimum(places, shape - 1))
            seen = example[field.visibility]
            example[field.visibility] = tf.where(hidden, tf.minimum(seen, _HIDDEN_POINT), seen)
    return example
