"""Synthetic English speech with the time of every phone: one text, several speakers.

Flite (Carnegie Mellon University) speaks it; where it is not installed, Debian's packages of it are
unpacked into the cache, without root. `python -m keras_vqvae.data.flite` makes the corpus.

| voice | made from |
|---|---|
| slt (f), rms (m), awb (m) | CMU ARCTIC recordings |
| kal16 (m) | diphones of KAL |

Flite and its voices are under Carnegie Mellon's BSD-like licence; the sentences are made here, by
`sentences`, and are under this package's.
"""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import os
import pathlib
import platform
import random
import re
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Sequence

import keras
import numpy as np

from keras_vqvae.data.audio_corpus import (
    Clip,
    Corpus,
    check_speakers,
    quantized,
    read_clips,
    write_clips,
)
from keras_vqvae.data.audio_packages import fetch_packages
from keras_vqvae.data.cache import cache_dir
from keras_vqvae.data.extras import import_extra
from keras_vqvae.data.order import is_integer

VOICES = ("slt", "rms", "awb", "kal16")
LICENCE = "BSD-like (Carnegie Mellon University, Flite)"

_PACKAGES = ("flite", "libflite1", "libasound2", "libasound2-data")
_RATE = 16000


def load(
    sample_rate: int = 16000,
    voices: Sequence[str] | None = None,
    split: str | None = None,
    num_sentences: int = 300,
) -> Corpus:
    """The same sentences by every voice, with the end time of every phone.

    The first call synthesizes them, in about a minute; later ones read the cache,
    `cache_dir() / "flite"`. A sentence is in the same split for all voices.

    Args:
        sample_rate: in Hz; flite's own is 16000, others are resampled.
        voices: names out of `VOICES`, in the order of their ids; None for all.
        split: `"train"` (85 %), `"validation"` (5 %), `"test"` (10 %), or None for all.
        num_sentences: how many of `sentences()`; all splits together.

    Returns:
        A `Corpus` whose clips all have `text` and `phones`.

    Raises:
        ValueError: an argument is out of range.
        RuntimeError: flite is not installed and its packages cannot be had.
        ImportError: another rate than 16000 is asked for and soxr is not installed.
    """
    _check_rate(sample_rate)
    if not is_integer(num_sentences, 1):
        raise ValueError(f"`num_sentences` must be a positive integer, got {num_sentences!r}.")
    voices = VOICES if voices is None else tuple(voices)
    check_speakers(voices, VOICES)
    clips = [clip for voice in voices for clip in _spoken(voice, sample_rate, num_sentences)]
    corpus = Corpus(clips, sample_rate, VOICES, dict.fromkeys(VOICES, LICENCE))
    return corpus.part(split, voices)


