"""What a type checker tells users of the package."""

from pathlib import Path

import pytest

SNIPPET = """
import numpy as np
import keras_vqvae as kv

images = np.zeros((2, 8, 8, 3), "uint8")
model = kv.ImageVQVAE((8, 8, 3))
codes = model.encode(images)
reveal_type(codes)
reveal_type(model.decode(codes))
reveal_type(model.reconstruct(images))
reveal_type(kv.PixelCNN((2, 2), 8).log_prob(codes))
sound = kv.AudioVQVAE(16000)
reveal_type(sound.encode(np.zeros((1, 640), "float32")))
reveal_type(sound.decode(codes))
reveal_type(kv.export_savedmodel)
kv.export_savedmodel(no_such_argument=1)
"""


@pytest.mark.programs
def test_arrays_and_what_is_imported_late_have_types(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    path = tmp_path / "snippet.py"
    path.write_text(SNIPPET)
    options = ["--ignore-missing-imports", f"--cache-dir={tmp_path}"]
    said, _, _ = api.run([*options, str(path)])
    types = [line.split('"')[1] for line in said.splitlines() if "Revealed type" in line]
    assert len(types) == 7, said
    assert all(kind.startswith("numpy.ndarray") for kind in types[:-1]), said
    assert types[-1].startswith("def ("), said
    assert 'Unexpected keyword argument "no_such_argument"' in said
