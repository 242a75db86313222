"""Say it in another's voice: a VQ-VAE of speech whose decoder is told who speaks.

    python examples/speaker_conversion.py                          # 11 minutes on two CPU cores
    python examples/speaker_conversion.py --preset small           # 2.5 hours
    python examples/speaker_conversion.py --data folder/           # one sub-folder a speaker

The codes keep what is said; the decoder, which is given the speaker besides, need not find the
voice in them. So with another speaker the same codes are said in another voice (van den Oord et
al. 2017, sec. 4.3). The recordings are of the speakers in Debian's packages, or your own.

- `tiny`: 8 kHz, 125 codes a second. A WaveNet decoder, a parallel one, a WaveNet without codes to
  compare with, and a prior that draws new sound.
- `small`: 16 kHz, 100 codes a second, the parallel decoder, and an encoder before which voices are
  disguised in training. Judges trained on real clips say whether the words stayed and the voice
  changed.
- `paper`: 16 kHz, the WaveNet decoder at the paper's size. Not yet run to its end: it says what it
  would cost, and begins with `--yes`.

Open NAME/listening.html in the folder of the run, with NAME `wavenet` or `parallel`. Exit status 1
if a figure misses its floor. Each stage leaves a file behind and is skipped when that is there: run
it again to resume.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from support.command import begin, example_parser, local_path, positive


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument(
        "--preset", choices=("tiny", "small", "paper"), default="tiny", help="of networks"
    )
    parser.add_argument("--data", type=local_path, help="a folder with one sub-folder a speaker")
    parser.add_argument("--speakers", help="with commas, out of those of data.debian_speech")
    parser.add_argument("--out", type=local_path, help="default runs/speaker_conversion_PRESET")
    parser.add_argument(
        "--downsampling",
        type=int,
        choices=(64, 160, 320),
        help="samples a code; default that of the preset",
    )
    parser.add_argument("--steps", type=positive, help="of training each network")
    parser.add_argument("--minutes", type=float, help="of training, for the preset small")
    parser.add_argument(
        "--judges", type=local_path, help="folder of trained judges; default OUT/judges"
    )
    parser.add_argument("--skip-corrupt", action="store_true", help="leave out unusable files")
    parser.add_argument("--yes", action="store_true", help="train the preset paper, at its cost")
    args = parser.parse_args(argv)
    if args.minutes is not None and args.minutes <= 0:
        parser.error(f"--minutes must be positive, got {args.minutes}")
    if args.minutes and (args.preset != "small" or args.steps):
        parser.error("--minutes is for the preset small, in place of --steps")
    if args.data and args.speakers:
        parser.error("--speakers is of the recordings that come without --data")
    return args


if __name__ == "__main__":
    begin(arguments)  # before the imports that take seconds

import keras
import numpy as np
import tensorflow as tf
from support import checks, conversion, generation, listening, runs
from support.figures import ratio
from support.speech_networks import PRESETS, Preset, compiled

from keras_vqvae import AudioVQVAE, WaveNet, callbacks, export_savedmodel
from keras_vqvae.data.audio_corpus import Corpus

STEPS_PER_EPOCH = 500

# What must be reached, at least.
FLOORS = {
    "bits a sample that codes save": 0.05,
    "bits a sample lost by shuffling codes": 0.5,
    "spectral loss, codes shuffled / in order": 1.2,
    "share of conversions heard as the target": 0.90,
    "phones told, reconstructions / originals": 0.70,
    "phones told, conversions / reconstructions": 0.90,
}


@dataclasses.dataclass(frozen=True)
class Run:
    """What all stages need to know."""

    out: Path
    preset: Preset
    downsampling: int
    train: Corpus
    held_out: Corpus
    judges: Path

    @property
    def names(self) -> list[str]:
        return list(self.held_out.speaker_names)


# Training.


def xla() -> bool | str:
    # On CPUs the convolutions that XLA makes are slower than TensorFlow's.
    return "auto" if tf.config.list_physical_devices("GPU") else False


def trained(
    run: Run,
    name: str,
    dataset: Callable[[], tf.data.Dataset],
    more: Sequence[keras.callbacks.Callback] = (),
) -> keras.Model:
    """The network in NAME.keras, made and trained first if it is not there."""
    path, recipe = run.out / f"{name}.keras", run.preset.recipes[name]
    if not path.exists():
        keras.utils.set_random_seed(0)
        epochs = max(1, round(recipe.steps / STEPS_PER_EPOCH))
        each = -(-recipe.steps // epochs)
        model = recipe.make(run.names, run.downsampling)
        print(f"{name}: {model.count_params():,} parameters, {epochs * each:,} steps", flush=True)
        backup = callbacks.BackupAndRestore(run.out / "backup" / name, keep=2)
        history = keras.callbacks.CSVLogger(run.out / f"{name}.csv", append=True)
        compiled(model, recipe, epochs * each, xla()).fit(
            dataset(), steps_per_epoch=each, epochs=epochs, callbacks=[backup, history, *more]
        )
        unfinished = path.with_name(f"unfinished_{path.name}")
        model.save(unfinished)
        unfinished.replace(path)
    return keras.models.load_model(path)


def train_on_sound(run: Run, name: str) -> keras.Model:
    """A VQ-VAE, or the WaveNet that has no codes to go by."""
    recipe, mu_law = run.preset.recipes[name], name == "unconditional"
    more = []
    if name == "parallel" and recipe.steps > 20 * STEPS_PER_EPOCH:  # worth listening into
        clips = conversion.excerpts(run.held_out, run.preset.shown_seconds, 1)
        sound, speakers = conversion.batch(clips, run.names)
        rate = run.preset.sample_rate
        more = [callbacks.ReconstructionSound(sound, run.out / "training", rate, speakers, 20)]
    size = recipe.crop, recipe.batch_size
    return trained(run, name, lambda: conversion.balanced(run.train, *size, mu_law=mu_law), more)


def train_prior(run: Run, vqvae: AudioVQVAE) -> tuple[WaveNet, dict[str, float]]:
    """A prior over codes, given the speaker, and its bits a code on unseen clips."""
    recipe = run.preset.recipes["prior"]
    path = run.out / "codes.npz"
    if not path.exists():
        codes = {}
        for part, corpus, each in (("train", run.train, 300), ("unseen", run.held_out, 12)):
            sound = conversion.evenly(corpus, recipe.crop, each)
            codes[part] = vqvae.encode(sound["waveform"])
            codes[f"{part} speakers"] = sound["speaker"]
        np.savez(path, **codes)
    kept = dict(np.load(path))
    data, unseen = (
        {"codes": kept[part], "condition": kept[f"{part} speakers"]} for part in ("train", "unseen")
    )

    def dataset() -> tf.data.Dataset:
        rows = tf.data.Dataset.from_tensor_slices(data).shuffle(len(data["codes"]), seed=0)
        return rows.repeat().batch(recipe.batch_size)

    model = trained(run, "prior", dataset)
    bits = {
        "uniform": float(np.log2(vqvae.num_codes)),
        "unigram": generation.unigram_bits(data["codes"], unseen["codes"], vqvae.num_codes),
        "WaveNet": float(model.evaluate(unseen, verbose=0, return_dict=True)["loss"]),
    }
    return model, bits


# Figures, on unseen clips.


def measure(run: Run, models: dict[str, keras.Model]) -> dict:
    """All figures but the prior's, and under "floors" those that must reach something."""
    vqvaes = {name: model for name, model in models.items() if name != "unconditional"}
    print("Measuring reconstructions", flush=True)
    clips = conversion.excerpts(run.held_out, run.preset.shown_seconds, 3)
    figures = {
        "parameters": {name: model.count_params() for name, model in models.items()},
        "steps": {name: run.preset.recipes[name].steps for name in models},
        "reconstruction": conversion.distances(vqvaes, clips, run.names),
        "streaming": {},
    }
    reached: dict[str, float | None] = {}
    for name, vqvae in vqvaes.items():
        print(f"Measuring what {name} does with its codes, and in a stream", flush=True)
        whole_codes = run.preset.recipes[name].crop // run.downsampling * run.downsampling
        unseen = conversion.evenly(run.held_out, whole_codes, 12)
        in_order, shuffled = (conversion.loss(vqvae, unseen, shuffled=s) for s in (False, True))
        loss = {f"{name} decoder": in_order, "its codes shuffled in time": shuffled}
        if vqvae.is_autoregressive:
            reached["bits a sample lost by shuffling codes"] = shuffled - in_order
            if "unconditional" in models:
                without = conversion.loss_without_codes(models["unconditional"], unseen)
                loss["a WaveNet without codes"] = without
                reached["bits a sample that codes save"] = without - in_order
        else:
            reached["spectral loss, codes shuffled / in order"] = ratio(shuffled, in_order)
        figures["bits a sample" if vqvae.is_autoregressive else "spectral loss"] = loss
        # Without XLA a WaveNet is slow.
        seconds = 0.5 if vqvae.is_autoregressive else 2.0
        sound = conversion.excerpts(run.held_out, seconds, 1)[0].waveform
        figures["streaming"][name] = conversion.streamed(vqvae, sound, 0)
    if run.preset.judged:
        print("Judging conversions", flush=True)
        vqvae = next(iter(vqvaes.values()))
        speakers, phones = conversion.judged(vqvae, run.train, run.held_out, run.judges)
        figures["speakers told"] = speakers
        reached["share of conversions heard as the target"] = speakers["conversions"]
        if phones:
            figures["phones told"] = phones
            for pair in ("reconstructions / originals", "conversions / reconstructions"):
                reached[f"phones told, {pair}"] = phones[pair]
    return {**figures, "floors": conversion.floors(reached, FLOORS)}


