"""Fetches archives from an address, and folders from Hugging Face and Kaggle."""

import contextlib
import hashlib
import http.client
import importlib
import os
import pathlib
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request

from keras_detect import files
from keras_detect.messages import shown
from keras_detect.presets import cache
from keras_detect.presets.watch import OverdueError, Watch, handlers
from keras_detect.weights.archives import ArchiveError, Limits, extract

__all__ = ["ArchiveError", "DownloadError", "Limits", "cache_key", "fetch", "is_url", "remote_folder", "unpacked"]

_CHUNK = 1024 * 1024
MAX_BYTES = 4 * 1024**3  # of an archive whose row says nothing else
DEADLINE = 3 * 3600
MINIMUM_RATE = 4096
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DROPPED = (http.client.HTTPException, urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError, ValueError)
#: no network, no trust, no address
_HOPELESS = (socket.gaierror, ssl.SSLCertVerificationError, http.client.InvalidURL, ValueError)
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
PRESET_FILES = ("config.json", "weights.h5", "label_map.json", "metadata.json")


class DownloadError(OSError):
    """An archive that could not be fetched whole. One line that names the address."""


def is_url(name):
    """Whether `name` is an address with a scheme (`https://`, `file://`, `hf://`, ...)."""
    return isinstance(name, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name) is not None


def fetch(
    url: str,
    target: str | os.PathLike,
    sha256: str | None = None,
    progress: bool = True,
    max_bytes: int = MAX_BYTES,
    attempts: int = 4,
    wait: float = 1.0,
    timeout: float = 30,
    deadline: float = DEADLINE,
    minimum_rate: float = MINIMUM_RATE,
) -> str:
    """Fetches `url` into the file `target`, which appears only when it is whole.

    A dropped connection is taken up where it broke if the server can (and its file has not changed meanwhile),
    otherwise the download starts again from zero.

    Args:
        url: `https://` or `file://` (`http://` only from this machine).
        target: path of the file; its folder exists.
        sha256: the expected digest in hex, if it is known.
        progress: shows a progress bar.
        max_bytes: refuses more.
        attempts: tries in all.
        wait: seconds before the second try, doubled before each further one.
        timeout: seconds of silence after which a connection counts as dropped.
        deadline: seconds for everything, all tries together.
        minimum_rate: bytes per second; a connection that brings fewer, on an average over `timeout` seconds, counts as
            dropped.

    Returns the digest (sha256, hex). Raises `DownloadError` if the file cannot be fetched, is not of the announced
    size, too large, or has another digest, and `ValueError` for another scheme.
    """
    _check_scheme(url)
    path = _local(url)
    if path is not None and not os.path.isfile(path):
        raise DownloadError(f"{shown(url, 300)}: there is no such file")  # nor is it read from a pipe or a device
    target = pathlib.Path(target)
    with files.replacing_file(target) as part:
        with open(part, "wb") as file, _bar(target.name, progress) as bar:
            download = _Download(url, file, bar, max_bytes, Watch(timeout, deadline, minimum_rate, max_bytes))
            for attempt in range(attempts):
                if download.run(last=attempt == attempts - 1):
                    break
                time.sleep(max(0.0, min(wait * 2**attempt, download.watch.left())))
        digest = download.digest.hexdigest()
        if sha256 is not None and digest != sha256.lower():
            raise DownloadError(
                f"{shown(url)}: the sha256 of the file ({digest}) differs from the expected one ({sha256})"
            )
    return digest


