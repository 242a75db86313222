"""What may import what, and what importing the package needs."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

PACKAGE = Path(__file__).parents[1] / "keras_vqvae"

# A room may import itself and what stands above it. Rooms of one line stand side by side.
ROOMS = [
    {"backend"},
    {"functional", "spectral"},
    {"layers"},
    {"sampling", "metrics"},
    {"likelihoods"},
    {"models"},
    {"paths"},
    {"callbacks"},
    {"data"},
    {"export"},
    {"distribute"},
]
MAY_IMPORT_A_BACKEND = {"backend", "paths", "callbacks", "data", "export", "distribute"}
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(source: str, package: str) -> set[str]:
    """Dotted names that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def violations(source: str, own_room: str, package: str = "keras_vqvae") -> list[str]:
    wrong = []
    for name in sorted(imports(source, package)):
        top, *rest = name.split(".")
        if top in ("tensorflow", "jax", "jaxlib", "torch", "tensorflow_io"):
            if own_room not in MAY_IMPORT_A_BACKEND:
                wrong.append(f"{own_room} imports {name}")
        elif top == "keras_vqvae":
            # `from keras_vqvae import VQVAE` would go around the order of the rooms.
            other = rest[0] if rest else ""
            if other not in LEVEL:
                wrong.append(f"{own_room} imports {name}, which is no room")
            elif other != own_room and LEVEL[other] >= LEVEL[own_room]:
                wrong.append(f"{own_room} imports {name}, which stands below or beside it")
    return wrong


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards_only(path: Path) -> None:
    if path == PACKAGE / "__init__.py":  # imports all rooms, but no backend and no extra
        tops = {name.split(".")[0] for name in imports(path.read_text(), "keras_vqvae")}
        assert tops <= {"keras_vqvae", "importlib", "os", "sys", "typing"}
        return
    assert room(path) in LEVEL, f"{room(path)} is a room that this test does not know"
    package = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
    assert violations(path.read_text(), room(path), package) == []


@pytest.mark.parametrize(
    "source, own_room, wrong",
    [
        ("from keras_vqvae.models import base", "layers", True),
        ("def f():\n    import tensorflow as tf", "models", True),
        ("from jax import numpy", "functional", True),
        ("from keras_vqvae import metrics", "sampling", True),
        ("from keras_vqvae import VQVAE", "export", True),
        ("from . import models", "layers", True),
        ("from keras_vqvae import backend, functional\nimport keras", "layers", False),
        ("import tensorflow as tf", "export", False),
        ("from keras_vqvae.layers.residual import ConvEncoder", "layers", False),
    ],
)
def test_the_walk_finds_violations(source: str, own_room: str, wrong: bool) -> None:
    assert bool(violations(source, own_room)) == wrong


EXTRAS = [
    "tensorflow_probability",
    "tensorflow_io",
    "vizdoom",
    "matplotlib",
    "PIL",
    "tensorflow_datasets",
    "jinja2",
    "soundfile",
    "soxr",
    "tf_keras",
]

WITHOUT_EXTRAS = """
import sys
blocked = set(sys.argv[1:])

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
import keras_vqvae
import numpy as np
model = keras_vqvae.ImageVQVAE((8, 8, 3), 8, 4, hidden=4)
assert model.encode(np.zeros((1, 8, 8, 3), "uint8")).shape == (1, 2, 2)
assert not blocked & {name.split(".")[0] for name in sys.modules}
print("fine")
"""


def test_import_without_extras() -> None:
    blocked = list(EXTRAS)
    if keras.backend.backend() == "jax":
        blocked.append("tensorflow")
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, *blocked],
        cwd=PACKAGE.parent,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.stdout.strip() == "fine", run.stderr[-3000:]


def test_other_backends_are_refused_with_the_cure() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import keras_vqvae"],
        cwd=PACKAGE.parent,
        env={**os.environ, "KERAS_BACKEND": "numpy"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode != 0
    assert "runs on the Keras backends 'tensorflow' and 'jax', not on 'numpy'" in run.stderr


def private_uses(source: str) -> list[str]:
    """Private attributes of other things that a module of tests reads or replaces."""
    tree = ast.parse(source)
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]

    def is_own(node: ast.Attribute) -> bool:
        return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")

    own = {node.attr for node in attributes if is_own(node)} | {"_replace"}  # of named tuples
    return [
        f"line {node.lineno}: {node.attr}"
        for node in attributes
        if re.match("_(?!_)", node.attr) and node.attr not in own
    ]


def test_tests_reach_inside_through_one_file_only() -> None:
    """Else a private name could not change without changes all over the tests."""
    files = Path(__file__).parent.rglob("*.py")
    found = {str(path): private_uses(path.read_text()) for path in files}
    assert not {path: uses for path, uses in found.items() if uses}
    assert private_uses("layer._counts.assign(1)") == ["line 1: _counts"]
