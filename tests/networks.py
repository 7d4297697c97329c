"""The SSD networks of the goldens alone: preprocessed image -> feature maps and raw heads."""

import functools
from unittest import mock

import keras
import numpy as np

from keras_detect.backbones.backbone import get_backbone
from keras_detect.heads.convolutional import ConvolutionalBoxPredictor
from keras_detect.heads.weight_shared import WeightSharedConvolutionalBoxPredictor
from keras_detect.layers.conv_blocks import ConvHyperparams, Initializer, initializer
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.necks.fpn import FeaturePyramid
from keras_detect.necks.ssd_feature_extractor import SSDFeatureExtractor
from keras_detect.necks.ssd_feature_maps import SsdFeatureMaps
from keras_detect.tf_od_api import name_maps
from tests.weights import golden_checkpoints

NORMAL = initializer("random_normal", mean=0.0, stddev=0.01)
TRUNCATED = initializer("truncated_normal", mean=0.0, stddev=0.03)


class Network:
    """Feature extractor and predictor of one SSD, named and mapped like the whole model.

    Args:
        extractor: `SSDFeatureExtractor`.
        predictor: an unbuilt box predictor.
        size: side of the square the golden's image is resized to.
    """

    checkpoint_family = "ssd"
    _weight_groups = None  # set per instance: `DetectionModel.named_weights` asks for it

    def __init__(self, extractor, predictor, size):
        predictor.build([tensor.shape for tensor in extractor.outputs])
        self.feature_extractor, self.box_predictor, self.size = extractor, predictor, size
        backbone = extractor.backbone
        neck = [layer for layer in extractor.layers if layer is not backbone]
        self._weight_groups = lambda: {"backbone": [backbone], "neck": neck, "box_predictor": [predictor]}

    def named_weights(self):
        return DetectionModel.named_weights(self)

    def assign_golden(self, name):
        """Weights by the rule of `name`.vars.json; every weight of ours has one key, every key one weight of ours."""
        weights = golden_weights(name)
        keys = name_maps.checkpoint_keys(self)
        assert sorted(keys.values()) == sorted(weights), set(keys.values()) ^ set(weights)
        ours = self.named_weights()
        for weight_name, key in keys.items():
            assert tuple(ours[weight_name].shape) == weights[key].shape, f"{weight_name}: {key}"
            ours[weight_name].assign(weights[key])
        return self

    def __call__(self, images, training=False):
        """`(feature maps, {"box_encodings", "class_logits"})` of preprocessed `images [B, size, size, 3]`."""
        maps = self.feature_extractor(images, training=training)
        return maps, self.box_predictor(maps, training=training)

    def regularization(self):
        """`(number of regularized weights, sum of the penalties)`."""
        losses = (*self.feature_extractor.losses, *self.box_predictor.losses)
        losses = [float(keras.ops.convert_to_numpy(loss)) for loss in losses]
        return len(losses), sum(losses)

    def golden_input(self):
        """The golden's noise image, scaled by the backbone and resized by upstream's kernel."""
        noise = np.random.RandomState(0).randint(0, 256, (1, 240, 320, 3)).astype("float32")
        scaled = keras.ops.convert_to_numpy(self.feature_extractor.preprocess(keras.ops.convert_to_tensor(noise)))
        return legacy_bilinear(scaled, self.size)


def legacy_bilinear(images, size):
    """`images [B, H, W, C]` -> `[B, size, size, C]`; source = target * H / size, without the half-pixel offset."""
    for axis in (1, 2):
        length = images.shape[axis]
        source = np.arange(size, dtype=np.float32) * np.float32(length / size)
        low = np.minimum(source.astype(int), length - 1)
        high = np.minimum(low + 1, length - 1)
        part = (source - low).astype(np.float32).reshape((-1, 1, 1) if axis == 1 else (-1, 1))
        images = images.take(low, axis) * (1 - part) + images.take(high, axis) * part
    return images.astype(np.float32)


