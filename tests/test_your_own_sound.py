"""examples/your_own_sound.py at minute size, on files made here."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("the example needs TensorFlow", allow_module_level=True)
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

import tensorflow as tf  # noqa: E402

from keras_vqvae.data import audio  # noqa: E402


def record(folder: Path) -> None:
    """Tones of two speakers, of two seconds and more each, and one file that is no sound."""
    from support import listening

    for number in range(14):
        speaker = folder / ("low", "high")[number % 2]
        speaker.mkdir(parents=True, exist_ok=True)
        t = np.arange(16000 + 100 * number) / 8000
        tone = 0.3 * np.sin(2 * np.pi * (120, 240)[number % 2] * (1 + 0.02 * number) * t)
        listening.write_wav(speaker / f"{number:02}.wav", tone, 8000)
    (folder / "high" / "broken.wav").write_bytes(b"no sound")
    # Of one sample at its own rate, of none at 8 kHz.
    listening.write_wav(folder / "high" / "stub.wav", np.full(1, 0.1), 44100)


@pytest.mark.long
def test_with_speakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    folder, out = tmp_path / "recordings", tmp_path / "run"
    record(folder)
    options = ["--speakers", "--num-codes", "8", "--hidden", "8", "--steps", "3"]
    script = str(EXAMPLES / "your_own_sound.py")
    line = [sys.executable, script, str(folder), "--out", str(out), *options]
    finished = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr[-3000:]

    # Tokens are of the sound beside whose file they stand.
    tokens = np.load(out / "tokens.npz")
    files = [Path(f) for f in tokens["files"]]
    assert len(files) == 14 and len(set(files)) == 14
    vqvae = keras.models.load_model(out / "vqvae.keras")
    for number, file in enumerate(files):
        wav, _ = tf.audio.decode_wav(file.read_bytes())
        codes = vqvae.encode(wav[:, 0][None].numpy())[0]
        assert np.mean(codes == tokens[str(number)]) > 0.98, file
    prior = keras.models.load_model(out / "prior.keras")
    assert prior.sample(2, [0, 1], length=5, seed=0).shape == (2, 5)
    page = (out / "listening" / "listening.html").read_text()
    for column in ("held out", "reconstructed", "as low", "as high", "new", "unigram"):
        assert column in page
    served = tf.saved_model.load(str(out / "savedmodel" / "1")).signatures
    assert {"encode", "decode", "convert", "sample", "encode_stream"} <= set(served)
    assert len(audio.check_folder(folder)[0]) == 15

    again = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert again.returncode != 0 and "holds a finished run" in again.stderr


def test_too_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from support import listening

    (tmp_path / "empty").mkdir()
    script = str(EXAMPLES / "your_own_sound.py")
    line = [sys.executable, script, str(tmp_path / "empty"), "--out", str(tmp_path / "run")]
    refused = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert refused.returncode != 0 and "error: " in refused.stderr
    assert "Traceback" not in refused.stderr

    import your_own_sound

    listening.write_wav(tmp_path / "empty" / "short.wav", np.full(40, 0.1), 8000)
    monkeypatch.setattr(sys, "argv", line[1:])
    with pytest.raises(ValueError, match="holds no clip that can be used"):
        your_own_sound.main()
    assert "short.wav: shorter than one code, 64 samples" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*line[1:], "--speakers"])
    with pytest.raises(ValueError, match="holds no clip that can be used"):
        your_own_sound.main()
    assert "short.wav: in no speaker's folder" in capsys.readouterr().out
    for options, message in (
        (["--hidden", "0"], "--hidden: must be an integer of at least 1"),
        (["--speakers", "--sample-rate", "4000"], "--sample-rate must be at least 6400"),
    ):
        monkeypatch.setattr(sys, "argv", [*line[1:], *options])
        with pytest.raises(SystemExit):
            your_own_sound.main()
        assert message in capsys.readouterr().err
