"""Interrupted by an exception here, by SIGKILL in `tests/test_workers.py`."""

import functools
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("callbacks need TensorFlow", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from keras_vqvae import VQVAE, PixelCNN, VectorQuantizer  # noqa: E402
from keras_vqvae.callbacks import BackupAndRestore, backup  # noqa: E402
from keras_vqvae.data import from_array  # noqa: E402
from tests.checks import images  # noqa: E402
from tests.inside import inside, replace  # noqa: E402

COUNT, BATCH, EPOCHS = 26, 8, 3
STEPS = 4  # an epoch: 8 + 8 + 8 + 2
PICTURES = images(COUNT)


class InterruptionError(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    """Raises after so many steps in all."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.model.optimizer.iterations.numpy() == self.after:
            raise InterruptionError


class Seen(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.batches.append((self.epoch, batch))


def vqvae(**options: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    quantizer = VectorQuantizer(16, 4, expiry=0.09, decay=0.5)  # its seed an arbitrary one
    encoder, decoder = keras.layers.Conv2D(4, 4, 4), keras.layers.Conv2DTranspose(3, 4, 4)
    model = VQVAE(encoder, quantizer, decoder)
    model.compile(keras.optimizers.Adam(1e-2), **options)
    return model


def prior() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = PixelCNN((3, 4), 8, num_classes=3, hidden=8, num_layers=2)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    return model


def codes() -> dict:
    random = np.random.default_rng(0)
    return {
        "codes": random.integers(0, 8, (COUNT, 3, 4), dtype="int32"),
        "condition": random.integers(0, 3, COUNT, dtype="int32"),
    }


def state(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(v) for v in model.variables + model.optimizer.variables]


def train(make: Callable, data: Any, folder: Path, *callbacks: Any, **options: Any) -> Any:
    """A new model, as in a new process."""
    model = make()
    saver = BackupAndRestore(folder, options.pop("save_freq", "epoch"), options.pop("keep", 3))
    fitting = {"epochs": EPOCHS, "verbose": 0, **options}
    history = model.fit(data, callbacks=[saver, *callbacks], **fitting).history
    return model, history


@functools.cache
def undisturbed(make: Callable, data: Callable, **options: Any) -> tuple[list[np.ndarray], dict]:
    """State and logs of a training that nothing interrupts; cached for the tests that share it."""
    with tempfile.TemporaryDirectory() as folder:
        model, logs = train(make, data(), Path(folder), **options)
    return state(model), logs


def check_resume(tmp_path: Path, make: Callable, data: Callable, stop: int, **options: Any) -> None:
    fitting = {name: value for name, value in options.items() if name != "save_freq"}
    expected, logs = undisturbed(make, data, **fitting)
    with pytest.raises(InterruptionError):
        train(make, data(), tmp_path / "b", Interrupt(stop), **options)
    seen = Seen()
    found, new_logs = train(make, data(), tmp_path / "b", seen, **options)
    for a, b in zip(expected, state(found), strict=True):
        np.testing.assert_array_equal(a, b)
    # The epochs that ran again in part are logged whole.
    for name, values in new_logs.items():
        np.testing.assert_array_equal(values, logs[name][-len(values) :], err_msg=name)
    assert len(new_logs["loss"]) < EPOCHS or stop < STEPS
    done = {(epoch, batch) for epoch, batch in seen.batches}
    first = min(epoch for epoch, _ in done)
    each = found.steps_per_execution
    assert done == {(e, b) for e in range(first, EPOCHS) for b in range(each - 1, STEPS, each)}


def pipeline() -> Any:
    return from_array(PICTURES, BATCH, seed=5)


def mapped() -> Any:
    return from_array(PICTURES, BATCH, labels=np.arange(COUNT), seed=5).map(lambda x, y: x)


def rebatched() -> Any:  # batches that are not those of the pipeline
    return from_array(PICTURES, 2, seed=5).unbatch().batch(BATCH)


def zipped() -> Any:
    both = tf.data.Dataset.zip(pipeline(), from_array(PICTURES, BATCH, seed=6))
    return both.map(lambda a, b: tf.where(tf.reduce_sum(a) % 2 == 0, a, b))


def concatenated() -> Any:  # 2 + 2 batches
    parts = PICTURES[:16], PICTURES[16:]
    first, second = (from_array(part, BATCH, seed=5) for part in parts)
    return first.concatenate(second)


def endless() -> Any:
    return from_array(PICTURES, BATCH, seed=5, repeat=True)


def endless_mapped() -> Any:
    return endless().map(lambda x: x)


def unseeded() -> Any:
    return from_array(PICTURES, BATCH)


class TestResume:
    # Before any backup, after the last batch of an epoch, within one, at a backup, after one.
    @pytest.mark.parametrize(
        "save_freq, stop",
        [
            (3, 1),
            ("epoch", 7),
            (3, 7),
            pytest.param(1, 8, marks=pytest.mark.long),
            pytest.param(3, 6, marks=pytest.mark.long),
        ],
    )
    def test_bit_for_bit(self, tmp_path: Path, stop: int, save_freq: Any) -> None:
        check_resume(tmp_path, vqvae, pipeline, stop, save_freq=save_freq)

    @pytest.mark.parametrize(
        "data",
        [
            mapped,
            unseeded,
            *(pytest.param(f, marks=pytest.mark.long) for f in (rebatched, zipped, concatenated)),
        ],
    )
    def test_other_finite_data(self, tmp_path: Path, data: Callable) -> None:
        check_resume(tmp_path, vqvae, data, 7, save_freq=2)

    @pytest.mark.parametrize(
        "data, save_freq",
        [
            (endless, 2),
            *(
                pytest.param(*case, marks=pytest.mark.long)
                for case in ((endless, "epoch"), (endless_mapped, 2))
            ),
        ],
    )
    def test_data_without_end(self, tmp_path: Path, data: Callable, save_freq: Any) -> None:
        check_resume(tmp_path, vqvae, data, 7, save_freq=save_freq, steps_per_epoch=STEPS)

    @pytest.mark.long
    def test_arrays_in_order(self, tmp_path: Path) -> None:
        options = {"batch_size": BATCH, "shuffle": False, "save_freq": 3}
        check_resume(tmp_path, vqvae, lambda: PICTURES, 7, **options)
        check_resume(tmp_path / "prior", prior, codes, 7, **options)

    def test_with_validation_and_several_steps_a_call(self, tmp_path: Path) -> None:
        check_resume(
            tmp_path, lambda: vqvae(steps_per_execution=2), pipeline, 6,
            save_freq=2, validation_data=tf.data.Dataset.from_tensors(PICTURES[:5]),
        )  # fmt: skip

    def test_float16(self, tmp_path: Path) -> None:
        keras.config.set_dtype_policy("mixed_float16")  # the loss's scale is part of the state
        try:
            check_resume(tmp_path, lambda: vqvae(), pipeline, 7, save_freq=3)
        finally:
            keras.config.set_dtype_policy("float32")

    @pytest.mark.long
    def test_data_read_before(self, tmp_path: Path) -> None:
        def looked_at() -> Any:
            dataset = pipeline()
            next(iter(dataset))
            return dataset

        expected, _ = undisturbed(vqvae, pipeline)
        found, _ = train(vqvae, looked_at(), tmp_path / "b")
        for a, b in zip(expected, state(found), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_stopped_early(self, tmp_path: Path) -> None:
        def stop() -> keras.callbacks.Callback:
            return keras.callbacks.EarlyStopping(
                "loss", patience=0, mode="max", restore_best_weights=True
            )

        model = vqvae()
        options: dict = {"epochs": EPOCHS, "verbose": 0}
        model.fit(pipeline(), callbacks=[stop(), BackupAndRestore(tmp_path)], **options)
        again = vqvae()
        logs = again.fit(pipeline(), callbacks=[stop(), BackupAndRestore(tmp_path)], **options)
        assert logs.history == {} and again.optimizer.iterations == 2 * STEPS
        for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_more_epochs(self, tmp_path: Path) -> None:
        expected, _ = undisturbed(vqvae, pipeline)
        train(vqvae, pipeline(), tmp_path / "b", epochs=EPOCHS - 1)
        found, logs = train(vqvae, pipeline(), tmp_path / "b")
        assert len(logs["loss"]) == 1
        for a, b in zip(expected, state(found), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_interrupted_before_the_first_backup(self, tmp_path: Path) -> None:
        """As in a notebook, where the same objects are used again."""
        expected, _ = undisturbed(vqvae, pipeline)
        saver = BackupAndRestore(tmp_path / "b")
        for _ in range(2):
            model, interrupt = vqvae(), Interrupt(3)
            with pytest.raises(InterruptionError):
                model.fit(pipeline(), epochs=1, verbose=0, callbacks=[saver, interrupt])
        model = vqvae()
        model.fit(pipeline(), epochs=EPOCHS, verbose=0, callbacks=[saver])
        for a, b in zip(expected, state(model), strict=True):
            np.testing.assert_array_equal(a, b)
        assert backups(tmp_path / "b")[-1] == "step-0000000012.backup"

    def test_says_where_it_goes_on(self, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        with pytest.raises(InterruptionError):
            train(vqvae, pipeline(), tmp_path, Interrupt(6), save_freq=1)
        train(vqvae, pipeline(), tmp_path, verbose=2)
        assert f"{tmp_path}: going on at epoch 2, batch 3" in capsys.readouterr().out
        with pytest.warns(UserWarning, match=f"{tmp_path}: ended before, after 3 epochs"):
            train(vqvae, pipeline(), tmp_path, verbose=2)

    def test_finished(self, tmp_path: Path) -> None:
        expected, _ = train(vqvae, pipeline(), tmp_path)
        with pytest.warns(UserWarning, match="ended before"):  # at verbose=0 too
            found, logs = train(vqvae, pipeline(), tmp_path)
        assert logs == {}
        for a, b in zip(state(expected), state(found), strict=True):
            np.testing.assert_array_equal(a, b)
        # A later `fit` without it begins at epoch 0.
        assert len(found.fit(pipeline(), epochs=1, verbose=0).history["loss"]) == 1


def backups(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestFiles:
    def test_several_are_kept(self, tmp_path: Path) -> None:
        train(vqvae, pipeline(), tmp_path, save_freq=1, keep=2)
        assert backups(tmp_path) == ["step-0000000011.backup", "step-0000000012.backup"]

    def test_every_flipped_bit_is_seen(self, tmp_path: Path) -> None:
        train(vqvae, pipeline(), tmp_path, keep=1, epochs=1)
        path = next(tmp_path.iterdir())
        content = path.read_bytes()
        saver = BackupAndRestore(tmp_path)
        saver.set_model(vqvae())
        for place in np.random.default_rng(0).integers(len(content), size=300):
            damaged = bytearray(content)
            damaged[place] ^= 1 << (place % 8)
            path.write_bytes(damaged)
            with pytest.raises(inside(backup).DamagedError):
                inside(saver).read(path)

    @pytest.mark.parametrize(
        "damage",
        ["flipped", *(pytest.param(d, marks=pytest.mark.long) for d in ("cut", "empty", "text"))],
    )
    def test_the_one_before_a_damaged_one(self, tmp_path: Path, damage: str) -> None:
        expected, _ = undisturbed(vqvae, pipeline)
        with pytest.raises(InterruptionError):
            train(vqvae, pipeline(), tmp_path / "b", Interrupt(11), save_freq=2)
        newest = tmp_path / "b" / "step-0000000010.backup"
        content = bytearray(newest.read_bytes())
        content[len(content) // 2] ^= 0x40  # in the values of an array
        newest.write_bytes(
            {"cut": content[:-100], "flipped": content, "empty": b"", "text": b"x" * 500}[damage]
        )
        with pytest.warns(UserWarning, match="step-0000000010.backup cannot be used"):
            found, _ = train(vqvae, pipeline(), tmp_path / "b")
        for a, b in zip(expected, state(found), strict=True):
            np.testing.assert_array_equal(a, b)
        assert "step-0000000010.unusable" in backups(tmp_path / "b")

    def test_none_can_be_read(self, tmp_path: Path) -> None:
        train(vqvae, pipeline(), tmp_path)
        for path in tmp_path.iterdir():
            path.write_bytes(b"")
        with (
            pytest.warns(UserWarning, match="cannot be used"),
            pytest.raises(ValueError, match="none of the 3 backups in .* can be read"),
        ):
            train(vqvae, pipeline(), tmp_path)
        assert len(backups(tmp_path)) == 3, "nothing is removed"

    def test_interrupted_while_writing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected, _ = undisturbed(vqvae, pipeline)
        calls = []

        def fsync(file: int) -> None:  # the file is written, but does not have its name yet
            calls.append(file)
            if len(calls) == 2:
                raise InterruptionError

        monkeypatch.setattr(backup.os, "fsync", fsync)
        with pytest.raises(InterruptionError):
            train(vqvae, pipeline(), tmp_path / "b")
        assert backups(tmp_path / "b") == ["step-0000000004.backup", "step-0000000008.unfinished"]
        with pytest.warns(UserWarning, match="step-0000000008.unfinished was being written"):
            found, _ = train(vqvae, pipeline(), tmp_path / "b")
        for a, b in zip(expected, state(found), strict=True):
            np.testing.assert_array_equal(a, b)
        assert not [name for name in backups(tmp_path / "b") if "unfinished" in name]


class TestRefused:
    def test_another_model(self, tmp_path: Path) -> None:
        train(vqvae, pipeline(), tmp_path)
        with pytest.raises(ValueError, match="is of another model or optimizer: it has"):
            train(prior, codes(), tmp_path)

    def test_another_optimizer(self, tmp_path: Path) -> None:
        train(vqvae, pipeline(), tmp_path)

        def other() -> keras.Model:
            model = vqvae()
            model.compile("sgd")
            return model

        with pytest.raises(ValueError, match="of another model or optimizer"):
            train(other, pipeline(), tmp_path)

    def test_other_batches_within_an_epoch(self, tmp_path: Path) -> None:
        with pytest.raises(InterruptionError):
            train(vqvae, pipeline(), tmp_path, Interrupt(6), save_freq=1)
        with pytest.raises(ValueError, match="an epoch of 4, but now an epoch has 13"):
            train(vqvae, from_array(PICTURES, 2, seed=5), tmp_path)

    def test_other_batches_between_epochs(self, tmp_path: Path) -> None:
        train(vqvae, pipeline(), tmp_path, epochs=1)
        _, logs = train(vqvae, from_array(PICTURES, 2, seed=5), tmp_path)
        assert len(logs["loss"]) == EPOCHS - 1

    def test_model_of_keras(self, tmp_path: Path) -> None:
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        with pytest.raises(ValueError, match="not for a Sequential .*: use Keras's own"):
            model.fit(
                np.zeros((4, 2)),
                np.zeros((4, 1)),
                verbose=0,
                callbacks=[BackupAndRestore(tmp_path)],
            )

    @pytest.mark.parametrize("value", [0, -1, 1.5, "batch", True, None])
    def test_numbers(self, value: Any) -> None:
        with pytest.raises(ValueError, match="save_freq, if not 'epoch', must be a positive int"):
            BackupAndRestore("x", value)
        with pytest.raises(ValueError, match="keep must be a positive integer, got"):
            BackupAndRestore("x", keep=value)

    def test_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for folder in ("", tmp_path / "file"):
            with pytest.raises(ValueError, match="`backup_dir` must be a (folder|path)"):
                BackupAndRestore(folder)

    @pytest.mark.parametrize("data", [lambda: pipeline().cache(), lambda: pipeline().repeat(2)])
    def test_order_that_cannot_be_found_again(self, tmp_path: Path, data: Callable) -> None:
        with pytest.raises(ValueError, match="made from a seeded pipeline by a .*Dataset, after"):
            train(vqvae, data(), tmp_path)

    def test_epochs_of_another_length(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="steps_per_epoch=2, but an epoch of the data has 4"):
            train(vqvae, pipeline(), tmp_path, steps_per_epoch=2)


def test_no_warnings_on_the_way(tmp_path: Path) -> None:
    with pytest.raises(InterruptionError):
        train(vqvae, pipeline(), tmp_path, Interrupt(6), save_freq=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(vqvae, pipeline(), tmp_path, save_freq=1)


def with_rate(rate: Any) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        model = vqvae()
        model.compile(keras.optimizers.Adam(rate))
        return model

    return make


class TestOtherTraining:
    """What would be overwritten, or ignored, in silence by going on in an old folder."""

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("backup")
        train(with_rate(0.01), pipeline(), folder, epochs=1)
        return folder

    def test_learning_rate(self, folder: Path) -> None:
        with pytest.raises(ValueError, match="learning_rate=0.00999.*, now given are 0.0199"):
            train(with_rate(0.02), pipeline(), folder)

    def test_schedule(self, folder: Path) -> None:
        schedule = keras.optimizers.schedules.CosineDecay(0.01, 100)
        with pytest.raises(ValueError, match="another model or optimizer: it has .*learning_rate"):
            train(with_rate(schedule), pipeline(), folder)

    def test_model(self, folder: Path) -> None:
        def other() -> keras.Model:
            model = with_rate(0.01)()
            model.quantizer.decay = 0.9  # no weight is of another shape
            return model

        with pytest.raises(ValueError, match="quantizer.config.decay=0.5, now given are 0.9"):
            train(other, pipeline(), folder)

    def test_data(self, folder: Path) -> None:
        wide = from_array(images(COUNT, (8, 16, 3)), BATCH, seed=5)
        with pytest.raises(ValueError, match=r"of another data: it has data.0='uint8\(8, 8, 3\)'"):
            train(with_rate(0.01), wide, folder)

    def test_fewer_epochs_than_were_done(self, tmp_path: Path) -> None:
        train(with_rate(0.01), pipeline(), tmp_path, epochs=2)
        with pytest.warns(UserWarning, match=r"fit\(\) for 1 trains nothing"):
            train(with_rate(0.01), pipeline(), tmp_path, epochs=1)

    def test_rate_that_a_callback_changes(self, tmp_path: Path) -> None:
        """The same model goes on with the rate that it has."""
        slower = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
        model, saver = with_rate(0.01)(), BackupAndRestore(tmp_path)
        for epochs in (1, 2, 3):
            model.fit(pipeline(), epochs=epochs, verbose=0, callbacks=[saver, slower])
        assert float(model.optimizer.learning_rate) == pytest.approx(0.01 / 8)
        train(with_rate(0.01), pipeline(), tmp_path, epochs=4)  # as in a new process

    def test_backups_of_before_say_nothing_of_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replace(monkeypatch, backup, "setting", lambda model, data: {})
        train(with_rate(0.01), pipeline(), tmp_path, epochs=1)
        monkeypatch.undo()
        _, logs = train(with_rate(0.02), pipeline(), tmp_path, epochs=2)
        assert len(logs["loss"]) == 1
