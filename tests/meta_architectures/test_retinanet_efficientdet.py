"""RetinaNet and EfficientDet: settings of SSD, saved and loaded under their own names."""

import dataclasses
import functools

import keras
import numpy as np
import pytest

from keras_detect import schema
from keras_detect.boxes.anchor_generators import MultiscaleGridAnchorGenerator
from keras_detect.boxes.matchers import ArgMaxMatcher
from keras_detect.losses.classification import SigmoidFocalLoss
from keras_detect.losses.localization import GiouLoss
from keras_detect.losses.one_stage import OneStageLoss
from keras_detect.meta_architectures import efficientdet, ssd_defaults
from keras_detect.meta_architectures.efficientdet import EfficientDet
from keras_detect.meta_architectures.retinanet import RetinaNet
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.necks.bifpn import BiFPN
from keras_detect.necks.fpn import FeaturePyramid
from keras_detect.presets import store
from keras_detect.transforms.resizers import FixedShapeResizer, KeepAspectRatioResizer
from tests import goldens, networks, tiny


def square(side):
    return KeepAspectRatioResizer(min_dimension=side, max_dimension=side, pad_to_max_dimension=True)


def retinanet(**settings):
    keras.utils.set_random_seed(0)
    return RetinaNet.from_backbone("tests_tiny", num_classes=3, **settings)


def tiny_efficientdet(**settings):
    keras.utils.set_random_seed(0)
    return EfficientDet.from_backbone("tests_tiny", num_classes=3, image_size=64, **settings)


def test_retinanet_has_the_settings_of_the_paper():
    model = retinanet()
    neck = model.feature_extractor.neck
    assert (neck.levels, neck.coarse_levels, neck.depth) == (("C3", "C4", "C5"), 2, 256)
    assert not [layer for layer in model.feature_extractor.layers[-20:] if "bn" in layer.name]
    assert model.anchor_generator == MultiscaleGridAnchorGenerator(
        min_level=3, max_level=7, anchor_scale=4.0, scales_per_octave=3
    )
    assert model.box_predictor.num_anchors_per_location == (9,) * 5
    assert (model.box_predictor.num_layers_before_predictor, model.box_predictor.depth) == (4, 256)
    assert not model.box_predictor.background and not model.box_predictor.hyperparams.batch_norm
    assert model.target_assigner.matcher == ArgMaxMatcher(matched_threshold=0.5, unmatched_threshold=0.4)
    assert model.detection_loss == OneStageLoss()  # focal loss, sums divided by the number of matched anchors
    assert (model.postprocessor.nms.score_threshold, model.postprocessor.nms.iou_threshold) == (0.05, 0.5)
    assert model.resizer == square(640)


@pytest.mark.parametrize(
    "build",
    [
        functools.partial(retinanet, image_size=64),
        pytest.param(tiny_efficientdet, marks=() if goldens.BACKEND == "tensorflow" else pytest.mark.slow),
    ],
)
def test_they_train_save_and_load(build, tmp_path):
    model = build()
    x, y = tiny.tiny_batch(batch_size=2)
    model.compile(keras.optimizers.SGD(1e-3), run_eagerly=goldens.BACKEND == "tensorflow")  # tracing takes a minute
    assert np.isfinite(list(model.train_on_batch(x, y, return_dict=True).values())).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model) and isinstance(loaded, SSD)
    assert list(loaded.named_weights()) == list(model.named_weights())
    scores = [each.predict_on_batch(x)[schema.SCORES] for each in (model, loaded)]
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, scores))
    assert loaded.re_head(class_names=["a", "b"]).num_classes == 2


def test_what_the_caller_gives_takes_the_place_of_a_setting():
    loss = OneStageLoss(localization=GiouLoss())
    model = retinanet(
        neck="bifpn",
        anchor_generator="multiscale_grid",
        resizer=FixedShapeResizer(height=64, width=64),
        target_assigner=ssd_defaults.target_assigner(),
        detection_loss=loss,
        freeze_batchnorm=True,
    )
    assert model.feature_extractor.neck == BiFPN(levels=("C3", "C4", "C5"), max_level=7)
    assert model.box_predictor.num_anchors_per_location == (6,) * 5
    assert model.target_assigner == ssd_defaults.target_assigner()
    assert model.detection_loss == loss and model.freeze_batchnorm
    by_name = retinanet(localization_loss="giou", image_size=(64, 96))
    assert by_name.detection_loss == loss
    assert by_name.resizer == FixedShapeResizer(height=64, width=96)
    extractor = ssd_defaults.feature_extractor("tests_tiny", FeaturePyramid(depth=16))
    own = RetinaNet.from_backbone(feature_extractor=extractor, num_classes=3, image_size=64)
    assert own.feature_extractor is extractor
    head = tiny_efficientdet(neck="fpn", box_predictor="weight_shared")
    assert head.box_predictor.depth == 256 and not head.box_predictor.separable


@pytest.mark.parametrize("meta", [RetinaNet, EfficientDet])
def test_their_arguments_are_checked_as_ssds(meta):
    for arguments, error, message in (
        (
            {"num_class": 3},
            TypeError,
            f"argument 'num_class' of {meta.__name__}.from_backbone. Did you mean num_classes",
        ),
        ({"num_classes": 3, "neck": "fpm"}, ValueError, "Unknown neck 'fpm'"),
        (
            {"num_classes": 3, "image_size": 64, "resizer": FixedShapeResizer(height=64, width=64)},
            ValueError,
            "'image_size' would be ignored",
        ),
        (
            {"num_classes": 3, "localization_loss": "l1", "detection_loss": OneStageLoss()},
            ValueError,
            "'localization_loss' would be ignored",
        ),
    ):
        with pytest.raises(error, match=message):
            meta.from_backbone("tests_tiny", **arguments)
    with pytest.raises(TypeError, match=r"argument 'sise' of EfficientDet.from_backbone. Did you mean size"):
        EfficientDet.from_backbone("tests_tiny", num_classes=3, sise="d1")
    with pytest.raises(ValueError, match=r"Unknown EfficientDet size 'd9'"):
        EfficientDet.from_backbone(size="d9", num_classes=3)


@pytest.mark.parametrize(
    "size", [pytest.param(size, marks=() if size == "d0" else pytest.mark.slow) for size in efficientdet.SIZES]
)
def test_efficientdet_is_the_published_one(size):
    """Weights, anchors, targets and loss are those of the zoo's model of that size; the resizer's kernel is newer."""
    if goldens.BACKEND != "tensorflow":
        pytest.skip("the backend changes no setting")
    name = next(name for name in store.names() if f"efficientdet_{size}_" in name)
    with networks.undrawn():
        mine = EfficientDet.from_backbone(size=size, num_classes=90)
        published = EfficientDet.from_preset(name, load_weights=False)
    assert [(key, tuple(weight.shape)) for key, weight in mine.named_weights().items()] == [
        (key, tuple(weight.shape)) for key, weight in published.named_weights().items()
    ]
    for part in ("anchor_generator", "target_assigner", "detection_loss", "postprocessor"):
        assert getattr(mine, part) == getattr(published, part), part
    assert dataclasses.replace(mine.resizer, kernel=published.resizer.kernel) == published.resizer
    assert mine.detection_loss.classification == SigmoidFocalLoss(gamma=1.5, alpha=0.25)
