"""`from_backbone`: parts by name, and arguments that are unknown or would be ignored."""

import functools

import keras
import numpy as np
import pytest

from keras_detect import registry, schema
from keras_detect.boxes.anchor_generators import (
    AnchorGenerator,
    GridAnchorGenerator,
    MultiscaleGridAnchorGenerator,
    SsdAnchorGenerator,
)
from keras_detect.boxes.matchers import ArgMaxMatcher, BipartiteMatcher
from keras_detect.heads.convolutional import ConvolutionalBoxPredictor
from keras_detect.heads.mask_rcnn import MaskRCNNBoxPredictor
from keras_detect.losses.classification import SigmoidCrossEntropyLoss
from keras_detect.losses.localization import GiouLoss, L1Loss
from keras_detect.meta_architectures import faster_rcnn_defaults, ssd_defaults
from keras_detect.meta_architectures.faster_rcnn import FasterRCNN
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.necks.bifpn import BiFPN
from keras_detect.necks.fpn import FeaturePyramid
from keras_detect.necks.ssd_feature_maps import SsdFeatureMaps
from keras_detect.transforms.resizers import FixedShapeResizer, KeepAspectRatioResizer
from tests import tiny

RESIZER = FixedShapeResizer(height=64, width=96)


def ssd_extractor():
    return ssd_defaults.feature_extractor("tests_tiny", "fpn")


def two_stage_extractor():
    return faster_rcnn_defaults.feature_extractor("tests_tiny", "fpn", None, None, (7, 7))


def head(num_classes=3):
    return MaskRCNNBoxPredictor(num_classes=num_classes, name="box_predictor")


# --- parts by name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "neck", "levels"),
    [
        ("ssd", SsdFeatureMaps(levels=("C3", "C4", "C5"), extra_depths=(512, 256, 256)), (8, 16, 32, 64, 128, 256)),
        ("fpn", FeaturePyramid(levels=("C3", "C4", "C5"), coarse_levels=2), (8, 16, 32, 64, 128)),
        ("bifpn", BiFPN(levels=("C3", "C4", "C5"), max_level=7), (8, 16, 32, 64, 128)),
    ],
)
def test_necks_by_name_follow_the_backbone(name, neck, levels):
    model = tiny.tiny_ssd(neck=name)
    assert model.feature_extractor.neck == neck
    assert model.feature_extractor.strides == levels


@pytest.mark.backend_free
def test_a_detector_with_every_part_by_name(tmp_path):
    model = tiny.tiny_ssd(
        neck="bifpn",
        anchor_generator="multiscale_grid",
        box_predictor="convolutional",
        matcher="bipartite",
        classification_loss="sigmoid_cross_entropy",
        localization_loss="giou",
    )
    assert model.anchor_generator == MultiscaleGridAnchorGenerator(min_level=3, max_level=7)
    assert isinstance(model.box_predictor, ConvolutionalBoxPredictor) and model.box_predictor.kernel_size == 3
    assert model.target_assigner.matcher == BipartiteMatcher()
    loss = model.get_config()["detection_loss"]["config"]
    assert loss["classification"]["class_name"] == "SigmoidCrossEntropyLoss"
    assert loss["localization"]["class_name"] == "GiouLoss"
    x, y = tiny.tiny_batch(batch_size=2)
    model.compile(keras.optimizers.SGD(1e-3))
    assert np.isfinite(list(model.train_on_batch(x, y, return_dict=True).values())).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    scores = [each.predict_on_batch(x)[schema.SCORES] for each in (model, loaded)]
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, scores))


@pytest.mark.backend_free
def test_parts_by_class_follow_the_model_as_those_by_name_do():
    neck = functools.partial(BiFPN, num_iterations=1, num_filters=16)
    model = tiny.tiny_ssd(
        neck=neck, anchor_generator=MultiscaleGridAnchorGenerator, box_predictor=ConvolutionalBoxPredictor
    )
    assert model.feature_extractor.neck == BiFPN(
        levels=("C3", "C4", "C5"), max_level=7, num_iterations=1, num_filters=16
    )
    assert model.anchor_generator == MultiscaleGridAnchorGenerator(min_level=3, max_level=7)
    assert (model.box_predictor.num_classes, model.box_predictor.num_anchors_per_location) == (3, (6,) * 5)
    two_stages = tiny.tiny_faster_rcnn(neck=neck, box_predictor=MaskRCNNBoxPredictor)
    assert two_stages.feature_extractor.neck.max_level == 6
    assert two_stages.box_predictor.num_classes == 3


