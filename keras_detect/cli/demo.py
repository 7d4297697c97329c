"""`keras-detect demo`: wraps `run_demo` of `training/demo.py`."""

HELP = "detect objects in a photo, then fine-tune on synthetic shapes; offline, under three minutes"
EXAMPLE = "--output demo"


def add_arguments(parser):
    parser.add_argument(
        "--output", default="keras_detect_demo", help="folder for the images and the model; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed for data and weights; default: %(default)s")


def run(arguments):
    from keras_detect.training.demo import run_demo

    return 0 if run_demo(arguments.output, arguments.seed) else 1
