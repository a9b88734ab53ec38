"""Answers in the output format of the UAI inference competitions.

The first line is the task. Then, for each evidence sample: a base-10 logarithm (``PR``), the number of variables
and for each its number of states and their probabilities (``MAR``), the number of variables and their states
(``MAP``), or the number of asked variables and each with its state (``MMAP``). Where there is more than one
sample, their number stands on a line before them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence


def format_pr(log_evidence: Iterable[float]) -> str:
    """The answer of task PR.

    Args:
        log_evidence: for each sample, the natural logarithm of Z or of the probability of evidence.

    >>> print(format_pr([0.0, -math.inf]), end="")
    PR
    2
    0.0
    -inf
    """
    return _answer("PR", [repr(value / math.log(10)) for value in log_evidence])


def format_mar(marginals: Iterable[Sequence[Sequence[float]]]) -> str:
    """The answer of task MAR.

    Args:
        marginals: for each sample, for every variable in the network's order, the probabilities of its states;
            an observed variable has probability 1 at its state.

    >>> print(format_mar([[[0.25, 0.75], [1.0]]]), end="")
    MAR
    2 2 0.25 0.75 1 1.0
    """
    return _answer(
        "MAR",
        [
            " ".join([str(len(sample)), *(" ".join([str(len(row)), *map(repr, row)]) for row in sample)])
            for sample in marginals
        ],
    )


def format_map(assignments: Iterable[Sequence[int]]) -> str:
    """The answer of task MAP.

    Args:
        assignments: for each sample, the state of every variable in the network's order, counted from 0.

    >>> print(format_map([[0, 1], [1, 1]]), end="")
    MAP
    2
    2 0 1
    2 1 1
    """
    return _answer("MAP", [" ".join(map(str, [len(sample), *sample])) for sample in assignments])


def format_mmap(assignments: Iterable[Mapping[int, int]]) -> str:
    """The answer of task MMAP.

    Args:
        assignments: for each sample, the asked variables' numbers with their states, counted from 0.

    >>> print(format_mmap([{7: 1, 11: 0}]), end="")
    MMAP
    2 7 1 11 0
    """
    return _answer(
        "MMAP",
        [
            " ".join(map(str, [len(sample), *(each for pair in sample.items() for each in pair)]))
            for sample in assignments
        ],
    )


def _answer(task: str, samples: Sequence[str]) -> str:
    counted = [] if len(samples) == 1 else [str(len(samples))]
    return "\n".join([task, *counted, *samples]) + "\n"
