"""`--help` describes every option and every choice; `--version`."""

import argparse

import pytest

import keras_detect
from keras_detect import cli
from keras_detect.cli._parser import Parser
from keras_detect.inference.compiled import RUNTIMES
from keras_detect.registry import EXPORTERS

COMMANDS = cli.commands()


def options(name):
    """`(option, help as printed)` of a command's own options."""
    parser = Parser(prog=name)
    COMMANDS[name].add_arguments(parser)
    for action in parser._actions:
        if action.help != argparse.SUPPRESS and "help" not in action.dest:
            yield action, (action.help or "") % {**vars(action), "prog": name}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_choice_is_described(name):
    for action, text in options(name):
        assert len(text.split()) > 1, f"{name}: {action.dest} is not described: {text!r}"
        for choice in str(action.metavar).split("|") if "|" in str(action.metavar) else ():
            assert choice in text, f"{name}: {action.dest} does not describe {choice}"


def test_export_describes_what_the_formats_offer():
    described = {action.dest: text for action, text in options("export")}
    for format in EXPORTERS.names():
        exporter = EXPORTERS.get(format)
        assert format in described["format"]
        assert all(precision in described["precision"] for precision in exporter.precisions)
        assert all(signature in described["signature"] for signature in exporter.signatures)


def test_benchmark_describes_its_runtimes():
    described = {action.dest: text for action, text in options("benchmark")}
    assert all(runtime in described["runtimes"] for runtime in RUNTIMES)


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.parse(["keras-detect", "--version"])
    assert not end.value.code
    assert capsys.readouterr().out == f"keras-detect {keras_detect.__version__}\n"
