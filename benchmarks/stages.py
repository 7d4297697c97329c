"""Times the stages of a single-shot detector on TensorFlow: pixels, backbone, neck, heads, post-processing.

    python benchmarks/stages.py --batch-sizes 1 8
    python benchmarks/stages.py --preset ssd_resnet50_v1_fpn_640x640_coco17_tpu-8 --batch-sizes 1

The graph of `predict_step` is cut off after each stage; a stage is the difference between two neighbouring cuts within
a round, its share the median over the rounds. Weights are random and settled as in `ssd_mobilenet_v2.py`.
"""

import argparse
import dataclasses

import keras
import numpy as np
import ssd_mobilenet_v2 as ssd
import tensorflow as tf

from keras_detect import fields
from keras_detect.meta_architectures.detection_model import DetectionModel


def main(argv=None):
    """Parses arguments and prints one table per batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args(argv)

    keras.utils.set_random_seed(0)
    model = DetectionModel.from_preset(arguments.preset, load_weights=False)
    size = model.resizer.resize_image(np.zeros((300, 300, 3), "uint8"))[0].shape[0]
    print(f"{arguments.preset}, {size} x {size}, random weights, {arguments.rounds} rounds, {ssd.machine()}")
    settle(model, ssd.pictures(2, size))
    for batch_size in arguments.batch_sizes:
        images = ssd.pictures(batch_size, size)
        wall, processor = ssd.interleaved(cuts(model, images), arguments.rounds)
        print_shares(wall, processor, batch_size)


def settle(model, images):
    """Gives the network the statistics, and the class head the scores, of a trained one."""
    ssd.settle_statistics(model, images)
    ssd.spread_logits(model, images)
    ssd.shift_class_bias(model, images)
    nms = dataclasses.replace(model.postprocessor.nms, score_threshold=ssd.THRESHOLD)
    model.postprocessor = dataclasses.replace(model.postprocessor, nms=nms)


def cuts(model, images):
    """`{stage: function}`: each runs everything up to its stage."""
    extractor, names = model.feature_extractor, model.feature_extractor.neck.levels

    def backbone(x):
        levels = extractor.backbone(model.preprocess(x)[fields.IMAGES], training=False)
        return [levels[name] for name in names]

    functions = {
        "preprocessing": lambda x: model.preprocess(x)[fields.IMAGES],
        "backbone": backbone,
        "neck": lambda x: extractor(model.preprocess(x)[fields.IMAGES], training=False),
        "heads": lambda x: model(model.preprocess(x), training=False),
        "post-processing": lambda x: model.predict_step((x,)),
    }
    x = tf.constant(images)
    compiled = {name: tf.function(function) for name, function in functions.items()}
    calls = {name: lambda function=function: function(x) for name, function in compiled.items()}
    return {**calls, "predict_on_batch": lambda: model.predict_on_batch(images)}


def print_shares(wall, processor, batch_size):
    """A row per stage: what it adds to the one before, and its share of `predict_on_batch`."""
    whole, whole_processor = wall["predict_on_batch"], processor["predict_on_batch"]
    print(f"\n{batch_size} images: {batch_size / np.median(whole):.1f} images/s, {1e3 * np.median(whole):.1f} ms")
    print(f"{'':>18}{'ms':>9}{'share':>9}{'CPU ms':>9}{'share, CPU':>12}")
    before, before_processor = np.zeros_like(whole), np.zeros_like(whole)
    for name in wall:
        added, added_processor = wall[name] - before, processor[name] - before_processor
        label = "the call" if name == "predict_on_batch" else name
        print(
            f"{label:>18}{1e3 * np.median(added):9.2f}{100 * np.median(added / whole):8.1f}%"
            f"{1e3 * np.median(added_processor):9.2f}{100 * np.median(added_processor / whole_processor):11.1f}%"
        )
        before, before_processor = wall[name], processor[name]
    print(f"load {ssd.os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
