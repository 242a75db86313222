"""Your own sound: a folder in; tokens, a prior, new sound and a SavedModel out.

    python examples/your_own_sound.py recordings/ --out runs/recordings
    python examples/your_own_sound.py recordings/ --speakers    # one sub-folder a speaker
    python examples/your_own_sound.py                # tries it on speech from Debian's packages

Takes WAV, FLAC, Ogg and MP3 files, best half an hour or more of one kind. The defaults are for two
CPU cores and a first impression; on a GPU raise --hidden and --steps, and --sample-rate to 16000.
The folder of the run then holds

- `tokens.npz`: for each file its codes, int32, under the number that it has in `files`;
- `listening/listening.html`: held-out sound, what its codes keep of it, and new sound drawn from
  the prior, to hear and to see, with the WAV files beside it;
- `vqvae.keras`, `prior.keras`: the models, for `keras.saving.load_model`;
- `savedmodel/1`: both, for TensorFlow Serving: encode, decode, reconstruct, sample, log_prob, and
  encode and decode chunk by chunk; with speakers convert.
"""

import argparse
from pathlib import Path

from support.command import begin, example_parser, positive


def arguments() -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of WAV, FLAC, Ogg or MP3 files")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/your_own_sound"), help="folder of the run"
    )
    parser.add_argument("--speakers", action="store_true", help="sub-folders are speakers")
    parser.add_argument("--sample-rate", type=positive, default=8000, help="Hz")
    parser.add_argument("--num-codes", type=positive, default=512, help="size of the codebook")
    parser.add_argument("--hidden", type=positive, default=128, help="channels of both networks")
    parser.add_argument(
        "--steps", type=positive, default=2000, help="training steps of each network"
    )
    args = parser.parse_args()
    if args.speakers and args.sample_rate < LEAST_SAMPLE_RATE:
        parser.error(
            f"--speakers follows their pitch: --sample-rate must be at least {LEAST_SAMPLE_RATE}"
        )
    return args


if __name__ == "__main__":
    begin(arguments)  # before the imports that take seconds

import keras
import numpy as np
import tensorflow as tf
from support import listening

from keras_vqvae import AudioVQVAE, ParallelDecoder, WaveNet, export_savedmodel
from keras_vqvae.data import audio, debian_speech

STEPS_PER_EPOCH = 200  # how often held-out sound is looked at
STRIDES = (4, 4, 4)  # of the decoder; their product is how many samples a code stands for
SAMPLES_A_CODE = 64
LEAST_SAMPLE_RATE = 6400  # to follow a pitch at
# A VQ-VAE learns from crops of so many samples, a prior from so many codes.
CROP, CODES = 128 * SAMPLES_A_CODE, 128
LEAST_CROPS = 5  # of each speaker


def recorded_speech(folder: Path, sample_rate: int) -> Path:
    """A folder of sound files for those who have none at hand: two speakers, half an hour."""
    corpus = debian_speech.load(sample_rate, speakers=["ivrvoice", "june"], split="train")
    for number, clip in enumerate(corpus.clips):
        (folder / clip.speaker).mkdir(parents=True, exist_ok=True)
        path = folder / clip.speaker / f"{number:04}.wav"
        listening.write_wav(path, clip.waveform, sample_rate)
    return folder


def read(folder: Path, args: argparse.Namespace) -> tuple[list, list, list, list]:
    """Waveforms, their files, their speakers' ids and the speakers' names, which may be none."""
    good, problems = audio.check_folder(folder)
    for file, problem in problems.items():
        print(f"left out: {file}: {problem}")
    kept = []
    for file in good:
        if args.speakers and file.parent == folder:
            print(f"left out: {file}: in no speaker's folder")
            continue
        try:
            waveform = audio.read(file, args.sample_rate, channels="mix")
        except ValueError as problem:  # such as no sample at this rate
            print(f"left out: {problem}")
            continue
        if len(waveform) < SAMPLES_A_CODE:
            print(f"left out: {file}: shorter than one code, {SAMPLES_A_CODE} samples")
        else:
            kept.append((waveform, file))
    if not kept:
        raise ValueError(f"{folder} holds no clip that can be used")
    waveforms, files = (list(column) for column in zip(*kept, strict=True))
    if not args.speakers:
        return waveforms, files, [0] * len(files), []
    who = [file.relative_to(folder).parts[0] for file in files]
    names = sorted(set(who))
    return waveforms, files, [names.index(name) for name in who], names