def test_a_part_by_name_is_the_default_part():
    by_default, by_name = (
        tiny.tiny_ssd(),
        tiny.tiny_ssd(
            neck="ssd",
            anchor_generator="ssd",
            box_predictor="convolutional",
            matcher="argmax",
            classification_loss="sigmoid_focal",
            localization_loss="smooth_l1",
        ),
    )
    assert by_default.get_config() == {**by_name.get_config(), "name": by_default.name}
    assert by_name.anchor_generator == SsdAnchorGenerator(
        num_layers=6, min_scale=0.1, max_scale=0.95, reduce_boxes_in_lowest_layer=False
    )
    assert by_name.target_assigner.matcher == ArgMaxMatcher(matched_threshold=0.5, force_match_for_each_row=True)


def test_faster_rcnn_takes_its_anchors_as_ssd_does():
    """On one map of a 64-pixel image, an anchor of scale 1 is 0.4 * 64 = 25.6 pixels wide."""
    assert tiny.tiny_faster_rcnn().proposal_stage.anchor_generator == GridAnchorGenerator(
        scales=(0.25, 0.5, 1.0, 2.0), base_anchor_size=(25.6, 25.6), anchor_stride=(16.0, 16.0)
    )
    own = GridAnchorGenerator(scales=(1.0, 2.0), anchor_stride=(16.0, 16.0))
    model = tiny.tiny_faster_rcnn(anchor_generator=own, classification_loss="softmax_cross_entropy")
    assert model.proposal_stage.anchor_generator == own
    assert model.region_predictor.num_anchors_per_location == (6,)
    pyramid = tiny.tiny_faster_rcnn(neck="fpn", anchor_generator="multiscale_grid", localization_loss="l1")
    assert pyramid.proposal_stage.anchor_generator == MultiscaleGridAnchorGenerator(min_level=3, max_level=6)
    assert pyramid.box_stage.localization == L1Loss()


@pytest.mark.parametrize(
    ("resizer", "side"),
    [
        (FixedShapeResizer(height=100, width=60), 24.0),  # 0.4 * 60
        (KeepAspectRatioResizer(min_dimension=50, max_dimension=80), 20.0),  # 0.4 * 50
    ],
)
def test_anchors_follow_the_resizer(resizer, side):
    model = tiny.tiny_faster_rcnn(resizer=resizer)
    assert model.proposal_stage.anchor_generator.base_anchor_size == (side, side)


@pytest.mark.slow
def test_faster_rcnn_on_a_bifpn():
    model = tiny.tiny_faster_rcnn(neck="bifpn")
    assert model.feature_extractor.neck == BiFPN(levels=("C3", "C4", "C5"), max_level=6)
    x, y = tiny.tiny_batch(batch_size=2)
    model.compile(keras.optimizers.SGD(1e-3))
    assert np.isfinite(list(model.train_on_batch(x, y, return_dict=True).values())).all()


@pytest.fixture
def own_parts(monkeypatch):
    """Parts of a user's script, registered for one test."""
    for table in (registry.NECKS, registry.HEADS, registry.ANCHOR_GENERATORS, registry.LOCALIZATION_LOSSES):
        monkeypatch.setattr(table, "_entries", dict(table._entries))

    @registry.register_neck("two_maps", depth=5)
    class TwoMaps:
        """Annotated fields are its settings: no `__init__`, no `get_config`."""

        depth: int = 8

        def __call__(self, features):
            return {f"P{n}": keras.layers.Conv2D(self.depth, 1, name=f"two_{n}")(features[f"C{n}"]) for n in (3, 4)}

    @registry.register_head("small_head")
    class SmallHead(ConvolutionalBoxPredictor):
        pass

    @registry.register_anchor_generator("squares")
    @registry.part
    class Squares(AnchorGenerator):
        """One square anchor of 16 pixels per cell, on as many maps as there are strides."""

        strides: tuple = (8,)

        @classmethod
        def for_context(cls, strides, image_size, **settings):
            return cls(strides=tuple(strides), **settings)

        def num_anchors_per_location(self):
            return (1,) * len(self.strides)

        def _grid(self, xp, level, shape, image):
            stride = self.strides[level] / image[0]
            return ((16 / image[0], 16 / image[1]),), (stride, stride), (stride / 2, stride / 2)

    @registry.register_localization_loss("double_l1")
    class DoubleL1:
        compares = "codes"
        factor: float = 2.0

        def __call__(self, predictions, targets, weights):
            return self.factor * L1Loss()(predictions, targets, weights)

    return TwoMaps, SmallHead, Squares, DoubleL1


