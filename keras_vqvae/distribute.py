"""Several workers on one machine, to try training on several machines out.

    python -m keras_vqvae.distribute --workers 2 [--restarts 3] script.py arguments...
    python -m keras_vqvae.distribute --workers 2 -m module arguments...

Every worker runs the script with a `TF_CONFIG` of its own, from which
`tf.distribute.MultiWorkerMirroredStrategy` learns of the others. What they print is shown line by
line after `[0] `, `[1] `. When one dies all are stopped, since the others would wait for it, and
its exit code is passed on; with `--restarts` all are started anew, and training with
`BackupAndRestore` goes on from its backup. Without `--verbose` TensorFlow's log is off in the
workers, and what they log in spite of that is shown only when one dies.

Workers share the machine: on a GPU set `TF_FORCE_GPU_ALLOW_GROWTH=true`, or the first takes all of
its memory. TensorFlow's servers listen on every address of the machine and ask nobody for a
password, so this is not for a machine that strangers can reach.
"""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, NamedTuple

# Between SIGTERM and SIGKILL. TensorFlow catches SIGTERM in workers of a cluster, so that mostly it
# is waited for in full; backups are whole whenever a worker is killed.
GRACE_SECONDS = 2.0
# A line that is redrawn, a progress bar, is shown at most so often: bars of several workers cannot
# be redrawn in place, and a line for each redrawing would be thousands.
REDRAW_SECONDS = 1.0

# Lines end in a newline; what a carriage return ends is to be drawn over. (One at the end of what
# has been read may be the first half of "\r\n".)
_LINE = re.compile(rb"([^\r\n]*)(\r*\n|\r+(?=[^\r\n]))")

# What C++ logs in a way that no variable turns off, but for fatal errors.
_LOG = re.compile(rb"[IWE]\d{4} \d\d:\d\d:|WARNING: All log messages before absl")
_KEPT = 100  # lines of that

# A process that outlives a launcher killed by SIGKILL, which could not stop its workers. It is
# told the workers' process groups, and kills those it was last told of when its input ends.
_GUARD = """
import os, signal, sys
groups = ""
for groups in sys.stdin:
    pass
for group in groups.split():
    try:
        os.killpg(int(group), signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


def is_chief() -> bool:
    """Whether this process is the one that writes files: of several workers only one should.

    True outside a cluster, for the task "chief", and where there is none for worker 0. Within the
    scope of a strategy with several workers its cluster decides, else `TF_CONFIG`.
    """
    cluster, kind, index = _task()
    if not kind or kind == "chief":
        return True
    return kind == "worker" and index == 0 and "chief" not in cluster


def _task() -> tuple[list, str | None, int]:
    """Kinds of tasks of the cluster; kind and index of this one. No kind outside a cluster."""
    tf: Any = sys.modules.get("tensorflow")  # where it is not imported no strategy is in scope
    if tf and tf.distribute.has_strategy():
        resolver = tf.distribute.get_strategy().cluster_resolver
        if resolver is not None and resolver.task_type:
            return resolver.cluster_spec().jobs, resolver.task_type, int(resolver.task_id or 0)
    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    task = config.get("task", {})
    return list(config.get("cluster", {})), task.get("type"), int(task.get("index", 0))


class Ended(NamedTuple):
    """An end that ends the others: of a worker or, where `worker` is None, of the launcher.

    `code` is the exit code, or minus the number of the signal that killed it.
    """

    worker: int | None
    code: int

    @property
    def exit_code(self) -> int:
        return self.code if self.code >= 0 else 128 - self.code

    def __str__(self) -> str:
        if self.code >= 0:
            return f"worker {self.worker} ended with exit code {self.code}"
        name = signal.Signals(-self.code).name
        return f"stopped by {name}" if self.worker is None else f"worker {self.worker} died: {name}"


def _environment() -> dict[bytes, bytes]:
    """What the launcher was started with; its import of TensorFlow has added to `os.environ`."""
    try:
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:  # not Linux
        return dict(os.environb)
    return dict(entry.split(b"=", 1) for entry in entries if b"=" in entry)


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class _Workers:
    """One start of all workers, each with a process group of its own."""

    def __init__(self, events: SimpleQueue, guard: IO[bytes], verbose: bool) -> None:
        self._events = events
        self._guard = guard
        self._verbose = verbose
        self._held: deque[bytes] = deque(maxlen=_KEPT)
        self._processes: list[subprocess.Popen] = []
        self._waiting: list[threading.Thread] = []
        self._forwarding: list[threading.Thread] = []
        self._printing = threading.Lock()

    def run(self, command: list[str], count: int) -> Ended | None:
        """Runs `command` on so many; None when all have ended well, else what ended them."""
        addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
        ended = None
        try:
            for index in range(count):
                task = {"type": "worker", "index": index}
                config = {"cluster": {"worker": addresses}, "task": task}
                self._start(command, index, json.dumps(config))
            running = count
            while running and ended is None:
                event = self._events.get()
                running -= 1
                if event.worker is None or event.code:
                    ended = event
        finally:
            self._stop()
        while not self._events.empty():  # the stopped ones' ends, but perhaps also a signal to us
            event = self._events.get()
            ended = event if event.worker is None else ended
        if ended is not None and ended.worker is not None:
            sys.stderr.buffer.writelines(self._held)
        return ended

    def _start(self, command: list[str], index: int, config: str) -> None:
        quiet = {} if self._verbose else {b"TF_CPP_MIN_LOG_LEVEL": b"3"}
        ours = {b"TF_CONFIG": config.encode(), b"PYTHONUNBUFFERED": b"1"}
        process = subprocess.Popen(
            command,
            env={**quiet, **_environment(), **ours},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._processes.append(process)
        self._tell_guard(self._processes)
        self._waiting.append(_thread(self._wait, index, process.pid))
        prefix = f"[{index}] ".encode()
        for source, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            self._forwarding.append(_thread(self._forward, source, target.buffer, prefix))

    def _tell_guard(self, processes: list[subprocess.Popen]) -> None:
        self._guard.write(" ".join(str(process.pid) for process in processes).encode() + b"\n")
        self._guard.flush()

    def _wait(self, index: int, pid: int) -> None:
        # WNOWAIT leaves a zombie: until the group is stopped its number must not become another's.
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert result is not None
        exited = result.si_code == os.CLD_EXITED
        self._events.put(Ended(index, result.si_status if exited else -result.si_status))

    def _forward(self, source: IO[bytes], target: IO[bytes], prefix: bytes) -> None:
        """Copies whole lines, after `prefix`; without `--verbose` holds C++'s log back."""

        def show(text: bytes) -> None:
            line = prefix + text + b"\n"
            if _LOG.match(text) and not self._verbose:
                self._held.append(line)
                return
            with self._printing:
                target.write(line)
                target.flush()

        rest, redrawn = b"", -REDRAW_SECONDS
        try:
            while data := os.read(source.fileno(), 2**16):
                rest, at = rest + data, 0
                while line := _LINE.match(rest, at):
                    at = line.end()
                    if line[2].endswith(b"\n"):
                        show(line[1])
                    elif line[1].strip() and time.monotonic() - redrawn >= REDRAW_SECONDS:
                        show(line[1])
                        redrawn = time.monotonic()
                rest = rest[at:]
            if rest:
                show(rest.rstrip(b"\r"))
        except BrokenPipeError:  # nobody reads what we print, as in `... | head`
            self._events.put(Ended(None, -signal.SIGPIPE))

    def _stop(self) -> None:
        """Ends all process groups, what is left of those that ended by themselves included."""
        self._kill(signal.SIGTERM)
        _join(self._waiting, GRACE_SECONDS)
        self._kill(signal.SIGKILL)
        for thread in self._waiting:
            thread.join()
        _join(self._forwarding, GRACE_SECONDS)  # one that left its group may keep a pipe open
        self._tell_guard([])
        for process in self._processes:
            process.wait()

    def _kill(self, number: int) -> None:
        for process in self._processes:
            try:
                os.killpg(process.pid, number)
            except (ProcessLookupError, PermissionError):  # macOS: only a zombie is left of it
                pass


