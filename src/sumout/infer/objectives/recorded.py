"""Objectives that record their computation once, and from then on run what was recorded.

A small model spends most of a step in Python: handlers, distributions, shapes. ``torch.jit.trace`` keeps only the
operations on tensors. What the program decides in Python is decided once; so is what is checked.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import transform_to

from sumout.effects import Message, Messenger
from sumout.effects.handlers import BlockMessenger, TraceMessenger
from sumout.effects.primitives import get_param_store, param
from sumout.effects.random_state import kept_rng_state
from sumout.errors import ModelError
from sumout.execute import unchecked
from sumout.infer.objectives.elbo import ELBO
from sumout.infer.objectives.pair import Args, Kwargs, Program
from sumout.infer.objectives.trace_elbo import Trace_ELBO
from sumout.infer.objectives.trace_mean_field_elbo import TraceMeanField_ELBO
from sumout.infer.objectives.traceenum_elbo import TraceEnum_ELBO
from sumout.infer.objectives.tracemarkovenum_elbo import TraceMarkovEnum_ELBO
from sumout.infer.objectives.tracetmc_elbo import TraceTMC_ELBO
from sumout.infer.programs.around import has_handlers_around


class _Recording(NamedTuple):
    """A recorded loss: a function of the tensors among the arguments, then of the unconstrained parameters.

    It gives the loss and whether that is wrong: a sweep that does not look at its numbers may find them too far apart.
    """

    loss: Callable[..., tuple[Tensor, Tensor]]
    params: tuple[str, ...]
    kinds: tuple[Any, ...]
    """What the parameters were like when it was made."""

    def fits(self) -> bool:
        """Whether the parameters are like that now: the store may have been cleared, or loaded."""
        store = get_param_store()
        return all(name in store for name in self.params) and _kinds(self.params) == self.kinds


class _Params(Messenger):
    """Gives parameters values that are made of the recording's inputs."""

    def __init__(self, unconstrained: Mapping[str, Tensor], constraints: Mapping[str, Any]) -> None:
        super().__init__()
        self.unconstrained = unconstrained
        self.constraints = constraints

    def _pyro_param(self, msg: Message) -> None:
        name = msg.name or ""
        if name in self.unconstrained:
            msg.value = transform_to(self.constraints[name])(self.unconstrained[name])
            msg.done = True

    def _pyro_post_sample(self, msg: Message) -> None:
        # A recording does not keep that a value was drawn without gradients, and operations rely on it.
        if isinstance(msg.value, Tensor) and not msg.value.requires_grad and not msg.is_observed:
            msg.value = msg.value.detach()


def _kinds(params: Iterable[str]) -> tuple[Any, ...]:
    """The constraints of parameters, and of what shapes and types they are."""
    store = get_param_store()
    leaves = dict(store.named_parameters())
    return tuple(
        [
            (store.constraint_of(name), leaves[name].shape, leaves[name].dtype, leaves[name].device)
            for name in params
        ]
    )


def _leaf(name: str) -> Tensor:
    """A parameter, unconstrained; ``SVI`` sees which are used by the statement."""
    found: Tensor = param(name).unconstrained()  # type: ignore[attr-defined]
    return found


