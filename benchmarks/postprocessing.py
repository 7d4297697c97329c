"""Times post-processing (scores, suppression, decoding) and prints a table with ratios.

    python benchmarks/postprocessing.py
    KERAS_BACKEND=jax python benchmarks/postprocessing.py --batch-sizes 1 8

The anchors, codes and logits are random and shaped as SSD MobileNetV2's: 1917 anchors, 90 classes and a background.
"""

import argparse
import contextlib
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

CASES = {
    "few": "about 200 pairs of anchor and class per image pass a threshold of 0.05",
    "all": "every pair passes (threshold 1e-8), the best are spread over the image",
    "crowd": "every pair passes, and the best pairs are one class in one place: the first pool does not suffice",
}


def main(argv=None):
    """Parses arguments, times every case and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="cases:\n" + "\n".join(f"  {name:6} {text}" for name, text in CASES.items()),
    )
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--anchors", type=int, default=1917)
    parser.add_argument("--classes", type=int, default=90)
    parser.add_argument("--repeats", type=int, default=100, help="timed calls; median and fastest are printed")
    parser.add_argument("--portable", action="store_true", help="keras.ops only, without the backend's own kernels")
    parser.add_argument("--xla", action="store_true", help="TensorFlow: jit_compile=True")
    arguments = parser.parse_args(argv)

    import keras

    from keras_detect.kernels import dispatch

    kernels = dispatch.portable_kernels() if arguments.portable else contextlib.nullcontext()
    way = "portable" if arguments.portable else "xla" if arguments.xla else "default"
    print(
        f"{keras.backend.backend()}, {way}, {arguments.anchors} anchors, {arguments.classes} classes, "
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )
    header = ["images", "case", "median ms", "fastest ms", "ms per image", "ratio", "found"]
    print(("{:>12}" * len(header)).format(*header))
    first = None
    with kernels:
        for batch_size in arguments.batch_sizes:
            for case in CASES:
                seconds, found = time_case(case, batch_size, arguments)
                median, fastest = 1e3 * seconds[len(seconds) // 2], 1e3 * seconds[0]
                first = first or fastest / batch_size
                row = [batch_size, case, f"{median:.2f}", f"{fastest:.2f}", f"{fastest / batch_size:.2f}"]
                print(("{:>12}" * 7).format(*row, f"{fastest / batch_size / first:.2f}", found))
    print("ratio: the fastest call's time per image, relative to the first row's.")


def time_case(case, batch_size, arguments):
    """Sorted times of the calls in seconds, and the detections found in all images together."""
    from keras import ops

    from keras_detect.boxes.box_coders import FasterRcnnBoxCoder
    from keras_detect.boxes.nms import MulticlassNonMaxSuppression
    from keras_detect.boxes.postprocessing import Postprocessor

    codes, logits, anchors, window = random_predictions(case, batch_size, arguments)
    postprocessor = Postprocessor(
        nms=MulticlassNonMaxSuppression(score_threshold=0.05 if case == "few" else 1e-8, iou_threshold=0.6)
    )
    coder = FasterRcnnBoxCoder(scale_factors=(10.0, 10.0, 5.0, 5.0))

    def detect(codes, logits):
        return postprocessor(codes, logits, anchors, coder, window)

    detect, wait = compiled(detect, arguments.xla)
    tensors = ops.convert_to_tensor(codes), ops.convert_to_tensor(logits)
    found = wait(detect(*tensors))
    seconds = []
    for _ in range(arguments.repeats):
        start = time.perf_counter()
        wait(detect(*tensors))
        seconds.append(time.perf_counter() - start)
    return sorted(seconds), found


def random_predictions(case, batch_size, arguments):
    """Codes `[B, A, 4]`, logits `[B, A, K + 1]`, anchors `[A, 4]` and window `[B, 4]`, float32 numpy."""
    import numpy as np

    rng = np.random.default_rng(0)
    count, num_classes = arguments.anchors, arguments.classes
    centers, sizes = rng.uniform(0, 1, (count, 2)), rng.uniform(0.05, 0.5, (count, 2))
    logits = rng.normal(size=(batch_size, count, num_classes + 1))
    if case == "few":
        threshold = np.log(0.05 / 0.95)
        ranked = np.sort(logits[..., 1:].reshape(batch_size, -1), axis=1)
        logits += (threshold - ranked[:, -min(201, ranked.shape[1])])[:, None, None]
    if case == "crowd":
        near = count // 2
        centers[:near], sizes[:near] = rng.normal(0.5, 0.02, (near, 2)), rng.uniform(0.3, 0.35, (near, 2))
        logits[:, :near, 1] += 10
    anchors = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1)
    codes = rng.normal(size=(batch_size, count, 4))
    window = np.tile([0.0, 0.0, 1.0, 0.8], (batch_size, 1))
    return tuple(array.astype("float32") for array in (codes, logits, anchors, window))


def compiled(function, xla):
    """The function compiled as `predict` would, and a function that waits for a result and counts its detections."""
    import keras
    from keras import ops

    def wait(found):
        return int(ops.convert_to_numpy(found["num_detections"]).sum())

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=xla), wait
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function), wait
    return function, wait


if __name__ == "__main__":
    main()
