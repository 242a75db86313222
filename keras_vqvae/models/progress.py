"""A progress bar for long work in parts."""

import time

import keras

SHOW_PROGRESS_AFTER_SECONDS = 3.0


class Progress:
    """A progress bar that "auto" shows once the work has taken long."""

    def __init__(self, parts: int, verbose: str | int) -> None:
        self.done = 0
        self.shown_from = time.monotonic()
        if verbose == "auto":
            self.shown_from += SHOW_PROGRESS_AFTER_SECONDS
        shown = verbose == 1 or (verbose == "auto" and parts > 1)
        self.bar = keras.utils.Progbar(parts, unit_name="part") if shown else None

    def advance(self) -> None:
        self.done += 1
        if self.bar and time.monotonic() >= self.shown_from:
            self.bar.update(self.done)
