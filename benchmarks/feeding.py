"""Times what is between `batches` and JAX or torch: Keras' copy of each batch, and the way to the device.

    KERAS_BACKEND=jax python benchmarks/feeding.py
    KERAS_BACKEND=torch python benchmarks/feeding.py

`batches` is a `tf.data.Dataset`, which `fit` reads through Keras' adapter. The images are drawn, 320 x 320, and
cached, so that reading them costs next to nothing. A row is the time a batch takes: of tf.data alone, with its memory
seen as numpy arrays (no copy), through Keras' adapter, and through `fit` itself with SSD MobileNetV2.
"""

import argparse
import os
import pathlib
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras
import numpy as np

import keras_detect
from keras_detect.data import shapes_dataset


def main(argv=None):
    """Prints milliseconds per batch and the share of a training step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args(argv)
    keras.utils.set_random_seed(0)
    data = shapes_dataset(4 * arguments.batch_size, seed=0)
    model = keras_detect.SSD.from_backbone("mobilenet_v2", class_names=data.class_names, image_size=320)
    model.compile(keras.optimizers.SGD(0.0, momentum=0.9))
    batches = data.batches(model, arguments.batch_size, cache=True)
    ways = {"tf.data alone": bare, "seen as numpy": views, "Keras' adapter": adapter}
    stream = batches.repeat().take(arguments.batches)
    found = {name: [] for name in ways}
    for number in range(arguments.rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way(stream)
            if number:
                found[name].append(1e3 * (time.perf_counter() - start) / arguments.batches)
    step = fit_step(model, batches)
    size = sum(value.nbytes for value in keras.tree.flatten(next(iter(batches.as_numpy_iterator()))))
    print(f"{keras.backend.backend()}, batches of {arguments.batch_size}, {size / 2**20:.2f} MiB each")
    for name, times in found.items():
        print(f"{name:>16}{np.median(times):8.2f} ms{np.median(times) / step:9.3%} of a training step")
    print(f"{'a step of fit':>16}{step:8.0f} ms")


def bare(stream):
    """tf.data's own iterator."""
    for _ in stream:
        pass


def views(stream):
    """The same with numpy arrays on tf.data's memory."""
    for batch in stream:
        keras.tree.map_structure(np.asarray, batch)


def adapter(stream):
    """What `fit` does with a batch before the step: Keras' adapter, and the device's arrays."""
    from keras.src.trainers.data_adapters.tf_dataset_adapter import TFDatasetAdapter

    found = TFDatasetAdapter(stream)
    if keras.backend.backend() == "torch":
        for _ in found.get_torch_dataloader():
            pass
        return
    import jax

    for batch in found.get_jax_iterator():
        jax.block_until_ready(keras.tree.map_structure(jax.device_put, batch))


def fit_step(model, batches, epochs=4):
    """Milliseconds of a step of `fit`, the epochs with compiling and reading left out."""
    ends = []
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    model.fit(batches, epochs=epochs, callbacks=[clock], verbose=0)
    return 1e3 * (ends[-1] - ends[0]) / (len(batches) * (epochs - 1))


if __name__ == "__main__":
    main()
