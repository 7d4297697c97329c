"""How an example gets another frame: cropped and padded, resized, or warped by a projective matrix.

All objects move with the image. A box becomes the smallest one that holds what is left of the old one; an object of
which less than `min_visibility` is left, measured by its box, is dropped, and so is one of which nothing is. A keypoint
outside becomes NaN and invisible.
"""

from keras_detect import schema
from keras_detect.transforms.augmentation import keep_rows, move_objects

_FULL_CLIP = 1e-6


def mean_color(image):
    """float32 [3], the mean color of an image [H, W, 3]."""
    import tensorflow as tf

    return tf.reduce_mean(tf.cast(image, tf.float32), axis=(0, 1))


def reframe(example, start, size, fill=(0.0, 0.0, 0.0), min_visibility=0.0):
    """The part of an example's plane that begins at `start` and has the `size`: a crop, a padding, or both.

    Args:
        example: dict of tensors, see `transforms.augmentation`.
        start: int32 [2], y and x of its top left pixel in the image's pixels; negative for padding.
        size: int32 [2], height and width in pixels.
        fill: color outside the image, three numbers or float32 [3].
        min_visibility: see the module.
    """
    import tensorflow as tf

    start, size = tf.cast(start, tf.int32), tf.cast(size, tf.int32)
    whole = tf.shape(example["image"])[:2]
    low, high = tf.clip_by_value(start, 0, whole), tf.clip_by_value(start + size, 0, whole)
    before = tf.clip_by_value(-start, 0, size)
    before = tf.where(high > low, before, size)
    after = size - before - (high - low)
    factor, offset = _factors(whole, size), _factors(start, size)

    def point(y, x):
        return y * factor[0] - offset[0], x * factor[1] - offset[1]

    def raster(values):
        cut = values[:, low[0] : high[0], low[1] : high[1]]
        return tf.pad(cut, [[0, 0], [before[0], after[0]], [before[1], after[1]]])

    image = example["image"][low[0] : high[0], low[1] : high[1]]
    image = pad_image(image, before, after, fill)
    moved = move_objects(example, lambda *box: (*point(*box[:2]), *point(*box[2:])), point, raster)
    return keep_visible(moved | {"image": image}, min_visibility)


def pad_image(image, before, after, fill=(0.0, 0.0, 0.0)):
    """The image [h, w, 3] uint8 with `before` and `after` [2] int32 rows and columns of the color `fill`."""
    import tensorflow as tf

    margins = [[before[0], after[0]], [before[1], after[1]]]
    padded = tf.pad(image, [*margins, [0, 0]])
    if not (isinstance(fill, tuple) and not any(fill)):
        inside = tf.pad(tf.ones(tf.shape(image)[:2], tf.bool), margins)
        color = tf.saturate_cast(tf.round(tf.convert_to_tensor(fill, tf.float32)), image.dtype)
        padded = tf.where(inside[..., None], padded, color)
    return tf.ensure_shape(padded, [None, None, 3])


def resized(example, size):
    """The example at another `size`, int32 [2] (height, width), at least one pixel: bilinear, rasters nearest."""
    import tensorflow as tf

    size = tf.maximum(tf.cast(size, tf.int32), 1)
    image = tf.image.resize(example["image"], size)
    image = tf.ensure_shape(tf.saturate_cast(tf.round(image), tf.uint8), [None, None, 3])

    def raster(values):
        return tf.image.resize(values[..., None], size, method="nearest")[..., 0]

    same = lambda *values: values  # noqa: E731
    return move_objects(example, same, same, raster) | {"image": image}


