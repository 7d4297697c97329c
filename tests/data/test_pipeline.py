"""The pipeline under load: records larger than memory, hosts, repeated runs, many epochs."""

import hashlib
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_detect.data import DetectionDataset, load_dataset, shapes_dataset, write_dataset
from keras_detect.transforms import RandomColor, RandomHorizontalFlip, RandomIoUCrop
from keras_detect.transforms.resizers import FixedShapeResizer
from tests.data.test_dataset import numbered, order
from tests.tiny import tiny_ssd

SMALL = FixedShapeResizer(height=8, width=12)
AUGMENT = (RandomHorizontalFlip(), RandomIoUCrop(probability=0.5), RandomColor())
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")


def resident(key="VmRSS"):
    """MiB of this process' memory."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


@linux
def test_records_stay_on_disk(tmp_path):
    """A file of 200 MiB is opened and read in batches, and at no time is more than a quarter of it in memory."""
    import tensorflow as tf

    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    data = DetectionDataset.from_arrays([noise], [[[0.1, 0.1, 0.5, 0.5]]], [[0]], ["a"])
    write_dataset(data, tmp_path, "tfrecord")
    file = tmp_path / "data.record-00000-of-00001"
    one = next(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(file)) as writer:
        for _ in range(200):
            writer.write(one)
    size = file.stat().st_size / 2**20
    assert size > 190
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    before = resident()
    records = load_dataset(tmp_path)
    images = sum(len(x) for x, _ in records.batches(SMALL, 10))
    assert (len(records), images) == (200, 200)
    assert resident("VmHWM") - before < size / 4


@pytest.mark.parametrize("cache", [False, True])
def test_hosts_share_every_epoch(cache):
    """7 images on 3 hosts: each is on one of them; with dropped remainders 2 a host, and all batches are alike."""
    data = numbered(7)
    hosts = [data.batches(SMALL, 2, shuffle=True, seed=1, shard=(i, 3), cache=cache) for i in range(3)]
    epochs = [[order(host) for host in hosts] for _ in range(2)]
    for parts in epochs:
        assert sorted(number for part in parts for number in part) == list(range(7))
        assert sorted(map(len, parts)) == [2, 2, 3]
    assert cache or [set(part) for part in epochs[0]] != [set(part) for part in epochs[1]]
    dropping = [data.batches(SMALL, 2, drop_remainder=True, shard=(i, 3)) for i in range(3)]
    assert [len(order(host)) for host in dropping] == [2, 2, 2]
    assert len({str(host.element_spec) for host in dropping}) == 1


def test_shards_that_are_none():
    for shard in ((3, 3), (-1, 3), (0, 8)):
        with pytest.raises(ValueError, match="shard is"):
            numbered(7).batches(SMALL, 2, shard=shard)
    with pytest.raises(ValueError, match="same seed"):
        numbered(7).batches(SMALL, 2, shuffle=True, shard=(0, 2))


def digest():
    """A checksum of two augmented, shuffled epochs."""
    keras.utils.set_random_seed(0)
    data = shapes_dataset(8, image_size=48)
    found = hashlib.sha256()
    batches = data.batches(SMALL, 3, AUGMENT, shuffle=True, seed=7)
    for _ in range(2):
        for x, y in batches:
            found.update(np.asarray(x).tobytes() + np.asarray(y["boxes"]).tobytes())
    return found.hexdigest()


@pytest.mark.backend_free
def test_a_seed_repeats_in_another_process():
    root = pathlib.Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONHASHSEED": "3"}
    command = [sys.executable, "-c", "from tests.data.test_pipeline import digest; print(digest())"]
    run = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.split()[-1] == digest()


@linux
@pytest.mark.slow
def test_memory_is_flat_over_50_epochs():
    """After ten epochs, in which caches and pools fill, forty more add less than 1 MiB per epoch."""

    class Memory(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.epochs = []

        def on_epoch_end(self, epoch, logs=None):
            self.epochs.append(resident())

    data = shapes_dataset(24, image_size=(160, 192), class_names=["circle", "star", "square"])
    model, memory = tiny_ssd(), Memory()
    model.class_names = data.class_names
    model.compile(keras.optimizers.SGD(0.001))
    model.fit(data.batches(model, 4, AUGMENT, shuffle=True, seed=0), epochs=50, verbose=0, callbacks=[memory])
    print(f"MiB after epochs 1, 10, 30, 50: {[round(memory.epochs[i]) for i in (0, 9, 29, 49)]}")
    assert len(memory.epochs) == 50
    assert memory.epochs[49] - memory.epochs[9] < 40
