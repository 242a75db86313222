"""Debian's packages as a source of data: downloaded and unpacked, never installed, without root."""

from __future__ import annotations

import hashlib
import pathlib
import shutil
import subprocess
from collections.abc import Iterable, Sequence


def fetch_packages(names: Sequence[str], folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Downloads Debian packages with `apt-get download` and unpacks each beside the other.

    Args:
        names: of the packages.
        folder: an existing folder; it is left with one folder a package and nothing else.

    Returns:
        By the name of a package, the folder that stands for `/` in it.

    Raises:
        RuntimeError: this is no Debian or Ubuntu, or apt does not know or get a package.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise RuntimeError(f"This needs Debian or Ubuntu: there is no `{tool}` here.")
    hint = "if it does not know the package, `apt-get update` (as root) may be due"
    _call(["apt-get", "download", *names], folder, hint)
    unpacked = {}
    for name in names:
        (archive,) = folder.glob(f"{name}_*.deb")
        _call(["dpkg-deb", "-x", archive.name, name], folder, "the download is incomplete")
        archive.unlink()
        unpacked[name] = folder / name
    return unpacked


def check_contents(
    package: str, root: pathlib.Path, files: Iterable[pathlib.Path], expected: str
) -> None:
    """Compares files of an unpacked package, their names and contents, with a SHA-256.

    Raises:
        RuntimeError: they differ; the message names the package and the digest that was found.
    """
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(root)}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    if digest.hexdigest() != expected:
        raise RuntimeError(
            f"The files of Debian's package {package} are not those that were checked "
            f"(SHA-256 {digest.hexdigest()}, expected {expected}): the download is damaged, or "
            "this distribution has another version of the package than Debian 12."
        )


def _call(command: list[str], folder: pathlib.Path, hint: str) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode != 0:
        said = result.stderr.strip()[-500:]
        raise RuntimeError(f"`{' '.join(command)}` failed ({hint}): {said}")