def warp(example, matrix, size=None, fill=(0.0, 0.0, 0.0), min_visibility=0.0):
    """The example under a projective map.

    A box becomes the smallest one around what its four corners span inside the image. Where the example has masks, it
    becomes the smallest one around the moved mask instead, which is tighter for an object that does not fill its box.

    Args:
        example: dict of tensors, see `transforms.augmentation`.
        matrix: float32 [3, 3], from (x, y, 1) in the image's pixels to (x, y, 1) in those of the result, up to a
            factor; pixel (0, 0) covers 0...1.
        size: int32 [2], height and width of the result; default: those of the image.
        fill: color outside the image.
        min_visibility: see the module.
    """
    import tensorflow as tf

    whole = tf.shape(example["image"])[:2]
    size = whole if size is None else tf.cast(size, tf.int32)
    height, width = tf.unstack(tf.cast(whole, tf.float32))
    new_height, new_width = tf.unstack(tf.cast(size, tf.float32))
    into = tf.linalg.diag(tf.stack([1.0 / new_width, 1.0 / new_height, 1.0]))
    matrix = tf.cast(matrix, tf.float32)
    normalized = into @ matrix @ tf.linalg.diag(tf.stack([width, height, 1.0]))

    def point(y, x):
        moved = tf.einsum("ij,j...->i...", normalized, tf.stack([x, y, tf.ones_like(x)]))
        return moved[1] / moved[2], moved[0] / moved[2]

    def box(ymin, xmin, ymax, xmax):
        ys, xs = point(tf.stack([ymin, ymin, ymax, ymax], -1), tf.stack([xmin, xmax, xmax, xmin], -1))
        return _span(ys, xs)

    raster = lambda values: _sampled(values[..., None], matrix, size, "NEAREST")[..., 0]  # noqa: E731
    image = _warped_image(example["image"], matrix, size, fill)
    moved = move_objects(example, box, point, raster) | {"image": image}
    moved = _drop_hidden(example, moved, point, min_visibility)
    return tightened(hide_outside(moved))


def tightened(example, rows=None):
    """The example with boxes as tight as its masks, where it has some; an object without a mask keeps its box.

    `rows`: bool [n], which objects; default: all.
    """
    import tensorflow as tf

    if schema.MASKS not in example:
        return example
    masks = example[schema.MASKS] > 0
    height, width = tf.unstack(tf.cast(tf.shape(masks)[1:], tf.float32))
    sides = []
    for axis, length in ((2, height), (1, width)):
        occupied = tf.reduce_any(masks, axis=axis)
        places = tf.range(tf.shape(occupied)[1], dtype=tf.int32)[None]
        last = tf.shape(occupied)[1]
        first = tf.reduce_min(tf.where(occupied, places, last), axis=1)
        end = tf.reduce_max(tf.where(occupied, places + 1, 0), axis=1)
        sides.append((tf.cast(first, tf.float32) / length, tf.cast(end, tf.float32) / length))
    (ymin, ymax), (xmin, xmax) = sides
    found = tf.reduce_any(masks, axis=(1, 2)) if rows is None else tf.reduce_any(masks, axis=(1, 2)) & rows
    tight = tf.stack([ymin, xmin, ymax, xmax], axis=1)
    return example | {schema.BOXES: tf.where(found[:, None], tight, example[schema.BOXES])}


def keep_visible(example, min_visibility):
    """The example with its boxes clipped to the image, without the objects of which too little is left."""
    import tensorflow as tf

    boxes = example[schema.BOXES]
    clipped = clip(boxes)
    keep = enough(area(clipped), area(boxes), min_visibility)
    clipped_fields = {
        field.key: clip(example[field.key])
        for field in schema.object_fields()
        if field.moves == schema.AS_BOX and field.key in example
    }
    return keep_rows(hide_outside(example | clipped_fields), tf.ensure_shape(keep, [None]))


def hide_outside(example):
    """The example whose keypoints outside the image are NaN and invisible: no later operation moves them inside."""
    import tensorflow as tf

    example = dict(example)
    for field in schema.object_fields():
        if field.key not in example or field.visibility is None:
            continue
        points = example[field.key]
        inside = tf.reduce_all((points >= 0.0) & (points <= 1.0), axis=-1)
        example[field.key] = tf.where(inside[..., None], points, float("nan"))
        if field.visibility in example:
            seen = example[field.visibility]
            example[field.visibility] = tf.where(inside, seen, tf.zeros_like(seen))
    return example


def enough(left, whole, min_visibility):
    """bool [n]: whether of the area `whole` [n] enough is `left` [n]."""
    return (left > 0.0) & (left >= (min_visibility - _FULL_CLIP) * whole)


def clip(boxes):
    """Boxes [..., 4] inside 0...1."""
    import tensorflow as tf

    return tf.clip_by_value(boxes, 0.0, 1.0)


