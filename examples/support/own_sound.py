"""The data that examples/your_own_sound.py reads, and the figures on its page."""

from pathlib import Path

import numpy as np

from keras_vqvae.data import audio, debian_speech
from support import listening, page
from support.figures import written


def recorded_speech(folder: Path, sample_rate: int) -> Path:
    """A folder of sound files for those who have none at hand: two speakers, half an hour."""
    corpus = debian_speech.load(sample_rate, speakers=["ivrvoice", "june"], split="train")
    for number, clip in enumerate(corpus.clips):
        (folder / clip.speaker).mkdir(parents=True, exist_ok=True)
        path = folder / clip.speaker / f"{number:04}.wav"
        listening.write_wav(path, clip.waveform, sample_rate)
    return folder


def read(
    folder: Path, sample_rate: int, least: int, by_speaker: bool
) -> tuple[list, list, list, list]:
    """Waveforms, their files, their speakers' ids and the speakers' names, which may be none.

    Says of each file that is left out why.

    Args:
        folder: where the files are.
        sample_rate: of the waveforms, in Hz.
        least: samples of one code; shorter files are left out.
        by_speaker: whether sub-folders are speakers.
    """
    good, problems = audio.check_folder(folder)
    for file, problem in problems.items():
        print(f"left out: {file}: {problem}")
    kept = []
    for file in good:
        if by_speaker and file.parent == folder:
            print(f"left out: {file}: in no speaker's folder")
            continue
        try:
            waveform = audio.read(file, sample_rate, channels="mix")
        except ValueError as problem:  # such as no sample at this rate
            print(f"left out: {problem}")
            continue
        if len(waveform) < least:
            print(f"left out: {file}: shorter than one code, {least} samples")
        else:
            kept.append((waveform, file))
    if not kept:
        raise ValueError(f"{folder} holds no clip that can be used")
    waveforms, files = (list(column) for column in zip(*kept, strict=True))
    if not by_speaker:
        return waveforms, files, [0] * len(files), []
    who = [file.relative_to(folder).parts[0] for file in files]
    names = sorted(set(who))
    return waveforms, files, [names.index(name) for name in who], names


def check_enough(waveforms: list, speakers: list, names: list, least: int) -> None:
    """Raises `ValueError` where a speaker has too little sound to learn a voice from.

    `least` is how many samples each needs.
    """
    sound = np.bincount(speakers, [len(waveform) for waveform in waveforms], len(names))
    few = [name for name, samples in zip(names, sound, strict=True) if samples < least]
    if few:
        raise ValueError(
            f"too little sound of {', '.join(few)}: each speaker needs {least:,} "
            "samples in all; remove their folders, or record more"
        )


def cut(waveforms: list, speakers: list, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Sound laid end to end, speaker by speaker, in pieces `(n, samples)`, and their speakers."""
    pieces, ids = [], []
    for speaker in sorted(set(speakers)):
        whole = np.concatenate(
            [w for w, s in zip(waveforms, speakers, strict=True) if s == speaker]
        )
        count = len(whole) // samples
        pieces.append(whole[: count * samples].reshape(count, samples))
        ids += [speaker] * count
    return np.concatenate(pieces), np.array(ids, "int32")


def report(out: Path, figures: dict, bits: dict, each: int) -> list:
    """The parts of the page with figures of held-out sound, and curves."""
    parts = [
        page.heading("Held-out sound"),
        page.table("bits a code", {"held out": bits}, best_of_row=min, cell=written),
        page.table("VQ-VAE", {k.replace("_", " "): {"held out": v} for k, v in figures.items()}),
    ]
    for name, unit in (("vqvae", "spectral loss + quantizer's loss"), ("prior", "bits a code")):
        paths, epoch = page.curves(out / f"{name}.csv", {"loss": (f"loss, {name}", unit)}, True)
        caption = (
            f"An epoch is {each} steps of 8 pieces. The dot marks epoch {epoch}, whose weights "
            "are kept: the tables are of them."
        )
        parts.append(page.figure(paths, f"loss of the {name} by epoch", caption, kind="plot"))
    return parts
