"""Names that no site used are reported once a run, with the nearest name, and cost nothing without validation."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout import infer, optim
from sumout.effects import Message, NonlocalExit, Trace
from sumout.effects.handlers import (
    block,
    condition,
    do,
    enum,
    escape,
    lift,
    replay,
    substitute,
    trace,
)
from sumout.effects.handlers.named import NamedMessenger, unused_names_allowed
from sumout.effects.primitives import deterministic, get_param_store, param, plate, sample
from sumout.settings import settings

ONE = torch.tensor(1.0)


@pytest.fixture(autouse=True)
def _params_of_each_test() -> Any:
    with get_param_store().scope():
        yield


def model() -> Any:
    rate = param("rate", torch.tensor(2.0))
    smoke = sample("smoke", dist.Normal(rate, 1.0))
    return sample("cancer", dist.Normal(smoke, 1.0))


def other() -> Any:
    sample("smkoe", dist.Normal(0.0, 1.0))
    sample("smoke", dist.Normal(0.0, 1.0), obs=ONE)
    sample("hidden", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
    sample("seen", dist.Normal(0.0, 1.0), obs=ONE)
    with plate("data", 3, subsample_size=2):
        deterministic("twice", ONE)
    return param("rate", ONE)


def reports(program: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        program()
    assert all(each.category is UserWarning for each in caught)
    return [str(each.message) for each in caught]


# ----------------------------------------------------------------------------------------------- what is reported

WRONG: dict[str, Callable[[Any], Any]] = {
    "condition": lambda fn: condition(fn, data={"smkoe": ONE}),
    "do": lambda fn: do(fn, data={"smkoe": ONE}),
    "replay": lambda fn: replay(fn, trace=trace(lambda: sample("smkoe", dist.Normal(0.0, 1.0))).get_trace()),
    "substitute": lambda fn: substitute(fn, data={"raet": ONE}),
    "lift": lambda fn: lift(fn, prior={"raet": dist.Normal(0.0, 1.0)}),
}

RIGHT: dict[str, Callable[[Any], Any]] = {
    "condition": lambda fn: condition(fn, data={"smoke": ONE, "cancer": None}),
    "do": lambda fn: do(fn, data={"smoke": ONE, "smkoe": None}),
    "replay": lambda fn: replay(
        fn, trace=trace(model).get_trace(), params={"rate": get_param_store()["rate"]}
    ),
    "substitute": lambda fn: substitute(fn, data={"rate": ONE, "raet": None}),
    "lift": lambda fn: lift(fn, prior={"rate": dist.Normal(0.0, 1.0)}),
}

wrong = pytest.mark.parametrize("name", WRONG)


@wrong
def test_a_name_that_no_site_used(name: str) -> None:
    kind, given, meant = (
        ("param", "raet", "rate") if name in ("substitute", "lift") else ("sample", "smkoe", "smoke")
    )
    assert reports(WRONG[name](model)) == [
        f"{name} found no {kind} site named {given!r}. Did you mean {meant!r}? Correct the name or leave it out."
    ]


@pytest.mark.parametrize("name", RIGHT)
def test_names_that_are_used(name: str) -> None:
    model()
    assert reports(RIGHT[name](model)) == []
    assert reports(trace(RIGHT[name](model)).get_trace) == []


def test_many_names_are_one_report() -> None:
    data = {"smkoe": ONE, "cancer": ONE, "zzz": ONE}
    assert reports(condition(model, data=data)) == [
        "condition found no sample site named 'smkoe'. Did you mean 'smoke'? Nor 'zzz'. Correct the names or leave "
        "them out."
    ]
    (told,) = reports(condition(model, data={f"zzz_{i}": ONE for i in range(40)}))
    assert told.count("zzz_") == 5
    assert "Nor 35 more." in told


def test_a_param_is_no_sample_site() -> None:
    (told,) = reports(condition(model, data={"rate": ONE}))
    assert "'rate'" in told
    (told,) = reports(substitute(model, data={"smoke": ONE}))
    assert "no param site named 'smoke'" in told


def test_names_that_are_no_strings() -> None:
    (told,) = reports(condition(model, data={3: ONE}))  # type: ignore[dict-item]
    assert "named 3." in told


def test_no_sites_at_all() -> None:
    (told,) = reports(condition(lambda: None, data={"z": ONE}))
    assert "Did you mean" not in told


@pytest.mark.parametrize("handler", [replay, condition])
def test_of_a_trace_only_latent_sites_count(handler: Any) -> None:
    """Not those that are observed, deterministic, auxiliary, plates' or params."""
    given = trace(other).get_trace()
    argument = {"trace" if handler is replay else "data": given}
    given.nodes["smoke"].is_observed = False
    (told,) = reports(handler(model, **argument))
    assert told.startswith(
        f"{handler.__name__} found no sample site named 'smkoe'. Did you mean 'smoke'? Correct"
    )
    given.remove_node("smkoe")
    assert reports(handler(model, **argument)) == []


