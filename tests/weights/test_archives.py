"""Safe extraction: what a good archive gives, and every bad one refused without a trace on the disk."""

import gzip
import io
import os
import random
import struct
import tarfile
import time
import tracemalloc

import pytest

from keras_detect.weights import archives
from keras_detect.weights.archives import ArchiveError, Limits, check, extract


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
    assert "not a regular file or folder" in refusal(tmp_path / "a.tar.gz", tmp_path)


def test_no_sparse_file(tmp_path):
    info, _ = member("sparse", b"")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.size": str(10**12), "GNU.sparse.map": f"{10**12},0"}
    write(tmp_path / "a.tar.gz", (info, b""))
    assert "not a regular file or folder" in refusal(tmp_path / "a.tar.gz", tmp_path)


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
    assert "an extended header claims" in refusal(tmp_path / "a.tar.gz", tmp_path)


def test_a_long_chain_of_extended_headers(tmp_path):
    content = b"12 path=abc\n"
    link = member("pax", content, type=tarfile.XHDTYPE)[0].tobuf() + content + bytes(512 - len(content))
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(link * 5000 + member("good", b"")[0].tobuf() + bytes(1024))
    assert "more than 4 extended headers before one member" in refusal(tmp_path / "a.tar.gz", tmp_path)


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


def test_members_that_would_take_one_place(tmp_path):
    for name, members in {
        "twice": ("a/b", "a/b"),
        "case": ("a/Checkpoint", "a/checkpoint"),
        "composed": ("caf\u00e9", "cafe\u0301"),
        "dotted": ("a/b", "./a//b"),
    }.items():
        write(tmp_path / f"{name}.tar.gz", *[member(path) for path in members])
        assert "is named twice" in refusal(tmp_path / f"{name}.tar.gz", tmp_path)
    folders = [member("a/", b"", type=tarfile.DIRTYPE)] * 3
    assert os.listdir(extract(write(tmp_path / "a.tar", *folders, member("a/b")), tmp_path / "out") / "a") == ["b"]


@pytest.mark.parametrize("name", ["🙂" * 150, "é" * 101 + "/a", "a/" * 64 + "b", "/".join(["e" * 99] * 11)])
def test_a_name_that_some_disk_cannot_hold(tmp_path, name):
    write(tmp_path / "a.tar.gz", member(name))
    assert "too long a name" in refusal(tmp_path / "a.tar.gz", tmp_path)


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nb", "a\x9bb", "a\u2028b"])
def test_a_name_that_a_terminal_would_obey(tmp_path, name):
    write(tmp_path / "a.tar.gz", member(name))
    said = refusal(tmp_path / "a.tar.gz", tmp_path)
    assert "no name that can be shown" in said and said.isprintable()


def test_folders_that_names_imply_are_counted(tmp_path):
    write(tmp_path / "a.tar.gz", *[member(f"{index}/" + "d/" * 50 + "f") for index in range(200)])
    assert (tmp_path / "a.tar.gz").stat().st_size < 9000
    said = refusal(tmp_path / "a.tar.gz", tmp_path)
    assert "more than 10000 members, with the folders that their names imply" in said


def pax(key, value, kind=tarfile.XHDTYPE):
    """An extended header of one record."""
    record = f" {key}={value}\n".encode()
    record = next(b"%d" % n + record for n in range(len(record), len(record) + 9) if n == len(b"%d" % n) + len(record))
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, len(record)
    return info.tobuf() + record + bytes(-len(record) % 512)


def plain(name, content=b"x"):
    info, content = member(name, content)
    return info.tobuf() + content + bytes(-len(content) % 512)


def tiny_records(count, kind=tarfile.XHDTYPE):
    info, content = member("pax", b"6 a=b\n" * count, type=kind)
    return info.tobuf() + content + bytes(-len(content) % 512)


