"""What `sumout query` can be asked: one entry of a table, and one module, for each task.

The table is light; a task's module, and all that it needs, is imported when the task is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sumout.cli.tasks.task import Task


class Entry(NamedTuple):
    """A task in the table: a line of help, and how to get it."""

    summary: str
    load: Callable[[], Task]


def _pr() -> Task:
    from sumout.cli.tasks.probability import PROBABILITY

    return PROBABILITY


def _mar() -> Task:
    from sumout.cli.tasks.marginals import MARGINALS

    return MARGINALS


def _map() -> Task:
    from sumout.cli.tasks.assignment import ASSIGNMENT

    return ASSIGNMENT


def _mmap() -> Task:
    from sumout.cli.tasks.marginal_assignment import MARGINAL_ASSIGNMENT

    return MARGINAL_ASSIGNMENT


def _sample() -> Task:
    from sumout.cli.tasks.samples import SAMPLES

    return SAMPLES


def _entropy() -> Task:
    from sumout.cli.tasks.entropy import ENTROPY

    return ENTROPY


TASKS: dict[str, Entry] = {
    "pr": Entry("the probability of the evidence", _pr),
    "mar": Entry("posterior marginals of every node, or of those named by --query", _mar),
    "map": Entry("the most probable assignment of all nodes", _map),
    "mmap": Entry("the most probable assignment of the nodes named by --query, the others summed out", _mmap),
    "sample": Entry("joint posterior samples, as many as --samples says", _sample),
    "entropy": Entry(
        "the entropy in nats of what is not observed, or of the nodes named by --query", _entropy
    ),
}
"""Every task by its name on the command line."""
