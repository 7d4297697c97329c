"""What a configuration may ask for: by name, by depth and by length, each refusal in one line."""

import json
import math

import keras
import pytest

from keras_detect import compat
from keras_detect.config_bounds import ANY, BOUNDS, MAX_DEPTH, ConfigError, bound, check_config
from keras_detect.presets import config_json, preset
from tests import tiny


def test_a_bound_holds_what_lies_inside():
    assert bound("aspect_ratios").holds(0.5) and not bound("aspect_ratios").holds(0)
    assert bound("num_classes").holds(1) and not bound("num_classes").holds(10**9)
    for limits in (*BOUNDS.values(), ANY):
        assert not any(map(limits.holds, (math.nan, math.inf, -math.inf, 10**400)))
    assert bound("stddev").holds(0) and not bound("stddev", "mean_stddev_box_coder").holds(0)
    assert bound("nobody_knows_it") == ANY


def test_every_packaged_config_passes():
    for path in preset.CONFIGS.glob("*.json"):
        check_config(config_json.expanded(json.loads(path.read_text())))


def _nested(value, depth):
    for _ in range(depth):
        value = {"layer": value}
    return value


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("anchor_generator.config.min_scale", math.nan, "anchor_generator.config.min_scale is NaN"),
        ("anchor_generator.config.num_layers", 10**6, "num_layers is 1000000; supported: 0 to 32"),
        ("box_predictor.config.num_classes", 10**9, "num_classes is 1000000000; supported: 1 to 100000"),
        ("box_predictor.config.kernel_size", -3, "kernel_size is -3; supported: 1 to 99"),
        ("box_predictor.config.kernel_size", 10**300, r"kernel_size is \(an integer of 997 bits\); supported: 1 to 99"),
        ("resizer.config.height", 10**9, "resizer.config.height is 1000000000; supported: 1 to 16384"),
        ("anchor_generator.config.aspect_ratios", [1.0] * 2000, "aspect_ratios has 2000 numbers; supported: 1000"),
        ("anchor_generator.config.aspect_ratios", [[2.0, 0.0]], "aspect_ratios is 0.0; supported: more than 0 to 1000"),
        ("resizer", _nested(3, 300), f"nested deeper than {MAX_DEPTH} levels"),
        ("class_names", ["x"] * 2_000_000, "holds more than 1000000 values"),
        (
            "resizer",
            {"class_name": "__numpy__", "config": {"value": [0], "dtype": "S999999999"}},
            "resizer is an array of the type S999999999; supported: types of numbers",
        ),
    ],
)
def test_what_no_detector_has_is_refused(place, value, message):
    config = keras.saving.serialize_keras_object(tiny.tiny_ssd())
    inner = config["config"]
    *owners, name = place.split(".")
    for owner in owners:
        inner = inner[owner]
    inner[name] = value
    with pytest.raises(ConfigError, match=message) as error:
        check_config(config)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    with pytest.raises(ConfigError, match=message):
        tiny.SSD.from_config(config["config"])


def test_arguments_of_other_classes_are_only_held_to_be_numbers():
    layer = keras.saving.serialize_keras_object(keras.layers.Dense(10, name="depth"))
    layer["config"]["depth"] = 10**12
    check_config(
        {"class_name": "SSD", "registered_name": "keras_detect>SSD", "config": {"layer": layer, "seed": 2**40}}
    )
    layer["config"]["depth"] = math.nan
    with pytest.raises(ConfigError, match=r"config\.layer\.config\.depth is NaN"):
        check_config({"class_name": "SSD", "registered_name": "keras_detect>SSD", "config": {"layer": layer}})


def test_weights_beyond_a_limit_are_not_made():
    with compat.limited_variables(4 * 110):
        keras.layers.Dense(10).build((None, 10))
    with (
        pytest.raises(compat.VariableLimitError, match="the weights take more than"),
        compat.limited_variables(4 * 109),
    ):
        keras.layers.Dense(10).build((None, 10))
    with pytest.raises(compat.VariableLimitError, match="are more than 1 "), compat.limited_variables(2**20, 1):
        keras.layers.Dense(10).build((None, 10))
    with pytest.raises(compat.VariableLimitError, match=r"of shape \(3, 1000000000\)"), compat.limited_variables(2**33):
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(10**9)])
    with compat.limited_variables(2**33), pytest.raises(compat.VariableLimitError), compat.limited_variables(10):
        keras.layers.Dense(10).build((None, 10))
    keras.layers.Dense(10).build((None, 10))
