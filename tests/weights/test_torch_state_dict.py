"""State dicts of torch: the features that torchvision's networks compute, from safetensors without torch, from .pth."""

import json

import keras
import numpy as np
import PIL.Image
import pytest

from keras_detect import SSD
from keras_detect.weights.restore import RestoreError
from keras_detect.weights.safetensors_file import SafetensorsError, SafetensorsFile
from keras_detect.weights.torch_state_dict import TorchFileError
from tests import goldens, tiny
from tests.networks import undrawn
from tests.weights.torch_networks import Network

NETWORKS = {
    "mobilenet_v2_torch": ("mobilenet_v2", None),
    "efficientnet_b0_torch": ("efficientnet_b0", None),
    "resnet_v1_50_torch": ("resnet", (3, 4, 6, 3)),
}


#: photo -> the class of ImageNet that torchvision 0.29.1 gives it first (docs/weights.md: all 72 agree)
TOP_1 = {30: 883, 34: 340, 71: 829, 72: 210}


def detector(backbone, **settings):
    with undrawn():
        return SSD.from_backbone(backbone, num_classes=2, image_size=64, **{"weights": None, **settings})


def features(model, pixels):
    backbone = model.feature_extractor.backbone
    levels = backbone(backbone.preprocess(keras.ops.convert_to_tensor(pixels)), training=False)
    return {level: keras.ops.convert_to_numpy(value) for level, value in levels.items()}


@pytest.mark.parametrize("backbone", NETWORKS)
def test_every_weight_of_a_safetensors_file(backbone, tmp_path):
    """Without torch: names and layouts, down to the last variable."""
    network = Network(*NETWORKS[backbone])
    network.write_safetensors(tmp_path / "model.safetensors")
    model = detector(backbone, weights=tmp_path / "model.safetensors")
    assert model.started_from.endswith("model.safetensors, backbone alone")
    ours = tiny.weights_of(model)
    stem = ours["backbone/stem_conv/kernel"].transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(stem, np.float32(next(iter(network.state.values()))))
    found = sum(value.size for name, value in ours.items() if name.startswith("backbone/"))
    beside = ("fc.", "classifier", "features.8.0", "features.8.1")
    theirs = sum(
        np.size(value)
        for name, value in network.state.items()
        if not name.startswith(beside) and not name.endswith("tracked")
    )
    assert found == theirs


@pytest.mark.parametrize("side", [64, 75])
@pytest.mark.parametrize("backbone", NETWORKS)
def test_features_are_torchs(backbone, side, tmp_path):
    torch = pytest.importorskip("torch")
    network = Network(*NETWORKS[backbone])
    torch.save({"state_dict": {k: torch.tensor(np.asarray(v)) for k, v in network.state.items()}}, tmp_path / "m.pth")
    model = detector(backbone, weights=tmp_path / "m.pth")
    pixels = np.random.default_rng(1).integers(0, 256, (1, side, side + 30, 3)).astype("float32")
    ours, theirs = features(model, pixels), network.features(pixels)
    for level, value in theirs.items():
        assert goldens.relative_error(ours[level], value) < 1e-4, level


def test_torchvisions_own_mobilenet_v2(tmp_path):
    """The ImageNet weights of the file's README, and torchvision's class of four of its 72 photos."""
    torch = pytest.importorskip("torch")
    path = goldens.require_shared("weights/torchvision_mobilenet_v2/mobilenet_v2-b0353104.pth")
    model = detector("mobilenet_v2_torch")
    report = model.restore(path, kind="classification")
    assert not [name for name in report.kept if name.startswith("backbone/")]
    state = torch.load(path, weights_only=True)
    weight, bias = (state[f"classifier.1.{name}"].numpy() for name in ("weight", "bias"))
    for number, expected in TOP_1.items():
        pixels = photo(goldens.require_shared(f"data/coco_free/images/{number:012}.jpg"))
        assert np.argmax(weight @ features(model, pixels)["C5"][0].mean((0, 1)) + bias) == expected, number


