"""Makes the golden checkpoints again: `python -m tests.golden.make`.

Only for a change that is meant to change numbers: say which and why in the changelog, since
checkpoints that people have trained will change with it. Every argument is given, so that a new
default changes nothing here.
"""

from pathlib import Path

import keras
import numpy as np

from keras_vqvae import (
    AudioVQVAE,
    Gaussian,
    ImageVQVAE,
    ParallelDecoder,
    PixelCNN,
    VectorQuantizer,
    WaveNetDecoder,
    sampling,
)
from tests.checks import to_numpy

FOLDER = Path(__file__).parent
SEED = 2  # another one where `main` finds that two codes are nearly as near


def quantizer() -> VectorQuantizer:
    # No expiry: which rows restart codes is decided by the backend's random numbers.
    return VectorQuantizer(
        8, 4, codebook="ema", commitment=0.25, decay=0.9, expiry=0.0, epsilon=1e-5, seed=0
    )


def pictures() -> np.ndarray:
    """Smooth pictures of many colours, so that codes differ."""
    y, x, c, n = np.meshgrid(*map(np.arange, (8, 12, 3, 6)), indexing="ij")
    waves = np.sin(y * (n + 1) / 5 + c) * np.cos(x * (n + 2) / 7 + 2 * c)
    return np.round(127.5 * (waves + 1)).astype("uint8").transpose(3, 0, 1, 2)


def margin(z: np.ndarray, codebook: np.ndarray) -> float:
    """How much nearer the nearest code is than the next, relatively: rounding must not decide."""
    distances = np.sort(((z.reshape(-1, 1, 4) - codebook) ** 2).sum(-1), axis=1)
    return float(((distances[:, 1] - distances[:, 0]) / distances[:, 1]).min())


def numbers(model: keras.Model, layer: VectorQuantizer, images: np.ndarray, z: np.ndarray) -> dict:
    """What is compared. Trains `layer` by one step."""
    outputs = to_numpy(model(images))
    found = {
        "image_outputs": outputs["outputs"],
        "image_codes": outputs["codes"],
        "image_quantizer_loss": outputs["quantizer_loss"],
        "image_loss": to_numpy(model.compute_loss(images, None, model(images))),
        "image_reconstructed": model.reconstruct(images),
    }
    quantized, codes, loss = layer(z, return_info=True)
    found |= {"quantized": quantized, "codes": codes, "loss": loss}
    layer(z, training=True)
    found |= {f"trained_{w.name}": w for w in layer.weights}
    return {name: to_numpy(value) if name != "image_reconstructed" else value
            for name, value in found.items()}  # fmt: skip


def prior() -> PixelCNN:
    return PixelCNN((3, 5), 6, num_classes=3, hidden=8, num_layers=3, kernel_size=3)


def grids() -> dict:
    """Codes that the class and the codes before have a part in."""
    random = np.random.default_rng(SEED)
    labels = np.arange(12, dtype="int32") % 3
    steps = random.integers(0, 2, (12, 3, 5)) + labels[:, None, None]
    codes = (np.cumsum(steps, -1) + np.arange(3)[:, None]) % 6
    return {"codes": codes.astype("int32"), "condition": labels}


def prior_numbers(model: PixelCNN, x: dict) -> dict:
    """Of the prior; the samples are drawn from given numbers, the same on all backends."""
    u = np.random.default_rng(SEED).random((4, 3, 5)).astype("float32")
    known = np.zeros((4, 3, 5), "int32")
    options = sampling.Options(np.float32(0.8), np.int32(4), np.float32(0.95))
    cache = model.initial_cache(4, np.arange(4, dtype="int32") % 3)
    rows = [known[:, 0]]
    for row in range(3):
        given = sampling.Positions(u[:, row], known[:, row], known[:, row] > 0)
        cache, codes = sampling.sample_row(model, cache, rows[-1], np.int32(row), given, options)
        rows.append(to_numpy(codes))
    return {
        "prior_logits": to_numpy(model(x)),
        "prior_log_prob": model.log_prob(x),
        "prior_samples": np.stack(rows[1:], 1),
    }


SOUND = ("wavenet", "parallel")


