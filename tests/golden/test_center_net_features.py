"""CenterNet's feature extractors against upstream's: every variable is taken, every layer computes the same."""

import json

import keras
import numpy as np
import pytest

from keras_detect import text_proto
from keras_detect.tf_od_api import build_parts
from keras_detect.tf_od_api import name_maps_center_net_features as name_maps
from keras_detect.tf_od_api.build_center_net_features import center_net_feature_extractor
from keras_detect.tf_od_api.name_maps import _variable_keys
from keras_detect.weights.named_weights import named_weights
from keras_detect.weights.restore import restore
from tests import goldens, whole_models
from tests.networks import undrawn
from tests.weights import golden_checkpoints

TOLERANCE = 1e-4 if goldens.BACKEND == "tensorflow" else 1e-3
HEADS = ((r"model/_prediction_head_dict/.*", "heads"),)

#: golden -> variables of the whole model (GOLDEN.md, section 10), those of its heads, channels of each map
MODELS = {
    "zoo_centernet_mobilenetv2_fpn_od": (304, 15, {"P2": 24}),
    "derived_centernet_mobilenet_v2_fpn_512x512": (298, 12, {"P2": 24}),
    "derived_centernet_mobilenet_v2_512x512": (308, 12, {"P2": 64}),
    "derived_centernet_resnet_v1_50_fpn_512x512": (356, 12, {"P2": 64}),
    "derived_centernet_resnet_v1_50_fpn_512x512_img": (356, 12, {"P2": 64}),
    "centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8": (368, 24, {"P2": 64}),
    "derived_centernet_resnet_v2_50_512x512": (318, 12, {"P2": 64}),
    "centernet_resnet101_v1_fpn_512x512_coco17_tpu-8": (590, 12, {"P2": 64}),
    "centernet_hourglass104_512x512_coco17_tpu-8": (824, 24, {"stack_0": 256, "stack_1": 256}),
    "centernet_hourglass104_512x512_kpts_coco17_tpu-32": (848, 48, {"stack_0": 256, "stack_1": 256}),
    "centernet_hourglass104_1024x1024_kpts_coco17_tpu-32": (848, 48, {"stack_0": 256, "stack_1": 256}),
}


class Reader:
    """The golden's weights as a source of the strict restore."""

    def __init__(self, name):
        self.source, self.ignored = name, {}
        self.values = golden_checkpoints.golden_weights(whole_models.weights_name(name))
        self.shapes = {key: value.shape for key, value in self.values.items()}

    def read(self, key):
        return self.values[key]


def built(name):
    """`(extractor, resizer)` of a golden's config."""
    config = text_proto.read(goldens.golden(f"{whole_models.weights_name(name)}.config"))
    node = config.message("model").message("center_net")
    with undrawn():
        extractor = center_net_feature_extractor(node.message("feature_extractor"))
    return extractor, build_parts.resizer(node.message("image_resizer"))


def restored(extractor, name):
    """`({key of a layer: our layer}, RestoreReport)` after the strict restore of the golden's weights."""
    tables = name_maps.tables(extractor)
    groups = extractor.weight_groups()
    variables = named_weights(groups)
    rows = {f"{group}/{layer}": key for group, table in tables.items() for layer, key in table.items()}
    report = restore(variables, _variable_keys(variables, rows), Reader(name), ignore=HEADS)
    layers = {layer.name: layer for group in groups.values() for layer in _leaves(group)}
    named = {key: layers[layer] for table in tables.values() for layer, key in table.items() if layer in layers}
    return named, report


def _leaves(layers):
    for layer in layers:
        yield from _leaves(layer.layers) if isinstance(layer, keras.Model) else (layer,)


def checked_layers(extractor, layers, rows, images):
    """What the trace tells of each layer, as we compute it: `{key: (shape, values at its places, mean, deviation)}`."""
    found = {}
    for model in (extractor.backbone, extractor):
        inside = {layer.name for layer in model.layers}
        chosen = {key: layer for key, layer in layers.items() if key in rows and layer.name in inside}
        if not chosen:
            continue
        inner = keras.Model(model.input, {key: layer.output for key, layer in chosen.items()})

        def told(images, inner=inner):
            outputs = inner(images, training=False)
            return {
                key: (
                    keras.ops.take(keras.ops.reshape(output, (-1,)), rows[key]["idx"]),
                    keras.ops.mean(output),
                    keras.ops.std(output),
                    keras.ops.max(keras.ops.abs(output)),
                    keras.ops.stack(keras.ops.shape(output)),
                )
                for key, output in outputs.items()
            }

        found |= {
            key: [keras.ops.convert_to_numpy(value) for value in values]
            for key, values in goldens.compiled(told)(images).items()
        }
    return found


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if number else pytest.mark.backend_free)  # whole models run on all
        for number, name in enumerate(MODELS)
    ],
)
def test_every_layer_of_upstream(name):
    total, heads, maps = MODELS[name]
    extractor, resizer = built(name)
    assert extractor.channels == maps
    layers, report = restored(extractor, name)
    assert (len(report.restored), len(report.ignored), len(report.kept)) == (total - heads, heads, 0)
    with np.load(goldens.golden(f"{name}.npz")) as archive:
        golden = {key: archive[key] for key in archive.files}
    images, _ = resizer(keras.ops.convert_to_tensor(whole_models.golden_image(name)))
    images = extractor.preprocess(images)
    stats = [float(value) for value in (keras.ops.mean(images), keras.ops.std(images))]
    np.testing.assert_allclose(stats, golden["preprocessed#stats"][:2], rtol=1e-4, atol=1e-4)
    trace = json.loads(goldens.golden(f"{name}.trace.json").read_text())
    rows = {row["key"]: row for row in trace if "_prediction_head_dict" not in row["key"]}
    found = checked_layers(extractor, layers, rows, images)
    unused = {key for key in layers if key not in rows}
    assert set(found) == set(rows)
    assert all(layers[key].name == "head_bn" for key in unused), unused
    for key, (values, mean, deviation, largest, shape) in found.items():
        row, name = rows[key], f"{key} ({layers[key].name})"
        assert list(shape) == row["out_shape"], name
        np.testing.assert_allclose(values, row["val"], rtol=0, atol=TOLERANCE * largest, err_msg=name)
        np.testing.assert_allclose(
            [mean, deviation], [row["mean"], row["std"]], rtol=0, atol=TOLERANCE * row["std"], err_msg=name
        )
    outputs = goldens.compiled(lambda images: extractor(images, training=False))(images)
    for index, output in enumerate(outputs.values()):
        output = keras.ops.convert_to_numpy(output)
        key = f"pred/extracted_features[{index}]"
        assert tuple(golden[f"{key}#shape"]) == output.shape
        ours, theirs = output.ravel()[golden[f"{key}#idx"]], golden[f"{key}#val"]
        assert goldens.relative_error(ours, theirs) < TOLERANCE, key
