"""Options that a loader hands on to another."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any


def filled_in(caller: str, function: Callable, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, and the defaults of what else can be given to `function` by name only.

    Args:
        caller: for the message: whose options they are.
        function: which knows them.
        given: some of them.

    Raises:
        TypeError: `function` has no such option; the message has its name and those that there are.
    """
    known = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f" Did you mean `{near[0]}`?" if near else ""
            raise TypeError(f"{caller} has no option `{name}`.{meant} It has {', '.join(known)}.")
    return {**known, **given}
