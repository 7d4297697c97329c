"""`DetectionModel`: a detector's five verbs on Keras' training and prediction hooks."""

import contextlib

import keras
import numpy as np
from absl import logging
from keras import ops

from keras_detect import schema
from keras_detect.kernels import dispatch
from keras_detect.weights import keras_applications

REGULARIZATION_LOSS = "regularization_loss"


class DetectionModel(keras.Model):
    """A detector that `compile`, `fit`, `evaluate`, `predict` and `save` treat like any Keras model.

    A subclass gives four of the verbs; the fifth, restoring weights, is `from_preset` and `restore`:

    - `preprocess(images, true_image_shapes=None)` -> `{"images" [B, h, w, 3] float, "true_image_shapes" [B, 3] int32}`,
      shapes in the preprocessed frame;
    - `call(inputs, training=None)` -> dict of raw prediction tensors, the anchors and the padded size among them;
    - `compute_losses(y, predictions, inputs, training)` -> dict of named scalars;
    - `postprocess(predictions, true_image_shapes)` -> detections, normalised to the true image.

    `train_step`, `test_step` and `predict_step` are overridden once, here, for TensorFlow, JAX and PyTorch: they
    preprocess (and postprocess) around Keras' own step, so optimizers, mixed precision, `jit_compile`,
    `steps_per_execution`, distribution and callbacks keep working.

    A subclass creates every variable before the end of its `__init__` and then calls `self._finish_init()`:
    Keras would otherwise build the model on the raw batch.

    Args:
        resizer: an image resizer part; the data pipeline reads it too.
        class_names: sequence of K strings or `None`; travels with the model through `save`.
        **kwargs: Keras' own `name`, `dtype`, `trainable`.
    """

    #: names the architecture in the tables of checkpoints that restore into it ("ssd"); None: there is none
    checkpoint_family: str | None = None

    #: names of the scalars that `compute_losses` returns; each becomes a column of the progress bar and of `History`
    loss_names: tuple[str, ...] = ()

    def __init__(self, *, resizer, class_names=None, **kwargs):
        super().__init__(**kwargs)
        self.resizer = resizer
        self.class_names = None if class_names is None else tuple(str(name) for name in class_names)

    def _finish_init(self):
        """Checks that the parts agree and marks the model built. The last line of a subclass' `__init__`."""
        self._check_class_names()
        self.loss_trackers = {name: keras.metrics.Mean(name=name) for name in (*self.loss_names, REGULARIZATION_LOSS)}
        self.build((None, None, None, 3))

    def build(self, input_shape):
        self.built = True

    def _freeze_batchnorm(self):
        for layer in self._flatten_layers(include_self=False):
            if isinstance(layer, keras.layers.BatchNormalization):  # ours, and Keras' own in wrapped models
                layer.trainable = False

    def _check_class_names(self):
        if self.class_names is None:
            return
        if len(set(self.class_names)) < len(self.class_names):
            repeated = sorted({name for name in self.class_names if self.class_names.count(name) > 1})
            raise ValueError(f"Class names must differ from one another. Received repeated: {repeated[:5]}")
        if len(self.class_names) != self.num_classes:
            raise ValueError(
                f"class_names must name each of the {self.num_classes} classes. Received {len(self.class_names)}: "
                f"{list(self.class_names)[:5]}. Pass num_classes={len(self.class_names)} or the matching names."
            )

    @property
    def num_classes(self):
        """K, background not counted."""
        raise AttributeError(f"{type(self).__name__} must define the property `num_classes`.")

    # --- the verbs of a subclass ---------------------------------------------------------------------------------

    def preprocess(self, images, true_image_shapes=None):
        """uint8 or float 0...255 pixels -> what the network takes. See the class docstring."""
        raise TypeError(f"{type(self).__name__} must define `preprocess(images, true_image_shapes=None)`.")

    def compute_losses(self, y, predictions, inputs, training=True):
        """Named scalars, one per entry of `loss_names`. See the class docstring."""
        raise TypeError(f"{type(self).__name__} must define `compute_losses(y, predictions, inputs, training)`.")

    def postprocess(self, predictions, true_image_shapes):
        """Raw predictions -> detections (`schema`), normalised to the true image. See the class docstring."""
        raise TypeError(f"{type(self).__name__} must define `postprocess(predictions, true_image_shapes)`.")

    # --- Keras' hooks: the data are the last positional argument, JAX passes its state first ------------------------

    def train_step(self, *args):
        with self._kernels():
            return super().train_step(*args[:-1], self._preprocess_data(args[-1]))

    def test_step(self, *args):
        with self._kernels():
            return super().test_step(*args[:-1], self._preprocess_data(args[-1]))

    def predict_step(self, *args):
        with self._kernels():
            data = self._preprocess_data(args[-1])
            outputs = super().predict_step(*args[:-1], data)
            shapes = data[0][schema.TRUE_IMAGE_SHAPES]
            if isinstance(outputs, tuple):  # JAX: (predictions, non-trainable variables)
                return self.postprocess(outputs[0], shapes), *outputs[1:]
            return self.postprocess(outputs, shapes)

    def _kernels(self):
        """XLA cannot compile all of TensorFlow's own kernels."""
        compiled = dispatch.running("tensorflow") and self.jit_compile
        return dispatch.portable_kernels() if compiled else contextlib.nullcontext()

    def _preprocess_data(self, data):
        """Always a 3-tuple: with `y=None`, Keras' own packing would return a bare dict."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        images, shapes = split_images(x)
        return self.preprocess(images, shapes), y, sample_weight

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Sums `compute_losses` and the regularisation losses; one Mean tracker per name keeps the parts."""
        truth = clean_truth(y, sample_weight)
        losses = self.compute_losses(truth, y_pred, x, training=training)
        regularization = [ops.cast(ops.sum(value), "float32") for value in self.losses]
        losses[REGULARIZATION_LOSS] = sum(regularization) if regularization else ops.zeros(())
        batch_size = ops.shape(x[schema.IMAGES])[0]
        total = 0.0
        for name, value in losses.items():
            self.loss_trackers[name].update_state(value, sample_weight=batch_size)
            total = total + value
        # Under a strategy (TensorFlow only), Keras sums the gradients of the replicas and logs loss x replicas.
        strategy = getattr(self, "distribute_strategy", None)
        return total if strategy is None else total / strategy.num_replicas_in_sync

    def _symbolic_build(self, iterator=None, data_batch=None):
        """Keras would build with the raw batch. Ours is built since `__init__`; only the optimizer is not."""
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        self._post_build()

    # --- compile ---------------------------------------------------------------------------------------------------

    def compile(self, optimizer="auto", loss=None, loss_weights=None, metrics=None, weighted_metrics=None, **kwargs):
        """Keras' `compile`, without `loss` and `metrics`: a detector brings its own.

        Args:
            optimizer: a Keras optimizer or its name; "auto" is AdamW at 1e-3 with gradients clipped at norm 10.
            loss, loss_weights: must stay `None`; weights of the losses belong to the loss part of the model.
            metrics, weighted_metrics: must stay `None`; `keras_detect.callbacks.COCOEvaluation` measures mAP in `fit`.
            **kwargs: `run_eagerly`, `steps_per_execution`, `jit_compile`, `auto_scale_loss` as in Keras.

        Raises:
            ValueError: if `loss`, `loss_weights`, `metrics` or `weighted_metrics` is given.
        """
        if loss is not None or loss_weights is not None:
            raise ValueError(
                "A detector computes its own losses. Received: loss="
                f"{loss!r}, loss_weights={loss_weights!r}. Leave them out; give the model another loss part instead."
            )
        if metrics or weighted_metrics:
            raise ValueError(
                f"A detector takes no Keras metrics. Received: metrics={metrics or weighted_metrics!r}. "
                "For mAP during fit pass callbacks=[keras_detect.callbacks.COCOEvaluation(validation_data)]."
            )
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = keras.optimizers.AdamW(learning_rate=1e-3, weight_decay=1e-4, global_clipnorm=10.0)
        super().compile(optimizer=optimizer, **kwargs)

    def get_compile_config(self):
        if not self.compiled:
            return None
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "run_eagerly": self.run_eagerly,
            "steps_per_execution": self.steps_per_execution,
            "jit_compile": self.jit_compile,
        }

    def compile_from_config(self, config):
        config = dict(config)
        self.compile(optimizer=keras.saving.deserialize_keras_object(config.pop("optimizer")), **config)
        self.optimizer.build(self.trainable_variables)

    # --- truth on the host ------------------------------------------------------------------------------------------

    def fit(self, x=None, y=None, *args, **kwargs):
        check_host_truth(y, self.num_classes)
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        check_host_truth(y, self.num_classes)
        return super().evaluate(x, y, *args, **kwargs)

    def train_on_batch(self, x, y=None, *args, **kwargs):
        check_host_truth(y, self.num_classes)
        return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        check_host_truth(y, self.num_classes)
        return super().test_on_batch(x, y, *args, **kwargs)

    # --- convenience, serialisation, presets ------------------------------------------------------------------------

    def detect(self, pictures, score_threshold=0.3):
        """Detects in a picture, or in a list of pictures, of any size.

        Args:
            pictures: a path, a Pillow picture, an array `[H, W, 3]` (uint8 or 0...255) or `[H, W]` (grey), or a list
                of these.
            score_threshold: detections below it are left out.

        Returns:
            For one picture a dict of numpy arrays `{"boxes" [n, 4] float32, "scores" [n] float32, "labels" [n] int32,
            "class_names"}`, best first, boxes normalised yxyx; for a list, a list of such dicts. `"class_names"` is a
            list of n strings, `None` if the model has no class names.

        Raises:
            FileNotFoundError, ValueError: a path that does not exist, a file that is no picture, a wrong shape.
        """
        from keras_detect.data.image import as_pixels

        single = not isinstance(pictures, list | tuple)
        results = []
        for picture in [pictures] if single else pictures:
            image, shape = self.resizer.resize_image(as_pixels(picture))
            x = {schema.IMAGES: image[None], schema.TRUE_IMAGE_SHAPES: np.asarray(shape, "int32")[None]}
            detections = keras.tree.map_structure(lambda t: np.asarray(t)[0], self.predict_on_batch(x))
            keep = np.arange(len(detections[schema.SCORES])) < detections[schema.NUM_DETECTIONS]
            keep &= detections[schema.SCORES] >= score_threshold
            result = {key: detections[key][keep] for key in (schema.BOXES, schema.SCORES, schema.LABELS)}
            names = self.class_names
            result["class_names"] = None if names is None else [names[label] for label in result[schema.LABELS]]
            results.append(result)
        return results[0] if single else results

    def save_to_preset(self, directory, metadata=None):
        """Writes the preset directory `config.json`, `model.weights.h5`, `label_map.json`, `metadata.json`.

        Args:
            directory: the folder to write; it appears whole or not at all.
            metadata: dict added to `metadata.json` (source, licence, measured metric, ...).
        """
        from keras_detect.presets import store

        store.save_preset(self, directory, metadata)

    @classmethod
    def from_preset(cls, name, num_classes=None, load_weights=True, class_names=None):
        """A model from a built-in name, a preset directory or a URI.

        Args:
            name: built-in name, directory, or `hf://`, `kaggle://`, `https://`, `file://` address.
            num_classes: re-head for another number of classes: all other weights are kept, and the log says which
                were not.
            load_weights: `False` builds the architecture only, without network.
            class_names: names for the new head; sets `num_classes`.

        Raises:
            ValueError: an unknown name (the near ones are listed), a preset of another model class.
        """
        from keras_detect.presets import store

        if class_names is not None:
            num_classes = len(class_names) if num_classes is None else num_classes
        model = store.load_preset(name, num_classes=num_classes, load_weights=load_weights)
        if not isinstance(model, cls):
            raise ValueError(
                f"The preset '{name}' holds a {type(model).__name__}. Received a call of {cls.__name__}.from_preset; "
                f"use {type(model).__name__}.from_preset or DetectionModel.from_preset."
            )
        if class_names is not None:
            model.class_names = tuple(str(name) for name in class_names)
            model._check_class_names()
        return model

    def re_head(self, num_classes=None, class_names=None):
        """A new model for other classes: the same architecture, every weight but the class head's copied.

        Args:
            num_classes: K of the new model; may be left out when `class_names` is given.
            class_names: sequence of K strings.

        Returns:
            The new, uncompiled model; the log says which weights are new.
        """
        from keras_detect.presets.directory import copy_weights

        if num_classes is None and class_names is None:
            raise ValueError("re_head needs num_classes or class_names. Received neither.")
        config = self.with_num_classes(self.get_config(), len(class_names) if num_classes is None else num_classes)
        model = type(self).from_config({**config, "class_names": class_names})
        report = copy_weights(self, model, self.name)
        logging.warning("%s", report.summary())
        return model

    def restore(self, checkpoint, kind="detection"):
        """Restores weights, strictly: of a TensorFlow Object Detection API checkpoint, or of keras.applications.

        Args:
            checkpoint: prefix, folder, or `.tar.gz` of a TF2 object checkpoint; with `kind="classification"` also a
                network of keras.applications, or a classifier around the same backbone, as a Keras model, a `.keras`
                file or a `.weights.h5` file.
            kind: "detection" (everything, or all but the class head where the number of classes differs) or
                "classification" (the backbone alone).

        Returns:
            `RestoreReport`: what was restored, kept and ignored, and why.

        Raises:
            ValueError: model and checkpoint do not fit; every leftover is listed and nothing was restored. Weights of
                keras.applications do not fit a backbone that computes something else (`weights.keras_applications`).
        """
        from keras_detect.tf_od_api.restore_model import restore_model

        if keras_applications.is_keras_source(checkpoint):
            return self._restore_keras_weights(checkpoint, kind)
        return restore_model(self, checkpoint, kind)

    def _restore_keras_weights(self, source, kind):
        from keras_detect.weights.restore import restore

        if kind != "classification":
            raise ValueError(
                "A Keras model or weights file restores into the backbone alone: pass kind='classification'. Received: "
                f"kind={kind!r}. A whole detector saved by Keras is loaded by keras.models.load_model or load_weights."
            )
        (backbone,) = self._weight_groups()["backbone"]
        reader = keras_applications.weights_source(backbone, source)
        skip = ((r"(?!backbone/).*", "not part of the backbone"),)
        report = restore(self.named_weights(), reader.key, reader, skip=skip, ignore=reader.ignore)
        logging.info("%s", report.summary())
        reader.log_notes()
        return report

    def named_weights(self):
        """`{name: variable}` of every weight, by its place in the model: `"backbone/stem_conv/kernel"`.

        The names do not depend on the order in which models were built, as Keras' variable paths do; checkpoint maps
        and re-heading go by them.
        """
        names = {}
        for group, layers in self._weight_groups().items():
            for layer in layers:
                _collect(layer, group, names)
        return names

    def _weight_groups(self):
        """`{group name: layers}`; together they hold every weight of the model once."""
        raise TypeError(f"{type(self).__name__} must define `_weight_groups()`.")

    def get_config(self):
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "resizer": keras.saving.serialize_keras_object(self.resizer),
            "class_names": None if self.class_names is None else list(self.class_names),
        }

    @classmethod
    def from_config(cls, config):
        """Builds the model under the dtype policy it was saved with, whatever the global one is now."""
        config = dict(config)
        before = keras.config.dtype_policy()
        policy = _deserialize(config.get("dtype")) or before
        keras.config.set_dtype_policy(policy)
        try:
            return cls(**{key: _deserialize(value) for key, value in config.items()})
        finally:
            keras.config.set_dtype_policy(before)


