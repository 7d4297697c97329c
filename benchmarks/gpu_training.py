"""RetinaNet ResNet50 640 x 640 trained on one GPU: keras_detect on JAX beside TorchVision, each in its own process.

    python benchmarks/gpu_training.py keras_detect --images FOLDER
    python benchmarks/gpu_training.py torchvision

Prints one line of JSON: images per second with one batch again and again and, for ours, with JPEG files decoded by
threads (Keras' `PyDataset`; the difference is the input pipeline's share), and the peak of the device's memory. Both
train all layers with SGD on 90 classes and 8 objects per image, in bfloat16 (`mixed_bfloat16`, autocast) unless
`--float32` is given. TensorFlow need not be installed.
"""

import argparse
import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np

SIZE, CLASSES, ROWS, OBJECTS = 640, 90, 100, 8
PRESET = "ssd_resnet50_v1_fpn_640x640_coco17_tpu-8"


def batch(size):
    """Noise uint8 [B, 640, 640, 3], `boxes [B, 100, 4]` normalized yxyx, `labels [B, 100]`: 8 objects per image."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, SIZE, SIZE, 3), dtype="uint8")
    corners, sides = rng.uniform(0, 0.6, (size, ROWS, 2)), rng.uniform(0.05, 0.4, (size, ROWS, 2))
    labels = rng.integers(0, CLASSES, (size, ROWS)).astype("int32")
    labels[:, OBJECTS:] = -1
    return images, np.concatenate([corners, corners + sides], axis=-1).astype("float32"), labels


def keras_detect(arguments):
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras
    from PIL import Image

    from keras_detect import DetectionModel

    if not arguments.float32:
        keras.config.set_dtype_policy("mixed_bfloat16")
    keras.utils.set_random_seed(0)
    model = DetectionModel.from_preset(PRESET, load_weights=False)
    model.compile(keras.optimizers.SGD(0.0, momentum=0.9))
    images, boxes, labels = batch(arguments.batch_size)
    files = sorted(pathlib.Path(arguments.images).iterdir()) if arguments.images else []

    class Feed(keras.utils.PyDataset):
        """The one batch, or its images read from files that the model's resizer need not change."""

        def __init__(self, files, workers):
            super().__init__(workers=workers, max_queue_size=16)
            self.files = files

        def __len__(self):
            return arguments.steps

        def __getitem__(self, index):
            first = index * arguments.batch_size
            pixels = [self.read(first + offset) for offset in range(arguments.batch_size)] if self.files else images
            return np.asarray(pixels), {"boxes": boxes, "labels": labels}

        def read(self, number):
            with Image.open(self.files[number % len(self.files)]) as image:
                return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))

    def images_per_second(feed):
        model.fit(feed, verbose=0)
        clock = time.perf_counter()
        model.fit(feed, verbose=0)
        return arguments.steps * arguments.batch_size / (time.perf_counter() - clock)

    result = {"of": f"keras_detect, JAX {jax.__version__}", "one batch": images_per_second(Feed([], 1))}
    if files:
        result["files"] = images_per_second(Feed(files, os.cpu_count()))
        result["input pipeline's share"] = 1.0 - result["files"] / result["one batch"]
    statistics = jax.local_devices()[0].memory_stats() or {}
    return result | {"peak GiB": statistics.get("peak_bytes_in_use", 0) / 2**30}


def torchvision(arguments):
    import torch
    import torchvision

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    model = torchvision.models.detection.retinanet_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        min_size=SIZE,
        max_size=SIZE,
        trainable_backbone_layers=5,
    ).to(device, memory_format=torch.channels_last if arguments.channels_last else torch.contiguous_format)
    optimizer = torch.optim.SGD(model.parameters(), 0.0, momentum=0.9)
    images, boxes, labels = batch(arguments.batch_size)
    targets = [
        {
            "boxes": torch.from_numpy(rows[:OBJECTS, [1, 0, 3, 2]] * SIZE).to(device),
            "labels": torch.from_numpy(numbers[:OBJECTS]).long().to(device) + 1,
        }
        for rows, numbers in zip(boxes, labels, strict=True)
    ]

    def step():
        pixels = torch.from_numpy(images).to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        with torch.autocast(device, torch.bfloat16, enabled=not arguments.float32):
            loss = sum(model(list(pixels), targets).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        step()
    wait()
    clock = time.perf_counter()
    for _ in range(arguments.steps):
        step()
    wait()
    seconds = time.perf_counter() - clock
    return {
        "of": f"TorchVision {torchvision.__version__}, torch {torch.__version__}",
        "one batch": arguments.steps * arguments.batch_size / seconds,
        "peak GiB": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contestant", choices=("keras_detect", "torchvision"))
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--channels_last", action="store_true", help="TorchVision's memory format")
    parser.add_argument("--images", help="folder of JPEG files")
    options = parser.parse_args()
    measured = keras_detect(options) if options.contestant == "keras_detect" else torchvision(options)
    print(json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in measured.items()}))
