"""`DetectionModel`: a detector's five verbs on Keras' training and prediction hooks."""

import keras

from keras_detect import compat, schema
from keras_detect.meta_architectures.batch_checks import ChecksBatches
from keras_detect.meta_architectures.detection import Detection
from keras_detect.meta_architectures.pretrained import Pretrained
from keras_detect.meta_architectures.serialization import Serialization
from keras_detect.meta_architectures.training_hooks import REGULARIZATION_LOSS, TrainingHooks


class DetectionModel(ChecksBatches, TrainingHooks, Detection, Pretrained, Serialization, keras.Model):
    """A detector that `compile`, `fit`, `evaluate`, `predict` and `save` treat like any Keras model.

    A subclass gives four of the verbs; the fifth, restoring weights, is `from_preset` and `restore`:

    - `preprocess(images, true_image_shapes=None)` -> `{"images" [B, h, w, 3] float, "true_image_shapes" [B, 3] int32}`,
      shapes in the preprocessed frame; batches that the data pipeline has resized and padded come with the third,
      `resized=True`;
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

    #: regex of the `named_weights` that depend on the number of classes
    class_head: str = r"box_predictor/.*(_class|class_head|box_head)/.*"

    #: names of the scalars that `compute_losses` returns; each becomes a column of the progress bar and of `History`
    loss_names: tuple[str, ...] = ()

    #: names of further scalars that `compute_losses` returns: shown beside the losses, not part of their sum
    reported_names: tuple[str, ...] = ()

    def __init__(self, *, resizer, class_names=None, **kwargs):
        super().__init__(**kwargs)
        self.resizer = resizer
        self.class_names = None if class_names is None else schema.check_class_names(class_names)

    def _finish_init(self):
        """Checks that the parts agree and marks the model built. The last line of a subclass' `__init__`."""
        self._check_class_names()
        scalars = (*self.loss_names, REGULARIZATION_LOSS, *self.reported_names)
        self.loss_trackers = {name: keras.metrics.Mean(name=name) for name in scalars}
        self.build((None, None, None, 3))

    def build(self, input_shape):
        self.built = True

    def _freeze_batchnorm(self):
        for layer in compat.inner_layers(self):
            if isinstance(layer, keras.layers.BatchNormalization):  # ours, and Keras' own in wrapped models
                layer.trainable = False

    def _check_class_names(self):
        if self.class_names is not None:
            self.class_names = schema.check_class_names(self.class_names, self.num_classes)

    @property
    def num_classes(self):
        """K, background not counted."""
        raise AttributeError(f"{type(self).__name__} must define the property `num_classes`.")

    @property
    def num_detections(self):
        """D, the rows of `postprocess`."""
        raise AttributeError(f"{type(self).__name__} must define the property `num_detections`.")

    def preprocess(self, images, true_image_shapes=None):
        """uint8 or float 0...255 pixels -> what the network takes. See the class docstring."""
        raise TypeError(f"{type(self).__name__} must define `preprocess(images, true_image_shapes=None)`.")

    def compute_losses(self, y, predictions, inputs, training=True):
        """Named scalars, one per entry of `loss_names`. See the class docstring."""
        raise TypeError(f"{type(self).__name__} must define `compute_losses(y, predictions, inputs, training)`.")

    def postprocess(self, predictions, true_image_shapes):
        """Raw predictions -> detections (`schema`), normalised to the true image. See the class docstring."""
        raise TypeError(f"{type(self).__name__} must define `postprocess(predictions, true_image_shapes)`.")
