"""Training-step speed of ImageVQVAE against the same network in PyTorch, on CPU.

    python benchmarks/training_step.py [--rounds 7] [--hidden 64 128 256]

64 x 64 pictures, batch 32, Adam, EMA codebook of 512 codes. Ours is the compiled
`train_function` that `fit` calls, on an iterator over a `tf.data.Dataset` of uint8 pictures,
metrics included; `fit` itself, callbacks and all, is timed beside it. The peer is written in
`peers/vqvae_torch.py`: once with the quantizer of vector-quantize-pytorch, once with the least
EMA quantizer that does the work; each in both memory layouts, of which the faster counts. Before
timing, both sides must have equal parameter counts and, with equal weights, equal outputs.
"""

import os
import tempfile
from collections.abc import Callable
from typing import Any

import common

SIDE, BATCH, NUM_CODES, CODE_DIM = 64, 32, 512, 64
LAYOUTS = {"NCHW": False, "channels last": True}
QUANTIZERS = {"vector-quantize-pytorch": True, "minimal quantizer": False}


def our_model(hidden: int) -> Any:
    import keras

    from keras_vqvae import ImageVQVAE

    keras.utils.set_random_seed(0)
    model = ImageVQVAE((SIDE, SIDE, 3), NUM_CODES, CODE_DIM, hidden=hidden)
    model.compile(optimizer="adam")
    return model


def our_sides(model: Any, repeats: int) -> dict[str, Callable[[], float]]:
    import numpy as np
    import tensorflow as tf

    images = np.random.default_rng(0).integers(0, 256, (BATCH, SIDE, SIDE, 3), "uint8")
    dataset = tf.data.Dataset.from_tensors(images).cache().repeat()
    model.fit(dataset, steps_per_epoch=1, verbose=0)  # makes the train_function
    batches = iter(dataset)
    return {
        "train_function": lambda: common.milliseconds(
            lambda: model.train_function(batches), repeats
        ),
        "fit": lambda: common.milliseconds(
            lambda: model.fit(dataset, steps_per_epoch=repeats, verbose=0)
        ) / repeats,
    }  # fmt: skip


def convolutions(layer: Any) -> list:
    """The convolutions of an encoder or decoder in the order in which data flows."""
    if hasattr(layer, "kernel"):
        return [layer]
    inner = getattr(layer, "_layers_in_order", None)
    if inner is None:
        inner = [conv for pair in layer._convolutions for conv in pair]
    return [conv for child in inner for conv in convolutions(child)]


def check_same_network(model: Any, peer: common.Peer, name: str) -> float:
    """Raises unless the peer, given our weights, gives our outputs (the quantizer left out)."""
    import numpy as np

    x = np.random.default_rng(1).uniform(-1, 1, (2, SIDE, SIDE, 3)).astype("float32")
    arrays = {"x": x, "outputs": np.asarray(model.decoder(model.encoder(x)))}
    for i, conv in enumerate(convolutions(model.encoder) + convolutions(model.decoder)):
        arrays |= {f"kernel{i}": np.asarray(conv.kernel), f"bias{i}": np.asarray(conv.bias)}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "weights.npz")
        np.savez(path, **arrays)
        difference = peer.ask(op="compare", name=name, path=path)["difference"]
    if difference > 1e-3:
        raise SystemExit(f"not the same network: outputs differ by {difference}")
    return difference


def measure(peer: common.Peer, hidden: int, rounds: int) -> dict:
    repeats = 4 if hidden < 256 else 1
    model = our_model(hidden)
    sides = our_sides(model, repeats)
    parameters = sum(w.shape.num_elements() for w in model.trainable_weights)
    difference = 0.0
    for quantizer, library in QUANTIZERS.items():
        for layout, channels_last in LAYOUTS.items():
            name = f"{quantizer}, {layout}"
            answer = peer.ask(
                op="prepare", name=name, batch=BATCH, side=SIDE, hidden=hidden,
                num_codes=NUM_CODES, code_dim=CODE_DIM, library=library,
                channels_last=channels_last, threads=common.machine()["cores"],
            )  # fmt: skip
            if answer["parameters"] != parameters:
                raise SystemExit(f"parameters: ours {parameters}, {name} {answer['parameters']}")
            difference = max(difference, check_same_network(model, peer, name))
            sides[name] = lambda name=name: peer.ask(op="time", name=name, repeats=repeats)["ms"]
    times = common.interleave(sides, rounds)
    peer.ask(op="forget")
    results = {}
    for quantizer in QUANTIZERS:
        best = min((f"{quantizer}, {x}" for x in LAYOUTS), key=lambda name: times[name]["ms"])
        results[quantizer] = {
            "faster_peer": best,
            "peer_images_per_second": round(BATCH * 1e3 / times[best]["ms"], 1),
            "ours_over_peer": common.ratio(times[best], times["train_function"]),
        }
    return {
        "parameters": parameters,
        "output_difference": difference,
        "images_per_second": round(BATCH * 1e3 / times["train_function"]["ms"], 1),
        "images_per_second_in_fit": round(BATCH * 1e3 / times["fit"]["ms"], 1),
        "results": results,
        "times": times,
    }


def main() -> None:
    parser = common.Parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="of timing")
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 128, 256], help="channels")
    args = parser.parse_args()
    cases, rows = {}, []
    with common.Peer("vqvae_torch.py") as peer:
        versions = peer.ask(op="versions")
        for hidden in args.hidden:
            case = measure(peer, hidden, args.rounds)
            cases[f"hidden={hidden}"] = case
            for r in case["results"].values():
                speed = r["ours_over_peer"]
                spread = "{:.3g}-{:.3g}".format(*speed["quartiles"])
                rows.append([
                    hidden, case["parameters"], case["images_per_second"],
                    case["images_per_second_in_fit"], r["faster_peer"],
                    r["peer_images_per_second"], speed["ratio"], spread,
                ])  # fmt: skip
    print(f"batch {BATCH}, {SIDE}x{SIDE}x3, Adam; medians of {args.rounds} rounds\n")
    headers = ["hidden", "parameters", "ours img/s", "in fit", "faster peer", "peer img/s"]
    print(common.table([*headers, "ours/peer", "quartiles"], rows))
    common.write("training_step", {"peer": versions, "rounds": args.rounds, "cases": cases})


if __name__ == "__main__":
    main()
