"""`faster_rcnn` configs: the model they build, the checkpoints that fit it, and what is refused."""

import contextlib
import json

import keras
import numpy as np
import pytest

import keras_detect
from keras_detect.text_proto.node import PipelineConfigError
from keras_detect.tf_od_api import name_maps
from tests import goldens
from tests.golden.test_raw_heads import golden_settings, settings
from tests.networks import undrawn
from tests.weights.golden_checkpoints import golden_weights, write_checkpoint

NAME = "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8"
FPN = "faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8"
BIG = (
    "faster_rcnn_resnet101_v1_800x1333_coco17_gpu-8",
    "faster_rcnn_resnet101_v1_1024x1024_coco17_tpu-8",
    "faster_rcnn_resnet152_v1_640x640_coco17_tpu-8",
    "faster_rcnn_resnet152_v1_1024x1024_coco17_tpu-8",
    "mask_rcnn_inception_resnet_v2_1024x1024_coco17_gpu-8",
)
GOLDENS = (
    NAME,
    FPN,
    "faster_rcnn_resnet50_v1_800x1333_coco17_gpu-8",
    "derived_faster_rcnn_inception_resnet_v2_640x640",
)


@pytest.fixture(scope="module", params=[*GOLDENS, *(pytest.param(name, marks=pytest.mark.slow) for name in BIG)])
def built(request):
    path = goldens.golden(f"{request.param}.config")
    # the initializers are looked at on TensorFlow, and drawing numbers is slow on JAX
    with contextlib.nullcontext() if goldens.BACKEND == "tensorflow" else undrawn():
        return request.param, keras_detect.from_pipeline_config(path)


def config(**changes):
    """Text of the ResNet-50 config with `old=new` replaced; the old text must stand there."""
    text = goldens.golden(f"{NAME}.config").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def build(text, **options):
    with undrawn():
        return keras_detect.from_pipeline_config(text, **options)


def shapes(model):
    """`{checkpoint key: shape}` of all weights."""
    ours = model.named_weights()
    return {key: tuple(ours[weight].shape) for weight, key in name_maps.checkpoint_keys(model).items()}


def test_every_variable_of_upstream_is_claimed(built):
    name, model = built
    entries = json.loads(goldens.golden(f"{name}.vars.json").read_text())
    assert shapes(model) == {entry["key"]: tuple(entry["shape"]) for entry in entries["variables"]}
    named = model.named_weights().values()
    assert len(name_maps.checkpoint_keys(model)) == len(named)
    assert sum(int(np.prod(weight.shape)) for weight in named) == entries["num_params"]


def test_the_published_checkpoint_has_these_variables_and_no_others(built):
    name, model = built
    path = goldens.require_shared("zoo") / name / "variables.json"
    if not path.exists():
        pytest.skip(f"no published checkpoint of {name} in ../shared/zoo")
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    theirs = {
        key.removesuffix(suffix): tuple(entry["shape"])
        for key, entry in json.loads(path.read_text()).items()
        if key.endswith(suffix) and key.startswith("model/")
    }
    assert shapes(model) == theirs


@pytest.mark.skipif(goldens.BACKEND != "tensorflow", reason="reads layer settings, which no backend changes")
def test_layers_are_set_as_upstreams(built):
    """Strides, biases, L2 factors, initializers and batch norm settings, by `<golden>.layers.json`."""
    name, model = built
    theirs = {row["key"]: row for row in json.loads(goldens.golden(f"{name}.layers.json").read_text())}
    layers = dict(weighted_layers(model))
    assert layers.keys() == theirs.keys()
    for key, layer in layers.items():
        if not isinstance(layer, keras.layers.Dense):
            assert settings(layer) == golden_settings(theirs[key]), key
        elif "_mask_rcnn_box_predictor" not in key:  # ours are as the config says, upstream leaves them Glorot
            assert layer.units == theirs[key]["units"]
            assert layer.activation.__name__ == theirs[key]["activation"]


def weighted_layers(model):
    layers = {}
    for layer in model._flatten_layers(include_self=False):
        layers.update({id(weight): layer for weight in layer._trainable_variables + layer._non_trainable_variables})
    names = model.named_weights()
    for name, key in name_maps.checkpoint_keys(model).items():
        yield key.rsplit("/", 1)[0], layers[id(names[name])]


