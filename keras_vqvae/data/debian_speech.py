"""Recorded speech of seven speakers that Debian's packages carry: five hours.

`python -m keras_vqvae.data.debian_speech` fetches it all and prints what there is. No root is
needed, no account and no ffmpeg: `apt-get download` gets the packages, PyAV decodes G.722 and
soundfile the rest.

| speaker | language | what is said | licence |
|---|---|---|---|
| msu_nsh (m) | ru | sentences, with texts and phone labels | BSD-like |
| ivrvoice (f) | ru | telephone prompts | CC-BY-3.0 |
| allison (f) | en, es | telephone prompts | CC-BY-SA-3.0 |
| june (f) | fr | telephone prompts | CC-BY-SA-3.0 |
| carlo (m) | it | telephone prompts | CC-BY-3.0 |
| fillets_cs_m (f), fillets_cs_v (m) | cs | dialogues of a game, with texts | GPL-2 |

The prompts of different languages share their names, such as `digits/7`, and a name decides the
split: no prompt is in the training data of one speaker and in the test data of another.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_vqvae.data.audio_corpus import (
    SPLITS,
    Clip,
    Corpus,
    check_speakers,
    quantized,
    read_clips,
    write_clips,
)
from keras_vqvae.data.audio_packages import check_contents, fetch_packages
from keras_vqvae.data.cache import cache_dir
from keras_vqvae.data.extras import import_extra
from keras_vqvae.data.order import is_integer

LICENCES = {
    "msu_nsh": "BSD-like (Festival), (c) 2005 Nickolay V. Shmyrev",
    "ivrvoice": "CC-BY-3.0, (c) 2010 Maxim Topal, ivrvoice.ru",
    "allison": "CC-BY-SA-3.0, (c) 2003-2010 Allison Smith",
    "june": "CC-BY-SA-3.0, (c) 2006-2008 June Wallack",
    "carlo": "CC-BY-3.0, (c) 2012 Carlo Flora",
    "fillets_cs_m": "GPL-2, ALTAR interactive and the authors of Fish Fillets NG",
    "fillets_cs_v": "GPL-2, ALTAR interactive and the authors of Fish Fillets NG",
}
SPEAKERS = tuple(LICENCES)

_SHORTEST_SECONDS = 0.02
_QUIETEST = 0.01
_NO_SPEECH = re.compile(
    "silence/.*|beep|beeperr|tt-monkeys|(ascending|descending)-2tone|confbridge-(join|leave)|"
    "screen-callee-options"  # begins with a tone
)


@dataclasses.dataclass(frozen=True)
class _Source:
    """A package: whose voices it has, how they are read, and what its files must be."""

    speakers: tuple[str, ...]
    rate: int
    sha256: str
    read: Callable[[dict[str, pathlib.Path]], Iterator[Clip]]
    files: tuple[str, ...]  # patterns of what the digest covers
    texts: str | None = None  # another package, of which only the texts are taken


def load(
    sample_rate: int = 16000,
    speakers: Sequence[str] | None = None,
    split: str | None = None,
) -> Corpus:
    """Speech from Debian's packages; the first call fetches and decodes it, which takes a minute.

    Later calls read the cache, `cache_dir() / "debian-speech"`. Clips under 20 ms, tones and
    silence are left out.

    Args:
        sample_rate: in Hz; other rates than the packages' own are resampled once and kept as well.
        speakers: names out of `SPEAKERS`, in the order of their ids; None for all.
        split: `"train"` (85 %), `"validation"` (5 %) or `"test"` (10 %), decided by the clips'
            names alone; None for all clips.

    Returns:
        A `Corpus`: `clips` with `waveform` (float32 `(samples,)`), `speaker`, `language`, `name`,
        `text` and, of msu_nsh, `phones`; `speaker_names`, `speaker_ids`, `licences`.

    Raises:
        ValueError: an argument is out of range.
        RuntimeError: the packages cannot be had here, or have other contents than expected.
        ImportError: PyAV, soundfile or soxr is not installed.
    """
    if not is_integer(sample_rate, 1):
        raise ValueError(f"`sample_rate` must be a positive integer, got {sample_rate!r}.")
    if split is not None and split not in SPLITS:
        raise ValueError(f"`split` must be one of {', '.join(SPLITS)} or None, got {split!r}.")
    speakers = SPEAKERS if speakers is None else tuple(speakers)
    check_speakers(speakers, SPEAKERS)
    names = [name for name, source in _SOURCES.items() if set(source.speakers) & set(speakers)]
    _fetch([name for name in names if not _kept(name, _SOURCES[name].rate).is_dir()])
    clips = [clip for name in names for clip in _at_rate(name, sample_rate)]
    return Corpus(clips, sample_rate, SPEAKERS, LICENCES).part(split, speakers)


def _kept(package: str, rate: int) -> pathlib.Path:
    folder = cache_dir() / "debian-speech"
    folder.mkdir(exist_ok=True)
    return folder / f"{package}-{rate}"


def _fetch(packages: Sequence[str]) -> None:
    """Downloads packages, verifies and decodes them, and keeps their clips at their own rates."""
    if not packages:
        return
    for module in ("av", "soundfile", "soxr"):
        _import(module)
    texts = [text for name in packages if (text := _SOURCES[name].texts)]
    print(f"Fetching {', '.join([*packages, *texts])} from Debian", flush=True)
    # In the cache, so that what is kept can be moved there in one step.
    with tempfile.TemporaryDirectory(dir=cache_dir()) as work:
        roots = fetch_packages([*packages, *texts], pathlib.Path(work))
        for name in packages:
            source, root = _SOURCES[name], roots[name]
            files = [file for pattern in source.files for file in root.glob(pattern)]
            check_contents(name, root, files, source.sha256)
            if source.texts:
                root = roots[source.texts]
                check_contents(source.texts, root, root.glob(_TEXTS), _TEXTS_SHA256)
            target = _kept(name, source.rate)
            write_clips(target, _shown(f"Decoding {name}", filter(_is_speech, source.read(roots))))


def _at_rate(package: str, rate: int) -> list[Clip]:
    own_rate = _SOURCES[package].rate
    kept = _kept(package, rate)
    if not kept.is_dir():
        soxr = _import("soxr")

        def resampled(clip: Clip) -> Clip:
            wave = soxr.resample(clip.waveform, own_rate, rate)
            return dataclasses.replace(clip, samples=quantized(wave))

        own = map(resampled, read_clips(_kept(package, own_rate)))
        write_clips(kept, _shown(f"Resampling {package} to {rate} Hz", own))
    return read_clips(kept)


def _shown(what: str, clips: Iterable[Clip]) -> list[Clip]:
    print(what, flush=True)
    progress = keras.utils.Progbar(None, unit_name="clip")
    done = []
    for clip in clips:
        done.append(clip)
        if len(done) % 64 == 0:
            progress.update(len(done))
    progress.update(len(done), finalize=True)
    return done


def _import(name: str) -> Any:
    return import_extra(name, "Debian's recordings")


def _is_speech(clip: Clip) -> bool:
    if len(clip.samples) < _SHORTEST_SECONDS * 16000 or _NO_SPEECH.fullmatch(clip.name):
        return False
    return np.abs(clip.waveform).max() >= _QUIETEST


# Reading the packages.

_ASTERISK = "usr/share/asterisk/sounds"
_FESTIVAL = "usr/share/festival/voices/russian/msu_ru_nsh_clunits"
_FILLETS = "usr/share/games/fillets-ng"
_TEXTS = f"{_FILLETS}/script/**/*dialogs_cs.lua"
_TEXTS_SHA256 = "c61c30bf15641b54a3631010a7f561f4661a354e26201b6bf2ad30c3ace2657d"


def _prompts(package: str, speaker: str, language: str):
    def read(roots: dict[str, pathlib.Path]) -> Iterator[Clip]:
        av = _import("av")
        # One folder, named after the voice.
        (folder,) = (path for path in (roots[package] / _ASTERISK).iterdir() if path.is_dir())
        for file in sorted(folder.rglob("*.g722")):
            if file.stat().st_size == 0:
                continue
            with av.open(str(file), format="g722") as stream:
                frames = [frame.to_ndarray()[0] for frame in stream.decode(audio=0)]
            name = str(file.relative_to(folder).with_suffix("").as_posix())
            # Allison speaks two languages; the name stays that of the prompt.
            yield Clip(name, speaker, language, np.concatenate(frames))

    return read


def _sentences(roots: dict[str, pathlib.Path]) -> Iterator[Clip]:
    folder = roots["festvox-ru"] / _FESTIVAL
    texts = dict(_festival_texts(folder / "etc" / "txt.done.data"))
    for file in sorted((folder / "wav").glob("*.wav")):
        phones = _festival_phones(folder / "lab" / f"{file.stem}.lab")
        yield Clip(file.stem, "msu_nsh", "ru", _read(file, 16000), texts.get(file.stem, ""), phones)


def _festival_texts(file: pathlib.Path) -> list[tuple[str, str]]:
    # ( ru_0001 "What is said." )
    text = file.read_text(encoding="utf-8")
    return re.findall(r'^\(\s*(\S+)\s+"(.*)"\s*\)', text, flags=re.MULTILINE)


def _festival_phones(file: pathlib.Path) -> tuple[tuple[float, str], ...]:
    # After a line "#": end in seconds, a colour, the phone.
    lines = file.read_text(encoding="utf-8").partition("#")[2].split("\n")
    rows = [line.split() for line in lines if line.strip()]
    return tuple((float(end), phone) for end, _, phone in rows)


def _dialogues(roots: dict[str, pathlib.Path]) -> Iterator[Clip]:
    scripts = roots["fillets-ng-data"].glob(_TEXTS)
    texts = dict(found for script in scripts for found in _dialogue_texts(script))
    for file in sorted((roots["fillets-ng-data-cs"] / _FILLETS).glob("sound/**/cs/*.ogg")):
        # The second part of a name is who speaks: the small fish, m, or the big one, v.
        who = re.fullmatch(r"[^-]+-([mv])(-.*)?", file.stem)
        if who:
            name, speaker = f"{file.parts[-3]}/{file.stem}", f"fillets_cs_{who[1]}"
            yield Clip(name, speaker, "cs", _read(file, 22050), texts.get(file.stem, ""))


def _dialogue_texts(script: pathlib.Path) -> list[tuple[str, str]]:
    # dialogId("name", "font", "in English")
    # dialogStr("in Czech")
    text = script.read_text(encoding="utf-8")
    found = re.findall(r'dialogId\("([^"]+)"[^\n]*\)\s*dialogStr\("(.*)"\)', text)
    return [(name, said.replace('\\"', '"')) for name, said in found]


def _read(file: pathlib.Path, rate: int) -> np.ndarray:
    # A few dialogues are at 44.1 kHz, or in stereo, where the others are not.
    wave, own_rate = _import("soundfile").read(file, dtype="float32", always_2d=True)
    wave = wave.mean(axis=1)
    return quantized(wave if own_rate == rate else _import("soxr").resample(wave, own_rate, rate))


_SOURCES = {
    "festvox-ru": _Source(
        ("msu_nsh",),
        16000,
        "87a57945d23483c56f53bbd1d529255f86fe16586f772c31b1ba9de55dd97c9b",
        _sentences,
        ("**/wav/*.wav", "**/lab/*.lab", "**/txt.done.data"),
    ),
    "fillets-ng-data-cs": _Source(
        ("fillets_cs_m", "fillets_cs_v"),
        22050,
        "1fe175cb09d20d539e25cc479e5a8ac691d6cdbaba669c6fe333ff4199d064fa",
        _dialogues,
        ("**/*.ogg",),
        "fillets-ng-data",
    ),
}
for _language, _speaker, _sha256 in (
    ("en", "allison", "c1cb12a7121aa22b860ffd28b20921cf4f4e4bcd813499d39d127b151c2bc591"),
    ("es", "allison", "4c592b9388e27f685894224ed7dff8011ff0cab56f4a6f6047d31ae4333c2a8d"),
    ("fr", "june", "490b33a266f68edd722d8060e5b4cf29091072a11b711c86b9071f04887b8cd6"),
    ("it", "carlo", "5134cdbf0b5d5550820199e01aeb8d128e888ed4daf01649f2a1ca6b753b0b19"),
    ("ru", "ivrvoice", "6b3ba2b32c08ec2796600aba533469e86fc7f604f5d6587cd2be372e4fcd0132"),
):
    _name = f"asterisk-core-sounds-{_language}-g722"
    _read_prompts = _prompts(_name, _speaker, _language)
    _SOURCES[_name] = _Source((_speaker,), 16000, _sha256, _read_prompts, ("**/*.g722",))


def _main() -> None:
    corpus = load()
    print(f"{'speaker':14}{'clips':>6}{'minutes':>9}  licence")
    for name in corpus.speaker_names:
        count = sum(clip.speaker == name for clip in corpus.clips)
        minutes = corpus.seconds(name) / 60
        print(f"{name:14}{count:6}{minutes:9.1f}  {corpus.licences[name]}")
    print(f"Kept in {cache_dir() / 'debian-speech'}")


if __name__ == "__main__":
    _main()
