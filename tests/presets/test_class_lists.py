"""Class names of the zoo's data sets, and the rows of TensorFlow 1's zoo that use them."""

import pytest

from keras_detect.data.label_map import read_label_map
from keras_detect.presets import class_list, class_list_names, get, names
from keras_detect.presets.tf1_faster_rcnn import TF1_FASTER_RCNN_PRESETS
from tests import goldens

pytestmark = pytest.mark.backend_free

WILD = {
    "open_images_v4": "61c__PeopleDetector__oid_v4_label_map.pbtxt",
    "inaturalist_2854": "61c__PeopleDetector__fgvc_2854_classes_label_map.pbtxt",
    "ava_v2.1": "61c__PeopleDetector__ava_label_map_v2.1.pbtxt",
    "faces": "61c__PeopleDetector__face_label_map.pbtxt",
    "snapshot_serengeti": "hojihun5516__Object_Detection_TF2_PORORO__snapshot_serengeti_label_map.pbtxt",
    "coco": "61c__PeopleDetector__mscoco_label_map.pbtxt",
}


def test_names_stand_at_their_ids():
    assert class_list_names() == sorted({*WILD, "kitti"})
    assert class_list("kitti") == ("car", "pedestrian") and class_list("faces") == ("face",)
    assert {name: len(class_list(name)) for name in ("coco", "ava_v2.1", "open_images_v4", "inaturalist_2854")} == {
        "coco": 90,
        "ava_v2.1": 80,
        "open_images_v4": 601,
        "inaturalist_2854": 2854,
    }
    assert class_list("open_images_v4")[0] == "Tortoise" and class_list("inaturalist_2854")[-1] == "Haemorhous cassinii"
    # ids 2 and 16 of AVA are left out of the evaluation, and of upstream's map
    assert class_list("ava_v2.1")[:3] == ("bend/bow (at the waist)", "unused id 2", "crouch/kneel")
    for name in class_list_names():
        assert len(set(class_list(name))) == len(class_list(name))


def test_an_unknown_list_is_refused():
    with pytest.raises(ValueError, match=r"Unknown class list 'open_images_v5'. Did you mean .*open_images_v4"):
        class_list("open_images_v5")


@pytest.mark.parametrize("name", WILD)
def test_the_names_are_upstreams(name):
    wild = goldens.require_shared("data/label_maps_wild") / WILD[name]
    label_map = read_label_map(wild)
    found = dict(zip(label_map.names, label_map.class_names, strict=True))
    for number, text in enumerate(class_list(name), start=1):
        assert text == found.get(number, f"unused id {number}")


def test_the_rows_of_tensorflow_1_are_those_of_the_published_table():
    table = {}
    for line in goldens.require_shared("zoo.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[-1].endswith(".tar.gz`") and "/" not in cells[-1]:
            table[cells[-1].strip("`")] = cells
    rows = {row.archive: row for row in TF1_FASTER_RCNN_PRESETS}
    built = {archive for archive in table if archive.startswith(("faster_rcnn", "mask_rcnn", "rfcn"))}
    assert {archive for archive in built if "_nas_" not in archive} == set(rows)
    for archive, row in rows.items():
        *speed, published, outputs, _ = table[archive][1:]
        assert row.published_figure[1] == (float(published) if published else None), archive
        assert row.speed_ms == (float(speed[0]) if speed else None), archive
        assert ("masks" in row.outputs) == (outputs == "Masks"), archive
        assert row.url == f"https://download.tensorflow.org/models/object_detection/{archive}"
        assert row.name in names() and get(row.name) is row
