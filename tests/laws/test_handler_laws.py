"""Laws that hold of every program: each is checked on random choices among the programs of ``models``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import MODELS, Model, Program, sumout_language
from sumout.effects import Message, Messenger, Trace
from sumout.effects.handlers import (
    block,
    condition,
    enum,
    infer_config,
    mask,
    replay,
    scale,
    seed,
    trace,
    uncondition,
)
from sumout.effects.primitives import get_param_store
from sumout.effects.random_state import get_rng_state
from sumout.effects.stack import state

models = st.sampled_from([MODELS[name] for name in sorted(MODELS)])
seeds = st.integers(0, 2**31)
positive = st.floats(0.01, 100.0)


@pytest.fixture(autouse=True, scope="module")
def _params_of_these_tests() -> Iterator[None]:
    with get_param_store().scope():
        yield


def record(program: Program, rng_seed: int) -> Trace:
    """One run, always the same for the same seed."""
    return trace(seed(program, rng_seed=rng_seed)).get_trace()


def sample_sites(recorded: Trace) -> dict[str, Message]:
    return {name: site for name, site in recorded.nodes.items() if site["type"] == "sample"}


def agree(one: Trace, other: Trace) -> None:
    """The same sites in the same order with the same values, log-probabilities and marks."""
    assert list(one) == list(other)
    for name, site in sample_sites(one).items():
        twin = other.nodes[name]
        assert torch.equal(torch.as_tensor(site["value"]), torch.as_tensor(twin["value"]))
        assert torch.equal(site["log_prob"], twin["log_prob"])
        for key in ("is_observed", "infer", "cond_indep_stack", "enum_dim", "enum_dims"):
            assert site[key] == twin[key]


def names_of(model: Model) -> st.SearchStrategy[set[str]]:
    return st.sets(st.sampled_from(model.latent + model.observed))


# ------------------------------------------------------------------------------------------ values of a run


@given(models, seeds)
def test_the_same_seed_gives_the_same_run(model: Model, rng_seed: int) -> None:
    before = torch.get_rng_state()
    agree(record(model.program(), rng_seed), record(model.program(), rng_seed))
    assert torch.equal(torch.get_rng_state(), before)


@given(models, seeds)
def test_replay_reproduces_a_trace(model: Model, rng_seed: int) -> None:
    before = record(model.program(), rng_seed)
    agree(before, trace(replay(model.program(), trace=before)).get_trace())


@given(models, seeds)
def test_replay_reproduces_an_enumerated_trace(model: Model, rng_seed: int) -> None:
    marked = infer_config(
        model.program(),
        config_fn=lambda site: {"enumerate": "parallel"} if site["name"] in model.discrete else {},
    )
    before = record(enum(marked, first_available_dim=-1 - model.max_plate_nesting), rng_seed)
    assert {name for name in before if before.nodes[name]["enum_dim"] is not None} == set(model.discrete)
    agree(before, trace(replay(marked, trace=before)).get_trace())


def with_obs(data: Mapping[str, Any]) -> Any:
    """The language in which ``sample`` is written with ``obs=`` for the given names."""
    language = sumout_language()

    def sample(name: str, fn: Any, *args: Any, **kwargs: Any) -> Any:
        if name in data:
            kwargs["obs"] = data[name]
        return language.sample(name, fn, *args, **kwargs)

    return SimpleNamespace(**{**vars(language), "sample": sample})


@given(models, seeds, seeds, st.data())
def test_condition_equals_obs(model: Model, seed_of_data: int, rng_seed: int, data: st.DataObject) -> None:
    names = data.draw(names_of(model).filter(lambda names: names.isdisjoint({"twice", "penalty"})))
    other = record(model.program(), seed_of_data)
    values = {name: other.nodes[name]["value"] for name in names}
    conditioned = record(condition(model.program(), data=values), rng_seed)
    agree(conditioned, record(model.program(with_obs(values)), rng_seed))
    assert names <= set(conditioned.observation_nodes)


@given(models, seeds, st.data())
def test_conditions_on_different_sites_commute(model: Model, rng_seed: int, data: st.DataObject) -> None:
    values = {name: site["value"] for name, site in sample_sites(record(model.program(), rng_seed)).items()}
    chosen = data.draw(names_of(model))
    one = {name: value for name, value in values.items() if name in chosen}
    other = {name: value for name, value in values.items() if name not in chosen}
    program = model.program()
    first = trace(condition(condition(program, data=one), data=other)).get_trace()
    agree(first, trace(condition(condition(program, data=other), data=one)).get_trace())
    agree(first, trace(condition(program, data=values)).get_trace())


@given(models, seeds)
def test_uncondition_leaves_nothing_observed(model: Model, rng_seed: int) -> None:
    plain = record(model.program(), rng_seed)
    free = record(uncondition(model.program()), rng_seed)
    assert free.observation_nodes == []
    assert list(free) == list(plain)
    for name in plain.observation_nodes:
        assert free.nodes[name]["infer"]["obs"] is not None


@given(models, seeds, seeds, st.data())
def test_uncondition_undoes_condition(
    model: Model, seed_of_data: int, rng_seed: int, data: st.DataObject
) -> None:
    names = data.draw(st.sets(st.sampled_from(model.latent)))
    other = record(model.program(), seed_of_data)
    values = {name: other.nodes[name]["value"] for name in names}
    free = record(uncondition(condition(model.program(), data=values)), rng_seed)
    expected = record(uncondition(model.program()), rng_seed)
    assert list(free) == list(expected)
    for name, site in sample_sites(expected).items():
        assert torch.equal(free.nodes[name]["value"], site["value"])
    for name, value in values.items():
        assert free.nodes[name]["infer"]["obs"] is value


# -------------------------------------------------------------------------------- who sees and who does not


@given(models, seeds, st.data())
def test_block_hides_outside_and_not_inside(model: Model, rng_seed: int, data: st.DataObject) -> None:
    hidden = data.draw(names_of(model))
    with seed(rng_seed=rng_seed), trace() as outside, block(hide=list(hidden)), trace() as inside:
        model.program()()
    assert set(outside.trace) == set(inside.trace) - hidden
    assert hidden <= set(inside.trace)
    with seed(rng_seed=rng_seed), trace() as outside, block(expose=list(hidden)), trace() as inside:
        model.program()()
    assert set(outside.trace) == hidden


NEUTRAL: dict[str, Callable[[Program], Any]] = {
    "messenger": Messenger(),
    "block": lambda program: block(program, expose_all=True),
    "condition": lambda program: condition(program, data={}),
    "infer_config": lambda program: infer_config(program, config_fn=lambda site: {}),
    "mask": lambda program: mask(program, mask=True),
    "replay": lambda program: replay(program, trace=Trace()),
    "scale": lambda program: scale(program, scale=1.0),
    "trace": lambda program: trace(program),
}


@given(models, seeds, st.lists(st.sampled_from(sorted(NEUTRAL)), max_size=4, unique=True))
def test_handlers_that_have_nothing_to_do_do_nothing(model: Model, rng_seed: int, names: list[str]) -> None:
    program = model.program()
    for name in names:
        program = NEUTRAL[name](program)
    agree(record(model.program(), rng_seed), record(program, rng_seed))


# --------------------------------------------------------------------------------------- log-probabilities


@given(models, seeds, positive, positive)
def test_scales_multiply(model: Model, rng_seed: int, one: float, other: float) -> None:
    plain = record(model.program(), rng_seed)
    scaled = record(scale(scale(model.program(), scale=one), scale=other), rng_seed)
    for name, site in sample_sites(plain).items():
        expected = one * other * site["log_prob"]
        assert torch.allclose(scaled.nodes[name]["log_prob"], expected, rtol=1e-12, atol=0.0)
        assert torch.equal(scaled.nodes[name]["unscaled_log_prob"], site["unscaled_log_prob"])


@given(models, seeds, positive)
def test_scale_and_mask_commute(model: Model, rng_seed: int, weight: float) -> None:
    program = model.program()
    for some in (True, False, torch.tensor(True), torch.tensor(False)):
        one = record(mask(scale(program, scale=weight), mask=some), rng_seed)
        agree(one, record(scale(mask(program, mask=some), scale=weight), rng_seed))


@given(models, seeds)
def test_a_false_mask_removes(model: Model, rng_seed: int) -> None:
    plain = record(model.program(), rng_seed)
    for nothing in (False, torch.tensor(False)):
        masked = record(mask(model.program(), mask=nothing), rng_seed)
        assert masked.log_prob_sum() == 0
        for name, site in sample_sites(plain).items():
            assert torch.equal(torch.as_tensor(masked.nodes[name]["value"]), torch.as_tensor(site["value"]))


@given(models, seeds)
def test_the_log_prob_of_a_run_is_the_sum_over_its_sites(model: Model, rng_seed: int) -> None:
    recorded = record(model.program(), rng_seed)
    parts = [site["log_prob"].sum() for site in sample_sites(recorded).values()]
    assert torch.allclose(torch.as_tensor(recorded.log_prob_sum()), torch.stack(parts).sum(), rtol=1e-12)


@given(models, seeds, st.data())
def test_no_edit_leaves_a_stale_log_prob(model: Model, rng_seed: int, data: st.DataObject) -> None:
    """After any edits, what is read equals what a trace that never read anything before gives."""
    edited, fresh = record(model.program(), rng_seed), record(model.program(), rng_seed)
    other = record(model.program(), rng_seed + 1)  # a run whose values are possible, too
    for _ in range(3):
        edited.compute_log_prob()
        name = data.draw(st.sampled_from(model.latent + model.observed))
        edit = data.draw(st.sampled_from(["value", "in place", "scale", "mask", "fn"]))
        for recorded in (edited, fresh):
            site = recorded.nodes[name]
            if edit == "value":
                site["value"] = site["value"].clone()
            elif edit == "in place" and name in other:
                site["value"] = site["value"].clone()
                _ = site["log_prob_sum"] if recorded is edited else None
                site["value"].copy_(other.nodes[name]["value"])
            elif edit == "scale":
                site["scale"] = 2.0 * site["scale"]
            elif edit == "mask":
                site["mask"] = False
            elif edit == "fn":
                site["fn"] = site["fn"].mask(False)
    for name, site in sample_sites(fresh).items():
        assert torch.equal(edited.nodes[name]["log_prob"], site["log_prob"])
    assert edited.log_prob_sum() == fresh.log_prob_sum()


# --------------------------------------------------------------------------------------- traces are values


def contents(recorded: Trace) -> Any:
    """Everything in a trace, with its tensors by identity and version."""

    def frozen(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return id(value), value._version
        if isinstance(value, dict):
            return {key: frozen(each) for key, each in value.items()}
        return id(value) if callable(value) else repr(value)

    sites = [(name, {key: frozen(site[key]) for key in site}) for name, site in recorded.nodes.items()]
    return sites, list(recorded.edges)


READERS: dict[str, Callable[[Trace, Program], Any]] = {
    "replay": lambda recorded, program: trace(replay(program, trace=recorded)).get_trace().log_prob_sum(),
    "condition": lambda recorded, program: (
        trace(condition(program, data=recorded)).get_trace().log_prob_sum()
    ),
    "copy": lambda recorded, program: recorded.copy().compute_log_prob(),
    "copied edits": lambda recorded, program: [
        site.update(value=None, scale=3.0) or site["infer"].update(colour="red")
        for site in recorded.copy().nodes.values()
    ],
    "shapes": lambda recorded, program: recorded.format_shapes(),
    "repr": lambda recorded, program: (repr(recorded), repr(recorded.nodes)),
    "lists": lambda recorded, program: (recorded.stochastic_nodes, recorded.reparameterized_nodes),
    "sort": lambda recorded, program: (recorded.topological_sort(), list(recorded.edges)),
    "unpacking": lambda recorded, program: [dict(**site) for site in recorded.nodes.values()],
    "editing a replay": lambda recorded, program: [
        site["infer"].update(colour="red")
        for site in trace(replay(program, trace=recorded)).get_trace().nodes.values()
    ],
}


@given(models, seeds, st.lists(st.sampled_from(sorted(READERS)), min_size=1, max_size=3))
def test_reading_a_trace_does_not_change_it(model: Model, rng_seed: int, readers: list[str]) -> None:
    recorded = trace(seed(model.program(), rng_seed=rng_seed), graph_type="dense").get_trace()
    before = contents(recorded)
    for reader in readers:
        READERS[reader](recorded, model.program())
        assert contents(recorded) == before


@given(models, seeds)
def test_a_copy_agrees_and_is_independent(model: Model, rng_seed: int) -> None:
    recorded = record(model.program(), rng_seed)
    copied = recorded.copy()
    agree(recorded, copied)
    total = recorded.log_prob_sum()
    for name in list(copied):
        copied.nodes[name]["scale"] = 2.0
        copied.nodes[name]["value"] = torch.tensor(0.5, dtype=torch.float64)
        copied.remove_node(name)
    assert len(recorded) > 0
    assert recorded.log_prob_sum() == total


# ------------------------------------------------------------------------------------------- errors, threads


class Interruption(Exception):
    pass


class Interrupt(Messenger):
    """Raises at the n-th site."""

    def __init__(self, after: int) -> None:
        self.after = after

    def _pyro_post_sample(self, msg: Message) -> None:
        self.after -= 1
        if self.after < 0:
            raise Interruption


HANDLERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "block": block,
    "condition": lambda: condition(data={"z": torch.tensor(1.0)}),
    "enum": lambda: enum(first_available_dim=-3),
    "infer_config": lambda: infer_config(config_fn=lambda site: {}),
    "mask": lambda: mask(mask=False),
    "replay": lambda: replay(trace=Trace()),
    "scale": lambda: scale(scale=2.0),
    "seed": lambda: seed(rng_seed=1),
    "trace": trace,
    "uncondition": uncondition,
}


@pytest.mark.filterwarnings("ignore:.* found no .* site named")  # not every model has those sites
@given(models, st.lists(st.sampled_from(sorted(HANDLERS)), max_size=4), st.integers(0, 8))
def test_handlers_put_everything_back_when_the_program_raises(
    model: Model, names: list[str], after: int
) -> None:
    before = get_rng_state()
    assert state.dims._names == {}
    raised = False
    try:
        with seed(rng_seed=0), Interrupt(after):
            program = model.program()
            for name in names:
                program = HANDLERS[name]()(program)  # type: ignore[operator]
            program()
    except Interruption:
        raised = True
    # An inner block may hide the site at which it would have been raised.
    assert raised or "block" in names or after >= len(sample_sites(record(model.program(), 0)))
    assert state.stack == []
    assert state.dims._names == {}
    after_run = get_rng_state()
    assert torch.equal(after_run.torch, before.torch)
    assert after_run.python == before.python
    record(model.program(), 0)


@given(st.lists(models, min_size=2, max_size=3), seeds)
def test_threads_do_not_see_each_other(chosen: list[Model], rng_seed: int) -> None:
    """Programs that run side by side record what they record alone; random numbers are shared, hence replay."""
    alone = [record(model.program(), rng_seed + i) for i, model in enumerate(chosen)]
    ready = threading.Barrier(len(chosen))
    together: list[Trace | None] = [None] * len(chosen)

    def run(i: int) -> None:
        handled = scale(replay(chosen[i].program(), trace=alone[i]), scale=float(i + 1))
        ready.wait()
        together[i] = trace(handled).get_trace()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(chosen))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, recorded in enumerate(together):
        assert recorded is not None
        expected = trace(scale(replay(chosen[i].program(), trace=alone[i]), scale=float(i + 1))).get_trace()
        agree(recorded, expected)
