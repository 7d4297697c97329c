"""Keras models as backbones: their own features, levels by stride, sizes, pixel scaling, one-line detectors."""

import types

import keras
import numpy as np
import pytest
from keras import layers

from keras_detect import schema
from keras_detect.backbones import keras_models
from keras_detect.backbones.keras_models import PixelScaling, from_keras_model
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.necks.fpn import FeaturePyramid
from tests import goldens, tiny
from tests.weights.test_keras_applications import randomize, undrawn


def small_model(padding="same", name="small", scaled=True, outputs="last"):
    """Strides 2, 4, 8, 16, 32; a shortcut inside stride 8, and a branch that ends beside the convolution to 16."""
    x = inputs = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 255.0, name="rescaling")(x) if scaled else x
    for stride in (2, 4, 8):
        x = layers.Conv2D(4, 3, strides=2, padding=padding, activation="relu", name=f"to_{stride}")(x)
    inner = layers.Conv2D(4, 1, name="inner")(x)
    x = layers.Add(name="sum_8")([x, inner])
    left = layers.Conv2D(2, 3, strides=2, padding=padding, name="left")(layers.Conv2D(3, 1, name="branch")(x))
    right = layers.AveragePooling2D(3, 2, padding=padding, name="right")(x)
    c3, x = x, layers.Concatenate(name="both_16")([left, right])
    padded = layers.ZeroPadding2D(((0, 1), (0, 1)), name="pad")(x)
    c4, x = x, layers.Conv2D(8, 3, strides=2, name="to_32")(padded)
    top = {"last": x, "all": [c3, c4, x], "class": layers.Dense(2)(layers.GlobalAveragePooling2D(name="mean")(x))}
    return keras.Model(inputs, top[outputs], name=name)


def pixels(height, width, batch=1):
    noise = np.random.default_rng(0).integers(0, 256, (batch, height, width, 3))
    return keras.ops.convert_to_tensor(noise.astype("float32"))


def application(name):
    with undrawn():
        return keras_models.application(name)


@pytest.mark.parametrize("outputs", ["last", "all", "class"])
def test_levels_are_what_everything_coarser_is_computed_from(outputs):
    """ "branch" and "inner" are later at stride 8 than the sum, or beside it, but the pooling does not see them."""
    backbone = from_keras_model(small_model(outputs=outputs))
    finer = {} if outputs == "all" else {"C2": "to_4"}  # of several outputs, those are the levels
    assert backbone.levels == {**finer, "C3": "sum_8", "C4": "both_16", "C5": "to_32"}
    assert backbone.strides == {**dict.fromkeys(finer, 4), "C3": 8, "C4": 16, "C5": 32}
    assert backbone.channels == {**dict.fromkeys(finer, 4), "C3": 4, "C4": 6, "C5": 8}


def test_features_are_the_models_own():
    model = small_model()
    backbone = from_keras_model(model)
    expected = keras.Model(
        model.inputs, {name: model.get_layer(layer).output for name, layer in backbone.levels.items()}
    )
    images = pixels(64, 96)
    wanted = expected(images)
    for call in goldens.both_modes(lambda x: backbone(backbone.preprocess(x), training=False)):
        features = call(images)
        assert list(features) == ["C2", "C3", "C4", "C5"]
        for level, tensor in features.items():
            goldens.assert_close(tensor, keras.ops.convert_to_numpy(wanted[level]), err_msg=level)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("size", [(65, 100), (131, 90), (64, 64)])
