"""What `export_savedmodel` writes beside the graph, and that it writes all of it or nothing."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import tensorflow as tf  # noqa: E402
from google.protobuf import text_format  # noqa: E402

import keras_vqvae  # noqa: E402
from keras_vqvae import VQVAE, ImageVQVAE, VectorQuantizer, export_savedmodel  # noqa: E402
from keras_vqvae.export import card, savedmodel  # noqa: E402
from keras_vqvae.export.folder import write_version  # noqa: E402
from tests.checks import images, sharpened  # noqa: E402
from tests.inside import inside  # noqa: E402
from tests.models import test_audio, test_video  # noqa: E402
from tests.serving import models  # noqa: E402
from tests.serving.double import Double  # noqa: E402
from tests.serving.models import image, requests  # noqa: E402

SHAPE = (8, 12, 3)
FILES = {
    "README.md", "assets", "assets.extra", "batching.config", "fingerprint.pb", "models.config",
    "saved_model.pb", "signature.json", "variables",
}  # fmt: skip


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def codes_of(path: Path, x: np.ndarray) -> np.ndarray:
    encode = tf.saved_model.load(str(path)).signatures["encode"]
    [name] = encode.structured_input_signature[1]
    return encode(**{name: tf.constant(x)})["codes"].numpy()


@pytest.fixture(scope="module")
def vqvae() -> Any:
    return image()


@pytest.fixture(scope="module")
def exported(vqvae: Any, tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp("served") / "clothes" / "3"
    export_savedmodel(
        vqvae, path, examples=images(3, SHAPE, seed=5), training_data="Fashion-MNIST, MIT licence"
    )
    return path


def test_all_is_there(exported: Path) -> None:
    assert FILES - {"assets"} <= names(exported) <= FILES
    assert names(exported.parent) == {"3"}


def test_what_clients_are_told(vqvae: Any, exported: Path) -> None:
    told = json.loads((exported / "signature.json").read_text(encoding="utf-8"))
    assert (told["name"], told["version"]) == ("clothes", "3")
    assert told["model"] == "ImageVQVAE" and told["prior"] is None and told["encoded"] is False
    assert told["facts"] == {"num_codes": 7, "grid_shape": [2, 3], "image_shape": [8, 12, 3]}
    assert told["versions"]["tensorflow"] == tf.__version__
    assert told["versions"]["keras_vqvae"] == keras_vqvae.__version__
    decode = told["signatures"]["decode"]
    codes = {"dtype": "int32", "shape": ["batch", 2, 3], "minimum": 0, "maximum": 6}
    assert codes.items() <= decode["inputs"]["codes"].items()
    assert decode["batching"] is True
    text = (exported / "README.md").read_text(encoding="utf-8")
    assert "Fashion-MNIST, MIT licence" in text and "v1/models/clothes:predict" in text
    assert "| in `codes` | int32 | (batch, 2, 3) | 0 to 6 |" in text


def test_warm_up_is_by_the_examples(exported: Path) -> None:
    found = requests("clothes", exported)
    assert set(found) == {"serving_default", "encode", "decode", "reconstruct"}
    np.testing.assert_array_equal(found["encode"]["images"], images(3, SHAPE, seed=5))
    codes = codes_of(exported, images(3, SHAPE, seed=5))
    np.testing.assert_array_equal(found["decode"]["codes"], codes)


def test_a_few_examples_are_enough_to_warm_up(vqvae: Any, tmp_path: Path) -> None:
    export_savedmodel(vqvae, tmp_path / "clothes" / "1", examples=images(50, SHAPE))
    found = requests("clothes", tmp_path / "clothes" / "1")
    np.testing.assert_array_equal(found["encode"]["images"], images(50, SHAPE)[:8])


def test_limits_are_said_in_full() -> None:
    field = {"minimum": 0, "maximum": 2**31 - 2}
    assert inside(card).range(field) == "0 to 2147483646"
    assert inside(card).range({"minimum": -1.0, "maximum": 0.25}) == "-1 to 0.25"
    assert inside(card).range({"exclusiveMinimum": 0.0, "maximum": 1.0}) == "above 0, at most 1"


def test_odd_names(vqvae: Any, tmp_path: Path) -> None:
    config_pb2 = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    name = 'Marie\'s "café"'
    path = tmp_path / name / "1"
    export_savedmodel(vqvae, path)
    text = (path / "models.config").read_text(encoding="utf-8")
    config = text_format.Parse(text, config_pb2.ModelServerConfig())
    assert config.model_config_list.config[0].name == name
    text = (path / "README.md").read_text(encoding="utf-8")
    for program in text.split("```python\n")[1:]:
        compile(program.split("```")[0], "card", "exec")


@pytest.mark.parametrize("name", ["image", "image_encoded", "sound_encoded", "video_codes_encoded"])
def test_what_the_card_says_runs(name: str, tmp_path: Path, monkeypatch) -> None:
    path = models.export(name, tmp_path)
    [x] = models.requests(name, path)["encode"].values()
    programs = (path / "README.md").read_text(encoding="utf-8").split("```python\n")[1:]
    assert len(programs) == 2
    if x.dtype == object:  # one file is opened, or of video the only frame of a clip: here twice
        for kind in ("sound.wav", "picture.png"):
            (tmp_path / kind).write_bytes(x.ravel()[0])
        programs = [program.replace("files = [", "files = 2 * [") for program in programs]
        one = x.ravel()[:1]
        x = np.repeat(one[None], 2, 1) if name.startswith("video") else np.repeat(one, 2)
    expected = codes_of(path, x)
    monkeypatch.chdir(tmp_path)
    with Double(tmp_path, only=[name]) as double:
        for program in programs:
            program = program.split("```")[0].replace("http://localhost:8501", double.rest_url)
            known = {"x": x}
            exec(program.replace("localhost:8500", double.grpc_address), known)
            np.testing.assert_array_equal(known["codes"], expected)


def test_configuration_of_the_server(exported: Path) -> None:
    config_pb2 = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    text = (exported / "models.config").read_text(encoding="utf-8")
    config = text_format.Parse(text, config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("clothes", "/models/clothes")
    text = (exported / "batching.config").read_text(encoding="utf-8")
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    sizes = [int(line[1]) for line in lines if line[0] == "allowed_batch_sizes:"]
    most = [int(line[3]) for line in lines if line[0] == "max_batch_size"]
    assert sizes == sorted(sizes) and most == [sizes[-1]]  # or the server does not start


def test_without_the_package_of_the_server(
    vqvae: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.warns(UserWarning, match=r"warm-up requests are left out.*\[serving\]"):
        export_savedmodel(vqvae, tmp_path / "model" / "1")
    assert names(tmp_path / "model" / "1") >= FILES - {"assets", "assets.extra"}
    assert not (tmp_path / "model" / "1" / "assets.extra").exists()


def test_a_version_that_is_there(vqvae: Any, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not empty; give the next version, .*clothes/4, or"):
        export_savedmodel(vqvae, exported)
    path, other, x = tmp_path / "model" / "1", sharpened(test_video.vqvae(), 0.9), images(8, SHAPE)
    export_savedmodel(vqvae, path)
    (path / "note.txt").write_text("of the old one")
    before = codes_of(path, x)
    export_savedmodel(other, path, overwrite=True)
    assert not (path / "note.txt").exists() and names(path.parent) == {"1"}
    np.testing.assert_array_equal(codes_of(path, x), other.encode(x))
    assert np.any(other.encode(x) != before)
    empty = tmp_path / "model" / "2"
    empty.mkdir()
    export_savedmodel(vqvae, empty)
    np.testing.assert_array_equal(codes_of(empty, x), before)


def test_overwrite_replaces_versions_and_nothing_else(vqvae: Any, tmp_path: Path) -> None:
    path = tmp_path / "model" / "1"
    export_savedmodel(vqvae, path)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").touch()
    for folder in (path.parent, tmp_path / "thesis"):
        with pytest.raises(ValueError, match="holds no SavedModel, and overwrite=True replaces"):
            export_savedmodel(vqvae, folder, overwrite=True)
    assert names(path.parent) == {"1"} and names(tmp_path / "thesis") == {"thesis.txt"}


def test_a_version_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "model" / "1"

    def write(folder: Path) -> None:
        folder.mkdir()
        path.mkdir()
        (path / "of another").touch()

    with pytest.raises(ValueError, match=r"is not empty; give the next version, .*model/2"):
        write_version(path, write, overwrite=False)
    assert names(path.parent) == {"1"} and names(path) == {"of another"}


def test_folders_made_half_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(*_: Any, **__: Any) -> None:
        os.mkdir(tmp_path / "served")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", half)
        with pytest.raises(ValueError, match="cannot write a SavedModel.*No space left"):
            write_version(tmp_path / "served" / "model" / "1", failing, overwrite=False)
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_that_appears_meanwhile_is_filled(tmp_path: Path) -> None:
    path = tmp_path / "model" / "1"

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "new").touch()
        path.mkdir()

    write_version(path, write, overwrite=False)
    assert names(path.parent) == {"1"} and names(path) == {"new"}


def test_weights_are_written_once(tmp_path: Path) -> None:
    model = ImageVQVAE((8, 12, 3), 7, 4, hidden=256)
    export_savedmodel(model, tmp_path / "model" / "1")
    data = tmp_path / "model" / "1" / "variables" / "variables.data-00000-of-00001"
    assert 4 * model.count_params() <= data.stat().st_size <= 1.1 * 4 * model.count_params()


def failing(*_: Any, **__: Any) -> None:
    raise OSError("No space left on device")


def full(*_: Any, **__: Any) -> None:  # TensorFlow's word for it
    raise tf.errors.OutOfRangeError(None, None, "variables: File too large")


def test_writers_at_once_all_get_their_turn(tmp_path: Path) -> None:
    path = tmp_path / "model" / "1"

    def write(folder: Path) -> None:
        folder.mkdir()
        for name in ("saved_model.pb", "variables"):
            (folder / name).write_text("x" * 100)

    def often(_: int) -> None:
        for _ in range(100):
            write_version(path, write, overwrite=True)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(often, range(3)))  # raises what one of them raised
    assert names(path) == {"saved_model.pb", "variables"} and names(path.parent) == {"1"}


@pytest.mark.parametrize("path", ["", ".", "..", None, 3])
def test_what_is_no_folder_of_a_version(vqvae: Any, path: Any) -> None:
    with pytest.raises(ValueError, match="path`? must be (a path|the folder of a version, NAME/1)"):
        export_savedmodel(vqvae, path)


def test_what_fails_in_the_middle_leaves_nothing(
    vqvae: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(savedmodel, "card", failing)
        with pytest.raises(ValueError, match=r"cannot write a SavedModel to .*No space left"):
            export_savedmodel(vqvae, tmp_path / "served" / "model" / "1")
    assert not list(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(tf.saved_model, "save", full)
        with pytest.raises(ValueError, match=r"cannot write a SavedModel to .*File too large"):
            export_savedmodel(vqvae, tmp_path / "served" / "model" / "1")
    assert not list(tmp_path.iterdir())

    path = tmp_path / "model" / "1"
    path.mkdir(parents=True)
    for file in ("old", "saved_model.pb"):
        (path / file).touch()
    with monkeypatch.context() as patch:
        patch.setattr(savedmodel, "write_warmup", failing)
        with pytest.raises(ValueError, match=r"cannot write a SavedModel to .*No space left"):
            export_savedmodel(vqvae, path, overwrite=True)
    assert names(path) == {"old", "saved_model.pb"} and names(path.parent) == {"1"}

    rename = Path.rename

    def not_the_new_one(self: Path, target: Any) -> Any:
        if self.name == "new":
            raise OSError("No space left on device")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", not_the_new_one)
        with pytest.raises(ValueError, match=r"cannot write a SavedModel to .*No space left"):
            export_savedmodel(vqvae, path, overwrite=True)
    assert names(path) == {"old", "saved_model.pb"} and names(path.parent) == {"1"}


def test_an_interruption_between_the_renames_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rename = tmp_path / "model" / "1", Path.rename
    path.mkdir(parents=True)
    (path / "saved_model.pb").touch()

    def interrupted(self: Path, target: Any) -> Any:
        made = rename(self, target)
        if self == path:
            raise KeyboardInterrupt
        return made

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "new").touch()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_version(path, write, overwrite=True)
    assert names(path) == {"saved_model.pb"} and names(path.parent) == {"1"}

    def gone(self: Path, target: Any) -> Any:
        if self.name in ("new", "old"):
            raise OSError("Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", gone)
        with pytest.raises(ValueError, match="Input/output error"):
            write_version(path, write, overwrite=True)
    [left] = path.parent.iterdir()  # nothing can be moved back: it is kept where it is
    assert names(left / "old") == {"saved_model.pb"}


@pytest.mark.parametrize("place", ["../1", "~/served/1"])
def test_a_name_that_must_be_found_out(
    vqvae: Any, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "served" / "below").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "served" / "below")
    export_savedmodel(vqvae, place)
    told = json.loads((tmp_path / "served" / "1" / "signature.json").read_text())
    assert told["name"] == "served"
    assert names(tmp_path / "served") == {"below", "1"} and not names(tmp_path / "served" / "below")
    with pytest.raises(ValueError, match="path must be the folder of a version, NAME/1, got '/1'"):
        export_savedmodel(vqvae, "/1")


class Counting(keras.layers.Layer):
    """Writes a variable whenever it is called."""

    def build(self, input_shape: Any) -> None:
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x: Any) -> Any:
        self.calls.assign_add(1.0)
        return x


class InPython(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(lambda x: x, [x], tf.float32), x.shape)


@pytest.mark.parametrize("layer, op", [(Counting, "AssignVariableOp"), (InPython, "PyFunc")])
def test_layers_that_no_server_can_run(layer: Any, op: str, tmp_path: Path) -> None:
    part = keras.layers.Conv2D
    encoder = keras.Sequential([part(4, 4, 4), layer()])
    model = VQVAE(encoder, VectorQuantizer(7, 4), keras.layers.Conv2DTranspose(3, 4, 4))
    model(test_video.frames(2, 1)[:, 0])
    with pytest.raises(ValueError, match=rf"the graph of \w+ has {op}: a layer of vqvae or prior"):
        export_savedmodel(model, tmp_path / "model" / "1")
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(
    vqvae: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "1", tmp_path / "file" / "model" / "1"):
        for overwrite in (False, True):
            with pytest.raises(ValueError, match=r"cannot write a SavedModel to .*a file|irector"):
                export_savedmodel(vqvae, path, overwrite=overwrite)
    with monkeypatch.context() as patch:  # the tests may run as root, who may write anywhere
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(ValueError, match="is not writable"):
            export_savedmodel(vqvae, tmp_path / "new" / "model" / "1")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    nowhere = {
        tmp_path / "link": "links to nothing",
        tmp_path / "link" / "1": "cannot write a SavedModel",
        "/proc/model/1": "cannot write a SavedModel",
        "gs://bucket/model/1": "`path` must be a local path",
        Path("s3://bucket/model/1"): "`path` must be a local path",
    }
    for path, message in nowhere.items():
        with pytest.raises(ValueError, match=message):
            export_savedmodel(vqvae, path)
    assert names(tmp_path) == {"file", "link"}


def test_a_colon_is_no_cloud(vqvae: Any, tmp_path: Path) -> None:
    export_savedmodel(vqvae, tmp_path / "run:" / "1")
    assert (tmp_path / "run:" / "1" / "saved_model.pb").exists()


def test_a_version_that_no_server_sees(vqvae: Any, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="will not see 'final': give NAME/1"):
        export_savedmodel(vqvae, tmp_path / "model" / "final")
    assert (tmp_path / "model" / "final" / "saved_model.pb").exists()


BAD_ARGUMENTS: dict[str, tuple[dict, str]] = {
    "encoded": ({"encoded": "png"}, "encoded must be True or False, got 'png'"),
    "overwrite": ({"overwrite": 1}, "overwrite must be True or False, got 1"),
    "jit_compile": ({"jit_compile": None}, "jit_compile must be True or False, got None"),
    "no loop": ({"jit_compile": True}, "jit_compile is for the loop of an AudioVQVAE's WaveNet"),
    "training_data": ({"training_data": ["MIT"]}, r"training_data must be a text, got \['MIT'\]"),
    "no example": ({"examples": images(0, SHAPE)}, "examples must be at least one, got none"),
    "floats": ({"examples": np.zeros((2, *SHAPE))}, "examples: images must be uint8"),
    "size": ({"examples": images(2, (8, 8, 3))}, "examples: images must have shape"),
    "text": ({"examples": "photos"}, "examples: must be an array of some data.*'photos'"),
    "dataset": ({"examples": tf.data.Dataset.range(2)}, "examples: must be an array.*RangeDataset"),
    "scalar": ({"examples": np.array(3)}, "examples: "),
    "rows of two sizes": ({"examples": [[1, 2], [3]]}, "examples: "),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments(vqvae: Any, tmp_path: Path, name: str) -> None:
    options, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        export_savedmodel(vqvae, tmp_path / "model" / "1", **options)
    assert not list(tmp_path.iterdir())


def test_examples_of_sound_and_video_are_checked(tmp_path: Path) -> None:
    loud, short = np.full((1, 64), 2.0, "float32"), test_video.frames(2, 1)
    with pytest.raises(ValueError, match=r"examples: waveform must be in \[-1, 1\]"):
        export_savedmodel(test_audio.make("parallel"), tmp_path / "1", examples=loud)
    clipped = np.sign(test_audio.sound(2, 64))
    with pytest.raises(ValueError, match="examples: with encoded=True .*waveform_bytes is clipped"):
        export_savedmodel(
            test_audio.make("parallel"), tmp_path / "1", encoded=True, examples=clipped
        )
    with pytest.raises(ValueError, match="examples: context must have at least"):
        export_savedmodel(test_video.make("none"), tmp_path / "1", examples=short)
    assert not list(tmp_path.iterdir())


def test_models_that_cannot_be_served(tmp_path: Path) -> None:
    path = tmp_path / "model" / "1"
    layer = keras.layers.Conv2D
    unbuilt = VQVAE(layer(4, 4, 4), VectorQuantizer(7, 4), layer(3, 1))
    with pytest.raises(ValueError, match="vqvae must be a built VQVAE.*fit it, or call it"):
        export_savedmodel(unbuilt, path)
    diverged = image()
    diverged.weights[0].assign(diverged.weights[0] * np.nan)
    with pytest.raises(ValueError, match="weights of .* are not finite: training has diverged"):
        export_savedmodel(diverged, path)
    assert not list(tmp_path.iterdir())