def test_params_of_replay() -> None:
    model()
    (told,) = reports(replay(model, params={"raet": get_param_store()["rate"]}))
    assert told.startswith("replay found no param site named 'raet'. Did you mean 'rate'?")
    both = replay(model, trace=trace(other).get_trace(), params={"rats": get_param_store()["rate"]})
    with pytest.raises(Exception, match="observed"):  # of one that the trace observes; no report then
        both()


# ------------------------------------------------------------------------------------------------------------ when


@wrong
def test_once_a_run_and_each_run(name: str) -> None:
    handled = WRONG[name](model)
    assert len(reports(handled)) == 1
    assert len(reports(lambda: (handled(), handled()))) == 2
    with settings.override(validation=False):
        assert reports(handled) == []


@wrong
def test_a_training_loop_is_not_flooded(name: str) -> None:
    """Under Python's usual filter a text is printed once for each line of the caller's that leads to it."""
    handled = WRONG[name](model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.simplefilter("default")
        for _ in range(5):
            handled()
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_the_line_told_of_is_the_callers() -> None:
    data = torch.ones(3)

    def program() -> None:
        with plate("data", 3):
            sample("x", dist.Normal(param("loc", torch.tensor(0.0)), 1.0), obs=data)

    svi = infer.SVI(
        condition(program, data={"y": data}), lambda: None, optim.Adam({"lr": 0.1}), infer.Trace_ELBO()
    )
    reports(svi.step)  # The first step of all imports things that touch the filters, which forget then.
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.simplefilter("default")
        svi.run(3)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_a_body_that_raises_is_not_reported() -> None:
    def run() -> None:
        with pytest.raises(KeyError), condition(data={"zzz": ONE}):
            raise KeyError

    assert reports(run) == []


def test_a_nonlocal_exit_is_not_reported() -> None:
    """The run is taken up again, and what was met before counts."""
    left = []

    def choose(site: Message) -> bool:
        left.append(site.name)
        return left == ["smoke", "cancer"]

    def run() -> None:
        with condition(data={"smoke": ONE, "cancer": ONE}):
            inside = escape(model, escape_fn=choose)
            try:
                inside()
            except NonlocalExit as exit_:
                exit_.reset_stack()
            inside()

    assert reports(run) == []
    assert left == ["smoke", "cancer", "smoke", "cancer"]

    def left_for_good() -> None:
        with pytest.raises(NonlocalExit):
            condition(escape(model, escape_fn=lambda site: True), data={"zzz": ONE})()

    assert reports(left_for_good) == []


def test_as_context_manager_and_in_turn() -> None:
    handler = condition(data={"smoke": ONE, "cancer": ONE})

    def run(part: Callable[[], Any]) -> Callable[[], Any]:
        def managed() -> None:
            with handler:
                part()

        return managed

    assert reports(run(model)) == []
    assert (
        len(reports(run(lambda: sample("smoke", dist.Normal(0.0, 1.0))))) == 1
    )  # nothing is left of the run before
    assert reports(run(model)) == []


def test_of_two_handlers_each_tells_its_own() -> None:
    data = {"smkoe": ONE}
    assert len(reports(condition(condition(model, data=data), data=data))) == 2
    inner_only = condition(condition(model, data={"smoke": ONE}), data=data)
    assert len(reports(inner_only)) == 1
    # An inner handler leaves the name to the outer one.
    assert reports(condition(condition(model, data={"smoke": ONE}), data={"smoke": ONE})) == []


def test_sites_that_a_block_hides_are_not_met() -> None:
    hidden = condition(block(model, hide=["smoke"]), data={"smoke": ONE})
    (told,) = reports(hidden)
    assert "'smoke'" in told
    assert told.endswith("Sites that a block inside hides are not found.")
    assert reports(block(condition(model, data={"smoke": ONE}))) == []


def test_an_enumerated_program_uses_its_names() -> None:
    def coins() -> None:
        z = sample("z", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        with plate("data", 2):
            sample("x", dist.Bernoulli(0.2 + 0.6 * z))

    data = {"x": torch.ones(2)}
    assert reports(condition(enum(coins, first_available_dim=-2), data=data)) == []
    assert reports(enum(condition(coins, data=data), first_available_dim=-2)) == []
    assert reports(infer.marginals(condition(coins, data=data))) == []

    def around() -> None:
        with condition(data=data):  # The trial run is hidden from it, the run proper is not.
            infer.log_evidence(coins)()

    assert reports(around) == []
    (told,) = set(reports(infer.marginals(condition(coins, data=data | {"y": ONE}))))
    assert "'y'" in told


def test_trial_runs_can_be_silent() -> None:
    handled = condition(model, data={"zzz": ONE})

    def run() -> None:
        with unused_names_allowed():
            with unused_names_allowed():
                pass
            handled()

    assert reports(run) == []
    with pytest.raises(KeyError), unused_names_allowed():
        raise KeyError
    assert len(reports(handled)) == 1


def test_threads_tell_their_own_runs() -> None:
    """One handler, two runs at the same time, of which one has the site."""
    handler = condition(data={"smoke": ONE})
    meeting = threading.Barrier(2, timeout=30)
    told: list[str] = []

    def with_site() -> None:
        meeting.wait()
        sample("smoke", dist.Normal(0.0, 1.0))
        meeting.wait()

    def without() -> None:
        meeting.wait()
        meeting.wait()

    def run(body: Callable[[], None]) -> None:
        try:
            handler(body)()
        except UserWarning as warning:
            told.append(f"{body.__name__}: {warning}")

    threads = [threading.Thread(target=run, args=(body,)) for body in (with_site, without)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 1
    assert told[0].startswith("without: condition found no sample site named 'smoke'")


def test_copies_begin_with_no_run() -> None:
    with condition(data={"smoke": ONE}) as handler:
        again = copy.deepcopy(handler)
        pickled = pickle.loads(pickle.dumps(handler))
        model()
    assert reports(again(model)) == []
    assert len(reports(pickled(lambda: None))) == 1


# ------------------------------------------------------------------------------------------------------ objectives


def fit(program: Callable[[], Any], guide: Callable[[], Any]) -> list[str]:
    return reports(lambda: infer.Trace_ELBO().loss(program, guide))


def latent() -> None:
    sample("mean", dist.Normal(0.0, 1.0))


def guide_of(*names: str) -> Callable[[], None]:
    def guide() -> None:
        for name in names:
            sample(name, dist.Normal(0.0, 1.0))

    return guide


def test_one_report_for_a_misspelt_site_of_a_guide() -> None:
    assert fit(latent, guide_of("maen")) == [
        "Site 'maen' is in the guide but is no latent site of the model. Did you mean 'mean'? "
        "Mark it infer={'is_auxiliary': True} if it is meant."
    ]
    assert fit(latent, guide_of("mean")) == []


def test_two_mistakes_are_two_reports() -> None:
    told = fit(latent, guide_of("zzz"))
    assert told[0].startswith("Site 'zzz' is in the guide but is no latent site of the model. Mark it")
    assert told[1].startswith(
        "Latent sites of the model that the guide lacks are drawn from the prior: ['mean']"
    )
    assert len(told) == 2
    assert len(fit(lambda: None, guide_of("a", "b"))) == 1


def test_trial_runs_of_objectives_are_silent() -> None:
    """The objective looks for the plates first; what is wrong is told once, by the run proper."""
    elbo = infer.Trace_ELBO(num_particles=2, vectorize_particles=True)
    assert len(reports(lambda: elbo.loss(latent, guide_of("maen")))) == 1
    elbo = infer.Trace_ELBO(num_particles=2, vectorize_particles=True)
    handled = condition(latent, data={"zzz": ONE})
    assert len(reports(lambda: elbo.loss(handled, guide_of("mean")))) == 1


# -------------------------------------------------------------------------------------------------- the base class


def test_a_handler_of_ones_own() -> None:
    class RenameManyMessenger(NamedMessenger):
        _kind = "param"

        def __init__(self, names: list[str]) -> None:
            super().__init__()
            self.names = names

        def _names(self) -> list[str]:
            return self.names

        def _expected(self, name: str) -> bool:
            return name != "optional"

        def _pyro_param(self, msg: Message) -> None:
            self._saw(msg)

    (told,) = reports(RenameManyMessenger(["rate", "raet", "optional"])(model))
    assert told.startswith("rename_many found no param site named 'raet'. Did you mean 'rate'?")
    handler = RenameManyMessenger(["raet"])
    handler.reports_unused = False
    assert reports(handler(model)) == []


def test_nothing_is_noted_without_validation() -> None:
    handler = condition(data={"smoke": ONE})
    with settings.override(validation=False), handler:
        assert handler._run.saw is None
        model()
    with handler:
        model()
        assert handler._run.seen == ["smoke", "cancer"]
    assert handler._run.seen is None


def test_an_empty_trace() -> None:
    assert reports(replay(model, trace=Trace())) == []
