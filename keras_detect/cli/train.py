"""`keras-detect train`: covers `keras_detect.training.train`."""

import sys

from keras_detect.cli._data import add_max_pixels
from keras_detect.cli._metrics import print_metrics
from keras_detect.cli._parser import choice

# of `training.run` and `training.start`, which load Keras
AUGMENTATIONS = ("none", "flip", "crop", "microscopy")
DEFAULT_START = "ssd_mobilenet_v2_oidv4"

HELP = "train a detector on a folder of annotated images"
EXAMPLE = "--data cells --train_split train --validation_split val --output runs/cells"


def add_arguments(parser):
    parser.add_argument("--data", required=True, help="folder or file: COCO, VOC, YOLO, CSV or TFRecord")
    add_max_pixels(parser)
    parser.add_argument("--train_split", help="split to train on; default: everything")
    parser.add_argument("--validation_split", help="split to choose the best epoch on")
    parser.add_argument("--model", default=DEFAULT_START, help="preset, backbone or .keras file (%(default)s)")
    parser.add_argument(
        "--image_size", type=int, nargs="+", help="side, or height and width (the model's; new SSD: 320)"
    )
    parser.add_argument("--epochs", type=int, default=60, help="(%(default)s)")
    parser.add_argument("--batch_size", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="peak of the cosine (%(default)s)")
    parser.add_argument("--ema_momentum", type=float, default=0.0, help="average the weights, such as 0.99 (none)")
    names = AUGMENTATIONS
    parser.add_argument("--augment", type=choice(*names), default="crop", metavar="|".join(names), help="(%(default)s)")
    parser.add_argument("--evaluate_every", type=int, default=1, help="epochs between evaluations (%(default)s)")
    parser.add_argument("--cache", action="store_true", help="keep the decoded images in memory")
    parser.add_argument("--skip_check", action="store_true", help="do not decode every image before the first epoch")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (%(default)s)")
    parser.add_argument("--output", required=True, help="folder for model.keras, history.csv, curve.png, metrics.json")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run in --output, if any")
    parser.add_argument("--overwrite", action="store_true", help="start anew where --output holds a model")
    parser.add_argument("--tensorboard", action="store_true", help="write curves and drawn images for TensorBoard too")
    parser.add_argument("--checkpoint_every", type=int, metavar="STEPS", help="also within an epoch (one per epoch)")


def run(arguments):
    from keras_detect.training import train

    size = arguments.image_size
    if size and len(size) > 2:
        raise ValueError(f"--image_size takes one side, or height and width. Received {len(size)} numbers.")
    result = train(
        arguments.data,
        arguments.output,
        train_split=arguments.train_split,
        validation_split=arguments.validation_split,
        model=arguments.model,
        image_size=(size[0] if len(size) == 1 else tuple(size)) if size else None,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        ema_momentum=arguments.ema_momentum,
        augment=arguments.augment,
        evaluate_every=arguments.evaluate_every,
        cache=arguments.cache,
        check=not arguments.skip_check,
        seed=arguments.seed,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        checkpoint_every=arguments.checkpoint_every,
        tensorboard=arguments.tensorboard,
        verbose=1 if sys.stdout.isatty() else 2,  # a bar for a person, one line per epoch for a log
    )
    print(f"{result.presentations:,} image presentations in {result.minutes:.1f} minutes")
    print(f"model of epoch {result.best_epoch + 1}: {result.output / 'model.keras'}")
    if result.metrics is not None:
        print_metrics(result.metrics)
    return 0
