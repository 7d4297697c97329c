"""Writes the sorted tables in which TensorFlow keeps the index of a checkpoint, so that tests can forge them."""

import struct

from keras_detect.weights.crc32c import masked_crc32c

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)


def varint(number):
    content = bytearray()
    while number >= 0x80:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*content, number])


def block(entries, interval=16):
    """Entries `(key, value)` in order; every `interval`-th key is written whole, the others share their beginning."""
    content, restarts, last = bytearray(), [], b""
    for index, (key, value) in enumerate(entries):
        shared = 0
        if index % interval == 0:
            restarts.append(len(content))
        else:
            while shared < min(len(last), len(key)) and last[shared] == key[shared]:
                shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    return bytes(content) + struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", len(restarts))


def snappy(content):
    """Literals of 60 bytes, and copies for what stood in the 200 bytes before."""
    packed, position = bytearray(varint(len(content))), 0
    while position < len(content):
        piece = content[position : position + 8]
        earlier = content[max(0, position - 200) : position].rfind(piece) if len(piece) == 8 else -1
        if earlier >= 0:
            packed += bytes([7 << 2 | 2]) + struct.pack("<H", min(position, 200) - earlier)
            position += 8
        else:
            packed += bytes([0 << 2]) + content[position : position + 1]
            position += 1
    return bytes(packed)


def table(blocks, packed=False):
    """A whole table of data blocks (bytes) given as `[(last key, content), ...]`."""
    file, handles = bytearray(), []

    def add(content, kind=0):
        handle = varint(len(file)) + varint(len(content))
        file.extend(content + bytes([kind]))
        file.extend(struct.pack("<I", masked_crc32c(content + bytes([kind]))))
        return handle

    for last, content in blocks:
        handles.append((last, add(snappy(content), 1) if packed else add(content)))
    meta, index = add(block([])), add(block(handles, 1))
    return bytes(file) + (meta + index).ljust(40, b"\0") + MAGIC
