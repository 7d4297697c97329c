"""Safe extraction: what a good archive gives, and every bad one refused without a trace on the disk."""

import gzip
import io
import os
import struct
import tarfile

import pytest

from keras_detect.weights.archives import ArchiveError, Limits, extract


def member(name, content=b"x", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def write(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def refusal(archive, tmp_path, limits=None):
    """Why the extraction fails, after the archive's name: one line; and it leaves nothing behind."""
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ArchiveError) as error:
        extract(archive, tmp_path / "out", limits=limits or Limits())
    assert str(archive) in str(error.value) and "\n" not in str(error.value)
    assert sorted(os.listdir(tmp_path)) == before
    return str(error.value).split(str(archive), 1)[1]


@pytest.mark.parametrize(("name", "mode"), [("a.tar.gz", "w:gz"), ("a.tar", "w")])
def test_a_good_archive(tmp_path, name, mode):
    content = os.urandom(5 * 512)  # a multiple of the block size: the next header follows at once
    members = [
        member("./", b"", type=tarfile.DIRTYPE),
        member("zoo/checkpoint/ckpt-0.index", content, mode=0o4777),
        member("./zoo/pipeline.config", b"model { }"),
        member("zoo/saved_model/saved_model.pb", b"no"),
        member("zoo/" + "long/" * 40 + "name", b"pax"),  # more than a plain header's 100 letters
    ]
    folder = extract(write(tmp_path / name, *members, mode=mode), tmp_path / "out")
    assert (folder / "zoo" / "checkpoint" / "ckpt-0.index").read_bytes() == content
    assert (folder / "zoo" / "pipeline.config").read_bytes() == b"model { }"
    assert (folder / ("zoo/" + "long/" * 40 + "name")).read_bytes() == b"pax"
    assert (folder / "zoo" / "checkpoint" / "ckpt-0.index").stat().st_mode & 0o7022 == 0
    some = extract(tmp_path / name, tmp_path / "some", wanted=lambda path: path.name == "pipeline.config")
    assert [str(path.relative_to(some)) for path in some.rglob("*") if path.is_file()] == ["zoo/pipeline.config"]


@pytest.mark.parametrize(
    "bad", ["../evil", "a/../../evil", "/etc/evil", "a\\..\\..\\evil", "C:evil", "..", "a/..", "//server/evil"]
)
def test_no_path_leaves_the_folder(tmp_path, bad):
    write(tmp_path / "a.tar.gz", member("good"), member(bad))
    assert "would leave the folder" in refusal(tmp_path / "a.tar.gz", tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_no_links_and_no_devices(tmp_path, kind):
    write(tmp_path / "a.tar.gz", member("good"), member("bad", b"", type=kind, linkname="good"))
    assert "no plain file or folder" in refusal(tmp_path / "a.tar.gz", tmp_path)


def test_no_sparse_file(tmp_path):
    info, _ = member("sparse", b"")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.size": str(10**12), "GNU.sparse.map": f"{10**12},0"}
    write(tmp_path / "a.tar.gz", (info, b""))
    assert "no plain file or folder" in refusal(tmp_path / "a.tar.gz", tmp_path)


def test_limits(tmp_path):
    write(tmp_path / "a.tar.gz", *[member(f"f{index}", bytes(2000)) for index in range(5)])
    extract(tmp_path / "a.tar.gz", tmp_path / "good", limits=Limits(5, 2000, 5 * 3000 + 10240))
    assert "more than 4 members" in refusal(tmp_path / "a.tar.gz", tmp_path, Limits(4, 2000, 10**6))
    assert "unpacks to more than 1999 bytes" in refusal(tmp_path / "a.tar.gz", tmp_path, Limits(5, 1999, 10**6))
    assert "unpacks to more than 9000 bytes" in refusal(tmp_path / "a.tar.gz", tmp_path, Limits(5, 2000, 9000))


def test_a_bomb_is_refused_before_it_is_written(tmp_path):
    with gzip.open(tmp_path / "bomb.tar.gz", "wb", compresslevel=1) as file:
        file.write(member("bomb", b"", size=64 * 1024**2)[0].tobuf())
        for _ in range(64):
            file.write(bytes(1024**2))
        file.write(bytes(1024))
    assert (tmp_path / "bomb.tar.gz").stat().st_size < 1024**2
    assert "unpacks to more than" in refusal(tmp_path / "bomb.tar.gz", tmp_path, Limits(10, 10**8, 32 * 1024**2))
    assert "unpacks to more than" in refusal(tmp_path / "bomb.tar.gz", tmp_path, Limits(10, 32 * 1024**2, 10**9))


def test_zeros_behind_the_end_are_bounded_too(tmp_path):
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(bytes(1024**2))
    assert "unpacks to more than" in refusal(tmp_path / "a.tar.gz", tmp_path, Limits(total_bytes=32 * 1024**2))


def test_a_header_that_claims_gigabytes_does_not_fill_the_memory(tmp_path):
    header = member("pax", b"", type=tarfile.XHDTYPE, size=8 * 1024**3 - 1)[0].tobuf(tarfile.GNU_FORMAT)
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(header + bytes(4096))
    assert "a header claims" in refusal(tmp_path / "a.tar.gz", tmp_path)


def test_a_long_chain_of_extended_headers(tmp_path):
    content = b"12 path=abc\n"
    link = member("pax", content, type=tarfile.XHDTYPE)[0].tobuf() + content + bytes(512 - len(content))
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(link * 5000 + member("good", b"")[0].tobuf() + bytes(1024))
    assert "truncated or no .tar.gz" in refusal(tmp_path / "a.tar.gz", tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 10, 300, 700, 1500, -300, -20, -9, -1])
@pytest.mark.parametrize(("name", "mode"), [("a.tar.gz", "w:gz"), ("a.tar", "w")])
def test_a_truncated_archive(tmp_path, name, mode, keep):
    write(tmp_path / name, *[member(f"f{index}", os.urandom(900)) for index in range(3)], mode=mode)
    whole = (tmp_path / name).read_bytes()
    if mode == "w":
        whole = whole[: 3 * (512 + 1024) + 512]  # without the padding behind the end
    (tmp_path / name).write_bytes(whole[:keep])
    assert "the archive is truncated or " in refusal(tmp_path / name, tmp_path)


def test_a_flipped_bit(tmp_path):
    write(tmp_path / "a.tar.gz", member("f", os.urandom(5000)))
    content = bytearray((tmp_path / "a.tar.gz").read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / "a.tar.gz").write_bytes(content)
    assert "truncated or no .tar.gz" in refusal(tmp_path / "a.tar.gz", tmp_path)


def test_a_damaged_header_in_the_middle(tmp_path):
    write(tmp_path / "a.tar", member("f"), member("g"), mode="w")
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[1024 + 5] ^= 1  # in the name of g: its header's checksum is wrong
    (tmp_path / "a.tar").write_bytes(content)
    assert "damaged after 1 members" in refusal(tmp_path / "a.tar", tmp_path)


def test_a_negative_size(tmp_path):
    header = bytearray(member("f", b"")[0].tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" + struct.pack(">q", -(10**6)).rjust(11, b"\xff")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(2048))
    assert "unpacks to more than" in refusal(tmp_path / "a.tar", tmp_path)


def test_what_is_no_archive(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"<html>404</html>" * 100)
    assert "truncated or no .tar.gz" in refusal(tmp_path / "a.tar.gz", tmp_path)
    with pytest.raises(FileNotFoundError):
        extract(tmp_path / "absent.tar.gz", tmp_path / "out")


def test_names_that_no_disk_takes_and_names_used_twice(tmp_path):
    write(tmp_path / "long.tar.gz", member("a" * 250))
    assert "too long a name" in refusal(tmp_path / "long.tar.gz", tmp_path)
    write(tmp_path / "twice.tar.gz", member("a"), member("a/b"))
    assert "both a file and a folder" in refusal(tmp_path / "twice.tar.gz", tmp_path)


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    write(tmp_path / "a.tar.gz", member("f"))
    (tmp_path / "out").mkdir()
    extract(tmp_path / "a.tar.gz", tmp_path / "out")
    with pytest.raises(FileExistsError, match="holds something already"):
        extract(tmp_path / "a.tar.gz", tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["f"]
