"""`keras-detect train`: covers `keras_detect.training.train`."""

import sys

from keras_detect.cli._data import add_max_pixels
from keras_detect.cli._metrics import print_metrics
from keras_detect.cli._parser import choice, image_size

# of `training.augmentations`, `training.start` and `training.architectures`, which load Keras
AUGMENTATIONS = ("none", "flip", "crop", "microscopy")
DEFAULT_START = "ssd_mobilenet_v2_oidv4"
ARCHITECTURES = ("ssd", "retinanet", "efficientdet", "faster_rcnn")
PRECISIONS = ("bfloat16", "float16")

HELP = "train a detector on a folder of annotated images"
EXAMPLE = "--data cells --output runs/cells"
_CHOSEN = "default: from the architecture"


def add_arguments(parser):
    _add_data(parser)
    _add_model(parser)
    _add_recipe(parser)
    _add_run(parser)


def _add_data(parser):
    group = parser.add_argument_group("data")
    group.add_argument("--data", required=True, help="folder or file: COCO, VOC, YOLO, CSV or TFRecord")
    group.add_argument("--train_split", help="split to train on; default: train where there is one, else everything")
    group.add_argument("--validation_split", help="split to choose the best epoch on; default: val where there is one")
    group.add_argument(
        "--validation_fraction",
        type=float,
        help="share of the training images to hold back for it, chosen by --seed; 0: no validation, the last epoch is "
        "kept; default: 0.2 where the data have no split for it",
    )
    add_max_pixels(group)
    group.add_argument("--cache", action="store_true", help="keep the decoded images in memory")
    group.add_argument("--skip_check", action="store_true", help="do not decode every image before the first epoch")


def _add_model(parser):
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model", default=DEFAULT_START, help="preset, .keras file, or backbone of a new detector (%(default)s)"
    )
    group.add_argument(
        "--architecture",
        type=choice(*ARCHITECTURES),
        metavar="|".join(ARCHITECTURES),
        help="build a new detector around the backbone of --model: ssd (fast, a head on each map), retinanet (feature "
        "pyramid), efficientdet (BiFPN, small heads) or faster_rcnn (two stages, slower, precise boxes); default: "
        "--model as it is, ssd around a backbone",
    )
    group.add_argument(
        "--neck", help="of the new detector: ssd, fpn, bifpn or one of yours; default: the architecture's"
    )
    group.add_argument(
        "--image_size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="side, or height and width, to which images are resized; default: the model's, new ssd 320, retinanet and "
        "faster_rcnn 640, efficientdet 512",
    )
    group.add_argument(
        "--freeze",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="keep weights as they are: names or paths of layers, * for any text ('backbone', 'backbone/conv_?_*'), "
        "or a regular expression (nothing is frozen)",
    )
    group.add_argument(
        "--mixed_precision",
        nargs="?",
        const="bfloat16",
        type=choice(*PRECISIONS),
        metavar="|".join(PRECISIONS),
        help="compute in half precision, keep weights in float32; bfloat16 if no value follows (the model's precision)",
    )


def _add_recipe(parser):
    group = parser.add_argument_group(
        "recipe",
        "what is not given is chosen by architecture, start, images and batch size, printed, and kept in run.json",
    )
    group.add_argument("--epochs", type=int, help="passes over the images; default: the more, the fewer images")
    group.add_argument("--batch_size", type=int, help=f"images per step; {_CHOSEN}")
    group.add_argument(
        "--learning_rate",
        type=float,
        help="peak of the cosine; default: from architecture and start, times the square root of batch size / 8",
    )
    group.add_argument("--ema_momentum", type=float, help=f"of the averaged weights, 0 for none; {_CHOSEN}")
    group.add_argument(
        "--early_stopping",
        type=int,
        metavar="EPOCHS",
        help="end after so many epochs without a better val_map, 0 for never; default: half of the epochs",
    )
    group.add_argument(
        "--augment",
        type=choice(*AUGMENTATIONS),
        metavar="|".join(AUGMENTATIONS),
        help="none; flip (left and right); crop (flip, crops around objects, colours); microscopy (crop, upside down, "
        f"quarter turns); {_CHOSEN}",
    )


def _add_run(parser):
    group = parser.add_argument_group("run")
    group.add_argument("--output", required=True, help="folder for model.keras, history.csv, curve.png, metrics.json")
    group.add_argument("--resume", action="store_true", help="go on with an interrupted run in --output, if any")
    group.add_argument("--overwrite", action="store_true", help="start anew where --output holds a model")
    group.add_argument("--evaluate_every", type=int, help="epochs between evaluations (about 25 evaluations in all)")
    group.add_argument("--checkpoint_every", type=int, metavar="STEPS", help="also within an epoch (one per epoch)")
    group.add_argument("--tensorboard", action="store_true", help="write curves and drawn images for TensorBoard too")
    group.add_argument("--seed", type=int, default=0, help="of weights, order, augmentation, split (%(default)s)")


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
    print(f"{result.presentations:,} image presentations in {result.minutes:.1f} minutes")
    print(f"model of epoch {result.best_epoch + 1}: {result.output / 'model.keras'}")
    if result.metrics is not None:
        print_metrics(result.metrics)
    return 0
