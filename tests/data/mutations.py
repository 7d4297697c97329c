"""Spoiled data sets, the same from the same seed: small good ones of every format, and what is done to one file."""

import io
import json
import pathlib
import shutil
import struct
import zlib

import numpy as np
from PIL import Image

from keras_detect.data import shapes_dataset, write_dataset
from keras_detect.data.label_map import write_label_map
from keras_detect.data.tf_example import build_example
from tests.data.mutation import Mutation, changed, written
from tests.data.mutations_of_text import of_coco, of_text, of_voc

NAMES = ["circle", "star"]
IMAGES = {"a.jpg": "JPEG", "b.png": "PNG", "c.bmp": "BMP", "d.gif": "GIF", "e.webp": "WEBP", "f.tif": "TIFF"}


def write_bases(folder):
    """Writes the good data sets, one folder each: the formats, and one with an image of every kind."""
    drawn = shapes_dataset(3, image_size=48, class_names=NAMES, empty_share=0.0)
    for format in ("coco", "voc", "yolo", "csv", "tfrecord"):
        write_dataset(drawn, folder / format, format)
    write_dataset(drawn, folder / "json_map", "tfrecord")
    (folder / "json_map" / "label_map.pbtxt").unlink()
    write_label_map(folder / "json_map" / "label_map.json", drawn.class_names)
    images = folder / "images" / "images"
    images.mkdir(parents=True)
    for number, (name, format) in enumerate(IMAGES.items()):
        image = Image.fromarray(drawn[number % 3]["image"]).resize((64 + number, 48))
        image.save(images / name, format)
    entries = [{"id": i, "file_name": name, "width": 64 + i, "height": 48} for i, name in enumerate(IMAGES)]
    rows = [{"id": i, "image_id": i, "category_id": 1, "bbox": [4, 4, 20, 20]} for i in range(len(entries))]
    content = {"images": entries, "annotations": rows, "categories": [{"id": 1, "name": "circle"}]}
    (folder / "images" / "instances.json").write_text(json.dumps(content))


def mutations(seed=0):
    """All of them, in an order that depends on the seed alone."""
    rng = np.random.default_rng(seed)
    files = [("images", f"images/{name}") for name in IMAGES]
    files += [("coco", "instances.json"), ("voc", "Annotations/shapes_0_00000.xml"), ("csv", "annotations.csv")]
    files += [("yolo", "data.yaml"), ("yolo", "labels/train/shapes_0_00000.txt")]
    files += [("tfrecord", "data.record-00000-of-00001"), ("tfrecord", "label_map.pbtxt")]
    files += [("json_map", "label_map.json")]
    made = [mutation for base, file in files for mutation in _of_bytes(base, file, rng)]
    made += [*_of_images(), *of_coco(), *of_voc(), *of_text(), *_of_records()]
    names = [mutation.name for mutation in made]
    if len(set(names)) < len(names):
        raise ValueError("two mutations have the same name")
    return made


# --------------------------------------------------------------------------------------------------------------- bytes


