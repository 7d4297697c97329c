"""The checksum against published values and against TensorFlow's own, which is in every TFRecord."""

import struct

import numpy as np
import pytest

from keras_detect.weights.crc32c import crc32c, masked_crc32c


def test_published_values():
    assert crc32c(b"") == 0 and crc32c(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4 and the usual check value
    assert crc32c(bytes(32)) == 0x8A9136AA and crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize("length", [1, 7, 1023, 1024, 1025, 4096, 65_537, 1_000_003, 4 * 2**20, 9_000_001])
def test_any_length_is_tensorflows(length, tmp_path):
    import tensorflow as tf

    data = np.random.default_rng(length).integers(0, 256, length, dtype=np.uint8).tobytes()
    with tf.io.TFRecordWriter(str(tmp_path / "record")) as writer:
        writer.write(data)
    content = (tmp_path / "record").read_bytes()
    assert masked_crc32c(data) == struct.unpack("<I", content[-4:])[0]
    assert masked_crc32c(content[:8]) == struct.unpack("<I", content[8:12])[0]
    assert masked_crc32c(np.frombuffer(data, np.uint8)) == masked_crc32c(data)
