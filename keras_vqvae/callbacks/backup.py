"""Backups that a killed training goes on from, bit for bit."""

import dataclasses
import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_vqvae import backend
from keras_vqvae.models.base import Model, positive_integer, spec_of
from keras_vqvae.paths import AnyPath, any_path

FORMAT = 1
_DIGEST_BYTES = hashlib.sha256().digest_size
# What stands between a seeded pipeline and `fit` and reads it another number of times an epoch.
_REREADING = ("cache", "repeat", "snapshot")


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a training stands.

    Attributes:
        epoch: complete epochs.
        batch: batches done of the next one.
        step: batches done in all.
        steps_per_epoch: None where it is not known.
        ended_at: where `fit` has ended, the number of epochs that it was asked for.
    """

    epoch: int
    batch: int
    step: int
    steps_per_epoch: int | None
    ended_at: int | None = None


class BackupAndRestore(keras.callbacks.Callback):
    """Writes backups while `fit` runs, and goes on from the last whole one when it is run again.

    Unlike `keras.callbacks.BackupAndRestore`:

    - A backup is one file with a checksum, written under another name and renamed when it is whole
      and on the disk. Several are kept. One that is damaged is named in a warning, set aside with
      the ending `.unusable`, and the one before it is used.
    - It holds all that training depends on: weights, codebook statistics, the optimizer's state
      (its learning rate too), the states of random generators, metrics. With data ordered by seed
      and epoch, `keras_vqvae.data.*(seed=...)`, training ends bit for bit as it would have ended
      undisturbed.
    - With `save_freq=100` it also writes within epochs, and goes on at that batch, not at the
      start of the epoch. Callbacks then see the batches that were done before once more.
    - Under `MultiWorkerMirroredStrategy` the chief writes and all workers read, from a folder
      that all of them see.
    - Backups stay when training has ended: `fit` run again, for as many epochs, returns at once
      with the final state, and a warning. (Put it behind `EarlyStopping(restore_best_weights=True)`
      in the list of callbacks, and those are the final weights.)

    The states of other callbacks, such as `EarlyStopping`'s patience, are not in it. One folder
    belongs to one call of `fit`. Data that is no pipeline of `keras_vqvae.data`, nor made from one,
    is read from its beginning; of the batches of an epoch those done before are dropped. Needs
    TensorFlow as the backend, and a model of this package.

    Args:
        backup_dir: the folder, here or where TensorFlow writes, such as `gs://bucket/backup`; made
            if it is not there.
        save_freq: `"epoch"`, or a number of batches.
        keep: how many backups are kept.

    Raises:
        ValueError: an argument is out of range; `fit` is called with a model that is none of this
            package's, or with data whose place cannot be found again; the backups are of another
            model, optimizer or learning rate, or of data of other shapes or (within an epoch) with
            another number of batches, or none can be read.
        RuntimeError: the workers do not all see the same backups.
    """

    def __init__(
        self, backup_dir: str | os.PathLike, save_freq: str | int = "epoch", keep: int = 3
    ) -> None:
        super().__init__()
        self.backup_dir = any_path(backup_dir, "backup_dir")
        if self.backup_dir.exists() and not self.backup_dir.is_dir():
            raise ValueError(f"`backup_dir` must be a folder, got {str(backup_dir)!r}")
        if save_freq != "epoch":
            save_freq = positive_integer("save_freq, if not 'epoch',", save_freq)
        self.save_freq = save_freq
        self.keep = positive_integer("keep", keep)

    def on_train_begin(self, logs: dict | None = None) -> None:
        if backend.BACKEND != "tensorflow" or not isinstance(self.model, Model):
            raise ValueError(
                "keras_vqvae's BackupAndRestore is for models of keras_vqvae on TensorFlow, not "
                f"for a {type(self.model).__name__} on {backend.BACKEND}: use Keras's own"
            )
        self._epoch = self._batch = self._step = self._saved_step = 0
        self._metrics: list | None = None  # to be restored once the epoch has begun
        self._setting = _setting(self.model, self.model._training_data)
        self._sources = _seeded_sources(self.model._training_data)
        self._count_batches(self.model._training_data)
        found = self._newest()
        self._agree(found[0].step if found else -1)
        if backend.is_chief(self.model):
            self._clean()
        if found:
            self._restore(*found)

    def _count_batches(self, data: Any) -> None:
        """Finds out whether the data has an end, and refuses epochs that do not match it."""
        unknown = tf.data.UNKNOWN_CARDINALITY
        batches = int(data.cardinality()) if hasattr(data, "cardinality") else unknown
        self._endless = batches == tf.data.INFINITE_CARDINALITY
        # Whether batches left out where the order is made are batches that `fit` does not see.
        self._skips = hasattr(data, "start_at")
        steps = self.params.get("steps")
        if self._sources and not self._endless and batches >= 0 and steps not in (None, batches):
            raise ValueError(
                f"steps_per_epoch={steps}, but an epoch of the data has {batches} batches, and to "
                "resume both must be the same: leave steps_per_epoch out, or give data without "
                "end (repeat=True)"
            )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch
        if not self._endless:
            for start_at in self._sources:  # however often the data was read before, or not at all
                start_at(epoch, self._batch if self._skips else 0)
        if self._metrics is not None:  # `fit` has just reset them
            _assign(self.model.metrics_variables, self._metrics)
            self._metrics = None

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if batch + 1 <= self._batch:  # done before the interruption
            return
        self._step += batch + 1 - self._batch
        self._batch = batch + 1
        if self.save_freq != "epoch" and self._step - self._saved_step >= int(self.save_freq):
            self._save()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch, self._batch = epoch + 1, 0
        self._save()

    def on_train_end(self, logs: dict | None = None) -> None:
        if self._step:
            self._save(ended_at=self.params["epochs"])
        self.model._initial_epoch = None  # or the next `fit` would begin there too

    # Writing.

    def _save(self, ended_at: int | None = None) -> None:
        steps = self.params.get("steps")
        position = Position(self._epoch, self._batch, self._step, steps, ended_at)
        self._saved_step = self._step
        # On several workers reading a metric is a collective: all must read, one writes.
        variables = _variables(self.model) + self.model.metrics_variables
        values = [_to_numpy(v) for v in variables]
        if not backend.is_chief(self.model):
            return
        self.backup_dir.mkdir(parents=True, exist_ok=True)
        header = {"format": FORMAT, "position": dataclasses.asdict(position)}
        header["setting"] = self._setting
        header["variables"] = [_description(v) for v in variables]
        path = self.backup_dir / f"step-{position.step:010d}.backup"
        numbered = {f"{i:06d}": value for i, value in enumerate(values)}
        _write_whole(path, {"header": np.array(json.dumps(header)), **numbered})
        for old in self._backups()[self.keep :]:
            old.unlink()

    # Reading.

    def _backups(self) -> list[AnyPath]:
        """The newest first."""
        return sorted(self.backup_dir.glob("step-*.backup"), key=str, reverse=True)

    def _newest(self) -> tuple[Position, list] | None:
        """The newest backup that can be read."""
        paths = self._backups()
        self._unusable: list[AnyPath] = []
        for path in paths:
            try:
                return self._read(path)
            except (OSError, tf.errors.OpError, _DamagedError) as error:
                self._unusable.append(path)
                warnings.warn(
                    f"the backup {path} cannot be used, the one before it will be: {error}",
                    stacklevel=2,
                )
        if paths:
            raise ValueError(
                f"none of the {len(paths)} backups in {self.backup_dir} can be read; remove the "
                "folder to train from the start"
            )
        return None

    def _read(self, path: AnyPath) -> tuple[Position, list]:
        content = path.read_bytes()
        digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            raise _DamagedError("its checksum does not match")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            if header["format"] != FORMAT:
                raise _DamagedError(f"format {header['format']}, this version reads {FORMAT}")
            values = [file[name] for name in sorted(set(file.files) - {"header"})]
        variables = _variables(self.model) + self.model.metrics_variables
        self._check_setting(path, header, values)
        for ours, theirs in zip(map(_description, variables), header["variables"], strict=False):
            if ours["shape"] != theirs["shape"] or ours["dtype"] != theirs["dtype"]:
                raise ValueError(
                    f"the backup {path} is of another model or optimizer: it has {theirs}, the "
                    f"model has {ours}"
                )
        if len(variables) != len(values):
            raise ValueError(
                f"the backup {path} is of another model or optimizer: it has {len(values)} "
                f"variables, the model has {len(variables)}"
            )
        return Position(**header["position"]), values

    def _check_setting(self, path: AnyPath, header: dict, values: list) -> None:
        """Raises unless model, optimizer and data are those of the backup, as far as it says."""
        ours, theirs = _leaves(self._setting), _leaves(header.get("setting", {}))
        places = [*theirs, *ours] if theirs else []
        changed = {place: None for place in places if ours.get(place) != theirs.get(place)}
        for rate in [place for place in changed if place.endswith(".learning_rate")]:
            if _is_rate_of(header, values, ours.get(rate)):
                # A callback had changed it. Later backups name it as it was given at first.
                del changed[rate]
                self._setting["optimizer"] = header["setting"]["optimizer"]
        if changed:
            kind = "data" if all(place.startswith("data") for place in changed) else None
            raise ValueError(
                f"the backup {path} is of another {kind or 'model or optimizer'}: it has "
                + ", ".join(f"{p}={theirs.get(p)!r:.60}" for p in list(changed)[:5])
                + ", now given are "
                + ", ".join(f"{ours.get(p)!r:.60}" for p in list(changed)[:5])
                + ". Give what it was, or another folder to train anew"
            )

    def _restore(self, position: Position, values: list) -> None:
        steps = self.params.get("steps")
        if position.batch and position.steps_per_epoch not in (None, steps):
            raise ValueError(
                f"the backup was made after batch {position.batch} of an epoch of "
                f"{position.steps_per_epoch}, but now an epoch has {steps}: give the same data and "
                "batch size, or another folder"
            )
        variables = _variables(self.model)
        _assign(variables, values[: len(variables)])
        self._epoch, self._batch, self._step = position.epoch, position.batch, position.step
        self._saved_step = position.step
        ended = position.ended_at == self.params["epochs"]
        self.model._initial_epoch = position.ended_at if ended else position.epoch
        self._say(position, ended)
        if self._endless:
            drop = position.step if self._sources and not self._skips else 0
            for start_at in self._sources:
                start_at(0, position.step if self._skips else 0)
        else:
            drop = 0 if self._skips else position.batch
        if ended:
            return
        if position.batch:
            self._metrics = values[len(variables) :]
        if position.batch or drop:
            self._pass_over(position.batch, drop)

    def _say(self, position: Position, ended: bool) -> None:
        if not backend.is_chief(self.model):
            return
        if ended or position.epoch >= self.params["epochs"]:
            warnings.warn(
                f"{self.backup_dir}: ended before, after {position.epoch} epochs. fit() for "
                f"{self.params['epochs']} trains nothing and gives the final state; give another "
                "folder to train anew",
                stacklevel=2,
            )
        elif self.params["verbose"]:
            place = f"epoch {position.epoch + 1}, batch {position.batch + 1}"
            print(f"{self.backup_dir}: going on at {place}")

    def _pass_over(self, batches: int, drop: int) -> None:
        """Lets `fit` count `batches` that were done before, reading and dropping `drop` first."""
        model, train = self.model, self.model.train_function
        left = [batches, drop]
        logs: dict = {}

        def pass_over(iterator: Any) -> dict:
            for _ in range(left[1]):
                next(iterator)
            left[1] = 0
            if left[0] <= 0:
                model.train_function = train
                return train(iterator)
            left[0] -= model.steps_per_execution
            if not logs:  # once: on several workers it is a collective
                logs.update(model.get_metrics_result())
            return logs

        model.train_function = pass_over

    def _clean(self) -> None:
        for path in self._unusable:
            path.replace(path.with_suffix(".unusable"))
        for path in self.backup_dir.glob("step-*.unfinished"):
            warnings.warn(
                f"{path} was being written when the training was interrupted; removed", stacklevel=2
            )
            path.unlink()

    # Several workers.

    def _agree(self, step: int) -> None:
        """Raises unless all workers found the same backup."""
        if not backend.has_workers(self.model):
            return
        found = self.model.distribute_strategy.gather(tf.constant([step], tf.int64), axis=0)
        if len(set(found.numpy().tolist())) > 1:
            raise RuntimeError(
                f"the workers found different backups, of steps {found.numpy().tolist()} (-1 for "
                f"none): {self.backup_dir} must be a folder that all workers see"
            )


class _DamagedError(Exception):
    """A file is no whole backup."""


def _setting(model: Model, data: Any) -> dict:
    """Returns what a training is told apart by, but for its weights; can be written as JSON."""
    serialize = keras.saving.serialize_keras_object
    try:
        described = serialize(model)
        described = {name: described[name] for name in ("class_name", "config")}
    except NotImplementedError:  # a layer of one's own that cannot be saved
        described = {}
    setting = {
        "model": described,
        "optimizer": serialize(model.optimizer),
        "data": [
            f"{keras.backend.standardize_dtype(leaf.dtype)}{tuple(leaf.shape)[1:]}"
            for leaf in keras.tree.flatten(spec_of(data))
            if getattr(leaf, "shape", None) is not None and leaf.shape != tf.TensorShape(None)
        ],
    }
    return _of_any_process(json.loads(json.dumps(setting, default=lambda x: type(x).__name__)))


def _of_any_process(tree: Any) -> Any:
    """`tree` without what the same program may do otherwise another time.

    That is the number in names such as `conv2d_3`, and on what layers were built.
    """
    if isinstance(tree, dict):
        kept = {name: part for name, part in tree.items() if name != "build_config"}
        return {name: _of_any_process(part) for name, part in kept.items()}
    if isinstance(tree, list):
        return [_of_any_process(part) for part in tree]
    return re.sub(r"_\d+$", "", tree) if isinstance(tree, str) else tree


def _leaves(tree: Any, place: str = "") -> dict[str, Any]:
    """The leaves of nested dicts and lists, by their places."""
    if not isinstance(tree, (dict, list)):
        return {place: tree}
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {
        where: leaf
        for name, part in parts
        for where, leaf in _leaves(part, f"{place}.{name}" if place else str(name)).items()
    }


def _is_rate_of(header: dict, values: list, rate: Any) -> bool:
    """Whether `rate` is the learning rate that a backup holds."""
    stored = zip(header["variables"], values, strict=True)
    rates = [value for what, value in stored if what["path"].endswith("learning_rate")]
    return any(float(value) == rate for value in rates)


def _variables(model: keras.Model) -> list:
    return [*model.variables, *model.optimizer.variables]


def _description(variable: Any) -> dict:
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return {"path": variable.path, "shape": list(variable.shape), "dtype": dtype}


def _to_numpy(variable: Any) -> np.ndarray:
    value = ops.convert_to_numpy(variable)
    # numpy's files do not know bfloat16, of which float32 holds every number.
    return value.astype("float32") if value.dtype == "bfloat16" else value


def _assign(variables: list, values: list) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _write_whole(path: AnyPath, arrays: dict) -> None:
    """Writes so that under this name there never is a part of a file."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        file.write(hashlib.sha256(content.getbuffer()).digest())
        file.write(content.getvalue())
        file.flush()
        if hasattr(file, "fileno"):  # a remote file is whole when it is closed
            os.fsync(file.fileno())
    unfinished.replace(path)


def _seeded_sources(data: Any) -> list[Callable]:
    """The `start_at` of all seeded pipelines that `data` is, or is made from."""
    if hasattr(data, "start_at"):
        return [data.start_at]
    found = [f for source in getattr(data, "_inputs", list)() for f in _seeded_sources(source)]
    kind = type(data).__name__.lower()
    if found and any(name in kind for name in _REREADING):
        raise ValueError(
            f"the data is made from a seeded pipeline by a {type(data).__name__}, after which no "
            "epoch's order can be found again: leave cache() and repeat() out (from_array and "
            "from_records take repeat=True)"
        )
    return found
