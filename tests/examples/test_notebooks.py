"""The notebooks on upstream's checkpoints and on your own backbone, run whole."""

import re

from tests.examples.notebooks import outputs_of


def test_come_from_the_old_api(tmp_path, monkeypatch):
    """Weights that upstream trained, in upstream's container: the detections are the preset's."""
    text = outputs_of("come_from_the_old_api", tmp_path, monkeypatch)
    assert re.search(r"\b[1-9]\d* detections are those of the preset", text)
    assert "Person" in text and "best: " in text
    assert "RandomChoice(operations=(" in text  # of the config's training: upstream's ssd_random_crop
    assert "detection_multiclass_scores" in text
    assert text.count("image/png") == 1
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"old", "old.keras", "saved_model"}


def test_your_own_backbone(tmp_path, monkeypatch):
    text = outputs_of("your_own_backbone", tmp_path, monkeypatch)
    assert "C5 stride 32 (1, 2, 2, 80)" in text
    assert "val_map" in text and "objects: " in text
    assert text.count("image/png") == 1
    assert (tmp_path / "work" / "detector.keras").is_file()
