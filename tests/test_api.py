"""Every public name is documented, has a docstring and full type annotations."""

import inspect
import re
import types
from pathlib import Path

import pytest

import keras_vqvae
from tests.inside import inside

API = Path(__file__).parents[1] / "docs" / "api.md"
PUBLIC = sorted({*keras_vqvae.__all__, *inside(keras_vqvae).NEED_TENSORFLOW})
ROOMS = [keras_vqvae.functional, keras_vqvae.layers, keras_vqvae.likelihoods, keras_vqvae.metrics,
         keras_vqvae.models, keras_vqvae.sampling, keras_vqvae.spectral]  # fmt: skip
# What these do is said by Keras, or by the class they override.
INHERITED = {"build", "call", "get_config", "from_config", "compute_output_shape", "fit",
             "compute_loss", "result", "update_state", "reset_state", "export"}  # fmt: skip


def test_all_names_are_there() -> None:
    assert sorted(keras_vqvae.__all__, key=str) == sorted(set(keras_vqvae.__all__))
    for name in keras_vqvae.__all__:
        assert hasattr(keras_vqvae, name)
    assert set(PUBLIC) <= set(dir(keras_vqvae))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        keras_vqvae.nothing  # noqa: B018


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", sorted(inside(keras_vqvae).NEED_TENSORFLOW))
def test_names_loaded_on_demand_are_there(name: str) -> None:
    assert getattr(keras_vqvae, name) is not None


def test_every_name_is_in_the_reference() -> None:
    bullets = re.findall(r"^[-*] (.*)", API.read_text(), flags=re.MULTILINE)
    listed = {name for line in bullets for name in re.findall(r"`([\w.]+)`", line)}
    assert set(PUBLIC) - listed == set(), "docs/api.md lacks these"


def public_functions(thing: object, name: str) -> list[tuple[str, object]]:
    """Functions and classes of a module, and the methods of classes, with dotted names."""
    found = []
    if isinstance(thing, types.ModuleType):
        for key, value in vars(thing).items():
            own = getattr(value, "__module__", "") or ""
            if not key.startswith("_") and own.startswith("keras_vqvae"):
                found += public_functions(value, f"{name}.{key}")
    elif inspect.isclass(thing):
        found.append((name, thing))
        for key, value in vars(thing).items():
            value = getattr(value, "__func__", value)  # class and static methods
            if isinstance(value, property):
                value = value.fget
            if inspect.isfunction(value) and (not key.startswith("_") or key == "__init__"):
                found.append((f"{name}.{key}", value))
    elif inspect.isfunction(thing):
        found.append((name, thing))
    return found


THINGS = {
    name: thing
    for module in [keras_vqvae, *ROOMS]
    for name, thing in public_functions(module, module.__name__)
}


def is_said_elsewhere(name: str, thing: object) -> bool:
    """Whether a method overrides a documented one, or is a name that says all."""
    method = name.split(".")[-1]
    if method in INHERITED or method == "__init__":
        return True
    owner = THINGS.get(name.rpartition(".")[0])
    return inspect.isclass(owner) and any(
        (vars(base).get(method) is not None) and inspect.getdoc(vars(base)[method])
        for base in owner.__mro__[1:]
    )


@pytest.mark.parametrize("name", sorted(THINGS))
def test_docstring_and_annotations(name: str) -> None:
    thing = THINGS[name]
    if inspect.isclass(thing):
        assert (thing.__doc__ or "").strip(), f"{name} has no docstring"
        return
    is_property = isinstance(
        inspect.getattr_static(THINGS.get(name.rpartition(".")[0]), name.split(".")[-1], None),
        property,
    )
    if not is_property and not is_said_elsewhere(name, thing):
        assert (thing.__doc__ or "").strip(), f"{name} has no docstring"
    signature = inspect.signature(thing)
    assert signature.return_annotation is not signature.empty, f"{name}: no return type"
    for parameter in signature.parameters.values():
        if parameter.name not in ("self", "cls"):
            assert parameter.annotation is not parameter.empty, (
                f"{name}: {parameter.name} has no type"
            )
