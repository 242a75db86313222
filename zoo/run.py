"""Runs a model of the zoo on a folder of one's own.

python zoo/run.py vizdoom_frames photos/ out.png       # originals above, reconstructions below
python zoo/run.py speech_conversion voices/ out/       # each clip in every voice, as WAV files
python zoo/run.py A_WORLD episodes/ out.gif            # what happened on the left, predicted right

Twelve files are taken; `--most` takes more.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from support.command import begin, example_parser, local_path, positive


def arguments() -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument("name", help="a folder of the zoo")
    parser.add_argument("folder", help="of images, sound or episodes")
    parser.add_argument(
        "out", type=local_path, help="a PNG file, a folder for WAV files, or a GIF file"
    )
    parser.add_argument(
        "--most", type=positive, default=12, help="images, clips or episodes to take"
    )
    return parser.parse_args()


if __name__ == "__main__":
    begin(arguments)  # before the imports that take seconds

import keras
import numpy as np
import tensorflow as tf

from keras_vqvae import AudioVQVAE, ImageVQVAE, VideoPredictor
from keras_vqvae.data import audio, from_folder, video

STEPS = 10  # predicted frames


def folder_of(name: str) -> Path:
    return Path(__file__).parent / name


def temperature_of(folder: Path) -> float:
    """What the figures of a world are of; 1 where there are none."""
    path = folder / "metrics.json"
    return json.loads(path.read_text()).get("temperature", 1.0) if path.exists() else 1.0


def load(name: str) -> keras.Model:
    """The model `name`, with its weights."""
    folder = folder_of(name)
    if not (folder / "config.json").exists():
        known = sorted(path.parent.name for path in Path(__file__).parent.glob("*/config.json"))
        raise ValueError(f"name: no model {name!r} in the zoo, which has {known}")
    model = keras.saving.deserialize_keras_object(json.loads((folder / "config.json").read_text()))
    model.load_weights(folder / "model.weights.h5")
    return model


def say_left_out(taken: int, there: int) -> None:
    """Says how many files are not looked at, if there are any."""
    if there > taken:
        print(f"the first {taken} of {there} are taken; --most {there} takes all")


def show_pictures(vqvae: ImageVQVAE, folder: str, out: Path, most: int) -> None:
    height, width, channels = vqvae.image_shape
    dataset = from_folder(folder, (height, width), 1, channels=channels)
    images = np.concatenate(list(dataset.take(most).as_numpy_iterator()))
    say_left_out(len(images), int(dataset.cardinality()))
    rows = [np.concatenate(list(x), 1) for x in (images, vqvae.reconstruct(images))]
    keras.utils.save_img(out, np.concatenate(rows, 0), "channels_last", scale=False)
    print(f"{len(images)} pictures, codes {vqvae.encode(images).shape}: {out}")


def voices_of(vqvae: AudioVQVAE) -> dict[str, int | None]:
    """The speakers of a model, by name, or by number where they have none."""
    if vqvae.num_speakers is None:
        return {"reconstructed": None}
    names = vqvae.speaker_names or map(str, range(vqvae.num_speakers))
    return {name: number for number, name in enumerate(names)}


def say_in_every_voice(vqvae: AudioVQVAE, folder: str, out: Path, most: int) -> None:
    voices, least = voices_of(vqvae), vqvae.downsampling
    dataset = audio.from_folder(
        folder,
        vqvae.sample_rate,
        batch_size=1,
        channels="mix",
        min_samples=least,
        skip_corrupt=True,
    )
    out.mkdir(parents=True, exist_ok=True)
    say_left_out(min(most, int(dataset.cardinality())), int(dataset.cardinality()))
    clips = dataset.map(lambda batch: batch["waveform"]).take(most)
    for number, waveform in enumerate(clips.as_numpy_iterator()):
        for name, speaker in voices.items():
            sound = vqvae.reconstruct(waveform, speaker, verbose=0)[0]
            wav = tf.audio.encode_wav(sound[:, None], vqvae.sample_rate)
            tf.io.write_file(str(out / f"{number:02}_{name}.wav"), wav)
        print(f"clip {number}, {vqvae.encode(waveform).shape[1]} codes, in {len(voices)} voices")


def show_what_follows(
    name: str, predictor: VideoPredictor, folder: str, out: Path, most: int
) -> None:
    """The first frames of each episode, and then those that were and those that are predicted."""
    first = predictor.context_frames
    each = predictor.frames_per_code
    steps = -(-STEPS // each) * each
    read = video.read_folder(folder, predictor.image_shape[:2])
    usable = [e for e in read if len(e.frames) >= first + steps and e.actions is not None]
    if not usable:
        raise ValueError(f"folder: {folder} has no episode of {first + steps} frames with actions")
    if len(usable) < len(read):
        print(f"{len(read) - len(usable)} episodes are too short or have no actions")
    episodes = usable[:most]
    say_left_out(len(episodes), len(usable))
    truth = np.stack([episode.frames[: first + steps] for episode in episodes])
    actions = np.stack([episode.actions[: first + steps] for episode in episodes])
    temperature = temperature_of(folder_of(name))
    future = predictor.predict_frames(
        truth[:, :first], actions[:, first - 1 : -1], seed=0, temperature=temperature
    )
    both = np.concatenate([truth, np.concatenate([truth[:, :first], future], 1)], 3)
    moments = [
        keras.utils.array_to_img(np.concatenate(list(both[:, t]), 0), "channels_last", scale=False)
        for t in range(first + steps)
    ]
    moments[0].save(out, save_all=True, append_images=moments[1:], duration=200, loop=0)
    print(f"{len(episodes)} episodes, {steps} frames predicted after {first}: {out}")


def main() -> None:
    args = arguments()
    model = load(args.name)
    if isinstance(model, ImageVQVAE):
        show_pictures(model, args.folder, args.out, args.most)
    elif isinstance(model, VideoPredictor):
        show_what_follows(args.name, model, args.folder, args.out, args.most)
    else:
        say_in_every_voice(model, args.folder, args.out, args.most)


if __name__ == "__main__":
    main()
