"""Small models and ground truth for tests that are about behavior and not about an architecture."""

import keras
import numpy as np

from keras_detect import schema
from keras_detect.backbones.backbone import Backbone, register_backbone
from keras_detect.heads.mask_predictor import MaskPredictor
from keras_detect.heads.point_heads import PointHead
from keras_detect.heads.position_sensitive import PositionSensitiveBoxPredictor
from keras_detect.layers.conv_blocks import ConvHyperparams, conv_bn_act, upsample_nearest
from keras_detect.layers.region_cropper import RegionCropper
from keras_detect.meta_architectures.center_net import CenterNet
from keras_detect.meta_architectures.center_net_keypoints import KeypointCandidates, KeypointTask
from keras_detect.meta_architectures.center_net_masks import MaskTask
from keras_detect.meta_architectures.center_net_tasks import ObjectTask
from keras_detect.meta_architectures.faster_rcnn import FasterRCNN
from keras_detect.meta_architectures.mask_rcnn import MaskRCNN, MaskStage
from keras_detect.meta_architectures.rfcn import RFCN
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.registry import serializable
from keras_detect.transforms.resizers import FixedShapeResizer, two_sides

IMAGE_SIZE = 64
NUM_KEYPOINTS = 3


@register_backbone("tests_tiny")
class TinyBackbone(Backbone):
    """Five strided convolutions: levels C3, C4, C5 with 8, 12, 16 channels."""

    def __init__(self, **kwargs):
        hyperparams = ConvHyperparams(activation="relu6", batch_norm_momentum=0.9, l2_weight=1e-4)
        inputs = x = keras.Input((None, None, 3))
        levels = {}
        for index, filters in enumerate((8, 8, 8, 12, 16), start=1):
            x = conv_bn_act(x, filters, 3, strides=2, hyperparams=hyperparams, name=f"conv_{index}")
            levels[f"C{index}"] = x
        levels = {name: levels[name] for name in ("C3", "C4", "C5")}
        super().__init__(inputs=inputs, outputs=levels, strides={"C3": 8, "C4": 16, "C5": 32}, **kwargs)


def tiny_ssd(num_classes=3, **options):
    """An SSD of a few thousand weights for 64 x 64 images, the same weights every time."""
    keras.utils.set_random_seed(0)
    return SSD.from_backbone("tests_tiny", num_classes=num_classes, **_sized(options))


def portable_ssd(**options):
    """An SSD for 96 x 96 images that a process without these tests can load: its backbone is a functional model."""
    x = inputs = keras.Input((None, None, 3))
    for stride in (2, 4, 8, 16, 32):
        x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name=f"to_{stride}")(x)
    network = keras.Model(inputs, x, name="small")
    return SSD.from_backbone(network, **{"image_size": 96, "preprocess": "unit", "neck": "fpn", **options})


def tiny_faster_rcnn(num_classes=3, **options):
    """A Faster R-CNN of some ten thousand weights for 64 x 64 images, the same weights every time."""
    keras.utils.set_random_seed(0)
    return FasterRCNN.from_backbone("tests_tiny", num_classes=num_classes, **_sized(options))


def tiny_mask_rcnn(num_classes=3, **options):
    """`tiny_faster_rcnn` with masks of 8 x 8 cells for each class."""
    keras.utils.set_random_seed(0)
    given = {"mask_predictor", "mask_stage"} & set(options)
    masks = {} if given else mask_parts(num_classes or len(options["class_names"]))
    return MaskRCNN.from_backbone("tests_tiny", num_classes=num_classes, **_sized({**masks, **options}))


def tiny_rfcn(num_classes=3, **options):
    """An R-FCN of some ten thousand weights for 64 x 64 images, the same weights every time."""
    keras.utils.set_random_seed(0)
    classes = num_classes if options.get("class_names") is None else len(options["class_names"])
    head = {"depth": 16, "crop_size": (6, 6), "name": "box_predictor"}
    parts = {"box_predictor": PositionSensitiveBoxPredictor(num_classes=classes, **head), **options}
    return RFCN.from_backbone("tests_tiny", num_classes=num_classes, **_sized(parts))


def mask_parts(num_classes=3, **options):
    """A small third stage: `{"mask_predictor", "mask_stage"}`."""
    head = MaskPredictor(
        num_classes=num_classes, mask_size=8, num_convolutions=1, depth=8, name="mask_predictor", **options
    )
    return {
        "mask_predictor": head,
        "mask_stage": MaskStage(cropper=RegionCropper(crop_size=4, pool_size=1, pool_stride=1)),
    }


@serializable
class TinyPointFeatures(keras.Model):
    """A `TinyBackbone` and maps of all its levels, enlarged to stride 4."""

    def __init__(self, *, maps=("P2",), **kwargs):
        backbone = TinyBackbone(name="backbone")
        inputs = keras.Input((None, None, 3))
        hyperparams = ConvHyperparams(activation="relu6", batch_norm_momentum=0.9)
        levels, outputs = backbone(inputs), {}
        for name in maps:
            x = [
                upsample_nearest(levels[level], 2**n, name=f"{name}_{level}") for n, level in enumerate(levels, start=1)
            ]
            x = keras.layers.Concatenate(name=f"{name}_levels")(x)
            outputs[name] = conv_bn_act(x, 8, 3, hyperparams=hyperparams, name=name)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.backbone, self.maps = backbone, tuple(maps)

    def preprocess(self, images):
        """The backbone's pixel scaling."""
        return self.backbone.preprocess(images)

    def weight_groups(self):
        """`{group name: layers}` that together hold every weight once."""
        neck = [layer for layer in self.layers if layer is not self.backbone]
        return {"backbone": [self.backbone], "neck": neck}

    def get_config(self):
        return {"name": self.name, "trainable": self.trainable, "maps": list(self.maps)}


