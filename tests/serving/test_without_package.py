"""SavedModels answer the same without this package, and without TensorFlow's Python.

Every signature of every model gets its example request, an empty batch and bad requests, from two
processes: one loads with `tf.saved_model.load` and cannot import keras_vqvae, the other drives
TensorFlow's C library and never imports TensorFlow.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

pytestmark = [
    pytest.mark.programs,
    pytest.mark.tensorflow,
    pytest.mark.timeout(1800),  # one process, many models
]

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from tests.checks import images  # noqa: E402
from tests.needed import skip_or_fail  # noqa: E402
from tests.serving import c_library, children  # noqa: E402
from tests.serving.models import MODELS, bad_requests, emptied, requests  # noqa: E402

# With every signature, state and kind of condition; the others, which take minutes, combine them.
FEW = [
    "image_classes",
    "image_encoded",
    "sound_encoded",
    "sound_source",
    "sound_wavenet",
    "video_discrete",
    "video_codes_predictor",
]
ALL = [pytest.param(name, marks=[] if name in FEW else pytest.mark.long) for name in MODELS]
SOURCE = Path(__file__).parents[2] / "examples" / "serving" / "savedmodel.c"


class Case(NamedTuple):
    """A request.

    Attributes:
        path: of the SavedModel.
        signature: name.
        inputs: by name.
        message: what the error must say, if it is a bad request.
    """

    path: str
    signature: str
    inputs: dict[str, np.ndarray]
    message: str | None = None


class Answered(NamedTuple):
    """The cases of a model, and what the two processes answered."""

    cases: list[Case]
    python: list
    c: list


def cases(name: str, path: Path) -> Iterator[Case]:
    """For each signature: bad requests, then its example and an empty batch."""
    signatures = json.loads((path / "signature.json").read_text(encoding="utf-8"))["signatures"]
    for signature, inputs in requests(name, path).items():
        fields = signatures[signature]["inputs"]
        if signature != "serving_default":  # it is `reconstruct`
            for bad, message in bad_requests(inputs, fields):
                yield Case(str(path), signature, bad, message)
        yield Case(str(path), signature, inputs)
        yield Case(str(path), signature, emptied(inputs, fields))


@pytest.fixture(scope="module")
def answered(
    request: pytest.FixtureRequest, export_once: Callable, tmp_path_factory: Any
) -> dict[str, Answered]:
    # All models in one process each: loading TensorFlow takes longer than most of them.
    tests = [x for x in request.session.items if x.path == request.path and hasattr(x, "callspec")]
    selected = [test.callspec.params.get("name") for test in tests]
    names = [name for name in MODELS if name in selected]
    asked = {name: list(cases(name, export_once(name))) for name in names}
    flat = [tuple(case[:3]) for model in asked.values() for case in model]
    folder = tmp_path_factory.mktemp("answers")
    python, c = (iter(children.ask(program, flat, folder)) for program in ("loaded", "c_library"))
    return {
        name: Answered(model, [next(python) for _ in model], [next(c) for _ in model])
        for name, model in asked.items()
    }


@pytest.mark.parametrize("name", ALL)
def test_c_library_agrees_with_python(answered: dict[str, Answered], name: str) -> None:
    good = 0
    for case, python, c in zip(*answered[name], strict=True):
        if case.message is not None:
            assert python[0] == c[0] == c_library.INVALID_ARGUMENT, (case.signature, python, c)
            assert re.search(case.message, python[1]) and re.search(case.message, c[1])
            continue
        good += 1
        assert isinstance(c, dict) and c.keys() == python.keys(), (case.signature, python, c)
        for output, expected in python.items():
            got, where = c[output], f"{case.signature} {output}"
            assert got.dtype == expected.dtype and got.shape == expected.shape, where
            if got.dtype.kind == "f":
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5, err_msg=where)
            else:  # codes, samples, 8-bit pictures, encoded files
                np.testing.assert_array_equal(got, expected, err_msg=where)
    assert good == 2 * len({case.signature for case in answered[name].cases}) >= 8


# Not those of sound, whose codebooks are fitted anew, from other rows, each time they are made.
AGAIN = [x for x in ALL if not re.match("sound|.*encoded", str(x.values[0]))]


@pytest.mark.parametrize("name", AGAIN)
def test_clean_process_answers_as_the_model_does(answered: dict[str, Answered], name: str) -> None:
    model, prior = MODELS[name]()
    model = getattr(model, "vqvae", model)  # of a VideoPredictor
    examples = {}  # of the two good requests of a signature, the first
    for case, answer, _ in zip(*answered[name], strict=True):
        if case.message is None:
            examples.setdefault(case.signature, (case.inputs, answer))
    given, answer = examples["encode"]
    (data,) = given.values()
    np.testing.assert_array_equal(answer["codes"], model.encode(data))
    given, answer = examples["decode"]
    (made,) = answer.values()
    np.testing.assert_array_equal(made, model.decode(given["codes"]))
    if prior is not None:
        given, answer = examples["sample"]
        options = {k: x.item() if x.shape == () else x for k, x in given.items()}
        drawn = prior.sample(options.pop("number"), **options)
        np.testing.assert_array_equal(answer["codes"], drawn)


@pytest.fixture(scope="module")
def program(tmp_path_factory: Any) -> Path:
    """The C program, built by the command line of examples/serving/README.md."""
    if shutil.which("gcc") is None:
        skip_or_fail("GCC", "no gcc on this machine")
    readme = SOURCE.with_name("README.md").read_text(encoding="utf-8")
    line = next(line for line in readme.splitlines() if line.startswith("gcc "))
    folder = tmp_path_factory.mktemp("c")
    for file in (SOURCE, SOURCE.with_name("signatures.h")):
        shutil.copy(file, folder)
    command = f"TF={Path(tf.__file__).parent}; {line} -Wall -Wextra -Werror"
    built = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder / "savedmodel"


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_c_program_reconstructs_a_picture(
    program: Path, export_once: Callable, tmp_path: Path
) -> None:
    path = export_once("image_classes")
    picture = images(1, (8, 12, 3))
    header = b"P6\n12 8\n255\n"
    (tmp_path / "in.ppm").write_bytes(header + picture.tobytes())
    done = run(program, path, tmp_path / "in.ppm", tmp_path / "out.ppm")
    assert done.returncode == 0, done.stderr
    expected = tf.saved_model.load(str(path)).signatures["reconstruct"](images=picture)
    printed = [[int(code) for code in line.split()] for line in done.stdout.splitlines()]
    np.testing.assert_array_equal(printed, expected["codes"][0])
    assert (tmp_path / "out.ppm").read_bytes() == header + expected["images"].numpy().tobytes()


def test_c_program_lists_signatures(program: Path, export_once: Callable) -> None:
    path = export_once("image_classes")
    listed = run(program, path).stdout
    signatures = json.loads((path / "signature.json").read_text(encoding="utf-8"))["signatures"]
    assert {line for line in listed.splitlines() if not line.startswith(" ")} == set(signatures)
    for name, fields in signatures.items():
        for field in fields["inputs"]:
            assert f"takes {field}: tensor {name}_{field}:0" in listed
        for field in fields["outputs"]:
            assert f"gives {field}: tensor StatefulPartitionedCall" in listed


def test_c_program_says_what_is_wrong(program: Path, export_once: Callable, tmp_path: Path) -> None:
    path, picture, out = export_once("image_classes"), tmp_path / "in.ppm", tmp_path / "out.ppm"
    for text, message in {
        b"P6\n12 4\n255\n" + bytes(12 * 4 * 3): "error 3: .*images must have shape",
        b"P6\n12 8\n255\n" + bytes(7): "ends too early: .*in.ppm",
        b"P6\n12 8\n127\n" + bytes(12 * 8 * 3): "is no PPM picture .*in.ppm",
        b"GIF89a": "is no PPM picture .*in.ppm",
    }.items():
        picture.write_bytes(text)
        done = run(program, path, picture, out)
        assert done.returncode == 1 and re.search(message, done.stderr), done.stderr
        assert not out.exists()
    assert "Could not find SavedModel" in run(program, tmp_path).stderr