def write_pages(run: Run, vqvaes: dict, prior: WaveNet, figures: dict, title: str) -> list[Path]:
    """A page for each model: clips as they are, in every voice, and new sound."""
    clips = conversion.excerpts(run.held_out, run.preset.shown_seconds, 1)
    licences = "; ".join(f"{name}: {text}" for name, text in run.held_out.licences.items())
    tables = conversion.tables(figures)
    pages = []
    for name, vqvae in vqvaes.items():
        pages.append(run.out / name / "listening.html")
        if pages[-1].exists():
            continue
        print(f"Writing {pages[-1]}", flush=True)
        its_prior = prior if vqvae is next(iter(vqvaes.values())) else None
        columns = conversion.sound_columns(vqvae, clips, run.names, its_prior)
        text = [
            f"{vqvae.count_params():,} parameters, {figures['steps'][name]:,} steps of training, "
            f"{vqvae.bits_per_second:,.0f} bits a second. None of these clips was heard in "
            "training. In its own speaker's voice a clip is a plain reconstruction.",
            f"Recordings: {licences}.",
        ]
        rows = [f"{clip.speaker}: {clip.text or clip.name}" for clip in clips]
        heading = f"{title}, {name} decoder"
        rate = vqvae.sample_rate
        listening.write_page(run.out / name, rate, columns, rows, tables, heading, text)
    return pages


