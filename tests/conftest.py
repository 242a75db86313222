"""Settings of all tests. The backend is the environment variable KERAS_BACKEND's."""

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # tolerances are those of a CPU
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if os.environ.get("KERAS_BACKEND") == "jax":
    # On JAX every test compiles more than it computes; with these flags it takes half as long.
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
        " --xla_cpu_parallel_codegen_split_count=1",
    )

import hypothesis
import keras
import pytest

hypothesis.settings.register_profile(
    "tests",
    deadline=None,
    max_examples=20,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list) -> None:
    # `-m` decides what runs where it is given.
    if config.getoption("-m"):
        return
    reasons = {"long": "takes minutes: run with -m long"}
    if keras.backend.backend() != "tensorflow":
        reasons["tensorflow"] = "needs KERAS_BACKEND=tensorflow"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--eager",
        action="store_true",
        help="run fit, evaluate and predict eagerly, except in tests marked graph",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--eager") and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Rewriting the graphs of tiny networks takes longer than running them.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(autouse=True)
def _eager(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains without a graph under --eager: a graph takes 3 s to build, a step 0.1 s to run."""
    if not request.config.getoption("--eager") or request.node.get_closest_marker("graph"):
        return
    # Of the class that defines it: a model whose `compile` is not Keras's is saved uncompiled.
    owner: Any = next(c for c in keras.Model.__mro__ if "compile" in vars(c))
    compiled = owner.compile

    def compile_eagerly(self: keras.Model, *args: Any, **kwargs: Any) -> None:
        if not kwargs.get("jit_compile"):
            kwargs.setdefault("run_eagerly", True)
        compiled(self, *args, **kwargs)

    monkeypatch.setattr(owner, "compile", compile_eagerly)


@pytest.fixture(autouse=True)
def _seeds() -> None:
    keras.utils.set_random_seed(0)
