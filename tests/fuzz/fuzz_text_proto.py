"""Fuzz target of the reader of protobuf texts (`pipeline.config`, `.pbtxt`, a checkpoint's state file); outside CI.

    pip install atheris
    python tests/fuzz/fuzz_text_proto.py -max_total_time=600 -timeout=5 -rss_limit_mb=2048 [folder of seeds]

Any text must end in a `Node` or a `PipelineConfigError` of one line, and every walk over the node must end too.
"""

import importlib
import sys

import atheris

import keras_detect  # noqa: F401 - uninstrumented: Keras and TensorFlow are not what is tested

for name in [name for name in sys.modules if name.startswith("keras_detect.text_proto")]:
    del sys.modules[name]
with atheris.instrument_imports(include=["keras_detect.text_proto"]):
    parser = importlib.import_module("keras_detect.text_proto.parser")
    node = importlib.import_module("keras_detect.text_proto.node")

KINDS = (bool, int, float, str, ("RELU", "SIGMOID"), {"A": 1})


def walk(message):
    """Reads every field as every kind, as the builders of models do."""
    for name in message.names():
        for kind in KINDS:
            try:
                message.repeated(name, kind)
            except node.PipelineConfigError as error:
                check(error)
        try:
            children = message.repeated(name)
        except node.PipelineConfigError as error:
            check(error)
            continue
        for child in children:
            walk(child)


def check(error):
    if "\n" in str(error) or len(str(error)) > 1000:
        raise AssertionError(f"not one short line: {error!r}")


def one_input(data):
    text = data.decode("utf-8", "replace")
    try:
        message = parser.parse(text, "fuzz.config")
    except node.PipelineConfigError as error:
        check(error)
        return
    message.unread()
    list(message.numbers())
    walk(message)
    message.unread()
    try:
        message.refuse_unread()
    except node.PipelineConfigError as error:
        check(error)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