class _Recorded(ELBO):
    """What the ``Jit`` forms have in common.

    The first call with tensors of some shapes takes seconds. Later ones take a part of the time of the plain form, if
    what is computed is small and many small steps are not unrolled: see the reference for figures.

    Programs do the same operations in every run. Tensors that change from call to call are positional arguments; all
    other arguments are the same objects, or equal, for a recording to be used again. Tensors with gradients are
    parameters (``param``, ``module``). Checks of values are made when a recording is made only.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._recordings: dict[Any, _Recording] = {}

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The negative bound, estimated, as a scalar with a gradient.

        Under handlers around, as ``scale``, it is not recorded.
        """
        # Handlers may change what programs do; a trace alone does not.
        if has_handlers_around({TraceMessenger}):
            return super().differentiable_loss(model, guide, *args, **kwargs)
        recording = self._recording(model, guide, args, kwargs)
        leaves = list(map(_leaf, recording.params))
        drawn_from = torch.get_rng_state()
        # torch's rewriting of a recording gives wrong numbers where a formula writes into a tensor, and saves nothing.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            loss, wrong = recording.loss(*[each for each in args if isinstance(each, Tensor)], *leaves)
        if bool(wrong):
            torch.set_rng_state(drawn_from)
            return super().differentiable_loss(model, guide, *args, **kwargs)
        return loss

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The negative bound as a number; its gradient is added to the parameters' ``grad``."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _recording(self, model: Program, guide: Program, args: Args, kwargs: Kwargs) -> _Recording:
        key = (
            model,
            guide,
            tuple(
                [
                    (each.shape, each.dtype, each.device) if isinstance(each, Tensor) else (type(each), each)
                    for each in args
                ]
            ),
            tuple([(name, type(each), each) for name, each in sorted(kwargs.items())]),
        )
        if any(isinstance(each, Tensor) for each in kwargs.values()):
            raise ModelError(
                f"{type(self).__name__} takes tensors as positional arguments: those by keyword would be recorded as "
                "they are. Pass them by position."
            )
        try:
            found = self._recordings.get(key)
        except TypeError as error:
            raise ModelError(
                f"{type(self).__name__} was given an argument that has no hash, so that it cannot tell whether it "
                "has met it "
                "before. Pass tensors, numbers, strings or tuples of these."
            ) from error
        if found is None or not found.fits():
            found = self._recordings[key] = self._record(model, guide, args, kwargs)
        return found

    def _record(self, model: Program, guide: Program, args: Args, kwargs: Kwargs) -> _Recording:
        # A plain run makes the parameters, and all that is found out once: plates, plans, checks.
        with BlockMessenger(), kept_rng_state(), TraceMessenger(param_only=True) as capture:
            self.loss(model, guide, *args, **kwargs)
        names = tuple(capture.trace.nodes)
        count = sum(isinstance(each, Tensor) for each in args)
        constraints = get_param_store().get_state()["constraints"]

        def loss(*inputs: Tensor) -> tuple[Tensor, Tensor]:
            given = iter(inputs[:count])
            own = [next(given) if isinstance(each, Tensor) else each for each in args]
            params = _Params(dict(zip(names, inputs[count:], strict=True)), constraints)
            with BlockMessenger(), params, unchecked() as wrong:
                value = super(_Recorded, self).differentiable_loss(model, guide, *own, **kwargs)
            return value, torch.stack(wrong).any() if wrong else torch.zeros((), dtype=torch.bool)

        inputs = [each for each in args if isinstance(each, Tensor)]
        inputs += map(_leaf, names)
        if not inputs:
            raise ModelError(
                f"{type(self).__name__} has nothing to record: there are neither tensors among the arguments nor "
                "parameters. "
                "Use the plain form."
            )
        with warnings.catch_warnings(), kept_rng_state():
            warnings.simplefilter("ignore")
            traced: Callable[..., tuple[Tensor, Tensor]] = torch.jit.trace(  # type: ignore[no-untyped-call]
                loss, tuple(inputs), check_trace=False
            )
        return _Recording(traced, names, _kinds(names))


class JitTrace_ELBO(_Recorded, Trace_ELBO):
    """``Trace_ELBO`` that records a step and runs the recording; see ``differentiable_loss``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model(x):
    ...     z = sumout.sample("z", dist.Normal(0.0, 1.0))
    ...     sumout.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def posterior(x):
    ...     sumout.sample("z", dist.Normal(x / 2, 0.5**0.5))
    >>> elbo = JitTrace_ELBO()
    >>> [round(elbo.loss_and_grads(model, posterior, torch.tensor(x)), 4) for x in (1.0, 2.0)]
    [1.5155, 2.2655]
    """


class JitTraceMeanField_ELBO(_Recorded, TraceMeanField_ELBO):
    """``TraceMeanField_ELBO`` that records a step and runs the recording; see ``JitTrace_ELBO``."""


class JitTraceEnum_ELBO(_Recorded, TraceEnum_ELBO):
    """``TraceEnum_ELBO`` that records a step and runs the recording; see ``JitTrace_ELBO``.

    It pays where few operations are made: mixtures, and vectorized chains. A long loop over steps is recorded step by
    step, and no quicker than it was.
    """


class JitTraceMarkovEnum_ELBO(_Recorded, TraceMarkovEnum_ELBO):
    """``TraceMarkovEnum_ELBO`` that records a step and runs the recording: ``JitTraceEnum_ELBO`` by another name."""


class JitTraceTMC_ELBO(_Recorded, TraceTMC_ELBO):
    """``TraceTMC_ELBO`` that records a step and runs the recording; see ``JitTrace_ELBO``."""
