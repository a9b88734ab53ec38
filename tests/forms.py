"""The ways in which a handler is used, for tests that hold of each."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

Program = Callable[..., Any]


def forms(handler: Any, program: Program, **arguments: Any) -> dict[str, Program]:
    """The program handled in every way that there is; all of them do the same."""

    def managed(*args: Any, **kwargs: Any) -> Any:
        with handler(**arguments):
            return program(*args, **kwargs)

    decorate = handler(**arguments)
    return {
        "function": handler(program, **arguments),
        "decorator": handler(**arguments)(program),
        "decorator used before": (decorate(lambda: None), decorate(program))[1],
        "context manager": managed,
        "copy": copy.deepcopy(handler(**arguments))(program),
        "copy of a handled program": copy.deepcopy(handler(program, **arguments)),
    }


def in_threads(*programs: Program) -> list[Any]:
    """Runs the programs side by side and returns what they return; what one raises is raised."""
    results: list[Any] = [None] * len(programs)
    problems: list[BaseException] = []

    def run(place: int) -> None:
        try:
            results[place] = programs[place]()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(programs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    if problems:
        raise problems[0]
    return results
