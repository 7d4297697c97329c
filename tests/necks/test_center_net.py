"""CenterNet's decoders and feature extractor: numbers by hand, sizes, defaults and what is refused."""

import keras
import numpy as np
import pytest

from keras_detect.backbones.backbone import Backbone, backbone_names, get_backbone
from keras_detect.backbones.keras_models import PixelScaling
from keras_detect.layers.conv_blocks import ConvHyperparams
from keras_detect.necks import CenterNetDeconvolution, CenterNetFeatureExtractor, CenterNetPyramid, FeaturePyramid
from keras_detect.necks.center_net_feature_extractor import default_neck
from keras_detect.registry import serializable
from tests import goldens, tiny
from tests.networks import undrawn

PLAIN = ConvHyperparams(activation="relu", batch_norm_epsilon=0.0)


@serializable
class Levels(Backbone):
    """Average pooling down to the levels, of three channels each."""

    def __init__(self, levels=("C2", "C3", "C4", "C5"), **kwargs):
        inputs = keras.Input((None, None, 3), name="images")
        strides = {level: 2 ** int(level[1:]) for level in levels}
        outputs = {
            level: keras.layers.AveragePooling2D(stride, padding="same", name=level)(inputs)
            for level, stride in strides.items()
        }
        super().__init__(inputs=inputs, outputs=outputs, strides=strides, **kwargs)
        self.levels = tuple(levels)

    def get_config(self):
        return {**super().get_config(), "levels": list(self.levels)}


def with_ones(extractor):
    for layer in extractor.layers:
        for weight in layer.weights if not isinstance(layer, Backbone) else ():
            if weight.name.endswith("kernel"):
                weight.assign(np.ones(weight.shape, "float32"))
    return extractor


def test_the_pyramid_by_hand():
    """Levels C2 and C3 of 4 x 8 pixels: one cell of C3 and two of C2; kernels of ones, norms without effect.

    Three channels of 1 in the left half and of 2 in the right: C3 projects to 3 * 1.5 = 4.5, C2 to 3 and 6. Sums 7.5
    and 10.5, and the 3 x 3 convolution adds both cells: 18. Bias 1 of it: 19. As bilinear doubling of one cell is the
    cell, both interpolations agree.
    """
    image = np.repeat(np.array([1.0, 2.0], "float32"), 4)[None, None, :, None] * np.ones((1, 4, 1, 3), "float32")
    for interpolation in ("nearest", "bilinear"):
        neck = CenterNetPyramid(levels=("C2", "C3"), filters=(1,), interpolation=interpolation, hyperparams=PLAIN)
        extractor = with_ones(CenterNetFeatureExtractor(backbone=Levels(levels=("C2", "C3")), neck=neck))
        extractor.get_layer("C2_smooth_conv").bias.assign([1.0])
        for call in goldens.both_modes(lambda x, extractor=extractor: extractor(x)["P2"]):
            goldens.assert_close(call(image), np.full((1, 1, 2, 1), 19.0))


def test_the_deconvolution_by_hand():
    """One cell of C3 with three channels of 2: the convolution sums them: 6. A transposed one with a kernel of ones at
    stride 2 puts 6 on both cells, plus bias 1.
    """
    neck = CenterNetDeconvolution(level="C3", filters=(1,), kernel_size=1, hyperparams=PLAIN)
    extractor = with_ones(CenterNetFeatureExtractor(backbone=Levels(levels=("C2", "C3")), neck=neck))
    extractor.get_layer("P2_conv_transpose").bias.assign([1.0])
    for call in goldens.both_modes(lambda x: extractor(x)["P2"]):
        goldens.assert_close(call(np.full((1, 4, 8, 3), 2.0, "float32")), np.full((1, 1, 2, 1), 7.0))