def area(boxes):
    """The area of boxes [..., 4]."""
    import tensorflow as tf

    return tf.reduce_prod(tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0), axis=-1)


def _factors(numerator, denominator):
    import tensorflow as tf

    return tf.cast(numerator, tf.float32) / tf.cast(denominator, tf.float32)


def _drop_hidden(before, moved, point, min_visibility):
    """`moved` without the objects whose box, unclipped, is mostly outside the image."""
    import tensorflow as tf

    ymin, xmin, ymax, xmax = tf.unstack(before[schema.BOXES], axis=-1)
    ys, xs = point(tf.stack([ymin, ymin, ymax, ymax], -1), tf.stack([xmin, xmax, xmax, xmin], -1))
    unclipped = (tf.reduce_max(ys, -1) - tf.reduce_min(ys, -1)) * (tf.reduce_max(xs, -1) - tf.reduce_min(xs, -1))
    return keep_rows(moved, enough(area(moved[schema.BOXES]), unclipped, min_visibility))


def _span(ys, xs):
    """The box around the part of each quadrilateral that is inside 0...1.

    Its extreme points are corners inside the image, points where edges cross the image's sides, and corners of the
    image inside the quadrilateral. `ys`, `xs`: [n, 4], in order around it. Where nothing is inside: a box without area.
    """
    import tensorflow as tf

    next_ys, next_xs = tf.roll(ys, -1, -1), tf.roll(xs, -1, -1)
    found = [(ys, xs, _inside(ys) & _inside(xs))]
    for side in (0.0, 1.0):
        share = tf.math.divide_no_nan(side - ys, next_ys - ys)
        crossing = xs + share * (next_xs - xs)
        valid = (next_ys != ys) & _inside(share) & _inside(crossing)
        found.append((tf.fill(tf.shape(ys), side), crossing, valid))
        share = tf.math.divide_no_nan(side - xs, next_xs - xs)
        crossing = ys + share * (next_ys - ys)
        valid = (next_xs != xs) & _inside(share) & _inside(crossing)
        found.append((crossing, tf.fill(tf.shape(xs), side), valid))
    for y, x in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
        turn = (next_xs - xs) * (y - ys) - (next_ys - ys) * (x - xs)
        within = tf.reduce_all(turn >= 0.0, -1) | tf.reduce_all(turn <= 0.0, -1)
        one = tf.ones_like(ys[..., :1])
        found.append((one * y, one * x, within[..., None]))
    ys, xs, valid = (tf.concat(parts, axis=-1) for parts in zip(*found, strict=True))
    nothing = ~tf.reduce_any(valid, -1)
    low = [tf.reduce_min(tf.where(valid, values, 1.0), -1) for values in (ys, xs)]
    high = [tf.reduce_max(tf.where(valid, values, 0.0), -1) for values in (ys, xs)]
    return [tf.where(nothing, 0.0, values) for values in (*low, *high)]


def _inside(values):
    return (values >= 0.0) & (values <= 1.0)


def _warped_image(image, matrix, size, fill):
    import tensorflow as tf

    pixels = tf.cast(image, tf.float32)
    color = tf.convert_to_tensor(fill, tf.float32)
    # Outside, the kernel has 0: on pixels from which the fill is subtracted that is the fill.
    warped = _sampled((pixels - color)[None], matrix, size, "BILINEAR")[0] + color
    return tf.ensure_shape(tf.saturate_cast(tf.round(warped), tf.uint8), [None, None, 3])


def _sampled(images, matrix, size, interpolation):
    """[n, H, W, c] -> [n, h, w, c]: where each pixel of the result comes from, 0 outside."""
    import tensorflow as tf

    # The kernel counts from the centers of pixels, `matrix` from their edges.
    half = tf.constant([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    back = tf.constant([[1.0, 0.0, -0.5], [0.0, 1.0, -0.5], [0.0, 0.0, 1.0]])
    inverse = back @ tf.linalg.inv(matrix) @ half
    flat = tf.reshape(inverse / inverse[2, 2], [1, 9])[:, :8]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=flat,
        output_shape=size,
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode="CONSTANT",
    )
