"""Graphs of TensorFlow 1 as a source of weights: constants by name, SavedModels, and broken ones."""

import pathlib
import shutil

import numpy as np
import pytest

from keras_detect.weights.checkpoint_file import CheckpointError
from keras_detect.weights.frozen_graph import FrozenGraph, graph_file, open_graph
from tests.weights import golden_checkpoints

SCOPE = "FeatureExtractor/MobilenetV1/Conv2d_0"
VALUES = {
    f"{SCOPE}/weights": np.arange(54, dtype="float32").reshape(3, 3, 3, 2),
    f"{SCOPE}/BatchNorm/gamma": np.float32([1, 1]),
    f"{SCOPE}/BatchNorm/moving_variance": np.float64([0.5, 2]),
    "BoxPredictor/ClassPredictor/biases": np.float16([1, -2, 3]),
}
OTHERS = {"Preprocessor/mul/x": np.float32(2 / 255), f"{SCOPE}/act_quant/min": np.float32(-1)}


def graph_of(values):
    """A GraphDef with a constant per value, and what reads it."""
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    for name, value in values.items():
        node = graph.node.add(name=name, op="Const")
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
        graph.node.add(name=f"{name}/read", op="Identity", input=[name])
    return graph


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    path = tmp_path_factory.mktemp("frozen") / "frozen_inference_graph.pb"
    path.write_bytes(graph_of({**VALUES, **OTHERS}).SerializeToString())
    return path


def check(reader, source):
    assert reader.tf1 and reader.source == str(source)
    assert reader.shapes == {name: value.shape for name, value in VALUES.items()}
    for name, value in VALUES.items():
        np.testing.assert_array_equal(reader.read(name), value, strict=True)


def test_the_constants_that_are_variables(frozen):
    reader = FrozenGraph(frozen)
    check(reader, frozen)
    assert reader.ignored == {f"{SCOPE}/act_quant/min": "range of fake quantization, which is not a weight"}
    assert reader.read_any(f"{SCOPE}/act_quant/min") == -1
    with pytest.raises(KeyError, match="has no variable 'Preprocessor/mul/x'"):
        reader.read("Preprocessor/mul/x")


def test_a_number_that_stands_for_all(tmp_path):
    graph = graph_of({f"{SCOPE}/weights": np.zeros((2, 3), "float32")})
    tensor = graph.node[0].attr["value"].tensor
    tensor.ClearField("tensor_content")
    tensor.float_val[:] = [4.0, 5.0]
    (tmp_path / "graph.pb").write_bytes(graph.SerializeToString())
    reader = FrozenGraph(tmp_path / "graph.pb")
    np.testing.assert_array_equal(reader.read(f"{SCOPE}/weights"), np.float32([[4, 5, 5], [5, 5, 5]]), strict=True)


def test_saved_models(frozen, tmp_path):
    from tensorflow.core.protobuf import saved_model_pb2

    folder = tmp_path / "exported" / "saved_model"
    folder.mkdir(parents=True)
    saved = saved_model_pb2.SavedModel()
    saved.meta_graphs.add().graph_def.CopyFrom(graph_of({**VALUES, **OTHERS}))
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    for path in (folder, folder.parent):
        check(open_graph(graph_file(path), path), path)
    # with variables of its own, these count
    saved.meta_graphs[0].graph_def.ClearField("node")
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    prefix = golden_checkpoints.write_tf1_checkpoint(VALUES, tmp_path / "written")
    (folder / "variables").mkdir()
    for file in prefix.parent.glob("model.ckpt.*"):
        shutil.copy(file, folder / "variables" / file.name.replace("model.ckpt", "variables"))
    check(open_graph(graph_file(folder), folder), folder)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x0a\xff"], ids=["empty", "text", "cut short"])
def test_a_damaged_graph(tmp_path, content):
    (tmp_path / "graph.pb").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"graph\.pb: (no graph|holds no variable)") as error:
        FrozenGraph(tmp_path / "graph.pb")
    assert "\n" not in str(error.value)


def test_values_that_do_not_fit_their_shape(tmp_path):
    graph = graph_of({f"{SCOPE}/weights": np.zeros((2, 3), "float32")})
    graph.node[0].attr["value"].tensor.tensor_content = bytes(20)
    (tmp_path / "graph.pb").write_bytes(graph.SerializeToString())
    with pytest.raises(CheckpointError, match=r"'FeatureExtractor/.*' has 20 bytes for the shape \(2, 3\)"):
        FrozenGraph(tmp_path / "graph.pb").read(f"{SCOPE}/weights")


def test_a_checkpoint_goes_before_the_graph_beside_it(frozen, tmp_path):
    folder = pathlib.Path(shutil.copytree(frozen.parent, tmp_path / "model"))
    assert graph_file(folder) == folder / frozen.name
    golden_checkpoints.write_tf1_checkpoint(VALUES, folder)
    assert graph_file(folder) is None
