"""`argparse` with one-line errors that suggest the closest known name."""

import argparse
import difflib
import re

from absl.flags import argparse_flags

_NUMBERS = {"int": "an integer", "float": "a number"}


class Parser(argparse_flags.ArgumentParser):
    """An argument parser that suggests the closest option for an unknown one."""

    def __init__(self, **kwargs):
        self._options, self._offered = set(), []
        super().__init__(**kwargs)

    def add_argument(self, *names, **kwargs):
        self._note(names, kwargs)
        return super().add_argument(*names, **kwargs)

    def add_argument_group(self, *args, **kwargs):
        """A group whose options `check_options` knows, too."""
        group = super().add_argument_group(*args, **kwargs)
        add = group.add_argument

        def add_argument(*names, **kwargs):
            self._note(names, kwargs)
            return add(*names, **kwargs)

        group.add_argument = add_argument
        return group

    def _note(self, names, kwargs):
        self._options |= set(names)
        if kwargs.get("help") != argparse.SUPPRESS:  # absl's own flags work, and are not offered
            self._offered += [name for name in names if name.startswith("--")]

    def check_options(self, arguments):
        """Exits if an option is unknown; `argparse` itself would report a missing option first."""
        for argument in arguments:
            option = argument.split("=")[0]
            if option.startswith("--") and option not in self._options:
                self.error(f"unknown option {option}. {did_you_mean(option, self._offered)}")

    def error(self, message):
        message = re.sub(
            r"invalid (int|float) value: (.*)",
            lambda found: f"expects {_NUMBERS[found[1]]}. Received: {found[2]}",
            message,
        )
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def choice(*names):
    """The `type=` of an option that accepts one of these names."""

    def check(value):
        if value not in names:
            raise argparse.ArgumentTypeError(f"unknown value '{value}'. {did_you_mean(value, names)}")
        return value

    return check


def image_size(option_values, name="--image_size"):
    """The value of `--image_size` (or of the option `name`) in the form library functions expect: a side, or both.

    Raises:
        ValueError: more than two numbers.
    """
    if option_values is None:
        return None
    if len(option_values) > 2:
        raise ValueError(f"{name} expects one side, or height and width. Received {len(option_values)} numbers.")
    return option_values[0] if len(option_values) == 1 else tuple(option_values)


def did_you_mean(given, known):
    """A sentence with the names closest to `given`, or with all of them."""
    near = difflib.get_close_matches(given, list(known), n=3, cutoff=0.5)
    return f"Did you mean {', '.join(near)}?" if near else f"Known: {', '.join(known)}."
