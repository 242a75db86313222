"""What codes of speech know of phones: van den Oord et al. 2017, section 4.3, at several rates.

    python examples/phoneme_study.py                   # both sets, 25, 50 and 100 codes a second

Small VQ-VAEs learn to reproduce speech; nobody tells them of phones. Then each code is mapped to
the phone that it meets most often in one half of the held-out clips, and the other half says how
often that is right, beside always saying the most frequent phone. (The paper: 49.3 % and 7.2 %, a
ratio of 6.8, with 128 codes at 25 a second.) The sets are recorded Russian sentences of one speaker
(`msu_nsh`), and synthetic English of four voices that say the same sentences (`flite`). The rows
`k-means` are the same study of log-mel frames, without any learning but k-means.

Each model leaves a file in runs/phoneme_study and is skipped when that is there: run it again to
resume, or with further rates. The results are in metrics.json.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

from support.command import begin, example_parser, local_path, positive

# Strides of the decoder, by codes a second; their product is the samples a code stands for.
STRIDES = {25: (8, 5, 4, 4), 50: (5, 4, 4, 4), 100: (5, 4, 4, 2)}


def arguments() -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument(
        "--out", type=local_path, default=Path("runs/phoneme_study"), help="folder of the run"
    )
    parser.add_argument(
        "--data", choices=("msu_nsh", "flite", "both"), default="both", help="recorded, synthetic"
    )
    parser.add_argument(
        "--rates",
        type=int,
        nargs="+",
        choices=STRIDES,
        default=list(STRIDES),
        help="codes a second",
    )
    parser.add_argument("--minutes", type=float, default=10, help="of training, each model")
    parser.add_argument("--codes", type=positive, default=512, help="size of the codebook")
    parser.add_argument(
        "--encoder",
        choices=("spectrogram", "waveform"),
        default="spectrogram",
        help="what it begins with; the paper's is of the waveform",
    )
    parser.add_argument("--batch", type=positive, default=8, help="crops in a batch")
    parser.add_argument("--crop", type=positive, default=16000, help="samples")
    parser.add_argument("--epoch", type=positive, default=20, help="steps in a line of progress")
    args = parser.parse_args()
    if args.minutes <= 0 or args.crop % 640:
        parser.error("--minutes must be positive, and --crop a multiple of 640 samples")
    return args


if __name__ == "__main__":
    begin(arguments)  # before the imports that take seconds

import keras
import numpy as np
from support.figures import written
from support.judges import SILENCE
from support.phones import code_phone_study, phones_of_codes
from support.runs import open_run, write_json

from keras_vqvae import AudioVQVAE, SpectrogramEncoder, VectorQuantizer, spectral
from keras_vqvae.data import audio, debian_speech, flite
from keras_vqvae.data.audio_corpus import Clip, Corpus
from keras_vqvae.layers import ParallelDecoder

SAMPLE_RATE = 16000
PAPER = "The paper, 25 codes a second: accuracy 49.3 %, always the same phone 7.2 %, ratio 6.8"
_HOP = 160  # of the spectrogram: 10 ms


class TimedCosine(keras.callbacks.Callback):
    """A learning rate that falls to nothing in a span of time, whatever a step takes.

    Args:
        rate: at the beginning.
        minutes: until the end of training. They begin after the first step, which compiles.
    """

    def __init__(self, rate: float, minutes: float) -> None:
        super().__init__()
        self.rate = rate
        self.seconds = 60 * minutes
        self.steps = 0
        self._begin: float | None = None

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.steps += 1
        self._begin = self._begin or time.perf_counter()
        done = min(1.0, (time.perf_counter() - self._begin) / self.seconds)
        self.model.optimizer.learning_rate = 0.5 * self.rate * (1 + math.cos(math.pi * done))
        if done == 1.0:
            self.model.stop_training = True


def corpora(name: str) -> tuple[Corpus, list[Clip]]:
    """What is trained on, and the held-out clips; every second of these tests the map."""
    whole = debian_speech.load(SAMPLE_RATE, ["msu_nsh"]) if name == "msu_nsh" else flite.load()
    held_out = whole.part("validation").clips + whole.part("test").clips
    return whole.part("train"), in_halves(held_out)


def in_halves(clips: Sequence[Clip]) -> list[Clip]:
    """Clips in an order in which no sentence, whoever says it, is in both halves."""
    names = sorted({clip.name for clip in clips})
    clips = sorted(clips, key=lambda clip: clip.name)  # where one is odd, the last is left out
    halves = [[c for c in clips if c.name in set(names[first::2])] for first in range(2)]
    return [clip for pair in zip(*halves, strict=False) for clip in pair]


def make(args: argparse.Namespace, rate: int, num_speakers: int) -> AudioVQVAE:
    downsampling = SAMPLE_RATE // rate
    encoder = None  # strided convolutions of the waveform
    if args.encoder == "spectrogram":
        encoder = SpectrogramEncoder(64, SAMPLE_RATE, downsampling, hop=_HOP)
    decoder = ParallelDecoder(STRIDES[rate], 256, finest_hidden=16, dilations=(1, 3))
    return AudioVQVAE(
        SAMPLE_RATE,
        args.codes,
        downsampling=downsampling,
        num_speakers=num_speakers,
        encoder=encoder,
        decoder=decoder,
        hidden=256,
        finest_hidden=16,
    )


def train(args: argparse.Namespace, rate: int, corpus: Corpus) -> tuple[AudioVQVAE, dict]:
    """A model of `rate` codes a second, and what its training took."""
    vqvae = make(args, rate, len(corpus.speaker_names))
    vqvae.compile(keras.optimizers.Adam(1e-3, beta_2=0.99))
    batches = audio.from_arrays(
        corpus.samples, args.crop, args.batch, speakers=corpus.speaker_ids, seed=0, repeat=True
    )
    clock = TimedCosine(1e-3, args.minutes)
    start = time.perf_counter()
    vqvae.fit(batches, steps_per_epoch=args.epoch, epochs=1_000_000, callbacks=[clock])
    return vqvae, {"seconds": time.perf_counter() - start, "steps": clock.steps}


def encode(vqvae: AudioVQVAE, clips: Sequence[Clip], show: bool = True) -> list[np.ndarray]:
    """Codes of each clip."""
    bar = keras.utils.Progbar(len(clips), unit_name="clip", verbose=int(show))
    codes = []
    for clip in clips:
        codes.append(vqvae.encode(clip.waveform[None])[0])
        bar.add(1)
    return codes


def mel_frames(waveform: np.ndarray, samples_per_code: int) -> np.ndarray:
    """Log-mel `(codes, 80)`: means over the 10 ms frames in what each code stands for."""
    codes = -(-len(waveform) // samples_per_code)
    # Frames are centred at multiples of the hop, here in the middles of 10 ms.
    hop = math.gcd(_HOP, samples_per_code)
    padded = np.pad(waveform, (0, codes * samples_per_code - len(waveform) + hop))[hop // 2 :]
    frames = spectral.log_mel(padded[None], SAMPLE_RATE, 4 * hop, hop, min(80, hop // 2))
    each = samples_per_code // hop
    frames = keras.ops.convert_to_numpy(frames)[0, : codes * each]
    return frames.reshape(codes, each, -1).mean(1)


def kmeans(
    num_codes: int, samples_per_code: int, learns: Sequence[Clip], clips: Sequence[Clip]
) -> list[np.ndarray]:
    """Codes of `clips` by k-means of log-mel frames of the clips that it `learns` from."""
    frames = np.concatenate([mel_frames(clip.waveform, samples_per_code) for clip in learns])
    quantizer = VectorQuantizer(num_codes, frames.shape[1], seed=0)
    quantizer.adapt(frames, iterations=20)
    return [
        keras.ops.convert_to_numpy(quantizer.encode(mel_frames(clip.waveform, samples_per_code)))
        for clip in clips
    ]


def study(codes: Sequence[np.ndarray], clips: Sequence[Clip], samples_per_code: int) -> dict:
    """Figures of the codes of clips, over all positions and over those that are no silence."""
    phones = [
        phones_of_codes(clip.phones, len(c), samples_per_code, SAMPLE_RATE)
        for clip, c in zip(clips, codes, strict=True)
    ]
    used = len(np.unique(np.concatenate(codes)))
    return {
        "codes_used": used,
        "all": code_phone_study(codes, phones),
        "speech": code_phone_study(codes, phones, leave_out=SILENCE),
    }


def table(metrics: dict) -> str:
    part = "right  base   ratio   bits  "
    head = f"{'':29}| {'all positions':29}| {'without silence':29}|\n"
    head += f"{'data':9}codes/s  {'codes by':12} | {part} | {part} | min"
    lines = [head]
    for row in metrics.values():
        cells = [f"{row['data']:9}{row['rate']:7}  {row['by']:12}"]
        for part in ("all", "speech"):
            x = row[part]
            cells.append(
                f"{100 * x['accuracy']:5.1f}% {100 * x['baseline']:5.1f}% {written(x['ratio']):>6} "
                f"{x['corrected']:6.2f} "
            )
        minutes = row.get("seconds")
        cells.append("" if minutes is None else f"{minutes / 60:4.1f}")
        lines.append(" | ".join(cells))
    return "\n".join(lines)


def row_of_model(args: argparse.Namespace, data: str, rate: int) -> dict:
    """Trains, unless that was done, and studies."""
    corpus, clips = corpora(data)
    path = args.out / f"{data}-{rate}-{args.encoder}.keras"
    took = path.with_suffix(".training.json")
    if not path.exists():
        keras.utils.set_random_seed(0)
        print(f"\n{data}: training at {rate} codes a second for {args.minutes:g} minutes")
        vqvae, times = train(args, rate, corpus)
        write_json(took, times)
        unfinished = path.with_name(f"unfinished-{path.name}")
        vqvae.save(unfinished)
        unfinished.replace(path)
    vqvae = keras.models.load_model(path)
    codes = encode(vqvae, clips)
    return {
        "data": data,
        "rate": rate,
        "by": args.encoder,
        **json.loads(took.read_text()),
        "parameters": vqvae.count_params(),
        "bits_per_second": vqvae.bits_per_second,
        **study(codes, clips, vqvae.downsampling),
    }


def row_of_kmeans(args: argparse.Namespace, data: str, rate: int) -> dict:
    corpus, clips = corpora(data)
    print(f"{data}: k-means of log-mel frames, {rate} a second")
    codes = kmeans(args.codes, SAMPLE_RATE // rate, corpus.clips, clips)
    return {
        "data": data, "rate": rate, "by": "k-means", **study(codes, clips, SAMPLE_RATE // rate)
    }  # fmt: skip


def main() -> None:
    args = arguments()
    # Further sets, rates and encoders go into the same folder.
    stays = {k: v for k, v in vars(args).items() if k not in ("data", "rates", "encoder")}
    args.out = open_run(args.out, stays)
    path = args.out / "metrics.json"
    metrics = json.loads(path.read_text()) if path.exists() else {}
    for data in ("msu_nsh", "flite") if args.data == "both" else (args.data,):
        for rate in args.rates:
            for by, row in ((args.encoder, row_of_model), ("k-means", row_of_kmeans)):
                key = f"{data} {rate} {by}"
                if key not in metrics:
                    metrics[key] = row(args, data, rate)
                    write_json(path, metrics)
    print(f"\n{table(metrics)}\nbits: mutual information of code and phone, corrected\n{PAPER}")


if __name__ == "__main__":
    main()
