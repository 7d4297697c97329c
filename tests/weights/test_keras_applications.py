"""Weights of keras.applications: features equal to its own, files of every kind, and what is refused."""

from unittest import mock

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from keras_detect.backbones import efficientnet, torch_arithmetic
from keras_detect.backbones.backbone import get_backbone
from keras_detect.boxes.anchor_generators import SsdAnchorGenerator
from keras_detect.heads.convolutional import ConvolutionalBoxPredictor
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.necks.ssd_feature_extractor import SSDFeatureExtractor
from keras_detect.necks.ssd_feature_maps import SsdFeatureMaps
from keras_detect.weights import keras_applications
from tests import goldens, networks, tiny

# compiling fifty convolutions is cheap on TensorFlow only; the tables are the same on every backend
BIG = () if goldens.BACKEND == "tensorflow" else pytest.mark.slow


def undrawn():
    """Kernels of keras.applications start as zeros: JAX takes 20 s to compile the random numbers of one network."""
    zeros = lambda self, shape, dtype=None: keras.ops.zeros(shape, dtype)  # noqa: E731
    return mock.patch.object(keras.initializers.VarianceScaling, "__call__", zeros)


def ssd(name, **settings):
    """Two classes on C3, C4 and C5 of a backbone whose kernels are zeros, for weights that are restored afterward."""
    anchors = SsdAnchorGenerator(num_layers=3)
    with networks.undrawn():
        neck = SsdFeatureMaps(levels=("C3", "C4", "C5"), extra_depths=())
        extractor = SSDFeatureExtractor(backbone=get_backbone(name)(name="backbone", **settings), neck=neck)
        predictor = ConvolutionalBoxPredictor(
            num_classes=2, num_anchors_per_location=anchors.num_anchors_per_location(), name="box_predictor"
        )
        parts = {"feature_extractor": extractor, "anchor_generator": anchors, "box_predictor": predictor}
        return SSD.from_backbone(num_classes=2, image_size=64, **parts)


def application(name, seed=0, **settings):
    """A network of keras.applications with random numbers, batch norm's statistics too: each weight matters."""
    with undrawn():
        settings = {"include_top": False, "input_shape": (None, None, 3), **settings}
        network = getattr(keras.applications, name)(weights=None, **settings)
    randomize(network, seed)
    return network


def randomize(network, seed):
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:  # as with ImageNet weights
            layer.set_weights([np.array(torch_arithmetic.MEAN), np.square(torch_arithmetic.STD), np.array(1)])
            layer.finalize_state()
        elif layer.weights:
            layer.set_weights([_value(rng, weight.name, weight.shape) for weight in layer.weights])


def _value(rng, name, shape):
    if len(shape) > 1:
        fan_in = shape[0] * shape[1] if name == "depthwise_kernel" or shape[-1] == 1 else np.prod(shape[:-1])
        return rng.normal(size=shape) * np.sqrt(2.0 / fan_in)
    return rng.uniform(0.5, 1.5, shape) if name in ("gamma", "moving_variance") else rng.uniform(-0.3, 0.3, shape)


def values(model):
    return {name: value for name, value in tiny.weights_of(model).items() if name.startswith("backbone/")}


MOBILENET_V1 = {f"C{level}": f"conv_pw_{block}_relu" for level, block in enumerate((1, 3, 5, 11, 13), start=1)}
MOBILENET_V2 = {
    "C1": "expanded_conv_project_BN",
    **{f"C{level}": f"block_{block}_add" for level, block in ((2, 2), (3, 5), (4, 12))},
    "C4_first": "block_9_add",
    "C4_expansion": "block_13_expand_relu",
    "C5": "out_relu",
}


def resnet(*blocks):
    return {"C1": "conv1_relu", **{f"C{n}": f"conv{n}_block{last}_out" for n, last in enumerate(blocks, start=2)}}


def resnet_v2(*blocks):
    """Levels before the blocks with a stride, and both ends."""
    levels = {f"C{n}": f"conv{n}_block{last - 1}_out" for n, last in enumerate(blocks[:3], start=2)}
    return {"C1": "conv1_conv", **levels, "C5_sum": f"conv5_block{blocks[3]}_out", "C5": "post_relu"}


def efficient(network):
    """The last shortcut's sum of a stage, or the norm of a block without one."""
    names = [layer.name for layer in network.layers if layer.name.endswith(("_add", "_project_bn"))]
    stages = {level: str(stage + 1) for level, stage in efficientnet.LEVELS.items()}
    return {level: [name for name in names if name[5] == stage][-1] for level, stage in stages.items()}


