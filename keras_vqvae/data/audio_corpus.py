"""A corpus of speech in memory: clips with speakers, and the file in which it is kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np

SPLITS = ("train", "validation", "test")
_SAMPLES, _CLIPS = "samples.npy", "clips.json"


@dataclasses.dataclass(frozen=True)
class Clip:
    """One utterance.

    Attributes:
        name: unique among the clips of its speaker and language; speakers who say the same prompt
            share it.
        speaker: name of the speaker.
        language: ISO 639-1 code.
        samples: int16 `(samples,)`, mostly memory-mapped.
        text: what is said, or "" where that is not known.
        phones: `(end in seconds, phone)` in order of time, or empty where not known.
    """

    name: str
    speaker: str
    language: str
    samples: np.ndarray
    text: str = ""
    phones: tuple[tuple[float, str], ...] = ()

    @property
    def waveform(self) -> np.ndarray:
        """float32 `(samples,)` in [-1, 1)."""
        return self.samples.astype(np.float32) / np.float32(32768)

    @property
    def split(self) -> str:
        """`"train"`, `"validation"` or `"test"`, decided by the name alone: 85, 5 and 10 %."""
        bucket = int(hashlib.sha256(self.name.encode()).hexdigest()[:8], 16) % 20
        return "test" if bucket < 2 else "validation" if bucket == 2 else "train"


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Clips of several speakers at one sample rate.

    Attributes:
        clips: the clips, speaker by speaker.
        sample_rate: in Hz.
        speaker_names: the speakers; a speaker's id is the place here, the same in all splits.
        licences: by speaker.
    """

    clips: list[Clip]
    sample_rate: int
    speaker_names: tuple[str, ...]
    licences: dict[str, str]

    @property
    def waveforms(self) -> list[np.ndarray]:
        """float32 `(samples,)` of every clip; a copy of all, twice the size of the int16."""
        return [clip.waveform for clip in self.clips]

    @property
    def samples(self) -> list[np.ndarray]:
        """int16 `(samples,)` of every clip, not copied; `audio.from_arrays` takes them as well."""
        return [clip.samples for clip in self.clips]

    @property
    def speaker_ids(self) -> np.ndarray:
        """int32 `(clips,)`."""
        ids = {name: i for i, name in enumerate(self.speaker_names)}
        return np.array([ids[clip.speaker] for clip in self.clips], np.int32)

    def seconds(self, speaker: str | None = None) -> float:
        """How much sound there is, of one speaker or of all."""
        clips = [clip for clip in self.clips if speaker in (None, clip.speaker)]
        return sum(len(clip.samples) for clip in clips) / self.sample_rate

    def part(self, split: str | None = None, speakers: Sequence[str] | None = None) -> Corpus:
        """The clips of one split, or of some speakers, or both.

        Args:
            split: `"train"`, `"validation"` or `"test"`; None for all.
            speakers: names, in the order of their ids; None for those of this corpus.

        Raises:
            ValueError: there is no such split or speaker.
        """
        if split is not None and split not in SPLITS:
            raise ValueError(f"`split` must be one of {', '.join(SPLITS)} or None, got {split!r}.")
        names = self.speaker_names if speakers is None else tuple(speakers)
        check_speakers(names, self.speaker_names)
        clips = [
            clip
            for name in names
            for clip in self.clips
            if clip.speaker == name and split in (None, clip.split)
        ]
        licences = {name: self.licences[name] for name in names}
        return Corpus(clips, self.sample_rate, names, licences)


def check_speakers(chosen: Sequence[str], known: Sequence[str]) -> None:
    """Raises `ValueError` where a name is not known, comes twice, or there is none."""
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen or isinstance(chosen, str) or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"`speakers` must be a list of different names out of {', '.join(known)}; "
            f"got {chosen!r}."
        )


def labels_at(segments: Sequence[tuple[float, str]], seconds: np.ndarray) -> np.ndarray:
    """Which segment covers each point of time, for example the middle of each code's frame.

    Args:
        segments: `(end in seconds, label)` in order of time, as `Clip.phones`; not empty.
        seconds: points of time, `(n,)`; those after the last end get the last label.

    Returns:
        Labels, an array of str `(n,)`.
    """
    ends = np.array([end for end, _ in segments])
    labels = np.array([label for _, label in segments])
    return labels[np.minimum(np.searchsorted(ends, seconds, side="right"), len(ends) - 1)]


def quantized(waveform: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1] as int16, clipped."""
    return np.clip(np.round(waveform * 32768.0), -32768, 32767).astype(np.int16)


def write_clips(folder: pathlib.Path, clips: Sequence[Clip]) -> None:
    """Keeps clips in a folder that appears at once and whole, or not at all."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        unfinished = pathlib.Path(work, "clips")
        unfinished.mkdir()
        np.save(unfinished / _SAMPLES, np.concatenate([clip.samples for clip in clips]))
        rows = []
        for clip in clips:
            row = {f.name: getattr(clip, f.name) for f in dataclasses.fields(clip)}
            row["samples"] = len(clip.samples)
            rows.append(row)
        text = json.dumps(rows, ensure_ascii=False)
        (unfinished / _CLIPS).write_text(text, encoding="utf-8")
        try:
            os.replace(unfinished, folder)
        except OSError:
            # Another process was quicker; what it wrote is the same.
            if not (folder / _CLIPS).is_file():
                raise


def read_clips(folder: pathlib.Path) -> list[Clip]:
    """The clips that `write_clips` kept; their samples are memory-mapped."""
    samples = np.load(folder / _SAMPLES, mmap_mode="r")
    clips, start = [], 0
    for row in json.loads((folder / _CLIPS).read_text(encoding="utf-8")):
        stop = start + row["samples"]
        row["phones"] = tuple((end, phone) for end, phone in row["phones"])
        clips.append(Clip(**{**row, "samples": samples[start:stop]}))
        start = stop
    if start != len(samples):
        raise ValueError(f"The cache {folder} is damaged: remove it, and it is made again.")
    return clips