HOSTILE = {
    "global headers": lambda: pax("comment", "x" * 60_000, tarfile.XGLTYPE) * 70,
    "global headers before members": lambda: b"".join(
        pax("comment", "x" * 60_000, tarfile.XGLTYPE) + plain(f"f{index}") for index in range(300)
    ),
    "tiny records": lambda: tiny_records(500_000),
    "tiny records in small headers": lambda: b"".join(tiny_records(90) + plain(f"f{index}") for index in range(2000)),
    "a header of 1 GiB": lambda: member("p", b"", type=tarfile.XHDTYPE, size=1024**3)[0].tobuf() + bytes(10_000),
    "a long name of 20 MiB": lambda: (
        member("p", b"", type=tarfile.GNUTYPE_LONGNAME, size=20 * 1024**2)[0].tobuf() + bytes(20 * 1024**2)
    ),
    "implied folders": lambda: b"".join(plain(f"{index:04d}/" + "a/" * 40 + "f") for index in range(9000)),
    "too many members": lambda: b"".join(plain(f"f{index}", b"") for index in range(10_001)),
    "zeros": lambda: plain("f", bytes(120 * 1024**2)),
    "zeros behind the end": lambda: plain("f") + bytes(120 * 1024**2),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_take_neither_time_nor_memory(tmp_path, name):
    content = HOSTILE[name]() + bytes(1024)
    path = tmp_path / "a.tar"
    path.write_bytes(gzip.compress(content, 1))
    del content
    tracemalloc.start()
    start = time.process_time()
    try:
        refused = None
        with open(path, "rb") as file:
            check(file)
    except ArchiveError as error:
        refused = str(error)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused
    assert peak < 16 * 1024**2, f"{peak / 1024**2:.0f} MiB"
    assert seconds < 8, f"{seconds:.1f} s"


@pytest.mark.parametrize("number", range(4))
def test_gzip_tricks(tmp_path, number):
    good = write(tmp_path / "good.tar", member("a", b"1" * 5000), mode="w").read_bytes()
    half = len(good) // 2
    case = (
        gzip.compress(good[:half]) + gzip.compress(good[half:]) + bytes(3000),  # members in a row, padded with zeros
        gzip.compress(good) + b"garbage",
        gzip.compress(b"") * 100_001,
        b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 10**7,  # a file name without end
    )[number]
    (tmp_path / "a.tar.gz").write_bytes(case)
    if number == 0:
        assert (extract(tmp_path / "a.tar.gz", tmp_path / "out") / "a").read_bytes() == b"1" * 5000
    else:
        assert refusal(tmp_path / "a.tar.gz", tmp_path)


@pytest.mark.parametrize(("start", "kind"), [(b"PK\x03\x04", ".zip"), (b"BZh9", ".bz2"), (b"\xfd7zXZ\0", ".xz")])
def test_other_containers_are_named(tmp_path, start, kind):
    (tmp_path / "a.tar.gz").write_bytes(start + bytes(100))
    assert f"a {kind} archive; supported: .tar.gz and .tar" in refusal(tmp_path / "a.tar.gz", tmp_path)


def test_the_room_on_the_disk_is_asked_for_first(tmp_path, monkeypatch):
    write(tmp_path / "a.tar.gz", member("a", b"1" * 5000))
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 4999}))
    with pytest.raises(OSError, match="unpacks to 5,000 bytes, and 4,999 are free"):
        extract(tmp_path / "a.tar.gz", tmp_path / "out")
    assert os.listdir(tmp_path) == ["a.tar.gz"]


@pytest.mark.parametrize("keep", [300, -9])
def test_an_archive_that_changes_after_it_was_checked(tmp_path, monkeypatch, keep):
    path = write(tmp_path / "a.tar.gz", member("a", os.urandom(5000)))
    path.write_bytes(path.read_bytes()[:keep])
    monkeypatch.setattr(archives, "check", lambda *_: 0)
    assert "truncated or no .tar.gz" in refusal(path, tmp_path)