def export(run: Run, vqvaes: dict, prior: WaveNet) -> None:
    """Writes SavedModels, and makes sure that they answer the same without this package."""
    for name, vqvae in vqvaes.items():
        savedmodel = run.out / "savedmodel" / name / "1"
        its_prior = prior if vqvae is next(iter(vqvaes.values())) else None
        if not savedmodel.exists():
            print(f"Exporting {savedmodel}", flush=True)
            export_savedmodel(vqvae, savedmodel, prior=its_prior)
        seconds = 24 * vqvae.downsampling / vqvae.sample_rate
        clips = conversion.excerpts(run.held_out, seconds, 1)[:2]
        sound, speakers = conversion.batch(clips, run.names)
        checks.check_sound_without_package(vqvae, savedmodel, sound, speakers[::-1], its_prior)


# Which preset, data and steps.


def with_steps(preset: Preset, steps: int | None) -> Preset:
    """The preset with so many steps for each network, and no more for the prior."""
    if steps is None:
        return preset
    recipes = {
        name: dataclasses.replace(r, steps=min(steps, r.steps) if name == "prior" else steps)
        for name, r in preset.recipes.items()
    }
    return dataclasses.replace(preset, recipes=recipes)


def seconds_per_step(run: Run, name: str, batch_size: int) -> float:
    """Measured on a network that is thrown away."""
    recipe = run.preset.recipes[name]
    model = compiled(recipe.make(run.names, run.downsampling), recipe, 100, xla())
    dataset = conversion.balanced(run.train, recipe.crop, batch_size)
    return conversion.seconds_per_step(model, dataset, 20 if batch_size > 1 else 2)


