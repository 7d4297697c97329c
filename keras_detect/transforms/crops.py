"""Crops, paddings and changes of size, the operations of upstream's `preprocessor.proto` among them."""

from typing import Any

from keras_detect import schema
from keras_detect.registry import part
from keras_detect.transforms.augmentation import check_probability, check_range, draw, keep_rows, sometimes
from keras_detect.transforms.frames import (
    area,
    clip,
    enough,
    mean_color,
    reframe,
    resized,
)

_TRIALS = 100  # windows that upstream draws before it gives up


@part
class RandomObjectCrop:
    """A random window that shows enough of at least one object: upstream's `random_crop_image`.

    Windows are drawn by `tf.image.stateless_sample_distorted_bounding_box` until one shows `min_object_covered` of some
    object; after 100 the image stays whole, as it does for a `min_object_covered` above 1. An image without objects is
    cropped to any window. An object of which less than `overlap_threshold` is left is dropped, the others are clipped.

    Args:
        min_object_covered: part of an object's box that the window shows.
        min_aspect_ratio, max_aspect_ratio: width of the window by its height, in pixels.
        min_area, max_area: area of the window, as a part of the image's.
        overlap_threshold: part of a box that must be left.
        probability: how often a crop is tried at all.

    Raises:
        ValueError: a setting outside its range.
    """

    min_object_covered: float = 1.0
    min_aspect_ratio: float = 0.75
    max_aspect_ratio: float = 1.33
    min_area: float = 0.1
    max_area: float = 1.0
    overlap_threshold: float = 0.3
    probability: float = 1.0

    def __post_init__(self):
        check_probability(self.probability)
        ratios = {"min_aspect_ratio": self.min_aspect_ratio, "max_aspect_ratio": self.max_aspect_ratio}
        check_range(self.min_aspect_ratio, self.max_aspect_ratio, 1e-3, **ratios)
        if not 0.0 < self.min_area <= self.max_area <= 1.0:
            raise ValueError(
                "min_area and max_area must be in order in (0, 1]. Received: "
                f"min_area={self.min_area}, max_area={self.max_area}"
            )
        if not self.min_object_covered >= 0.0:
            raise ValueError(
                f"min_object_covered must not be negative. Received: min_object_covered={self.min_object_covered}"
            )

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        return sometimes(self.probability, seed, lambda example: self._crop(example, seed), example)

    def _crop(self, example, seed):
        import tensorflow as tf

        boxes = clip(example[schema.BOXES])
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(example["image"]),
            tf.boolean_mask(boxes, area(boxes) > 0.0)[None],
            seed=tf.random.experimental.stateless_fold_in(seed, 1),
            min_object_covered=self.min_object_covered,
            aspect_ratio_range=(self.min_aspect_ratio, self.max_aspect_ratio),
            area_range=(self.min_area, self.max_area),
            max_attempts=_TRIALS,
            use_image_if_no_bounding_boxes=True,
        )
        whole = tf.shape(example["image"])[:2]
        size = tf.where(size[:2] < 0, whole, size[:2])
        return reframe(example, begin[:2], size, min_visibility=self.overlap_threshold)


@part
class RandomAspectRatioCrop:
    """The largest window of one aspect ratio, at a random place: upstream's `random_crop_to_aspect_ratio`.

    Args:
        aspect_ratio: width by height of the window, in pixels.
        overlap_threshold: part of a box that must be left.

    Raises:
        ValueError: an `aspect_ratio` that is not positive.
    """

    aspect_ratio: float = 1.0
    overlap_threshold: float = 0.3

    def __post_init__(self):
        if not self.aspect_ratio > 0.0:
            raise ValueError(f"aspect_ratio must be positive. Received: aspect_ratio={self.aspect_ratio}")

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        import tensorflow as tf

        whole = tf.shape(example["image"])[:2]
        height, width = tf.unstack(tf.cast(whole, tf.float32))
        size = tf.stack([tf.minimum(height, width / self.aspect_ratio), tf.minimum(width, height * self.aspect_ratio)])
        size = tf.clip_by_value(tf.cast(tf.round(size), tf.int32), 1, whole)
        start = random_start(seed, whole - size + 1)
        return reframe(example, start, size, min_visibility=self.overlap_threshold)