def synthesize(text: str, voice: str = "slt", sample_rate: int = 16000, name: str = "") -> Clip:
    """Speaks a text.

    Args:
        text: English; not empty.
        voice: one of `VOICES`.
        sample_rate: in Hz.
        name: the clip's; by default its text.

    Returns:
        A `Clip`: `waveform` float32 `(samples,)`, `phones` with `(end in seconds, phone)`.

    Raises:
        ValueError: the text is empty, there is no such voice, or flite cannot speak the text.
        RuntimeError: flite is not installed and its packages cannot be had.
    """
    _check_rate(sample_rate)
    # Flite itself takes an unknown voice for its default one, and says nothing.
    if voice not in VOICES:
        raise ValueError(f"`voice` must be one of {', '.join(VOICES)}, got {voice!r}.")
    if not any(letter.isalnum() for letter in text):
        raise ValueError(f"`text` must have something to say, got {text!r}.")
    binary, environment = _flite()
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "speech.wav")
        command = [binary, "-voice", voice, "-psdur", "-t", f" {text}", "-o", str(file)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        if result.returncode != 0 or not file.is_file():
            raise ValueError(f"flite cannot speak {text!r}: {result.stderr.strip()[-300:]}")
        with wave.open(str(file)) as stream:
            rate = stream.getframerate()
            samples = np.frombuffer(stream.readframes(stream.getnframes()), "<i2")
    # "pau:0.164 hh:0.255 ..."; of a diphone voice the last pause is cut shorter than it says.
    duration = len(samples) / rate
    pairs = (word.rpartition(":") for word in result.stdout.split())
    phones = tuple((min(float(end), duration), phone) for phone, _, end in pairs)
    if rate != sample_rate:
        soxr = import_extra("soxr", f"Other sample rates than {_RATE}")
        samples = quantized(soxr.resample(samples / np.float32(32768), rate, sample_rate))
    return Clip(name or text, voice, "en", samples, text, phones)


def sentences(count: int = 300) -> list[str]:
    """Different English sentences, always the same; between them they have all phones of flite.

    Args:
        count: how many, up to 10,000.

    Raises:
        ValueError: `count` is out of range.
    """
    if not is_integer(count, 1) or count > 10_000:
        raise ValueError(f"`count` must be an integer from 1 to 10000, got {count!r}.")
    chance = random.Random(0)
    found: dict[str, None] = {}
    while len(found) < count:
        words = {kind: chance.choice(choices) for kind, choices in _WORDS.items()}
        pattern = chance.choice(_PATTERNS)
        sentence = pattern.format(**words)
        found[sentence[0].upper() + sentence[1:]] = None
    return list(found)


_PATTERNS = (
    "{who} {did} {what} {where}.",
    "{when}, {who} {did} {what}.",
    "{who} and {other} {did} {what} {where} {when}.",
    "did {who} tell you that {other} {did} {what}?",
    "{who} {did} {what} because {other} {felt} {how}.",
    "if {other} {felt} {how}, then {who} would have {been} {where}.",
    "there were {number} {things} {where}, but {who} {did} only {few}.",
    "how {how} it was to see {number} {things} {where} {when}!",
)
_WORDS = {
    "who": (
        "the old fisherman", "my younger sister", "a noisy parrot", "the judge", "our teacher",
        "Joyce", "the new doctor", "an engineer from Boston", "the tall boy", "every child",
        "George", "the baker's wife", "a thin grey horse", "the choir", "Captain Shaw",
    ),
    "other": (
        "her uncle", "the yellow dog", "Miss Thatcher", "a quiet stranger", "the youth",
        "his cousin Hugh", "the whole village", "their neighbor", "the chief", "a young voyager",
    ),
    "did": (
        "found", "painted", "carried", "watched", "bought", "described", "borrowed", "measured",
        "chose", "enjoyed", "threw away", "asked about", "pushed", "shook",
    ),
    "what": (
        "a box of oranges", "the broken machine", "three heavy books", "the garage door",
        "a loaf of bread", "the treasure map", "some cheap shoes", "a beige jacket",
        "the oily rope", "two bottles of juice", "a picture of the moon", "the thick fog",
        "his father's watch", "an unusual stone", "the long letter",
    ),
    "where": (
        "behind the house", "near the river", "on the roof of the church", "in the kitchen",
        "under a large umbrella", "at the edge of the wood", "between two hills",
        "along the southern shore", "in a crowded bus", "outside the theater",
    ),
    "when": (
        "yesterday", "on Thursday morning", "before the storm", "late in the evening",
        "last July", "a thousand years ago", "as soon as it rained", "after a good lunch",
    ),
    "how": ("happy", "awful", "very strange", "curious", "quite lazy", "proud", "rather cold"),
    "felt": ("felt", "looked", "became", "sounded", "seemed"),
    "been": ("been", "gone fishing", "stayed", "waited", "sung", "taken a rest"),
    "number": ("two", "five", "eleven", "fourteen", "thirty six", "eight hundred", "a dozen"),
    "things": ("birds", "wheels", "measures of sugar", "boys", "watches", "ships", "keys", "pages"),
    "few": ("one", "a few", "the smallest", "half of them", "what pleased us"),
}  # fmt: skip


def _check_rate(sample_rate: int) -> None:
    if not is_integer(sample_rate, 1):
        raise ValueError(f"`sample_rate` must be a positive integer, got {sample_rate!r}.")


def _spoken(voice: str, rate: int, count: int) -> list[Clip]:
    folder = cache_dir() / "flite"
    folder.mkdir(exist_ok=True)
    # Other sentences, or another program, make other sound.
    said = hashlib.sha256("\n".join(sentences(count)).encode()).hexdigest()[:8]
    kept = folder / f"{voice}-{count}-{rate}-{_version()}-{said}"
    if not kept.is_dir():
        print(f"Synthesizing {count} sentences with the voice {voice}", flush=True)
        progress = keras.utils.Progbar(count, unit_name="sentence")
        _flite()  # before there are threads
        named = [(text, f"sentence-{i:04}") for i, text in enumerate(sentences(count))]
        clips = []
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for clip in pool.map(lambda each: synthesize(each[0], voice, rate, each[1]), named):
                clips.append(clip)
                if len(clips) % 64 == 0 or len(clips) == count:
                    progress.update(len(clips))
        write_clips(kept, clips)
    return read_clips(kept)


@functools.cache
def _version() -> str:
    """Such as `2.2`; of the program that is installed, or would be fetched."""
    program, environment = _flite()
    said = subprocess.run([program, "--version"], capture_output=True, text=True, env=environment)
    found = re.search(r"version[: ]+flite-([\w.]+)", said.stdout + said.stderr)
    return found.group(1) if found else "unknown"


@functools.cache
def _flite() -> tuple[str, dict[str, str]]:
    """The program and the environment to run it in."""
    installed = shutil.which("flite")
    if installed:
        return installed, dict(os.environ)
    folder = cache_dir() / f"flite-program-{platform.machine()}"
    if not folder.is_dir():
        print("Fetching flite from Debian", flush=True)
        with tempfile.TemporaryDirectory(dir=cache_dir()) as work:
            parts = pathlib.Path(work, "parts")
            parts.mkdir()
            fetch_packages(_PACKAGES, parts)
            try:
                os.replace(parts, folder)
            except OSError:  # another process was quicker
                if not folder.is_dir():
                    raise
    libraries = sorted({str(file.parent) for file in folder.rglob("lib*.so.*")})
    path = os.pathsep.join([*libraries, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
    return str(folder / "flite/usr/bin/flite"), {**os.environ, "LD_LIBRARY_PATH": path}


def _main() -> None:
    corpus = load()
    for name in corpus.speaker_names:
        print(f"{name:8}{corpus.seconds(name) / 60:6.1f} min  {corpus.licences[name]}")
    print(f"Kept in {cache_dir() / 'flite'}")


if __name__ == "__main__":
    _main()
