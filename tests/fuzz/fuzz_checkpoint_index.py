"""Fuzz target of the reader of checkpoint indices (LevelDB tables, Snappy, bundle entries); outside CI.

    pip install atheris
    python tests/fuzz/fuzz_checkpoint_index.py -max_total_time=600 -timeout=5 -rss_limit_mb=2048 FOLDER

FOLDER keeps the inputs; where it is empty, it is filled with small tables first. Any bytes must end in entries or a
`TableError` of one line. A block's checksum is compared with the constant 0 here, which the seeds hold: a fuzzer does
not guess checksums, and would see nothing behind them.
"""

import importlib
import pathlib
import sys

import atheris

import keras_detect  # noqa: F401 - uninstrumented: Keras and TensorFlow are not what is tested
from tests.weights import tables

MODULES = ("keras_detect.weights.sorted_table", "keras_detect.weights.checkpoint_file")
for name in MODULES:
    del sys.modules[name]
with atheris.instrument_imports(include=list(MODULES)):
    sorted_table, checkpoint_file = (importlib.import_module(name) for name in MODULES)

sorted_table.masked_crc32c = tables.masked_crc32c = lambda data: 0


def one_input(data):
    try:
        entries, shards = checkpoint_file.read_index(data)
    except sorted_table.TableError as error:
        if "\n" in str(error) or len(str(error)) > 1000:
            raise AssertionError(f"not one short line: {error!r}") from error
        return
    if not 0 < shards <= 10_000 or any(
        min((0, *entry.shape, entry.offset, entry.size)) < 0 for entry in entries.values()
    ):
        raise AssertionError("an entry that cannot be")


def seeds(folder):
    """Tables of one and two blocks, plain and packed."""
    from tensorflow.core.protobuf import tensor_bundle_pb2

    header = tensor_bundle_pb2.BundleHeaderProto(num_shards=2).SerializeToString()
    rows = [(b"", header)]
    for number in range(6):
        entry = tensor_bundle_pb2.BundleEntryProto(
            dtype=1,
            shape={"dim": [{"size": 3}, {"size": number}]},
            shard_id=number % 2,
            offset=7,
            size=12 * number,
            crc32c=9,
        )
        rows.append((b"model/layer_%d/kernel" % number, entry.SerializeToString()))
    for packed in (False, True):
        one = tables.table([(b"~", tables.block(rows))], packed)
        two = tables.table([(rows[3][0], tables.block(rows[:4])), (b"~", tables.block(rows[4:]))], packed)
        (folder / f"one_{packed}").write_bytes(one)
        (folder / f"two_{packed}").write_bytes(two)


if __name__ == "__main__":
    arguments = [pathlib.Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    if arguments and not any(arguments[0].iterdir()):
        seeds(arguments[0])
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