def tiny_center_net(num_classes=3, tasks=(), maps=("P2",), class_names=None, **options):
    """A CenterNet of some ten thousand weights for 64 x 64 images, the same weights every time."""
    keras.utils.set_random_seed(0)
    num_classes = num_classes if class_names is None else len(class_names)
    objects = ObjectTask(num_classes=num_classes, heads=PointHead(filters=(16,)), max_detections=20)
    height, width = two_sides(options.pop("image_size", IMAGE_SIZE))
    parts = {"resizer": FixedShapeResizer(height=height, width=width), **options}
    extractor = TinyPointFeatures(maps=maps, name="feature_extractor")
    model = CenterNet(feature_extractor=extractor, tasks=[objects, *tasks], class_names=class_names, **parts)
    model.started_from = "random weights"
    return model


def tiny_center_net_with_keypoints(num_classes=3, **options):
    """A `tiny_center_net` that finds the keypoints of the first class, too, as `with_keypoints` makes them."""
    keypoints = KeypointTask(
        class_id=0, indices=range(NUM_KEYPOINTS), candidates=KeypointCandidates(), heads=PointHead(filters=(16,))
    )
    return tiny_center_net(num_classes, tasks=[keypoints], **options)


def tiny_center_net_with_masks(num_classes=3, **options):
    """A `tiny_center_net` that finds masks of 16 x 16 cells, too."""
    number = num_classes if options.get("class_names") is None else len(options["class_names"])
    masks = MaskTask(num_classes=number, mask_size=16, heads=PointHead(filters=(16,)))
    return tiny_center_net(num_classes, tasks=[masks], **options)


def _sized(options):
    """A resizer states the size itself."""
    return options if "resizer" in options else {"image_size": IMAGE_SIZE, **options}


#: every meta-architecture that the contract tests run over: name -> builder of a small model
TINY_MODELS = {
    "ssd": tiny_ssd,
    "faster_rcnn": tiny_faster_rcnn,
    "mask_rcnn": tiny_mask_rcnn,
    "center_net": tiny_center_net_with_keypoints,
}


def tiny_batch(batch_size=4, rows=4, num_classes=3, size=IMAGE_SIZE, seed=0):
    """`(images uint8 [B, size, size, 3], y)`: one to three boxes per image, the rest padding rows."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)
    boxes = np.zeros((batch_size, rows, 4), np.float32)
    labels = np.full((batch_size, rows), schema.PADDING_LABEL, np.int32)
    for image in range(batch_size):
        for row in range(1 + image % 3):
            corner = rng.uniform(0.05, 0.5, 2)
            boxes[image, row] = [*corner, *(corner + rng.uniform(0.2, 0.45, 2))]
            labels[image, row] = rng.integers(num_classes)
    return images, {schema.BOXES: boxes, schema.LABELS: labels, schema.MASKS: filled(boxes, size)}


def filled(boxes, size=IMAGE_SIZE):
    """`[B, M, size, size]` uint8: masks that fill the boxes `[B, M, 4]` but for their lower right quarter."""
    pixels = (np.arange(size) + 0.5) / size
    low, high, middle = boxes[..., :2], boxes[..., 2:], (boxes[..., :2] + boxes[..., 2:]) / 2

    def inside(start, end):
        rows, columns = ((pixels >= start[..., axis, None]) & (pixels < end[..., axis, None]) for axis in (0, 1))
        return rows[..., :, None] & columns[..., None, :]

    return (inside(low, high) & ~inside(middle, high)).astype(np.uint8)


def full_batch(*args, **options):
    """`tiny_batch` with everything that any of the `TINY_MODELS` learns."""
    images, y = tiny_batch(*args, **options)
    return images, with_keypoints(y)


def with_keypoints(y):
    """The same ground truth with three keypoints on the diagonal of every box; most models do not look at them."""
    share = np.linspace(0.25, 0.75, NUM_KEYPOINTS)[:, None]
    low, high = y[schema.BOXES][..., None, :2], y[schema.BOXES][..., None, 2:]
    return {**y, schema.KEYPOINTS: (low + share * (high - low)).astype("float32")}


def padded(y, rows):
    """The same ground truth with `rows` rows per image; the added ones are padding that holds nonsense."""
    nonsense = {schema.BOXES: 0.37, schema.LABELS: schema.PADDING_LABEL, schema.MASKS: 1, schema.KEYPOINTS: 0.37}

    def longer(key, value):
        widths = [(0, 0), (0, rows - value.shape[1]), *[(0, 0)] * (value.ndim - 2)]
        return np.pad(value, widths, constant_values=nonsense[key])

    return {key: longer(key, value) for key, value in y.items()}


def weights_of(model):
    """All weights as numpy arrays, by name."""
    return {name: keras.ops.convert_to_numpy(weight) for name, weight in model.named_weights().items()}