def _of_bytes(base, file, rng):
    """What can happen to any file."""
    seeds = rng.integers(0, 2**31, 9)
    cuts = {"half of it": 0.5, "nine tenths of it": 0.9, "ten bytes of it": 10}
    yield Mutation(base, file, "empty", lambda path: path.write_bytes(b""), seen=not file.endswith(".txt"))
    for what, part in cuts.items():
        yield Mutation(base, file, what, changed(lambda c, p=part: c[: p if p > 1 else int(len(c) * p)]))
    for number in range(3):
        yield Mutation(base, file, f"a flipped bit ({number})", changed(_flipped, seeds[number], 1))
        yield Mutation(base, file, f"2 % of the bytes drawn anew ({number})", changed(_noisy, seeds[3 + number], 0.02))
        yield Mutation(base, file, f"flipped bits at the start ({number})", changed(_flipped, seeds[6 + number], 4, 64))
    yield Mutation(base, file, "zeros", changed(lambda c: bytes(len(c))), seen=True)
    yield Mutation(base, file, "noise", changed(_noisy, seeds[0], 1.0), seen=True)
    yield Mutation(base, file, "twice", changed(lambda c: c + c))
    yield Mutation(base, file, "backwards", changed(lambda c: c[::-1]), seen=True)
    yield Mutation(base, file, "UTF-16", changed(lambda c: c.decode("latin-1").encode("utf-16")))
    yield Mutation(
        base, file, "a byte 255 inside", changed(lambda c: c[: len(c) // 2] + b"\xff\xfe" + c[len(c) // 2 :])
    )
    yield Mutation(base, file, "a folder", _a_folder, seen=True)
    yield Mutation(base, file, "a link to itself", _linked(lambda path: path), seen="map" not in file)
    yield Mutation(base, file, "a link to endless zeros", _linked(lambda path: "/dev/zero"), seen=True)


def _flipped(content, seed, count, within=None):
    rng, changed = np.random.default_rng(seed), bytearray(content)
    for place in rng.integers(0, min(within or len(content), len(content)), count):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _noisy(content, seed, share):
    rng, changed = np.random.default_rng(seed), np.frombuffer(content, np.uint8).copy()
    where = rng.random(len(changed)) < share
    changed[where] = rng.integers(0, 256, where.sum())
    return changed.tobytes()


def _a_folder(path):
    path.unlink()
    path.mkdir()


def _linked(target):
    def spoil(path):
        path.unlink()
        path.symlink_to(target(path))

    return spoil


# ------------------------------------------------------------------------------------------------------------ images


def _of_images():
    def one(file, what, content):
        return Mutation("images", f"images/{file}", what, written(content), seen=True)

    yield one("b.png", "a bomb: 60000 x 60000 pixels in the header", lambda: png_bytes(60000, 60000))
    yield one("b.png", "a bomb: 20000 x 20000 black pixels", lambda: png_bytes(20000, 20000, 20000))
    yield one("b.png", "2**31 - 1 pixels wide", lambda: png_bytes(2**31 - 1, 1))
    yield one("b.png", "no pixels wide", lambda: png_bytes(0, 48))
    yield one("b.png", "99 bits deep", lambda: png_bytes(65, 48, depth=99))
    yield one("b.png", "64 MiB of compressed text", lambda: png_bytes(65, 48, 48, text=64 * 2**20))
    yield one("b.png", "8000 x 8000 pixels and none of them", lambda: png_bytes(8000, 8000))
    yield one("c.bmp", "2**30 rows", lambda: _bmp(1 << 30))
    yield one("c.bmp", "-2**31 rows", lambda: _bmp(-(1 << 31)))
    yield one("d.gif", "65535 x 65535", b"GIF89a\xff\xff\xff\xff\x00\x00\x00," + bytes(4) + b"\xff\xff\xff\xff\x00\x08")
    yield one("f.tif", "a directory that is its own next", b"II*\x00\x08\x00\x00\x00\x00\x00\x08\x00\x00\x00")
    yield one(
        "f.tif", "an entry of 4 GiB", b"II*\x00\x08\x00\x00\x00\x01\x00\x00\x01\x04\x00\xff\xff\xff\xff" + bytes(8)
    )
    yield one("a.jpg", "65500 x 65500 in the header", lambda: _jpeg(65500, 65500))
    yield one("a.jpg", "no rows", lambda: _jpeg(0, 64))
    yield one("a.jpg", "text of a web page", "<!DOCTYPE html><title>404</title>")
    yield one("a.jpg", "PostScript", "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n{} loop\n%%EOF\n")
    yield one("a.jpg", "a PPM of 100000 x 100000", "P6\n100000 100000\n255\nabc")
    yield one("a.jpg", "an SVG", '<svg xmlns="http://www.w3.org/2000/svg"/>')
    yield one("a.jpg", "another size than annotated", lambda: _saved(Image.new("RGB", (20, 30)), "JPEG"))
    yield one("a.jpg", "CMYK", lambda: _saved(Image.new("CMYK", (64, 48)), "JPEG"))
    yield one("a.jpg", "gray", lambda: _saved(Image.new("L", (64, 48)), "JPEG"))
    yield one(
        "a.jpg", "an EXIF that ends early", lambda: _saved(Image.new("L", (64, 48)), "JPEG", exif=b"Exif\0\0II*\0\x08")
    )
    yield one("b.png", "16 bits", lambda: _saved(Image.fromarray(np.full((48, 65), 300, np.uint16)), "PNG"))
    yield one("f.tif", "floating-point pixels", lambda: _saved(Image.new("F", (69, 48), float("nan")), "TIFF"))


def png_bytes(width, height, rows=0, depth=8, text=0):
    """A PNG with any header, `rows` rows of black pixels, and a compressed text of `text` bytes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer, packed = zlib.compressobj(9), []
    for _ in range(rows):
        packed.append(packer.compress(bytes(1 + 3 * width)))
    note = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(text), 9)) if text else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", b"".join(packed) + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + header + note + pixels + chunk(b"IEND", b"")


def _bmp(rows):
    content = bytearray(_saved(Image.new("RGB", (66, 48)), "BMP"))
    content[22:26] = struct.pack("<i", rows)
    return bytes(content)


def _jpeg(height, width):
    """A small JPEG whose frame header says another size."""
    content = bytearray(_saved(Image.new("RGB", (64, 48)), "JPEG"))
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def _saved(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------------------- records


def _of_records():
    file = "data.record-00000-of-00001"

    def one(what, change, seen=True):
        return Mutation("tfrecord", file, what, _with_example(change), seen)

    def feature(key, value):
        return lambda example, key=key, value=value: example.features.feature[key].CopyFrom(_feature(value))

    odd = {
        "text": [b"x"],
        "NaN": [float("nan")],
        "Infinity": [float("inf")],
        "1e38": [1e38],
        "-5": [-5],
        "2**62": [2**62],
    }
    odd |= {"nothing": [], "two values": [0.1, 0.2], "1 MB": [b"a" * 10**6]}
    boxes = [f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax")]
    rest = ["image/height", "image/object/class/label", "image/object/class/text", "image/object/mask"]
    rest += ["image/object/area", "image/object/weight", "image/object/is_crowd", "image/object/keypoint/x"]
    rest += ["image/encoded", "image/filename", "image/source_id"]
    for key in [boxes[0], boxes[3], *rest]:
        for what, value in odd.items():
            yield one(f"{key}: {what}", feature(key, value), seen=key == "image/encoded")
    yield one("a bomb as image", feature("image/encoded", [png_bytes(60000, 60000)]))
    yield one("a cut image", lambda example: _cut_image(example))
    yield one("a mask that is no image", feature("image/object/mask", [b"mask"]))
    yield one("a mask that is a bomb", feature("image/object/mask", [png_bytes(60000, 60000)]))
    yield one("no feature", lambda example: example.Clear())
    framed = {
        "a record of 2**60 bytes": struct.pack("<Q", 2**60),
        "a record of 8 GiB": struct.pack("<Q", 2**33),
        "a record of 2**64 - 1 bytes": b"\xff" * 8,
    }
    for what, length in framed.items():
        head = length + struct.pack("<I", masked_crc(length))
        yield Mutation("tfrecord", file, what, changed(lambda c, h=head: c + h + bytes(100)), seen=True)
        yield Mutation("tfrecord", file, f"{what}, the first", changed(lambda c, h=head: h + c), seen=True)
    for what, record in {"an empty record": b"", "a record of noise": bytes(range(256)), "text": b"a" * 1000}.items():
        yield Mutation("tfrecord", file, what, changed(lambda c, r=record: c + framed_record(r)), seen=True)
    nested = b""
    for _ in range(2000):
        nested = b"\x0a" + _varint(len(nested)) + nested
    yield Mutation("tfrecord", file, "2000 messages deep", changed(lambda c: c + framed_record(nested)), seen=True)
    yield Mutation("tfrecord", file, "compressed", changed(lambda c: b"\x1f\x8b" + zlib.compress(c)), seen=True)


def _feature(value):
    import tensorflow as tf

    if value and isinstance(value[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=value))
    if value and isinstance(value[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=value))
    return tf.train.Feature(float_list=tf.train.FloatList(value=value))


def _with_example(change):
    def spoil(path):
        import tensorflow as tf

        records = shapes_dataset(2, image_size=48, class_names=NAMES, empty_share=0.0, max_objects=1).records
        examples = [tf.train.Example.FromString(build_example(record, NAMES)) for record in records]
        change(examples[0])
        path.write_bytes(b"".join(framed_record(example.SerializeToString()) for example in examples))

    return spoil


def _cut_image(example):
    encoded = example.features.feature["image/encoded"].bytes_list
    encoded.value[0] = encoded.value[0][: len(encoded.value[0]) // 2]


def _varint(number):
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def framed_record(content):
    """A record as a TFRecord file holds it."""
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked_crc(length)) + content + struct.pack("<I", masked_crc(content))


def masked_crc(content):
    """TFRecord's checksum: CRC-32C, rotated right by 15 bits, plus a constant."""
    value = 0xFFFFFFFF
    for byte in content:
        value = _CRC[(value ^ byte) & 255] ^ (value >> 8)
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_row(value):
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC = [_crc_row(value) for value in range(256)]


def spoiled(mutation, bases, folder):
    """Copies the good data set into `folder` and spoils it; returns the corrupted file."""
    shutil.copytree(bases / mutation.base, folder)
    path = pathlib.Path(folder) / mutation.file
    mutation.spoil(path)
    return path
