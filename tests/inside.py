"""What tests read or replace inside of the package, though it is private: all of it is named here.

`inside(layer).counts` is `layer._counts`. An attribute that gets another name gets it in `NAMES`.
"""

from typing import Any

import pytest

NAMES = {
    "ASTERISK": "_ASTERISK",
    "DamagedError": "_DamagedError",
    "FASHION_MNIST": "_FASHION_MNIST",
    "FESTIVAL": "_FESTIVAL",
    "FILLETS": "_FILLETS",
    "MAX_CHILDREN": "_MAX_CHILDREN",
    "NEED_TENSORFLOW": "_NEED_TENSORFLOW",
    "OPEN_FILES": "_OPEN_FILES",
    "SHUFFLE_BYTES": "_SHUFFLE_BYTES",
    "SubParsersAction": "_SubParsersAction",
    "Walker": "_Walker",
    "actions": "_actions",
    "as_serialized_graph": "_as_serialized_graph",
    "base": "_base",
    "call": "_call",
    "changes": "_changes",
    "check_keras": "_check_keras",
    "cluster_resolver": "_cluster_resolver",
    "codes_and_actions": "_codes_and_actions",
    "compiled_functions": "_compiled_functions",
    "condition": "_condition",
    "counts": "_counts",
    "decode": "_decode",
    "embedding": "_embedding",
    "encode": "_encode",
    "error": "_error",
    "features": "_features",
    "first": "_first",
    "flatten_layers": "_flatten_layers",
    "flite": "_flite",
    "frames_given": "_frames_given",
    "interpolation": "_interpolation",
    "layers": "_layers",
    "layers_in_order": "_layers_in_order",
    "log_prob": "_log_prob",
    "logits": "_logits",
    "make_callable_from_options": "_make_callable_from_options",
    "metadata": "_metadata",
    "nearness": "_nearness",
    "of_one_kind": "_of_one_kind",
    "offset": "_offset",
    "option_string_actions": "_option_string_actions",
    "packets": "_packets",
    "past": "_past",
    "pitch": "_pitch",
    "progress_bar": "_progress_bar",
    "range": "_range",
    "read": "_read",
    "reconstruct": "_reconstruct",
    "replica_context": "_replica_context",
    "run": "_run",
    "scale": "_scale",
    "seed_generator": "_seed_generator",
    "setting": "_setting",
    "speakers": "_speakers",
    "stack": "_stack",
    "start": "_start",
    "started": "_started",
    "sums": "_sums",
    "to_json": "_to_json",
    "told": "_told",
    "upright": "_upright",
    "vectors": "_vectors",
    "voice": "_voice",
}


class inside:  # noqa: N801 - reads like a function
    """Gives and takes the private attributes of `thing` by the names of `NAMES`."""

    def __init__(self, thing: Any) -> None:
        object.__setattr__(self, "thing", thing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.thing, NAMES[name])

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.thing, NAMES[name], value)


def replace(monkeypatch: pytest.MonkeyPatch, thing: Any, name: str, value: Any) -> None:
    """Replaces a private attribute of `thing` until the test ends."""
    monkeypatch.setattr(thing, NAMES[name], value)
