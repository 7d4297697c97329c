"""Feature maps and raw heads of the SSD networks against upstream's, layer by layer where they would part."""

import json

import keras
import numpy as np
import pytest

from keras_detect.tf_od_api import name_maps
from tests import goldens, networks

# one network per family of backbones, necks and heads; the others take minutes on the backends together. Where
# test_whole_model.py compares the same numbers in CI, only what says where two networks part is left: on TensorFlow
QUICK = ("ssd_resnet50_v1_fpn_640x640_coco17_tpu-8",)
if goldens.BACKEND == "tensorflow":
    QUICK += ("derived_ssd_mobilenet_v1_300x300", "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8")
ALL = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name.removesuffix("_coco17_tpu-8"))
    for name in networks.NETWORKS
]
# what says where two implementations part, and settings of layers, need one backend only: JAX compiles for minutes
ONE_BACKEND = pytest.mark.skipif(
    goldens.BACKEND != "tensorflow", reason="once is enough: does not depend on the backend"
)
TRACED = 12  # layers of the trace that are compared, spread evenly from the image to the last neck layer


@pytest.fixture(scope="module", params=ALL)
def golden(request):
    """`(name, network with the golden's weights, its npz)`, built once for the tests of one golden."""
    with np.load(goldens.golden(f"{request.param}.npz")) as archive:
        arrays = {key: archive[key] for key in archive.files}
    yield request.param, networks.build(request.param).assign_golden(request.param), arrays
    networks.golden_weights.cache_clear()


def sampled(arrays, key, tensor):
    """`tensor` where the golden kept numbers, and those numbers."""
    values = keras.ops.convert_to_numpy(tensor)
    assert tuple(values.shape) == tuple(arrays[f"{key}#shape"])
    if key in arrays:
        return values, arrays[key]
    return values.ravel()[arrays[f"{key}#idx"]], arrays[f"{key}#val"]


def test_feature_maps_and_raw_heads(golden):
    _, network, arrays = golden
    images = network.golden_input()
    assert goldens.relative_error(*sampled(arrays, "preprocessed", images)) < 1e-6
    maps, heads = goldens.compiled(network)(keras.ops.convert_to_tensor(images))
    for index, feature_map in enumerate(maps):
        assert goldens.relative_error(*sampled(arrays, f"pred/feature_maps[{index}]", feature_map)) < 1e-5, index
    for ours, theirs in (("box_encodings", "box_encodings"), ("class_logits", "class_predictions_with_background")):
        assert goldens.relative_error(*sampled(arrays, f"pred/{theirs}", heads[ours])) < 1e-5, ours


@ONE_BACKEND
def test_layers_on_the_way(golden):
    name, network, _ = golden
    trace = json.loads(goldens.golden(f"{name}.trace.json").read_text())
    ours = {key.rsplit("/", 1)[0]: weight for weight, key in name_maps.checkpoint_keys(network).items()}
    extractor = network.feature_extractor
    entries = [entry for entry in trace if "_box_predictor" not in entry["key"]]
    picked = [entries[index] for index in np.linspace(0, len(entries) - 1, TRACED).astype(int)]
    groups = {"backbone": (extractor.backbone, []), "neck": (extractor, [])}
    for entry in picked:
        group, layer = ours[entry["key"]].split("/")[:2]
        groups[group][1].append((groups[group][0].get_layer(layer), entry))
    images = keras.ops.convert_to_tensor(network.golden_input())
    for model, pairs in groups.values():
        tensors = goldens.compiled(keras.Model(model.inputs, {layer.name: layer.output for layer, _ in pairs}))(images)
        for layer, entry in pairs:
            values = keras.ops.convert_to_numpy(tensors[layer.name])
            assert list(values.shape) == entry["out_shape"], layer.name
            scale = abs(entry["mean"]) + entry["std"]
            np.testing.assert_allclose(
                values.ravel()[entry["idx"]], entry["val"], rtol=0, atol=1e-4 * scale, err_msg=layer.name
            )
            np.testing.assert_allclose(
                [values.mean(dtype=np.float64), values.std(dtype=np.float64)],
                [entry["mean"], entry["std"]],
                rtol=0,
                atol=1e-5 * scale,
                err_msg=layer.name,
            )


