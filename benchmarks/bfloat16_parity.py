"""What the policy `mixed_bfloat16` changes in the raw heads and the detections of a single-shot preset.

    python benchmarks/bfloat16_parity.py

Both networks have the same weights: a checkpoint's, or random ones that are settled in float32 as in
`ssd_mobilenet_v2.py`. A random ResNet enlarges any difference, which the first line says: how much the heads change,
relative to the input's change. `--residual 0.2` shortens what its blocks add, as training does.
"""

import argparse

import keras
import numpy as np
import ssd_mobilenet_v2 as ssd
from stages import settle

from keras_detect.meta_architectures.detection_model import DetectionModel

HEADS = ("box_encodings", "class_logits")


def main(argv=None):
    """Prints the differences to float32."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="ssd_resnet50_v1_fpn_640x640_coco17_tpu-8")
    parser.add_argument("--checkpoint", help="TF2 checkpoint for the preset; without it the weights are random")
    parser.add_argument("--residual", type=float, default=1.0, help="scale of each ResNet block's last batch norm")
    parser.add_argument("--images", type=int, default=2)
    arguments = parser.parse_args(argv)

    keras.utils.set_random_seed(0)
    exact = DetectionModel.from_preset(arguments.preset, load_weights=False)
    size = exact.resizer.resize_image(np.zeros((300, 300, 3), "uint8"))[0].shape[0]
    images = ssd.make_images(arguments.images, size)
    if arguments.checkpoint:
        exact.restore(arguments.checkpoint)
    else:
        for layer in exact._flatten_layers():
            if layer.name.endswith("_expand_bn") and "stage_" in layer.name:
                layer.gamma.assign(layer.gamma * arguments.residual)
        settle(exact, images)
    keras.config.set_dtype_policy("mixed_bfloat16")
    rounded = DetectionModel.from_preset(arguments.preset, load_weights=False)
    rounded.set_weights(exact.get_weights())
    rounded.postprocessor = exact.postprocessor

    print(f"{arguments.preset}, {arguments.images} images, mixed_bfloat16 against float32, {ssd.machine()}")
    heads = [run(model, images) for model in (exact, rounded)]
    noise = np.random.default_rng(3).normal(0, 1e-5, (*images.shape[:3], 3)).astype("float32")
    disturbed = run(exact, images, 1.0 + noise)
    for key in HEADS:
        print(f"{key}: enlarges a disturbance of the pixels {distance(disturbed[key], heads[0][key]) / 1e-5:.0f} times")
    for key in HEADS:
        theirs, ours = heads[0][key], heads[1][key]
        largest = np.abs(ours - theirs).max()
        print(f"{key}: relative error {distance(ours, theirs):.2e}, largest difference {largest:.3g}")
    compare_detections(exact.predict_on_batch(images), rounded.predict_on_batch(images))


def run(model, images, factor=1.0):
    """The raw heads `{"box_encodings", "class_logits"}` of a batch, float32, its scaled pixels times `factor`."""
    inputs = model.preprocess(images)
    heads = model({**inputs, "images": inputs["images"] * factor}, training=False)
    return {key: np.asarray(heads[key]) for key in HEADS}


def distance(ours, theirs):
    """Norm of the difference relative to the spread of `theirs`: a head's constant part would hide the difference."""
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs - theirs.mean())


def compare_detections(theirs, ours):
    """Prints how many of their detections ours have too: the same label, IoU above 0.5 and above 0.9."""
    best, differences, total = [], [], 0
    for image in range(len(theirs["boxes"])):
        count, found = int(theirs["num_detections"][image]), int(ours["num_detections"][image])
        overlap = iou(theirs["boxes"][image, :count], ours["boxes"][image, :found])
        overlap *= theirs["labels"][image, :count, None] == ours["labels"][image, None, :found]
        twin = overlap.argmax(axis=1)
        best.append(overlap.max(axis=1))
        differences.append(np.abs(theirs["scores"][image, :count] - ours["scores"][image, twin])[best[-1] > 0.5])
        total += count
    best, differences = np.concatenate(best), np.concatenate(differences)
    print(
        f"of {total} detections {np.mean(best > 0.5):.1%} have a twin with IoU > 0.5, {np.mean(best > 0.9):.1%} with "
        f"IoU > 0.9; scores of twins differ by {differences.mean():.4f} on average, {differences.max():.4f} at most"
    )


def iou(one, other):
    """`[N, M]` intersection over union of `[N, 4]` and `[M, 4]` yxyx boxes."""
    upper, lower = np.maximum(one[:, None, :2], other[None, :, :2]), np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.prod(np.maximum(lower - upper, 0.0), axis=-1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (one, other)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None, :] - shared, 1e-12)


if __name__ == "__main__":
    main()