@functools.lru_cache(maxsize=2)
def golden_weights(name):
    """`{checkpoint key: array}` by the rule of GOLDEN.md, section 3."""
    return golden_checkpoints.golden_weights(name)


def _mobilenet_ssd(backbone, momentum, levels):
    hyperparams = ConvHyperparams(batch_norm_momentum=momentum, kernel_initializer=TRUNCATED, l2_weight=4e-5)
    extractor = SSDFeatureExtractor(
        backbone=get_backbone(backbone)(min_depth=16, hyperparams=hyperparams, name="backbone"),
        neck=SsdFeatureMaps(levels=levels, hyperparams=hyperparams),
    )
    predictor = ConvolutionalBoxPredictor(
        num_classes=90,
        num_anchors_per_location=(3, 6, 6, 6, 6, 6),
        hyperparams=ConvHyperparams(kernel_initializer=NORMAL, l2_weight=4e-5),
        name="box_predictor",
    )
    return Network(extractor, predictor, 300)


def _fpn_ssd(backbone, size, kernel_initializer, l2_weight, depth=256, lite=False, **settings):
    shared = {"batch_norm_momentum": 0.997, "batch_norm_epsilon": 0.001, "l2_weight": l2_weight}
    hyperparams = ConvHyperparams(kernel_initializer=kernel_initializer, **shared)
    extractor = SSDFeatureExtractor(
        backbone=get_backbone(backbone)(hyperparams=hyperparams, name="backbone", **settings),
        neck=FeaturePyramid(depth=depth, separable=lite, hyperparams=hyperparams),
    )
    predictor = WeightSharedConvolutionalBoxPredictor(
        num_classes=90,
        num_anchors_per_location=(6,) * 5,
        depth=depth,
        share_tower=lite,
        separable=lite,
        hyperparams=ConvHyperparams(kernel_initializer=NORMAL, **shared),
        name="box_predictor",
    )
    return Network(extractor, predictor, size)


def _resnet(layers, size):
    return functools.partial(_fpn_ssd, f"resnet_v1_{layers}", size, TRUNCATED, 4e-4)


#: golden -> builder of its network; the numbers are those of `<golden>.config`
NETWORKS = {
    "derived_ssd_mobilenet_v1_300x300": functools.partial(_mobilenet_ssd, "mobilenet_v1", 0.97, ("C4", "C5")),
    "ssd_mobilenet_v2_320x320_coco17_tpu-8": functools.partial(
        _mobilenet_ssd, "mobilenet_v2", 0.97, ("C4_expansion", "C5")
    ),
    "ssd_mobilenet_v1_fpn_640x640_coco17_tpu-8": functools.partial(
        _fpn_ssd, "mobilenet_v1", 640, NORMAL, 4e-5, min_depth=16
    ),
    "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8": functools.partial(
        _fpn_ssd, "mobilenet_v2", 320, NORMAL, 4e-5, depth=128, lite=True, min_depth=16
    ),
    "ssd_resnet50_v1_fpn_640x640_coco17_tpu-8": _resnet(50, 640),
    "ssd_resnet50_v1_fpn_1024x1024_coco17_tpu-8": _resnet(50, 1024),
    "ssd_resnet101_v1_fpn_1024x1024_coco17_tpu-8": _resnet(101, 1024),
    "ssd_resnet152_v1_fpn_640x640_coco17_tpu-8": _resnet(152, 640),
    "ssd_resnet152_v1_fpn_1024x1024_coco17_tpu-8": _resnet(152, 1024),
}


def undrawn():
    """Context in which kernels start as zeros: JAX takes 20 s to compile the random numbers of one network."""
    return mock.patch.object(Initializer, "build", lambda self: keras.initializers.Zeros())


def build(name):
    """The network of a golden, for weights that are assigned afterward."""
    with undrawn():
        return NETWORKS[name]()