def _deserialize(value):
    if isinstance(value, dict) and "class_name" in value and "config" in value:
        return keras.saving.deserialize_keras_object(value)
    return value


def _collect(layer, prefix, names):
    """Adds the weights of `layer` and of its sub-layers to `names`, each under its layer's name."""
    children = layer.layers if isinstance(layer, keras.Model) else layer._layers
    inherited = {id(weight) for child in children for weight in child.weights}
    for weight in layer.weights:
        if id(weight) not in inherited:
            names[f"{prefix}/{layer.name}/{weight.name}"] = weight
    for child in children:
        _collect(child, prefix if not child._layers else f"{prefix}/{child.name}", names)


def split_images(x):
    """`x` as the laws of `schema` allow it -> `(images [B, H, W, 3], true_image_shapes [B, 3] or None)`."""
    if not isinstance(x, dict):
        return x, None
    if schema.IMAGES not in x:
        raise ValueError(
            f"x must be an image batch or a dict with '{schema.IMAGES}' and optionally '{schema.TRUE_IMAGE_SHAPES}'. "
            f"Received a dict with: {sorted(x)}."
        )
    return x[schema.IMAGES], x.get(schema.TRUE_IMAGE_SHAPES)


def split_inputs(inputs):
    """Images and true shapes of what `preprocess` returned; a bare tensor has no padding."""
    if isinstance(inputs, dict):
        return inputs[schema.IMAGES], inputs[schema.TRUE_IMAGE_SHAPES]
    return inputs, None


