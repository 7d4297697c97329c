"""Trains a CenterNet on drawn stick figures and measures their boxes and keypoints on figures that it has not seen.

    python examples/keypoints/train.py [OUTPUT]

writes `model.keras`, `history.csv`, `curve.png`, `metrics.json` and `detections.jpg` into OUTPUT (default: keypoints).
The images are drawn here and the backbone is that of a packaged detector, so nothing is fetched.
"""

import sys
import time

from keras_detect.data import figures_dataset
from keras_detect.training import train
from keras_detect.visualization import draw_gallery, draw_side_by_side, save_image

BACKBONE_OF = "ssd_mobilenet_v2_oidv4"
TRAINING_IMAGES, HELD_OUT_IMAGES = 1200, 150
SETTINGS = {"epochs": 8, "batch_size": 8, "learning_rate": 2e-3, "warmup_fraction": 0.05, "augment": "flip"}
#: edges and textures learned from photos serve drawings too, and a step is shorter without their gradients
FROZEN = ("backbone/stem_*", "backbone/block_[0-3]_*")


def figures():
    """`(training, held out)`: other seeds, other figures."""
    sizes = {"image_size": (224, 256)}
    return figures_dataset(TRAINING_IMAGES, seed=0, **sizes), figures_dataset(HELD_OUT_IMAGES, seed=1, **sizes)


def run(output, verbose=2):
    """Trains, draws some of the held-out images, and returns the `TrainingResult`."""
    training, held_out = figures()
    result = train(
        BACKBONE_OF,
        training,
        held_out,
        output=output,
        architecture="centernet",
        image_size=224,
        freeze=FROZEN,
        evaluate_every=SETTINGS["epochs"] // 2,
        cache=True,
        check=False,
        overwrite=True,
        verbose=verbose,
        **SETTINGS,
    )
    model, examples = result.model, [held_out[index] for index in range(6)]
    found = model.detect([example["image"] for example in examples], score_threshold=0.3)
    sheets = [
        draw_side_by_side(example["image"], example, detections, model.class_names, 0.3, model.skeleton)
        for example, detections in zip(examples, found, strict=True)
    ]
    save_image(draw_gallery(sheets, columns=2, cell_size=sheets[0].size), result.output / "detections.jpg")
    return result


if __name__ == "__main__":
    started, used = time.monotonic(), time.process_time()
    metrics = run(sys.argv[1] if len(sys.argv) > 1 else "keypoints").metrics
    print(
        ", ".join(f"{name} {metrics[name]:.3f}" for name in ("map", "keypoint_map", "keypoint_map_50", "keypoint_mar"))
    )
    print(f"{(time.monotonic() - started) / 60:.1f} minutes, {(time.process_time() - used) / 60:.1f} of CPU time")