# --- restoring ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[NAME, FPN])
def checkpoint(request, tmp_path_factory):
    weights = golden_weights(request.param)
    return request.param, write_checkpoint(weights, tmp_path_factory.mktemp("checkpoint")), weights


def test_classification_restores_the_backbone_alone(checkpoint):
    name, prefix, weights = checkpoint
    model = build(goldens.golden(f"{name}.config"), num_classes=3)
    report = model.restore(prefix, kind="classification")
    names = model.named_weights()
    assert set(report.restored) == {name for name in names if name.startswith("backbone/")}
    assert len(report.restored) == 5 * 53  # convolutions and their batch norms
    assert set(report.restored) | set(report.kept) == set(names)
    keys = name_maps.checkpoint_keys(model)
    for name, weight in names.items():
        value = keras.ops.convert_to_numpy(weight)
        if name in report.restored:
            np.testing.assert_array_equal(value, weights[keys[name]], err_msg=name)
    assert not np.any(keras.ops.convert_to_numpy(names["region_predictor/shared_conv/kernel"]))


def test_another_number_of_classes_keeps_new_heads(checkpoint):
    """With one box for all classes, its head fits and is restored; with one for each, it does not."""
    name, prefix, _ = checkpoint
    model = build(goldens.golden(f"{name}.config"), num_classes=3)
    report = model.restore(prefix)
    heads = ["box_predictor/class_head/kernel", "box_predictor/class_head/bias"]
    if name == FPN:
        heads = ["box_predictor/box_head/kernel", "box_predictor/box_head/bias", *heads]
    assert sorted(report.kept) == sorted(heads)


# --- options -----------------------------------------------------------------------------------------------------


def test_options_reach_the_parts():
    text = config(
        **{
            "first_stage_max_proposals: 300": """first_stage_max_proposals: 50 first_stage_minibatch_size: 64
                first_stage_positive_balance_fraction: 0.25 first_stage_box_predictor_depth: 32
                first_stage_box_predictor_kernel_size: 1 second_stage_batch_size: 16
                second_stage_balance_fraction: 0.75
                second_stage_classification_loss { weighted_sigmoid {} }
                hard_example_miner { num_hard_examples: 5 iou_threshold: 0.9 loss_type: CLASSIFICATION }""",
            "clip_anchors_to_image: true": "",
            "use_dropout: false": "use_dropout: true",
            "dropout_keep_probability: 1.0": "dropout_keep_probability: 0.75",
            "height_stride: 16": "height_stride: 8 height: 128 width: 64 height_offset: 4",
        }
    )
    model = build(text, num_classes=2)
    first, second = model.proposal_stage, model.box_stage
    assert (first.num_proposals, first.batch_size, first.sampler.positive_fraction) == (50, 64, 0.25)
    assert not first.clip_anchors
    assert (first.localization_weight, first.objectness_weight) == (2.0, 1.0)
    anchors = first.anchor_generator
    assert (anchors.base_anchor_size, anchors.anchor_stride, anchors.anchor_offset) == ((128, 64), (8, 16), (4, 0))
    assert (model.region_predictor.depth, model.region_predictor.kernel_size) == (32, 1)
    assert (second.batch_size, second.sampler.positive_fraction) == (16, 0.75)
    assert type(second.classification).__name__ == "SigmoidCrossEntropyLoss"
    miner = second.hard_example_miner
    assert (miner.num_hard_examples, miner.iou_threshold, miner.loss_type) == (5, 0.9, "cls")
    assert model.box_predictor.dropout == 0.25
    assert model.num_classes == 2


def test_one_stage():
    model = build(config(**{"num_classes: 90": "num_classes: 90 number_of_stages: 1"}))
    assert (model.number_of_stages, model.num_classes, model.box_predictor) == (1, 1, None)
    assert not [name for name in model.named_weights() if name.startswith("box_predictor")]


