"""What a run starts from: new detectors by architecture, around any backbone; precision; frozen weights."""

import pytest

from keras_detect.data import shapes_dataset
from keras_detect.necks import BiFPN
from keras_detect.training.architectures import ARCHITECTURES
from keras_detect.training.start import Start
from tests import tiny

DATA = shapes_dataset(3, image_size=64, class_names=["circle", "square"])


@pytest.fixture(scope="module")
def ssd():
    return tiny.tiny_ssd(num_classes=2, class_names=DATA.class_names)


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - {"centernet"}))
def test_every_architecture_around_a_backbone(architecture, capsys):
    model, start = Start("tests_tiny", architecture, image_size=64).build(DATA)
    assert type(model) is ARCHITECTURES[architecture]
    assert (start, model.class_names) == ("random", ("circle", "square"))
    assert capsys.readouterr().out == "starts from random weights\n"


def test_a_backbone_without_stride_4_makes_no_centernet():
    with pytest.raises(ValueError, match=r"backbone levels C2 \(stride 4\)"):
        Start("tests_tiny", "centernet", image_size=64).build(DATA)


def test_a_new_detector_around_the_backbone_of_another(ssd, capsys):
    model, start = Start(ssd, "faster_rcnn", neck="bifpn", image_size=64).build(DATA)
    assert (type(model), start) == (ARCHITECTURES["faster_rcnn"], "random")  # the backbone is random as well
    assert isinstance(model.feature_extractor.neck, BiFPN)
    assert model.feature_extractor.backbone is ssd.feature_extractor.backbone
    trained = tiny.tiny_ssd(num_classes=2)
    trained.started_from = "'coco'"
    model, start = Start(trained, "ssd", image_size=64).build(DATA, verbose=0)
    assert (start, model.started_from) == ("backbone", "backbone of the 'coco'")


def test_a_model_as_it_is(ssd, tmp_path, capsys):
    assert Start(ssd).build(DATA, verbose=0) == (ssd, "random")
    ssd.save(tmp_path / "model.keras")
    model, start = Start(tmp_path / "model.keras", freeze="backbone").build(DATA)
    assert start == "detector"
    count = len([name for name in model.named_weights() if name.startswith("backbone/") and "moving" not in name])
    assert f"frozen: {count} of {len(model.named_weights())} weights" in capsys.readouterr().out
    assert Start(ssd).settings()["model"] == "SSD"


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_computes_in_it_and_keeps_the_weights(precision, ssd):
    model, _ = Start(ssd, mixed_precision=precision).build(DATA, verbose=0)
    assert model.dtype_policy.name == f"mixed_{precision}"
    policies = {layer.dtype_policy.name for layer in model.feature_extractor.backbone.layers}
    assert policies == {f"mixed_{precision}"}
    assert {str(weight.dtype) for weight in model.weights} == {"float32"}
    before, after = tiny.weights_of(ssd), tiny.weights_of(model)
    assert all((before[name] == value).all() for name, value in after.items())


def test_what_cannot_be_meant_is_refused(ssd):
    with pytest.raises(ValueError, match="Did you mean retinanet"):
        Start(architecture="retina_net")
    with pytest.raises(ValueError, match="bfloat16, float16, or None"):
        Start(mixed_precision="int8")
    for model in (ssd, "ssd_mobilenet_v2_oidv4"):
        with pytest.raises(ValueError, match=r"A neck can only be chosen for a new detector.*--architecture"):
            Start(model, neck="fpn")
    with pytest.raises(ValueError, match="Unknown weight or layer"):
        Start(ssd, freeze=["bakcbone"]).build(DATA, verbose=0)
