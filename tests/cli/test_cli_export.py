"""`export` and `benchmark` pass on what they are given, and end in one line where it cannot be."""

import json

import pytest

from keras_detect import cli, data, export, inference
from keras_detect.inference import BenchmarkRow
from tests import tiny


def run(*arguments):
    return cli.run(cli.parse(["keras-detect", *(str(argument) for argument in arguments)])) or 0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    tiny.tiny_ssd().save(path)
    return path


def test_export_passes_its_options_on(model, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(export, "export_model", lambda model, path, format, **options: calls.append((format, options)))
    assert run("export", "--model", model, "--output", tmp_path / "out", "--format", "saved_model") == 0
    sized = ("--batch_size", "any", "--image_size", 48, 64, "--precision", "int8", "--data", "cells")
    assert run("export", "--model", model, "--output", tmp_path / "out.tflite", *sized) == 0
    (first, defaults), (second, options) = calls
    assert (first, defaults["batch_size"], defaults["image_size"], defaults["images"]) == ("saved_model", 1, None, None)
    assert (second, options["batch_size"], options["image_size"]) == (None, None, (48, 64))
    assert (options["precision"], options["representative_data"]) == ("int8", "cells")


@pytest.mark.parametrize("command", ["export", "benchmark"])
def test_a_split_of_the_calibration_images_can_be_named(command, model, tmp_path, monkeypatch, capsys):
    calls, loaded = [], []
    monkeypatch.setattr(export, "export_model", lambda *_, **options: calls.append(options["representative_data"]))
    monkeypatch.setattr(
        inference, "benchmark", lambda *_, **options: calls.append(options["representative_data"]) or []
    )
    monkeypatch.setattr(data, "load_dataset", lambda *given, **options: loaded.append((given, options)) or "photos")
    where = ("--model", model, *(("--output", tmp_path / "out.onnx") if command == "export" else ()))
    assert run(command, *where, "--data", "cells", "--split", "test") == 0
    assert calls == ["photos"] and loaded[0][0] == ("cells", "test")
    assert run(command, *where, "--split", "test") == 2
    assert "--split names a part of --data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output", "out.h5"), "format is determined by the file suffix"),
        (("--output", "out", "--format", "saved"), "Unknown export format 'saved'. Did you mean saved_model"),
        (("--output", "out", "--precision", "float8"), "Unknown precision 'float8' of saved_model"),
        (("--output", "out", "--images", "nowhere.jpg"), "No such image or folder: nowhere.jpg"),
    ],
)
def test_what_cannot_be_exported_ends_in_one_line(model, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert run("export", "--model", model, *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_beyond_the_tolerance_is_a_failure(model, tmp_path, monkeypatch, capsys):
    def differs(*_, **__):
        raise export.ExportError("The file does not detect what predict detects.")

    monkeypatch.setattr(export, "export_model", differs)
    assert run("export", "--model", model, "--output", tmp_path / "out") == 2
    assert "does not detect what predict detects" in capsys.readouterr().err


def test_benchmark_prints_a_table_and_writes_rows(model, tmp_path, monkeypatch, capsys):
    rows = [BenchmarkRow(runtime="predict", precision="float32", latency=1.25, throughput=9.0, megabytes=3.0)]
    monkeypatch.setattr(inference, "benchmark", lambda model, runtimes, precisions, **options: rows)
    assert run("benchmark", "--model", model, "--repeats", 2, "--output", tmp_path / "rows.json") == 0
    assert "| predict | float32 | 1.2 | 9.0 | 3 |" in capsys.readouterr().out
    assert json.loads((tmp_path / "rows.json").read_text())["rows"][0]["latency"] == 1.25


@pytest.mark.parametrize("command", ["export", "benchmark"])
def test_an_image_size_of_three_numbers_is_refused(command, model, tmp_path, capsys):
    assert run(command, "--model", model, "--output", tmp_path / "x.json", "--image_size", 64, 64, 3) == 2
    assert "one side, or height and width. Received 3 numbers." in capsys.readouterr().err