def test_any_image_gives_levels_of_the_stated_size(padding, size):
    """ceil(H / stride), though 65 pixels give "to_32" two rows for three, and valid convolutions lose the border."""
    backbone = from_keras_model(small_model(padding))
    for call in goldens.both_modes(lambda x: backbone(x, training=False)):
        for level, tensor in call(pixels(*size)).items():
            assert tensor.shape[1:3] == tuple(-(-side // backbone.strides[level]) for side in size), level


def test_a_lost_border_is_padded_evenly_and_padding_behind_is_cut():
    """Stride 8 of an image of 44 rows, padded to 64: 8 rows. Of 5 that are left, 1 is added before and 2 behind.

    ceil(44 / 8) = 6 of these 8 rows stay. Of 9 rows, one too many, the first 6 stay.
    """
    fit = keras_models.FitToStride(8, 32)
    images = keras.ops.zeros((1, 44, 44, 3))
    for rows, expected in ((5, [0, 1, 2, 3, 4, 5]), (9, [1, 2, 3, 4, 5, 6])):
        level = np.arange(1.0, rows + 1, dtype="float32")[None, :, None, None] * np.ones((1, 1, rows, 1), "float32")
        for call in goldens.both_modes(lambda x: fit(x, images)):
            result = keras.ops.convert_to_numpy(call(keras.ops.convert_to_tensor(level)))
            np.testing.assert_array_equal(result[0, :, 3, 0], expected)


def test_sizes_that_only_the_running_graph_knows():
    if goldens.BACKEND != "tensorflow":
        pytest.skip("JAX and torch always know their sizes")
    import tensorflow as tf

    backbone = from_keras_model(small_model("valid"))
    call = tf.function(
        lambda x: backbone(x, training=False), input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32)]
    )
    images = pixels(65, 100)
    eager = backbone(images, training=False)
    for level, tensor in call(images).items():
        goldens.assert_close(tensor, eager[level].numpy(), err_msg=level)


