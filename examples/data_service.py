"""tf.data service as feeder: other processes or machines read and augment what this one trains on.

    python examples/data_service.py                  # all on this machine: look at the rates

Trains a small VQ-VAE from records twice, reading them itself and fed by a dispatcher and
`--workers` workers, child processes here, and prints images/s of both. That pays where reading and
augmenting keep the device waiting and other machines have cores to spare. To use those, give every
machine the records under the same path and this package, and start, one on each,

    python examples/data_service.py --role dispatcher --port 5050
    python examples/data_service.py --role worker --dispatcher HOST:5050 --host ITS_OWN_NAME
    python examples/data_service.py --dispatcher HOST:5050                 # where the device is

Their servers listen on every address and ask nobody for a password: keep them behind a firewall.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from support.command import begin, example_parser, local_path, positive


def arguments() -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument(
        "--out", type=local_path, default=Path("runs/data_service"), help="folder of the run"
    )
    parser.add_argument(
        "--role",
        choices=("trainer", "dispatcher", "worker"),
        default="trainer",
        help="of this process",
    )
    parser.add_argument("--dispatcher", help="HOST:PORT of one that runs already")
    parser.add_argument("--host", default="localhost", help="by which others reach this worker")
    parser.add_argument("--port", type=int, default=0, help="of this server")
    parser.add_argument(
        "--workers", type=positive, default=2, help="processes here, without --dispatcher"
    )
    parser.add_argument("--pictures", type=positive, default=60_000, help="in the records")
    parser.add_argument("--batch-size", type=positive, default=64, help="images in a batch")
    parser.add_argument("--steps", type=positive, default=200, help="timed batches")
    args = parser.parse_args()
    if args.role == "worker" and not args.dispatcher:
        parser.error("--role worker needs --dispatcher HOST:PORT")
    if args.role == "dispatcher" and args.dispatcher:
        parser.error("--role dispatcher takes no --dispatcher")
    return args


if __name__ == "__main__":
    begin(arguments)  # before the imports that take seconds

import keras
import tensorflow as tf
from support.runs import open_run, write_json

from keras_vqvae import ImageVQVAE
from keras_vqvae.data import fashion_mnist, fetch_debian_fashion_mnist, from_records, write_records

service = tf.data.experimental.service


def server(dispatcher: str | None, host: str = "localhost", port: int = 0):
    """A worker of the dispatcher at `dispatcher`, or, for None, a dispatcher."""
    tf.config.set_visible_devices([], "GPU")  # that is the trainer's
    if dispatcher is None:
        return service.DispatchServer(service.DispatcherConfig(port))
    address = f"{host}:%port%"
    return service.WorkerServer(service.WorkerConfig(dispatcher, address, port))


def serve(dispatcher: str | None, parent: Connection) -> None:
    """Runs a server for as long as the parent lives, and tells it a dispatcher's address."""
    running = server(dispatcher)
    parent.send(None if dispatcher else running.target.removeprefix("grpc://"))
    with contextlib.suppress(EOFError):
        parent.recv()


@contextlib.contextmanager
def local_cluster(workers: int) -> Iterator[str]:
    """The address of a dispatcher that has `workers` workers, each a process on this machine."""
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:

        def start(address: str | None) -> str:
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(address, theirs), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.terminate)
            stack.callback(ours.close)  # held open until then: its end is the child's too
            theirs.close()
            return ours.recv()

        address = start(None)
        for _ in range(workers):
            start(address)
        yield address


def written_records(folder: Path, pictures: int) -> Path:
    """Fashion-MNIST as records; written once."""
    if not (folder / "records.json").exists():
        try:
            (images, _), _ = fashion_mnist()
        except RuntimeError:  # no download: Debian has it too
            fetch_debian_fashion_mnist()
            (images, _), _ = fashion_mnist()
        write_records(images[:pictures], folder)
    return folder


def augment(image: tf.Tensor) -> tf.Tensor:
    """Mirrors, and shifts by up to four pixels."""
    padded = tf.pad(image, [[4, 4], [4, 4], [0, 0]])
    return tf.image.random_flip_left_right(tf.image.random_crop(padded, image.shape))


def augmented(folder: Path, batch_size: int) -> tf.data.Dataset:
    """Endless batches. Without a `seed` the pipeline holds no Python: servers can run it."""
    images = from_records(folder, batch_size=None, repeat=True)
    images = images.shuffle(4096).map(augment, tf.data.AUTOTUNE)
    return images.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def served(dataset: tf.data.Dataset, address: str) -> tf.data.Dataset:
    """The same batches, made by the workers at `address`, each from files of its own."""
    policy = service.ShardingPolicy.DYNAMIC
    return dataset.apply(service.distribute(policy, f"grpc://{address}"))


class Rate(keras.callbacks.Callback):
    """Batches per second of the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.value = self.params["steps"] / (time.perf_counter() - self.start)


def rates(dataset: tf.data.Dataset, batch_size: int, steps: int) -> dict[str, float]:
    """Images per second: of the input alone, and in training."""
    batches = iter(dataset)
    next(batches)  # starts everything
    start = time.perf_counter()
    for _ in itertools.islice(batches, steps):
        pass
    alone = steps / (time.perf_counter() - start)
    del batches
    keras.utils.set_random_seed(0)
    vqvae = ImageVQVAE(dataset.element_spec.shape[1:], 64, 16, hidden=16, residual_hidden=8)
    vqvae.compile("adam")
    rate = Rate()
    # The first epoch compiles.
    vqvae.fit(dataset, steps_per_epoch=steps, epochs=2, callbacks=[rate])
    return {"input_alone": alone * batch_size, "training": rate.value * batch_size}


def main() -> None:
    args = arguments()
    if args.role != "trainer":
        return server(args.dispatcher, args.host, args.port).join()

    args.out = open_run(args.out, vars(args))
    folder = written_records(args.out / "records", args.pictures)
    dataset = augmented(folder, args.batch_size)
    results = {"without the service": rates(dataset, args.batch_size, args.steps)}
    running = contextlib.nullcontext(args.dispatcher)
    with running if args.dispatcher else local_cluster(args.workers) as address:
        fed = served(dataset, address)
        results["with the service"] = rates(fed, args.batch_size, args.steps)
    write_json(args.out / "rates.json", results)
    for name, rate in results.items():
        print(f"{name}: {rate['training']:,.0f} images/s in training, "
              f"{rate['input_alone']:,.0f} of input alone")  # fmt: skip


if __name__ == "__main__":
    main()
