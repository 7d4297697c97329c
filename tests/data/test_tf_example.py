"""`tf.Example`s: upstream's decoder on the same records, real records, shards, and what is wrong with others."""

import numpy as np
import pytest

from keras_detect.data import load_dataset, masks, read_label_map, shapes_dataset
from keras_detect.data.record import Defects, box_areas
from keras_detect.data.tf_example import build_example, parse_example
from keras_detect.data.tf_record import read, write
from keras_detect.transforms.resizers import FixedShapeResizer
from tests import goldens
from tests.goldens import golden_cases


def serialized_records(path):
    import tensorflow as tf

    return list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())


@golden_cases("decoder/*")
def test_upstreams_decoder(case):
    """With a label map the text decides the class (record 0 has label 9 and the texts cat, bird, dog)."""
    kind, number = case.name.split("/")[1:]
    serialized = serialized_records(goldens.golden("units2.tfrecord"))[int(number)]
    found = parse_example(serialized)
    count, size = len(found["boxes"]), found["size"]
    ids = found["class_ids"]
    if kind != "nolabelmap":
        label_map = read_label_map(goldens.golden("units2_label_map.pbtxt"))
        by_text = label_map.ids_by_text()
        ids = np.array([by_text.get(text, -1) for text in found["texts"] or ()], np.int64)
    actual = {
        "groundtruth_boxes": found["boxes"],
        "groundtruth_classes": ids,
        "groundtruth_area": found.get("areas", np.zeros(0)),
        "groundtruth_is_crowd": found.get("is_crowd", np.zeros(count, bool)),
        "groundtruth_difficult": found.get("is_difficult", np.zeros(count, bool)),
        "groundtruth_group_of": found.get("is_group_of", np.zeros(count, bool)),
        "groundtruth_weights": found.get("weights", np.ones(count, np.float32)),
        "original_image_spatial_shape": np.array(size),
        "groundtruth_image_confidences": found.get("image_confidences", np.zeros(0)),
        "groundtruth_verified_neg_classes": found.get("verified_neg_classes", np.zeros(0)),
        "groundtruth_not_exhaustive_classes": found.get("not_exhaustive_classes", np.zeros(0)),
        "groundtruth_image_classes": found.get("image_classes", np.zeros(0)),
        "groundtruth_instance_masks": masks.stack(found.get("masks", ()), size),
        "groundtruth_instance_mask_weights": found.get("mask_weights", np.ones(count)),
        "groundtruth_keypoints": found.get("keypoints", np.zeros((0, 2, 2))),
        "groundtruth_keypoint_visibilities": found.get("keypoint_visibility", np.zeros((0, 2))) > 0,
    }
    for name, expected in case.outputs.items():
        if name == "image":
            import io

            from keras_detect.data.image import read_image

            np.testing.assert_array_equal(read_image(io.BytesIO(found["encoded"])), expected)
        elif expected.dtype == np.float32:
            np.testing.assert_allclose(actual[name], expected, rtol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(np.asarray(actual[name]).astype(expected.dtype), expected, err_msg=name)


def test_a_real_record_equals_its_coco_twin():
    """pets_examples.record was written by upstream's tools; instances.json beside it holds the same boxes."""
    pets = goldens.require_shared("data/pets_record")
    record, coco = (load_dataset(pets, format=name) for name in ("tfrecord", "coco"))
    assert (len(record), len(record.class_names)) == (10, 37)
    twins = {entry.file_name: entry for entry in coco.records}
    for entry in record.records:
        twin = twins[entry.file_name]
        np.testing.assert_allclose(entry.boxes, twin.boxes, atol=2e-5)
        assert [record.class_names[label] for label in entry.labels] == [coco.class_names[i] for i in twin.labels]
        np.testing.assert_array_equal(entry.image.read(), twin.image.read())
    assert len(load_dataset(pets, "val", format="tfrecord")) == 1
    named = load_dataset(pets, format="tfrecord", class_names=coco.class_names)
    assert named.class_names == coco.class_names
    assert sorted(map(int, np.concatenate([r.labels for r in named.records]))) == list(range(10))


def test_batches_read_images_out_of_the_record():
    pets = goldens.require_shared("data/pets_record")
    resizer = FixedShapeResizer(height=32, width=32)
    record, coco = (load_dataset(pets, format=name) for name in ("tfrecord", "coco"))
    order = {entry.file_name: number for number, entry in enumerate(coco.records)}
    coco = coco.subset([order[entry.file_name] for entry in record.records])
    for (ours, y), (theirs, _) in zip(record.batches(resizer, 5), coco.batches(resizer, 5), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert y["boxes"].shape == (5, 1, 4)


def test_shards(tmp_path):
    data = shapes_dataset(7, image_size=(20, 30))
    paths = write(data, tmp_path, split="train", shards=3)
    assert [path.name for path in paths] == [f"train.record-0000{i}-of-00003" for i in range(3)]
    assert not list(tmp_path.glob("part_of_*"))
    for path in (tmp_path, paths[1]):
        again = load_dataset(path)
        assert [record.file_name for record in again.records] == [record.file_name for record in data.records]
        np.testing.assert_array_equal(again[5]["image"], data[5]["image"])
    assert len(load_dataset(tmp_path, "train")) == 7
    with pytest.raises(ValueError, match=r"no split 'val'.*Available: train"):
        load_dataset(tmp_path, "val")
    paths[2].unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of the 3 shards of train: 00002"):
        load_dataset(tmp_path)
    with pytest.raises(ValueError, match="shards=0"):
        write(data, tmp_path, shards=0)


def test_a_damaged_file_is_named(tmp_path):
    data = shapes_dataset(4, image_size=(20, 30))
    (path,) = write(data, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 30])
    with pytest.raises(ValueError, match=r"data.record-00000-of-00001 is damaged or truncated after 3 records"):
        load_dataset(tmp_path)
    defects = Defects(collect=True)
    assert len(read(tmp_path, defects=defects)) == 3
    assert defects.counts() == {"damaged record files": 1}
    path.write_bytes(b"\x1f\x8b" + content)
    with pytest.raises(ValueError, match=r"is compressed.*gunzip"):
        load_dataset(tmp_path)


def example(**features):
    """A serialized example with one red image of 4 x 2 and the given features."""
    import tensorflow as tf

    (record,) = shapes_dataset(1, image_size=16).records
    parsed = tf.train.Example.FromString(build_example(record, shapes_dataset(1).class_names))
    for key in [key for key in parsed.features.feature if key.startswith("image/object")]:
        del parsed.features.feature[key]
    for key, values in features.items():
        feature = parsed.features.feature[key.replace("__", "/")]
        if isinstance(values[0], str | bytes):
            feature.bytes_list.value.extend([v.encode() if isinstance(v, str) else v for v in values])
        elif isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(values)
    return parsed.SerializeToString()


BOX = {f"image/object/bbox/{side}": [value] for side, value in zip(("ymin", "xmin"), (0.0, 0.25), strict=True)}
BOX |= {f"image/object/bbox/{side}": [value] for side, value in zip(("ymax", "xmax"), (0.5, 1.0), strict=True)}


def test_numerical_masks():
    """256 numbers for one box on 16 x 16: 1 in the first row."""
    found = parse_example(example(**BOX, **{"image/object/mask": [1.0] * 16 + [0.0] * 240}))
    assert masks.stack(found["masks"], (16, 16)).sum(axis=2)[0].tolist() == [16] + [0] * 15
    assert box_areas(found["boxes"]).tolist() == [0.375]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"image/object/bbox/ymin": [0.1, 0.2]}, "2 boxes .* 1 xmin"),
        ({"image/object/class/text": ["a", "b"]}, "1 boxes .* 2 class texts"),
        ({"image/object/mask": [1.0, 0.0]}, "2 mask pixels for 1 boxes on 16 x 16"),
        ({"image/object/keypoint/x": [0.5]}, "1 x, 0 y and 0 visibilities"),
    ],
)
def test_columns_that_do_not_fit(features, message):
    with pytest.raises(ValueError, match=message):
        parse_example(example(**(BOX | features)))


def test_what_is_no_example():
    with pytest.raises(ValueError, match=r"not a tf.Example"):
        parse_example(b"\xff\xff\xff")
    with pytest.raises(ValueError, match="no image"):
        parse_example(b"")


def test_shards_of_two_writings_are_refused(tmp_path):
    """3 shards and then 1: read together, every image would be there twice."""
    data = shapes_dataset(5, image_size=32)
    write(data, tmp_path, shards=3)
    write(data, tmp_path, shards=1)
    with pytest.raises(ValueError, match=r"holds data twice: in 1 and in 3 shards"):
        load_dataset(tmp_path)
