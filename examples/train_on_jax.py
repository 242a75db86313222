"""Trains a network of speaker_conversion.py where there is JAX but no TensorFlow, as on some GPUs.

    python examples/train_on_jax.py write sound/ --preset small     # here: one FLAC file a speaker
    python examples/train_on_jax.py train sound/ parallel.keras --preset small    # there

Put `parallel.keras` (or `wavenet.keras`, of the preset `paper`) into an empty folder, and
`python examples/speaker_conversion.py --preset small --out FOLDER` goes on from it: it trains the
prior, measures, and writes the page and the SavedModel. Give it the same `--speakers` and
`--steps`.

All sound lies in the memory of the device. Crops are cut there, of each speaker as often as by the
square root of their share of the sound, and a few hundred steps at a time are one program. That is
the recipe of speaker_conversion.py, but for the random numbers.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from support.command import begin, example_parser, local_path, positive

CHUNK = 250  # steps in one program


def write(folder: Path, preset_name: str, speakers: str | None, bits: int) -> None:
    """The sound to train on, a file for each speaker; and their names, in the order of their ids.

    With fewer than 16 bits samples are rounded, so that the files are smaller. Training adds noise
    of as much: a WaveNet would learn that levels between the steps never come.
    """
    import soundfile
    from support import conversion, speech_networks

    preset = speech_networks.PRESETS[preset_name]
    train, _ = conversion.read_debian(speakers or preset.speakers, preset.sample_rate)
    folder.mkdir(parents=True, exist_ok=True)
    step = 2 ** (16 - bits)
    for name in train.speaker_names:
        clips = [clip.samples for clip in train.clips if clip.speaker == name]
        whole = np.concatenate(clips).astype("int32")
        rounded = np.clip((whole + step // 2) // step * step, -32768, 32768 - step).astype("int16")
        path = folder / f"{name}.flac"
        soundfile.write(path, rounded, preset.sample_rate)
        print(
            f"{path}: {len(whole) / preset.sample_rate:.0f} s, {path.stat().st_size / 1e6:.1f} MB"
        )
    about = {"speakers": list(train.speaker_names), "bits": bits}
    (folder / "sound.json").write_text(json.dumps(about))


def read(folder: Path) -> tuple[list[str], list[np.ndarray], int]:
    """Names and int16 samples of the speakers, and to how many bits these were rounded."""
    import soundfile

    about = json.loads((folder / "sound.json").read_text())
    names = about["speakers"]
    sounds = [soundfile.read(folder / f"{name}.flac", dtype="int16")[0] for name in names]
    return names, sounds, about["bits"]


def crops_of(
    sounds: list[np.ndarray], crop: int, batch_size: int, bits: int = 16
) -> tuple[Callable, dict]:
    """A function of a key and of what lies on the device, and the latter."""
    import jax

    lengths = np.array([len(sound) for sound in sounds])
    if lengths.min() < crop:
        raise ValueError(f"a speaker has {lengths.min()} samples of sound, and a crop needs {crop}")
    share = np.sqrt(lengths)
    on_device = jax.device_put(
        {
            "samples": np.concatenate(sounds),
            "start": np.cumsum([0, *lengths[:-1]]).astype("int32"),
            "room": (lengths - crop + 1).astype("int32"),
            "share": (share / share.sum()).astype("float32"),
        }
    )

    def crops(key: jax.Array, given: dict) -> dict[str, jax.Array]:
        who, where, what = jax.random.split(key, 3)
        speaker = jax.random.choice(who, len(sounds), (batch_size,), p=given["share"])
        place = jax.random.randint(where, (batch_size,), 0, given["room"][speaker])
        cut = jax.vmap(lambda i: jax.lax.dynamic_slice(given["samples"], (i,), (crop,)))
        waveform = cut(given["start"][speaker] + place).astype("float32") / 32768
        if bits < 16:
            noise = jax.random.uniform(what, waveform.shape, minval=-1.0, maxval=1.0)
            waveform = (waveform + noise * 2.0**-bits).clip(-1, 1)
        return {"waveform": waveform, "speaker": speaker.astype("int32")}

    return crops, on_device


def train(args: argparse.Namespace) -> dict:
    """Trains, writes the model, and returns what it took."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import jax
    import keras
    from support.speech_networks import PRESETS, compiled

    import keras_vqvae  # noqa: F401 - Keras finds its layers by it

    preset = PRESETS[args.preset]
    name = next(name for name in ("wavenet", "parallel") if name in preset.recipes)
    recipe = preset.recipes[name]
    steps = args.steps or recipe.steps
    crop, batch_size = recipe.crop, args.batch_size or recipe.batch_size
    names, sounds, bits = read(args.sound)
    crops, on_device = crops_of(sounds, crop, batch_size, bits)

    def make() -> keras.Model:
        keras.utils.set_random_seed(args.seed)
        model = recipe.make(names, preset.downsampling)
        speaker = keras.Input((), dtype="int32")
        model({"waveform": keras.Input((crop,)), "speaker": speaker})
        return model

    keras.config.set_dtype_policy(args.dtype)
    model = compiled(make(), recipe, steps, True)
    model.optimizer.build(model.trainable_variables)
    groups = [
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    ]

    def chunk(state: list, numbers: jax.Array, given: dict) -> tuple:
        def step(state: list, number: jax.Array) -> tuple:
            key = jax.random.fold_in(jax.random.PRNGKey(args.seed), number)
            logs, state = model.train_step(state, (crops(key, given),))
            return list(map(list, state)), logs

        state, logs = jax.lax.scan(step, state, numbers)
        return state, keras.tree.map_structure(lambda log: log[-1], logs)

    chunk = jax.jit(chunk, donate_argnums=0)
    # Copies: the originals stay what metrics are set back to.
    state = [[jax.numpy.array(variable.value) for variable in group] for group in groups]
    fresh = [np.asarray(variable.value) for variable in groups[3]]
    device = jax.devices()[0].device_kind
    print(f"{name}: {model.count_params():,} parameters, {steps:,} steps on {device}", flush=True)
    done, rows, begin = 0, [], time.perf_counter()
    while done < steps and time.perf_counter() - begin < args.seconds:
        many = min(CHUNK, steps - done)
        state[3] = [jax.numpy.array(value) for value in fresh]
        state, logs = chunk(state, np.arange(done, done + many), on_device)
        row = {key: float(value) for key, value in logs.items()}
        if not np.isfinite(row["loss"]):
            raise ValueError(f"the loss is {row['loss']} after {done + many} steps")
        done += many
        rows.append({"steps": done, "seconds": time.perf_counter() - begin, **row})
        if len(rows) % 10 == 1 or done == steps:
            print({k: round(v, 4) for k, v in rows[-1].items()}, flush=True)
    for group, values in zip(groups, state, strict=True):
        for variable, value in zip(group, values, strict=True):
            variable.assign(value)

    args.model.parent.mkdir(parents=True, exist_ok=True)
    keras.config.set_dtype_policy("float32")
    finished = make()
    finished.set_weights(model.get_weights())
    finished.save(args.model)
    # Of the first program's steps most is compiling; they count only where there is no other.
    first = rows[0] if len(rows) > 1 else {"steps": 0, "seconds": 0.0}
    took = {
        "device": device,
        "preset": args.preset,
        "recipe": name,
        "dtype": args.dtype,
        "batch_size": batch_size,
        "bits": bits,
        "steps": done,
        "of": steps,
        "seconds a step": (rows[-1]["seconds"] - first["seconds"]) / (done - first["steps"]),
        "curve": rows,
    }
    args.model.with_suffix(".json").write_text(json.dumps(took, indent=1))
    return took


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = example_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, what in (("write", "writes the sound"), ("train", "trains a network")):
        one = commands.add_parser(command, help=what)
        one.add_argument("sound", type=local_path, help="the folder of the FLAC files")
        one.add_argument("--preset", choices=("small", "paper"), default="small", help="network")
        if command == "write":
            one.add_argument("--speakers", help="with commas; default those of the preset")
            one.add_argument(
                "--bits", type=int, choices=range(8, 17), default=16, help="of a sample"
            )
            continue
        one.add_argument("model", type=local_path, help="the file to write, NAME.keras")
        one.add_argument("--steps", type=positive, help="default those of the preset")
        one.add_argument("--batch-size", type=positive, help="default that of the preset")
        one.add_argument(
            "--seconds", type=float, default=float("inf"), help="time limit of training"
        )
        one.add_argument("--dtype", default="float32", help="a Keras policy, as mixed_bfloat16")
        one.add_argument("--seed", type=int, default=0, help="of weights and crops")
    args = parser.parse_args(argv)
    if args.command == "train" and not args.seconds > 0:
        parser.error(f"--seconds must be positive, got {args.seconds}")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    if args.command == "write":
        write(args.sound, args.preset, args.speakers, args.bits)
    else:
        took = train(args)
        print(f"{args.model}: {took['steps']:,} steps, {took['seconds a step'] * 1e3:.1f} ms each")


if __name__ == "__main__":
    begin(arguments)
    main()
