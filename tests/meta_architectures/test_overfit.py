"""The check that a detector can learn at all: ten real images by heart."""

import keras
import pytest

from keras_detect import load_dataset
from keras_detect.backbones.mobilenet_v2 import MobileNetV2
from keras_detect.evaluation.callback import evaluate_coco
from keras_detect.layers.conv_blocks import ConvHyperparams
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.training.recipe import Recipe
from tests import goldens

IMAGES, EPOCHS = 10, 160


@pytest.mark.slow
def test_ten_real_images_are_overfitted():
    folder = goldens.require_shared("data/bccd")
    dataset = load_dataset(folder, "train")[:IMAGES]
    keras.utils.set_random_seed(0)
    # one step per epoch: batch norm's statistics must follow within the run
    backbone = MobileNetV2(hyperparams=ConvHyperparams(batch_norm_momentum=0.9), name="backbone")
    model = SSD.from_backbone(backbone, image_size=(288, 384), class_names=dataset.class_names)
    batches = dataset.batches(model, IMAGES, cache=True)
    Recipe(epochs=EPOCHS, batch_size=IMAGES, learning_rate=2e-3).compile(model, steps_per_epoch=1)
    model.fit(batches, epochs=EPOCHS, verbose=0)
    result = evaluate_coco(model, batches, class_names=dataset.class_names, progress=False)
    assert result["map_50"] >= 0.95, result
    assert min(result["map_per_class"].values()) > 0.5, result
