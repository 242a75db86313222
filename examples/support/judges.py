"""Judges of speech: small networks, trained on real clips, that tell phones and speakers.

They say of a conversion whether the words stayed and the voice changed: `PhoneJudge` classifies
every 10 ms of a clip, `SpeakerJudge` the clip. Both hear log-mel spectra only, whose loudness is
taken out, and see clips of the training split alone.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_vqvae import spectral
from keras_vqvae.data.audio_corpus import Clip, labels_at
from support import runs
from support.figures import ratio
from support.psola import at_pitch

HOP_SECONDS = 0.01
SILENCE = ("pau",)  # msu_nsh's label

# Of other voices, as multiples of the labelled one's: from a low man's to a high woman's.
PITCHES = (0.75, 2.2)

# Log-magnitudes are in nats, and 0 is the level of speech: what is further below is cut off, so
# that rooms and codecs do not tell clips apart by their background.
_QUIETEST = -5.0
_LOUD = -2.5


class _Judge:
    """A network over log-mel frames, with its labels, in one folder."""

    bands: int
    window_seconds: float
    low, high = 0.0, None  # Hz

    def __init__(self, sample_rate: int, labels: Sequence[str]) -> None:
        self.sample_rate = sample_rate
        self.labels = tuple(labels)
        self._index = {label: i for i, label in enumerate(self.labels)}
        self.network = self._network()

    @classmethod
    def fit(cls, sample_rate: int, clips: Sequence[Clip], steps: int) -> Any:
        """A judge trained on `clips`."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Writes weights and labels into `folder`, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        self.network.save_weights(folder / "judge.weights.h5")
        runs.write_json(
            folder / "judge.json", {"sample_rate": self.sample_rate, "labels": self.labels}
        )

    @classmethod
    def load(cls, folder: Path) -> Any:
        """The judge that was saved in `folder`."""
        judge = cls(**json.loads((folder / "judge.json").read_text()))
        judge.network.load_weights(folder / "judge.weights.h5")
        return judge

    @classmethod
    def load_or_fit(
        cls, folder: Path, sample_rate: int, clips: Sequence[Clip], **options: Any
    ) -> Any:
        """The judge in `folder`, or one made there by `fit(sample_rate, clips, **options)`."""
        if not (folder / "judge.json").exists():
            cls.fit(sample_rate, clips, **options).save(folder)
        return cls.load(folder)

    def _network(self) -> keras.Model:
        raise NotImplementedError

    def _log_mel(self, waveform: np.ndarray) -> np.ndarray:
        """`(frames, bands)`, frame i being centred at `i * HOP_SECONDS`."""
        hop = round(HOP_SECONDS * self.sample_rate)
        window = hop * round(self.window_seconds / HOP_SECONDS)
        # A clip shorter than the window is longer with silence.
        waveform = np.pad(waveform, (0, max(0, window - len(waveform))))
        where = (self.bands, self.low, self.high)
        found = spectral.log_mel(waveform[None], self.sample_rate, window, hop, *where)
        return keras.ops.convert_to_numpy(found)[0]

    def _train(self, batches: Iterator, steps: int, rate: float) -> None:
        schedule = keras.optimizers.schedules.CosineDecay(rate, steps, warmup_steps=steps // 20)
        self.network.compile(
            keras.optimizers.AdamW(schedule, weight_decay=1e-2, clipnorm=1.0),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=False,
        )
        start = time.perf_counter()
        bar = keras.utils.Progbar(steps, stateful_metrics=["loss", "accuracy"], interval=1.0)
        for step in range(steps):
            if step % 50 == 0:
                self.network.reset_metrics()
            logs = self.network.train_on_batch(*next(batches), return_dict=True)
            bar.update(step + 1, [(name, float(value)) for name, value in logs.items()])
        print(f"trained in {time.perf_counter() - start:.0f} s")


class PhoneJudge(_Judge):
    """Tells the phone of every 10 ms, of whoever speaks, having heard one labelled speaker.

    Other voices are imitated in training by another pitch (`psola`), by stretching the frequency
    axis (the length of the vocal tract), the time axis (speed) and the colour of the spectrum, and
    by noise.

    Args:
        sample_rate: Hz.
        labels: the phones.
    """

    bands = 40
    window_seconds = 0.02  # too short to tell the harmonics of a voice apart
    _margin = 20  # frames of silence at each end, more than the network sees

    def _network(self) -> keras.Model:
        inputs = keras.Input((None, self.bands))
        x = layers.Conv1D(128, 5, padding="same")(inputs)
        for _ in range(5):
            y = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
            x = layers.add([x, layers.Conv1D(128, 5, padding="same")(y)])
        x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
        return keras.Model(inputs, layers.Dense(len(self.labels))(layers.Dropout(0.2)(x)))

    @classmethod
    def fit(cls, sample_rate: int, clips: Sequence[Clip], steps: int = 2000) -> "PhoneJudge":
        """A judge trained on those of `clips` that have phones."""
        clips = [clip for clip in clips if clip.phones]
        if not clips:
            raise ValueError("PhoneJudge needs clips with phones, and there are none")
        judge = cls(sample_rate, sorted({phone for clip in clips for _, phone in clip.phones}))
        print(f"PhoneJudge: {judge.network.count_params():,} parameters, {len(clips)} clips")
        rng = np.random.default_rng(0)
        spectra = []
        bar = keras.utils.Progbar(len(clips), unit_name="clip at another pitch")
        for clip in clips:
            factor = PITCHES[0] * (PITCHES[1] / PITCHES[0]) ** rng.random()
            spectra.append(judge.features(at_pitch(clip.waveform, sample_rate, factor)))
            bar.add(1)
        spectra += [judge.features(clip.waveform) for clip in clips]
        clips = 2 * clips
        phones = [judge.frame_labels(clip, len(x)) for clip, x in zip(clips, spectra, strict=True)]
        judge._train(judge._batches(spectra, phones, rng), steps, 3e-3)
        return judge

    def features(self, waveform: np.ndarray) -> np.ndarray:
        """Log-mel `(frames, bands)` less each band's mean over what is loud of the clip."""
        x = self._log_mel(waveform)
        level = x.mean(1)
        x = x - x[level >= np.quantile(level, 0.6)].mean(0)
        return np.maximum(x, _QUIETEST)

    def frame_labels(self, clip: Clip, frames: int) -> np.ndarray:
        """Index of the labelled phone at each frame's centre: `(frames,)` int."""
        names = labels_at(clip.phones, np.arange(frames) * HOP_SECONDS)
        return np.array([self._index.get(name, -1) for name in names])  # of none it heard: wrong

    def predict(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Index into `labels` of each frame's likeliest phone, `(frames,)` for every waveform."""
        spectra = [self.features(x) for x in waveforms]
        found: list[np.ndarray] = [np.zeros(0, int)] * len(spectra)
        longest_last = np.argsort([len(x) for x in spectra], kind="stable")
        for some in np.array_split(longest_last, -(-len(spectra) // 16)):
            longest = max(len(spectra[i]) for i in some)
            frames = 200 * (-(-(longest + 2 * self._margin) // 200))  # few different shapes
            batch = np.full((len(some), frames, self.bands), _QUIETEST, "float32")
            for row, i in enumerate(some):
                batch[row, self._margin :][: len(spectra[i])] = spectra[i]
            codes = np.argmax(self.network.predict_on_batch(batch), -1)
            for row, i in enumerate(some):
                found[i] = codes[row, self._margin :][: len(spectra[i])]
        return found

    def accuracy(
        self, clips: Sequence[Clip], waveforms: Sequence[np.ndarray] | None = None
    ) -> dict[str, float | None]:
        """Share of frames told as they are labelled; None where there are no such frames.

        Args:
            clips: clips with phones.
            waveforms: what to listen to in place of the clips' own sound, such as reconstructions
                or conversions of it, aligned with it.

        Returns:
            `frames` over all frames, `speech` over those that are not labelled as silence, and
            `most_frequent`, the accuracy over speech of always saying its most frequent phone.
        """
        told = self.predict([c.waveform for c in clips] if waveforms is None else waveforms)
        labelled = [self.frame_labels(c, len(x)) for c, x in zip(clips, told, strict=True)]
        right = np.concatenate(told) == np.concatenate(labelled)
        labels = np.concatenate(labelled)
        speech = ~np.isin(labels, [self._index[s] for s in SILENCE if s in self._index])
        return {
            "frames": ratio(right.sum(), len(right)),
            "speech": ratio(right[speech].sum(), speech.sum()),
            "most_frequent": ratio(max(Counter(labels[speech]).values(), default=0), speech.sum()),
        }

    def _batches(
        self, spectra: list, labels: list, rng: np.random.Generator, size: int = 16
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        frames = 200
        margin = self._margin
        spectra = [
            np.pad(x, [[margin, margin], [0, 0]], constant_values=_QUIETEST) for x in spectra
        ]
        labels = [np.pad(y, margin, constant_values=self._index.get("pau", 0)) for y in labels]
        shares = np.array([len(y) for y in labels]) / sum(map(len, labels))
        while True:
            x = np.empty((size, frames, self.bands), "float32")
            y = np.empty((size, frames), int)
            for row, i in enumerate(rng.choice(len(spectra), size, p=shares)):
                # Frames at another speed: linear between two, and the nearer one's label.
                speed = rng.uniform(0.85, 1.18)
                start = rng.uniform(0, max(1.0, len(labels[i]) - 2 - speed * frames))
                at = np.minimum(start + speed * np.arange(frames), len(labels[i]) - 2)
                left = at.astype(int)
                part = (at - left)[:, None]
                x[row] = (1 - part) * spectra[i][left] + part * spectra[i][left + 1]
                y[row] = labels[i][np.round(at).astype(int)]
                x[row] = _other_room(self._warp(rng.uniform(0.78, 1.28))(x[row]), rng)
                if rng.random() < 0.3:  # what has no highs, has no mean to be taken out of them
                    x[row, :, rng.integers(self.bands // 2, self.bands) :] = 0
            yield x, y

    def _warp(self, factor: float) -> Callable[[np.ndarray], np.ndarray]:
        """Spectra with all frequencies times `factor`, by linear interpolation between bands."""
        top = 2595 * np.log10(1 + self.sample_rate / 2 / 700)
        centres = np.arange(1, self.bands + 1) / (self.bands + 1) * top
        hz = 700 * (10 ** (centres / 2595) - 1)
        wanted = 2595 * np.log10(1 + hz / factor / 700) / top * (self.bands + 1) - 1
        left = np.clip(wanted.astype(int), 0, self.bands - 2)
        part = np.clip(wanted - left, 0, 1).astype("float32")  # beyond the ends, the last band
        return lambda x: (1 - part) * x[:, left] + part * x[:, left + 1]


class SpeakerJudge(_Judge):
    """Tells who speaks in a clip, from what is loud in it: neither pauses nor length count.

    It hears what a telephone lets through. Recordings differ in what is above, and by that alone a
    judge could tell their speakers apart: one that heard it took Opus, which cuts it off, for
    another voice.

    Args:
        sample_rate: Hz.
        labels: the speakers.
    """

    bands = 64
    window_seconds = 0.04  # tells the harmonics apart, and so the pitch
    low, high = 80.0, 3600.0

    def _network(self) -> keras.Model:
        inputs = keras.Input((None, self.bands))
        x = inputs
        for _ in range(3):
            x = layers.Conv1D(96, 5, padding="same")(x)
            x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.GlobalAveragePooling1D()(x)
        x = layers.Dropout(0.3)(x)
        return keras.Model(inputs, layers.Dense(len(self.labels))(x))

    @classmethod
    def fit(cls, sample_rate: int, clips: Sequence[Clip], steps: int = 800) -> "SpeakerJudge":
        """A judge of the speakers of `clips`, all of whom count alike."""
        judge = cls(sample_rate, sorted({clip.speaker for clip in clips}))
        print(f"SpeakerJudge: {judge.network.count_params():,} parameters, {len(clips)} clips")
        by_speaker: dict[str, list] = {name: [] for name in judge.labels}
        for clip in clips:
            by_speaker[clip.speaker].append(judge.features(clip.waveform))
        batches = judge._batches(list(by_speaker.values()), np.random.default_rng(0))
        judge._train(batches, steps, 2e-3)
        return judge

    def features(self, waveform: np.ndarray) -> np.ndarray:
        """Log-mel `(frames, bands)` of the loud frames, less their mean (over bands too)."""
        x = self._log_mel(waveform)
        level = x.mean(1)
        x = x[level >= np.quantile(level, 0.9) + _LOUD]
        return np.maximum(x - x.mean(), _QUIETEST)

    def probabilities(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """`(waveforms, speakers)`: means over windows of a second of what is loud."""
        found = [np.zeros((0, len(self.labels)))]
        for waveform in waveforms:
            x = self.features(waveform)
            starts = range(0, max(1, len(x) - 49), 50)
            windows = np.stack([np.take(x, np.arange(s, s + 100), 0, mode="wrap") for s in starts])
            logits = np.asarray(self.network.predict_on_batch(windows), "float64")
            shares = np.exp(logits - logits.max(-1, keepdims=True))
            found.append((shares / shares.sum(-1, keepdims=True)).mean(0)[None])
        return np.concatenate(found)

    def predict(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        """The likeliest speaker of every waveform."""
        return [self.labels[i] for i in self.probabilities(waveforms).argmax(1)]

    def accuracy(
        self, waveforms: Sequence[np.ndarray], speakers: Sequence[str]
    ) -> dict[str, float | None]:
        """Share of waveforms told to be of `speakers`: over `clips`, and by speaker."""
        right = np.array(self.predict(waveforms)) == np.array(speakers)
        names = np.array(speakers)
        by_speaker = {str(name): float(right[names == name].mean()) for name in np.unique(names)}
        return {"clips": ratio(right.sum(), len(right)), **by_speaker}

    def _batches(
        self, by_speaker: list[list], rng: np.random.Generator, size: int = 32
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        frames = 100
        shares = [np.array([len(x) for x in some]) for some in by_speaker]
        shares = [lengths / lengths.sum() for lengths in shares]
        while True:
            y = rng.integers(len(by_speaker), size=size)
            x = np.empty((size, frames, self.bands), "float32")
            for row, speaker in enumerate(y):
                clip = by_speaker[speaker][rng.choice(len(shares[speaker]), p=shares[speaker])]
                start = rng.integers(max(1, len(clip) - frames + 1))
                part = np.take(clip, np.arange(start, start + frames), 0, mode="wrap")
                x[row] = _other_room(part, rng)
                x[row] = np.maximum(x[row] - x[row].mean(), _QUIETEST)
            yield x, y


def _other_room(x: np.ndarray, rng: np.random.Generator, colour: float = 0.6) -> np.ndarray:
    """Spectra `(frames, bands)` as another room and microphone might give them."""
    place = np.linspace(0, np.pi, x.shape[1])
    waves = [np.cos(k * place) for k in range(4)]  # the first is the gain
    x = x + sum(rng.normal(0, colour / (k + 1)) * wave for k, wave in enumerate(waves))
    noise = rng.uniform(-6, -1.5) + sum(rng.normal(0, 0.5) * wave for wave in waves)
    noise = noise + rng.normal(0, 0.4, x.shape)
    if rng.random() < 0.7:
        x = np.logaddexp(x, noise)
    return np.maximum(x + rng.normal(0, 0.2, x.shape), _QUIETEST)