@pytest.mark.parametrize("neck", [CenterNetPyramid(), CenterNetDeconvolution()], ids=["pyramid", "deconvolution"])
def test_the_map_of_an_image_of_any_size(neck):
    extractor = CenterNetFeatureExtractor(backbone=Levels(), neck=neck)
    assert (extractor.map_names, extractor.channels, extractor.stride) == (("P2",), {"P2": 64}, 4)
    for height, width in ((64, 96), (67, 97), (33, 4)):
        shape = extractor(np.zeros((1, height, width, 3), "float32"))["P2"].shape
        assert tuple(shape) == (1, -(-height // 4), -(-width // 4), 64)


def test_separable_convolutions_smooth():
    extractor = CenterNetFeatureExtractor(backbone=Levels(), neck=CenterNetPyramid(separable=True))
    kinds = {layer.name: type(layer).__name__ for layer in extractor.layers if layer.name.endswith("_separable")}
    assert kinds == {f"C{level}_smooth_separable": "SeparableConv2D" for level in (2, 3, 4)}


def test_of_a_whole_pyramid_p2_alone_is_taken():
    neck = FeaturePyramid(levels=("C2", "C3", "C4", "C5"), coarse_levels=0, depth=8)
    assert CenterNetFeatureExtractor(backbone=Levels(), neck=neck).map_names == ("P2",)


def test_save_and_load_change_no_bit(tmp_path):
    extractor = CenterNetFeatureExtractor(
        backbone=Levels(levels=("C2", "C3"), name="backbone"),
        neck=CenterNetPyramid(levels=("C2", "C3"), filters=(4,)),
        scaling=PixelScaling(bgr=True),
        name="feature_extractor",
    )
    extractor.save(tmp_path / "extractor.keras")
    loaded = keras.models.load_model(tmp_path / "extractor.keras")
    assert loaded.get_config() == extractor.get_config()
    assert (loaded.neck, loaded.scaling, loaded.map_names) == (extractor.neck, extractor.scaling, ("P2",))
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 8, 12, 3)).astype("float32")
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(each(pixels)["P2"]) for each in (extractor, loaded)))


@pytest.mark.parametrize(
    ("levels", "neck", "message"),
    [
        (("C3", "C4"), None, r"Levels without a neck: C3 with 32 x 32 cells, C4 .*\. Pass a neck whose map 'P2'"),
        (("C3", "C4"), CenterNetPyramid(levels=("C3", "C4"), filters=(4,)), "from CenterNetPyramid: P2 with 32 x 32"),
        (("C3", "C4"), CenterNetPyramid(), r"needs the backbone levels \('C2', .*\). Received: \['C3', 'C4'\]"),
        (("C3", "C4"), CenterNetDeconvolution(), r"CenterNetDeconvolution needs the backbone levels \('C5',\)"),
    ],
)
def test_maps_of_other_strides_are_refused(levels, neck, message):
    with pytest.raises(ValueError, match=message):
        CenterNetFeatureExtractor(backbone=Levels(levels=levels), neck=neck)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="Pass 3 filters"):
        CenterNetPyramid(filters=(64, 32))
    with pytest.raises(ValueError, match="Received: interpolation='cubic'"):
        CenterNetPyramid(interpolation="cubic")


def test_pixels_are_scaled_before_the_backbone_scales_them():
    scaling = PixelScaling(scale=2.0, offset=(1.0, 0.0, 0.0), bgr=True)
    extractor = CenterNetFeatureExtractor(backbone=Levels(), neck=CenterNetPyramid(), scaling=scaling)
    pixel = keras.ops.convert_to_tensor(np.array([[[[10.0, 20.0, 30.0]]]], "float32"))
    # blue first: 30, 20, 10, doubled, plus 1; then to -1...1
    expected = np.array([61.0, 40.0, 20.0]) * 2 / 255 - 1
    goldens.assert_close(extractor.preprocess(pixel)[0, 0, 0], expected)
    plain = CenterNetFeatureExtractor(backbone=Levels(), neck=CenterNetPyramid())
    goldens.assert_close(plain.preprocess(pixel)[0, 0, 0], np.array([10.0, 20.0, 30.0]) * 2 / 255 - 1)


def _rows():
    """Every backbone of the package; all but the smallest hourglass and MobileNetV2 are slow."""
    names = [name for name in backbone_names() if get_backbone(name).__module__.startswith("keras_detect.")]
    quick = ("hourglass_10", "mobilenet_v2")
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


@pytest.mark.backend_free
@pytest.mark.parametrize("name", _rows())
def test_every_registered_backbone_has_a_default_neck(name):
    with undrawn():
        backbone = get_backbone(name)()
        extractor = CenterNetFeatureExtractor(backbone=backbone, neck=default_neck(backbone))
    assert extractor.map_names in (("P2",), tuple(backbone.strides))


def test_default_necks():
    assert default_neck(Levels()) == CenterNetPyramid()
    assert default_neck(Levels(levels=("C2", "C3", "C4"))) == CenterNetPyramid(
        levels=("C2", "C3", "C4"), filters=(128, 64)
    )
    with pytest.raises(ValueError, match=r"C2 \(stride 4\), C3, .* without a gap. Received: \['C3', 'C4', 'C5'\]"):
        default_neck(tiny.TinyBackbone())