@ONE_BACKEND
def test_penalties_are_upstreams(golden):
    _, network, arrays = golden
    count, total = network.regularization()
    assert count == arrays["loss/regularization_count"]
    np.testing.assert_allclose(total, arrays["loss/regularization_sum"], rtol=1e-6)


def test_the_published_checkpoint_has_these_variables_and_no_others(golden):
    name, network, _ = golden
    path = goldens.require_shared("zoo") / name / "variables.json"
    if not path.exists():
        pytest.skip(f"no published checkpoint of {name} in ../shared/zoo")
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    theirs = {
        key.removesuffix(suffix): tuple(entry["shape"])
        for key, entry in json.loads(path.read_text()).items()
        if key.endswith(suffix) and key.startswith("model/")
    }
    ours = network.named_weights()
    keys = name_maps.checkpoint_keys(network)
    assert {key: tuple(ours[weight].shape) for weight, key in keys.items()} == theirs


@ONE_BACKEND
def test_layers_are_set_as_upstreams(golden):
    """Strides, biases, L2 factors, initializers and batch norm settings, by `<golden>.layers.json`."""
    name, _, _ = golden
    network = networks.NETWORKS[name]()
    rows = json.loads(goldens.golden(f"{name}.layers.json").read_text())
    theirs = {row["key"]: row for row in rows}
    layers = dict(_weighted_layers(network))
    assert len(layers) == len(theirs)
    for key, layer in layers.items():
        assert settings(layer) == golden_settings(theirs[key]), key


def _weighted_layers(network):
    extractor, predictor = network.feature_extractor, network.box_predictor
    everything = (*extractor.backbone.layers, *extractor.layers, *predictor._flatten_layers(include_self=False))
    by_weight = {id(weight): layer for layer in everything for weight in layer._trainable_variables}
    names = network.named_weights()
    for name, key in name_maps.checkpoint_keys(network).items():
        if id(names[name]) in by_weight:
            yield key.rsplit("/", 1)[0], by_weight[id(names[name])]


def settings(layer):
    if isinstance(layer, keras.layers.BatchNormalization):
        return (round(layer.momentum, 6), round(layer.epsilon, 9), layer.center, layer.scale)
    separable = isinstance(layer, keras.layers.SeparableConv2D)
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    kernels = ("depthwise", "pointwise") if separable else ("depthwise",) if depthwise else ("kernel",)
    starts = [getattr(layer, f"{kernel}_initializer") for kernel in kernels]
    penalties = [getattr(layer, f"{kernel}_regularizer") for kernel in kernels]
    return (
        tuple(layer.kernel_size),
        tuple(layer.strides),
        layer.use_bias,
        [_start(type(start).__name__, start.get_config()) for start in starts],
        [round(float(penalty.l2), 9) if penalty else None for penalty in penalties],
        _start(type(layer.bias_initializer).__name__, layer.bias_initializer.get_config()) if layer.use_bias else None,
    )


def golden_settings(row):
    if row["class"] == "FreezableBatchNorm":
        return (round(row["momentum"], 6), round(row["epsilon"], 9), row["center"], row["scale"])
    separable, depthwise = row["class"] == "SeparableConv2D", row["class"] == "DepthwiseConv2D"
    kernels = ("depthwise", "pointwise") if separable else ("depthwise",) if depthwise else ("kernel",)
    penalties = [row.get(f"{kernel}_regularizer") for kernel in kernels]
    return (
        tuple(row["kernel_size"]),
        tuple(row["strides"]),
        row["use_bias"],
        [_start(*row[f"{kernel}_initializer"]) for kernel in kernels],
        [round(penalty, 9) if penalty else None for penalty in penalties],
        _start(*row["bias_initializer"]) if row["use_bias"] else None,
    )


def _start(name, config):
    numbers = {key: round(config[key], 6) for key in ("mean", "stddev", "value") if key in config}
    return name, numbers