@pytest.mark.backend_free
def test_a_users_parts_by_name(own_parts, tmp_path):
    model = tiny.tiny_ssd(
        neck="two_maps", box_predictor="small_head", anchor_generator="squares", localization_loss="double_l1"
    )
    neck, small_head, squares, _ = own_parts
    assert model.feature_extractor.neck == neck(depth=5)
    assert [int(tensor.shape[-1]) for tensor in model.feature_extractor.outputs] == [5, 5]
    assert type(model.box_predictor) is small_head
    assert model.anchor_generator == squares(strides=(8, 16))
    x, y = tiny.tiny_batch(batch_size=2)
    model.compile(keras.optimizers.SGD(1e-3))
    assert np.isfinite(list(model.train_on_batch(x, y, return_dict=True).values())).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.feature_extractor.neck == model.feature_extractor.neck
    assert loaded.anchor_generator == model.anchor_generator
    scores = [each.predict_on_batch(x)[schema.SCORES] for each in (model, loaded)]
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, scores))
    with pytest.raises(ValueError, match=r"'two_maps' is already registered by .*TwoMaps"):
        registry.register_neck("two_maps")(type("Other", (), {}))


def test_a_class_that_cannot_be_saved_is_refused():
    class NoConfig:
        def __init__(self, depth):
            self.depth = depth

    table = registry.Registry("neck")
    with pytest.raises(ValueError, match=r"NoConfig with `__init__` and without `get_config`"):
        table.register_class("no_config")(NoConfig)
    assert "no_config" not in table


# --- arguments that are unknown or would be ignored ------------------------------------------------------------------