@pytest.mark.parametrize(
    ("name", "source", "levels", "scaling"),
    [
        ("mobilenet_v1", "MobileNet", MOBILENET_V1, keras.applications.mobilenet),
        pytest.param("mobilenet_v2", "MobileNetV2", MOBILENET_V2, keras.applications.mobilenet_v2, marks=BIG),
        pytest.param("resnet_v1_50_keras", "ResNet50", resnet(3, 4, 6, 3), keras.applications.resnet, marks=BIG),
        pytest.param("efficientnet_b0", "EfficientNetB0", None, keras.applications.efficientnet, marks=BIG),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (
                ("resnet_v1_101_keras", "ResNet101", resnet(3, 4, 23, 3), keras.applications.resnet),
                ("resnet_v1_152_keras", "ResNet152", resnet(3, 8, 36, 3), keras.applications.resnet),
                ("resnet_v2_50", "ResNet50V2", resnet_v2(3, 4, 6, 3), keras.applications.resnet_v2),
                ("resnet_v2_101", "ResNet101V2", resnet_v2(3, 4, 23, 3), keras.applications.resnet_v2),
                *(
                    (f"efficientnet_b{n}", f"EfficientNetB{n}", None, keras.applications.efficientnet)
                    for n in range(1, 8)
                ),
            )
        ),
    ],
)
def test_features_equal_those_of_keras_applications(name, source, levels, scaling):
    network = damped(application(source))
    model = ssd(name)
    report = model.restore(network, kind="classification")
    backbone = model.feature_extractor.backbone
    assert len(report.restored) == len(backbone.weights)
    assert sorted(report.kept) == sorted(set(model.named_weights()) - set(report.restored))
    reference = keras.Model(
        network.inputs,
        {level: network.get_layer(layer).output for level, layer in (levels or efficient(network)).items()},
    )
    pixels = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 3)).astype("float32")
    expected = reference(scaling.preprocess_input(keras.ops.convert_to_tensor(pixels)))
    features = backbone(backbone.preprocess(keras.ops.convert_to_tensor(pixels)))
    assert set(features) == set(expected)
    for level, tensor in features.items():
        assert goldens.relative_error(tensor, keras.ops.convert_to_numpy(expected[level])) < 1e-4, level


def damped(network):
    """The network with small residual branches.

    Random ones grow to thousands in a deep EfficientNet, where its squeezes double the float noise in every block.
    """
    for layer in network.layers:
        if layer.name.endswith("project_bn"):
            layer.gamma.assign(0.3 * layer.gamma)
    return network


def test_narrow_networks_and_every_kind_of_file(tmp_path, caplog):
    """The same weights from a model with a classifier, one around it, `.keras`, `.weights.h5` and the older `.h5`."""
    network = application("MobileNet", alpha=0.25)
    model = ssd("mobilenet_v1", width_multiplier=0.25)
    model.restore(network, kind="classification")
    expected = values(model)
    assert np.abs(expected["backbone/block_12_project_conv/kernel"]).max() > 0

    top = application("MobileNet", alpha=0.25, include_top=True, input_shape=(64, 64, 3), classes=7)
    for layer in network.layers[1:]:
        top.get_layer(layer.name).set_weights(layer.get_weights())
    around = keras.Sequential([network, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)])
    for index, saved in enumerate((network, top, around)):
        saved.save(tmp_path / f"{index}.keras")
    for index, saved in enumerate((network, top)):
        saved.save_weights(tmp_path / f"{index}.weights.h5")
    with h5py.File(tmp_path / "older.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)
    sources = [top, around, *(tmp_path / name for name in ("0.keras", "1.keras", "2.keras"))]
    sources += [str(tmp_path / name) for name in ("0.weights.h5", "1.weights.h5", "older.h5")]
    for source in sources:
        for weight in model.feature_extractor.backbone.weights:
            weight.assign(keras.ops.zeros(weight.shape))
        with undrawn():
            report = model.restore(source, kind="classification")
        restored = values(model)
        assert restored.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(restored[name], value, err_msg=f"{source}: {name}")
        assert ("conv_preds/kernel" in report.ignored) == (source is top or str(source).endswith("1.keras"))
    assert "multiples of 32; maps of odd sides" in caplog.text


def test_the_heads_keep_what_they_had():
    model = ssd("mobilenet_v1", width_multiplier=0.25)
    before = tiny.weights_of(model)
    report = model.restore(application("MobileNet", alpha=0.25), kind="classification")
    after = tiny.weights_of(model)
    for name in before:
        assert name.startswith("backbone/") == (name in report.restored)
        assert name in report.restored or np.array_equal(before[name], after[name])


@pytest.mark.slow
def test_the_taps_of_b0_leave_the_last_block_of_b1_unread():
    """EfficientDet D1's backbone has B0's taps: B1's block 7b is behind its last level."""
    with undrawn():
        network = keras.applications.EfficientNetB1(include_top=True, weights=None)
    model = ssd("efficientnet_b1", taps="b0")
    report = model.restore(network, kind="classification")
    reasons = {name.split("/")[0]: reason for name, reason in report.ignored.items()}
    assert {name for name, reason in reasons.items() if "behind the last" in reason} == {
        "block7b_expand_conv", "block7b_expand_bn", "block7b_dwconv", "block7b_bn", "block7b_se_reduce",
        "block7b_se_expand", "block7b_project_conv", "block7b_project_bn",
    }  # fmt: skip
    assert {name for name in reasons if not name.startswith("block7b")} - {"predictions", "top_conv", "top_bn"} == {
        next(name for name in reasons if name.startswith("normalization"))
    }


def test_notes_say_what_differs(caplog):
    """A network without ImageNet weights divides pixels by 255 only; another epsilon is another function."""
    with undrawn():
        network = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(None, None, 3))
    model = ssd("efficientnet_b0")
    model.restore(network, kind="classification")
    assert "other means and deviations than ImageNet's" in caplog.text
    caplog.clear()
    # the layer of the downloaded weights: deviations where the variances belong
    network.get_layer(index=2).set_weights(
        [np.array(torch_arithmetic.MEAN), np.array(torch_arithmetic.STD), np.array(1)]
    )
    model.feature_extractor.backbone.get_layer("stem_bn").epsilon = 0.01
    model.restore(network, kind="classification")
    assert "other means" not in caplog.text
    assert "epsilon is 0.001 in the source and 0.01 here" in caplog.text


