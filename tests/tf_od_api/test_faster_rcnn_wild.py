"""Real `faster_rcnn` configs of TensorFlow 1, as users have them: every one is built, or its reason is one of a few."""

import re

import pytest

import keras_detect
from keras_detect.text_proto.node import PipelineConfigError
from keras_detect.tf_od_api import build_faster_rcnn
from tests import goldens, tiny
from tests.networks import undrawn

pytestmark = [pytest.mark.slow, pytest.mark.backend_free]

TYPE = re.compile(r"""type\s*:\s*['"](faster_rcnn_(?:resnet\d+|inception_v2|inception_resnet_v2|nas))['"]""")
#: file -> why upstream does not read it either
WRONG: dict[str, str] = {}


def paths():
    found = sorted((goldens.SHARED / "data" / "configs_wild").glob("*.config"))
    return [path for path in found if TYPE.search(path.read_text(errors="replace"))]


@pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)
def test_a_users_config_is_built(path, monkeypatch):
    """Around a small backbone: what a file's extractor is made of, the goldens say."""
    monkeypatch.setattr(build_faster_rcnn, "get_backbone", lambda name: lambda **_: tiny.TinyBackbone(name="backbone"))
    if path.name in WRONG:
        with pytest.raises(PipelineConfigError, match=WRONG[path.name]):
            keras_detect.from_pipeline_config(path)
        return
    if TYPE.search(path.read_text(errors="replace"))[1] == "faster_rcnn_nas":
        with pytest.raises(PipelineConfigError, match="'faster_rcnn_nas' is of upstream's TF1, not built yet"):
            keras_detect.from_pipeline_config(path)
        return
    with undrawn():
        model = keras_detect.from_pipeline_config(path)
    assert isinstance(model, keras_detect.RFCN) == ("rfcn_box_predictor" in path.read_text(errors="replace"))
