"""The command `keras-detect`: one file of this package per sub-command, each a thin wrapper around a library function.

A file whose name does not start with an underscore is a sub-command of that name. It has `HELP` (what it does, in one
line), `EXAMPLE` (its arguments in the examples of `--help`), `add_arguments(parser)` and `run(arguments)`, which
returns the exit status. At module level it imports nothing that loads Keras: `--help` answers at once
(`startup.py`).
"""

import argparse
import importlib
import pkgutil
import sys
import warnings

from absl import app, logging

import keras_detect
from keras_detect.cli._parser import Parser, did_you_mean
from keras_detect.cli._signals import interrupting
from keras_detect.messages import one_line
from keras_detect.startup import load_package


def main():
    """Entry point of the console script."""
    try:
        app.run(run, flags_parser=parse)
    except KeyboardInterrupt:  # before or after the sub-command
        print("keras-detect: stopped by Ctrl-C.", file=sys.stderr)
        sys.exit(130)


def commands():
    """`{name: module}` of every sub-command."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return {name: importlib.import_module(f"{__name__}.{name}") for name in sorted(names)}


def parse(arguments):
    """Parses `sys.argv` for the sub-command; exits with status 2 and one line if it is invalid."""
    known = commands()
    examples = "\n".join(f"  keras-detect {name} {command.EXAMPLE}" for name, command in known.items())
    parser = Parser(
        prog="keras-detect",
        description="Train, evaluate, run and export object detectors.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"keras-detect {keras_detect.__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="|".join(known))
    parsers = {}
    for name, command in known.items():
        parsers[name] = subparser = subparsers.add_parser(
            name,
            help=command.HELP,
            description=f"{command.HELP[0].upper()}{command.HELP[1:]}.",
            epilog=f"example:\n  keras-detect {name} {command.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.add_argument("--debug", action="store_true", help="show the full traceback on errors")
        subparser.set_defaults(run=command.run)
    given = next((argument for argument in arguments[1:] if not argument.startswith("-")), None)
    if given is None and not {"-h", "--help", "--helpfull", "--version"} & set(arguments[1:]):
        parser.error(f"expects a command: {', '.join(known)}")
    if given is not None and given not in known:
        parser.error(f"unknown command '{given}'. {did_you_mean(given, known)}")
    if given is not None:
        parsers[given].check_options(arguments[arguments.index(given) + 1 :])
    return parser.parse_args(arguments[1:])


def run(arguments):
    """Runs a sub-command. Invalid input gives one line on stderr and status 2; a bug keeps its traceback.

    A diverged training run exits with status 1, Ctrl-C with 130 and SIGTERM with 143, also in one line.
    """
    logging.set_verbosity(logging.WARNING)
    warnings.filterwarnings(
        "ignore", module=r"PIL\."
    )  # its warnings about damaged files; the command reports them itself
    try:
        load_package()  # a signal until here ends the process: `startup.end_when_stopped`
        from keras_detect.data import pixel_limit
        from keras_detect.training.divergence import TrainingDiverged
    except (ValueError, OSError) as error:
        return _failed(arguments, error, 2)
    with interrupting() as received:
        try:
            with pixel_limit(getattr(arguments, "max_pixels", None)):
                return arguments.run(arguments)
        except (ValueError, OSError) as error:
            return _failed(arguments, error, 2)
        except TrainingDiverged as error:
            return _failed(arguments, error, 1)
        except KeyboardInterrupt as error:
            message = f"stopped by {received.name}. {one_line(error, 4000) or 'No output was written.'}"
            return _failed(arguments, error, received.status, message)


def _failed(arguments, error, status, message=None):
    """Prints the error in one line and returns the exit status; with `--debug`, raises it."""
    if arguments.debug:
        raise error
    print(f"keras-detect {arguments.command}: {message or one_line(error, 4000)}", file=sys.stderr)
    return status