def sound(decoder: str) -> AudioVQVAE:
    made = WaveNetDecoder(8, channels=6, skip_channels=8, kernel_size=2, dilations=(1, 2, 4))
    if decoder == "parallel":
        made = ParallelDecoder((4, 2), 8, finest_hidden=6, dilations=(1, 3), causal=False)
    return AudioVQVAE(
        8000, downsampling=8, num_speakers=2, speaker_dim=4, decoder=made, quantizer=quantizer(),
        hidden=8, finest_hidden=4, residual_blocks=1, causal=False, burn_in=None,
    )  # fmt: skip


def tones() -> dict:
    pitch = np.linspace(0.02, 0.2, 6)[:, None]
    waves = 0.6 * np.sin(2 * np.pi * pitch * np.arange(96))
    return {"waveform": waves.astype("float32"), "speaker": np.arange(6, dtype="int32") % 2}


def sound_numbers(model: AudioVQVAE, x: dict) -> dict:
    """What is compared; no drawing, whose numbers backends make differently."""
    outputs = to_numpy(model(x))
    outputs["outputs"] = outputs["outputs"][:, 1::16]  # some will do, of 256 numbers a sample
    return {**outputs, "latents": to_numpy(model.latents(x)),
            "reconstruction": to_numpy(model.compute_loss(x, None, model(x)))}  # fmt: skip


def make_sound() -> None:
    """Writes the checkpoints of sound, and their numbers."""
    x = tones()
    for name in SOUND:
        keras.utils.set_random_seed(SEED)
        trained, model = sound(name), sound(name)
        trained.compile(optimizer=keras.optimizers.Adam(1e-2))
        trained.fit(x, batch_size=6, epochs=60, verbose=0)
        trained.adapt(x)
        model.set_weights(trained.get_weights())
        least = margin(to_numpy(model.latents(x)), to_numpy(model.quantizer.embeddings))
        assert least > 1e-3, f"two codes are nearly as near: {least}"
        model.save(FOLDER / f"audio_{name}.keras")
        np.savez_compressed(FOLDER / f"audio_{name}.npz", **sound_numbers(model, x))


def make_prior() -> None:
    """Writes the prior's checkpoint and numbers."""
    keras.utils.set_random_seed(SEED)
    x, trained, model = grids(), prior(), prior()
    trained.compile(optimizer=keras.optimizers.Adam(1e-2))
    trained.fit(x, batch_size=12, epochs=20, verbose=0)
    model.set_weights(trained.get_weights())  # stored without an optimizer
    model.save(FOLDER / "pixelcnn.keras")
    np.savez_compressed(FOLDER / "prior_numbers.npz", **x, **prior_numbers(model, x))


def main() -> None:
    make_prior()
    make_sound()
    keras.utils.set_random_seed(SEED)
    images = pictures()
    options = {"downsampling": 4, "hidden": 8, "residual_hidden": 4, "residual_blocks": 1}
    trained, model = (
        ImageVQVAE((8, 12, 3), quantizer=quantizer(), likelihood=Gaussian(0.22, 256), **options)
        for _ in range(2)
    )
    # Some training, for numbers of the size that they have in use; stored without an optimizer.
    trained.compile(optimizer=keras.optimizers.Adam(1e-2))
    trained.fit(images, batch_size=len(images), epochs=100, verbose=0)
    trained.adapt(images)
    model.set_weights(trained.get_weights())
    layer = quantizer()
    alone = keras.Sequential([keras.Input((4,)), layer])
    z = np.random.default_rng(SEED).normal(size=(40, 4)).astype("float32")
    layer.adapt(z, iterations=3)
    for rows, codebook in ((model.latents(images), model.quantizer), (z, layer)):
        least = margin(to_numpy(rows), to_numpy(codebook.embeddings))
        assert least > 1e-2, f"two codes are nearly as near: {least}"
    model.save(FOLDER / "image_vqvae.keras")
    alone.save(FOLDER / "vector_quantizer.keras")
    found = numbers(model, layer, images, z)
    np.savez_compressed(FOLDER / "numbers.npz", images=images, z=z, **found)


if __name__ == "__main__":
    main()
