"""Chains of contexts: loops, recursive functions and plain contexts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from sumout.effects.handlers.chain import MarkovLoop, VectorizedMarkov
from sumout.effects.handlers.contexts import MarkovMessenger
from sumout.errors import ModelError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@overload
def markov(
    fn: None = None, history: int = 1, keep: bool = False, dim: int | None = None, name: str | None = None
) -> MarkovMessenger: ...
@overload
def markov(
    fn: F, history: int = 1, keep: bool = False, dim: int | None = None, name: str | None = None
) -> F: ...
@overload
def markov(
    fn: Iterable[T], history: int = 1, keep: bool = False, dim: int | None = None, name: str | None = None
) -> Iterable[T]: ...
def markov(
    fn: Any = None, history: int = 1, keep: bool = False, dim: int | None = None, name: str | None = None
) -> Any:
    """Declares that each step depends on the last ``history`` steps alone.

    It is a loop (``for t in markov(range(T))``), a decorator of a recursive function (``@markov``), or a
    context manager that is entered once for each step (``with markov() as chain: ...``). Enumerated sites of
    steps out of reach give their tensor dimensions to new ones, so a chain of any length needs few.

    With ``dim`` and ``name`` a loop over a range takes many steps at once; see ``vectorized_markov``.

    Args:
        fn: what is iterated, or the function; absent for a context manager or a decorator with arguments.
        history: the number of earlier steps that a step depends on.
        keep: whether neighbouring branches of a recursion at the same level may depend on each other.
        dim: the negative batch dimension along which steps are taken at once.
        name: tells the chain from others; a model and a guide may loop over chains of one name in different ways.

    Raises:
        ValueError: if ``fn`` is neither a function nor iterable.
        ModelError: if ``history`` is no natural number, if ``dim`` is given without ``name``, or for what is no loop
            over a range.

    >>> [t for t in markov(range(3))]
    [0, 1, 2]
    >>> list(markov(range(4), dim=-1, name="time"))
    [0, Steps([0, 1, 2]), Steps([1, 2, 3])]
    """
    if dim is not None and isinstance(fn, range):
        return _vectorized(fn, history, keep, dim, name)
    chain = MarkovMessenger(history=history, keep=keep, dim=dim, name=name)
    if fn is None:
        return chain
    if callable(fn):
        return chain(fn)
    if not isinstance(fn, Iterable):
        raise ValueError(
            f"markov takes a loop's range or a function and was given {fn!r}. Pass history by keyword, "
            "e.g. markov(range(10), history=2)."
        )
    if dim is not None:
        raise ModelError(
            f"markov has dim={dim} and loops over {type(fn).__name__}. Steps that are taken at once are the numbers "
            "of a range: for t in markov(range(len(data)), dim=-1, name='time')."
        )
    return MarkovLoop(fn, history, keep, name)


def vectorized_markov(
    name: str | None = None, size: int | None = None, dim: int | None = None, history: int = 1
) -> VectorizedMarkov:
    """A loop over the steps of a chain that takes many steps at once: ``for t in vectorized_markov("time", T)``.

    The numbers of the first ``history`` steps come one by one, ``t = 0, ..., history - 1``. Then ``t`` is an index
    tensor, ``history + 1`` times: ``[0, ..., T - history - 1]``, and so on up to ``[history, ..., T - 1]``. What the
    last of these computes is the chain; the others give the values of earlier steps that it looks back at, and
    do not count. Sites are named after their steps: ``f"x_{t}"`` is ``"x_slice(1, 5, None)"``. In results they
    are called as in a loop: ``x_0, ..., x_4``, and all results are those of the loop.

    A step's number tells whether it is one of the first: ``isinstance(t, int)``. Sites of later steps are
    enumerated, observed, or replayed; they cannot be drawn, as steps that depend on each other are drawn one by
    one (leave ``dim`` out for that).

    Args:
        name: tells the chain from others.
        size: the number of steps ``T``.
        dim: the negative batch dimension of the steps; by default the rightmost that is free.
        history: the number of earlier steps that a step depends on; with zero the chain is a plate.

    Raises:
        ModelError: if name or size are missing or not sensible; see ``VectorizedMarkov`` for those of the loop.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> start, move = torch.tensor([0.5, 0.5]), torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    >>> def model(data):
    ...     for t in vectorized_markov("time", len(data)):
    ...         x = sumout.sample(f"x_{t}", dist.Categorical(start if isinstance(t, int) else move[x]))
    ...         sumout.sample(f"y_{t}", dist.Normal(x, 1.0), obs=data[t])
    >>> marginals = sumout.infer.marginals(model)(torch.tensor([0.3, 1.4, 0.9, -0.2]))
    >>> list(marginals), marginals["x_2"].probs
    (['x_0', 'x_1', 'x_2', 'x_3'], tensor([0.5411, 0.4589]))
    """
    if name is None or size is None:
        raise ModelError(
            "vectorized_markov needs a name and a size, e.g. vectorized_markov('time', len(data))."
        )
    if not isinstance(size, int) or size < 1:
        raise ModelError(f"Chain {name!r} has size {size!r}; it is the number of steps, at least 1.")
    return VectorizedMarkov(name, size, dim, history)


def _vectorized(steps: range, history: int, keep: bool, dim: int, name: str | None) -> VectorizedMarkov:
    if name is None:
        raise ModelError(
            f"markov has dim={dim} and no name. Name the chain: markov(range(T), dim={dim}, name='time')."
        )
    if keep or steps.step != 1 or len(steps) == 0 or steps.start < 0:
        raise ModelError(
            f"Chain {name!r} takes its steps at once: over {steps} with keep={keep}. "
            "It takes a range that counts upwards by one from zero or more, without keep."
        )
    return VectorizedMarkov(name, len(steps), dim, history, steps.start)