WRONG = [
    # (meta-architecture, backbone, arguments, error, message)
    (SSD, "tests_tiny", {"num_class": 3}, TypeError, "'num_class' of .*. Did you mean num_classes"),
    (FasterRCNN, "tests_tiny", {"num_class": 3}, TypeError, "'num_class' of .*. Did you mean num_classes"),
    (SSD, "tests_tiny", {"num_classes": 3, "necks": "fpn"}, TypeError, "'necks' of .*. Did you mean neck"),
    (SSD, "tests_tiny", {"num_classes": 3, "split": "C4"}, TypeError, "Unknown argument 'split' of SSD.from_backbone"),
    (FasterRCNN, "tests_tiny", {"num_classes": 3, "matcher": "argmax"}, TypeError, "'matcher'"),
    (
        FasterRCNN,
        "tests_tiny",
        {"num_classes": 3, "anchors": 1},
        TypeError,
        "'anchors' of .*. Did you mean .*anchor_gen",
    ),
    (
        SSD,
        "tests_tiny",
        {"num_classes": 3, "matcher": 0.5},
        ValueError,
        "A matcher is a registered name.*Received: 0.5",
    ),
    (SSD, "tests_tiny", {"num_classes": 3, "neck": 3}, ValueError, "A neck is a registered name, a class or a part"),
    (FasterRCNN, "tests_tiny", {"num_classes": 3, "neck": 3}, ValueError, "A neck is a registered name.*Received: 3"),
    (FasterRCNN, "tests_tiny", {"num_classes": 3, "classification_loss": 1}, ValueError, "A classification loss is"),
    (SSD, "tests_tiny", {"num_classes": 3, "resizer": 320}, ValueError, "resizer is a part.*Received: 320"),
    (FasterRCNN, "tests_tiny", {"num_classes": 3, "resizer": "320"}, ValueError, "resizer is a part.*Received: '320'"),
    (SSD, "tests_tiny", {"num_classes": 2.5}, ValueError, "num_classes must be a positive integer.*Received: 2.5"),
    (
        FasterRCNN,
        "tests_tiny",
        {"num_classes": "3"},
        ValueError,
        "num_classes must be a positive integer.*Received: '3'",
    ),
    (SSD, "tests_tiny", {"class_names": "cat"}, ValueError, r"Received one text: 'cat'. For one class pass \['cat'\]"),
    (FasterRCNN, "tests_tiny", {"class_names": 5}, ValueError, "class_names is a list of names. Received: 5"),
    (
        SSD,
        "tests_tiny",
        {"num_classes": 3, "image_size": "320"},
        ValueError,
        "image_size must be an int or a pair.*: image_size='320'",
    ),
    (
        FasterRCNN,
        "tests_tiny",
        {"num_classes": 3, "image_size": (64, 64, 3)},
        ValueError,
        "image_size must be an int or a pair",
    ),
    (SSD, "tests_tiny", {}, ValueError, "needs num_classes or class_names. Received neither"),
    (FasterRCNN, "tests_tiny", {}, ValueError, "needs num_classes or class_names. Received neither"),
    (SSD, None, {"num_classes": 3}, ValueError, "A backbone is a registered name.*Received: NoneType"),
    (FasterRCNN, None, {"num_classes": 3}, ValueError, "A backbone is a registered name.*Received: NoneType"),
    (SSD, "tests_tiny", {"num_classes": 3, "neck": "fpm"}, ValueError, "Unknown neck 'fpm'. Did you mean .*fpn"),
    (FasterRCNN, "tests_tiny", {"num_classes": 3, "neck": "fpm"}, ValueError, "Unknown neck 'fpm'. Did you mean .*fpn"),
    (SSD, "tests_tiny", {"num_classes": 3, "matcher": "argmx"}, ValueError, "Unknown matcher .*argmax"),
    (SSD, "tests_tiny", {"num_classes": 3, "box_predictor": "shared"}, ValueError, "Unknown head .*weight_shared"),
    (SSD, "tests_tiny", {"num_classes": 3, "anchor_generator": "sds"}, ValueError, "Unknown anchor generator .*ssd"),
    (SSD, "tests_tiny", {"num_classes": 3, "localization_loss": "ciou"}, ValueError, "Unknown localization .*giou"),
    (SSD, "tests_tiny", {"num_classes": 3, "classification_loss": "giou"}, ValueError, "Unknown classification loss"),
    (FasterRCNN, "tests_tiny", {"num_classes": 3, "box_predictor": "mask_rcn"}, ValueError, "Unknown RoI head .*mask"),
    (FasterRCNN, "tests_tiny", {"num_classes": 3, "neck": "ssd"}, ValueError, "maps P2, P3, .* of one depth"),
    (
        SSD,
        "nonsense",
        {"num_classes": 3, "feature_extractor": ssd_extractor},
        ValueError,
        "'backbone' would be ignored",
    ),
    (SSD, None, {"num_classes": 3, "neck": "fpm", "feature_extractor": ssd_extractor}, ValueError, "'neck' would be"),
    (SSD, None, {"num_classes": 3, "preprocess": "tf", "feature_extractor": ssd_extractor}, ValueError, "'preprocess'"),
    (
        FasterRCNN,
        "nonsense",
        {"num_classes": 3, "feature_extractor": two_stage_extractor},
        ValueError,
        "'backbone' would be ignored, because 'feature_extractor' takes its place. Received: backbone='nonsense' and "
        "feature_extractor=a FPNFeatureExtractor. Remove",
    ),
    (
        FasterRCNN,
        None,
        {"num_classes": 3, "neck": "fpn", "feature_extractor": two_stage_extractor},
        ValueError,
        "'neck'",
    ),
    (
        FasterRCNN,
        None,
        {"num_classes": 3, "split": "C4", "feature_extractor": two_stage_extractor},
        ValueError,
        "'split' would be ignored",
    ),
    (
        FasterRCNN,
        "tests_tiny",
        {"num_classes": 3, "split": "C4", "neck": "fpn"},
        ValueError,
        "'split' would be ignored",
    ),
    (SSD, "tests_tiny", {"num_classes": 3, "image_size": 64, "resizer": RESIZER}, ValueError, "'image_size' would be"),
    (
        FasterRCNN,
        "tests_tiny",
        {"num_classes": 3, "image_size": 64, "resizer": RESIZER},
        ValueError,
        "'image_size' would be ignored, because 'resizer'",
    ),
    (SSD, "tests_tiny", {"num_classes": 3, "preprocess": "tf"}, ValueError, "which scales its pixels itself"),
    (FasterRCNN, "tests_tiny", {"num_classes": 3, "preprocess": "tf"}, ValueError, "which scales its pixels itself"),
    (
        SSD,
        "tests_tiny",
        {"num_classes": 3, "matcher": "argmax", "target_assigner": ssd_defaults.target_assigner},
        ValueError,
        "'matcher' would be ignored",
    ),
    (
        SSD,
        "tests_tiny",
        {"num_classes": 3, "localization_loss": GiouLoss(), "detection_loss": ssd_defaults.OneStageLoss},
        ValueError,
        "'localization_loss' would be ignored, because 'detection_loss' .*=a GiouLoss",
    ),
    (
        SSD,
        "tests_tiny",
        {
            "num_classes": 3,
            "classification_loss": SigmoidCrossEntropyLoss(),
            "detection_loss": ssd_defaults.OneStageLoss,
        },
        ValueError,
        "'classification_loss' would be ignored",
    ),
    (
        FasterRCNN,
        "tests_tiny",
        {"num_classes": 3, "localization_loss": "l1", "box_stage": faster_rcnn_defaults.box_stage},
        ValueError,
        "'localization_loss' would be ignored, because 'box_stage'",
    ),
    (
        FasterRCNN,
        "tests_tiny",
        {
            "num_classes": 3,
            "anchor_generator": "grid",
            "proposal_stage": lambda: faster_rcnn_defaults.proposal_stage(GridAnchorGenerator()),
        },
        ValueError,
        "'anchor_generator' would be ignored, because 'proposal_stage'",
    ),
    (FasterRCNN, "tests_tiny", {"num_classes": 2, "box_predictor": head}, ValueError, "built for 3 classes.*=2"),
    (
        FasterRCNN,
        "tests_tiny",
        {"num_classes": 2, "box_predictor": lambda: functools.partial(MaskRCNNBoxPredictor, num_classes=5)},
        ValueError,
        "built for 5 classes.*=2",
    ),
    (
        FasterRCNN,
        "tests_tiny",
        {"class_names": ["a", "b"], "box_predictor": head},
        ValueError,
        "built for 3 classes.*=2",
    ),
    (
        FasterRCNN,
        "tests_tiny",
        {"num_classes": 1, "number_of_stages": 1, "cropper": faster_rcnn_defaults.cropper},
        ValueError,
        r"A one-stage model has no second stage. Received: number_of_stages=1 and \['cropper'\]",
    ),
    (
        FasterRCNN,
        "tests_tiny",
        {"num_classes": 1, "number_of_stages": 1, "localization_loss": "l1"},
        ValueError,
        r"A one-stage model has no second stage.*\['localization_loss'\]",
    ),
    (
        FasterRCNN,
        "tests_tiny",
        {"num_classes": 3, "neck": "fpn", "anchor_generator": "grid"},
        ValueError,
        "GridAnchorGenerator is for one feature map",
    ),
]


