"""The wheel: what it holds, and that it works with the core dependencies alone."""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]
ROOT = Path(__file__).parents[1]

ONE_FIT = """
import keras_vqvae, numpy as np, sys
assert "site-packages" in keras_vqvae.__file__, keras_vqvae.__file__
model = keras_vqvae.ImageVQVAE((8, 8, 3), 8, 4, hidden=4, residual_blocks=1)
model.compile(optimizer="adam")
history = model.fit(np.zeros((4, 8, 8, 3), "uint8"), verbose=0).history
assert np.isfinite(history["loss"]).all()
extras = "tensorflow_probability", "tensorflow_io", "vizdoom", "matplotlib", "PIL", "hypothesis"
for extra in extras:
    try:
        __import__(extra)
    except ImportError:
        continue
    raise AssertionError(f"{extra} can be imported: this is no clean environment")
print("fine")
"""


def run(*command: object, cwd: Path, **environment: str) -> str:
    keep = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**keep, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # A copy of the tree, so that no build folder is left there, nor an old one used.
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for part in ("keras_vqvae", "tests", "zoo", "examples", "benchmarks"):
        for path in (ROOT / part).rglob("*"):
            if path.suffix in (".py", ".typed", ".md", ".json") and "__pycache__" not in path.parts:
                copy = source / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder / "dist", source,
        cwd=folder)  # fmt: skip
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.mark.xdist_group("wheel")
def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"keras_vqvae"}
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "keras_vqvae").rglob("*")
        if path.suffix in (".py", ".typed")
    }
    assert sources - names == set(), "missing from the wheel"
    assert "keras_vqvae/py.typed" in names
    assert not [name for name in names if re.search(r"test|zoo|golden|__pycache__", name)]


def core_distributions() -> set[str]:
    """Installed distributions that the core needs, with all that those need."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: set[str] = set()
    # TensorBoard needs setuptools, and does not say so.
    todo = ["tensorflow", "keras", "numpy", "setuptools"]
    while todo:
        name = canonicalize_name(todo.pop())
        if name in found:
            continue
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        for text in requirements:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
    return found


@pytest.mark.xdist_group("wheel")
def test_wheel_works_with_core_dependencies_alone(wheel: Path, tmp_path: Path) -> None:
    """An environment that sees, by links, only what the core's dependencies require."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    here = Path(sysconfig.get_paths()["purelib"])
    for name in core_distributions():
        for file in importlib.metadata.distribution(name).files or []:
            top = file.parts[0]
            if top != ".." and (here / top).exists() and not (site / top).exists():
                (site / top).symlink_to(here / top)
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet",
        "--target", site, wheel, cwd=tmp_path)  # fmt: skip
    python = tmp_path / "venv" / "bin" / "python"
    assert run(python, "-c", ONE_FIT, cwd=tmp_path).strip().endswith("fine")


@pytest.mark.long
def test_wheel_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    """The same, with everything downloaded."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    assert run(python, "-c", ONE_FIT, cwd=tmp_path).strip().endswith("fine")