def true_window(true_image_shapes, image_shape):
    """The true image in the padded one: `[B, 4]` yxyx, `[0, 0, true_height / height, true_width / width]`."""
    extent = ops.cast(true_image_shapes[:, :2], "float32") / image_shape
    return ops.concatenate([ops.zeros_like(extent), extent], axis=-1)


def clean_truth(y, sample_weight=None):
    """The one door of the truth: `y` -> `{"boxes" [B, M, 4], "labels" [B, M], "weights" [B, M], "valid" [B, M]}`.

    Rows with a negative label, and rows whose box is not finite, are padding: their box is zeroed, their weight is 0.
    One padding row is added, so that M is never 0, not even where a compiled graph learns M when it runs.
    Crowd rows are kept with weight 0, so that their anchors are neither positive nor negative. `sample_weight [B]`
    multiplies the weights.
    """
    if not isinstance(y, dict):
        raise ValueError(
            f"y must be a dict with '{schema.BOXES}' [B, M, 4] (normalised yxyx) and '{schema.LABELS}' [B, M]. "
            f"Received: {type(y).__name__}."
        )
    labels = y.get(schema.LABELS, y.get(schema.CLASSES))
    boxes = y.get(schema.BOXES)
    if boxes is None or labels is None:
        missing = schema.BOXES if boxes is None else schema.LABELS
        raise ValueError(f"y lacks '{missing}'. Received the keys: {sorted(y)}.")
    boxes = ops.cast(boxes, "float32")
    labels = ops.cast(labels, "int32")
    valid = ops.logical_and(labels >= 0, ops.all(ops.isfinite(boxes), axis=-1))
    boxes = ops.where(valid[..., None], boxes, 0.0)
    weights = ops.cast(valid, "float32")
    if y.get(schema.WEIGHTS) is not None:
        weights = weights * ops.cast(y[schema.WEIGHTS], "float32")
    if y.get(schema.IS_CROWD) is not None:
        weights = weights * (1.0 - ops.cast(ops.cast(y[schema.IS_CROWD], "bool"), "float32"))
    if sample_weight is not None:
        weights = weights * ops.cast(ops.reshape(sample_weight, (-1, 1)), "float32")
    return {
        schema.BOXES: ops.pad(boxes, ((0, 0), (0, 1), (0, 0))),
        schema.LABELS: ops.pad(labels, ((0, 0), (0, 1)), constant_values=schema.PADDING_LABEL),
        schema.WEIGHTS: ops.pad(weights, ((0, 0), (0, 1))),
        "valid": ops.cast(ops.pad(ops.cast(valid, "int32"), ((0, 0), (0, 1))), "bool"),
    }


