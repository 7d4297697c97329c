"""LiteRT files: kernels and biases of every type, refused where they are damaged; nothing but bytes is read."""

import numpy as np
import pytest

from keras_detect.weights.litert import LiteRTError, LiteRTReader, scope_of
from tests.weights import litert_files

RNG = np.random.default_rng(0)
LAYERS = {
    "Net/Conv": (RNG.normal(size=(3, 3, 4, 6)), RNG.normal(size=6)),
    "Net/depthwise": (RNG.normal(size=(3, 3, 4, 2)), RNG.normal(size=8)),
    "Net/plain": (RNG.normal(size=(1, 1, 4, 5)), None),
}
ROUNDING = {"float32": 1e-6, "float16": 1e-3, "int8": 0.02, "uint8": 0.02}


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", ["float32", "float16", "int8", "uint8"])
def test_kernels_and_biases_of_every_type(tmp_path, kind, per_channel):
    wanted = litert_files.write(tmp_path / "model.tflite", LAYERS, kind, per_channel)
    reader = LiteRTReader(tmp_path / "model.tflite")
    assert set(reader.shapes) == {
        *("Net/Conv/kernel", "Net/Conv/bias", "Net/depthwise/kernel", "Net/depthwise/bias", "Net/plain/kernel")
    }
    for key, value in wanted.items():
        found = reader.read(key)
        assert found.dtype == np.float32 and found.shape == reader.shapes[key] == value.shape
        np.testing.assert_allclose(found, value, rtol=1e-6, atol=1e-7, err_msg=key)
    for scope, (kernel, _) in LAYERS.items():
        np.testing.assert_allclose(reader.read(f"{scope}/kernel"), kernel, atol=ROUNDING[kind] * 4, err_msg=scope)


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("A/Conv/Conv2D;B/Conv2D", "A/Conv"),
        ("A/expanded_conv_3/depthwise/BatchNorm/FusedBatchNormV3;A/depthwise", "A/expanded_conv_3/depthwise"),
        ("A/depthwise/depthwise", "A/depthwise"),
        ("A/Conv/weights_quant/FakeQuantWithMinMaxVars", "A/Conv"),
        ("A/Conv/weights", "A/Conv"),
        ("A/Conv/Conv2D1", "A/Conv"),
        ("A/Conv_1/Conv2D_dequantize", "A/Conv_1"),
        ("plain", "plain"),
    ],
)
def test_the_scope_of_a_filters_name(name, scope):
    assert scope_of(name) == scope


def test_what_is_no_such_file(tmp_path):
    path = tmp_path / "model.tflite"
    with pytest.raises(FileNotFoundError):
        LiteRTReader(path)
    for content, message in ((b"", "not a LiteRT file"), (b"x" * 100, "not a LiteRT file"), (b"xxxxTFL3", "damaged")):
        path.write_bytes(content)
        with pytest.raises(LiteRTError, match=message):
            LiteRTReader(path)
    litert_files.write(path, {})
    with pytest.raises(LiteRTError, match="holds no convolution"):
        LiteRTReader(path)


def test_values_that_are_not_finite_are_refused(tmp_path):
    kernel = np.full((1, 1, 2, 2), np.nan)
    litert_files.write(tmp_path / "model.tflite", {"Net/Conv": (kernel, None)})
    with pytest.raises(LiteRTError, match=r"model\.tflite: 'Net/Conv/kernel' holds NaN or infinite values"):
        LiteRTReader(tmp_path / "model.tflite").read("Net/Conv/kernel")


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_300_damaged_files_end_in_one_line(tmp_path, kind):
    """Bytes flipped, numbers overwritten by large ones, cut short: an error of ours, or finite values of the shapes."""
    path = tmp_path / "model.tflite"
    litert_files.write(path, LAYERS, kind)
    whole, rng, refused = path.read_bytes(), np.random.default_rng(1), 0
    for trial in range(300):
        content = bytearray(whole)
        for _ in range(1 + trial % 3):
            place = int(rng.integers(len(content) - 8))
            if trial % 5 == 0:
                content = content[: place + 8]
            elif trial % 5 < 3:
                content[place] ^= 1 << int(rng.integers(8))
            else:
                content[place & ~3 : (place & ~3) + 4] = [0x7FFFFFFF, 0xFFFFFFFF, 0, len(whole)][trial % 4].to_bytes(
                    4, "little"
                )
        path.write_bytes(content)
        try:
            reader = LiteRTReader(path)
            for key, shape in reader.shapes.items():
                assert reader.read(key).shape == shape
        except LiteRTError as error:
            refused += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error)
    assert refused > 60
