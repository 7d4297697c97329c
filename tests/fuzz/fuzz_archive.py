"""Fuzz target of the archives that models come in (`.tar`, `.tar.gz`); outside CI.

    pip install atheris
    python -m tests.fuzz.fuzz_archive -max_total_time=600 -max_len=20000 -timeout=5 -rss_limit_mb=2048 FOLDER

FOLDER keeps the inputs; where it is empty, small archives are written into it first. The first byte of an input says
whether the rest is read as it is, or packed by gzip first. Any bytes must end in a whole folder or an `ArchiveError` of
one line, and no member may lie outside, be named twice, or be larger than the limits. Checksums of headers are not
compared here, because a fuzzer does not guess them.
"""

import gzip
import importlib
import io
import pathlib
import random
import sys

import atheris

import keras_detect  # noqa: F401 - uninstrumented: Keras and TensorFlow are not what is tested

MODULE = "keras_detect.weights.archives"
del sys.modules[MODULE]
with atheris.instrument_imports(include=[MODULE]):
    archives = importlib.import_module(MODULE)

LIMITS = archives.Limits(members=50, member_bytes=100_000, total_bytes=1_000_000)
archives._has_its_checksum = lambda block: block != bytes(512)


def one_input(data):
    content = gzip.compress(data[1:], 1) if data[:1] == b"z" else data[1:]
    seen, total = set(), 0
    try:
        reader = archives._Reader(io.BytesIO(content), LIMITS, "fuzz.tar")
        for path, is_folder, size in reader.members():
            if path.is_absolute() or ".." in path.parts or (not is_folder and path in seen):
                raise AssertionError(f"accepted {path}")
            if not is_folder:
                seen.add(path)
            got = sum(len(chunk) for chunk in iter(reader.data, b""))
            total += got
            if got != size or total > LIMITS.total_bytes or len(seen) > LIMITS.members:
                raise AssertionError(f"{got} bytes of {size} of {path}")
    except archives.ArchiveError as error:
        text = str(error)
        if not text.isprintable() or len(text) > 1000 or not text.startswith("fuzz.tar: "):
            raise AssertionError(f"not one short line: {error!r}") from error


def seeds(folder):
    """Archives of the generator test."""
    from tests.weights.test_archives import generated

    for number in range(60):
        content = generated(random.Random(number))
        (folder / f"seed_{number}").write_bytes(b"r" + content)
        if content[:2] == b"\x1f\x8b":
            continue
        (folder / f"seed_{number}_packed").write_bytes(b"z" + content)


def main():
    folders = [pathlib.Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    for folder in folders[:1]:
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            seeds(folder)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