def photo(path):
    """`[1, 224, 224, 3]`: the middle of a photo whose shorter side is 256."""
    with PIL.Image.open(path) as image:
        scale = 256 / min(image.size)
        image = image.convert("RGB").resize([round(side * scale) for side in image.size], PIL.Image.Resampling.BILINEAR)
    left, top = ((side - 224) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + 224, top + 224)), "float32")[None]


def test_what_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    network = Network("mobilenet_v2")
    network.write_safetensors(path)
    with pytest.raises(ValueError, match=r"kind='classification'"):
        detector("mobilenet_v2_torch").restore(path)
    with pytest.raises(ValueError, match=r"torch's padding.*mobilenet_v2_torch.*another arithmetic"):
        detector("mobilenet_v2", weights=path)
    with pytest.raises(ValueError, match="is not built on the backbone"):
        detector("mobilenet_v2_torch").restore(
            keras.applications.MobileNetV2(include_top=False, weights=None), kind="classification"
        )
    with pytest.raises(RestoreError, match=r"(?s)not in the checkpoint.*not used by the model"):
        detector("efficientnet_b0_torch").restore(path, kind="classification")
    with pytest.raises(FileNotFoundError):
        detector("mobilenet_v2_torch", weights=tmp_path / "nowhere.safetensors")


def test_a_file_of_torch_is_not_run(tmp_path):
    torch = pytest.importorskip("torch")

    class Hostile:
        def __reduce__(self):
            return (print, ("run",))

    model = detector("mobilenet_v2_torch")
    for number, content in enumerate((Hostile(), [1, 2], {"a": "text"})):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path)
        with pytest.raises(TorchFileError, match=rf"{number}\.pth: ") as error:
            model.restore(path, kind="classification")
        assert "\n" not in str(error.value)
    (tmp_path / "text.pth").write_text("nonsense")
    with pytest.raises(TorchFileError, match=r"text\.pth: no state dict"):
        model.restore(tmp_path / "text.pth", kind="classification")


def written(path, header, content=b"\0" * 16, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + content)
    return path


ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    "header",
    [
        *(b"", b"[]", b"{", b"[" * 100_000, b"\xff\xfe"),
        *({"a": None}, {"a": {}}, {"a": []}, {"a": {**ENTRY, "dtype": "F3"}}, {"a": {**ENTRY, "shape": [10**12, 1]}}),
        *({"a": {**ENTRY, "shape": [-2, -2]}}, {"a": {**ENTRY, "data_offsets": [0, 17]}}),
        *({"a": {**ENTRY, "data_offsets": [16, 0]}}, {"a": {**ENTRY, "data_offsets": [8, 24]}}),
        *({"a": {**ENTRY, "shape": 4}}, {"a": {**ENTRY, "shape": [2.0, 2]}}, {"a": {**ENTRY, "data_offsets": [0]}}),
    ],
    ids=str,
)
def test_damaged_safetensors_end_in_one_line(tmp_path, header):
    path = written(tmp_path / "model.safetensors", header)
    with pytest.raises(SafetensorsError) as error:
        SafetensorsFile(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_lengths_types_and_values_of_safetensors(tmp_path):
    path = tmp_path / "model.safetensors"
    for length in (0, 1, 10**18):
        with pytest.raises(SafetensorsError, match="truncated"):
            SafetensorsFile(written(path, {"a": ENTRY}, length=length))
    half = np.float16([[1.5, 2.0], [-3.0, 0.25]])
    entry = {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}
    file = SafetensorsFile(written(path, {"__metadata__": {"format": "pt"}, "a": entry}, half.tobytes()))
    np.testing.assert_array_equal(file.read("a"), half.astype("float32"))
    brain = (half.astype("<f4").view("<u4") >> 16).astype("<u2")
    file = SafetensorsFile(written(path, {"a": {**entry, "dtype": "BF16"}}, brain.tobytes()))
    np.testing.assert_array_equal(file.read("a"), half.astype("float32"))
    nan = np.float32([[np.nan, 0], [0, 0]]).tobytes()
    with pytest.raises(SafetensorsError, match="NaN"):
        SafetensorsFile(written(path, {"a": ENTRY}, nan)).read("a")
