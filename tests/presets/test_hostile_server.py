"""Servers that lie, drip, loop or never end: a download is whole, or it ends soon in one line and leaves nothing."""

import collections
import hashlib
import os
import random
import socket
import threading
import time
import tracemalloc

import pytest

from keras_detect.presets.download import DownloadError, fetch

CONTENT = random.Random(0).randbytes(20_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
ENDLESS = 10**9


class Server:
    """Answers every connection on 127.0.0.1 with `answer(send, number, address)`."""

    def __init__(self, answer):
        self.answer, self.count = answer, 0
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}/a.tar.gz"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.count += 1
            threading.Thread(target=self._answer, args=(connection, self.count), daemon=True).start()

    def _answer(self, connection, number):
        with connection:
            try:
                connection.recv(65536)
                self.answer(connection.sendall, number, self.address)
            except OSError:
                pass  # the other side has seen enough

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def length(value):
    return OK + b"Content-Length: " + str(value).encode("latin-1") + b"\r\n\r\n"


def repeated(send, piece, pause=0.0):
    for _ in range(ENDLESS):
        send(piece)
        time.sleep(pause)


def chunk(data):
    return b"%x\r\n" % len(data) + data + b"\r\n"


def redirect(target, body=b""):
    return b"HTTP/1.1 302 Found\r\nLocation: " + target + b"\r\nConnection: close\r\n\r\n" + body


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BEHAVIORS = {
    "good": lambda send, *_: send(length(len(CONTENT)) + CONTENT),
    "good, chunked": lambda send, *_: send(CHUNKED + chunk(CONTENT[:7]) + chunk(CONTENT[7:]) + b"0\r\n\r\n"),
    "good, without a length": lambda send, *_: send(OK + b"\r\n" + CONTENT),
    "good, longer than announced": lambda send, *_: send(length(len(CONTENT)) + CONTENT + b"more"),
    "shorter than announced": lambda send, *_: send(length(len(CONTENT)) + CONTENT[:-1]),
    "another file": lambda send, *_: send(length(len(CONTENT)) + CONTENT[::-1]),
    "a length that is too large": lambda send, *_: send(length(10**15)),
    "a length that is not a number": lambda send, *_: send(length("1e4") + CONTENT),
    "a length in other digits": lambda send, *_: send(length("\xb2\xb3") + CONTENT),
    "a negative length": lambda send, *_: send(length(-1) + CONTENT),
    "two lengths": lambda send, *_: send(OK + b"Content-Length: 20000\r\nContent-Length: 3\r\n\r\n" + CONTENT),
    "nothing": lambda send, *_: None,
    "half a head": lambda send, *_: send(OK[:20]),
    "no head": lambda send, *_: send(CONTENT),
    "an odd protocol": lambda send, *_: send(b"ICY 200 OK\r\n\r\n"),
    "an odd status": lambda send, *_: send(b"HTTP/1.1 abc OK\r\n\r\n"),
    "a reason with control characters": lambda send, *_: send(
        b"HTTP/1.1 404 \x1b[2J\x07\x9b1m" + b"x" * 9000 + b"\r\n\r\n"
    ),
    "an endless error page": lambda send, *_: (send(b"HTTP/1.1 404 No\r\n\r\n"), repeated(send, CONTENT)),
    "an endless head": lambda send, *_: (send(OK), repeated(send, b"X-A: b\r\n" * 100)),
    "an endless line": lambda send, *_: (send(OK), repeated(send, b"x" * 10_000)),
    "a thousand headers": lambda send, *_: send(OK + b"".join(b"X-%d: a\r\n" % n for n in range(1000)) + b"\r\n"),
    "endless 100 Continue": lambda send, *_: repeated(send, b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "an endless body": lambda send, *_: (send(OK + b"\r\n"), repeated(send, CONTENT)),
    "a wrong chunk size": lambda send, *_: send(CHUNKED + b"xyz\r\n" + CONTENT),
    "a negative chunk size": lambda send, *_: send(CHUNKED + b"-5\r\n" + CONTENT),
    "a huge chunk": lambda send, *_: send(CHUNKED + b"ffffffffffffffff\r\n" + CONTENT),
    "a missing last chunk": lambda send, *_: send(CHUNKED + chunk(CONTENT)[:-30]),
    "endless trailers": lambda send, *_: (
        send(CHUNKED + chunk(CONTENT) + b"0\r\n"),
        repeated(send, b"X-A: b\r\n" * 500),
    ),
    "a loop": lambda send, number, address: send(redirect(address.encode())),
    "an endless chain": lambda send, number, address: send(redirect(b"%s?%d" % (address.encode(), number))),
    "a redirect to a file": lambda send, *_: send(redirect(b"file:///etc/hostname")),
    "a redirect to elsewhere": lambda send, *_: send(redirect(b"http://example.com/\x1b[2J")),
    "a redirect to nowhere": lambda send, *_: send(redirect(b"http://[::1/")),
    "a redirect without end": lambda send, number, address: (
        send(redirect(b"%s?%d" % (address.encode(), number))),
        repeated(send, CONTENT),
    ),
    "another part": lambda send, *_: send(b"HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/20000\r\n\r\n" + CONTENT),
    "good, with zeros before its length": lambda send, *_: send(length("00020000") + CONTENT),
    "good, a length twice": lambda send, *_: send(length("20000, 20000") + CONTENT),
    "a length with a sign": lambda send, *_: send(length("+20000") + CONTENT),
    "a length with an underscore": lambda send, *_: send(length("20_000") + CONTENT),
    "a length of zero": lambda send, *_: send(length(0) + CONTENT),
    "no content": lambda send, *_: send(b"HTTP/1.1 204 No Content\r\n\r\n" + CONTENT),
    "not modified": lambda send, *_: send(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "a status beyond all": lambda send, *_: send(b"HTTP/1.1 999 \x1b]0;x\x07\r\n\r\n"),
    "a question for a password": lambda send, *_: send(
        b'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="\x1b[2J", nonce="x"\r\n\r\n'
    ),
    "a later try": lambda send, *_: send(b"HTTP/1.1 503 No\r\nRetry-After: 99999999999\r\n\r\n"),
    "chunks and a length": lambda send, *_: send(
        OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + CONTENT
    ),
    "a redirect without a place": lambda send, *_: send(b"HTTP/1.1 301 Moved\r\n\r\n"),
    "a redirect to data": lambda send, *_: send(redirect(b"data:text/plain,hello")),
    "a redirect to ftp": lambda send, *_: send(redirect(b"ftp://127.0.0.1/a")),
    "a redirect to another host": lambda send, *_: send(redirect(b"//127.0.0.2:1/\xff\xfe")),
    "a redirect to a port that is none": lambda send, *_: send(redirect(b"http://127.0.0.1:99999/a")),
    "a redirect of a megabyte": lambda send, *_: send(redirect(b"http://127.0.0.1/" + b"a" * 2**20)),
    "a part of nothing": lambda send, *_: send(b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-/*\r\n\r\n" + CONTENT),
    "a part that ends before it begins": lambda send, *_: send(
        b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-19999/-1\r\n\r\n" + CONTENT
    ),
    "a part of too much": lambda send, *_: send(b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-9/%d\r\n\r\n12" % 10**15),
}
SLOW = {
    "a dripping head": lambda send, *_: (send(OK), repeated(send, b"x", 0.02)),
    "a dripping body": lambda send, *_: (send(length(len(CONTENT))), repeated(send, b"x", 0.02)),
    "a dripping chunk": lambda send, *_: (send(CHUNKED + b"5000\r\n"), repeated(send, b"x", 0.02)),
    "silence": lambda send, *_: (send(length(len(CONTENT))), time.sleep(5)),
    "silence before the head": lambda send, *_: time.sleep(5),
}


def outcome(tmp_path, behavior, **settings):
    """ "whole" or the error of a fetch; it took no second more than it may, and left nothing half."""
    with Server(behavior) as server:
        start = time.monotonic()
        given = {
            "sha256": DIGEST,
            "max_bytes": 100_000,
            "attempts": 2,
            "timeout": 0.3,
            "minimum_rate": 2000,
            **settings,
        }
        try:
            fetch(server.address, tmp_path / "a", progress=False, wait=0, **given)
            said = "whole"
        except DownloadError as error:
            said = str(error)
            assert said.startswith(server.address) and said.isprintable() and len(said) < 700
        assert time.monotonic() - start < 5
    if said == "whole":
        assert (tmp_path / "a").read_bytes() == CONTENT
        (tmp_path / "a").unlink()
    assert not os.listdir(tmp_path)
    return said


@pytest.mark.parametrize("name", BEHAVIORS)
def test_behaviors(tmp_path, name):
    tracemalloc.start()
    said = outcome(tmp_path, BEHAVIORS[name])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (said == "whole") == name.startswith("good"), said
    assert peak < 8 * 1024**2


@pytest.mark.parametrize("name", SLOW)
def test_slow_servers(tmp_path, name):
    said = outcome(tmp_path, SLOW[name])
    assert "the server is too slow (fewer than 2000 bytes per second over 0.3 s)" in said or "silent for 0.3 s" in said


def test_a_deadline_for_everything(tmp_path):
    def steady(send, *_):
        send(OK + b"\r\n")
        repeated(send, b"x" * 100, 0.01)

    start = time.monotonic()
    said = outcome(tmp_path, steady, deadline=0.8, minimum_rate=100, max_bytes=10**9)
    assert "0.8 s exceeded, the time limit for the whole download" in said and time.monotonic() - start < 2


def test_200_seeded_servers(tmp_path):
    """A good answer that is cut, repeated, or mixed with another one at random places, twice in a row."""
    found = collections.Counter()
    quick = [name for name in BEHAVIORS if "ndless" not in name and "without end" not in name]

    def recorded(name):
        pieces = []
        BEHAVIORS[name](pieces.append, 1, "http://127.0.0.1:9/")
        return b"".join(pieces)

    for seed in range(200):
        drawn = random.Random(seed)
        answers = []
        for _ in range(2):
            answer = recorded(drawn.choice(["good", "good, chunked", drawn.choice(quick)]))
            for _ in range(drawn.choice((0, 0, 1, 4))):
                place = drawn.randrange(max(1, min(len(answer), drawn.choice((100, 30_000)))))
                answer = drawn.choice(
                    (
                        answer[:place],
                        answer[:place] + drawn.randbytes(1) + answer[place + 1 :],
                        answer[:place] + answer[place // 2 :],
                        answer[:place] + recorded(drawn.choice(quick))[:200] + answer[place:],
                    )
                )
            answers.append(answer)
        said = outcome(tmp_path, lambda send, number, _, answers=answers: send(answers[(number - 1) % 2]))
        found[said == "whole"] += 1
    assert min(found[True], found[False]) > 30, found
