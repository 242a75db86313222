"""Your own sound: a folder in; tokens, a prior, new sound and a SavedModel out.

    python examples/your_own_sound.py recordings/ --out runs/recordings
    python examples/your_own_sound.py recordings/ --speakers    # one sub-folder a speaker
    python examples/your_own_sound.py                # tries it on speech from Debian's packages

Takes WAV, FLAC, Ogg and MP3 files, best half an hour or more of one kind. The defaults are for two
CPU cores and a first impression; on a GPU raise --hidden and --steps, and --sample-rate to 16000.
A tenth of the sound is held out; training ends when it no longer gains on it, and the best weights
are kept.
The folder of the run then holds

- `tokens.npz`: for each file its codes, int32, under the number that it has in `files`;
- `listening/listening.html`: held-out sound, what its codes keep of it, and new sound sampled
  from the prior, to hear and to see, with the WAV files beside it; figures and curves;
- `vqvae.keras`, `prior.keras`: the models, for `keras.saving.load_model`;
- `savedmodel/1`: both, for TensorFlow Serving: encode, decode, reconstruct, sample, log_prob, and
  encode and decode chunk by chunk; with speakers convert.
"""

import argparse
from pathlib import Path

from support.command import begin, example_parser, local_path, positive

LEAST_SAMPLE_RATE = 6400  # to follow a pitch at


def arguments() -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument("folder", type=local_path, nargs="?", help="of WAV, FLAC, Ogg or MP3 files")
    parser.add_argument(
        "--out", type=local_path, default=Path("runs/your_own_sound"), help="folder of the run"
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
from support import fitting, generation, listening, own_sound, runs

from keras_vqvae import AudioVQVAE, ParallelDecoder, WaveNet, export_savedmodel
from keras_vqvae.data import audio

STRIDES = (4, 4, 4)  # of the decoder; their product is how many samples a code stands for
SAMPLES_A_CODE = 64
# A VQ-VAE learns from crops of so many samples, a prior from so many codes.
CROP, CODES = 128 * SAMPLES_A_CODE, 128
LEAST_CROPS = 5  # of each speaker


def main() -> None:
    args = arguments()
    savedmodel = args.out / "savedmodel" / "1"
    if savedmodel.exists():
        raise ValueError(f"--out: {args.out} holds a finished run; name another folder")
    args.out.mkdir(parents=True, exist_ok=True)
    runs.note_command(args.out)
    if args.folder is None:
        args.folder = own_sound.recorded_speech(args.out / "sound", args.sample_rate)
        args.speakers = True
    waveforms, files, speakers, names = own_sound.read(
        args.folder, args.sample_rate, SAMPLES_A_CODE, args.speakers
    )
    if names:
        own_sound.check_enough(waveforms, speakers, names, LEAST_CROPS * CROP)
    pieces, ids = own_sound.cut(waveforms, speakers, CROP)
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
    # On CPUs the convolutions that XLA makes are slower than TensorFlow's.
    xla = "auto" if tf.config.list_physical_devices("GPU") else False
    vqvae.compile(fitting.adam(1e-3, args.steps, beta_2=0.99), jit_compile=xla)
    each = fitting.fit(vqvae, train, unseen, args.steps, args.out / "vqvae.csv")
    figures = vqvae.evaluate(unseen, batch_size=8, return_dict=True, verbose=0)
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
    prior.compile(fitting.adam(2e-3, args.steps, beta_2=0.99), jit_compile=xla)
    fitting.fit(prior, dataset.batch(8), unseen, args.steps, args.out / "prior.csv")
    bits = {
        "uniform": float(np.log2(vqvae.num_codes)),
        "unigram": generation.unigram_bits(
            sequences[~held_out], sequences[held_out], vqvae.num_codes
        ),
        "WaveNet": prior.evaluate(unseen, batch_size=8, return_dict=True, verbose=0)["loss"],
    }
    runs.write_json(args.out / "metrics.json", {"codes": figures, "bits_per_code": bits})
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
    text = [
        f"{len(waveforms)} files, cut into {len(pieces)} pieces, {held_out.sum()} of them held out."
    ]
    found = listening.write_page(
        args.out / "listening", args.sample_rate, columns, rows, title=title, text=text,
        commands=runs.command_of(args.out), more=own_sound.report(args.out, figures, bits, each),
    )  # fmt: skip

    export_savedmodel(vqvae, savedmodel, prior=prior)
    print(f"bits a code, held out: {bits['WaveNet']:.2f} (unigram {bits['unigram']:.2f})")
    print(f"{len(waveforms)} files; results are in {args.out}; listen to {found}")


if __name__ == "__main__":
    main()
