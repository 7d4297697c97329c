"""Refuses numbers in a `pipeline.config` that nothing sensible is built from: NaN, infinite, negative, absurd ones."""

import collections

from keras_detect.config_bounds import MAX_LIST, bound
from keras_detect.messages import shown
from keras_detect.text_proto.node import Node


def check_numbers(message: Node) -> None:
    """Holds every number that is written in a message, and below it, to its row of `config_bounds.BOUNDS`.

    Raises `PipelineConfigError` with file, line and field.
    """
    counts: collections.Counter = collections.Counter()
    for node, name, scalar, value in message.numbers():
        limits = bound(name, node.name)
        if not limits.holds(value):
            raise node.error(name, f"found {shown(scalar.text, 40)}; supported: {limits}", line=scalar.line)
        counts[id(node), name] += 1
        if counts[id(node), name] > MAX_LIST:
            raise node.error(name, f"has more than the {MAX_LIST} values that are supported")