def check_enough(waveforms: list, speakers: list, names: list) -> None:
    """Raises `ValueError` where a speaker has too little sound to learn a voice from."""
    sound = np.bincount(speakers, [len(waveform) for waveform in waveforms], len(names))
    few = [name for name, samples in zip(names, sound, strict=True) if samples < LEAST_CROPS * CROP]
    if few:
        raise ValueError(
            f"too little sound of {', '.join(few)}: each speaker needs {LEAST_CROPS * CROP:,} "
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


def fit(
    model: keras.Model, train: tf.data.Dataset, held_out: dict | np.ndarray, rate: float, steps: int
) -> None:
    """Trains, and keeps the weights that were best on held-out data: little sound overfits."""
    each = min(steps, STEPS_PER_EPOCH)
    epochs = -(-steps // each)
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * each, alpha=0.01)
    # On CPUs the convolutions that XLA makes are slower than TensorFlow's.
    xla = "auto" if tf.config.list_physical_devices("GPU") else False
    model.compile(keras.optimizers.Adam(schedule, beta_2=0.99), jit_compile=xla)
    stop = keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True)
    model.fit(
        train,
        steps_per_epoch=each,
        epochs=epochs,
        validation_data=held_out,
        validation_batch_size=8,
        callbacks=[stop],
    )


def main() -> None:
    args = arguments()
    savedmodel = args.out / "savedmodel" / "1"
    if savedmodel.exists():
        raise ValueError(f"--out: {args.out} holds a finished run; name another folder")
    args.out.mkdir(parents=True, exist_ok=True)
    if args.folder is None:
        args.folder, args.speakers = recorded_speech(args.out / "sound", args.sample_rate), True
    waveforms, files, speakers, names = read(args.folder, args)
    if names:
        check_enough(waveforms, speakers, names)
    pieces, ids = cut(waveforms, speakers, CROP)
    if len(pieces) < 20:
        seconds = sum(map(len, waveforms)) / args.sample_rate
        raise ValueError(f"{args.folder} holds {seconds:.0f} s of sound: too little to learn from")
    held_out = np.random.default_rng(0).permutation(len(pieces)) < max(2, len(pieces) // 10)

    def named(x: np.ndarray, speaker: np.ndarray, *keys: str) -> dict | np.ndarray:
        """What the models take: with speakers a dict."""
        return dict(zip(keys, (x, speaker), strict=True)) if names else x

    keras.utils.set_random_seed(0)
    sizes = {"hidden": args.hidden, "finest_hidden": 16}
    rate = args.sample_rate if args.speakers else None  # whose voices have a pitch to follow
    vqvae = AudioVQVAE(
        args.sample_rate,
        args.num_codes,
        downsampling=SAMPLES_A_CODE,
        speaker_names=names or None,
        decoder=ParallelDecoder(STRIDES, dilations=(1, 3), sample_rate=rate, **sizes),
        **sizes,
    )
    train = audio.from_arrays(
        list(pieces[~held_out]),
        CROP,
        8,
        speakers=ids[~held_out] if names else None,
        seed=0,
        repeat=True,
    )
    unseen = named(pieces[held_out], ids[held_out], "waveform", "speaker")
    fit(vqvae, train, unseen, 1e-3, args.steps)
    vqvae.save(args.out / "vqvae.keras")

    codes = [vqvae.encode(waveform[None])[0] for waveform in waveforms]
    tokens = {str(number): one for number, one in enumerate(codes)}
    np.savez_compressed(args.out / "tokens.npz", files=[str(f) for f in files], **tokens)

    # Sequences are cut anywhere, and so the prior's sound begins anywhere.
    prior = WaveNet(
        vqvae.num_codes,
        len(names) or None,
        channels=args.hidden // 2,
        skip_channels=args.hidden,
        dilations=(1, 2, 4, 8, 16, 32) * 2,
        burn_in=0,
    )
    sequences = vqvae.encode(pieces)
    rows = named(sequences[~held_out], ids[~held_out], "codes", "condition")
    dataset = tf.data.Dataset.from_tensor_slices(rows).shuffle(len(pieces), seed=0).repeat()
    unseen = named(sequences[held_out], ids[held_out], "codes", "condition")
    fit(prior, dataset.batch(8), unseen, 2e-3, args.steps)
    prior.save(args.out / "prior.keras")

    shown = np.linspace(0, held_out.sum() - 1, 6).astype(int)
    sound, voices = pieces[held_out][shown], ids[held_out][shown] if names else None
    columns = {"held out": sound, "reconstructed": vqvae.reconstruct(sound, voices)}
    for speaker, name in enumerate(names):
        columns[f"as {name}"] = vqvae.convert(sound, speaker)
    drawn = prior.sample(len(shown), voices, length=CODES, temperature=0.9, seed=0)
    columns["new"] = vqvae.decode(drawn, voices)
    rows = [names[v] for v in voices] if names else [f"piece {n + 1}" for n in shown]
    title = f"{args.folder.name}: sound of {vqvae.bits_per_second:,.0f} bits a second"
    page = listening.write_page(
        args.out / "listening", args.sample_rate, columns, rows, title=title
    )

    export_savedmodel(vqvae, savedmodel, prior=prior)
    print(f"{len(waveforms)} files; results are in {args.out}; listen to {page}")


if __name__ == "__main__":
    main()
