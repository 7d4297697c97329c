"""Times the stages of a detector on TensorFlow: pixels, backbone, heads, post-processing; proposals and crops.

    python benchmarks/stages.py --batch-sizes 1 8
    python benchmarks/stages.py --preset ssd_resnet50_v1_fpn_640x640_coco17_tpu-8 --batch-sizes 1
    python benchmarks/stages.py --preset faster_rcnn_fpn --batch-sizes 1

The graph of `predict_step` is cut off after each stage; a stage is the difference between two neighboring cuts within
a round, its share the median over the rounds. Weights are random and settled as in `ssd_mobilenet_v2.py`, a two-stage
detector's as in `faster_rcnn_contestants.py`. There the first 750 anchors settle the 300 proposals; with `--crowded`
they count for nothing and the complete suppression of all anchors runs as well, as where boxes pile up.
"""

import argparse
import dataclasses

import faster_rcnn_contestants as two_stage
import keras
import numpy as np
import ssd_mobilenet_v2 as ssd
import tensorflow as tf

from keras_detect import schema
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.meta_architectures.faster_rcnn import FasterRCNN
from keras_detect.transforms.resizing import true_window

PYRAMID = "faster_rcnn_fpn"  # no preset: the zoo has none
SMALL_WORK = ("proposals", "crops", "post-processing")


def main(argv=None):
    """Parses arguments and prints one table per batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8", help=f"or {PYRAMID}")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--proposals", type=int, default=300, help="of a two-stage detector")
    parser.add_argument("--crowded", action="store_true", help="proposals by the complete suppression")
    arguments = parser.parse_args(argv)

    keras.utils.set_random_seed(0)
    pyramid = arguments.preset == PYRAMID
    model = two_stage.pyramid() if pyramid else DetectionModel.from_preset(arguments.preset, load_weights=False)
    size = model.resizer.resize_image(np.zeros((300, 300, 3), "uint8"))[0].shape[0]
    print(f"{arguments.preset}, {size} x {size}, random weights, {arguments.rounds} rounds, {ssd.machine()}")
    if isinstance(model, FasterRCNN):
        settle_two_stages(model, ssd.make_images(1, size), arguments)
    else:
        settle(model, ssd.make_images(2, size))
    for batch_size in arguments.batch_sizes:
        images = ssd.make_images(batch_size, size)
        compiled = two_stage_cuts(model, images) if isinstance(model, FasterRCNN) else cuts(model, images)
        wall, processor = ssd.interleaved(compiled, arguments.rounds)
        print_shares(wall, processor, batch_size)


def settle(model, images):
    """Gives the network the statistics, and the class head the scores, of a trained one."""
    ssd.settle_statistics(model, images)
    ssd.spread_logits(model, images)
    ssd.shift_class_bias(model, images)
    nms = dataclasses.replace(model.postprocessor.nms, score_threshold=ssd.THRESHOLD)
    model.postprocessor = dataclasses.replace(model.postprocessor, nms=nms)


def settle_two_stages(model, images, arguments):
    """As `settle`, for both stages."""
    two_stage.with_numbers(model, arguments.proposals, 64)
    one = model.preprocess(images)
    two_stage.settle(model, lambda training: two_stage.both_stages(model, one))
    two_stage.spread(model, one)
    if arguments.crowded:  # a pool that can never hold all the proposals
        model.proposal_stage = two_stage.replace_nms(model.proposal_stage, pool_size=arguments.proposals - 1)
    found, predictions = model.predict_on_batch(images), model(one)
    print(
        f"{predictions['anchors'].shape[0]} anchors, {predictions['num_proposals'].numpy()} proposals, "
        f"{found['num_detections']} detections"
    )


def cuts(model, images):
    """`{stage: function}`: each runs everything up to its stage."""
    extractor, names = model.feature_extractor, model.feature_extractor.neck.levels

    def backbone(x):
        levels = extractor.backbone(model.preprocess(x)[schema.IMAGES], training=False)
        return [levels[name] for name in names]

    functions = {
        "preprocessing": lambda x: model.preprocess(x)[schema.IMAGES],
        "backbone": backbone,
        "neck": lambda x: extractor(model.preprocess(x)[schema.IMAGES], training=False),
        "heads": lambda x: model(model.preprocess(x), training=False),
        "post-processing": lambda x: model.predict_step((x,)),
    }
    return timed(functions, model, images)


def two_stage_cuts(model, images):
    """`{stage: function}` of a two-stage detector; what a cut does not return, TensorFlow leaves out."""
    extractor = model.feature_extractor

    def trunk(x):
        return extractor.extract_proposal_features(model.preprocess(x)[schema.IMAGES], training=False)

    def proposals(x):
        predictions = model(model.preprocess(x), training=False)
        return predictions[schema.PROPOSALS], predictions[schema.NUM_PROPOSALS]

    def crops(x):
        inputs = model.preprocess(x)
        maps = extractor.extract_proposal_features(inputs[schema.IMAGES], training=False)
        return model.cropper(maps, first_stage(inputs, maps), tuple(inputs[schema.IMAGES].shape[1:3]))

    def first_stage(inputs, maps):
        shapes, image_shape = [tuple(level.shape[1:3]) for level in maps], tuple(inputs[schema.IMAGES].shape[1:3])
        anchors = tf.convert_to_tensor(model.proposal_stage.anchors(shapes, image_shape, False), tf.float32)
        predictions = {**model.region_predictor(maps, training=False), schema.ANCHORS: anchors}
        size = tf.constant(image_shape, tf.float32)
        return model.proposal_stage.propose(predictions, true_window(inputs[schema.TRUE_IMAGE_SHAPES], size))[0]

    functions = {
        "preprocessing": lambda x: model.preprocess(x)[schema.IMAGES],
        "feature maps": trunk,
        "first heads": lambda x: model.region_predictor(trunk(x), training=False),
        "proposals": proposals,
        "crops": crops,
        "second stage": lambda x: model(model.preprocess(x), training=False),
        "post-processing": lambda x: model.predict_step((x,)),
    }
    return timed(functions, model, images)


def timed(functions, model, images):
    """The functions as graphs of their own on the same images, and `predict_on_batch`."""
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
    small, small_processor = np.zeros_like(whole), np.zeros_like(whole)
    for name in wall:
        added, added_processor = wall[name] - before, processor[name] - before_processor
        if name in SMALL_WORK:
            small, small_processor = small + added, small_processor + added_processor
        label = "the call" if name == "predict_on_batch" else name
        print(
            f"{label:>18}{1e3 * np.median(added):9.2f}{100 * np.median(added / whole):8.1f}%"
            f"{1e3 * np.median(added_processor):9.2f}{100 * np.median(added_processor / whole_processor):11.1f}%"
        )
        before, before_processor = wall[name], processor[name]
    print(
        f"{' + '.join(name for name in SMALL_WORK if name in wall)}: {1e3 * np.median(small):.1f} ms, "
        f"{100 * np.median(small / whole):.1f}%; CPU {1e3 * np.median(small_processor):.1f} ms, "
        f"{100 * np.median(small_processor / whole_processor):.1f}%"
    )
    print(f"load {ssd.os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
