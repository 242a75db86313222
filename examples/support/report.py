"""A run of a VQ-VAE of images, and of a prior over its codes, as one HTML page."""

import json
from pathlib import Path

import numpy as np
from markupsafe import Markup

from support import page, runs, scores
from support.figures import written

DARK = 64  # of 255, in the mean: such images are brightened for display
BRIGHTENED = (
    " They are brightened (gamma 2) for display; all figures are of the images as they are."
)
PLOTS = {
    "loss": ("loss", "nats per channel value"),
    "perplexity": ("codebook perplexity", "codes"),
    "code_use": ("codebook usage", "share of the codes"),
}
CURVES = (
    "An epoch is {} of the training. While an epoch lasts weights change, so the training curve is "
    "a mean over many networks. The dot marks epoch {}, whose weights are kept: the tables are of "
    "them, and the row “{}” has the dot's figure."
)
CHOSEN = " Unseen images have chosen this epoch, so their figures are a little too good."


def _of_vqvae(out: Path, metrics: dict, brightened: bool | None) -> tuple[list[Markup], bool]:
    """The parts about a VQ-VAE, and whether its images are shown brightened."""
    parts = [
        page.paragraph(
            f"{metrics['parameters']:,} parameters. {metrics['bytes_per_picture']:.0f} bytes an "
            f"image, {metrics['compression_ratio']:.1f} times fewer than its "
            f"{np.prod(metrics['image_shape']):,} values of 8 bits."
        )
    ]
    for number, (name, figures) in enumerate(metrics["unseen"].items()):
        rows = {
            codec: {
                "bytes an image": f"{row['bytes']:,.0f}",
                "PSNR, dB": round(row["PSNR"], 2),
                "SSIM": round(row["SSIM"], 3),
            }
            for codec, row in figures.items()
        }
        with np.load(out / f"pictures_{number}.npz") as file:
            images = dict(file)
        if brightened is None:
            brightened = bool(images["images"].mean() < DARK)
        some = np.linspace(0, len(images["images"]) - 1, min(8, len(images["images"]))).astype(int)
        labels = [("originals", images.pop("images"))] + [
            (f"{codec}: {rows[codec]['bytes an image']} bytes an image", x)
            for codec, x in images.items()
        ]
        path = out / f"reconstructions_{number}.png"
        _save(path, [(label, x[some]) for label, x in labels], brightened)
        parts += [
            page.heading(f"Reconstruction of unseen images: {name}"),
            page.table(
                "codec", rows, best_of_column={"PSNR, dB": max, "SSIM": max}, cell=_as_it_is
            ),
            page.paragraph(
                "Bold: the best of the column. The thumbnail is the largest that fits the VQ-VAE's "
                "bytes; WebP has the best quality that fits them."
            ),
            page.figure(
                [path],
                "rows of originals and reconstructions",
                "Unseen images." + BRIGHTENED * brightened,
            ),
        ]
    return parts, bool(brightened)


def _training(out: Path, metrics: dict, best: bool) -> list[Markup]:
    rows = {
        name: {
            "loss, nats per channel value": row["loss"],
            "perplexity": row["perplexity"],
            "usage": f"{100 * row['code_use']:.1f}\u00a0%",
            "bits a code": row["bits_per_code"],
        }
        for name, row in metrics["codes"].items()
    }
    paths, epoch = page.curves(out / "history.csv", PLOTS, best)
    return [
        page.heading("Training of the VQ-VAE"),
        page.table("codes of", rows, cell=lambda x: x if isinstance(x, str) else written(x)),
        page.figure(
            paths,
            "loss, perplexity and usage by epoch",
            CURVES.format(metrics["epoch"], epoch, "unseen images") + CHOSEN * best,
            kind="plot",
        ),
    ]


def _of_prior(folder: Path, brightened: bool, best: bool) -> list[Markup]:
    """The parts about a prior."""
    prior = json.loads((folder / "metrics.json").read_text())
    with np.load(folder / "samples.npz") as file:
        images = dict(file)
    count = len(images["samples"])
    columns = min(8, count)
    rows = []
    for start in range(0, count, columns):
        some = np.arange(start, start + columns).clip(max=count - 1)  # the last row is filled up
        rows += [
            ("samples", images["samples"][some]),
            ("the training image nearest to each", images["nearest"][some]),
        ]
    _save(folder / "samples.png", rows, brightened)
    plots = {"loss": ("loss of the PixelCNN", "bits a code")}
    paths, epoch = page.curves(folder / "history.csv", plots, best)
    bits, shared = prior["bits_per_code"], prior["greatest_share_of_codes_in_common"]
    return [
        page.heading("Generation: a prior over the codes"),
        page.paragraph(
            f"A PixelCNN of {prior['parameters']:,} parameters, sampled at temperature "
            f"{prior['temperature']:g}: {1000 * prior['seconds_per_sample']:.0f} ms an image in a "
            f"batch of {count}, the cost of {prior['forward_passes_per_sample']:.1f} forward "
            "passes. Running the network again for every code would cost "
            f"{prior['codes_per_sample']}."
        ),
        page.figure(
            [folder / "samples.png"],
            "samples and the training images nearest to them",
            "Samples, and below each the training image nearest to it in squared error, so that "
            "copying would show. With the training image most like it a sample shares "
            f"{100 * shared['mean']:.0f} % of its codes on average, and at most "
            f"{100 * shared['max']:.0f} %." + BRIGHTENED * brightened,
        ),
        page.table("bits a code, of", bits, best_of_row=min, cell=written),
        page.paragraph(
            "Bold: the lowest of the row. “Uniform” knows nothing; “unigram” knows how often each "
            "code occurs in training."
        ),
        page.figure(
            paths,
            "bits a code by epoch",
            CURVES.format(prior["epoch"], epoch, list(bits)[-1]) + CHOSEN * best,
            kind="plot",
        ),
    ]


def _as_it_is(value: float | str | None) -> str:
    return value if isinstance(value, str) else str(value)


def _save(path: Path, rows: list[tuple[str, np.ndarray]], brightened: bool) -> None:
    side = rows[0][1].shape[2]
    shown = [(label, scores.brightened(x) if brightened else x) for label, x in rows]
    scores.labelled(shown, max(1, 128 // side)).save(path)


def write_report(
    out: Path, brightened: bool | None = None, best: bool = False, note: str = ""
) -> Path:
    """Writes `report.html` and its pictures into `out`, the folder of a run.

    Args:
        out: folder with metrics.json, history.csv and pictures_NUMBER.npz, and a folder `prior`
            with metrics.json, history.csv and samples.npz where a prior was trained.
        brightened: whether to brighten images for display; None for dark sets only.
        best: whether training kept the weights with the least `val_loss`, not the last.
        note: a last paragraph.
    """
    metrics = json.loads((out / "metrics.json").read_text())
    parts, brightened = _of_vqvae(out, metrics, brightened)
    commands = runs.command_of(out)
    if (out / "prior" / "metrics.json").exists():
        parts += _of_prior(out / "prior", brightened, best)
        commands += runs.command_of(out / "prior")
    parts += _training(out, metrics, best)
    if note:
        parts.append(page.paragraph(note))
    height, width, _ = metrics["image_shape"]
    grid = "×".join(map(str, metrics["grid_shape"]))
    title = (
        f"VQ-VAE of {metrics['data']}: images of {height}×{width} pixels as {grid} codes "
        f"of {metrics['num_codes']}"
    )
    return page.write(out / "report.html", title, commands, *parts)
