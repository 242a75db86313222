"""Tests of what a machine may lack: skipped there, and failures in CI."""

import os

import pytest


def skip_or_fail(what: str, reason: str) -> None:
    """Skips; or fails, if the environment has KERAS_VQVAE_REQUIRE_<what>=1, which CI sets."""
    if os.environ.get(f"KERAS_VQVAE_REQUIRE_{what}") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