def test_batch_norm_stands_still_unless_the_config_trains_it():
    layers = build(config(**{"batch_norm_trainable: true": ""})).feature_extractor.backbone.layers
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 53 and not any(layer.trainable for layer in norms)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_classes: 90", "num_classes: 90 number_of_stages: 4", "number_of_stages: found 4; supported: 1, 2"),
        ("num_classes: 90", "num_classes: 90 number_of_stages: 3", "predict_instance_masks: found false; .* true with"),
        (
            "'faster_rcnn_resnet50_keras'",
            "'faster_rcnn_nas'",
            "'faster_rcnn_nas' is of upstream's TF1, not built yet",
        ),
        ("batch_norm_trainable: true", "first_stage_features_stride: 8", "first_stage_features_stride: found 8"),
        ("op: CONV", "op: FC", "op: found FC; supported: CONV"),
        ("op: FC", "op: CONV", "op: found CONV; supported: FC"),
        ("op: CONV", "op: CONV batch_norm {}", "batch_norm: is not supported"),
        ("initial_crop_size: 14", "", "initial_crop_size: found 0; supported: at least 1"),
        ("scales: [0.25, 0.5, 1.0, 2.0]", "", "scales: scales and aspect_ratios cannot be omitted"),
        (
            "share_box_across_classes: true",
            "predict_instance_masks: true",
            "predict_instance_masks: found true.*need 3",
        ),
        ("mask_rcnn_box_predictor", "rfcn_box_predictor", "conv_hyperparams: is missing"),
        ("grid_anchor_generator", "flexible_grid_anchor_generator", "supported: grid_anchor_generator"),
        ("clip_anchors_to_image: true", "context_config {}", "context_config: is not supported"),
        ("batch_norm_trainable: true", "conv_hyperparams {}", "conv_hyperparams: is not supported"),
    ],
)
def test_what_is_not_supported_is_refused_with_its_place(old, new, message):
    with pytest.raises(PipelineConfigError, match=rf"<text>:\d+: model.faster_rcnn.*{message}"):
        build(config(**{old: new}))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("normalize_coordinates: false", "", "normalize_coordinates: found True; supported: False"),
        ("override_base_feature_extractor_hyperparams: true", "", "found false; supported: true"),
        ("max_dimension: 640", "max_dimension: 650", "pad_to_multiple: found 32 .* images of .650, 650."),
        ("max_level: 6", "max_level: 4", "min_level: found levels 2 to 4"),
    ],
)
def test_a_pyramid_is_refused_where_it_would_differ(old, new, message):
    text = goldens.golden(f"{FPN}.config").read_text()
    assert old in text
    with pytest.raises(PipelineConfigError, match=message):
        build(text.replace(old, new))


def mask_config(settings):
    """Text of the ResNet-50 config with masks."""
    return config(
        **{
            "num_classes: 90": "num_classes: 90 number_of_stages: 3 second_stage_mask_prediction_loss_weight: 4.0",
            "share_box_across_classes: true": f"predict_instance_masks: true {settings}",
        }
    )


CONVOLUTIONS = """conv_hyperparams {
    regularizer { l2_regularizer { weight: 0.0 } } initializer { truncated_normal_initializer { stddev: 0.01 } }"""


@pytest.mark.parametrize(
    ("settings", "expected", "layers"),
    [
        (f"{CONVOLUTIONS} }}", ((15, 15), 1, 256, False, "resize"), {"conv_0": 0, "mask_head": 3}),
        (
            f"""{CONVOLUTIONS} batch_norm {{}} }} mask_height: 14 mask_width: 28 mask_prediction_num_conv_layers: 3
            mask_prediction_conv_depth: 0 masks_are_class_agnostic: true""",
            ((14, 28), 2, 256, True, "resize"),
            {"conv_0": 0, "conv_0_bn": 1, "conv_1": 3, "conv_1_bn": 4, "mask_head": 6},
        ),
        (
            f"{CONVOLUTIONS} }} mask_height: 8 mask_width: 8 convolve_then_upsample_masks: true",
            ((8, 8), 1, 256, False, "nearest"),
            {"conv_0": 0, "upsample_conv": 4, "mask_head": 7},  # the upsampling itself is upstream's layer 3
        ),
    ],
)
def test_masks(settings, expected, layers):
    model = build(mask_config(settings))
    head = model.mask_predictor
    found = (head.mask_size, head.num_convolutions, head.depth, head.class_agnostic, head.upsampling)
    assert found == expected
    assert (model.mask_stage.cropper, model.mask_stage.loss_weight) == (None, 4.0)
    place = "model/_mask_rcnn_box_predictor/_third_stage_heads/mask_predictions/_mask_predictor_layers"
    keys = {key.rsplit("/", 1)[0] for key in name_maps.checkpoint_keys(model).values() if "_third_stage" in key}
    assert keys == {f"{place}/{number}" for number in layers.values()}
    assert type(model).__name__ == "MaskRCNN" and "mask_loss" in model.loss_names


