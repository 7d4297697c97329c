"""The script that trained the packaged preset still builds the model that is packaged."""

import importlib.util
import json
import pathlib

from absl import flags

from keras_detect.presets import config_json, packaged
from tests import networks

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "frcnn_inception_v100" / "train.py"


def test_the_script_builds_what_is_packaged(monkeypatch):
    """Equal but for the resizer, which the script exchanges when it ships, and what the weights started from."""
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    for name in ("string", "integer"):
        define = getattr(flags, f"DEFINE_{name}")
        own = lambda *given, _define=define, **options: _define(*given, **{**options, "flag_values": values})  # noqa: E731
        monkeypatch.setattr(flags, f"DEFINE_{name}", own)
    spec = importlib.util.spec_from_file_location("train_frcnn_inception_v100", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    values(["train.py", "--data", "bccd", "--output", "runs"])
    with networks.undrawn():
        model = script.build_faster_rcnn(["Platelets", "RBC", "WBC"])
    config = json.loads((packaged.FOLDER / "frcnn_inception_v100" / "config.json").read_text())["config"]
    built = config_json.serialized(model)["config"]
    assert model.count_params() == 3_399_598
    other = {"resizer": None, "started_from": None}
    assert {**_unnamed(built), **other} == {**_unnamed(config), **other}


def _unnamed(config):
    """Without the names of whole models, to which Keras adds a count."""
    if isinstance(config, dict):
        return {key: _unnamed(value) for key, value in config.items() if key != "name"}
    return [_unnamed(value) for value in config] if isinstance(config, list) else config
