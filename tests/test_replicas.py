"""20 steps of SGD on 2 and 4 replicas equal one device: see `tests/replicas.py`."""

import functools

import pytest

from tests.replicas import CASES, check_differences, run_program

pytestmark = pytest.mark.tensorflow


@functools.cache
def results(devices: int) -> dict:
    """What a process with so many devices found, by case."""
    lines = run_program("tests.replicas", str(devices), KERAS_BACKEND="tensorflow")
    return {line["case"]: line for line in lines}


# One process runs all cases of a number of devices: with xdist, `--dist loadfile` keeps them so.
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("devices", [2, 4])
def test_same_as_one_device(devices: int, name: str) -> None:
    check_differences(name, CASES[name], devices, results(devices)[name])
