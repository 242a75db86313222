"""What examples/speaker_conversion.py trains on, and what it measures."""

import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_vqvae import AudioVQVAE, WaveNet, functional
from keras_vqvae.data import audio, debian_speech
from keras_vqvae.data.audio_corpus import Clip, Corpus, quantized
from support import judges, sound_scores
from support.figures import ratio

# Recordings of one's own may be hours long; clips are no longer than this.
LONGEST_SECONDS = 10.0
SAMPLE_TEMPERATURE = 0.9
# Of two codes whose squared distances differ by less, relatively, rounding may take either.
NEAR_TIE = 1e-4


# Data.


def read_folder(folder: Path, sample_rate: int, skip_corrupt: bool) -> tuple[Corpus, Corpus]:
    """Clips of a folder with one sub-folder a speaker: to train on, and every tenth held out."""
    dataset = audio.from_folder(
        folder, sample_rate, batch_size=1, speakers=True, channels="mix", trim_silence=True,
        skip_corrupt=skip_corrupt,
    )  # fmt: skip
    names = tuple(dataset.speaker_names)
    of_speaker: dict[str, list[Clip]] = {name: [] for name in names}
    longest = int(LONGEST_SECONDS * sample_rate)
    for example in dataset.as_numpy_iterator():
        clips, waveform = of_speaker[names[example["speaker"][0]]], example["waveform"][0]
        for part in np.array_split(waveform, -(-len(waveform) // longest)):
            speaker = names[example["speaker"][0]]
            clips.append(Clip(f"clip {len(clips) + 1}", speaker, "und", quantized(part)))
    few = [name for name in names if len(of_speaker[name]) < 10]
    if few or len(names) < 2:
        raise ValueError(
            f"{folder} must have at least two folders of a speaker each, of ten clips or "
            f"{10 * LONGEST_SECONDS:.0f} seconds; it has {', '.join(names)}"
            + (f", of which too short: {', '.join(few)}" if few else "")
        )
    parts: tuple[list[Clip], list[Clip]] = ([], [])
    for clips in of_speaker.values():
        for number, clip in enumerate(clips):
            parts[number % 10 == 5].append(clip)
    licences = dict.fromkeys(names, "your own")
    train, held_out = (Corpus(part, sample_rate, names, licences) for part in parts)
    return train, held_out


def read_debian(speakers: str | None, sample_rate: int) -> tuple[Corpus, Corpus]:
    """Clips of Debian's packages: to train on, and unseen ones."""
    names = speakers.split(",") if speakers else None
    if names is not None and len(set(names)) < 2:
        raise ValueError(f"--speakers must name at least two, got {speakers}")
    train, held_out = (
        debian_speech.load(sample_rate, speakers=names, split=split) for split in ("train", "test")
    )
    return train, held_out


def pieces(corpus: Corpus, samples: int) -> list[np.ndarray]:
    """Each speaker's clips laid end to end and cut: int16 `(pieces, samples)` by speaker.

    So short clips are of use too, and silence is not made up to fill them.
    """
    cut = []
    for name in corpus.speaker_names:
        whole = np.concatenate([clip.samples for clip in corpus.clips if clip.speaker == name])
        count = len(whole) // samples
        if count == 0:
            raise ValueError(f"{name} has only {len(whole) / corpus.sample_rate:.1f} s of sound")
        cut.append(whole[: count * samples].reshape(count, samples))
    return cut


def check_enough(corpora: tuple[Corpus, Corpus], crop: int) -> None:
    """Raises `ValueError` where a speaker has too little sound for crops of so many samples."""
    for part, corpus, need in zip(("train", "held out"), corpora, (2 * crop, crop), strict=True):
        for name in corpus.speaker_names:
            have = sum(len(clip.samples) for clip in corpus.clips if clip.speaker == name)
            if have < need:
                rate = corpus.sample_rate
                raise ValueError(
                    f"{name} has {have / rate:.1f} s of sound to {part}, of which at least "
                    f"{need / rate:.1f} s are needed"
                )


def balanced(
    corpus: Corpus, crop: int, batch_size: int, mu_law: bool = False, seed: int = 0
) -> tf.data.Dataset:
    """Crops without end, in an order decided by the seed.

    Of each speaker they come as often as the square root of their share of the sound: the pieces
    of rarer ones are repeated.
    """
    by_speaker = pieces(corpus, 2 * crop)  # twice as long, so that each epoch cuts elsewhere
    most = max(map(len, by_speaker))
    rows: list[np.ndarray] = []
    speakers: list[int] = []
    for speaker, cut in enumerate(by_speaker):
        count = round((most * len(cut)) ** 0.5)
        rows += list(cut[np.arange(count) * len(cut) // count])
        speakers += [speaker] * count
    ids = np.array(speakers, "int32")
    return audio.from_arrays(
        rows, crop, batch_size, speakers=ids, mu_law=mu_law, seed=seed, repeat=True
    )


def evenly(corpus: Corpus, samples: int, each: int) -> dict[str, np.ndarray]:
    """`each` pieces of every speaker, from all over the clips: `waveform` and `speaker`."""
    chosen = [
        cut[np.unique(np.linspace(0, len(cut) - 1, each).astype(int))]
        for cut in pieces(corpus, samples)
    ]
    ids = np.repeat(np.arange(len(chosen), dtype="int32"), [len(cut) for cut in chosen])
    return {"waveform": np.concatenate(chosen).astype("float32") / 32768, "speaker": ids}


def excerpts(corpus: Corpus, seconds: float, each: int) -> list[Clip]:
    """Up to `each` clips of every speaker, long enough, of which the middle is left."""
    samples = int(seconds * corpus.sample_rate)
    chosen = []
    for name in corpus.speaker_names:
        clips = [clip for clip in corpus.clips if clip.speaker == name]
        clips = [c for c in clips if len(c.samples) >= samples] or clips
        for i in np.unique(((np.arange(each) + 0.5) / each * len(clips)).astype(int)):
            start = max(0, len(clips[i].samples) - samples) // 2
            part = clips[i].samples[start : start + samples]
            part = np.pad(part, (0, samples - len(part)))
            chosen.append(Clip(clips[i].name, name, clips[i].language, part, clips[i].text))
    return chosen


def _middle(clip: Clip, samples: int) -> Clip:
    start = (len(clip.samples) - samples) // 2
    part = clip.samples[start : start + samples]
    return Clip(clip.name, clip.speaker, clip.language, part, clip.text)


def batch(clips: Sequence[Clip], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Clips of one length as waveforms `(n, samples)` and ids of speakers `(n,)`."""
    ids = np.array([names.index(clip.speaker) for clip in clips], "int32")
    return np.stack([clip.waveform for clip in clips]), ids


# Use.


def spoken(
    vqvae: AudioVQVAE, waveforms: Sequence[np.ndarray], speakers: Sequence[int]
) -> list[np.ndarray]:
    """Waveforms through the model, each in the voice of a speaker and as long as before."""
    made: list[np.ndarray] = [np.zeros(0)] * len(waveforms)
    # A few different lengths only: for each the graph is built anew.
    unit = vqvae.downsampling * max(1, vqvae.sample_rate // vqvae.downsampling)
    wholes = np.array([-(-len(x) // unit) for x in waveforms])
    if len(set(map(len, waveforms))) == 1:
        unit, wholes = len(waveforms[0]), np.ones(len(waveforms), int)
    for whole in np.unique(wholes):
        some = np.nonzero(wholes == whole)[0]
        padded = [np.pad(waveforms[i], (0, whole * unit - len(waveforms[i]))) for i in some]
        ids = np.array(speakers, "int32")[some]
        for i, sound in zip(some, vqvae.convert(np.stack(padded), ids, verbose=0), strict=True):
            made[i] = sound[: len(waveforms[i])]
    return made


# Figures.


def loss(vqvae: AudioVQVAE, sound: dict[str, np.ndarray], shuffled: bool = False) -> float:
    """What the decoder was trained by, given the codes of `sound`.

    That is bits a sample of a WaveNet, the first receptive field left out, and of a parallel
    decoder the distance of spectra.

    Args:
        vqvae: the model.
        sound: `waveform`, whole codes, and `speaker`.
        shuffled: whether the codes are shuffled in time: that hurts a decoder that goes by them.
    """
    codes = vqvae.encode(sound["waveform"])
    if shuffled:
        codes = np.random.default_rng(0).permuted(codes, axis=1)
    losses = vqvae.reconstruction_loss(sound, codes, batch_size=4)
    return float(losses.mean()) / (np.log(2.0) if vqvae.is_autoregressive else 1.0)


def loss_without_codes(wavenet: WaveNet, sound: dict[str, np.ndarray]) -> float:
    """Bits a sample of a WaveNet that is told the speaker alone, of the same samples as `loss`."""
    levels = ops.convert_to_numpy(functional.mu_law_encode(sound["waveform"])).astype("int32")
    x = {"codes": levels, "condition": sound["speaker"]}
    return float(wavenet.evaluate(x, batch_size=4, verbose=0, return_dict=True)["loss"])


def judged(
    vqvae: AudioVQVAE,
    train: Corpus,
    held_out: Corpus,
    folder: Path,
    each: int = 8,
    sentences: int = 20,
) -> tuple[dict, dict]:
    """What judges hear in reconstructions and conversions of unseen clips.

    Args:
        vqvae: with speakers.
        train: what the judges are trained on, where they are not in `folder`.
        held_out: unseen clips.
        folder: where the judges are kept.
        each: clips of every speaker that are converted into all others.
        sentences: clips with phones; those of one speaker, which is all that there is of them.

    Returns:
        of speakers, shares of clips that are heard as who they should be of; of phones, shares of
        frames of speech told as they are labelled, or nothing where no clip is labelled. A figure
        is None where there is nothing to count, or to compare with: no other speaker to convert
        to, or a judge that tells no phone.
    """
    names, rate = list(held_out.speaker_names), held_out.sample_rate
    judge = judges.SpeakerJudge.load_or_fit(folder / f"speaker{rate}", rate, train.clips)
    clips: list[Clip] = []
    for name in names:
        all_of = [clip for clip in held_out.clips if clip.speaker == name]
        # Neither a word that says little nor a speech that takes long: of that the middle.
        short = [c for c in all_of if 1 <= len(c.samples) / rate < 5][:each]
        long = [c for c in all_of if len(c.samples) / rate >= 5][: each - len(short)]
        clips += [*short, *(_middle(c, 3 * rate) for c in long)] or all_of[:each]
    said_by = [clip.speaker for clip in clips]
    originals = [clip.waveform for clip in clips]
    pairs = [(i, target) for target in names for i, who in enumerate(said_by) if who != target]
    targets = np.array([target for _, target in pairs])
    made = spoken(vqvae, [originals[i] for i, _ in pairs], [names.index(t) for t in targets])
    heard = np.array(judge.predict(made))
    rebuilt = spoken(vqvae, originals, [names.index(who) for who in said_by])
    speakers = {
        "originals": judge.accuracy(originals, said_by)["clips"],
        "reconstructions": judge.accuracy(rebuilt, said_by)["clips"],
        "conversions": ratio(np.sum(heard == targets), len(pairs)),
        "conversions heard as the source": ratio(
            np.sum(heard == np.array([said_by[i] for i, _ in pairs])), len(pairs)
        ),
        "number of conversions": len(pairs),
    }
    for name in names:
        to_it = targets == name
        speakers[f"conversions to {name}"] = ratio(np.sum(heard[to_it] == name), to_it.sum())

    labelled = [clip for clip in held_out.clips if clip.phones][:sentences]
    if not labelled:
        return speakers, {}
    phone_judge = judges.PhoneJudge.load_or_fit(folder / f"phone{rate}", rate, train.clips)
    sounds = [clip.waveform for clip in labelled]
    plain = phone_judge.accuracy(labelled)
    told = {}
    for i, name in enumerate(names):
        told[name] = phone_judge.accuracy(labelled, spoken(vqvae, sounds, [i] * len(sounds)))
    own = labelled[0].speaker
    reconstructions = told.pop(own)["speech"]
    shares = [a["speech"] for a in told.values() if a["speech"] is not None]
    conversions = ratio(sum(shares), len(shares))
    phones = {
        "originals": plain["speech"],
        "always the most frequent": plain["most_frequent"],
        "reconstructions": reconstructions,
        "conversions": conversions,
        "reconstructions / originals": ratio(reconstructions or 0, plain["speech"]),
        "conversions / reconstructions": (
            None if conversions is None else ratio(conversions, reconstructions)
        ),
    }
    for name, accuracy in told.items():
        phones[f"conversions to {name}"] = accuracy["speech"]
    return speakers, phones


def streamed(vqvae: AudioVQVAE, waveform: np.ndarray, speaker: int, chunk: int = 1024) -> dict:
    """How sound that comes in by chunks differs from the whole at once, and how late it comes."""
    codes = vqvae.encode(waveform[None])
    options = {"jit_compile": False} if vqvae.is_autoregressive else {}
    whole = vqvae.decode(codes, speaker, verbose=0, **options)
    stream = vqvae.streaming(speaker=speaker)
    parts, sounds = [], []
    for start in range(0, len(waveform), chunk):
        parts.append(stream.encode(waveform[None, start : start + chunk]))
        sounds.append(stream.decode(parts[-1]))
    parts.append(stream.encode_end())
    sounds += [stream.decode(parts[-1]), stream.decode_end()]
    together, sound = np.concatenate(parts, 1), np.concatenate(sounds, 1)
    latents = np.asarray(vqvae.latents(waveform[None]))
    far, near = (
        ((latents - np.asarray(vqvae.quantizer.decode(x))) ** 2).sum(-1) for x in (together, codes)
    )
    ties = (together != codes) & (far - near < NEAR_TIE * near)
    latency = stream.encode_latency + stream.decode_latency
    return {
        "samples in a chunk": chunk,
        "codes": int(codes.size),
        "codes that differ": int((together != codes).sum()),
        "of which near-ties": int(ties.sum()),
        "largest difference of a sample": float(np.abs(sound - whole).max()),
        "latency in samples": latency,
        "latency in ms": 1e3 * latency / vqvae.sample_rate,
    }


def seconds_per_step(model: keras.Model, dataset: tf.data.Dataset, steps: int = 5) -> float:
    """Wall time of a training step, the first, which builds the graph, left out."""
    model.fit(dataset, steps_per_epoch=2, verbose=0)
    start = time.perf_counter()
    model.fit(dataset, steps_per_epoch=steps, verbose=0)
    return (time.perf_counter() - start) / steps


def floors(reached: dict[str, float | None], floor: dict[str, float]) -> dict[str, dict]:
    """Returns what was reached beside what must be; `met` is None if nothing can be compared."""
    return {
        name: {
            "reached": value,
            "floor": floor[name],
            "met": None if value is None else bool(value >= floor[name]),
        }
        for name, value in reached.items()
    }


def verdict(name: str, row: dict) -> str:
    """Returns the line that is printed of a floor."""
    if row["met"] is None:
        return f"nothing to compare: {name}"
    said = "reached" if row["met"] else "MISSED"
    return f"{said}: {name}: {row['reached']:.3f}, floor {row['floor']:g}"


# What is shown.


def sound_columns(
    vqvae: AudioVQVAE, clips: Sequence[Clip], names: Sequence[str], prior: WaveNet | None
) -> dict[str, list[np.ndarray]]:
    """Clips as they are, in every voice, and new sound in the voice of their speaker."""
    originals = [clip.waveform for clip in clips]
    # All at once: a WaveNet's time goes by batches.
    ids = np.repeat(np.arange(len(names)), len(clips))
    made = spoken(vqvae, originals * len(names), ids)
    columns = {"original": originals}
    for i, name in enumerate(names):
        columns[f"as {name}"] = made[i * len(clips) : (i + 1) * len(clips)]
    if prior is not None:
        condition = np.array([names.index(clip.speaker) for clip in clips], "int32")
        length = len(originals[0]) // vqvae.downsampling
        options = {"temperature": SAMPLE_TEMPERATURE, "seed": 0, "verbose": 0}
        codes = prior.sample(len(clips), condition, length=length, **options)
        columns["new, from the prior"] = list(vqvae.decode(codes, condition, verbose=0))
    return columns


def tables(figures: dict) -> dict[str, dict[str, dict]]:
    """Figures as the page wants them: rows of columns."""
    shown = {}
    for title, rows in figures.items():
        if title in ("parameters", "steps"):
            continue
        shown[title.capitalize()] = {
            name: {k: str(v) if isinstance(v, bool) else v for k, v in row.items()}
            if isinstance(row, dict)
            else {"": row}
            for name, row in rows.items()
        }
    return dict(sorted(shown.items(), key=lambda item: item[0] != "Floors"))


def distances(models: dict[str, AudioVQVAE], clips: Sequence[Clip], names: Sequence[str]) -> dict:
    """`sound_scores.compare` of the models' reconstructions, their errors of pitch, and buzz."""
    originals = [clip.waveform for clip in clips]
    speakers = [names.index(clip.speaker) for clip in clips]
    sounds = {name: spoken(vqvae, originals, speakers) for name, vqvae in models.items()}
    rates = {name: vqvae.bits_per_second for name, vqvae in models.items()}
    rate = next(iter(models.values())).sample_rate
    figures, _ = sound_scores.compare(originals, sounds, rate, rates)
    for name, vqvae in models.items():
        buzz = [
            [sound_scores.buzz(x, rate, rate / vqvae.downsampling) for x in pair]
            for pair in zip(originals, sounds[name], strict=True)
        ]
        more = [after - before for before, after in buzz if None not in (before, after)]
        if more:
            figures[name]["buzz at the code rate, dB above the originals'"] = float(np.mean(more))
        error = sound_scores.pitch_error(originals, sounds[name], rate)
        if error is not None:
            figures[name]["pitch error in semitones"] = error
    return figures
