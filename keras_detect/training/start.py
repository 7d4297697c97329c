"""What a training run starts from: a preset, a backbone or a file, with heads for the classes of the data."""

import os

import keras

from keras_detect.data.dataset import DetectionDataset
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.registry import opens
from keras_detect.weights.folded_batch_norm import unfold_batchnorm

#: the packaged preset that `train` starts from unless it is told otherwise
DEFAULT_START = "ssd_mobilenet_v2_oidv4"
_CALIBRATION_IMAGES = 64


def starting_model(
    model: DetectionModel | str | os.PathLike,
    dataset: DetectionDataset,
    image_size: int | tuple[int, int] | None = None,
    verbose: int = 1,
) -> DetectionModel:
    """The model that a run trains, ready for it: its class heads are for the data, its batch norm is not folded.

    Args:
        model: a detector, or what `train` takes by name: a preset, a `.keras` file, or a backbone for a new SSD.
        dataset: the training data; folded batch norm is un-folded on some of its images.
        image_size: side or `(height, width)` to which images are resized; `None` for the model's own, 320 for a new
            SSD.
        verbose: 0 prints nothing, else what the model starts from.

    Raises:
        ValueError: an unknown name, or an image size for a resizer that has none.
        FileNotFoundError: no such file.
    """
    detector = _built(model, dataset.class_names, image_size)
    unfolded = unfold_batchnorm(detector, _spread(dataset))
    if verbose:
        print(f"starts from {detector.started_from or 'the model as it was given'}")
        if unfolded:
            print(f"{unfolded} folded batch norms were given the statistics of training images")
    return detector


def _built(model, class_names, image_size):
    if not isinstance(model, keras.Model):
        if opens("backbone", os.fspath(model)):
            return SSD.from_backbone(model, image_size=image_size, class_names=class_names)
        name, model = os.fspath(model), DetectionModel.from_preset(model)
        model.started_from = f"'{name}'"  # a local copy still says what it was trained from itself
    if list(model.class_names or ()) != list(class_names):
        model = model.re_head(class_names=class_names)
    if image_size is not None:
        model.resizer = model.resizer.with_size(image_size)
    return model


def _spread(dataset):
    """Some images, from all over the data set."""
    step = max(1, len(dataset) // _CALIBRATION_IMAGES)
    return (dataset[index]["image"] for index in range(0, len(dataset), step))