def test_messages_name_what_the_user_named(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8bno")
    with pytest.raises(ArchiveError, match=r"^https://example\.com/\\x1b\[2J\.tar\.gz: the archive is truncated or no"):
        extract(tmp_path / "a.tar.gz", tmp_path / "out", source="https://example.com/\x1b[2J.tar.gz")


# --- generated -------------------------------------------------------------------------------------------------------

NAMES = (
    "a",
    "b/c",
    "../x",
    "/x",
    "a/../../x",
    "x\\y",
    "c:x",
    "",
    ".",
    "..",
    "a//b",
    "\x1b[1m",
    "🙂" * 80,
    "d/" * 70,
    "A",
)
KINDS = (
    b"0",
    b"0",
    b"0",
    b"0",
    b"\0",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
    b"7",
    b"x",
    b"g",
    b"L",
    b"K",
    b"S",
    b"V",
    b"?",
)


def generated(drawn):
    """The bytes of an archive: members of odd names, kinds and sizes, then bytes changed, cut off or repeated."""
    content = b""
    for _ in range(drawn.randint(0, 6)):
        data = drawn.randbytes(drawn.choice((0, 1, 511, 512, 513, 3000)))
        info = tarfile.TarInfo(drawn.choice(NAMES) if drawn.random() < 0.15 else f"f{drawn.randint(0, 50)}")
        info.type = drawn.choice(KINDS) if drawn.random() < 0.15 else b"0"
        info.size = drawn.choice((0, 8**11 - 1, -(10**6))) if drawn.random() < 0.05 else len(data)
        info.linkname = drawn.choice(NAMES)
        if drawn.random() < 0.1:
            key = drawn.choice(("path", "size", "GNU.sparse.size", "comment", "linkpath"))
            content += pax(key, drawn.choice((*NAMES, "0", "-1", "9" * 30)), drawn.choice((b"x", b"g")))
        content += info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)
    content += bytes(drawn.choice((0, 512, 1024, 10240)))
    content = bytearray(gzip.compress(content, 1) if drawn.random() < 0.5 else content)
    for _ in range(drawn.choice((0, 0, 1, 3))):
        if content:
            content[drawn.randrange(len(content))] = drawn.randrange(256)
    return bytes(content[: drawn.randint(0, len(content))] if drawn.random() < 0.2 else content)


def test_300_generated_archives_are_extracted_inside_or_refused(tmp_path):
    outcomes = {True: 0, False: 0}
    (tmp_path / "victim").write_text("mine")
    for seed in range(300):
        path, out = tmp_path / "a.tar", tmp_path / "out"
        path.write_bytes(generated(random.Random(seed)))
        try:
            extract(path, out, limits=Limits(20, 4000, 40_000))
        except ArchiveError as error:
            assert str(error).startswith(str(path)) and str(error).isprintable(), seed
            assert not out.exists(), seed
        else:
            for found in out.rglob("*"):
                assert not found.is_symlink() and (found.is_file() or found.is_dir()), seed
        outcomes[out.exists()] += 1
        assert set(os.listdir(tmp_path)) <= {"a.tar", "out", "victim"}, seed
        if out.exists():
            os.rename(out, tmp_path.parent / f"{tmp_path.name}-{seed}")
    assert (tmp_path / "victim").read_text() == "mine" and min(outcomes.values()) > 20, outcomes


def test_what_tarfile_writes_is_read_as_tarfile_reads_it(tmp_path):
    for seed in range(50):
        drawn = random.Random(seed)
        names = {
            "/".join(drawn.choice("abcdefgh") * drawn.randint(1, 40) for _ in range(drawn.randint(1, 9)))
            for _ in "1234"
        }
        names = [name for name in sorted(names) if not any(other.startswith(name + "/") for other in names)]
        path = tmp_path / f"{seed}.tar"
        format = drawn.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT))
        with tarfile.open(path, drawn.choice(("w", "w:gz")), format=format) as tar:
            for name in names:
                try:
                    tar.addfile(
                        *(
                            part if isinstance(part, tarfile.TarInfo) else io.BytesIO(part)
                            for part in member(name, name.encode())
                        )
                    )
                except ValueError:  # too long for this format
                    continue
        out = extract(path, tmp_path / f"out{seed}")
        with tarfile.open(path) as tar:
            wanted = {info.name: tar.extractfile(info).read() for info in tar if info.isreg()}
        assert {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()} == wanted
