"""Ctrl-C and SIGTERM as one exception, so that a command can end in one line."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator


@dataclasses.dataclass
class Received:
    """Which signal arrived first: its name for messages and the exit status that shells expect of it."""

    name: str = "Ctrl-C"
    status: int = 130


@contextlib.contextmanager
def interrupting() -> Iterator[Received]:
    """Within it, SIGTERM raises `KeyboardInterrupt` as Ctrl-C does; a second signal waits until the block has ended.

    Outside of the main thread, where Python takes no handlers, it does nothing.
    """
    received = Received()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def stop(number, _frame):
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        if number == signal.SIGTERM:
            received.name, received.status = "SIGTERM", 143
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, stop)
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
