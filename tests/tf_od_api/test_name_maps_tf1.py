"""Every variable of upstream's TensorFlow 1 SSDs, by name and shape, from the config alone."""

import json
import math

import pytest

import keras_detect
from keras_detect.tf_od_api import name_maps
from tests import goldens
from tests.networks import undrawn

pytestmark = pytest.mark.backend_free
FOLDER = goldens.SHARED / "golden_tf1"
NOT_BUILT = ("mnasfpn", "mobiledet", "mobilenet_edgetpu", "mobilenet_v3", "pnasnet", "spaghettinet")
VARIABLES = [
    path for path in sorted(FOLDER.rglob("*ssd*.vars.json")) if not any(word in path.name for word in NOT_BUILT)
]
#: config of upstream's -> numbers of its variables, parameters and regularized kernels (GOLDEN_TF1.md, section 9)
COUNTED = {
    "facessd_mobilenet_v2_quantized_320x320_open_image_v4": (324, 5_431_942, 55),
    "ssd_mobilenet_v1_0.75_depth_300x300_coco14_sync": (199, 4_129_743, 47),
    "ssd_mobilenet_v1_300x300_coco14_sync": (199, 6_845_183, 47),
    "ssd_mobilenet_v2_fpnlite_quantized_shared_box_predictor_256x256_depthmultiplier_75_coco14_sync": (
        384,
        1_338_218,
        75,
    ),
    "ssd_inception_v3_pets": (524, 32_726_666, 112),
    "ssd_resnet101_v1_fpn_shared_box_predictor_oid_512x512_sync": (657, 57_308_660, 119),
    "ssd_mobilenet_v2_fullyconv_coco": (324, 6_103_999, 55),
    "ssdlite_mobilenet_v1_coco": (279, 5_284_159, 63),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTED)
def test_what_a_users_copy_of_upstreams_config_has(name):
    wild = goldens.require_shared("data/configs_wild")
    with undrawn():
        model = keras_detect.from_pipeline_config(wild / f"DiagonalCorgi__BuildingRecognizerML__{name}.config")
    keys = name_maps.checkpoint_keys(model, tf1=True)
    parameters = sum(math.prod(weight.shape) for weight in model.named_weights().values())
    assert (len(set(keys.values())), parameters, len(model.losses)) == COUNTED[name]


@pytest.mark.slow
@pytest.mark.parametrize("path", VARIABLES or [None], ids=lambda path: path and path.name.removesuffix(".vars.json"))
def test_every_variable_of_a_config(path):
    goldens.require_shared("golden_tf1")
    with undrawn():
        model = keras_detect.from_pipeline_config(path.with_name(path.name.replace(".vars.json", ".config")))
    weights = model.named_weights()
    ours = {key: list(weights[name].shape) for name, key in name_maps.checkpoint_keys(model, tf1=True).items()}
    assert ours == {entry["key"]: entry["shape"] for entry in json.loads(path.read_text())["variables"]}


@pytest.mark.parametrize("name", NOT_BUILT)
def test_what_is_not_built_says_so(name):
    goldens.require_shared("golden_tf1")
    for path in FOLDER.glob(f"*{name}*.config"):
        with pytest.raises(ValueError, match=rf"type: '\w*{name}\w*' is of upstream's TF1, not built yet"):
            keras_detect.from_pipeline_config(path)
