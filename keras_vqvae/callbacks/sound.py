"""Callback that lets a model of sound be heard and seen."""

import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vqvae import spectral
from keras_vqvae.callbacks.show import Show, check_matplotlib, drawn, new_figure

LOWEST_DB = -80.0


class ReconstructionSound(Show):
    """Originals and reconstructions: WAV files, waveforms and spectrograms.

    Into `folder` and an event file there go the originals, once, and at the end of an epoch their
    reconstructions and a picture of both. Needs matplotlib (extra `examples`).

    Args:
        waveforms: float32 `(n, samples)` in [-1, 1], the clips to show.
        folder: where `original_CLIP.wav`, `reconstruction_CLIP_EPOCH.wav`, `sound_EPOCH.png` and
            the event file go.
        sample_rate: Hz, the model's.
        speaker: int32 `(n,)` where the model wants speakers, or their names, if it knows them.
        every: epochs between two reconstructions.
    """

    shown = "a model of sound"

    def __init__(
        self,
        waveforms: np.ndarray,
        folder: str | os.PathLike,
        sample_rate: int,
        speaker: np.ndarray | None = None,
        every: int = 1,
    ) -> None:
        super().__init__(folder, every)
        check_matplotlib(self)
        self.waveforms = np.asarray(waveforms)
        self.sample_rate = sample_rate
        self.speaker = None if speaker is None else np.asarray(speaker)
        if self.waveforms.ndim != 2 or 0 in self.waveforms.shape:
            raise ValueError(
                f"waveforms must be (n, samples), at least one, got {self.waveforms.shape}"
            )
        if self.speaker is not None and self.speaker.shape != self.waveforms.shape[:1]:
            raise ValueError(
                f"speaker must be one of each waveform, ({len(self.waveforms)},), "
                f"got {self.speaker.shape}"
            )

    def can_show(self, model: Any) -> bool:
        return hasattr(model, "sample_rate") and hasattr(model, "reconstruct")

    def on_train_begin(self, logs: dict | None = None) -> None:
        super().on_train_begin(logs)
        if self.model.sample_rate != self.sample_rate:
            raise ValueError(
                f"the waveforms are at {self.sample_rate} Hz, "
                f"but the model's sample_rate is {self.model.sample_rate}"
            )
        if self.speaker is not None and self.speaker.dtype.kind == "U":
            self.speaker = self.model.speaker_of_each(self.speaker, len(self.waveforms))
        self.model.check_data(self._data)
        if self._writer is not None:
            with self._writer.as_default(step=0):
                self._write_sound("original", self.waveforms, "")

    @property
    def _data(self) -> Any:
        if self.speaker is None:
            return self.waveforms
        return {"waveform": self.waveforms, "speaker": self.speaker}

    def show(self, epoch: int) -> None:
        reconstructions = np.asarray(self.model.reconstruct(self._data))
        self._write_sound("reconstruction", reconstructions, f"_{epoch:04d}")
        picture = sound_picture(
            {"original": self.waveforms, "reconstruction": reconstructions}, self.sample_rate
        )
        self.write_picture("sound", picture, epoch)

    def _write_sound(self, name: str, waveforms: np.ndarray, suffix: str) -> None:
        sound = np.clip(waveforms, -1.0, 1.0).astype("float32")[..., None]
        tf.summary.audio(name, sound, self.sample_rate, max_outputs=len(sound))
        for i, clip in enumerate(sound):
            wav = tf.audio.encode_wav(clip, self.sample_rate).numpy()
            (self.folder / f"{name}_{i}{suffix}.wav").write_bytes(wav)


def sound_picture(columns: dict[str, np.ndarray], sample_rate: int) -> np.ndarray:
    """Waveforms and, below each, its spectrogram in decibels; needs matplotlib.

    Args:
        columns: waveforms `(n, samples)` by name; a name is a column, a clip two rows.
        sample_rate: Hz.

    Returns:
        uint8 `(height, width, 3)`.
    """
    clips = len(next(iter(columns.values())))
    figure = new_figure(5 * len(columns), 3.5 * clips)
    grid = figure.subplots(
        2 * clips, len(columns), squeeze=False, height_ratios=[2, 3] * clips, sharex="row"
    )
    for column, (name, waveforms) in enumerate(columns.items()):
        grid[0, column].set_title(name)
        for clip, waveform in enumerate(waveforms):
            upper, lower = grid[2 * clip : 2 * clip + 2, column]
            seconds = len(waveform) / sample_rate
            upper.plot(np.arange(len(waveform)) / sample_rate, waveform, linewidth=0.5)
            upper.set(xlim=(0, seconds), ylim=(-1, 1))
            extent = (0, seconds, 0, sample_rate / 2000)
            lower.imshow(
                decibels(waveform, sample_rate).T,
                aspect="auto",
                origin="lower",
                extent=extent,
                vmin=LOWEST_DB,
                vmax=0,
                cmap="magma",
            )
            if column == 0:
                lower.set_ylabel("kHz")
            if clip == clips - 1:
                lower.set_xlabel("seconds")
    return drawn(figure)


def decibels(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Spectrogram `(frames, bins)` in dB of a full sine's magnitude, windows of about 32 ms."""
    samples = len(waveform)
    window = 2 ** round(np.log2(0.032 * sample_rate))
    waveform = np.pad(waveform, (0, max(0, window - samples)))[None]
    magnitudes = spectral.magnitudes(keras.ops.convert_to_tensor(waveform), window, window // 4)
    loudness = keras.ops.convert_to_numpy(magnitudes)[0] / (window / 4)
    return 20 * np.log10(np.maximum(loudness, 10 ** (LOWEST_DB / 20)))
