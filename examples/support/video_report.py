"""A run of video prediction as one HTML page: figures, curves, frames still and moving."""

import json
from pathlib import Path

from markupsafe import Markup

from support import page, runs
from support.figures import written

MEASURES = {"PSNR": "PSNR, dB", "SSIM": "SSIM"}
GROUPS = {"all": "all sequences", "turning": "sequences of turns alone"}


def file_of(name: str) -> str:
    """A file's name for a set of frames."""
    return "".join(c if c.isalnum() else "_" for c in name)


def _aims(aims: dict) -> Markup:
    met = {True: "reached", False: "missed", None: "nothing to compare with"}
    rows = {}
    for name, row in aims.items():
        most = "" if row["most"] is None else f", at most {row['most']:g}"
        rows[name] = {
            "lowest and highest set": " to ".join(
                written(row[x], 3) for x in ("lowest", "highest")
            ),
            "asked for": f"at least {row['least']:g}{most}",
            "": met[row["met"]],
        }
    return page.table("aim", rows)


def _curves(number: int, sets: dict, out: Path) -> list[Path]:
    paths = []
    for group in (group for group in GROUPS if group in sets):
        for measure, unit in MEASURES.items():
            lines = {
                what: row[measure]
                for what, row in sets[group].items()
                if isinstance(row, dict) and measure in row
            }
            path = out / f"curve_{number}_{group}_{measure}.png"
            paths.append(page.plot(path, lines, GROUPS[group], "frames ahead", unit))
    return paths


def _of_set(number: int, name: str, sets: dict, out: Path) -> list[Markup]:
    """The parts about a held-out set."""
    parts = [
        page.heading(name),
        page.paragraph(f"{sets['bits a frame']:.1f} bits a frame, given those before it."),
        page.figure(
            [path.relative_to(out) for path in _curves(number, sets, out)],
            "PSNR and SSIM by frame",
            "Likeness to what happened, by how far ahead a frame is. A reconstruction, which knows "
            "the frame, is what codes allow.",
            kind="plot",
            linked=True,
        ),
    ]
    if "turning" in sets:
        turns = {
            what: {"share": written(row["share"], 3), "pixels moved, median": row["median pixels"]}
            for what, row in sets["turning"]["turns obeyed"].items()
        }
        parts.append(page.table("turns that the image obeys", turns))
    long = {what: rows for what, rows in sets.items() if what.startswith("after")}
    for what, rows in long.items():
        parts.append(page.table(what, {k: {"": written(v)} for k, v in rows.items()}))
    return parts


def write_report(out: Path, shown: list[str]) -> Path:
    """Writes report.html into `out`, the folder of a run with metrics.json and `predicted`."""
    metrics = json.loads((out / "metrics.json").read_text())
    grid, parameters = "×".join(map(str, metrics["grid"])), metrics["parameters"]
    parts = [
        page.paragraph(
            f"{metrics['context']} frames and the actions to come are given, "
            f"{metrics['predicted']} frames are predicted, by codes alone: {grid} codes of "
            f"{metrics['num_codes']} a frame. The VQ-VAE has {parameters['vqvae']:,} parameters, "
            f"the predictor {parameters['predictor']:,}."
        ),
        _aims(metrics["aims"]),
    ]
    for number, (name, sets) in enumerate(metrics["figures"].items()):
        parts += _of_set(number, name, sets, out)
    note = "Of the long predictions every tenth frame is shown, one column a frame."
    if metrics["brightened"]:
        note += " Brightened (gamma 2) for display; figures are of the frames as they are."
    parts += [page.heading("Frames"), page.paragraph(note)]
    for name in shown:
        for suffix in ("png", "gif"):
            path = Path("predicted") / f"{file_of(name)}.{suffix}"
            what = "frame by frame" if suffix == "png" else "moving"
            parts.append(page.figure([path], name, f"{name}, {what}", linked=True))
    title = "Prediction of video from actions"
    return page.write(out / "report.html", title, runs.command_of(out), *parts)
