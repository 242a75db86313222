"""TensorFlow's cluster servers listen on every address: tests run them in a network of their own.

With the environment variable KERAS_VQVAE_REQUIRE_NAMESPACES=1, which CI sets, a machine that does
not permit it fails the tests instead of skipping them.
"""

import functools
import os
import subprocess

from tests.needed import skip_or_fail

# No tool that a fresh machine may lack: the loopback is brought up by the two ioctls behind `ip`.
_LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    name = b"lo".ljust(16, bytes(1))
    flags = struct.unpack("16sh", fcntl.ioctl(s, 0x8913, name + bytes(16))[:18])[1]
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", name, flags | 1))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def in_namespace(command: list[str]) -> list[str]:
    """The command line that runs `command` where there is nothing but a loopback of its own."""
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *root, "--net", "python3", "-I", "-c", _LOOPBACK_UP, *command]


@functools.cache
def _refusal() -> str:
    try:
        run = subprocess.run(in_namespace(["true"]), capture_output=True, text=True, timeout=60)
    except OSError as error:
        return str(error)
    return "" if run.returncode == 0 else run.stderr.strip() or f"exit code {run.returncode}"


def require_namespaces() -> None:
    """Skips, or fails where CI says so, if this machine permits no network namespace."""
    if not _refusal():
        return
    skip_or_fail("NAMESPACES", f"network namespaces are not permitted here: {_refusal()[-300:]}")
