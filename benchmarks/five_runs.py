"""What start, augmentation and averaged weights are worth: five short trainings of one SSD that differ in one of them.

    python benchmarks/five_runs.py --data bccd --backbone mobilenet_v2.safetensors --work /tmp/five

Each is `keras_detect.training.train` with its default recipe, 8 epochs and one seed. `--backbone` is a state dict of
torchvision's MobileNetV2 with ImageNet weights. A line of the table per run: COCO AP and AP50 of the best epoch on the
validation images and, where the data have a split `test`, of that model on its images; minutes of training.
"""

import argparse
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras_detect
from keras_detect import training
from keras_detect.metrics import evaluate

PACKAGED = "ssd_mobilenet_v2_oidv4"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data set with the splits train, val and test")
    parser.add_argument("--backbone", required=True, help="state dict of torchvision's MobileNetV2")
    parser.add_argument("--work", required=True, help="folder for the five models")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    names = keras_detect.load_dataset(arguments.data, "train").class_names

    def around(backbone, weights):
        return keras_detect.SSD.from_backbone(backbone, class_names=names, image_size=300, weights=weights)

    runs = (
        ("random weights", lambda: around("mobilenet_v2_torch", None), {}),
        ("ImageNet backbone", lambda: around("mobilenet_v2_torch", arguments.backbone), {}),
        ("trained detector (the default)", lambda: PACKAGED, {}),
        ("trained detector, no augmentation", lambda: PACKAGED, {"augment": "none"}),
        ("trained detector, no averaged weights", lambda: PACKAGED, {"ema_momentum": 0.0}),
    )
    print("| run | val AP / AP50 | test AP / AP50 | minutes |\n|---|---|---|---|")
    for number, (title, model, settings) in enumerate(runs):
        output, start = pathlib.Path(arguments.work) / str(number), time.monotonic()
        done = training.train(
            model(), arguments.data, output=output, epochs=arguments.epochs, seed=arguments.seed, verbose=0, **settings
        )
        minutes = (time.monotonic() - start) / 60
        tested = evaluate(done.model, arguments.data, "test", output=output / "test")
        cells = (f"{found['map']:.3f} / {found['map_50']:.3f}" for found in (done.metrics, tested))
        print(f"| {title} | {' | '.join(cells)} | {minutes:.1f} |", flush=True)


if __name__ == "__main__":
    main()
