"""The data set every reader returns: annotated images, decoded when they are needed."""

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_detect import schema
from keras_detect.data import keypoints, pipeline
from keras_detect.data.in_memory import record_of_example
from keras_detect.data.record import Defects, raster_keys
from keras_detect.messages import counted


class DetectionDataset:
    """Annotated images with one list of class names.

    `len(dataset)` counts images; `dataset[i]` and iteration give single examples, decoded when asked for; a slice or
    a list of indices gives a smaller `DetectionDataset`; `batches` gives what `fit` takes. An example is a dict:
    `"image"` uint8 [H, W, 3], `"boxes"` [n, 4] float32 normalized yxyx, `"labels"` [n] int32, `"is_crowd"` [n] bool,
    `"image_id"`, `"file_name"`, and where the data has them the other rows of `schema.object_fields`: `"areas"` [n]
    (pixels, as annotated), `"weights"` [n], `"is_difficult"`, `"is_group_of"` [n] bool, `"masks"` [n, H, W] uint8 (1 on
    the object), `"keypoints"` [n, N, 2] normalized yx (NaN where not annotated) with `"keypoint_visibility"` [n, N],
    and of `schema.image_fields`.

    Args:
        records: list of `Record`, one per image, as readers make them; see `from_examples` and `from_arrays`.
        class_names: list of K names; labels index it.
        split: name of the split that was read, or None.
        defects: the `Defects` that a reader counted, or None.
        keypoint_names: names of the N keypoints in order, or ().
        skeleton: pairs `(first, last)` of keypoints, from 0, that a line joins in drawings, or ().
        flip_pairs: pairs of keypoints, from 0, that change places in a mirrored image; default: those whose names
            differ in left and right (`data.keypoints.pairs_by_name`).

    Raises:
        ValueError: a label outside [0, K), no records, class names that `schema.check_class_names` refuses, or a
            keypoint in two of the `flip_pairs`.
    """

    def __init__(
        self,
        records: Any,
        class_names: Sequence[str],
        split: str | None = None,
        defects: Any = None,
        keypoint_names: Sequence[str] = (),
        skeleton: Sequence[tuple[int, int]] = (),
        flip_pairs: Sequence[tuple[int, int]] | None = None,
    ):
        self.records = list(records)
        self.class_names = list(schema.check_class_names(class_names))
        self.split = split
        self.keypoint_names = tuple(keypoint_names)
        self.skeleton = tuple((int(first), int(last)) for first, last in skeleton)
        pairs = keypoints.pairs_by_name(self.keypoint_names) if flip_pairs is None else flip_pairs
        self.flip_pairs = keypoints.checked_pairs(pairs)
        self.defects = Defects() if defects is None else defects
        if not self.records:
            raise ValueError("A data set needs at least one image. Received none.")
        for record in self.records:
            wrong = record.labels[(record.labels < 0) | (record.labels >= len(self.class_names))]
            if len(wrong):
                raise ValueError(
                    f"Labels must be in [0, {len(self.class_names)}), one per class name. Received label "
                    f"{int(wrong[0])} in {record.file_name}. Correct the label or extend class_names."
                )

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        boxes: Any,
        labels: Any,
        class_names: Sequence[str],
        is_crowd: Any = None,
        weights: Any = None,
        file_names: Any = None,
        **rows,
    ) -> "DetectionDataset":
        """A data set of images held in memory.

        Args:
            images: sequence of uint8 [H, W, 3] arrays (sizes may differ) in 0...255.
            boxes: per image [n, 4], normalized yxyx.
            labels: per image [n] int in [0, K).
            class_names: K names.
            is_crowd: per image [n] bool, or None.
            weights: per image [n] float, or None.
            file_names: a name per image, or None for `image_000000`, ...
            **rows: per image the values of other per-object fields (`schema.object_fields`) or per-image entries
                (`schema.image_fields`), see `from_examples`.

        Raises:
            ValueError: lengths that differ, or an image that is not uint8 [H, W, 3].
        """
        columns = {"images": images, schema.BOXES: boxes, schema.LABELS: labels, schema.IS_CROWD: is_crowd}
        columns |= {schema.WEIGHTS: weights, "file_name": file_names, **rows}
        given = {key: column for key, column in columns.items() if column is not None}
        if len({len(column) for column in given.values()}) > 1:
            raise ValueError(
                "One array of boxes and one of labels are needed per image. "
                f"Received: {', '.join(f'{len(column)} {key}' for key, column in given.items())}"
            )
        return cls.from_examples(
            [
                {"image" if key == "images" else key: column[i] for key, column in given.items()}
                for i in range(len(images))
            ],
            class_names,
        )

    @classmethod
    def from_examples(
        cls,
        examples: Any,
        class_names: Sequence[str] | None = None,
        keypoint_names: Sequence[str] = (),
        skeleton: Sequence[tuple[int, int]] = (),
        flip_pairs: Sequence[tuple[int, int]] | None = None,
    ) -> "DetectionDataset":
        """A data set of dicts such as iteration over one gives: a list, or examples that were changed.

        Args:
            examples: sequence of dicts. `"image"`: uint8 [H, W, 3], or the path of an image. `"boxes"`: [n, 4]
                normalized yxyx, or instead `"boxes_abs"`: [n, 4] yxyx in pixels. `"labels"`: [n] int in [0, K), or
                [n] class names. Optional: `"file_name"`, `"image_id"`, and every other row of `schema.object_fields`
                and annotated row of `schema.image_fields`, such as `"is_crowd"` [n] bool, `"weights"`, `"areas"` [n],
                `"masks"` [n, H, W], `"keypoints"` [n, N, 2] normalized yx with `"keypoint_visibility"` [n, N].
            class_names: K names; None: the names found in the labels, sorted.
            keypoint_names, skeleton, flip_pairs: see the class.

        Raises:
            FileNotFoundError: a path without an image.
            ValueError: something missing or of a wrong shape; the message names the example.
        """
        examples = list(examples)
        names = class_names
        if names is None:
            texts = {str(label) for example in examples for label in np.reshape(example.get(schema.LABELS, ()), -1)}
            if any(text.lstrip("-").isdigit() for text in texts):
                raise ValueError("Integer labels need class_names. Received: class_names=None")
            names = sorted(texts)
        defects = Defects()
        records = [record_of_example(example, i, names, defects) for i, example in enumerate(examples)]
        defects.report("examples")
        points: dict[str, Any] = {"keypoint_names": keypoint_names, "skeleton": skeleton, "flip_pairs": flip_pairs}
        return cls(records, names, defects=defects, **points)

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        if isinstance(index, numbers.Integral):
            return _example(self.records[index])
        if isinstance(index, slice):
            return self.subset(range(*index.indices(len(self))))
        return self.subset(index)

    def __iter__(self):
        return (_example(record) for record in self.records)

    def __repr__(self):
        boxes = sum(len(record.boxes) for record in self.records)
        counts = (counted(len(self), "image"), counted(boxes, "box"), counted(len(self.class_names), "class"))
        split = f", split={self.split!r}" if self.split else ""
        return f"<DetectionDataset: {', '.join(counts)}{split}>"

    def subset(self, indices: Any) -> "DetectionDataset":
        """A data set of the images at `indices`, in that order, with the same class names."""
        return DetectionDataset(
            [self.records[int(i)] for i in indices],
            self.class_names,
            split=self.split,
            defects=self.defects,
            **self.keypoint_facts(),
        )

    def keypoint_facts(self) -> dict[str, Any]:
        """`{"keypoint_names", "skeleton", "flip_pairs"}`, as the constructor takes them."""
        return {key: getattr(self, key) for key in ("keypoint_names", "skeleton", "flip_pairs")}

    @property
    def num_keypoints(self) -> int:
        """N, the largest number of keypoints of an object; 0 where no object has any."""
        found = (record.get(schema.KEYPOINTS) for record in self.records)
        return max((points.shape[1] for points in found if points is not None), default=0)

    @property
    def keypoint_permutation(self) -> tuple[int, ...]:
        """The order of the N keypoints in a mirrored image, by `flip_pairs`: place i takes keypoint `permutation[i]`.

        Raises:
            ValueError: a pair names a keypoint that the data do not have.
        """
        return keypoints.permutation(self.flip_pairs, self.num_keypoints)

    def check(self, model: Any = None, decode: bool = True) -> Any:
        """Looks for everything that is wrong with the images and boxes; see `keras_detect.check_dataset`.

        Args:
            model: a model whose anchors shall fit the objects, or None.
            decode: decode every image; False looks at the headers only.

        Returns:
            `CheckReport`; `print` shows its table, `ok` says whether a training would start.
        """
        from keras_detect.data.inspection import inspection

        return inspection(self, model=model, decode=decode)

    @property
    def max_boxes(self) -> int:
        """The largest number of boxes on one image, at least 1."""
        return max(1, max(len(record.boxes) for record in self.records))

    def batches(
        self,
        model: Any,
        batch_size: int,
        augment: Any = None,
        shuffle: bool = False,
        seed: int | None = None,
        drop_remainder: bool = False,
        max_boxes: int | None = None,
        cache: bool = False,
        masks: bool | None = None,
        shard: tuple[int, int] | None = None,
    ) -> Any:
        """Batches for `fit`, `evaluate` and the COCO callback, on every backend: a `tf.data.Dataset` of `(x, y)`.

        Images are read, decoded, augmented and resized one by one in parallel, stay uint8, and are prefetched.

        Args:
            model: what will read the batches; its `resizer` sizes the images. A resizer itself is accepted.
            batch_size: images in a batch.
            augment: None, an augmentation of `keras_detect.transforms`, or a sequence of them, applied in order. One
                that takes several images (`num_examples`) gets the further ones at random from the whole data set. A
                flip takes the order of the keypoints from `flip_pairs`, unless it has one of its own.
            shuffle: a new order every epoch.
            seed: int that makes order and augmentation the same on every run (and still different in every epoch: they
                depend on the seed and the number of the epoch alone). None: one drawn from Python's `random`.
            drop_remainder: leave out a last batch with fewer images.
            max_boxes: M, ground-truth rows per image; default: the largest number on one image. Rows beyond are dropped
                with a warning, so leave it None for evaluation.
            cache: keep decoded images in memory after the first epoch (resized where nothing is augmented).
                Ignored, with a log message, when they would take more than 4 GiB.
            masks: put the objects' masks (and other rasters) into y, resized with the image; default: where the data
                set has some and the model asks for them (`"masks"` in its `ground_truth_keys`). They take
                h * w bytes per object, padding rows included.
            shard: `(index, count)` where several hosts train together: host `index` of `count` gets its part of every
                epoch, and all hosts together get every image once (with `drop_remainder`, as many on each host, so
                up to `count - 1` fewer in all). Batches have the same shapes on all hosts. Needs a seed where it
                shuffles, the same on all hosts.

        Returns:
            Dataset of `(x, y)`. x: `images` uint8 [B, h, w, 3], or, where the resizer pads or the data set has
            per-image inputs (`schema.image_fields`), a dict of `"images"`, `"resized_image_shapes"` int32 [B, 3] and
            these. y: `"boxes"` [B, M, 4] float32 normalized to the true image, zeros in padding rows; `"labels"` [B, M]
            int32, -1 in padding rows; `"image_size"` [B, 2] int32, height and width of the image as stored (for
            evaluation by object size); and every other row of `schema.object_fields` and `schema.image_fields` that the
            data set has: flags such as `"is_crowd"` [B, M] bool where one object has it, `"weights"` [B, M] float32,
            without augmentation `"areas"` [B, M] float32 in pixels, `"keypoints"` [B, M, N, 2] float32 normalized
            (y, x) with `"keypoint_visibility"` [B, M, N] int32, both 0 for a point that is not annotated or has left
            the image; where asked for, `"masks"` [B, M, h, w] uint8 in the frame of the images, 1 on the object, all 0
            for an object without a mask.

        Raises:
            ValueError: the batch size is not positive, the model has other class names, or an invalid shard.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1. Received: batch_size={batch_size}")
        if shard is not None:
            _check_shard(shard, len(self), shuffle, seed)
        names = getattr(model, "class_names", None)
        if names is not None and list(names) != self.class_names:
            raise ValueError(
                f"The model and the data set must have the same class names. Received: model {_listed(names)}; "
                f"data set {_listed(self.class_names)}. Load the data with class_names=model.class_names, or give the "
                "model the data set's."
            )
        return pipeline.build_batches(
            self.records,
            resizer=getattr(model, "resizer", model),
            batch_size=batch_size,
            augment=pipeline.fitted(augment, self),
            shuffle=shuffle,
            seed=seed,
            drop_remainder=drop_remainder,
            max_boxes=max_boxes or self.max_boxes,
            cache=cache,
            raster_keys=self._raster_keys(model, masks),
            shard=shard,
        )

    def _raster_keys(self, model, masks):
        """The rasters that batches shall have."""
        if masks:
            return [key for key in raster_keys() if key == schema.MASKS or self._has(key)]
        wanted = getattr(model, "ground_truth_keys", ()) if masks is None else ()
        return [key for key in raster_keys() if key in wanted and self._has(key)]

    def _has(self, key):
        return any(record.get(key) is not None for record in self.records)


def _check_shard(shard, images, shuffle, seed):
    index, count = shard
    if not 0 <= index < count <= images:
        raise ValueError(f"shard is (index, count), 0 <= index < count <= {images} images. Received: {shard}")
    if shuffle and seed is None:
        raise ValueError("Hosts that shuffle need the same seed. Received: shuffle=True, seed=None")


def _example(record):
    example = {"image": record.image.read(), "image_id": record.image_id, "file_name": record.file_name}
    example |= record.objects | record.entries
    return example | {key: record.read_raster(key) for key in raster_keys() if record.get(key) is not None}


def _listed(names):
    names = [str(name) for name in names]
    return ", ".join(names[:6]) + (f", ... ({len(names)})" if len(names) > 6 else "")