@part
class RandomSquareCrop:
    """A square around a random point of the image, CenterNet's crop: upstream's `random_square_crop_by_scale`.

    Its side is the image's longer side times a scale, one of `num_scales` values; its center keeps away from the
    image's sides by `max_border` or, in a small image, by the largest half, quarter, ... of it below half the side.
    What is outside the image is black. Objects that do not show are dropped.

    Args:
        min_scale, max_scale: of the side.
        num_scales: scales to choose from, evenly spaced.
        max_border: pixels.

    Raises:
        ValueError: a setting outside its range.
    """

    min_scale: float = 0.6
    max_scale: float = 1.3
    num_scales: int = 8
    max_border: int = 128

    def __post_init__(self):
        check_range(self.min_scale, self.max_scale, 1e-3, min_scale=self.min_scale, max_scale=self.max_scale)
        for name in ("num_scales", "max_border"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={getattr(self, name)}")

    def largest_size(self, height: int, width: int) -> tuple[int, int]:
        """Sides that hold every result, for images of `height` x `width` pixels."""
        side = int(max(height, width) * max(self.max_scale, 1.0))
        return side, side

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        import tensorflow as tf

        whole = tf.shape(example["image"])[:2]
        scales = tf.linspace(float(self.min_scale), float(self.max_scale), self.num_scales)
        scale = scales[tf.cast(draw(seed, 1) * self.num_scales, tf.int32)]
        side = tf.cast(scale * tf.cast(tf.reduce_max(whole), tf.float32), tf.int32)
        side = tf.maximum(side, 2)
        border = self._border(whole)
        center = border + random_start(seed, whole - 2 * border + 1)
        return reframe(example, center - side // 2, tf.stack([side, side]))

    def _border(self, whole):
        import tensorflow as tf

        border = tf.constant(float(self.max_border))
        steps = tf.math.ceil(tf.math.log(2.0 * border / tf.cast(whole, tf.float32)) / tf.math.log(2.0))
        divisor = tf.clip_by_value(tf.pow(2.0, steps), 1.0, border)
        border = tf.cast(border, tf.int32) // tf.cast(divisor, tf.int32)
        return tf.minimum(border, whole // 2)


@part
class LargeScaleJitter:
    """Scale jitter on a square canvas: EfficientDet's augmentation, upstream's `random_scale_crop_and_pad_to_square`.

    The image's longer side becomes `output_size` times a random scale; of what is larger than the canvas a random
    window is taken, what is smaller stands at its top left, on black (Tan et al. 2020; Ghiasi et al. 2021 call scales
    of 0.1 to 2 "large scale jittering").

    Args:
        output_size: pixels of the canvas; None: the longer side of each image.
        min_scale, max_scale: of the longer side.
        min_visibility: part of a box that must be left.

    Raises:
        ValueError: a setting outside its range.
    """

    output_size: int | None = None
    min_scale: float = 0.1
    max_scale: float = 2.0
    min_visibility: float = 0.0

    def __post_init__(self):
        check_range(self.min_scale, self.max_scale, 1e-3, min_scale=self.min_scale, max_scale=self.max_scale)
        check_probability(self.min_visibility)
        if self.output_size is not None and self.output_size < 1:
            raise ValueError(f"output_size must be positive or None. Received: output_size={self.output_size}")

    def largest_size(self, height: int, width: int) -> tuple[int, int]:
        """Sides that hold every result, for images of `height` x `width` pixels."""
        side = self.output_size or max(height, width)
        return side, side

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        import tensorflow as tf

        whole = tf.shape(example["image"])[:2]
        longer = tf.reduce_max(whole)
        side = longer if self.output_size is None else tf.constant(self.output_size)
        scale = draw(seed, 1, (), self.min_scale, self.max_scale)
        factor = scale * tf.cast(side, tf.float32) / tf.cast(longer, tf.float32)
        size = tf.maximum(tf.cast(factor * tf.cast(whole, tf.float32), tf.int32), 1)
        start = random_start(seed, tf.maximum(size - side, 0) + 1)
        # Only what the canvas shows is resized: a scale of 2 would cost four times as much.
        shown = tf.minimum(size, side)
        share = tf.cast(whole, tf.float32) / tf.cast(size, tf.float32)
        corner = tf.cast(tf.round(tf.cast(start, tf.float32) * share), tf.int32)
        source = tf.clip_by_value(tf.cast(tf.round(tf.cast(shown, tf.float32) * share), tf.int32), 1, whole)
        cut = reframe(example, tf.minimum(corner, whole - source), source, min_visibility=self.min_visibility)
        return reframe(resized(cut, shown), (0, 0), tf.stack([side, side]))


@part
class RandomResize:
    """Enlarges or shrinks the whole image, its aspect ratio kept: upstream's `random_image_scale`.

    It changes what a later operation sees; the model's resizer makes all images one size in the end.

    Args:
        min_scale, max_scale: of both sides.

    Raises:
        ValueError: a setting outside its range.
    """

    min_scale: float = 0.5
    max_scale: float = 2.0

    def __post_init__(self):
        check_range(self.min_scale, self.max_scale, 1e-3, min_scale=self.min_scale, max_scale=self.max_scale)

    def largest_size(self, height: int, width: int) -> tuple[int, int]:
        """Sides that hold every result, for images of `height` x `width` pixels."""
        return int(height * max(self.max_scale, 1.0)), int(width * max(self.max_scale, 1.0))

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        import tensorflow as tf

        scale = draw(seed, 1, (), self.min_scale, self.max_scale)
        return resized(example, tf.cast(scale * tf.cast(tf.shape(example["image"])[:2], tf.float32), tf.int32))


@part
class RandomShortestSide:
    """Resizes the shorter side to one of several lengths at random, the longer one to at most `max_size`.

    As Detectron2's and DETR's training does.

    Args:
        sizes: pixels of the shorter side.
        max_size: bound of the longer side.

    Raises:
        ValueError: no size, or one below 1 or above `max_size`.
    """

    sizes: tuple = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    max_size: int = 1333

    def __post_init__(self):
        if not self.sizes or not all(1 <= size <= self.max_size for size in self.sizes):
            raise ValueError(f"sizes must be in 1...max_size. Received: sizes={self.sizes}, max_size={self.max_size}")

    def largest_size(self, height: int, width: int) -> tuple[int, int]:
        """Sides that hold every result, for images of `height` x `width` pixels."""
        return self.max_size, self.max_size

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        import tensorflow as tf

        sides = tf.cast(tf.shape(example["image"])[:2], tf.float32)
        wanted = tf.constant(self.sizes, tf.float32)[tf.cast(draw(seed, 1) * len(self.sizes), tf.int32)]
        factor = tf.minimum(wanted / tf.reduce_min(sides), float(self.max_size) / tf.reduce_max(sides))
        return resized(example, tf.round(sides * factor))


@part
class RandomPad:
    """Adds rows and columns around the image: upstream's `random_absolute_pad_image`.

    Args:
        max_height, max_width: pixels; fewer than that are added, so 1 adds none.
        color: of what is added, three numbers in 0...255; None: the image's mean color.

    Raises:
        ValueError: a setting outside its range.
    """

    max_height: int = 1
    max_width: int = 1
    color: tuple | None = None

    def __post_init__(self):
        if self.max_height < 1 or self.max_width < 1:
            raise ValueError(
                "max_height and max_width must be at least 1. Received: "
                f"max_height={self.max_height}, max_width={self.max_width}"
            )
        check_color(self.color)

    def largest_size(self, height: int, width: int) -> tuple[int, int]:
        """Sides that hold every result, for images of `height` x `width` pixels."""
        return height + self.max_height - 1, width + self.max_width - 1

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        import tensorflow as tf

        whole = tf.shape(example["image"])[:2]
        added = random_start(seed, tf.constant([self.max_height, self.max_width]), 1)
        return pad_at_random(example, seed, whole + added, self.color)


@part
class RandomZoomOut:
    """Places the image somewhere on a larger canvas, so that objects become smaller (Liu et al. 2016, section 3.6).

    Args:
        min_scale, max_scale: sides of the canvas, by those of the image.
        same_for_both: whether one scale is drawn for both sides; without it: upstream's `random_pad_image`.
        color: of the canvas, three numbers in 0...255; None: the image's mean color.
        probability: how often.

    Raises:
        ValueError: a setting outside its range.
    """

    min_scale: float = 1.0
    max_scale: float = 4.0
    same_for_both: bool = True
    color: tuple | None = None
    probability: float = 0.5

    def __post_init__(self):
        check_probability(self.probability)
        check_range(self.min_scale, self.max_scale, 1.0, min_scale=self.min_scale, max_scale=self.max_scale)
        check_color(self.color)

    def largest_size(self, height: int, width: int) -> tuple[int, int]:
        """Sides that hold every result, for images of `height` x `width` pixels."""
        return int(height * self.max_scale), int(width * self.max_scale)

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        return sometimes(self.probability, seed, lambda example: self._place(example, seed), example)

    def _place(self, example, seed):
        import tensorflow as tf

        scale = draw(seed, 1, (1,) if self.same_for_both else (2,), self.min_scale, self.max_scale)
        size = tf.cast(scale * tf.cast(tf.shape(example["image"])[:2], tf.float32), tf.int32)
        return pad_at_random(example, seed, size, self.color)


@part
class RandomCropAndPad:
    """A crop, then a padding whose size follows the image before it: upstream's `random_crop_pad_image`.

    Args:
        crop: a `RandomObjectCrop`.
        min_ratio, max_ratio: (height, width) of the result, by those of the image; no side becomes smaller than the
            crop's.
        color: of what is added, three numbers in 0...255; None: the crop's mean color.

    Raises:
        ValueError: a setting outside its range.
    """

    crop: Any = RandomObjectCrop()
    min_ratio: tuple = (1.0, 1.0)
    max_ratio: tuple = (2.0, 2.0)
    color: tuple | None = None

    def __post_init__(self):
        for low, high in zip(self.min_ratio, self.max_ratio, strict=True):
            check_range(low, high, 0.0, min_ratio=self.min_ratio, max_ratio=self.max_ratio)
        check_color(self.color)

    def largest_size(self, height: int, width: int) -> tuple[int, int]:
        """Sides that hold every result, for images of `height` x `width` pixels."""
        return int(height * max(self.max_ratio[0], 1.0)), int(width * max(self.max_ratio[1], 1.0))

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        import tensorflow as tf

        whole = tf.cast(tf.shape(example["image"])[:2], tf.float32)
        cut = self.crop(example, tf.random.experimental.stateless_fold_in(seed, 1))
        least, most = (tf.cast(whole * tf.constant(ratio), tf.int32) for ratio in (self.min_ratio, self.max_ratio))
        size = least + random_start(seed, tf.maximum(most - least, 1), 3)
        return pad_at_random(cut, seed, size, self.color)


@part
class RandomBoxJitter:
    """Moves the sides of boxes, each by at most `ratio` of the box's height or width: upstream's `random_jitter_boxes`.

    The image stays. Boxes stay inside it.

    Args:
        ratio: largest shift of a side.

    Raises:
        ValueError: a `ratio` outside [0, 0.5).
    """

    ratio: float = 0.05

    def __post_init__(self):
        if not 0.0 <= self.ratio < 0.5:
            raise ValueError(f"ratio must be in [0, 0.5). Received: ratio={self.ratio}")

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        import tensorflow as tf

        boxes = example[schema.BOXES]
        sides = tf.tile(boxes[:, 2:] - boxes[:, :2], [1, 2])
        moved = clip(boxes + sides * draw(seed, 1, tf.shape(boxes), -self.ratio, self.ratio))
        return keep_rows(example | {schema.BOXES: moved}, enough(area(moved), area(boxes), 0.0))


def random_start(seed, room, number=2):
    """int32 [2], uniform below `room` [2] int32, each at least 1."""
    import tensorflow as tf

    drawn = tf.cast(draw(seed, number, (2,)) * tf.cast(room, tf.float32), tf.int32)
    return tf.minimum(drawn, room - 1)


def pad_at_random(example, seed, size, color):
    """The example at a random place of a canvas of `size` int32 [2], or of its own where that is larger."""
    import tensorflow as tf

    whole = tf.shape(example["image"])[:2]
    size = tf.maximum(size, whole)
    start = random_start(seed, tf.maximum(size - whole, 1), 4)
    fill = mean_color(example["image"]) if color is None else tuple(map(float, color))
    return reframe(example, -start, size, fill)


def check_color(color):
    """Raises `ValueError` unless `color` is None or three numbers in 0...255."""
    if color is not None and not (len(color) == 3 and all(0 <= value <= 255 for value in color)):
        raise ValueError(f"color must be three numbers in 0...255, or None. Received: color={color}")