def _thread(work: Any, *args: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=args, daemon=True)
    thread.start()
    return thread


def _join(threads: list[threading.Thread], seconds: float) -> None:
    """Waits for all together at most so long."""
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def launch(command: list[str], workers: int, restarts: int, verbose: bool = False) -> int:
    """Runs `command` on local workers, and all of them again when one dies.

    Args:
        command: of one worker.
        workers: how many, at least 1.
        restarts: how often all are started anew at most.
        verbose: whether to show TensorFlow's log even if all goes well.

    Returns:
        0 if all ended well, else the exit code of the worker that died first, or 128 and the
        number of the signal that killed it, or the launcher.
    """
    events: SimpleQueue = SimpleQueue()  # the one queue that a signal handler may put into
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: events.put(Ended(None, -number)))
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _GUARD], stdin=subprocess.PIPE, start_new_session=True
    )
    assert guard.stdin
    restarted = 0
    while (ended := _Workers(events, guard.stdin, verbose).run(command, workers)) is not None:
        if ended.worker is None or restarted == restarts:
            _say(f"{ended}; all are stopped")
            break
        restarted += 1
        _say(f"{ended}; all are started anew ({restarted} of {restarts} times)")
    guard.stdin.close()
    guard.wait()
    return ended.exit_code if ended else 0


def _say(message: str) -> None:
    print(f"keras_vqvae.distribute: {message}", file=sys.stderr, flush=True)


def _at_least(least: int) -> Any:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be an integer of at least {least}, got {text}")
        return int(text)

    return number


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m keras_vqvae.distribute",
        description="Runs a script on several local workers, to try multi-worker training out.",
        usage="%(prog)s [--workers 2] [--restarts 0] [--verbose] (script.py | -m module) ...",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--workers", type=_at_least(1), default=2, help="how many")
    parser.add_argument(
        "--restarts",
        type=_at_least(0),
        default=0,
        help="how often to start all anew when one dies",
    )
    parser.add_argument("--verbose", action="store_true", help="show TensorFlow's log")
    rest = argparse.REMAINDER
    parser.add_argument("-m", dest="module", nargs=rest, help="a module in place of a script")
    parser.add_argument("command", nargs=rest, help="the script and its arguments")
    args = parser.parse_args()
    if not hasattr(os, "waitid"):
        parser.error("needs Linux, or macOS with Python 3.13 or later")
    if not (args.module or args.command):
        parser.error("which script? Give script.py, or -m module, after the options")
    if not args.module and not Path(args.command[0]).is_file():
        parser.error(f"no such script: {args.command[0]}")
    what = ["-m", *args.module] if args.module else args.command
    return launch([sys.executable, *what], args.workers, args.restarts, args.verbose)


if __name__ == "__main__":
    sys.exit(main())
