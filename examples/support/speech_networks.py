"""The networks of examples/speaker_conversion.py, and how each is trained.

Nothing here needs TensorFlow: examples/train_on_jax.py trains them on JAX alone.
"""

import dataclasses
import math
from collections.abc import Callable

import keras

from keras_vqvae import (
    AudioVQVAE,
    ParallelDecoder,
    SpectrogramEncoder,
    WaveNet,
    WaveNetDecoder,
)

# Of a parallel decoder, by samples a code.
STRIDES = {64: (4, 4, 4), 160: (5, 4, 4, 2), 320: (5, 4, 4, 4)}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A network, and how it is trained."""

    make: Callable[[list[str], int], keras.Model]
    crop: int
    batch_size: int
    steps: int
    rate: float
    beta_2: float = 0.999


@dataclasses.dataclass(frozen=True)
class Preset:
    """Networks, the sound that they see, and what is measured."""

    sample_rate: int
    downsampling: int
    recipes: dict[str, Recipe]  # by "wavenet", "parallel", "unconditional", "prior"
    shown_seconds: float
    judged: bool = False
    speakers: str | None = None  # of `data.debian_speech`, with commas; None for all


# Networks: of the speakers, and the samples a code.

DILATIONS_8K = tuple(2**i for i in range(9)) * 2


def wavenet_8k(speakers: list[str], downsampling: int) -> AudioVQVAE:
    decoder = WaveNetDecoder(downsampling, channels=32, skip_channels=64, dilations=DILATIONS_8K)
    options = {"hidden": 64, "finest_hidden": 32, "downsampling": downsampling}
    return AudioVQVAE(8000, speaker_names=speakers, decoder=decoder, **options)


def unconditional_8k(speakers: list[str], _: int) -> WaveNet:
    # Without codes, but told who speaks: the decoder is, too.
    return WaveNet(256, len(speakers), channels=32, skip_channels=64, dilations=DILATIONS_8K)


def parallel(sample_rate: int, hidden: int) -> Callable[[list[str], int], AudioVQVAE]:
    def make(speakers: list[str], downsampling: int) -> AudioVQVAE:
        sizes = {"hidden": hidden, "finest_hidden": 16}
        voices = {"sample_rate": sample_rate, "seed": 1}
        decoder = ParallelDecoder(STRIDES[downsampling], dilations=(1, 3), **voices, **sizes)
        options = {"downsampling": downsampling, **sizes}
        return AudioVQVAE(sample_rate, speaker_names=speakers, decoder=decoder, **options)

    return make


def disguised_16k(speakers: list[str], downsampling: int) -> AudioVQVAE:
    # Disguised voices: of codes made of them the decoder cannot tell who speaks, and goes by the
    # speaker that it is told.
    disguise = {"window": 320, "bands": 32, "warp": 0.26, "colour": 0.54}
    hop = math.gcd(160, downsampling)
    encoder = SpectrogramEncoder(64, 16000, downsampling, hop=hop, **disguise, seed=0)
    sizes = {"finest_hidden": 16, "dilations": (1, 3), "sample_rate": 16000, "seed": 1}
    decoder = ParallelDecoder(STRIDES[downsampling], 256, **sizes)
    options = {"downsampling": downsampling, "encoder": encoder, "decoder": decoder}
    return AudioVQVAE(16000, speaker_names=speakers, **options)


def paper_wavenet(speakers: list[str], downsampling: int) -> AudioVQVAE:
    # The paper has 6 strided convolutions of window 4 and 768 channels, and 512 codes. It does not
    # say how large the decoder is, nor crop, batch, learning rate and steps for speech: those of
    # the decoder are a WaveNet's (2016), the steps those of its pictures.
    decoder = WaveNetDecoder(downsampling, channels=256, skip_channels=256)
    options = {"hidden": 768, "finest_hidden": None, "downsampling": downsampling}
    return AudioVQVAE(16000, speaker_names=speakers, decoder=decoder, **options)


def prior(channels: int) -> Callable[[list[str], int], WaveNet]:
    def make(speakers: list[str], _: int) -> WaveNet:
        # What it sees begins where sampling begins: nothing is left out.
        options = {"channels": channels, "skip_channels": 2 * channels, "burn_in": 0}
        return WaveNet(512, len(speakers), dilations=(1, 2, 4, 8, 16, 32) * 2, **options)

    return make


# Of `data.debian_speech`, all but june: a third of conversions into her voice are heard as
# ivrvoice.
SIX = "msu_nsh,ivrvoice,allison,carlo,fillets_cs_m,fillets_cs_v"

# A WaveNet's crops are a receptive field, which the loss leaves out, and what it counts. Many small
# steps learn faster than few large ones.
PRESETS = {
    "tiny": Preset(
        8000,
        64,
        {
            "wavenet": Recipe(wavenet_8k, 1024 + 4096, 2, 1500, 2e-3),
            "parallel": Recipe(parallel(8000, 128), 8000, 8, 950, 1e-3, 0.99),
            "unconditional": Recipe(unconditional_8k, 1024 + 4096, 2, 1500, 2e-3),
            "prior": Recipe(prior(64), 64 * 128, 8, 400, 2e-3),
        },
        shown_seconds=1.6,
    ),
    "small": Preset(
        16000,
        160,
        {
            "parallel": Recipe(disguised_16k, 8000, 4, 75_000, 1e-3, 0.99),
            "prior": Recipe(prior(128), 160 * 256, 8, 6000, 1e-3),
        },
        shown_seconds=2.0,
        judged=True,
        speakers=SIX,
    ),
    "paper": Preset(
        16000,
        64,
        {
            "wavenet": Recipe(paper_wavenet, 3072 + 7680, 8, 250_000, 2e-4),
            "prior": Recipe(prior(256), 64 * 512, 8, 50_000, 1e-3),
        },
        shown_seconds=1.6,
        judged=True,
        speakers=SIX,
    ),
}


def compiled(
    model: keras.Model, recipe: Recipe, steps: int, jit_compile: bool | str
) -> keras.Model:
    """The model, to be trained as the recipe says in so many steps."""
    rate = keras.optimizers.schedules.CosineDecay(recipe.rate, steps, alpha=0.01)
    optimizer = keras.optimizers.Adam(rate, beta_2=recipe.beta_2)
    model.compile(optimizer, jit_compile=jit_compile)
    return model
