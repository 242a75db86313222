"""What a larger batch does to the learning rate, the EMA decay and expiry.

    python benchmarks/batch_size.py [--examples 24000]

The same number of Fashion-MNIST pictures in batches of 8, 32 and 128, as more devices would take
them: with the settings of the smallest batch, with the learning rate multiplied by the root of the
factor, and with the decay brought to its power (so that the codebook averages over as many
pictures as before). Quality is that of 2,000 test pictures.
"""

from typing import Any

import common

BATCHES = (8, 32, 128)
RATE, DECAY = 1e-3, 0.99


def settings(batch: int) -> dict[str, tuple[float, float]]:
    factor = batch / BATCHES[0]
    rate, decay = RATE * factor**0.5, DECAY**factor
    if factor == 1:
        return {"": (RATE, DECAY)}
    return {
        "unchanged": (RATE, DECAY),
        "rate": (rate, DECAY),
        "decay": (RATE, decay),
        "rate and decay": (rate, decay),
    }


def train(pictures: Any, test: Any, batch: int, rate: float, decay: float) -> dict:
    import keras

    from keras_vqvae import ImageVQVAE, VectorQuantizer
    from keras_vqvae.data import from_array

    keras.utils.set_random_seed(0)
    quantizer = VectorQuantizer(512, 16, decay=decay, seed=0)
    model = ImageVQVAE((28, 28, 1), quantizer=quantizer, hidden=32)
    model.compile(keras.optimizers.Adam(rate))
    model.fit(from_array(pictures, batch, seed=0), epochs=1, verbose=0)
    return model.evaluate(test, return_dict=True, verbose=0)


def main() -> None:
    parser = common.Parser(__doc__)
    parser.add_argument("--examples", type=int, default=24_000, help="to train on")
    args = parser.parse_args()

    from keras_vqvae.data import fashion_mnist

    (pictures, _), (test, _) = fashion_mnist()
    found, rows = {}, []
    for batch in BATCHES:
        for name, (rate, decay) in settings(batch).items():
            result = train(pictures[: args.examples], test[:2000], batch, rate, decay)
            found[f"batch {batch} {name}".strip()] = {"rate": rate, "decay": decay, **result}
            rows.append([batch, name, rate, round(decay, 4), result["reconstruction_loss"],
                         result["perplexity"], result["code_use"]])  # fmt: skip
            print(".", end="", flush=True)
    headers = ["batch", "scaled", "rate", "decay", "reconstruction loss", "perplexity", "code use"]
    print(f"\n{args.examples} pictures, 512 codes\n\n{common.table(headers, rows)}")
    common.write("batch_size", {"examples": args.examples, "runs": found})


if __name__ == "__main__":
    main()
