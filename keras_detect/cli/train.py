"""`keras-detect train`: wraps `keras_detect.training.train`."""

import sys

from keras_detect.cli._data import DATA_HELP, add_max_pixels
from keras_detect.cli._metrics import print_metrics
from keras_detect.cli._parser import choice, image_size

# of `training.augmentations`, `training.start` and `training.architectures`, which load Keras
AUGMENTATIONS = ("none", "flip", "crop", "microscopy")
DEFAULT_START = "ssd_mobilenet_v2_oidv4"
ARCHITECTURES = ("ssd", "retinanet", "efficientdet", "faster_rcnn", "mask_rcnn", "centernet")
PRECISIONS = ("bfloat16", "float16")

HELP = "train a detector on a folder of annotated images"
EXAMPLE = "--data cells --output runs/cells"
_CHOSEN = "default: depends on the architecture"
_NECK = "neck of the new detector: ssd, fpn, bifpn or a registered name; default: depends on the architecture"


def add_arguments(parser):
    _add_data(parser)
    _add_model(parser)
    _add_recipe(parser)
    _add_run(parser)


def _add_data(parser):
    group = parser.add_argument_group("data")
    group.add_argument("--data", required=True, help=DATA_HELP)
    group.add_argument("--train_split", help="split to train on; default: train if it exists, else all images")
    group.add_argument("--validation_split", help="split that selects the best epoch; default: val if it exists")
    group.add_argument(
        "--validation_fraction",
        type=float,
        help="fraction of the training images to use for validation, drawn with --seed; 0: no validation, the last "
        "epoch is kept; default: 0.2 if the data has no validation split",
    )
    add_max_pixels(group)
    group.add_argument("--cache", action="store_true", help="keep decoded images in memory")
    group.add_argument(
        "--skip_check", action="store_true", help="skip the check that decodes every image before training starts"
    )


def _add_model(parser):
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=DEFAULT_START,
        help="preset, .keras file, or backbone for a new detector; default: %(default)s",
    )
    group.add_argument(
        "--architecture",
        type=choice(*ARCHITECTURES),
        metavar="|".join(ARCHITECTURES),
        help="build a new detector on the backbone of --model: ssd (fast, a head per feature map), retinanet (feature "
        "pyramid), efficientdet (BiFPN, small heads), faster_rcnn (two stages, slower, precise boxes), mask_rcnn "
        "(masks too, from annotations with polygons or masks) or centernet (no anchors, objects by their centers; "
        "keypoints too, from annotations with keypoints); "
        "default: fine-tune --model itself, or ssd if --model is a backbone",
    )
    group.add_argument("--neck", help=_NECK)
    group.add_argument(
        "--image_size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="input size: one side, or height and width; default: the model's own; for a new detector 320 (ssd), 512 "
        "(efficientdet, centernet) or 640 (retinanet, faster_rcnn, mask_rcnn)",
    )
    group.add_argument(
        "--freeze",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="layers not to train: names or paths with wildcards ('backbone', 'backbone/conv_?_*'), or a regular "
        "expression; default: none",
    )
    group.add_argument(
        "--mixed_precision",
        nargs="?",
        const="bfloat16",
        type=choice(*PRECISIONS),
        metavar="|".join(PRECISIONS),
        help="compute in bfloat16 (wide range, CPUs and recent GPUs) or float16 (with loss scaling), weights stay in "
        "float32; without a value: bfloat16; default: the model's precision",
    )


def _add_recipe(parser):
    group = parser.add_argument_group(
        "recipe",
        "options not given are chosen from the architecture, starting weights, data and batch size, printed, and saved "
        "in run.json",
    )
    group.add_argument(
        "--epochs", type=int, help="passes over the training images; default: more for smaller data sets"
    )
    group.add_argument("--batch_size", type=int, help=f"images per step; {_CHOSEN}")
    group.add_argument(
        "--learning_rate",
        type=float,
        help="peak learning rate of the cosine schedule; default: depends on architecture and starting weights, scaled "
        "by the square root of batch size / 8",
    )
    group.add_argument(
        "--ema_momentum", type=float, help=f"momentum of the averaged weights (EMA), 0 to disable; {_CHOSEN}"
    )
    group.add_argument(
        "--early_stopping",
        type=int,
        metavar="EPOCHS",
        help="stop after this many epochs without a better val_map, 0 to disable; default: half of the epochs",
    )
    group.add_argument(
        "--augment",
        type=choice(*AUGMENTATIONS),
        metavar="|".join(AUGMENTATIONS),
        help="none; flip (horizontal flips); crop (flip, plus crops around objects, color jitter); microscopy (crop, "
        f"plus vertical flips and 90-degree rotations); {_CHOSEN}",
    )


def _add_run(parser):
    group = parser.add_argument_group("run")
    group.add_argument("--output", required=True, help="folder for model.keras, history.csv, curve.png, metrics.json")
    group.add_argument("--resume", action="store_true", help="continue an interrupted run in --output, if there is one")
    group.add_argument("--overwrite", action="store_true", help="start over even if --output contains a model")
    group.add_argument(
        "--evaluate_every", type=int, help="epochs between evaluations; default: about 25 evaluations in total"
    )
    group.add_argument(
        "--checkpoint_every",
        type=int,
        metavar="STEPS",
        help="also save a checkpoint every STEPS steps; default: once per epoch",
    )
    group.add_argument(
        "--tensorboard", action="store_true", help="also write curves and images with detections for TensorBoard"
    )
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        help="random seed for weights, order, augmentation and split; default: %(default)s",
    )


def run(arguments):
    from keras_detect.training import train

    recipe = ("epochs", "batch_size", "learning_rate", "ema_momentum", "early_stopping", "augment")
    result = train(
        arguments.model,
        arguments.data,
        output=arguments.output,
        resume=arguments.resume,
        train_split=arguments.train_split,
        validation_split=arguments.validation_split,
        validation_fraction=arguments.validation_fraction,
        architecture=arguments.architecture,
        neck=arguments.neck,
        image_size=image_size(arguments.image_size),
        freeze=arguments.freeze,
        mixed_precision=arguments.mixed_precision,
        evaluate_every=arguments.evaluate_every,
        cache=arguments.cache,
        check=not arguments.skip_check,
        seed=arguments.seed,
        overwrite=arguments.overwrite,
        checkpoint_every=arguments.checkpoint_every,
        tensorboard=arguments.tensorboard,
        verbose=1 if sys.stdout.isatty() else 2,  # a bar for a person, one line per epoch for a log
        **{name: getattr(arguments, name) for name in recipe if getattr(arguments, name) is not None},
    )
    print(f"{result.presentations:,} images seen in {result.minutes:.1f} minutes")
    print(f"model of epoch {result.best_epoch + 1}: {result.output / 'model.keras'}")
    if result.metrics is not None:
        print_metrics(result.metrics)
    return 0