def check_host_truth(y, num_classes):
    """Raises `ValueError` for numpy truth that would train silently wrong: labels past K, boxes in pixels, NaN."""
    if not isinstance(y, dict):
        return
    labels = y.get(schema.LABELS, y.get(schema.CLASSES))
    boxes = y.get(schema.BOXES)
    if isinstance(labels, np.ndarray) and labels.size and labels.max() >= num_classes:
        raise ValueError(
            f"Labels must lie in [0, {num_classes}), -1 for padding. Received a label {labels.max()}. Labels are "
            "zero-based; build the model with the number of classes of the data, or re-head it "
            "(`from_preset(..., num_classes=n)`)."
        )
    if not isinstance(boxes, np.ndarray) or not isinstance(labels, np.ndarray) or not boxes.size:
        return
    if boxes.ndim != 3 or boxes.shape[-1] != 4 or boxes.shape[:2] != labels.shape:
        raise ValueError(
            f"y needs boxes [B, M, 4] and labels [B, M]. Received boxes {boxes.shape} and labels {labels.shape}; pad "
            "each picture's rows to the same M with label -1."
        )
    real = boxes[labels >= 0]
    if not np.isfinite(real).all():
        raise ValueError("y['boxes'] holds NaN or infinite values in rows that are not padding (label >= 0).")
    if real.size and np.abs(real).max() > 4.0:
        raise ValueError(
            "Boxes are [ymin, xmin, ymax, xmax] normalised to 0...1. Received values up to "
            f"{np.abs(real).max():g}: divide pixel boxes by the image's height and width."
        )