class _Download:
    """One file on its way, over as many connections as it takes."""

    def __init__(self, url, file, bar, max_bytes, watch):
        self.url, self.file, self.bar, self.max_bytes, self.watch = url, file, bar, max_bytes, watch
        self.shown = shown(url, 300)
        self.opener = urllib.request.build_opener(_Redirects(), *handlers(watch))
        self.validator = None  # ETag or date of the file that the first bytes came from
        self.restart()

    def restart(self):
        self.file.seek(0)
        self.file.truncate()
        self.received, self.digest = 0, hashlib.sha256()
        self.bar.reset()

    def run(self, last):
        """One connection: True when the file is whole, False to try again; raises `DownloadError` if it is hopeless."""
        try:
            return self.receive()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # the server's file is shorter than what we have: another file
                self.restart()
            if last or error.code not in (*_TRY_AGAIN, 416):
                reason = shown(error.reason)
                raise DownloadError(f"{self.shown}: the server answers {error.code} {reason}") from error
        except OverdueError as error:
            raise DownloadError(f"{self.shown}: {self.received} bytes received, then: {error}") from error
        except _DROPPED as error:
            reason = getattr(error, "reason", None) or error
            hopeless = isinstance(reason, _HOPELESS)
            if last or hopeless or self.url.startswith("file:"):
                raise DownloadError(
                    f"{self.shown}: {self.received} bytes received, then: {shown(str(reason))}"
                ) from error
        return False

    def receive(self):
        request = urllib.request.Request(self.url, headers={"User-Agent": "keras-detect"})
        if self.received and self.validator:
            request.add_header("Range", f"bytes={self.received}-")
            request.add_header("If-Range", self.validator)
        self.watch.connect()
        with self.opener.open(request, timeout=self.watch.patience()) as response:
            total = self.begin(response)
            self.watch.head = None
            while chunk := self.next(response):
                self.received += len(chunk)
                if self.received > self.max_bytes:
                    raise DownloadError(f"{self.shown}: larger than the {self.max_bytes} bytes that are accepted")
                self.file.write(chunk)
                self.digest.update(chunk)
                self.bar.update(len(chunk))
        if total is not None and self.received != total:
            raise http.client.HTTPException(f"the connection dropped, {total} bytes were announced")
        return True

    def next(self, response):
        """The next bytes of the body. Raises `DownloadError` where a file on this machine cannot be read."""
        try:
            return response.read1(_CHUNK)
        except OSError as error:
            if not self.url.startswith("file:"):
                raise
            raise DownloadError(f"{self.shown}: cannot be read ({shown(str(error))})") from error

    def begin(self, response):
        """Decides from the answer's head where the body belongs; returns the whole file's size, or None."""
        head = response.headers
        span = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})", head.get("Content-Range", ""))
        if getattr(response, "status", None) == 206 and span and int(span.group(1)) == self.received:
            total = int(span.group(2))
        elif getattr(response, "status", None) == 206:
            self.restart()
            self.validator = None
            raise http.client.HTTPException("the server sent a different byte range than requested")
        else:
            self.restart()
            etag = head.get("ETag", "")
            validator = etag if etag and not etag.startswith("W/") else head.get("Last-Modified")
            self.validator = validator if validator and validator.isascii() and validator.isprintable() else None
            total = self.announced(head.get_all("Content-Length", []))
        if total is not None and total > self.max_bytes:
            raise DownloadError(f"{self.shown}: {total} bytes, more than the {self.max_bytes} that are accepted")
        self.bar.total = total
        self.bar.refresh()
        return total

    def announced(self, lengths):
        """The body's size as the head announces it, or None; the connection's end counts then."""
        values = {value.strip() for length in lengths for value in str(length).split(",")}
        if not values:
            return None
        if len(values) > 1 or not re.fullmatch("[0-9]{1,18}", min(values)):
            raise DownloadError(f"{self.shown}: announces no size but {shown(sorted(values))} as its Content-Length")
        return int(min(values))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, but never from https:// to anything less (urllib itself refuses local files)."""

    max_redirections, max_repeats = 5, 3

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        try:
            _check_scheme(newurl)
            less = req.full_url.startswith("https:") and not newurl.startswith("https:")
        except ValueError:
            less = True
        fp.close()  # its body is of no use, and may have no end
        if less:
            raise DownloadError(f"{shown(req.full_url)}: redirects to '{shown(newurl)}', which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextlib.contextmanager
def unpacked(url, sha256=None, wanted=None, progress=True, **fetching):
    """Context of a fetched and unpacked archive: `(folder, digest)`; the folder is removed at the end.

    `wanted` selects members (None: all but a `saved_model`); an archive with one folder at its top yields that folder.
    Raises what `fetch` and `extract` raise, and `cache.CacheError`.
    """
    with cache.work_folder() as work:
        archive = work / "archive"
        digest = fetch(url, archive, sha256=sha256, progress=progress, **fetching)
        folder = extract(archive, work / "unpacked", wanted=wanted or _no_saved_model, source=url)
        archive.unlink()  # it is not needed any more, and may be large
        children = list(folder.iterdir())
        yield (children[0] if len(children) == 1 and children[0].is_dir() else folder), digest


def cache_key(url):
    """A name for the cache: the archive's stem and a digest of the address, of a local file also of its date."""
    identity = url
    if (path := _local(url)) is not None:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            identity = f"{url} {status.st_size} {status.st_mtime_ns}"
    stem = re.sub(r"(\.tar)?\.(gz|tar|tgz|zip)$", "", _file_name(url))
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", stem).strip(".")[:100] or "archive"
    return f"{stem}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def remote_folder(uri):
    """The local folder with the files of a preset at `hf://org/name` or `kaggle://org/model/keras/variant[/version]`.

    The download, its cache and the credentials are those of `huggingface_hub` and `kagglehub`. Raises `DownloadError`
    if the package is missing, with the command that installs it, or if the download fails; `ValueError` for another
    form.
    """
    scheme, _, handle = uri.partition("://")
    parts = [part for part in handle.split("/") if part]
    if scheme == "hf":
        if len(parts) != 2:
            raise ValueError(f"A Hugging Face address is hf://organization/name. Received: '{shown(uri)}'")
        name, patterns = "/".join(parts), list(PRESET_FILES)
        return _from_hub(
            "huggingface_hub", uri, lambda hub: hub.snapshot_download(repo_id=name, allow_patterns=patterns)
        )
    if scheme == "kaggle":
        if len(parts) not in (4, 5):
            form = "kaggle://owner/model/keras/variant[/version]"
            raise ValueError(f"A Kaggle address is {form}. Received: '{shown(uri)}'")
        return _from_hub("kagglehub", uri, lambda hub: hub.model_download("/".join(parts)))
    raise ValueError(f"Unknown scheme in '{shown(uri)}'. Supported: https://, file://, hf://, kaggle://.")


def _from_hub(package, uri, download):
    try:
        hub = importlib.import_module(package)
    except ImportError as error:
        way_out = "pip install 'keras-detect[hub]'"
        raise DownloadError(f"'{shown(uri)}' needs {package}, which is not installed: {way_out}") from error
    try:
        return pathlib.Path(download(hub))
    except Exception as error:  # each of the two has errors of its own, and those of what it is built on
        reason = shown(str(error) or type(error).__name__, 300)
        raise DownloadError(f"'{shown(uri)}' cannot be downloaded with {package}: {reason}") from error


def _no_saved_model(path):
    return "saved_model" not in path.parts


def _check_scheme(url):
    parts = urllib.parse.urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not local and parts.scheme not in ("https", "file"):
        raise ValueError(f"Archives are downloaded from https:// or file://. Received: '{shown(url)}'")


def _local(url):
    """The path of a `file:` address, None for others."""
    parts = urllib.parse.urlsplit(url)
    return urllib.request.url2pathname(parts.path) if parts.scheme == "file" else None


def _file_name(url):
    return pathlib.PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name


def _bar(name, progress):
    import tqdm

    return tqdm.tqdm(desc=shown(name), unit="B", unit_scale=True, unit_divisor=1024, disable=None if progress else True)
