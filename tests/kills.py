"""Kill tests: a function is ended by SIGKILL at every rename, or at random moments, and what lies there is checked.

A case is a class at module level of a test file:

    class SavePreset(kills.Case):
        def __init__(self, folder):         # once per case; `folder` is its own, for what all trials share
            self.model = Toy()
        def prepare(self, folder):          # before every trial: what is in the empty `folder` beforehand
            save_preset(older, folder / "preset")
        def act(self, folder):              # what is killed
            save_preset(self.model, folder / "preset")
        def check(self, folder):            # raises AssertionError unless what lies there is whole; says what it is
            return "old" if ... else "new"

    def test_save_preset_killed(tmp_path):
        assert set(kills.at_every_rename(SavePreset, tmp_path)) == {"old", "new"}
        assert sum(kills.at_random_moments(SavePreset, tmp_path, trials=100, seed=0).values()) == 100

Both return how often `check` said what, and raise `AssertionError` with the moment and the traceback of the first
trial that failed. With `copies=True`, for what takes long, `act` runs once: it is stopped (SIGSTOP) at each moment, and
a copy of what lies in its folder, which is what SIGKILL would leave there, is checked. `check` may run `act` again, to
see that the next write succeeds and sweeps what the killed one left.
`on_a_full_disk` lets every file end after some bytes instead (RLIMIT_FSIZE: "File too large", where a full disk says
"No space left on device") and gives the error to `check`.

How it works: the first call starts `python -m tests.kills`, which imports keras_detect once, but runs no operation of
TensorFlow, whose threads do not survive a fork. It forks a process per case, with one thread for operations, which
forks a child per trial; `check` runs in the case's process, so what it leaves in memory is there in the next trial. 100
trials take about a second more than what the case itself takes.
"""

import abc
import atexit
import collections
import importlib
import itertools
import json
import math
import os
import pathlib
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAX_RENAMES = 1000
MEMORY = "/dev/shm"  # where trials write, if it is there: a hundred of them need not wait for a disk

_helper: subprocess.Popen | None = None


class Case(abc.ABC):
    """What is killed, and what must be true afterward; see above. A trial of more than `seconds` hangs."""

    seconds = 120

    def __init__(self, folder):
        self.folder = folder

    def prepare(self, folder):  # noqa: B027
        """Fills the empty `folder` of one trial."""

    @abc.abstractmethod
    def act(self, folder):
        """The function that is killed."""

    @abc.abstractmethod
    def check(self, folder, error=None):
        """Says in a word what is in `folder`; `error` is the text of what `act` raised (on a full disk alone)."""


def at_every_rename(case, folder, copies=False):
    """Kills `case.act` just before and just after its first, second, ... rename, until it ends without a kill.

    Renames are `os.rename`, `os.replace`, `os.link`, `shutil.move`, pathlib's and `keras_detect.files.exchange`.
    Returns a `Counter` of what `case.check` returned, the unkilled trials (two; one with `copies`) included.
    """
    return _asked("copies_at_every_rename" if copies else "at_every_rename", case, folder)


def at_random_moments(case, folder, trials=100, seed=0, copies=False):
    """Kills `case.act` after delays drawn by `seed` between zero and the time it takes. Returns a `Counter`.

    With `copies`, the delays are of CPU time, so that a busy machine does not shift them.
    """
    return _asked("copies_at_random_moments" if copies else "at_random_moments", case, folder, trials=trials, seed=seed)


def on_a_full_disk(case, folder, sizes):
    """Runs `case.act` with every file ending after each of `sizes` bytes. Returns a `Counter`."""
    return _asked("on_a_full_disk", case, folder, sizes=list(sizes))


# --- the test's process ---------------------------------------------------------------------------------------------


def _asked(function, case, folder, **arguments):
    request = {"function": function, "module": case.__module__, "case": case.__qualname__, "folder": str(folder)}
    helper = _started()
    helper.stdin.write(json.dumps({**request, "arguments": arguments}) + "\n")
    helper.stdin.flush()
    line = helper.stdout.readline()
    answer = json.loads(line) if line else {}
    if "found" not in answer:
        raise AssertionError(
            f"{case.__qualname__}: {answer.get('error', 'the helper process ended, see its messages')}"
        )
    return collections.Counter(answer["found"])


