"""Connections that a server cannot keep open by sending little: every byte that arrives passes a `Watch`."""

import contextlib
import http.client
import io
import time
import urllib.request

_HEAD_BYTES = 256 * 1024


class OverdueError(OSError):
    """The time for the whole download is over."""


class Watch:
    """Counts the bytes of a download, all of its connections together, and the seconds that it takes.

    Args:
        timeout: seconds of silence after which a connection counts as dropped, and over which its rate is measured.
        deadline: seconds for everything.
        minimum_rate: bytes per second.
        max_bytes: of the file; its connections may bring twice as many bytes, for resumed parts and chunked bodies.
    """

    def __init__(self, timeout, deadline, minimum_rate, max_bytes):
        self.timeout, self.minimum_rate, self.deadline = timeout, minimum_rate, deadline
        self.end = time.monotonic() + deadline
        self.bytes, self.max_bytes = 0, 2 * max_bytes + _HEAD_BYTES
        self.connect()

    def connect(self):
        """A connection begins: its rate is measured again, and its head comes first."""
        self.window_end, self.in_window = time.monotonic() + self.timeout, 0
        self.head = 0  # bytes of the answer's head; None once the body has begun

    def left(self):
        """Seconds until the deadline."""
        return self.end - time.monotonic()

    def patience(self):
        """Seconds to wait for bytes; raises `OverdueError` after the deadline, `TimeoutError` if too few came."""
        now = time.monotonic()
        if now >= self.end:
            raise OverdueError(f"{self.deadline:g} s exceeded, the time limit for the whole download")
        if now >= self.window_end:
            if self.in_window == 0:
                raise TimeoutError(f"the server was silent for {self.timeout:g} s")
            if self.in_window < self.minimum_rate * self.timeout:
                rate = f"fewer than {self.minimum_rate:g} bytes per second"
                raise TimeoutError(f"the server is too slow ({rate} over {self.timeout:g} s)")
            self.window_end, self.in_window = now + self.timeout, 0
        return max(0.001, min(self.end, self.window_end) - now)

    def count(self, size):
        """Takes note of bytes that arrived."""
        self.bytes += size
        self.in_window += size
        if self.head is not None:
            self.head += size
            if self.head > _HEAD_BYTES + 65536:  # the body's first bytes may be among them
                raise http.client.HTTPException(f"the head of the answer is longer than {_HEAD_BYTES} bytes")
        if self.bytes > self.max_bytes:
            raise OverdueError("far more bytes than the file may have")


def handlers(watch):
    """Handlers of http and https for `urllib.request.build_opener`, whose answers are read through `watch`."""

    class Raw(io.RawIOBase):
        def __init__(self, inner, socket):
            self.inner, self.socket = inner, socket  # `inner` keeps the connection open until it is closed

        def readable(self):
            return True

        def readinto(self, buffer):
            while True:
                self.socket.settimeout(watch.patience())
                with contextlib.suppress(TimeoutError):  # the next `patience` says whether it was the last
                    size = self.socket.recv_into(buffer)
                    watch.count(size)
                    return size

        def close(self):
            self.inner.close()
            super().close()

    class Response(http.client.HTTPResponse):
        def __init__(self, sock, *args, **kwargs):
            super().__init__(sock, *args, **kwargs)
            self.fp = io.BufferedReader(Raw(self.fp.detach(), sock), 65536)

    class Plain(http.client.HTTPConnection):
        response_class = Response

    class Secure(http.client.HTTPSConnection):
        response_class = Response

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, req):
            return self.do_open(Plain, req)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, req):
            return self.do_open(Secure, req)

    return PlainHandler(), SecureHandler()
