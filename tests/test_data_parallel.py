"""JAX's `DataParallel` over 2 and 4 devices equals one device: see `tests/data_parallel.py`."""

import functools
import re

import keras
import pytest

from tests.data_parallel import BATCHES, CASES, LONG, SHORT
from tests.replicas import TOLERANCE, check_differences, run_program

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="needs KERAS_BACKEND=jax"),
]


@functools.cache
def results(*arguments: str) -> dict:
    """What a process with four devices found, by case and number of devices."""
    flags = "--xla_force_host_platform_device_count=4"
    lines = run_program("tests.data_parallel", *arguments, KERAS_BACKEND="jax", XLA_FLAGS=flags)
    return {(line.pop("case"), line.pop("devices")): line for line in lines}


@pytest.mark.parametrize("devices, name", [(d, name) for d in SHORT for name in SHORT[d]])
def test_same_as_one_device(devices: int, name: str) -> None:
    check_differences(name, CASES[name], devices, results()[name, devices])


@pytest.mark.long
@pytest.mark.parametrize("devices, name", [(d, name) for d in LONG for name in LONG[d]])
def test_other_cases(devices: int, name: str) -> None:
    check_differences(name, CASES[name], devices, results("long")[name, devices])


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.long)])
def test_batches_that_do_not_divide(devices: int) -> None:
    """`fit` refuses them; coding and sampling take any number, and Keras's own do without."""
    found = dict((results("long") if devices == 4 else results())[BATCHES, devices])
    message = (
        f"fit.. under DataParallel needs batches that divide by the {devices} devices, but 57 "
    )
    assert re.match(message + "examples in batches of 16 give one of 9", found.pop("error"))
    # Pictures are rounded to whole grey levels, where rounding may decide.
    pictures = {name: found.pop(name) for name in ("decode", "reconstruct")}
    assert all(difference <= 1 for difference in pictures.values()), pictures
    assert all(difference <= TOLERANCE for difference in found.values()), found
    assert len(found) == 7
