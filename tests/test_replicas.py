"""20 steps of SGD on 2 and 4 replicas equal one device: see `tests/replicas.py`."""

import functools

import pytest

from tests.replicas import CASES, check_differences, run_program

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]


# Start and restart of a codebook, a prior, sound, video, empty replicas. Others are long.
SHORT = {
    2: (
        "ema_restarts",
        "prior",
        "sound_in_parallel",
        "video",
        "own_networks_with_regularizers",
        "layer_alone_restarts",
    ),
    4: ("ema_restarts_empty_replica",),
}
LONG = {devices: tuple(n for n in CASES if n not in names) for devices, names in SHORT.items()}


@functools.cache
def results(devices: int, names: tuple) -> dict:
    """What a process with so many devices found, by case."""
    lines = run_program("tests.replicas", str(devices), *names, KERAS_BACKEND="tensorflow")
    return {line["case"]: line for line in lines}


# One process runs all cases of a number of devices: with xdist, `--dist loadfile` keeps them so.
@pytest.mark.parametrize("devices, name", [(d, name) for d in SHORT for name in SHORT[d]])
def test_same_as_one_device(devices: int, name: str) -> None:
    check_differences(name, CASES[name], devices, results(devices, SHORT[devices])[name])


@pytest.mark.long
@pytest.mark.parametrize("devices, name", [(d, name) for d in LONG for name in LONG[d]])
def test_other_cases(devices: int, name: str) -> None:
    check_differences(name, CASES[name], devices, results(devices, LONG[devices])[name])
