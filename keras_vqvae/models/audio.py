"""The VQ-VAE of sound."""

import inspect
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae import backend, functional, sampling, spectral
from keras_vqvae.backend import Tensor
from keras_vqvae.layers.parallel_decoder import ParallelDecoder, decoder_strides
from keras_vqvae.layers.residual import ConvEncoder
from keras_vqvae.layers.vector_quantizer import VectorQuantizer
from keras_vqvae.models import sizes
from keras_vqvae.models.autoencoder import (
    Autoencoder,
    channels_are_last,
    check_quantizer,
    in_random_order,
)
from keras_vqvae.models.autoregressive import checked_seed, checked_temperature
from keras_vqvae.models.base import (
    array_of,
    check_codes,
    is_batch_of,
    positive_integer,
    spec_of,
)
from keras_vqvae.models.progress import Progress
from keras_vqvae.models.streaming import Streaming
from keras_vqvae.models.wavenet import (
    WaveNetDecoder,
    after,
    check_burn_in,
    check_length,
    checked_burn_in,
    masked_mean,
    valid,
)

# A call of a compiled loop draws so many samples: for progress, and interruption.
SAMPLES_A_CALL = 4096


@keras.saving.register_keras_serializable(package="keras_vqvae")
class AudioVQVAE(Autoencoder):
    """Vector-quantised variational autoencoder of sound.

    van den Oord et al. 2017, section 4.3: strided convolutions from the waveform to codes, and a
    WaveNet conditioned on codes and speaker back. With another speaker it converts voices.

    ```python
    vqvae = AudioVQVAE(sample_rate=16000, num_speakers=7)
    vqvae.compile("adam")
    vqvae.fit({"waveform": waveforms, "speaker": speakers})    # or a tf.data.Dataset of such
    codes = vqvae.encode(waveforms)                            # (n, samples / 64) int32
    other = vqvae.convert(waveforms, speaker=3)
    ```

    Waveforms are float32 `(batch, samples)` in [-1, 1], mono, of any length. The last code of one
    that is no multiple of `downsampling` stands for zeros too.

    Args:
        sample_rate: samples a second.
        num_codes: K, the size of the codebook.
        code_dim: D, the size of a code.
        downsampling: samples a code, a product of 2, 3, 5 and 7: 64, 128 and 640 are usual.
        num_speakers: number of speakers, or of other classes of sound; None for none.
        speaker_names: their names, in the order of their numbers, as a dataset's `speaker_names`;
            in place of `num_speakers`. Kept with the model, and taken wherever a speaker is asked
            for outside of training.
        decoder: "wavenet"; "parallel", strided transposed convolutions with a loss over spectra
            (`spectral.multi_scale_distance`), for speed; or a `WaveNetDecoder` or
            `ParallelDecoder`, or a layer of your own that is called as a `ParallelDecoder` is.
        encoder: a layer or model from `(batch, samples, 1)` to `(batch, samples / downsampling,
            code_dim)`; None for a `ConvEncoder` of rank 1.
        hidden: channels of encoder and parallel decoder at the rate of codes.
        finest_hidden: channels at the rate of samples; each stage has twice those of the finer
            one, up to `hidden`. None for `hidden` everywhere, as in the paper.
        residual_blocks: number of the encoder's residual blocks.
        causal: whether no code depends on samples after its own, and no sample on later codes; of
            networks that are given, too, as far as they say so by an attribute `context`. Sizes
            and residual blocks are of those that are not given.
        speaker_dim: size of the vectors of speakers.
        quantizer: another quantizer than `VectorQuantizer(num_codes, code_dim)`.
        commitment: beta of the paper.
        burn_in: samples at the beginning of each example that the loss of a WaveNet leaves out;
            None for the receptive field. Shorter examples do not count.

    `call` takes waveforms, or a dict of `waveform`, `speaker` (int32 `(batch,)`, where there are
    speakers) and, where examples are padded, `length` (int32 `(batch,)`, in samples). Whatever
    padding holds, networks see silence there, and it counts in no loss, no metric and not for the
    codebook (a quantizer of your own is called with `mask`, bool `(batch, codes)`). Only the last
    codes of a clip, as many as the networks' `context` after, are not quite the same with silence
    after them as at the end of an array. A speaker out of range in a dataset is an
    `InvalidArgumentError`, but on JAX goes unnoticed. It returns a dict: `outputs`, parameters
    `(batch, samples, num_outputs)` of the likelihood with a WaveNet, else waveforms; `codes`,
    int32 `(batch, samples / downsampling)`; `quantizer_loss`, `(batch,)`;
    and `pitch_loss`, `(batch,)`, of a decoder with a source of voices (`ParallelDecoder.follow`).

    Logs `loss = reconstruction_loss + quantizer_loss (+ pitch_loss)`, the first in nats a sample
    (a bit is 0.69) with a WaveNet, else the distance of spectra; and how codes are used. With a
    WaveNet an example counts by its samples that are neither padding nor left out, else all count
    alike.
    """

    _loss_cure = "Another distance of spectra is another decoder's"
    _pairs_cure = (
        'dataset.map(lambda waveform, speaker: {"waveform": waveform, "speaker": speaker})'
    )

    def __init__(
        self,
        sample_rate: int,
        num_codes: int = 512,
        code_dim: int = 64,
        *,
        downsampling: int = 64,
        num_speakers: int | None = None,
        speaker_names: Sequence[str] | None = None,
        decoder: Any = "wavenet",
        encoder: keras.layers.Layer | None = None,
        hidden: int = 256,
        finest_hidden: int | None = 64,
        residual_blocks: int = 2,
        causal: bool = False,
        speaker_dim: int = 64,
        quantizer: keras.layers.Layer | None = None,
        commitment: float = 0.25,
        burn_in: int | None = None,
        **kwargs: Any,
    ) -> None:
        if keras.config.floatx() not in ("float32", "float64"):
            raise ValueError(
                f"`keras.config.floatx()` must be float32 or float64, got {keras.config.floatx()}: "
                "Keras would round waveforms to it. Low precision is a dtype policy, "
                "keras.config.set_dtype_policy."
            )
        for name, value in {
            "code_dim": code_dim, "hidden": hidden, "speaker_dim": speaker_dim
        }.items():  # fmt: skip
            positive_integer(name, value)
        for name, part in {"quantizer": quantizer, "encoder": encoder}.items():
            if part is not None and not isinstance(part, keras.layers.Layer):
                raise ValueError(f"{name} must be a layer or None, got {part!r}")
        check_quantizer(quantizer, num_codes, code_dim, commitment)
        speaker_names = checked_names(speaker_names, num_speakers)
        if speaker_names is not None:
            num_speakers = len(speaker_names)
        if quantizer is not None:
            num_codes, code_dim = quantizer.num_codes, getattr(quantizer, "code_dim", code_dim)
        dtype = kwargs.get("dtype")
        encoder = encoder or ConvEncoder(
            1,
            code_dim,
            downsampling=downsampling,
            hidden=hidden,
            finest_hidden=finest_hidden,
            residual_blocks=residual_blocks,
            causal=causal,
            dtype=dtype,
            name="encoder",
        )
        wanted = f'decoder must be "wavenet", "parallel" or a layer, got {decoder!r}'
        if isinstance(decoder, str):
            if decoder not in ("wavenet", "parallel"):
                raise ValueError(wanted)
            decoder = (
                WaveNetDecoder(downsampling, dtype=dtype, name="decoder")
                if decoder == "wavenet"
                else ParallelDecoder(
                    decoder_strides(downsampling),
                    hidden,
                    finest_hidden=finest_hidden or hidden,
                    causal=causal,
                    dtype=dtype,
                    name="decoder",
                )
            )
        if not isinstance(decoder, keras.layers.Layer):
            raise ValueError(wanted)
        for name, part in {"encoder": encoder, "decoder": decoder}.items():
            rate = getattr(part, "sample_rate", None)
            if rate not in (None, sample_rate):
                raise ValueError(f"sample_rate={sample_rate}, but the {name}'s is {rate}")
            # A network that does not say how far it sees is taken at its word.
            if causal and getattr(part, "context", (0, 0))[1] > 0:
                raise ValueError(
                    f"causal=True, but the {name} sees what comes later: make it causal, or leave "
                    "causal out"
                )
        upsampling = getattr(decoder, "upsampling", downsampling)
        if upsampling != downsampling:
            raise ValueError(
                f"downsampling={downsampling}, but the decoder makes {upsampling} samples a code"
            )
        super().__init__(
            encoder,
            quantizer
            or VectorQuantizer(
                num_codes, code_dim, commitment=commitment, dtype=dtype, name="quantizer"
            ),
            decoder,
            **kwargs,
        )
        self.sample_rate = positive_integer("sample_rate", sample_rate)
        self.downsampling = downsampling
        self.num_speakers: Any = num_speakers
        self.speaker_names = speaker_names
        self.burn_in = checked_burn_in(burn_in)
        self._speakers = None
        if self.is_autoregressive:
            self._counted_loss = keras.metrics.Mean(name="counted_loss", dtype="float32")
        self._pitch_tracker: Any = None
        if self.has_source:
            self._pitch_tracker = keras.metrics.Mean(name="pitch_loss", dtype="float32")
        if num_speakers is not None:
            positive_integer("num_speakers", num_speakers)
            # Of small vectors a parallel decoder makes little at first, and looks for the voice in
            # the codes. A WaveNet is to look at the codes before anything else.
            start = "uniform" if self.is_autoregressive else keras.initializers.RandomNormal(0, 0.3)
            self._speakers = keras.layers.Embedding(
                num_speakers,
                speaker_dim,
                embeddings_initializer=start,
                dtype=dtype,
                name="speakers",
            )
        self._arguments = {
            "sample_rate": sample_rate,
            "downsampling": downsampling,
            "num_speakers": num_speakers,
            "speaker_names": speaker_names,
            "hidden": hidden,
            "finest_hidden": finest_hidden,
            "residual_blocks": residual_blocks,
            "causal": causal,
            "speaker_dim": speaker_dim,
            "burn_in": burn_in,
        }
        with channels_are_last(encoder, decoder):
            self._build_parts(code_dim)

    def _build_parts(self, code_dim: int) -> None:
        dtype = self.compute_dtype
        waveform = keras.KerasTensor((None, 4 * self.downsampling, 1), dtype)
        latents = self.encoder(waveform)
        if tuple(latents.shape[1:-1]) != (4,):
            raise ValueError(
                f"encoder must give one vector for {self.downsampling} samples (downsampling), "
                f"but of {4 * self.downsampling} samples it makes {tuple(latents.shape)}"
            )
        quantized = self.quantizer(latents)
        condition: Any = ()
        if self._speakers is not None:
            condition = (self._speakers(keras.KerasTensor((None,), "int32")),)
        if self.is_autoregressive:
            samples = keras.KerasTensor((None, 4 * self.downsampling), "float32")
            self.decoder(quantized, samples, *condition)
            self.built = True
            return
        try:
            decoded = self.decoder(quantized, *condition)
        except TypeError as error:
            if not condition:
                raise
            raise ValueError(
                "the decoder must take two tensors, the codes' vectors (batch, codes, code_dim) "
                "and the speakers' (batch, speaker_dim), where there are speakers"
            ) from error
        if tuple(decoded.shape[1:]) != (4 * self.downsampling, 1):
            raise ValueError(
                f"decoder must give shape (batch, {4 * self.downsampling}, 1) of 4 codes, got "
                f"{tuple(decoded.shape)}"
                + (": keras.layers.Reshape lets it be known" if None in decoded.shape[1:] else "")
            )
        self.built = True

    def build(self, input_shape: Any = None) -> None:
        """Nothing: it is built when it is made."""

    def _signature(self) -> Any:
        waveform = keras.layers.InputSpec(dtype="float32", shape=(None, None))
        if self.num_speakers is None:
            return waveform
        speaker = keras.layers.InputSpec(dtype="int32", shape=(None,))
        return {"waveform": waveform, "speaker": speaker}

    @property
    def is_autoregressive(self) -> bool:
        """Whether the decoder draws sample after sample, as a WaveNet does."""
        return isinstance(self.decoder, WaveNetDecoder)

    @property
    def has_source(self) -> bool:
        """Whether the decoder makes its sound of a `HarmonicSource`."""
        return getattr(self.decoder, "source", None) is not None

    @property
    def grid_shape(self) -> tuple:
        """Shape of an example's codes: any number."""
        return (None,)

    @property
    def bits_per_second(self) -> float:
        """Of the codes."""
        return float(np.log2(self.num_codes)) * self.sample_rate / self.downsampling

    @property
    def receptive_field(self) -> int:
        """Of a WaveNet decoder: how many samples before it one depends on."""
        if not self.is_autoregressive:
            raise ValueError("receptive_field is that of a WaveNet decoder; this one is parallel")
        return self.decoder.receptive_field

    @property
    def receptive_field_ms(self) -> float:
        """The receptive field in milliseconds."""
        return 1e3 * self.receptive_field / self.sample_rate

    def streaming(
        self,
        batch: int = 1,
        speaker: Any = None,
        seed: int | None = 0,
        temperature: float = 1.0,
        jit_compile: bool = False,
    ) -> Streaming:
        """Encoding and decoding chunk by chunk: see `Streaming`."""
        return Streaming(self, batch, speaker, seed, temperature, jit_compile)

    # What the model is given

    def check_data(self, x: Any) -> None:
        """Raises `ValueError` where `x` is no sound of this model."""
        form = '{"waveform": waveform, "speaker": speaker}' if self.num_speakers else "waveforms"
        if isinstance(x, dict):
            self._check_keys(x)
        elif self.num_speakers and not hasattr(x, "dtype"):
            raise ValueError(f"data must be {form}, got a {type(x).__name__}")
        parts = x if isinstance(x, dict) else {"waveform": x}
        self.check_waveform(parts["waveform"], parts.get("length"))
        if self.num_speakers and "speaker" not in parts:
            raise ValueError(f"speaker is missing: {self.name} takes {form}")
        if "speaker" in parts:
            self.check_speaker(parts["speaker"], parts["waveform"].shape[0])
        check_length(parts.get("length"), parts["waveform"].shape, self.downsampling)

    def _check_keys(self, x: dict) -> None:
        names = ["waveform", *(["speaker"] if self.num_speakers else []), "length"]
        if "waveform" not in x or not set(x) <= set(names):
            raise ValueError(
                f"a dict must have the keys {names}, length only where examples are padded; "
                f"got {sorted(map(str, x))}"
            )

    def check_waveform(self, waveform: Any, length: Any = None) -> None:
        """Raises `ValueError` where `waveform` is not float32 `(batch, samples)` in [-1, 1].

        What lies beyond `length` is padding, and may be anything.
        """
        if not hasattr(waveform, "dtype"):
            cure = "np.asarray(x, 'float32') makes one of lists of numbers"
            if isinstance(waveform, (str, bytes, os.PathLike)):
                cure = "data.audio.read makes one of a file, and data.audio.from_folder of many"
            elif isinstance(waveform, (list, tuple)) and any(hasattr(x, "shape") for x in waveform):
                cure = "data.audio.from_arrays makes batches of clips that differ in length"
            raise ValueError(
                f"waveform must be one float32 array or tensor, got a {type(waveform).__name__}: "
                f"{cure}"
            )
        dtype = keras.backend.standardize_dtype(waveform.dtype)
        if dtype not in ("float32", keras.config.floatx()):  # to which `fit` casts arrays
            cure = "divide 16-bit samples by 32768" if "int" in dtype else "cast them"
            raise ValueError(f"waveform must be float32 in [-1, 1], got {dtype}: {cure}")
        shape = tuple(waveform.shape)
        if len(shape) != 2:
            cure = ""
            if len(shape) == 1:
                cure = ": one clip is waveform[None]"
            elif len(shape) == 3:
                cure = ": one channel is waveform[..., 0], several are mixed by waveform.mean(-1)"
            raise ValueError(f"waveform must have shape (batch, samples), got {shape}{cure}")
        if shape[1] is not None and shape[1] < self.downsampling:
            raise ValueError(
                f"waveform of {shape[1]} samples is shorter than one code of {self.downsampling}"
            )
        values = backend.concrete(waveform)
        if values is not None and values.size:
            own = backend.concrete(length) if hasattr(length, "dtype") else None
            if own is not None and own.shape == shape[:1]:
                values = np.where(np.arange(shape[1]) < own[:, None], values, 0)
            greatest = float(np.max(np.abs(values)))  # NaN if one is
            if not np.isfinite(greatest):
                raise ValueError("waveform must be finite, got NaN or infinity")
            if greatest > 1.0:
                raise ValueError(f"waveform must be in [-1, 1], got {greatest:.3g}: scale it down")

    def check_speaker(self, speaker: Any, batch: int | None = None) -> None:
        """Raises `ValueError` where `speaker` is not `(batch,)` integers, speakers of the model."""
        kind = f"integers (batch,) in [0, {self.num_speakers})"
        dtype = getattr(speaker, "dtype", "object")
        dtype = getattr(dtype, "name", dtype)  # of text, which Keras knows not, too
        if "int" not in dtype or not is_batch_of(speaker, ()):
            what = f"{dtype} {speaker.shape}" if hasattr(speaker, "shape") else repr(speaker)[:200]
            raise ValueError(
                f"speaker must be {kind}, got {what} (a name's number is its place in a dataset's "
                "speaker_names)"
            )
        if None not in (batch, speaker.shape[0]) and speaker.shape[0] != batch:
            raise ValueError(f"speaker must be of the {batch} waveforms, got {speaker.shape[0]}")
        values = backend.concrete(speaker)
        if values is not None and values.size:
            low, high = int(values.min()), int(values.max())
            if low < 0 or high >= self.num_speakers:
                got = low if low == high else f"values from {low} to {high}"
                raise ValueError(f"speaker must be in [0, {self.num_speakers}), got {got}")

    def _check_input(self, caller: str, x: Any) -> None:
        super()._check_input(caller, x)
        self.check_facts(x)
        spec = spec_of(x)
        waveform = spec["waveform"] if isinstance(spec, dict) else spec
        if self.is_autoregressive and caller != "predict" and hasattr(waveform, "shape"):
            length = spec.get("length") if isinstance(spec, dict) else None
            check_burn_in(waveform.shape[-1], length, self._left_out, self.burn_in is None)

    def _check_rate(self, x: Any) -> None:
        rate = getattr(x, "sample_rate", self.sample_rate)
        if rate != self.sample_rate:
            raise ValueError(
                f"the dataset is of {rate} Hz, the model of sample_rate={self.sample_rate}"
            )

    def check_facts(self, x: Any) -> None:
        """Raises `ValueError` where a dataset of `data.audio` is of another rate or speakers."""
        self._check_rate(x)
        known, names = self.speaker_names, list(getattr(x, "speaker_names", ()))
        if known is not None and names != list(known[: len(names)]):
            raise ValueError(
                f"the dataset's speaker_names are {names}, the model's {list(known)}: numbers are "
                "of other speakers. Make the dataset with speakers=model.speaker_names, and "
                "from_arrays with the numbers model.speaker_names.index(name)"
            )

    @property
    def _left_out(self) -> int:
        return self.receptive_field if self.burn_in is None else self.burn_in

    # Training

    def _padded(self, waveform: Tensor) -> Tensor:
        """With zeros up to a whole number of codes."""
        missing = -ops.shape(waveform)[1] % self.downsampling
        return ops.pad(waveform, [[0, 0], [0, missing]])

    def _condition(self, speaker: Tensor | None) -> list:
        return [] if self._speakers is None else [self._speakers(ops.cast(speaker, "int32"))]

    def _codes_of_data(self, length: Tensor | None, codes: Any) -> Tensor | None:
        """Bool `(batch, codes)`: which codes stand for some of an example, not for padding alone.

        None if all do.
        """
        if length is None:
            return None
        own = -(-ops.cast(length, "int32") // self.downsampling)
        return ops.arange(codes, dtype="int32") < own[:, None]

    def checked(self, x: Any) -> dict:
        """Data as a dict, without what padding holds, and with values checked within the graph."""
        parts = dict(x) if isinstance(x, dict) else {"waveform": x}
        if parts.get("length") is not None:
            samples, unit = ops.shape(parts["waveform"])[1], self.downsampling
            cure = f"the loaders' min_samples={unit} finds the files of shorter clips"
            parts["length"] = backend.checked_length(parts["length"], unit, samples, cure)
        waveform = _without_padding(parts)
        parts["waveform"] = backend.checked_sound("waveform", waveform, self.downsampling)
        if parts.get("speaker") is not None:
            speaker = ops.cast(parts["speaker"], "int32")
            parts["speaker"] = backend.checked_range("speaker", speaker, self.num_speakers)
        return parts

    def latents(self, x: Any) -> Tensor:
        """The encoder's output for a tensor of waveforms: `(batch, codes, code_dim)`."""
        waveform = _without_padding(x)
        batch = ops.shape(waveform)[0]
        samples = self._padded(functional.never_empty(waveform))
        return self.encoder(samples[..., None], training=False)[:batch]

    def call(self, inputs: Any, training: bool = False) -> dict:
        self.check_data(inputs)
        parts = self.checked(inputs)
        batch, samples = ops.shape(parts["waveform"])
        waveform = self._padded(functional.never_empty(parts["waveform"]))
        speaker = parts.get("speaker")
        condition = self._condition(None if speaker is None else functional.never_empty(speaker))
        # In float32: an encoder casts to what it computes in, spectra are made before.
        z = self.encoder(waveform[..., None], training=training)
        # The quantizer must not see the example that stands in for none.
        mask = self._codes_of_data(parts.get("length"), ops.shape(z)[1])
        options = {} if mask is None else {"mask": mask}
        if mask is not None and "mask" not in inspect.signature(self.quantizer.call).parameters:
            raise ValueError(
                f"{type(self.quantizer).__name__} must take mask, bool (batch, codes), for sound "
                'with "length": which codes are of padding'
            )
        quantized, codes, loss = self.quantizer(
            z[:batch], training=training, return_info=True, **options
        )
        quantized, pitch_loss = functional.never_empty(quantized), {}
        if self.has_source:
            if mask is not None:
                options["mask"] = functional.never_empty(mask)
            made, distance = self.decoder.follow(
                quantized, waveform, *condition, training=training, **options
            )
            outputs, pitch_loss = made[..., 0], {"pitch_loss": distance[:batch]}
        else:
            outputs = self._decoded(quantized, waveform, condition, training)
        # In two steps: of both at once TensorFlow does not see the length.
        outputs = outputs[:batch][:, :samples]
        return {"outputs": outputs, "codes": codes, "quantizer_loss": loss, **pitch_loss}

    def _decoded(
        self, quantized: Tensor, waveform: Tensor, condition: list, training: bool = False
    ) -> Tensor:
        if self.is_autoregressive:
            return self.decoder(quantized, waveform, *condition)
        return self.decoder(quantized, *condition, training=training)[..., 0]

    def per_example_loss(self, x: Any, outputs: dict) -> Tensor:
        length = x.get("length") if isinstance(x, dict) else None
        total = self._total_loss(
            self._reconstruction_loss(x, outputs["outputs"]),
            outputs,
            self.example_weights(x),
            self._codes_of_data(length, ops.shape(outputs["codes"])[1]),
        )
        if "pitch_loss" in outputs:
            self._pitch_tracker.update_state(outputs["pitch_loss"])
            total = total + outputs["pitch_loss"]
        return total

    def example_weights(self, x: Any) -> Tensor | None:
        """With a WaveNet the samples of each example that count, else None."""
        return ops.sum(self._counted(x), -1) if self.is_autoregressive else None

    def _counted(self, x: Any) -> Tensor:
        """1 where a sample counts in the loss of a WaveNet, else 0: `(batch, samples)`."""
        parts = x if isinstance(x, dict) else {"waveform": x}
        return after(valid(parts["waveform"], parts.get("length")), self._left_out)

    def _reconstruction_loss(self, x: Any, outputs: Tensor) -> Tensor:
        waveform = _without_padding(x)
        if self.is_autoregressive:
            return -masked_mean(self.decoder.log_prob(outputs, waveform), self._counted(x))
        length = x.get("length") if isinstance(x, dict) else None
        distance = spectral.multi_scale_distance(
            functional.never_empty(waveform),
            functional.never_empty(ops.cast(outputs, "float32")),
            lengths=None if length is None else functional.never_empty(length),
        )
        return distance[: ops.shape(waveform)[0]]

    def adapt(self, x: Any, batch_size: int = 64) -> None:
        """As `Autoencoder.adapt`, without vectors of padding; batches may be of several widths."""
        x = self._for_encoder(x)
        batches = in_random_order(x, batch_size)
        parts = self._parts_of("adapt", self._latents_and_mask, batches, batch_size)
        self.quantizer.adapt(latents[mask] for latents, mask in parts)

    def _latents_and_mask(self, x: Any) -> tuple[Tensor, Tensor]:
        parts = self.checked(x)
        latents = self.latents(parts)
        mask = self._codes_of_data(parts.get("length"), ops.shape(latents)[1])
        return latents, ops.ones_like(latents[..., 0], "bool") if mask is None else mask

    def reconstruction_loss(self, x: Any, codes: Any = None, batch_size: int = 16) -> np.ndarray:
        """The loss of each example's reconstruction from its own codes, or from others.

        That it rises with others, such as codes shuffled in time, says that the decoder listens to
        them.

        Args:
            x: arrays, as `fit` takes them.
            codes: integers `(batch, n)`; None for the codes of `x`.
            batch_size: examples at a time.

        Returns:
            float32 `(batch,)`: nats a sample with a WaveNet, else the distance of spectra. NaN
            where no sample counts, of an example no longer than what a WaveNet's loss leaves out.

        Raises:
            ValueError: wrong dtype or shape, or values out of range.
        """
        self._check_no_dataset("reconstruction_loss", x)
        parts = dict(x) if isinstance(x, dict) else {"waveform": x}
        if "speaker" in parts and hasattr(parts.get("waveform"), "shape"):
            n = parts["waveform"].shape[0]
            parts["speaker"] = self.speaker_of_each(parts["speaker"], n)
        self._check_input("reconstruction_loss", parts if isinstance(x, dict) else x)
        if codes is None:
            codes = self.encode(parts, batch_size)
        n, samples = parts["waveform"].shape
        codes = array_of("codes", codes)
        check_codes(codes, (-(-samples // self.downsampling),), self.num_codes)
        if codes.shape[0] != n:
            raise ValueError(f"codes must be of the {n} waveforms, got {codes.shape[0]}")
        data = {**parts, "codes": codes}
        return self._in_batches("reconstruction_loss", self._loss_given_codes, data, batch_size)

    def _loss_given_codes(self, data: dict) -> Tensor:
        waveform = _without_padding(data)
        quantized = ops.cast(self.quantizer.decode(data["codes"]), self.compute_dtype)
        condition = self._condition(data.get("speaker"))
        outputs = self._decoded(quantized, self._padded(waveform), condition)
        loss = self._reconstruction_loss(data, outputs[:, : ops.shape(waveform)[1]])
        weights = self.example_weights(data)
        return loss if weights is None else ops.where(weights > 0, loss, np.nan)

    # Use

    def encode(self, waveform: Any, batch_size: int = 16) -> np.ndarray:
        """Codes of waveforms.

        Args:
            waveform: float32 `(batch, samples)` in [-1, 1], at least `downsampling` samples: an
                array, a tensor, a dict of `waveform` and perhaps `length`, or a dataset of what
                `fit` takes whose batches are all of one width.
            batch_size: clips at a time, for arrays.

        Returns:
            int32 `(batch, samples / downsampling, rounded up)`, an array; a tensor if `waveform`
            is one.

        Raises:
            ValueError: wrong dtype, rank or length, or (arrays) values; batches of several widths.
        """
        waveform = self._for_encoder(waveform)
        return self._in_batches("encode", self._encode_checked, waveform, batch_size)

    def _for_encoder(self, x: Any) -> Any:
        """What `fit` takes without speakers, checked as far as it is known."""
        self._check_rate(x)
        spec = spec_of(x)
        if isinstance(spec, dict):
            self._check_keys(spec)
            self.check_waveform(spec["waveform"], spec.get("length"))
            check_length(spec.get("length"), spec["waveform"].shape, self.downsampling)
            return _without_speaker(x)
        if hasattr(spec, "shape") or not hasattr(x, "__iter__") or _is_no_dataset(spec):
            self.check_waveform(spec)
        return x

    def decode(
        self,
        codes: Any,
        speaker: Any = None,
        *,
        seed: int | None = 0,
        temperature: float = 1.0,
        jit_compile: bool = True,
        batch_size: int = 16,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Waveforms of codes. A WaveNet draws them; a parallel decoder has no use for a seed.

        Args:
            codes: integers `(batch, n)` in [0, num_codes).
            speaker: a number or a name, or one for each; None where the model has none.
            seed: an int of 32 bits; None for other draws every time. What is drawn for a clip is
                decided by it and by the clip's place among `codes`, whatever the `batch_size`.
            temperature: of the drawing.
            jit_compile: whether TensorFlow compiles a WaveNet's loop by XLA, which takes seconds
                once and is several times as fast.
            batch_size: clips at a time.
            verbose: 1 to show progress, 0 not to, "auto" to show it where it takes long.

        Returns:
            float32 `(batch, n * downsampling)` in [-1, 1], an array.

        Raises:
            ValueError: wrong dtype or shape, or an argument out of its range.
        """
        seed, checked = checked_seed(seed), checked_temperature(temperature)
        self._check_no_dataset("decode", codes)
        codes = np.asarray(ops.convert_to_numpy(array_of("codes", codes)))
        check_codes(codes, (None,), self.num_codes)
        if codes.shape[1] == 0:
            raise ValueError("codes must be at least one code, got none")
        speakers = self.speaker_of_each(speaker, len(codes))
        self.check_weights()
        if not self.is_autoregressive:
            data = {"codes": codes.astype("int32")}
            if speakers is not None:
                data["speaker"] = speakers
            return self.decode_whole(data, batch_size)
        return self._generate(
            codes.astype("int32"), speakers, seed, checked, jit_compile, batch_size, verbose
        )

    def reconstruct(self, waveform: Any, speaker: Any = None, **options: Any) -> np.ndarray:
        """Waveforms after encoding and decoding.

        Args:
            waveform: as for `encode`, or a dict of `waveform` and perhaps `speaker` and `length`.
            speaker: whose they are, one or one for each; where the model has speakers.
            **options: of `decode`.

        Returns:
            float32 of the shape of `waveform`.
        """
        length = None
        if isinstance(waveform, dict):
            self._check_keys(waveform)
            speaker, length = waveform.get("speaker", speaker), waveform.get("length")
            waveform = waveform["waveform"]
        self._check_no_dataset("reconstruct", waveform)
        self.check_waveform(waveform)
        waveform = np.asarray(ops.convert_to_numpy(waveform))
        parts = waveform if length is None else {"waveform": waveform, "length": length}
        codes = self.encode(parts, options.get("batch_size", 16))
        return self.decode(codes, speaker, **options)[:, : waveform.shape[1]]

    def convert(self, waveform: Any, speaker: Any, **options: Any) -> np.ndarray:
        """What is said in `waveform`, in the voice of `speaker` (sec. 4.3, fig. 6).

        Args:
            waveform: as for `encode`.
            speaker: a number or a name, or one for each.
            **options: of `decode`.

        Returns:
            float32 of the shape of `waveform`.
        """
        if self.num_speakers is None:
            raise ValueError("convert needs a model with speakers: AudioVQVAE(num_speakers=...)")
        if isinstance(waveform, dict):
            self._check_keys(waveform)
        return self.reconstruct(_without_speaker(waveform), speaker, **options)

    def _check_no_dataset(self, caller: str, x: Any) -> None:
        if hasattr(x, "element_spec"):
            raise ValueError(
                f"{caller} takes arrays, not a dataset: call it for each batch (for batch in "
                "dataset: ...)"
            )

    def speaker_of_each(self, speaker: Any, n: int) -> np.ndarray | None:
        """Numbers, int32 `(n,)`, of a speaker or of one for each, by number or name.

        None where the model has none; `ValueError` where they are not of its.
        """
        if self.num_speakers is None:
            if speaker is not None:
                raise ValueError(
                    f"speaker: {self.name} has none; give num_speakers when it is made"
                )
            return None
        if speaker is None:
            raise ValueError(f"speaker is missing: one of {self.num_speakers}, or one for each")
        known = backend.concrete(speaker)
        speaker = np.asarray(speaker) if known is None else known
        if speaker.dtype.kind == "O" and all(isinstance(who, str) for who in speaker.flat):
            speaker = speaker.astype(str)  # as pandas gives them
        if speaker.dtype.kind == "U" and self.speaker_names is not None:
            speaker = self._numbers_of(speaker)
        if speaker.dtype.kind not in "iu":
            raise ValueError(
                f"speaker must be an integer in [0, {self.num_speakers}), or one for each, got "
                f"{speaker!r:.200} (a name's number is its place in a dataset's speaker_names; "
                "AudioVQVAE(speaker_names=...) takes names too)"
            )
        if speaker.ndim == 0:
            speaker = np.repeat(speaker[None], n)
        self.check_speaker(speaker, n)
        return speaker.astype("int32")

    def _numbers_of(self, names: np.ndarray) -> np.ndarray:
        known = list(self.speaker_names or ())
        unknown = sorted(set(names.ravel().tolist()) - set(known))
        if unknown:
            raise ValueError(f"speaker must be of {known}, got {unknown}")
        numbers = [known.index(name) for name in names.ravel()]
        return np.array(numbers, "int32").reshape(names.shape)

    def _encode(self, x: Any) -> Tensor:
        return self.quantizer.encode(self.latents(x))

    def _encode_checked(self, x: Any) -> Tensor:
        return self._encode(self.checked(_without_speaker(x)))

    def decode_whole(self, data: dict, batch_size: int) -> np.ndarray:
        """As `decode` by a parallel decoder, unchecked: `data` has `codes` and perhaps `speaker`.

        For use again and again.
        """
        return self._in_batches("decode", self._decode_parallel, data, batch_size)

    def _decode_parallel(self, data: dict) -> Tensor:
        batch = ops.shape(data["codes"])[0]
        quantized, condition = self._decoder_input(data)
        return _as_sound(self.decoder(quantized, *condition)[:batch])

    def _decode_from(self, data: dict, start: Tensor, given: Any, end: Any) -> tuple:
        """As `_decode_parallel`, of a decoder with a source: see `ParallelDecoder.decode_from`."""
        batch = ops.shape(data["codes"])[0]
        quantized, condition = self._decoder_input(data)
        start = functional.never_empty(start)
        made, then = self.decoder.decode_from(quantized, start, given, end, *condition)
        return _as_sound(made[:batch]), then[:batch]

    def decode_chunk(self, data: dict, start: Any, given: int, end: int) -> tuple:
        """`_decode_from`, compiled: `data` has `codes` and perhaps `speaker`."""
        run = self._compiled("decode_chunk", self._decode_from)
        return run(data, start, np.int32(given), np.int32(end))

    def _decoder_input(self, data: dict) -> tuple[Tensor, list]:
        quantized = ops.cast(self.quantizer.decode(data["codes"]), self.compute_dtype)
        speaker = data.get("speaker")
        if speaker is not None:
            speaker = functional.never_empty(speaker)
        return functional.never_empty(quantized), self._condition(speaker)

    def generate(
        self,
        state: dict,
        codes: Tensor,
        speaker: Tensor | None,
        seed: Tensor,
        options: sampling.Options,
    ) -> tuple[Tensor, dict]:
        """Draws the samples of some codes after others; for use in compiled functions.

        As `WaveNetDecoder.generate`, but of int32 `(batch, n)` codes and `(batch,)` speakers.
        """
        condition = self._condition(speaker)
        latents = self.quantizer.decode(codes)
        return self.decoder.generate(
            state, latents, condition[0] if condition else None, seed, options
        )

    def generate_chunk(
        self, state: dict, data: dict, seed: Any, temperature: Any, xla: bool
    ) -> tuple:
        """`generate`, compiled, of a chunk: `data` has `codes` and perhaps `speaker`."""
        # XLA compiles for a number of codes; a graph may do for any.
        name = f"generate {data['codes'].shape[1]} codes" if xla else "generate"
        run = self._compiled(name, self._generate_in_graph, xla)
        return run(state, data, seed, temperature)

    def _generate_in_graph(self, state: dict, data: dict, seed: Tensor, temperature: Any) -> tuple:
        # Numbers, not tensors: then the loop needs no branch for top-k and top-p.
        options = sampling.Options(temperature, self.decoder.likelihood.levels, 1.0)
        return self.generate(state, data["codes"], data.get("speaker"), seed, options)

    def _generate(
        self,
        codes: np.ndarray,
        speakers: np.ndarray | None,
        seed: int,
        temperature: np.float32,
        jit_compile: bool,
        batch_size: int,
        verbose: str | int,
    ) -> np.ndarray:
        n, length = codes.shape
        batch_size = min(positive_integer("batch_size", batch_size), max(n, 1))
        if n == 0:
            return np.zeros((0, length * self.downsampling), "float32")
        few_sizes = backend.is_compiled_by_size(jit_compile)
        batch_size = sizes.rounded_up(batch_size) if few_sizes else batch_size
        each = sizes.part_of(length, max(1, SAMPLES_A_CALL // self.downsampling), few_sizes)
        starts = range(0, length, each)
        if few_sizes:
            codes = np.pad(codes, [(0, 0), (0, -length % each)], mode="edge")
        made = []
        progress = Progress(-(-n // batch_size) * len(starts), verbose)
        for first in range(0, n, batch_size):
            some = np.minimum(np.arange(first, first + batch_size), n - 1)
            state, parts = self.decoder.initial_state(batch_size, some.astype("int32")), []
            for start in starts:
                data = {"codes": codes[some, start : start + each]}
                if speakers is not None:
                    data["speaker"] = speakers[some]
                part, state = self.generate_chunk(
                    state, data, np.int32(seed), temperature, jit_compile
                )
                parts.append(ops.convert_to_numpy(part))
                progress.advance()
            made.append(np.concatenate(parts, 1))
        return np.concatenate(made)[:n, : length * self.downsampling]

    def get_config(self) -> dict:
        return {**super().get_config(), **self._arguments}


def _is_no_dataset(x: Any) -> bool:
    return isinstance(x, (list, tuple, str, bytes, os.PathLike)) or x is None


def checked_names(names: Any, count: int | None) -> tuple[str, ...] | None:
    """Names of speakers; raises `ValueError` where they are none, or not `count`."""
    if names is None:
        return None
    known = () if isinstance(names, str) else tuple(str(name) for name in names)
    if not known or len(set(known)) < len(known):
        raise ValueError(f"speaker_names must be different names, one a speaker, got {names!r}")
    if count not in (None, len(known)):
        raise ValueError(f"num_speakers={count}, but there are {len(known)} speaker_names")
    return known


def _without_speaker(x: Any) -> Any:
    """Data that is a dict, without the speaker, which says nothing of the codes."""
    return (
        {name: part for name, part in x.items() if name != "speaker"} if isinstance(x, dict) else x
    )


def _without_padding(x: Any) -> Tensor:
    """The waveform of data, float32, with zeros after each example's end."""
    parts = x if isinstance(x, dict) else {"waveform": x}
    waveform = ops.cast(parts["waveform"], "float32")
    if parts.get("length") is None:
        return waveform
    return ops.where(valid(waveform, parts["length"]) > 0, waveform, 0.0)


def _as_sound(made: Tensor) -> Tensor:
    return ops.clip(ops.cast(made[..., 0], "float32"), -1.0, 1.0)
