"""Images of strangers: one entry, one error, a limit on pixels, and what `check` passes training decodes."""

import io
import json
import random
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_detect import cli
from keras_detect.data import DetectionDataset, check_dataset, load_dataset, pixel_limit, shapes_dataset, write_dataset
from keras_detect.data.image import (
    MAX_PIXELS,
    MAX_SIDE,
    ImageError,
    as_pixels,
    check_decodes,
    find_image,
    read_image,
)
from keras_detect.data.record import REFUSED
from keras_detect.transforms.resizers import FixedShapeResizer, IdentityResizer
from keras_detect.visualization import draw_boxes
from tests.data.mutations import png_bytes

SIZE = (36, 28)
MODES = {"PNG": ("RGB", "L", "P", "1", "RGBA", "LA", "I;16"), "JPEG": ("RGB", "L", "CMYK"), "GIF": ("P",)}
MODES |= {"WEBP": ("RGB", "RGBA"), "BMP": ("RGB", "L"), "TIFF": ("RGB", "CMYK", "I;16")}


def image(mode, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 256)
    return Image.fromarray(pixels).convert(mode)


def saved(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def rows_missing(mode, depth, channels, rows, interlaced=0):
    """A PNG whose compressed pixels end, in good order, before the last row."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    width, height = SIZE
    head = struct.pack(">IIBBBBB", width, height, depth, mode, 0, 0, interlaced)
    pixels = zlib.compress(rows * (b"\0" + bytes(width * channels * depth // 8)))
    palette = chunk(b"PLTE", bytes(768)) if mode == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + palette + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def good():
    """`{name: bytes}` of every format and mode, also progressive, interlaced-like and with restart markers."""
    made = {}
    for format, modes in MODES.items():
        for mode in modes:
            made[f"{format}_{mode.replace(';', '')}.{format.lower()}"] = saved(image(mode), format)
    made["progressive.jpg"] = saved(image("RGB"), "JPEG", progressive=True)
    made["restart.jpg"] = saved(image("RGB"), "JPEG", restart_marker_rows=1)
    made["color444.jpg"] = saved(image("RGB"), "JPEG", subsampling=0, quality=100)
    made["two.gif"] = saved(image("P"), "GIF", save_all=True, append_images=[image("P", 1)])
    made["transparent.png"] = saved(image("P"), "PNG", transparency=3)
    return made


def spoiled(seed=0):
    """`{name: bytes}` of 260 seeded images that were cut, changed in the header or anywhere, or called otherwise."""
    drawn, originals, made = random.Random(seed), list(good().items()), {}
    for number in range(260):
        name, content = originals[number % len(originals)]
        changed, ending = bytearray(content), name.rsplit(".", 1)[1]
        what = ("cut", "header", "bytes", "ending", "marked", "joined")[number // len(originals) % 6]
        if what == "cut":
            changed = changed[: drawn.randrange(len(changed))]
        elif what in ("header", "bytes"):
            for _ in range(drawn.randrange(1, 9)):
                place = drawn.randrange(min(64, len(changed)) if what == "header" else len(changed))
                changed[place] = drawn.choice((0, 255, 127, drawn.randrange(256)))
        elif what == "ending":
            ending = drawn.choice(("png", "jpg", "gif", "webp", "bmp", "tif"))
        elif what == "marked":  # cut, with the mark that says that it is whole
            changed = changed[: drawn.randrange(len(changed) // 2, len(changed))]
            changed += b"\xff\xd9" if ending in ("jpg", "jpeg") else content[-12:]
        else:
            changed = changed[: len(changed) // 2] + bytearray(drawn.choice(originals)[1][len(changed) // 2 :])
        made[f"{number:03d}_{what}.{ending}"] = bytes(changed)
    for number, (mode, depth, channels) in enumerate(((2, 8, 3), (0, 8, 1), (2, 16, 3), (3, 8, 1), (6, 8, 4))):
        for rows in (1, SIZE[1] - 1):
            made[f"rows_{number}_{rows}.png"] = rows_missing(mode, depth, channels, rows)
    return made


def coco(folder, images):
    """A COCO folder of these images, without their sizes."""
    (folder / "images").mkdir(parents=True)
    for name, content in images.items():
        (folder / "images" / name).write_bytes(content)
    entries = [{"id": i, "file_name": name} for i, name in enumerate(images)]
    rows = [{"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 5, 5]} for i in range(len(entries))]
    content = {"images": entries, "annotations": rows, "categories": [{"id": 1, "name": "c"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def test_every_good_kind_is_passed_and_decoded_alike(tmp_path):
    folder = coco(tmp_path / "data", good())
    report = check_dataset(folder)
    assert report.ok and report.images == len(good())
    data = load_dataset(folder)
    for (x, _), record in zip(data.batches(IdentityResizer(), 1), data.records, strict=True):
        x = np.asarray(x["images"] if isinstance(x, dict) else x)[0]
        difference = np.abs(x.astype(int) - as_pixels(record.image.path).astype(int))
        assert difference.max() <= 1, record.file_name


def test_what_check_passes_training_decodes(tmp_path):
    """Of 270 corrupted images: each is refused with one line by the one error, or every decoder takes it."""
    images = spoiled()
    assert len(images) >= 200
    folder = coco(tmp_path / "data", images)
    passed, refused = {}, 0
    for name in images:
        path = str(folder / "images" / name)
        try:
            found = find_image(path)
            check_decodes(found, found.encoded(), name)
            passed[name] = images[name]
        except ImageError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 900 and str(error).isprintable(), error
        try:
            assert as_pixels(path).shape[2] == 3
        except ImageError as error:
            assert name in str(error)
    assert refused > 80 and len(passed) > 40
    report = check_dataset(folder)
    assert not report.ok and report.images == len(passed)
    assert sum(row[2] for row in report.rows() if row[0] == REFUSED) == refused
    whole = coco(tmp_path / "passed", passed)
    assert check_dataset(whole).ok
    data = load_dataset(whole)
    assert sum(len(y["labels"]) for _, y in data.batches(FixedShapeResizer(height=8, width=8), 16)) == len(passed)
    assert len([example["image"] for example in data]) == len(passed)


@pytest.mark.parametrize("rows", [0, 1, SIZE[1] - 1])
def test_a_png_with_missing_rows(rows, tmp_path):
    """Pillow shows black rows; TensorFlow's decoder, which training uses, refuses."""
    folder = coco(tmp_path, {"a.png": rows_missing(2, 8, 3, rows)})
    report = check_dataset(folder)
    assert not report.ok and "a.png" in str(report)


# ------------------------------------------------------------------------------------------------------------ the limit

BOMBS = {
    "wide": lambda: png_bytes(170_000_000, 1),
    "high": lambda: png_bytes(1, 170_000_000),
    "square": lambda: png_bytes(13_000, 13_000),
    "beyond Pillow's limit": lambda: png_bytes(60_000, 60_000),
    "a little too large": lambda: png_bytes(MAX_PIXELS // 8192 + 1, 8192),
    "largest sides": lambda: png_bytes(2**31 - 1, 2**31 - 1),
    "a GIF": lambda: b"GIF89a\xff\xff\xff\xff\x00\x00\x00," + bytes(4) + b"\xff\xff\xff\xff\x00\x08",
    "a PPM": lambda: b"P6\n100000 100000\n255\nabc",
}


@pytest.mark.parametrize("what", BOMBS)
def test_too_many_pixels_are_refused_by_the_header(what, tmp_path, monkeypatch, recwarn):
    """In every place where images enter, and before anything is decoded."""
    path = tmp_path / "a.png"
    path.write_bytes(BOMBS[what]())
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    for enter in (
        lambda: find_image(path),
        lambda: read_image(path),
        lambda: as_pixels(path),
        lambda: as_pixels(path.read_bytes()),
        lambda: draw_boxes(path, [], []),
        lambda: DetectionDataset.from_examples([{"image": path, "boxes": [], "labels": []}], ["a"]),
    ):
        started = time.process_time()
        with pytest.raises(ImageError, match=r"pixels \(width x height\). The limit is 67,108,864.*--max_pixels"):
            enter()
        assert time.process_time() - started < 1
    folder = coco(tmp_path / "data", {"a.png": path.read_bytes()})
    with pytest.raises(ImageError, match=r"a\.png.*The limit is"):
        load_dataset(folder)
    report = check_dataset(folder)
    assert not report.ok and "a.png" in str(report)
    assert not recwarn.list


def test_the_option(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    saved_ = saved(Image.new("RGB", (40, 30)), "PNG")
    path.write_bytes(saved_)
    folder = coco(tmp_path / "data", {"a.png": saved_})
    for limit in (1199, 1200):
        calls = [
            lambda limit=limit: as_pixels(path, max_pixels=limit).shape,
            lambda limit=limit: load_dataset(folder, max_pixels=limit)[0]["image"].shape,
        ]
        for call in calls:
            if limit == 1200:
                assert call() == (30, 40, 3)
            else:
                with pytest.raises(ImageError, match="The limit is 1,199"):
                    call()
    assert check_dataset(folder, max_pixels=1200).ok and not check_dataset(folder, max_pixels=1199).ok
    with pixel_limit(1199):
        for call in (
            lambda: as_pixels(path),
            lambda: draw_boxes(Image.open(path), [], []),
            lambda: load_dataset(folder),
        ):
            with pytest.raises(ImageError):
                call()
    with pixel_limit(10**9):
        data = load_dataset(folder)
        assert as_pixels(path).shape == (30, 40, 3)
    assert data.records[0].image.max_pixels == 10**9 and data.check().ok
    for wrong in (0, -1, True, 1.5, "many", 10**400 - 10**400):
        with pytest.raises(ValueError, match="max_pixels must be a positive integer"), pixel_limit(wrong):
            pass
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow raises from twice its own limit
    assert as_pixels(path).shape == load_dataset(folder)[0]["image"].shape == (30, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 500


def test_the_option_in_the_shell(tmp_path, capsys):
    folder = coco(tmp_path / "data", {"a.png": saved(Image.new("RGB", (40, 30)), "PNG")})
    run = lambda *arguments: cli.run(cli.parse(["keras-detect", *map(str, arguments)]))  # noqa: E731
    assert run("check", "--data", folder) == 0
    assert run("check", "--data", folder, "--max_pixels", 1000) == 1
    capsys.readouterr()
    command = ("convert_data", "--data", folder, "--to", "voc", "--output", tmp_path / "out")
    assert run(*command, "--max_pixels", 1000) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "40 x 30 = 1,200 pixels" in error and "--max_pixels" in error
    assert not (tmp_path / "out").exists()
    assert run(*command) == 0


def test_batches_of_one_size_are_bounded():
    """A tall and a wide image, each within the limit, would make batches of 8 GiB per image."""
    images = [np.zeros((50_000, 1, 3), np.uint8), np.zeros((1, 50_000, 3), np.uint8)]
    data = DetectionDataset.from_arrays(images, [[[0, 0, 1, 1]]] * 2, [[0]] * 2, ["a"])
    with pytest.raises(ValueError, match="50000 x 50000 pixels"):
        data.batches(IdentityResizer(), 1)


def test_a_damaged_image_is_named_by_evaluate(tmp_path, capsys):
    from keras_detect.evaluation import evaluate
    from tests.tiny import tiny_ssd

    model = tiny_ssd(num_classes=2, class_names=["circle", "star"])
    data = shapes_dataset(3, image_size=48, class_names=["circle", "star"], empty_share=0.0)
    write_dataset(data, tmp_path / "data", "coco")
    (tmp_path / "data" / "images" / "shapes_0_00001.png").write_bytes(rows_missing(2, 8, 3, 5))
    with pytest.raises(ValueError):  # another size than annotated
        evaluate(model, tmp_path / "data", progress=False)
    content = json.loads((tmp_path / "data" / "instances.json").read_text())
    for entry in content["images"]:
        del entry["height"], entry["width"]
    (tmp_path / "data" / "instances.json").write_text(json.dumps(content))
    for output in (None, tmp_path / "report"):
        with pytest.raises(ImageError, match=r"shapes_0_00001\.png"):
            evaluate(model, tmp_path / "data", output=output, progress=False)


@pytest.mark.parametrize("size", [(MAX_SIDE + 1, 1), (1, 3_000_000), (60_000_000, 1)])
def test_a_side_is_bounded_however_few_the_pixels(tmp_path, size):
    """Resizing 60,000,000 x 1 pixels to 300 x 300 takes 200 GB on the way."""
    folder = coco(tmp_path / "data", {"long.png": saved(Image.new("1", size), "PNG")})
    path = folder / "images" / "long.png"
    for source in (path, path.read_bytes(), np.zeros((size[1], size[0]), bool)):
        with pytest.raises(ImageError, match=f"has {size[0]} x {size[1]} pixels .* longest side supported is 65500"):
            as_pixels(source, max_pixels=2**40)
    assert not check_dataset(folder).ok
