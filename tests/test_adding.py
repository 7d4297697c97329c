"""What each addition costs (docs/architecture.md): one class or file from outside, and no edit in the package."""

import types

import keras
import numpy as np
import pytest
from keras import ops

import keras_detect
from keras_detect import cli, registry, schema
from keras_detect.data import load
from keras_detect.data.shapes import shapes_dataset
from keras_detect.tf_od_api import name_maps
from keras_detect.transforms.resizers import FixedShapeResizer
from tests import tiny
from tests.contracts import test_models
from tests.weights import golden_checkpoints


@registry.serializable
class OneBox(keras_detect.DetectionModel):
    """A meta-architecture in its four methods: one box per image, a bounding box of all objects, of the first class."""

    parts = ("resizer", "network")
    loss_names = ("box_loss",)
    num_classes = 1
    num_detections = 1

    def __init__(self, *, resizer, network, class_names=None, **kwargs):
        super().__init__(resizer=resizer, class_names=class_names, **kwargs)
        self.network = network
        self.finish_init()

    def preprocess(self, images, true_image_shapes=None):
        images, shapes = self.resizer(ops.cast(images, "float32") / 255.0, true_image_shapes)
        return {schema.IMAGES: images, schema.TRUE_IMAGE_SHAPES: shapes}

    def call(self, inputs, training=None):
        return {"corners": self.network(inputs[schema.IMAGES], training=training)}

    def compute_losses(self, y, predictions, inputs, training=True):
        boxes, real = y[schema.BOXES], (y[schema.LABELS] >= 0)[..., None]
        low = ops.min(ops.where(real, boxes[..., :2], 1.0), axis=1)
        high = ops.max(ops.where(real, boxes[..., 2:], 0.0), axis=1)
        error = predictions["corners"] - ops.concatenate([low, high], axis=-1)
        return {"box_loss": ops.mean(ops.square(error))}

    def postprocess(self, predictions, true_image_shapes):
        boxes = ops.cast(predictions["corners"][:, None], "float32")
        one = ops.ones_like(boxes[..., 0])
        labels = ops.cast(0 * one, "int32")
        count = ops.cast(one[:, 0], "int32")
        return {schema.BOXES: boxes, schema.SCORES: one, schema.LABELS: labels, schema.NUM_DETECTIONS: count}


def one_box(**_):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, strides=4, activation="relu", name="conv")(inputs)
    network = keras.Model(inputs, keras.layers.Dense(4, name="corners")(keras.layers.Flatten()(x)), name="network")
    return OneBox(resizer=FixedShapeResizer(height=32, width=32), network=network)


def first_class(x, y):
    return x, {**y, schema.LABELS: np.minimum(y[schema.LABELS], 0)}


@pytest.mark.parametrize("entry", ["fit", "evaluate", "predict"])
def test_a_meta_architecture_passes_the_contract(entry, monkeypatch):
    batch = tiny.tiny_batch
    monkeypatch.setattr(tiny, "tiny_batch", lambda *args, **kwargs: first_class(*batch(*args, **kwargs)))
    test_models.test_every_entry_point_works_as_the_very_first_call(one_box, entry)


def test_a_meta_architecture_saves_and_detects(tmp_path):
    model = one_box()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    image = tiny.tiny_batch()[0][0]
    found, again = model.detect(image), loaded.detect(image)
    np.testing.assert_array_equal(found["boxes"], again["boxes"])
    assert found["labels"].tolist() == [0]


def test_a_checkpoint_family_is_a_table_of_names(tmp_path, monkeypatch):
    def tables(model):
        return {"network": {layer.name: f"model/layer-{layer.name}" for layer in model.network.layers if layer.weights}}

    monkeypatch.setitem(name_maps.MODELS, "one_box", types.SimpleNamespace(tables=tables, unused_keys=lambda model: ()))
    monkeypatch.setattr(OneBox, "checkpoint_family", "one_box")
    model = one_box()
    keys = name_maps.checkpoint_keys(model)
    values = {key: np.full(model.named_weights()[name].shape, 0.25, np.float32) for name, key in keys.items()}
    report = model.restore(golden_checkpoints.write_checkpoint(values, tmp_path))
    assert len(report.restored) == len(model.weights) == 4
    assert all(np.all(keras.ops.convert_to_numpy(weight) == 0.25) for weight in model.weights)


def test_a_data_format_is_a_module_with_four_functions(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "FORMATS", dict(load.FORMATS))
    written = {}
    module = types.SimpleNamespace(
        recognizes=lambda path: path.suffix == ".mine",
        read=lambda path, split=None, class_names=None: written[path.name],
        write=lambda dataset, path, split=None: written.setdefault(path.name, dataset),
        holds=lambda field: field.key in ("boxes", "labels"),
    )
    keras_detect.data.register_format("mine", module)
    data = shapes_dataset(2, image_size=32)
    module.write(data, tmp_path / "set.mine")
    (tmp_path / "set.mine").touch()
    assert keras_detect.load_dataset(tmp_path / "set.mine") is data
    with pytest.raises(ValueError, match="'coco' is already used"):
        keras_detect.data.register_format("coco", module)
    del module.holds
    with pytest.raises(TypeError, match="Missing: holds"):
        keras_detect.data.register_format("other", module)


def test_a_command_is_a_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "count.py").write_text(
        'HELP, EXAMPLE = "count to a number", "--to 3"\n\n\n'
        "def add_arguments(parser):\n    parser.add_argument('--to', type=int, required=True)\n\n\n"
        "def run(arguments):\n    print(*range(arguments.to))\n    return 0\n"
    )
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
    assert cli.run(cli.parse(["keras-detect", "count", "--to", "3"])) == 0
    assert capsys.readouterr().out.strip() == "0 1 2"