def steps_in(run: Run, minutes: float) -> int:
    """As many steps as fit; found out once, and kept for when the run is resumed."""
    path = run.out / "steps.json"
    if not path.exists():
        recipe = run.preset.recipes["parallel"]
        seconds = seconds_per_step(run, "parallel", recipe.batch_size)
        runs.write_json(path, {"steps": max(1, round(60 * minutes / seconds))})
        print(f"{seconds:.3f} s a step")
    return json.loads(path.read_text())["steps"]


def say_cost(run: Run) -> None:
    """Prints what the WaveNet of the preset would take here; one crop at a time is timed."""
    recipe = run.preset.recipes["wavenet"]
    count = recipe.make(run.names, run.downsampling).count_params()
    seconds = recipe.batch_size * seconds_per_step(run, "wavenet", 1)
    print(
        f"The paper's size, not yet run to its end: {count:,} parameters. A step of "
        f"{recipe.batch_size} crops of {recipe.crop:,} samples takes about {seconds:.1f} s here "
        "(one crop measured); "
        f"{recipe.steps:,} steps take {recipe.steps * seconds / 86400:,.1f} days."
    )


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    preset = with_steps(PRESETS[args.preset], args.steps)
    free = ("judges", "yes")  # they change no result
    decisive = {name: value for name, value in vars(args).items() if name not in free}
    out = args.out or Path("runs") / f"speaker_conversion_{args.preset}"
    out = runs.open_run(out, json.loads(json.dumps(decisive, default=str)))
    if args.data:
        corpora = conversion.read_folder(args.data, preset.sample_rate, args.skip_corrupt)
    else:
        corpora = conversion.read_debian(args.speakers or preset.speakers, preset.sample_rate)
    run = Run(
        out,
        preset,
        args.downsampling or preset.downsampling,
        *corpora,
        args.judges or out / "judges",
    )
    longest = max(recipe.crop for recipe in preset.recipes.values())
    conversion.check_enough(corpora, longest)
    if args.preset == "paper":
        say_cost(run)
        if not args.yes:
            print("Add --yes to begin.")
            return 1
    if args.minutes:
        run = dataclasses.replace(run, preset=with_steps(preset, steps_in(run, args.minutes)))

    names = [name for name in preset.recipes if name != "prior"]
    models = {name: train_on_sound(run, name) for name in names}
    vqvaes = {name: model for name, model in models.items() if name != "unconditional"}
    for name, vqvae in vqvaes.items():  # they may have been trained elsewhere
        if list(vqvae.speaker_names or ()) != run.names:
            raise ValueError(
                f"{out / name}.keras has the speakers {vqvae.speaker_names}, the data {run.names}"
            )
    new_sound, bits_a_code = train_prior(run, next(iter(vqvaes.values())))
    if not (out / "metrics.json").exists():
        figures = {"prior, bits a code": bits_a_code, **measure(run, models)}
        runs.write_json(out / "metrics.json", figures)
    figures = json.loads((out / "metrics.json").read_text())
    pages = write_pages(run, vqvaes, new_sound, figures, f"Speaker conversion, {args.preset}")
    export(run, vqvaes, new_sound)
    print(json.dumps(figures, indent=2))
    for name, row in figures["floors"].items():
        print(conversion.verdict(name, row))
    print("Listen to", *pages)
    return 1 if any(row["met"] is False for row in figures["floors"].values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
