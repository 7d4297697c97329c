"""`ssd` configs: what is refused, in which words, and at which place of the file."""

import pytest

import keras_detect
from keras_detect.text_proto.node import PipelineConfigError
from keras_detect.text_proto.parser import parse
from tests import goldens
from tests.networks import undrawn

NAME = "ssd_mobilenet_v2_320x320_coco17_tpu-8"


def build(old, new, **options):
    """Builds the 320 config with the first `old` replaced by `new`; the old text must stand there."""
    text = goldens.golden(f"{NAME}.config").read_text()
    assert old in text
    with undrawn():
        return keras_detect.from_pipeline_config(text.replace(old, new, 1), **options)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # the line is that of the field in the published file
        ("num_classes: 90", "num_classes 90", r"11: model.ssd.num_classes: expected ':' or '{', found '90'"),
        (
            "freeze_batchnorm",
            "freeze_batchnrm",
            r"10: model.ssd.freeze_batchnrm: is not supported; supported in model.ssd",
        ),
        ("num_classes: 90", 'num_classes: "90"', r"11: model.ssd.num_classes: found the string '90'; .* an integer"),
        ("argmax_matcher", "bipartite_matcher", r"20: model.ssd.matcher: .*found: bipartite_matcher.*: argmax_matcher"),
        ("ssd_mobilenet_v2_keras", "ssd_mobilenet_v2_kera", r"88: .*extractor.type: Unknown .* Did you mean ssd_mobil"),
        (
            "ssd_mobilenet_v2_keras",
            "ssd_mobiledet_cpu",
            r"88: .*type: 'ssd_mobiledet_cpu' is of upstream's TF1, not built yet",
        ),
        ("num_classes: 90", "num_classes: -1", r"11: model.ssd.num_classes: found -1; supported: 1 to 100000"),
        ("num_classes: 90", "", r"8: model.ssd.num_classes: found 0; supported: 1 or more"),
        # what a part refuses is placed too, at the field where the part's argument has its name
        (
            "height: 300",
            "height: 0",
            r"49: model.ssd.image_resizer.fixed_shape_resizer.height: found 0; supported: 1 to",
        ),
        (
            "iou_threshold: 0.6",
            "iou_threshold: 1.6",
            r"134: .*batch_non_max_suppression.iou_threshold: found 1.6; supp",
        ),
        (
            "iou_threshold: 0.6",
            "soft_nms_sigma: .5 use_hard_nms: true",
            r"134: .*soft_nms_sigma: found 0.5 beside use_ha",
        ),
        ("gamma: 2.0", "gamma: -2", r"118: .*weighted_sigmoid_focal.gamma: found -2; supported: 0 to"),
        ("kernel_size: 1", "kernel_size: 0", r"60: .*convolutional_box_predictor.kernel_size: found 0; supported"),
        (
            "y_scale: 10.0",
            "y_scale: 0",
            r"14: model.ssd.box_coder.faster_rcnn_box_coder.y_scale: found 0; supported: more",
        ),
        ("unmatched_threshold: 0.5", "unmatched_threshold: 0.7", r"2\d: .*argmax_matcher.\w+: cannot be built: .*=0.7"),
    ],
)
def test_what_is_refused_has_its_place(old, new, message):
    with pytest.raises(PipelineConfigError, match=rf"^<text>:{message}"):
        build(old, new)


@pytest.mark.parametrize("number", [0, -1, "3", 2.0])
def test_the_number_of_classes_is_an_argument_and_not_a_place_in_the_file(number):
    with pytest.raises(ValueError, match=r"^num_classes must be a positive integer, or None .* Received: "):
        build("model", "model", num_classes=number)


def test_soft_suppression():
    nms = build("iou_threshold: 0.6", "soft_nms_sigma: 0.5 use_cpu_nms: true").postprocessor.nms
    assert (nms.soft_nms_sigma, nms.iou_threshold) == (0.5, 0.6)
    nms = build("iou_threshold: 0.6", "use_static_shapes: true use_hard_nms: true").postprocessor.nms
    assert nms.soft_nms_sigma == 0.0


def test_the_number_of_classes_goes_before_the_configs():
    model = build("height: 300", "height: 96", num_classes=3)
    assert model.num_classes == 3
    # six anchors on the last level, each with three classes and the background
    assert tuple(model.named_weights()["box_predictor/level_5/level_5_class/bias"].shape) == (6 * (3 + 1),)


@pytest.mark.parametrize(("multiplier", "channels"), [(0.5, 640), (1.4, 1280)])
def test_the_last_layer_of_mobilenet_v2_is_as_wide_as_upstreams(multiplier, channels):
    """Narrower below 1 and not wider above, where keras.applications does the opposite."""
    model = build("depth_multiplier: 1.0", f"depth_multiplier: {multiplier}")
    assert model.feature_extractor.backbone.channels["C5"] == channels


def test_a_field_is_named_only_for_the_value_that_was_refused():
    node = parse("stage { threshold: 0.5 }\nsize: 3\n")
    assert str(node.refusal(ValueError("Received: size=3"))).startswith("<text>:2: size: cannot be built: ")
    assert str(node.refusal(ValueError("threshold=0.50"))).startswith("<text>:1: stage.threshold: cannot be built: ")
    for text in ("threshold=1.5", "size=(3, 3)", "stage=3", "no name"):
        assert str(node.refusal(ValueError(text))) == f"<text>:1: cannot be built: {text}"