def test_masks_are_refused_where_they_would_differ():
    with pytest.raises(PipelineConfigError, match="conv_hyperparams: "):
        build(mask_config(""))
    with pytest.raises(PipelineConfigError, match="mask_prediction_num_conv_layers: found 0"):
        build(mask_config(f"{CONVOLUTIONS} }} mask_prediction_num_conv_layers: 0"))
    model = build(mask_config(f"{CONVOLUTIONS} }}"))
    model.mask_predictor.upsampling = "transposed"
    with pytest.raises(ValueError, match="no transposed convolution"):
        name_maps.checkpoint_keys(model)


TF1_NAME = "faster_rcnn_inception_v2_coco"
RFCN_PREDICTOR = """rfcn_box_predictor { crop_height: 18 crop_width: 18 depth: 8 conv_hyperparams {
  regularizer { l2_regularizer {} } initializer { truncated_normal_initializer {} } } }"""


def tf1(kind, stride=16, **changes):
    """Text of the TensorFlow 1 config with another extractor."""
    text = goldens.golden(f"{TF1_NAME}.config").read_text()
    changes = {"faster_rcnn_inception_v2'": f"{kind}'", "features_stride: 16": f"features_stride: {stride}", **changes}
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("kind", "stride", "split", "tail", "roi_features"),
    [
        ("faster_rcnn_inception_v2", 16, "C4", "C5", (1, 4, 4, 1024)),
        pytest.param("faster_rcnn_resnet50", 16, "C4", "C5_stride_16", (1, 7, 7, 2048), marks=pytest.mark.slow),
        ("faster_rcnn_resnet50", 8, "C4_stride_8", "C5_stride_8", (1, 7, 7, 2048)),
        pytest.param(
            *("faster_rcnn_inception_resnet_v2", 8, "C4_stride_8", "C5_stride_16", (1, 3, 3, 1536)),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_extractors_of_tensorflow_1(kind, stride, split, tail, roi_features):
    """7 x 7 RoI features: Inception halves them, ResNet keeps them, Inception-ResNet leaves the border out."""
    model = build(tf1(kind, stride))
    extractor = model.feature_extractor
    assert (extractor.split, extractor.tail, extractor.strides) == (split, tail, (stride,))
    channels = extractor.backbone.channels[split]
    features = extractor.extract_box_classifier_features(keras.Input((7, 7, channels), batch_size=1))
    assert tuple(features.shape) == roi_features


@pytest.mark.backend_free
def test_an_rfcn():
    text = tf1("faster_rcnn_inception_v2")
    start, end = text.index("mask_rcnn_box_predictor"), text.index("second_stage_post_processing")
    model = build(f"{text[:start]}{RFCN_PREDICTOR}}} first_stage_atrous_rate: 2 {text[end:]}")
    assert type(model) is keras_detect.RFCN and model.num_classes == 90
    head = model.box_predictor
    assert (head.crop_size, head.bins, head.depth) == ((18, 18), (3, 3), 8)
    assert head.class_head.kernel.shape == (1, 1, 8, 9 * 91)
    assert model.region_predictor.shared_conv.dilation_rate == (2, 2)
    wrong = RFCN_PREDICTOR.replace("crop_width: 18", "crop_width: 17")
    with pytest.raises(
        PipelineConfigError, match=r"found crops of \(18, 17\) with bins of \(3, 3\); supported: multiples"
    ):
        build(f"{text[:start]}{wrong}}} {text[end:]}")
