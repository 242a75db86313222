"""What one TensorFlow exports the other answers the same, in both directions.

The two are those of `make test` and `make test-next`: the environment that runs this test and its
sibling, which takes part as a child process. That child is this module run as a program, `python -m
tests.serving.test_versions EXPORTS FOLDER`: it answers EXPORTS, exports the same models into
FOLDER, and answers those.
"""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from tests.checks import images, to_numpy  # noqa: E402
from tests.needed import skip_or_fail  # noqa: E402
from tests.serving import loaded  # noqa: E402
from tests.serving.models import MODELS, export, requests  # noqa: E402

ROOT = Path(__file__).parents[2]
SIBLINGS = {".venv": ".venv-next", ".venv-next": ".venv"}
NAMES = ["image_prior", "sound_parallel", "sound_wavenet", "video_discrete"]
NEAR_TIE = 1e-4  # of two squared distances, the difference beside the greater


def pictures() -> np.ndarray:
    return images(64, (8, 12, 3))


def asked(exports: Path) -> list[tuple[str, str, dict]]:
    """The examples of all signatures, and last the codes of many pictures."""
    found = []
    for name in NAMES:
        path = exports / name / "1"
        found += [(str(path), *request) for request in requests(name, path).items()]
    return [*found, (str(exports / NAMES[0] / "1"), "encode", {"images": pictures()})]


def gaps() -> np.ndarray:
    """How much nearer than the next each nearest code of `pictures()` is, relatively."""
    vqvae, _ = MODELS[NAMES[0]]()  # its weights are the same each time
    z = to_numpy(vqvae.latents(tf.constant(pictures())))
    distances = ((z[..., None, :] - to_numpy(vqvae.quantizer.embeddings)) ** 2).sum(-1)
    nearest, second = np.moveaxis(np.sort(distances, -1)[..., :2], -1, 0)
    return (second - nearest) / second


def facts(exports: Path) -> dict[str, Any]:
    """What this TensorFlow answers, and its `gaps`."""
    return {"version": tf.__version__, "answers": loaded.answer(asked(exports)), "gaps": gaps()}


@pytest.fixture(scope="module")
def both(export_once: Callable, tmp_path_factory: Any) -> dict[str, Any]:
    """By who exported: the folder, and what this environment and the sibling answered."""
    here = Path(sys.prefix).name
    python = ROOT / SIBLINGS.get(here, "none") / "bin" / "python"
    if not python.exists():
        skip_or_fail("BOTH_VERSIONS", f"needs .venv and .venv-next, has {here} alone")
    ours = export_once(NAMES[0]).parents[1]
    for name in NAMES:
        export_once(name)
    theirs = tmp_path_factory.mktemp("theirs")
    run = subprocess.run(
        [python, "-m", "tests.serving.test_versions", ours, theirs],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    of_ours, of_theirs = pickle.loads((theirs / "facts.pickle").read_bytes())
    return {
        "ours": (ours, facts(ours), of_ours),
        "theirs": (theirs, of_theirs, facts(theirs)),
    }


@pytest.mark.parametrize("exporter", ["ours", "theirs"])
def test_the_other_version_answers_the_same(
    both: dict[str, Any], exporter: str, capsys: pytest.CaptureFixture
) -> None:
    exports, one, other = both[exporter]
    assert one["version"] != other["version"]
    *examples, many = zip(asked(exports), one["answers"], other["answers"], strict=True)
    for (path, signature, _), expected, got in examples:
        assert got.keys() == expected.keys()
        for output, x in expected.items():
            assert got[output].dtype == x.dtype and got[output].shape == x.shape
            exact = output in ("codes", "pending", "given", "row", "previous", "source", "number")
            tolerance = 0 if exact else 1 if x.dtype == np.uint8 else 1e-4
            a, b, where = x.astype("float64"), got[output].astype("float64"), (path, signature)
            np.testing.assert_allclose(b, a, 0, tolerance, err_msg=f"{where} {output}")
    _, expected, got = many
    different = got["codes"] != expected["codes"]
    assert (one["gaps"][different] < NEAR_TIE).all() and different.mean() < 0.01
    with capsys.disabled():
        versions = f"exported on {one['version']}, loaded on {other['version']}"
        print(f"\n{versions}: {different.sum()} of {different.size} codes differ, near-ties")


if __name__ == "__main__":
    given, own = map(Path, sys.argv[1:])
    for model in NAMES:
        export(model, own)
    (own / "facts.pickle").write_bytes(pickle.dumps([facts(given), facts(own)]))