@pytest.mark.parametrize(("meta", "backbone", "given", "error", "message"), WRONG)
def test_what_would_be_ignored_or_is_unknown_is_an_error(meta, backbone, given, error, message):
    given = {name: value() if callable(value) and name in BUILT else value for name, value in given.items()}
    with pytest.raises(error, match=message):
        meta.from_backbone(backbone, **given)


BUILT = {
    "feature_extractor",
    "target_assigner",
    "detection_loss",
    "box_stage",
    "proposal_stage",
    "box_predictor",
    "cropper",
}


def test_what_a_finished_part_tells_need_not_be_said():
    """The number of classes is that of the predictor; equal numbers do no harm."""
    for arguments in ({}, {"num_classes": 3}, {"class_names": ["a", "b", "c"]}):
        model = FasterRCNN.from_backbone("tests_tiny", image_size=64, box_predictor=head(), **arguments)
        assert model.num_classes == 3
    assert SSD.from_backbone(feature_extractor=ssd_extractor(), num_classes=3).num_classes == 3


def test_numbers_of_numpy_and_names_from_a_generator_are_taken():
    for meta in (SSD, FasterRCNN):
        model = meta.from_backbone("tests_tiny", image_size=np.int64(64), class_names=(name for name in "ab"))
        assert (model.num_classes, model.class_names) == (2, ("a", "b"))
        assert (
            model.get_config()["resizer"]
            == meta.from_backbone("tests_tiny", image_size=64, num_classes=2).get_config()["resizer"]
        )


def test_arguments_of_a_subclass_are_known():
    class Mine(SSD):
        def __init__(self, *, temperature=1.0, **kwargs):
            super().__init__(**kwargs)
            self.temperature = temperature

    model = Mine.from_backbone("tests_tiny", num_classes=2, image_size=64, temperature=0.5, name="mine")
    assert (model.temperature, model.name, model.freeze_batchnorm) == (0.5, "mine", False)
    with pytest.raises(TypeError, match=r"argument 'temprature' of Mine.from_backbone. Did you mean temperature"):
        Mine.from_backbone("tests_tiny", num_classes=2, temprature=0.5)
