"""Installs a wheel into fresh environments, plain and with each extra, and runs what each is for, in an empty folder.

    python tools/try_wheel.py dist/keras_detect-0.1.0-py3-none-any.whl [EXTRA ...]

By hand before a release: each environment is made by `venv` and pip, and takes minutes. `plain` stands for no extra; by
default all are tried but `test`, which every run of the tests tries. A line per environment says what was run; the exit
status is 1 if one failed.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
import tomllib
import venv

ROOT = pathlib.Path(__file__).resolve().parents[1]
_DETECT = """
import pathlib, keras_detect
photo = pathlib.Path(keras_detect.__file__).parent / "photos" / "control_room.jpg"
model = keras_detect.Model.from_preset("ssd_mobilenet_v2_oidv4")
found = model.detect(photo)
assert "Person" in found["class_names"]
"""
_BACKEND = _DETECT + "import keras; print('detects on', keras.backend.backend())"
_EXPORT = """
for name in ("detector.tflite", "detector.onnx", "detector.xml"):
    report = model.export(name, verbose=0)
    opened = keras_detect.inference.load_detector(name).detect(photo)
    assert list(opened["class_names"]) == list(found["class_names"]), name
print("writes and opens LiteRT, ONNX and OpenVINO files")
"""
_HUB = """
import huggingface_hub, kagglehub
try:
    keras_detect.Model.from_preset("hf://no-such-owner-of-a-preset/no-such-preset")
except (ValueError, OSError) as error:
    assert "pip install" not in str(error), error
print("asks Hugging Face:", huggingface_hub.__version__, "and Kaggle:", kagglehub.__version__)
"""
_TENSORBOARD = """
data = keras_detect.data.shapes_dataset(2, image_size=64, class_names=["circle", "square"])
model = keras_detect.SSD.from_backbone("mobilenet_v2", class_names=data.class_names, image_size=96)
model.compile()
model.fit(data.batches(model, 2), verbose=0, callbacks=[keras_detect.callbacks.TensorBoardImages("logs", data)])
print("writes", len(list(pathlib.Path("logs").rglob("events*"))), "files of events")
"""
_VIDEO = """
import cv2, numpy as np
from keras_detect import cli
clip = cv2.VideoWriter("clip.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 5, (320, 240))
for _ in range(3):
    clip.write(cv2.resize(cv2.imread(str(photo)), (320, 240)))
clip.release()
words = ["keras-detect", "predict", "--model", "ssd_mobilenet_v2_oidv4", "--images", "clip.mp4", "--output", "drawn"]
assert not cli.run(cli.parse(words))
print("detects in", len(pathlib.Path("drawn/clip.jsonl").read_text().splitlines()), "frames of a video")
"""
#: extra -> (environment variables, Python code)
FEATURES = {
    "jax": ({"KERAS_BACKEND": "jax"}, _BACKEND),
    "torch": ({"KERAS_BACKEND": "torch"}, _BACKEND),
    "tensorboard": ({}, _DETECT + _TENSORBOARD),
    "video": ({}, _DETECT + _VIDEO),
    "supervision": ({}, _DETECT + "print('hands over', len(found.to_supervision()), 'detections')"),
    "fiftyone": ({}, _DETECT + "print('hands over', len(found.to_fiftyone().detections), 'detections')"),
    "hub": ({}, _DETECT + _HUB),
    "export": ({}, _DETECT + _EXPORT),
}


def main(wheel, *extras):
    wheel = pathlib.Path(wheel).resolve(strict=True)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    chosen = extras or ("plain", *(name for name in known if name != "test"))
    failed = [name for name in chosen if not tried(wheel, name)]
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


def tried(wheel, extra):
    """Whether what the extra is for runs in an environment of its own."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        venv.create(place / "venv", with_pip=True)
        python, empty = place / "venv" / "bin" / "python", place / "empty"
        empty.mkdir()
        outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        requirement = str(wheel) if extra == "plain" else f"{wheel}[{extra}]"
        subprocess.run([python, "-m", "pip", "install", "-q", requirement], env=outside, check=True)
        status = run(python, empty, outside, extra)
    minutes = (time.monotonic() - start) / 60
    print(f"{extra}: {'FAILED' if status else 'passed'} in {minutes:.1f} minutes", flush=True)
    return not status


def run(python, folder, environment, extra):
    """The exit status of what an extra is for; of the plain package the commands, README's blocks and the demo."""
    if extra == "docs":
        site = [python, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
        return subprocess.run(site, cwd=ROOT, env=environment, check=False).returncode
    if extra != "plain":
        variables, code = FEATURES[extra]
        return subprocess.run([python, "-c", code], cwd=folder, env=environment | variables, check=False).returncode
    command = python.with_name("keras-detect")
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/docs/test_code_blocks.py"]
    steps = (
        ([command, "--version"], folder, {}),
        ([python, "-c", _DETECT], folder, {}),
        ([command, "demo"], folder, {}),
        ([*tests, "-k", "README or PACKAGE or quick_start"], ROOT, {"READER_PYTHON": str(python), "PYTHONPATH": "."}),
    )
    return max(
        subprocess.run(words, cwd=at, env=environment | more, check=False).returncode for words, at, more in steps
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