#: name -> (levels, scaling); the sums and activations were read from the summaries of these networks
APPLICATIONS = {
    "MobileNetV3Small": (72, 96, 288, 576, "none"),
    "EfficientNetV2B0": (32, 192, 672, 1280, "none"),
    "ResNet50V2": (256, 512, 1024, 2048, "tf"),
    "DenseNet121": (128, 256, 512, 1024, "torch"),
    "InceptionV3": (192, 288, 768, 2048, "tf"),
    "VGG16": (256, 512, 512, 512, "caffe"),
    "ConvNeXtTiny": (96, 192, 384, 768, "none"),
    "ResNet50": (256, 512, 1024, 2048, "caffe"),
    "MobileNet": (128, 256, 512, 1024, "tf"),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if goldens.BACKEND == "tensorflow" and number < 4 else pytest.mark.slow)
        for number, name in enumerate(APPLICATIONS)
    ],
)
def test_networks_of_keras_applications(name):
    """Channels of C2 to C5 and the scaling; the features are those of the network cut at these layers."""
    model = application(name)
    randomize(model, 0)
    backbone = from_keras_model(model)
    *channels, mode = APPLICATIONS[name]
    assert backbone.channels == dict(zip(("C2", "C3", "C4", "C5"), channels, strict=True))
    assert backbone.strides == {"C2": 4, "C3": 8, "C4": 16, "C5": 32}
    assert backbone.scaling == keras_models.SCALINGS[mode]
    cut = keras.Model(model.inputs, [keras_models.layer_output(model, layer) for layer in backbone.levels.values()])
    module = {"MobileNetV3Small": "mobilenet_v3", "EfficientNetV2B0": "efficientnet_v2", "ResNet50V2": "resnet_v2"}
    module |= {"DenseNet121": "densenet", "InceptionV3": "inception_v3", "VGG16": "vgg16", "ConvNeXtTiny": "convnext"}
    module |= {"ResNet50": "resnet", "MobileNet": "mobilenet"}
    images = pixels(96, 128)
    expected = cut(getattr(keras.applications, module[name]).preprocess_input(images))
    features = backbone(backbone.preprocess(images))
    for (level, tensor), wanted in zip(features.items(), expected, strict=True):
        wanted = keras.ops.convert_to_numpy(wanted)
        if name == "InceptionV3":  # loses its border, half of which was put before the level
            lost = [have - there for have, there in zip(tensor.shape[1:3], wanted.shape[1:3], strict=True)]
            tensor = tensor[:, lost[0] // 2 :, lost[1] // 2 :][:, : wanted.shape[1], : wanted.shape[2]]
        assert goldens.relative_error(tensor, wanted) < 1e-4, level


def test_pixel_scaling_by_hand():
    """RGB (255, 0, 127.5). "torch": 0.515 / 0.229 = 2.248908, -0.456 / 0.224 = -2.035714, 0.094 / 0.225 = 0.417778."""
    pixel = keras.ops.convert_to_tensor(np.array([[[[255.0, 0.0, 127.5]]]], "float32"))
    expected = {
        "none": (255.0, 0.0, 127.5),
        "unit": (1.0, 0.0, 0.5),
        "tf": (1.0, -1.0, 0.0),
        "torch": (2.248908, -2.035714, 0.417778),
        "caffe": (127.5 - 103.939, -116.779, 255 - 123.68),
    }
    assert set(expected) == set(keras_models.SCALINGS)
    for mode, values in expected.items():
        backbone = from_keras_model(small_model(), preprocess=mode)
        goldens.assert_close(backbone.preprocess(pixel)[0, 0, 0], values, err_msg=mode)
    own = PixelScaling(scale=2.0, offset=(1.0, 2.0, 3.0), bgr=True)
    backbone = from_keras_model(small_model(), preprocess=own)
    goldens.assert_close(backbone.preprocess(pixel)[0, 0, 0], (256.0, 2.0, 513.0))


def test_the_scaling_of_a_family_is_found_by_name():
    def mode(name):
        return keras_models._mode_of_family(types.SimpleNamespace(name=name))

    names = {"resnet50": "caffe", "resnet152v2": "tf", "vgg19": "caffe", "mobilenet_1.00_None": "tf", "NASNet": "tf"}
    names |= {"mobilenetv2_1.00_224": "tf", "MobileNetV3Large": "tf", "inception_resnet_v2": "tf", "xception": "tf"}
    names |= {"densenet201": "torch", "convnext_base": "torch", "efficientnetv2-b3": "torch", "efficientnetv2-l": "tf"}
    assert {name: mode(name) for name in names} == names
    with pytest.raises(ValueError, match="The pixel scaling of 'mine' is unknown"):
        from_keras_model(small_model(scaled=False, name="mine"))


def test_levels_by_name():
    model = small_model()
    by_dict = from_keras_model(model, levels={"C3": "to_8", "C4": "both_16"})
    assert by_dict.levels == {"C3": "to_8", "C4": "both_16"}
    by_list = from_keras_model(model, levels=["both_16", "inner"])
    assert by_list.levels == {"C3": "inner", "C4": "both_16"}
    fpn = SSD.from_backbone(by_list, num_classes=2, image_size=64, neck="fpn")
    assert fpn.feature_extractor.level_names == ("P3", "P4", "P5", "P6", "P7")


@pytest.mark.parametrize("kind", ["keras_cv", "keras_hub"])
def test_pyramids_of_other_libraries(kind):
    """KerasCV names layers, KerasHub gives tensors; both know finer levels than a detector wants."""
    model = small_model()
    layer_names = {"P1": "to_2", "P2": "to_4", "P3": "inner", "P4": "both_16", "P5": "to_32"}
    if kind == "keras_cv":
        model.pyramid_level_inputs = layer_names
    else:
        model.pyramid_outputs = {level: model.get_layer(layer).output for level, layer in layer_names.items()}
    assert from_keras_model(model).levels == {"C2": "to_4", "C3": "inner", "C4": "both_16", "C5": "to_32"}


def subclassed():
    class Mine(keras.Model):
        def call(self, x):
            return x

    return Mine()


@pytest.mark.parametrize(
    ("build", "settings", "message"),
    [
        (subclassed, {}, "made of a functional Keras model.*Received: Mine"),
        (
            lambda: keras.Model(x := keras.Input((64, 64, 3)), layers.Conv2D(2, 3)(x), name="fixed"),
            {},
            r"'fixed' was built for images of 64 x 64 only. Build it with input_shape=\(None, None, 3\)",
        ),
        (
            lambda: keras.Model(x := keras.Input((None, None, 1)), layers.Conv2D(2, 3)(x)),
            {},
            r"has one input \[B, H, W, 3\]",
        ),
        (
            lambda: keras.Model(x := keras.Input((None, None, 3)), layers.Conv2D(2, 3, 16)(x), name="coarse"),
            {},
            r"needs a level of stride 8. 'coarse' has levels of stride \[16\]",
        ),
        (small_model, {"levels": {"C3": "sum_88"}}, "Unknown layer 'sum_88' of 'small'. Did you mean sum_8"),
        (small_model, {"levels": {"C4": "sum_8"}}, "level 'C4' must have stride 16. Received stride 8"),
        (small_model, {"levels": ["sum_8", "inner"]}, r"Levels must differ in stride.*\[8, 8\]"),
        (lambda: small_model(outputs="class"), {"levels": ["sum_8", "mean"]}, r"The layer 'mean' gives \(None, 8\)"),
        (lambda: small_model(outputs="class"), {"levels": {"C3": "mean"}}, r"The layer 'mean' gives \(None, 8\)"),
        (small_model, {"preprocess": "tensorflow"}, "Unknown pixel scaling 'tensorflow'.*Or pass a PixelScaling"),
        (
            small_model,
            {"weights": "imagenet"},
            "for names in keras.applications. Received: weights='imagenet' for Functional",
        ),
        (lambda: "keras_cv/resnet50", {"weights": "imagenet"}, "weights='imagenet' for keras_cv/resnet50"),
        (lambda: "MobileNetV3Smal", {}, "Unknown model 'MobileNetV3Smal' of keras.applications.*MobileNetV3Small"),
    ],
)
def test_bad_models_get_help(build, settings, message):
    with pytest.raises(ValueError, match=message):
        from_keras_model(build(), **settings)


@pytest.mark.backend_free
def test_from_backbone_explains_itself():
    for arguments, message in (
        ({"backbone": "mobilenet_v22"}, "Unknown backbone 'mobilenet_v22'. Did you mean mobilenet_v2"),
        ({"backbone": 3}, "Received: int"),
        ({"backbone": "tests_tiny", "neck": "fpm"}, "Unknown neck 'fpm'. Did you mean fpn"),
        ({"backbone": "tests_tiny", "preprocess": "tf"}, "which scales its pixels itself"),
    ):
        with pytest.raises(ValueError, match=message):
            SSD.from_backbone(**arguments, num_classes=2)
    model = tiny.tiny_ssd()
    config = model.get_config()
    wrong = {
        **config,
        "anchor_generator": keras.saving.serialize_keras_object(type(model.anchor_generator)(num_layers=6)),
    }
    with pytest.raises(ValueError, match=r"must agree on the anchors per location. Received: \(6, 6, 6, 6, 6, 6\)"):
        SSD.from_config(wrong)


@pytest.mark.parametrize(
    "neck",
    [
        "ssd",
        pytest.param("fpn", marks=pytest.mark.backend_free),
        pytest.param(FeaturePyramid(levels=("C3", "C4"), coarse_levels=1, depth=8), marks=pytest.mark.backend_free),
    ],
)
def test_a_detector_in_one_line_trains_and_survives_saving(neck, tmp_path):
    model = SSD.from_backbone(small_model(), num_classes=3, image_size=64, neck=neck)
    maps = len(model.feature_extractor.outputs)
    assert len(model.anchor_generator.num_anchors_per_location()) == maps
    assert model.box_predictor.background == (neck == "ssd")
    model.compile(optimizer=keras.optimizers.SGD(0.01))
    x, y = tiny.tiny_batch(batch_size=2)
    before = tiny.weights_of(model)
    assert len(before) == len(model.weights)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert np.isfinite(list(logs.values())).all()
    after = tiny.weights_of(model)
    assert not np.array_equal(before["backbone/small/to_8/kernel"], after["backbone/small/to_8/kernel"])
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)  # safe mode
    first, second = (each.feature_extractor.backbone for each in (model, loaded))
    assert (first.levels, first.scaling, first.strides) == (second.levels, second.scaling, second.strides)
    detections = [each.predict(x, verbose=0) for each in (model, loaded)]
    for key in (schema.BOXES, schema.SCORES, schema.LABELS):
        np.testing.assert_array_equal(*(each[key] for each in detections), err_msg=key)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("MobileNetV3Small", marks=() if goldens.BACKEND == "tensorflow" else pytest.mark.slow),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("EfficientNetV2B0", "ResNet50V2", "ConvNeXtTiny")),
    ],
)
def test_keras_applications_in_one_line(name, tmp_path):
    with undrawn():
        network = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(None, None, 3))
        model = SSD.from_backbone(network, num_classes=3, image_size=96, neck="fpn")
    randomize(network, 0)
    x, y = tiny.tiny_batch(batch_size=2, size=96)
    model.compile(optimizer=keras.optimizers.SGD(1e-3))
    assert np.isfinite(list(model.train_on_batch(x, y, return_dict=True).values())).all()
    model.save(tmp_path / "model.keras")
    with undrawn():
        loaded = keras.models.load_model(tmp_path / "model.keras")
    detections = [each.predict(x, verbose=0)[schema.SCORES] for each in (model, loaded)]
    np.testing.assert_array_equal(*detections)


def test_a_name_of_keras_applications_and_frozen_batch_norm():
    with undrawn():
        model = SSD.from_backbone("MobileNetV3Small", num_classes=2, image_size=64, freeze_batchnorm=True)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    assert len(norms) > 30
    assert not any(layer.trainable for layer in norms)
