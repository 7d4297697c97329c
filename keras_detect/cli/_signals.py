"""Ctrl-C and SIGTERM as one exception, so that a command can end in one line."""

import contextlib
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

#: where an exception leaves JAX in a state in which the process crashes at its end
_COMPILING = tuple(os.path.join("jax", "_src", name) for name in ("compiler.py", "interpreters" + os.sep))
_RETRY_SECONDS = 0.1


@dataclasses.dataclass
class Received:
    """Which signal arrived first: its name for messages and the exit status that shells expect of it."""

    name: str = "Ctrl-C"
    status: int = 130


@contextlib.contextmanager
def interrupting() -> Iterator[Received]:
    """Within it, SIGTERM raises `KeyboardInterrupt` as Ctrl-C does; a second signal waits until the block has ended.

    While JAX compiles, the exception waits for it, unless a second signal arrives. Where Python drops the exception,
    as in a finalizer or the callback of a weak reference, it is raised again a moment later. Outside of the main
    thread, where Python takes no handlers, the context does nothing.
    """
    received = Received()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    handlers = _Handlers(received)
    try:
        handlers.install()
        yield received
    finally:
        handlers.remove()


class _Handlers:
    def __init__(self, received):
        self._received = received
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._hook = sys.unraisablehook
        self._timer, self._sent = None, False

    def install(self):
        for number in self._before:
            signal.signal(number, self._first)
        sys.unraisablehook = self._unraisable

    def remove(self):
        if self._timer is not None:
            self._timer.cancel()
        sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _first(self, number, frame):
        if number == signal.SIGTERM:
            self._received.name, self._received.status = "SIGTERM", 143
        if _compiles(frame):
            for other in self._before:
                signal.signal(other, self._raise)
            self._retry()
        else:
            self._raise(number, frame)

    def _raise(self, number, frame):
        sent, self._sent = self._sent, False
        if sent and _compiles(frame):
            self._retry()
            return
        for other in self._before:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    def _retry(self):
        self._timer = threading.Timer(_RETRY_SECONDS, self._send)
        self._timer.daemon = True
        self._timer.start()

    def _send(self):
        self._sent = True
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def _unraisable(self, unraisable):
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._hook(unraisable)
            return
        for number in self._before:
            signal.signal(number, self._raise)
        self._retry()


def _compiles(frame: FrameType | None) -> bool:
    while frame is not None:
        if any(name in frame.f_code.co_filename for name in _COMPILING):
            return True
        frame = frame.f_back
    return False
