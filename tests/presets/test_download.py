"""Fetching: whole files only, resumed where possible, and a clear error for everything that can go wrong on the way."""

import hashlib
import http.server
import io
import os
import pathlib
import sys
import tarfile
import threading
import types

import pytest
import tqdm

from keras_detect.presets import cache, download
from keras_detect.presets.download import ArchiveError, DownloadError, fetch, unpacked

CONTENT = os.urandom(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A server on 127.0.0.1 whose connections break as told: `breaks[i]` is how many bytes answer i sends at most."""

    def __init__(self):
        self.files, self.breaks, self.requests = {}, [], []
        self.ranges, self.etag, self.length, self.answer = True, '"one"', None, None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.handle(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def handle(self, request):
        self.requests.append(dict(request.headers))
        if self.answer is not None:
            code, headers = (
                self.answer.pop(0) if isinstance(self.answer, list) and self.answer else self.answer or (200, {})
            )
            if code != 200:
                request.send_response(code)
                for name, value in headers.items():
                    request.send_header(name, value)
                request.end_headers()
                return
        content = self.files.get(request.path)
        if content is None:
            request.send_error(404)
            return
        start = 0
        wanted = request.headers.get("Range")
        if wanted and self.ranges and request.headers.get("If-Range") == self.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            request.send_response(200)
        if self.length is not False:
            request.send_header("Content-Length", str((self.length or len(content)) - start))
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        end = start + self.breaks.pop(0) if self.breaks else len(content)
        request.wfile.write(content[start:end])


@pytest.fixture
def server():
    server = Server()
    server.files["/a.tar.gz"] = CONTENT
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_DETECT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def get(server, tmp_path, path="/a.tar.gz", **settings):
    return fetch(server.address + path, tmp_path / "a.tar.gz", progress=False, wait=0, timeout=5, **settings)


def failure(server, tmp_path, **settings):
    """The error of a fetch that fails: one line that names the server; and it leaves nothing behind."""
    with pytest.raises(DownloadError) as error:
        get(server, tmp_path, **settings)
    assert "\n" not in str(error.value) and server.address in str(error.value)
    assert not list(tmp_path.iterdir())  # neither the file nor a part of it
    return str(error.value)


def test_a_file_is_fetched(server, tmp_path):
    assert get(server, tmp_path) == DIGEST == get(server, tmp_path, sha256=DIGEST.upper())
    assert (tmp_path / "a.tar.gz").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_a_progress_bar_counts_the_bytes_in_a_terminal(server, tmp_path, capfd, monkeypatch):
    shown = lambda _bar=tqdm.tqdm, **options: _bar(**{**options, "disable": options["disable"] or False})  # noqa: E731
    monkeypatch.setattr(tqdm, "tqdm", shown)  # None means a terminal, which pytest's stderr is not
    fetch(server.address + "/a.tar.gz", tmp_path / "a.tar.gz", wait=0)
    assert "a.tar.gz: 100%" in capfd.readouterr().err


def test_a_dropped_connection_is_taken_up_where_it_broke(server, tmp_path):
    server.breaks = [100_000, 50_000, 0]
    assert get(server, tmp_path) == DIGEST
    assert (tmp_path / "a.tar.gz").read_bytes() == CONTENT
    ranges = [request.get("Range") for request in server.requests]
    assert ranges == [None, "bytes=100000-", "bytes=150000-", "bytes=150000-"]


@pytest.mark.parametrize("case", ["no ranges", "no ETag", "another file meanwhile"])
def test_else_it_starts_again_from_zero(server, tmp_path, case):
    server.breaks = [100_000]
    server.ranges, server.etag = case != "no ranges", None if case == "no ETag" else '"one"'
    if case == "another file meanwhile":
        handle = server.handle

        def swap(request):
            if server.requests:
                server.files["/a.tar.gz"], server.etag = CONTENT[::-1], '"two"'
            handle(request)

        server.handle = swap
    wanted = CONTENT[::-1] if case == "another file meanwhile" else CONTENT
    assert get(server, tmp_path) == hashlib.sha256(wanted).hexdigest()
    assert (tmp_path / "a.tar.gz").read_bytes() == wanted and len(server.requests) == 2


def test_a_connection_that_keeps_dropping_is_given_up(server, tmp_path):
    server.breaks = [1000] * 9
    assert "4000 bytes received, then: the connection dropped, 300000 bytes were announced" in failure(server, tmp_path)
    assert len(server.requests) == 4


def test_a_length_that_never_comes_true(server, tmp_path):
    server.length, server.etag = 400_000, None
    assert "300000 bytes received, then: the connection dropped, 400000 bytes were announced" in failure(
        server, tmp_path
    )


def test_without_a_length_the_end_of_the_connection_counts(server, tmp_path):
    server.length = False
    assert get(server, tmp_path) == DIGEST


def test_answers_that_are_no_file(server, tmp_path):
    assert "/absent: the server answers 404" in failure(server, tmp_path, path="/absent")
    assert len(server.requests) == 1  # asking again would not help
    server.answer = [(503, {}), (429, {})]
    assert get(server, tmp_path) == DIGEST  # here it does
    (tmp_path / "a.tar.gz").unlink()
    server.answer = [(503, {})] * 4
    assert "the server answers 503" in failure(server, tmp_path)


def test_a_range_that_the_server_does_not_have_starts_again(server, tmp_path):
    server.breaks = [1000]
    server.answer = [(200, {}), (416, {}), (200, {})]
    assert get(server, tmp_path) == DIGEST
    assert [request.get("Range") for request in server.requests] == [None, "bytes=1000-", None]


def test_another_digest_is_refused(server, tmp_path):
    assert f"the sha256 of the file ({DIGEST}) differs from the expected one (00)" in failure(
        server, tmp_path, sha256="00"
    )


def test_too_large(server, tmp_path):
    assert "300000 bytes, more than the 1000 that are accepted" in failure(server, tmp_path, max_bytes=1000)
    server.length = False
    assert "larger than the 1000 bytes that are accepted" in failure(server, tmp_path, max_bytes=1000)


def test_no_server(tmp_path):
    with pytest.raises(DownloadError, match="0 bytes received, then: "):
        fetch("http://127.0.0.1:9/a.tar.gz", tmp_path / "a", progress=False, wait=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("file:///etc/hostname", "is not allowed"),
        ("ftp://127.0.0.1/a", "redirects to 'ftp://127.0.0.1/a', which is not followed"),
        ("http://example.com/a", "redirects to 'http://example.com/a', which is not followed"),
    ],
)
def test_redirects_lead_nowhere_else(server, tmp_path, target, message):
    server.answer = [(302, {"Location": target})]
    assert message in failure(server, tmp_path)
    assert len(server.requests) == 1


def test_a_redirect_is_followed(server, tmp_path):
    server.answer = [(302, {"Location": "/a.tar.gz"})]
    assert get(server, tmp_path, path="/b") == DIGEST


@pytest.mark.parametrize("url", ["http://example.com/a.tar.gz", "ftp://x/a", "a.tar.gz", "data:,x", "HF://a/b"])
def test_other_schemes_are_refused(url, tmp_path):
    with pytest.raises(ValueError, match="Archives are downloaded from https:// or file://"):
        fetch(url, tmp_path / "a")


def test_local_files(tmp_path):
    (tmp_path / "my file").write_bytes(CONTENT)
    url = (tmp_path / "my file").as_uri()
    assert fetch(url, tmp_path / "b", progress=False) == DIGEST
    for absent in (tmp_path / "absent", tmp_path):
        with pytest.raises(DownloadError, match="file://"):
            fetch(absent.as_uri(), tmp_path / "c", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "my file"]


def test_a_full_disk_leaves_nothing(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras_detect.presets.download.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        get(server, tmp_path)
    assert not list(tmp_path.iterdir())


def tar(path, **files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path.read_bytes()


def test_unpacked_yields_the_archives_own_folder_and_removes_it(server, tmp_path, home):
    content = tar(tmp_path / "z", zoo__pipeline=b"p", zoo__checkpoint__index=b"i", zoo__saved_model__pb=b"s")
    server.files["/zoo.tar.gz"] = content
    with unpacked(server.address + "/zoo.tar.gz", progress=False) as (folder, digest):
        assert digest == hashlib.sha256(content).hexdigest()
        found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        assert found == ["checkpoint/index", "pipeline"]  # the SavedModel is not needed
    assert not list(home.iterdir())


def test_a_truncated_archive_leaves_nothing_in_the_cache(server, tmp_path, home):
    server.files["/zoo.tar.gz"] = tar(tmp_path / "z", zoo__a=os.urandom(9000))[:-100]
    with pytest.raises(ArchiveError) as error, unpacked(server.address + "/zoo.tar.gz", progress=False):
        pass
    assert str(error.value).startswith(f"{server.address}/zoo.tar.gz: the archive is truncated")
    assert not list(home.iterdir())


def test_a_failure_while_an_unpacked_archive_is_used_removes_it(server, tmp_path, home):
    server.files["/zoo.tar.gz"] = tar(tmp_path / "z", a=b"1", b=b"2")
    with pytest.raises(KeyError), unpacked(server.address + "/zoo.tar.gz", progress=False) as (folder, _):
        assert (folder / "a").is_file()  # two files at the top: the folder itself
        raise KeyError
    assert not list(home.iterdir())


def test_cache_keys(tmp_path):
    key = download.cache_key("https://example.com/a/b%20c.tar.gz?x=../..")
    assert key.startswith("b_c-") and os.path.basename(key) == key
    assert key != download.cache_key("https://example.com/other/b%20c.tar.gz")
    assert download.cache_key("https://example.com/").startswith("archive-")
    (tmp_path / "a.tar.gz").write_bytes(b"1")
    first = download.cache_key((tmp_path / "a.tar.gz").as_uri())
    assert first == download.cache_key((tmp_path / "a.tar.gz").as_uri())
    (tmp_path / "a.tar.gz").write_bytes(b"22")  # a local file that changed is another one
    assert first != download.cache_key((tmp_path / "a.tar.gz").as_uri())


def test_hugging_face_and_kaggle(monkeypatch, tmp_path):
    calls = []
    hub = types.SimpleNamespace(snapshot_download=lambda **given: calls.append(given) or str(tmp_path))
    kaggle = types.SimpleNamespace(model_download=lambda handle: calls.append(handle) or str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
    assert download.remote_folder("hf://me/detector") == tmp_path
    assert download.remote_folder("kaggle://me/detector/keras/small/2") == tmp_path
    assert calls == [
        {"repo_id": "me/detector", "allow_patterns": list(download.PRESET_FILES)},
        "me/detector/keras/small/2",
    ]
    for wrong in ("hf://me", "hf://me/a/b", "kaggle://me/detector", "s3://me/a"):
        with pytest.raises(ValueError, match=r"Received|Supported"):
            download.remote_folder(wrong)


@pytest.mark.parametrize(("uri", "package"), [("hf://a/b", "huggingface_hub"), ("kaggle://a/b/keras/c", "kagglehub")])
def test_a_missing_package_is_named(monkeypatch, uri, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        DownloadError, match=rf"needs {package}, which is not installed: pip install 'keras-detect\[hub\]'"
    ):
        download.remote_folder(uri)


@pytest.mark.parametrize(("uri", "package"), [("hf://a/b", "huggingface_hub"), ("kaggle://a/b/keras/c", "kagglehub")])
def test_what_a_hub_says_is_one_line(monkeypatch, uri, package):
    def fail(*_, **__):
        raise RuntimeError("404 Client Error.\n\n\x1b[2JRepository not found")

    monkeypatch.setitem(sys.modules, package, types.SimpleNamespace(snapshot_download=fail, model_download=fail))
    with pytest.raises(DownloadError) as error:
        download.remote_folder(uri)
    assert str(error.value) == (
        f"'{uri}' cannot be downloaded with {package}: 404 Client Error. \\x1b[2JRepository not found"
    )


def test_addresses_and_paths():
    assert download.is_url("https://a/b") and download.is_url("hf://a/b") and download.is_url("file:///a")
    assert not download.is_url("a/b") and not download.is_url("C:\\a") and not download.is_url("//a")
    assert cache.home().name == "home"


def test_a_local_file_that_cannot_be_read_is_named(tmp_path):
    """Like a file on a failing disk: it opens, and the first read is an input/output error."""
    unreadable = pathlib.Path("/proc/self/mem")
    if not unreadable.is_file():
        pytest.skip("Linux has a file that opens and cannot be read from its start")
    with pytest.raises(DownloadError, match=r"/proc/self/mem: cannot be read \(\[Errno 5\]"):
        fetch(unreadable.as_uri(), tmp_path / "copy", progress=False)
    assert not list(tmp_path.iterdir())