def _started():
    global _helper
    if _helper is None or _helper.poll() is not None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
        _helper = subprocess.Popen(
            [sys.executable, "-m", "tests.kills"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(_helper.stdin.close)  # the helper ends with its input
    return _helper


# --- the helper -----------------------------------------------------------------------------------------------------


def _serve():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what cases print is no answer
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    importlib.import_module("keras_detect")
    for line in sys.stdin:
        request = json.loads(line)
        importlib.import_module(request["module"])
        pid, pipe = _forked(lambda request=request: _case(request))
        answers.write(json.dumps(_ended(pid, pipe, limit=None)) + "\n")
        answers.flush()


def _case(request):
    """Runs in the process of one case; returns the answer."""
    value = sys.modules[request["module"]]
    for name in request["case"].split("."):
        value = getattr(value, name)
    (folder := pathlib.Path(request["folder"]) / "shared").mkdir(parents=True, exist_ok=True)
    trials = pathlib.Path(tempfile.mkdtemp(dir=MEMORY if os.path.isdir(MEMORY) else None))
    run = {"at_every_rename": _at_every_rename, "at_random_moments": _at_random_moments}
    run |= {"copies_at_every_rename": _copies_at_every_rename, "copies_at_random_moments": _copies_at_random_moments}
    run["on_a_full_disk"] = _on_a_full_disk
    try:
        found = run[request["function"]](value(folder), trials / "trial", **request["arguments"])
    except AssertionError as error:
        return {"error": str(error)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(trials, ignore_errors=True)
    return {"found": found}


def _at_every_rename(case, folder):
    found = collections.Counter()
    for after in (False, True):
        for number in itertools.count(1):
            _prepare(case, folder)
            pid, pipe = _forked(lambda number=number, after=after: _killed_there(case, folder, number, after))
            answer = _ended(pid, pipe, limit=case.seconds)
            moment = f"{'after' if after else 'before'} rename {number}"
            _raise_unless_killed(answer, moment)
            found[_checked(case, folder, moment)] += 1
            if "killed" not in answer:
                break
            if number == MAX_RENAMES:
                raise AssertionError(f"more than {MAX_RENAMES} renames")
        if number == 1:
            raise AssertionError("it renames nothing")
    return found


def _killed_there(case, folder, number, after):
    """Ends this process at the `number`-th rename of `case.act`, if there is one."""
    count = itertools.count(1)

    def wrapped(function):
        def rename(*arguments, **named):
            mine = next(count) == number
            if mine and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **named)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return rename

    _replace_renames(wrapped)
    case.act(folder)


def _stopped_at_renames(case, folder):
    def wrapped(function):
        def rename(*arguments, **named):
            os.kill(os.getpid(), signal.SIGSTOP)
            result = function(*arguments, **named)
            os.kill(os.getpid(), signal.SIGSTOP)
            return result

        return rename

    _replace_renames(wrapped)
    case.act(folder)


def _replace_renames(wrapped):
    files = importlib.import_module("keras_detect.files")
    for owner, name in ((os, "rename"), (os, "replace"), (os, "link"), (shutil, "move"), (files, "exchange")):
        if hasattr(owner, name):
            setattr(owner, name, wrapped(getattr(owner, name)))


def _acted(case, folder):
    case.act(folder)  # what it returns is no answer


def _at_random_moments(case, folder, trials, seed):
    found, drawn = collections.Counter(), random.Random(seed)
    times = []
    for _ in range(3):
        _prepare(case, folder)
        answer = _ended(*_forked(lambda: _acted(case, folder)), limit=case.seconds)
        _raise_unless_killed(answer, "without a kill")
        _checked(case, folder, "without a kill")
        times.append(answer["seconds"])
    for number in range(trials):
        delay = drawn.uniform(0, sorted(times)[1])
        _prepare(case, folder)
        moment = f"trial {number} of seed {seed}, after {1000 * delay:.2f} ms"
        _raise_unless_killed(_ended(*_forked(lambda: _acted(case, folder)), delay), moment)
        found[_checked(case, folder, moment)] += 1
    return found


def _copies_at_every_rename(case, folder):
    _prepare(case, folder)
    found = _checked_copies(case, folder, lambda: _stopped_at_renames(case, folder))
    if not found:
        raise AssertionError("it renames nothing")
    found[_checked(case, folder, "without a kill")] += 1
    return found


def _copies_at_random_moments(case, folder, trials, seed):
    def timed():
        begun = time.process_time()
        case.act(folder)
        return {"cpu": time.process_time() - begun}

    _prepare(case, folder)
    answer = _ended(*_forked(timed), limit=case.seconds)
    _raise_unless_killed(answer, "without a kill")
    drawn = random.Random(seed)
    moments = sorted(drawn.uniform(0, answer["cpu"]) for _ in range(trials))
    _prepare(case, folder)
    found = _checked_copies(case, folder, lambda: _acted(case, folder), moments)
    for _ in range(trials - sum(found.values())):  # it took less time than before, and had ended by then
        found[_checked(case, folder, "without a kill")] += 1
    return found


def _checked_copies(case, folder, function, moments=None):
    """Checks a copy of `folder` each time a child that runs `function` stops; it is stopped at `moments`, s of CPU."""
    pid, pipe = _forked(function)
    begun, end, copy = cpu_seconds(pid), time.perf_counter() + case.seconds, folder.with_name("copy")
    found, due = collections.Counter(), iter(moments or ())
    next_due = next(due, math.inf)
    try:
        while True:
            changed, status = os.waitpid(pid, os.WUNTRACED | os.WNOHANG)
            if changed and not os.WIFSTOPPED(status):
                break
            if changed:
                stopped = time.perf_counter()
                shutil.copytree(folder, copy, symlinks=True)
                found[_checked(case, copy, f"stop {sum(found.values()) + 1}")] += 1
                shutil.rmtree(copy)
                end += time.perf_counter() - stopped
                os.kill(pid, signal.SIGCONT)
            elif time.perf_counter() > end:
                raise AssertionError(f"hangs: still running after {case.seconds} s")
            elif cpu_seconds(pid) - begun >= next_due:
                next_due = next(due, math.inf)
                os.kill(pid, signal.SIGSTOP)
            else:
                time.sleep(0.001)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    with os.fdopen(pipe, "rb") as file:
        content = file.read()
    _raise_unless_killed(json.loads(content[1:] or '{"error": "it was killed"}'), "without a kill")
    return found


def cpu_seconds(pid):
    """CPU time of a running process, by the clock that `clock_getcpuclockid` of Linux names."""
    return time.clock_gettime((~pid << 3) | 2)


def _on_a_full_disk(case, folder, sizes):
    found = collections.Counter()

    def act(size):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        case.act(folder)

    for size in sizes:
        _prepare(case, folder)
        answer = _ended(*_forked(lambda size=size: act(size)), limit=case.seconds)
        if "killed" in answer:
            raise AssertionError(f"ended by signal {answer['killed']} where files end after {size} bytes")
        found[_checked(case, folder, f"files end after {size} bytes", answer.get("message"))] += 1
    return found


def _prepare(case, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    case.prepare(folder)


def _checked(case, folder, moment, *error):
    try:
        return case.check(folder, *error)
    except Exception as failure:
        lying = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))[:30]
        raise AssertionError(f"{moment}: {traceback.format_exc()}\nin the folder: {lying}") from failure


def _raise_unless_killed(answer, moment):
    if "error" in answer:
        raise AssertionError(f"{moment}: {answer['error']}")


def _forked(function):
    """`(pid, pipe)` of a child that runs `function`; the pipe carries one byte at the start, then an answer."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    os.close(reading)
    try:
        os.write(writing, b"s")
        start = time.perf_counter()
        try:
            answer = {"seconds": 0.0, **(function() or {})}
            answer["seconds"] = time.perf_counter() - start
        except BaseException as error:
            answer = {"error": traceback.format_exc()[-4000:], "message": f"{type(error).__name__}: {error}"[:4000]}
        with os.fdopen(writing, "w") as file:
            file.write(json.dumps(answer, default=str))
        sys.stderr.flush()
    finally:
        os._exit(0)


def _ended(pid, pipe, delay=None, limit=Case.seconds):
    """What a child answered, after a SIGKILL if it runs for more than `delay` seconds from its start."""
    content, end = b"", None if limit is None else time.perf_counter() + limit
    while select.select([pipe], [], [], None if end is None else max(0.0, end - time.perf_counter()))[0]:
        chunk = os.read(pipe, 65536)
        if not chunk:
            break
        if not content and delay is not None:
            end = time.perf_counter() + delay
        content += chunk
    else:
        os.kill(pid, signal.SIGKILL)
        if not content or delay is None:
            os.waitpid(pid, 0)
            os.close(pipe)
            return {"error": f"hangs: still running after {limit} s"}
        while chunk := os.read(pipe, 65536):  # it may have ended just before
            content += chunk
    os.close(pipe)
    status = os.waitpid(pid, 0)[1]
    return {"killed": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else json.loads(content[1:])


if __name__ == "__main__":
    from tests import kills  # the module that cases import, not __main__

    kills._serve()
