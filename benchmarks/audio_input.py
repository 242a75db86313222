"""How fast sound files become batches of crops: tensorflow-io, soundfile, and a plain Python loop.

The first two are `audio.from_folder` with its two decoders, beside its default, which takes one of
them for each file; the last is what people write first: a loop over `soundfile.read`,
`soxr.resample` where the rate differs, a random crop, and a stack. Counted are the seconds of sound
that the files hold, each whole, though soundfile reads no more than the crop of WAV and FLAC that
is not resampled; in a second of an endless iteration, in which the files come from the system's
cache.
`python benchmarks/audio_input.py`
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import common
import numpy as np

WANTED_RATE = 16000
CROP = 16384
BATCH = 16
KINDS = {
    "WAV, 16 kHz": ("wav", 16000),
    "FLAC, 16 kHz": ("flac", 16000),
    "Ogg Vorbis, 16 kHz": ("ogg", 16000),
    "MP3, 16 kHz": ("mp3", 16000),
    "FLAC, 48 kHz, resampled": ("flac", 48000),
}


def write_files(folder: Path, suffix: str, rate: int, files: int, seconds: float) -> None:
    """Buzzes with a gliding pitch in a little noise: they compress about as speech does."""
    import soundfile

    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(files):
        times = np.arange(int(seconds * rate)) / rate
        pitch = 120 + 60 * np.sin(2 * np.pi * times * random.uniform(0.2, 1)) + 5 * i % 80
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        wave = sum(np.sin(k * phase) / k for k in range(1, 20))
        wave *= 0.5 + 0.5 * np.sin(2 * np.pi * 3 * times)
        wave = 0.2 * wave + 0.003 * random.normal(size=len(times))
        soundfile.write(folder / f"{i:03}.{suffix}", wave, rate)


def python_loop(paths: list[Path]) -> Iterator[np.ndarray]:
    import soundfile
    import soxr

    random = np.random.default_rng(0)
    batch = []
    for place in itertools.chain.from_iterable(
        random.permutation(len(paths)) for _ in itertools.count()
    ):
        samples, rate = soundfile.read(paths[place], dtype="float32")
        if rate != WANTED_RATE:
            samples = soxr.resample(samples, rate, WANTED_RATE)
        start = random.integers(0, len(samples) - CROP + 1)
        batch.append(samples[start : start + CROP])
        if len(batch) == BATCH:
            yield np.stack(batch)
            batch = []


def sides(folder: Path) -> dict:
    from keras_vqvae.data import audio
    from keras_vqvae.data.audio_files import native_problem

    made = {}
    for decoder in ("auto", "tensorflow-io", "soundfile"):
        if decoder != "tensorflow-io" or not native_problem():
            made[decoder] = audio.from_folder(
                folder, WANTED_RATE, CROP, BATCH, seed=0, repeat=True, decoder=decoder
            )
    paths = sorted(folder.iterdir())

    def timer(endless: Callable[[], Iterator]) -> Callable[[], float]:
        def measure() -> float:
            # A new iterator, which cannot have worked ahead while others were measured, and
            # without its first batch, for which everything is set up.
            batches = endless()
            next(batches)
            start = time.perf_counter()
            for batch in itertools.islice(batches, len(paths) // BATCH):
                assert batch.shape == (BATCH, CROP)
            return (time.perf_counter() - start) * 1e3

        return measure

    timers = {name: timer(lambda dataset=dataset: iter(dataset)) for name, dataset in made.items()}
    return {**timers, "Python loop": timer(lambda: python_loop(paths))}


def main() -> None:
    parser = common.Parser(__doc__)
    parser.add_argument("--files", type=int, default=512, help="of each kind, many times 16")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each file")
    parser.add_argument("--rounds", type=int, default=7, help="of timing")
    parser.add_argument("--no-store", action="store_true", help="only print")
    args = parser.parse_args()
    total = args.files * args.seconds
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (kind, (suffix, rate)) in enumerate(KINDS.items()):
            place = Path(folder, str(number))
            write_files(place, suffix, rate, args.files, args.seconds)
            times = common.interleave(sides(place), args.rounds)
            loop = times["Python loop"]
            results[kind] = {
                name: {
                    **time,
                    "sound_seconds_per_second": round(total / time["ms"] * 1e3),
                    "times_the_loop": common.ratio(loop, time),
                }
                for name, time in times.items()
            }
    print(f"{args.files} files of {args.seconds:g} s, crops of {CROP} samples at 16 kHz\n")
    rows = [
        [kind, name, side["sound_seconds_per_second"], side["times_the_loop"]["ratio"],
         "–".join(map(str, side["times_the_loop"]["quartiles"]))]
        for kind, found in results.items() for name, side in found.items()
    ]  # fmt: skip
    headers = ["files", "by", "s of sound / s", "x Python loop", "quartiles"]
    print(common.table(headers, rows))
    if not args.no_store:
        sizes = {"files": args.files, "seconds": args.seconds, "crop": CROP, "batch": BATCH}
        common.write("audio_input", {**sizes, "kinds": results})


if __name__ == "__main__":
    main()