def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path):
    network = application("MobileNet", alpha=0.25)
    network.save_weights(tmp_path / "narrow.weights.h5")
    (tmp_path / "broken.weights.h5").write_bytes(b"no such format")
    network.save(tmp_path / "narrow.keras")
    for name in ("narrow.weights.h5", "narrow.keras"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / f"half_{name}").write_bytes(whole[: len(whole) // 2])
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv1")])  # and no conv1_bn
    model = ssd("mobilenet_v1", width_multiplier=0.5)
    before = tiny.weights_of(model)
    for source, error, message in (
        (
            network,
            ValueError,
            r"restored\. Pass the network that the backbone is(.|\n)*shapes differ:\n"
            r"  backbone/.*\(3, 3, 3, 16\) in the model, \(3, 3, 3, 8\)",
        ),
        (tmp_path / "narrow.weights.h5", ValueError, "does not hold the weights of keras.applications' MobileNet"),
        (tmp_path / "broken.weights.h5", ValueError, "does not hold the weights of keras.applications' MobileNet"),
        (tmp_path / "absent.keras", FileNotFoundError, "No such weights file: .*absent.keras"),
        (tmp_path / "half_narrow.weights.h5", ValueError, "half_narrow.weights.h5 does not hold .* or truncated"),
        (tmp_path / "half_narrow.keras", ValueError, "half_narrow.keras: not a .keras file, or truncated"),
        (tiny.tiny_ssd(), ValueError, r"does not fit the model(.|\n)*stem_conv/kernel \(3, 3, 3, 16\): expected"),
        (other, ValueError, "is not keras.applications' MobileNet: it has no layers 'conv1' and 'conv1_bn'"),
    ):
        with undrawn(), pytest.raises(error, match=message):
            model.restore(source, kind="classification")
    with pytest.raises(ValueError, match="pass kind='classification'"):
        model.restore(network)
    after = tiny.weights_of(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_row_of_the_zoo_and_an_unknown_backbone_are_refused():
    with networks.undrawn():
        zoo = get_backbone("resnet_v1_50")()
    with pytest.raises(ValueError, match=r"'resnet_v1_50' has the arithmetic of upstream.*'resnet_v1_50_keras'"):
        keras_applications.KerasWeights(zoo, "resnet50.weights.h5")
    with pytest.raises(ValueError, match=r"Received the backbone 'TinyBackbone'"):
        keras_applications.KerasWeights(get_backbone("tests_tiny")(), "resnet50.weights.h5")


@pytest.mark.slow
def test_a_deeper_network_does_not_fill_a_shallower_one(tmp_path):
    with undrawn():
        deep = keras.applications.ResNet101(include_top=False, weights=None, input_shape=(None, None, 3))
    deep.save_weights(tmp_path / "deep.weights.h5")
    for source in (deep, tmp_path / "deep.weights.h5"):
        with undrawn(), pytest.raises(ValueError, match=r"not used by the model|does not hold the weights"):
            ssd("resnet_v1_50_keras").restore(source, kind="classification")
