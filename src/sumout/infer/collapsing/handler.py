"""The handler that integrates continuous sites out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

from sumout.distributions.conjugacy import FAMILIES, GAUSSIAN
from sumout.distributions.families import innermost, is_distribution
from sumout.effects import Message, block_messengers
from sumout.effects.delayed import Delayed
from sumout.effects.handlers import BlockMessenger, TraceMessenger
from sumout.effects.handlers.trace import TraceHandler
from sumout.effects.handlers.wrap import wrap
from sumout.effects.random_state import kept_rng_state
from sumout.effects.stack import state
from sumout.errors import DuplicateSiteError, ModelError
from sumout.infer.collapsing.barren import integrated, is_discrete_latent, without_unused
from sumout.infer.collapsing.draws import draws
from sumout.infer.collapsing.emission import emit, emit_discrete, emit_observed, homes
from sumout.infer.collapsing.recorded import delayed_value, probe_of
from sumout.infer.collapsing.refused import check_given, refuse_left_alone, refuse_settled
from sumout.infer.collapsing.told import told_of
from sumout.infer.collapsing.uncollapsed import Uncollapsed
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.parameters import delayed_parameters, with_numbers
from sumout.lower.collapse.refusals import NotConjugateError
from sumout.lower.collapse.sites import CollapsedSite

P = ParamSpec("P")
T = TypeVar("T")


class _Mark:
    """What a site carries from the collapsing handler outwards and back: what it met on its way there.

    ``fn`` is the distribution of the program; handlers outside see one with numbers in the place of delayed parameters.
    ``drawn`` was drawn from that: a site that has another value got it from one of them.
    """

    def __init__(self, owner: CollapseMessenger, msg: Message, delayed: bool) -> None:
        self.owner = owner
        self.scale = msg.scale
        self.mask = msg.mask
        self.inner = msg.cond_indep_stack
        self.fn = msg.plain_fn
        self.delayed = delayed
        self.drawn: Any = None


class CollapseMessenger(TraceMessenger):
    """Integrates conjugate and Gaussian sites out, exactly.

    A latent site of a family that has conjugate observations (Beta, Dirichlet, Gamma, InverseGamma, Normal,
    MultivariateNormal) gets a delayed value. What the program computes of it, and which sites depend on it how, is
    remembered; at the end of the context all of them together become one factor, the integral of their densities, as
    if ``factor`` had been called with it. Handlers outside see the factor only. Observations may be any in number, in
    any plates, masked and scaled; enumerated sites may choose among parameters.

    A site marked ``infer={"collapse": False}`` is left alone. ``barrier(value)`` draws what is delayed so far from its
    exact posterior, and goes on with plain tensors.

    Args:
        marked: whether only sites marked ``infer={"collapse": True}`` are integrated out.
        strict: whether it is an error that an integral is not known. Otherwise the sites that are to blame are left
            alone, and ``explain()`` says why; only for decorated programs, of which a trial run is made first.
        approximate: ``"moment_matching"`` for switching systems, in which enumerated sites tie Gaussian ones over
            many steps, so that the exact integral has a term for each of their joint values. Each time that earlier
            enumerated sites have no more to say than through a Gaussian one, the mixture over their values is
            replaced by one normal distribution of the same mass, mean and covariance, for each value of the
            enumerated sites that later ones depend on: the generalised pseudo-Bayes filter (Kim 1994; Murphy 1998).
            Evidence and posteriors of enumerated sites are then approximate, but for two steps or fewer, or where
            all that is merged is equal. Observations after a merge tell of the enumerated sites before it only
            through those that are kept, nothing where none is. Of the merged Gaussian sites no posteriors are kept.
            ``explain()`` names the sites; the factors that stand for them have ``infer["approximate"]``. Groups of
            sites for which no mixture has to be replaced stay exact.
        args, kwargs: as for ``TraceMessenger``.

    Raises:
        ModelError: when the context ends, if an integral is not known in closed form, or if it ties all elements of
            a plate together in which another site is enumerated.

    >>> import torch
    >>> import sumout.distributions as dist
    >>> from sumout import infer, plate, sample
    >>> def coins(flips):
    ...     bias = sample("bias", dist.Beta(2.0, 2.0))
    ...     with plate("flips", len(flips)):
    ...         sample("flip", dist.Bernoulli(bias), obs=flips)
    >>> infer.log_evidence(collapse(coins))(torch.tensor([1.0, 1.0, 0.0])).exp()
    tensor(0.1000)
    """

    def __init__(
        self,
        *args: Any,
        marked: bool = False,
        strict: bool = True,
        approximate: Literal["moment_matching"] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if approximate not in (None, "moment_matching"):
            raise ValueError(
                f"collapse was given approximate={approximate!r}, and knows 'moment_matching' and None only."
            )
        self.approximate = approximate
        self.marked = marked
        self.strict = strict
        self._reasons: dict[str, str] = {}
        self._is_trial = False
        self._outcome: dict[str, str] = {}

    def __call__(self, fn: Callable[P, T]) -> TraceHandler[P, T]:
        return super().__call__(fn if self.strict else self._tried(fn))

    def explain(self) -> str:
        """Which sites are integrated out, and which are not, and why; of the last run that was no trial."""
        lines = [f"{name}: {what}" for name, what in self._outcome.items()]
        return "\n".join(lines + [f"{name}: left alone. {why}" for name, why in self._reasons.items()])

    def _tried(self, fn: Callable[P, T]) -> Callable[P, T]:
        """The program after trial runs that tell which sites have no closed form."""

        @functools.wraps(fn)
        def program(*args: P.args, **kwargs: P.kwargs) -> T:
            while True:
                trial = CollapseMessenger(marked=self.marked, approximate=self.approximate)
                trial._is_trial = True
                trial._reasons = self._reasons
                try:
                    with kept_rng_state(), BlockMessenger(), trial:
                        fn(*args, **kwargs)
                except NotConjugateError as error:
                    if not set(error.sites) - self._reasons.keys():
                        raise  # Another trial would be the same.
                    self._reasons.update(dict.fromkeys(sorted(error.sites), str(error)))
                else:
                    return fn(*args, **kwargs)

        return program

    def _begin(self) -> None:
        super()._begin()
        self._run.sites = []
        self._run.collapsed = []
        self._run.names = set()
        self._run.settled = {}
        self._run.before = {}
        self._run.approximations = {}
        self._run.rehearsed = False

    def _pyro_sample(self, msg: Message) -> None:
        if "_collapse" in msg.infer or not is_distribution(msg.plain_fn):
            return
        delayed = delayed_parameters(msg.plain_fn)
        if isinstance(msg.value, Delayed):
            delayed.append(msg.value)
        if delayed and not self._owns(delayed):
            return  # They are delayed by a context outside of this one.
        if msg.infer.get("_deterministic") and delayed:
            msg.infer["_do_not_trace"] = True  # Nothing is drawn, and no density asked for.
            _set_fn(msg, with_numbers(msg.plain_fn, lambda value: value.probe))
            return
        if not delayed and not self._wants(msg):
            return
        for value in delayed:
            refuse_settled(msg, value, self._run.settled)
        refuse_left_alone(msg, delayed, self._reasons)
        msg.infer.pop("_undrawable", None)  # What is drawn for a step of a chain is a probe only.
        mark = msg.infer["_collapse"] = _Mark(self, msg, bool(delayed))
        msg.infer["_do_not_trace"] = True
        if delayed:
            _set_fn(msg, with_numbers(msg.plain_fn, lambda value: value.probe))
        if not (msg.done or msg.is_observed) and msg.value is None:
            with torch.no_grad():
                msg.value = mark.drawn = probe_of(msg.fn)

    def _owns(self, delayed: list[Delayed]) -> bool:
        """Whether some values are delayed here, or by no context around."""
        if any(name in self._run.names for value in delayed for name in value.sites):
            return True
        around = state.stack[: state.stack.index(self)]
        return not any(isinstance(frame, CollapseMessenger) for frame in around)

    def _wants(self, msg: Message) -> bool:
        if msg.done or msg.is_observed or msg.value is not None or msg.name in self._reasons:
            return False
        if not msg.infer.get("collapse", not self.marked):
            return False
        if any(isinstance(frame, Uncollapsed) for frame in state.stack):
            return False
        kind = type(innermost(msg.plain_fn))
        if kind in FAMILIES or kind in GAUSSIAN:
            return True
        if msg.infer.get("collapse") and not msg.plain_fn.support.is_discrete:
            self._refuse_family(msg, kind)
        return False

    def _refuse_family(self, msg: Message, kind: type) -> None:
        name = msg.name or ""
        known = ", ".join(each.__name__ for each in (*FAMILIES, *GAUSSIAN))
        why = (
            f"It is {kind.__name__}, which is conjugate to nothing that is known. Families that are: {known}."
        )
        if self.strict:
            raise NotConjugateError(f"Site {name!r} is marked infer={{'collapse': True}}. {why}", [name])
        self._reasons[name] = why

    def _pyro_post_sample(self, msg: Message) -> None:
        mark = msg.infer.get("_collapse")
        if mark is None or mark.owner is not self:
            super()._pyro_post_sample(msg)
            if msg.name is not None:
                self._run.before[msg.name] = sum([site.is_latent for site in self._run.sites])
            return
        if msg.value is mark.drawn:
            rehearsed = msg.infer.pop("_rehearsed", True if self._is_trial else None)
            self._run.rehearsed |= rehearsed is not None
            if not (rehearsed and mark.delayed and getattr(msg.plain_fn, "has_enumerate_support", False)):
                msg.value = delayed_value(msg)
        elif not msg.is_observed:
            check_given(msg, mark.delayed)
        self._check_name(msg.name or "")
        _set_fn(msg, mark.fn)
        site = CollapsedSite(msg.copy(), mark.scale, mark.mask, mark.inner)
        self._run.sites.append(site)
        self._run.collapsed.append(site)

    def _check_name(self, name: str) -> None:
        """Refuses a second site of a name; traces do, but do not see collapsed ones."""
        traces = [self.trace, *[frame.trace for frame in state.stack if isinstance(frame, TraceMessenger)]]
        if name in self._run.names or any(name in trace.nodes for trace in traces):
            raise DuplicateSiteError(
                f"There are two sites or plates of the name {name!r}. Rename one of them."
            )
        self._run.names.add(name)

    def _pyro_barrier(self, msg: Message) -> None:
        (data,) = msg.args
        if msg.done or not isinstance(data, Delayed):
            return
        inside = state.stack.index(self)
        frames = {id(frame) for frame in state.stack[inside:]}
        with block_messengers(lambda frame: id(frame) in frames):
            self._finish(draw=True)
        msg.value = data.at(self._run.settled)
        msg.done = True

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        result = super().__exit__(exc_type, exc, trace)
        if exc_type is None:
            self._finish()
            if not (self._run.rehearsed and self._outcome):
                how = self._run.approximations
                self._outcome = {
                    site.name: f"integrated out, approximately: {how[site.name]}"
                    if site.name in how
                    else "integrated out"
                    for site in self._run.collapsed
                    if site.is_latent
                }
        return result

    def _finish(self, draw: bool = False) -> None:
        """Turns all sites so far into factors, and draws them if asked to."""
        sites: list[CollapsedSite] = []
        for site in self._run.sites:
            if isinstance(site.value, Delayed) or delayed_parameters(site.fn):
                sites.append(site)
            else:
                emit_observed(site)
        if not sites:
            self._run.sites = []
            return
        traces = [
            self.trace,
            *[frame.trace for frame in reversed(state.stack) if isinstance(frame, TraceMessenger)],
        ]
        sites = without_unused(sites, traces)
        for site in sites:
            if is_discrete_latent(site):
                emit_discrete(site)
        discrete = homes(sites, traces)
        told = None if self.approximate is None else told_of(self.trace, self._run.before, discrete)
        try:
            integrals, predicted = integrated(sites, discrete, told)
        except NotConjugateError:
            if self._is_trial or not self._run.rehearsed:
                raise
            # In a rehearsal it is not known whether discrete sites are used: the run proper tells.
            integrals, predicted = [Integral((), torch.zeros(()), sites[0].name, {}, None)], ()
        for number, integral in enumerate(integrals):
            if integral.approximation is not None:
                self._run.approximations.update(dict.fromkeys(integral.latents, integral.approximation))
            drawn: dict[str, Tensor] = {}
            if draw:
                if integral.discrete:
                    raise ModelError(
                        f"barrier is to draw site {integral.first!r}, whose posterior depends on "
                        f"enumerated sites {sorted(integral.discrete)}. Draw these first, or leave barrier out."
                    )
                drawn = {name: value[0] for name, value in draws(integral, 1).values.items()}
                self._run.settled.update(drawn)
            emit(integral, sites, () if number else predicted, drawn)
        self._run.sites = []


def _set_fn(msg: Message, fn: Any) -> None:
    """Another distribution, along the same plates."""
    msg.plain_fn, msg._fn = fn, None


collapse = wrap(CollapseMessenger)
