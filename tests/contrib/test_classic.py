"""The first generation's handlers: against their specification, today's handlers and closed forms."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import networkx
import pytest
import torch
from torch import Tensor

import sumout
import sumout.distributions as dist
from models import MODELS
from sumout import infer, poutine
from sumout.errors import DuplicateSiteError, ModelError, PlateError
from sumout.poutine.trace_struct import Trace as PlainTrace
from sumout_contrib import classic
from sumout_contrib.classic import (
    BlockPoutine,
    CondIndepStackFrame,
    ConditionPoutine,
    EscapePoutine,
    IndepPoutine,
    LiftPoutine,
    NonlocalExit,
    Poutine,
    ReplayPoutine,
    ScalePoutine,
    Trace,
    TracePoutine,
)
from sumout_contrib.classic.site import Site


@pytest.fixture(autouse=True)
def _empty_param_store() -> Iterator[None]:
    with sumout.get_param_store().scope():
        yield


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def chain() -> Tensor:
    """a ~ N(0, 1), b ~ N(a, 2), x ~ N(b, s) observed at 1."""
    s = sumout.param("s", number(0.5))
    a = sumout.sample("a", dist.Normal(number(0.0), 1.0))
    b = sumout.sample("b", dist.Normal(a, 2.0))
    sumout.sample("x", dist.Normal(b, s), obs=number(1.0))
    return b


def batch() -> None:
    """A latent scale of the whole, then three elements, of which the second is left out and all count twice."""
    z = sumout.sample("z", dist.Normal(number(0.0), 1.0))
    data = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    with sumout.plate("data", 3), poutine.mask(mask=torch.tensor([True, False, True])):
        with poutine.scale(scale=2.0):
            sumout.sample("x", dist.Normal(z, 1.0), obs=data)


# ----------------------------------------------------------------------------------------- the specification


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Poutine", {"fn": ...}),
        (
            "BlockPoutine",
            {
                "fn": ...,
                "hide_all": True,
                "expose_all": False,
                "hide": None,
                "expose": None,
                "hide_types": None,
                "expose_types": None,
            },
        ),
        ("ConditionPoutine", {"fn": ..., "data": ...}),
        ("EscapePoutine", {"fn": ..., "escape_fn": ...}),
        ("IndepPoutine", {"fn": ..., "name": ..., "vectorized": ...}),
        ("LiftPoutine", {"fn": ..., "prior": ...}),
        ("ReplayPoutine", {"fn": ..., "guide_trace": ..., "sites": None}),
        ("ScalePoutine", {"fn": ..., "scale": ...}),
        ("TracePoutine", {"fn": ..., "graph_type": None}),
        ("CondIndepStackFrame", {"name": ..., "counter": ..., "vectorized": ...}),
    ],
)
def test_arguments_and_defaults(name: str, arguments: dict[str, Any]) -> None:
    parameters = inspect.signature(getattr(classic, name)).parameters.values()
    found = {each.name: ... if each.default is each.empty else each.default for each in parameters}
    assert list(found.items()) == list(arguments.items())
    assert name in classic.__all__


@pytest.mark.parametrize("name", [name for name in classic.__all__ if name.endswith("Poutine")])
def test_every_poutine_is_a_poutine_and_a_messenger(name: str) -> None:
    assert issubclass(getattr(classic, name), Poutine)
    assert issubclass(getattr(classic, name), poutine.Messenger)


def test_a_missing_package_is_told_with_the_extra_that_brings_it() -> None:
    script = (
        "import sys; sys.modules['networkx'] = None\n"
        "from sumout.errors import MissingExtraError\n"
        "try:\n    import sumout_contrib.classic\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "needs the package 'networkx'" in run.stdout, run.stderr
    assert "sumout[classic]" in run.stdout


# --------------------------------------------------------------------------------------------------- Poutine


def test_the_base_leaves_the_joint_distribution_as_it_is() -> None:
    def run(program: Any) -> tuple[float, float]:
        with poutine.seed(rng_seed=1):
            record = poutine.trace(program).get_trace()
        return record.log_prob_sum().item(), record.nodes["_RETURN"]["value"].item()

    assert run(Poutine(chain)) == run(chain)


def test_it_keeps_the_programs_arguments_name_and_docstring() -> None:
    def program(x: float, y: float = 1.0) -> float:
        """Adds."""
        return x + y

    handled: Any = Poutine(program)
    assert (handled(1.0, y=2.0), handled.__name__, handled.__doc__) == (3.0, "program", "Adds.")
    assert inspect.signature(handled) == inspect.signature(program)


class Shifting(Poutine):
    """A handler of a user's own: values are one larger, and the hooks that were called are noted."""

    def __init__(self, fn: Any) -> None:
        super().__init__(fn)
        self.called: list[tuple[str, str]] = []

    def _pyro_sample(self, msg: Any) -> None:
        self.called.append(("sample", msg["name"]))

    def _pyro_post_sample(self, msg: Any) -> None:
        self.called.append(("post_sample", msg["name"]))
        if not msg["is_observed"]:
            msg["value"] = msg["value"] + 1.0

    def _pyro_param(self, msg: Any) -> None:
        self.called.append(("param", msg["name"]))


def test_hooks_of_a_subclass_as_function_context_and_copy() -> None:
    given = ConditionPoutine(BlockPoutine(chain, hide=["b"]), {"a": number(1.0)})
    for run in (Shifting(given), copy.deepcopy(Shifting(given))):
        run()
        assert [name for kind, name in run.called if kind == "sample"] == ["a", "x"]
        assert run.called[0] == ("param", "s")
    with Shifting(None) as handler:
        assert sumout.sample("z", dist.Delta(number(1.0))) == 2.0
    assert handler.called == [("sample", "z"), ("post_sample", "z")]


def test_a_poutine_needs_a_program_to_be_called() -> None:
    with pytest.raises(ModelError, match="made without a program"):
        ScalePoutine(None, 2.0)()
    with pytest.raises(ModelError, match="not callable"):
        Poutine(3)  # type: ignore[arg-type]


def test_the_stack_is_as_before_after_an_error() -> None:
    def program() -> None:
        sumout.sample("a", dist.Normal(0.0, 1.0))
        raise KeyError("wrong")

    traced = TracePoutine(ScalePoutine(IndepPoutine(program, "p", vectorized=False), 2.0))
    with pytest.raises(KeyError):
        traced()
    assert not poutine.runtime.am_i_wrapped()
    assert traced.trace.stochastic_nodes == ["a"]


# --------------------------------------------------------------------------------------------- thin handlers


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        ({}, []),
        ({"hide_all": False}, ["s", "a", "b", "x"]),
        ({"expose_all": True}, ["s", "a", "b", "x"]),
        ({"hide_all": False, "expose_all": True}, ["s", "a", "b", "x"]),
        ({"hide": ["a"]}, ["s", "b", "x"]),
        ({"expose": ["a"]}, ["a"]),
        ({"hide_types": ["sample"]}, ["s", "x"]),
        ({"hide_types": ["param", "observe"]}, ["a", "b"]),
        ({"expose_types": ["observe"]}, ["x"]),
        ({"expose_types": ["sample"], "hide": ["a"]}, ["b"]),
    ],
    ids=str,
)
def test_block(arguments: dict[str, Any], seen: list[str]) -> None:
    inner = TracePoutine(chain)
    outer = TracePoutine(BlockPoutine(inner, **arguments)).get_trace()
    assert [name for name in outer if not name.startswith("_")] == seen
    assert [name for name in inner.trace if not name.startswith("_")] == ["s", "a", "b", "x"]
    if "expose_all" not in arguments or "hide_all" in arguments:
        today = poutine.trace(poutine.block(chain, **arguments)).get_trace()
        assert list(today) == list(outer)


def test_block_refuses_contradictions() -> None:
    with pytest.raises(ModelError, match="hide and expose"):
        BlockPoutine(chain, hide=["a"], expose=["a"])


def test_condition_observes_by_dict_and_by_trace() -> None:
    data = {"a": number(0.5), "b": number(-1.0)}
    record = TracePoutine(ConditionPoutine(chain, data)).get_trace()
    assert record.observation_nodes == ["a", "b", "x"]
    exact = sum(
        -0.5 * ((value - loc) / scale) ** 2
        - torch.tensor(2 * torch.pi * scale**2, dtype=torch.float64).log() / 2
        for value, loc, scale in ((0.5, 0.0, 1.0), (-1.0, 0.5, 2.0), (1.0, -1.0, 0.5))
    )
    torch.testing.assert_close(record.log_pdf().detach(), exact)
    again = TracePoutine(ConditionPoutine(chain, record)).get_trace()  # a trace stands for its values
    assert again.nodes["b"]["value"] is record.nodes["b"]["value"]
    assert again.log_pdf().item() == record.log_pdf().item()


def test_escape_leaves_at_the_first_site_chosen_and_resets_traces() -> None:
    def unless_observed(site: Any) -> bool:
        return not site["is_observed"]

    traced = TracePoutine(EscapePoutine(chain, unless_observed))
    with pytest.raises(NonlocalExit) as left:
        traced()
    assert left.value.site["name"] == "a"
    assert "a" not in traced.trace
    given = ConditionPoutine(chain, {"a": number(0.0), "b": number(0.0)})
    assert EscapePoutine(given, unless_observed)() == 0.0

    with TracePoutine(None) as recorder:
        sumout.sample("z", dist.Normal(0.0, 1.0))
        with pytest.raises(NonlocalExit) as left:
            EscapePoutine(chain, unless_observed)()
        left.value.reset_stack()
        assert isinstance(recorder.trace, Trace)
        assert list(recorder.trace) == []


def test_lift_makes_params_samples() -> None:
    prior = {"s": dist.Exponential(number(3.0))}
    record = TracePoutine(LiftPoutine(chain, prior)).get_trace()
    assert (record.param_nodes, record.stochastic_nodes) == ([], ["s", "a", "b"])
    site = record.nodes["s"]
    torch.testing.assert_close(site["log_pdf"], torch.log(number(3.0)) - 3.0 * site["value"])
    of_all = TracePoutine(LiftPoutine(chain, dist.Exponential(number(3.0)))).get_trace()
    assert of_all.stochastic_nodes == ["s", "a", "b"]


def test_scale_multiplies_and_nests() -> None:
    record = TracePoutine(chain).get_trace()
    scaled = TracePoutine(ScalePoutine(ScalePoutine(ReplayPoutine(chain, record), 0.5), 3.0)).get_trace()
    torch.testing.assert_close(scaled.log_pdf(), 1.5 * record.log_pdf())
    with pytest.raises(ModelError, match="positive"):
        ScalePoutine(chain, -1.0)


# ---------------------------------------------------------------------------------------------------- replay


def test_replay_reproduces_a_trace_of_either_kind() -> None:
    for record in (TracePoutine(chain).get_trace(), poutine.trace(chain).get_trace()):
        again = TracePoutine(ReplayPoutine(chain, record)).get_trace()
        assert all(again.nodes[name]["value"] is record.nodes[name]["value"] for name in ("a", "b"))
        assert again.log_pdf().item() == record.log_prob_sum().item()


@pytest.mark.parametrize("sites", [["a"], ("a",), {"a"}, {"a": "a"}], ids=str)
def test_replay_of_the_listed_sites_alone(sites: Any) -> None:
    record = TracePoutine(chain).get_trace()
    again = TracePoutine(ReplayPoutine(chain, record, sites)).get_trace()
    assert again.nodes["a"]["value"] == record.nodes["a"]["value"]
    assert again.nodes["b"]["value"] != record.nodes["b"]["value"]


def test_replay_of_sites_under_other_names() -> None:
    record = TracePoutine(chain).get_trace()
    swapped = ReplayPoutine(chain, record, sites={"a": "b", "b": "a"})
    again = TracePoutine(swapped).get_trace()
    assert again.nodes["a"]["value"] == record.nodes["b"]["value"]
    assert again.nodes["b"]["value"] == record.nodes["a"]["value"]
    record.nodes["a"]["value"] = number(7.0)  # the trace is referred to, not copied
    assert swapped() == 7.0
    assert swapped.sites == {"a": "b", "b": "a"}


def test_replay_of_an_enumerated_site() -> None:
    probs = torch.tensor([0.25, 0.75], dtype=torch.float64)

    def guide() -> None:
        sumout.sample("z", dist.Categorical(probs), infer={"enumerate": "parallel"})

    def model() -> None:
        z = sumout.sample("z", dist.Categorical(probs))
        sumout.sample("x", dist.Normal(z.double(), 1.0), obs=number(0.0))

    with poutine.enum(first_available_dim=-1):
        guide_trace = TracePoutine(guide).get_trace()
        for sites in (None, ["z"]):
            record = TracePoutine(ReplayPoutine(model, guide_trace, sites)).get_trace()
            torch.testing.assert_close(record.nodes["z"]["batch_log_pdf"], probs.log())
            assert record.nodes["x"]["batch_log_pdf"].shape == (2,)
    with pytest.raises(ModelError, match=r"'z' of the replayed trace is enumerated.*as 'y'"):
        ReplayPoutine(model, guide_trace, {"y": "z"})


def test_replay_tells_what_is_wrong_with_sites() -> None:
    record = TracePoutine(chain).get_trace()
    with pytest.raises(ModelError, match=r"'bb', which is not in the replayed trace\. Did you mean 'b'"):
        ReplayPoutine(chain, record, sites={"a": "bb"})
    with pytest.raises(ModelError, match=r"sites=\['a'\]"):
        ReplayPoutine(chain, record, sites="a")
    with pytest.raises(ModelError, match="lists names"):
        ReplayPoutine(chain, record, sites=3)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- contexts


def test_a_frame_is_a_named_tuple_of_three() -> None:
    frame = CondIndepStackFrame("data", 2, True)
    assert frame == ("data", 2, True)
    assert frame._fields == ("name", "counter", "vectorized")
    assert CondIndepStackFrame.counter.__doc__ == "Alias for field number 1"


def test_nested_contexts_are_listed_outermost_first() -> None:
    @TracePoutine
    def program() -> None:
        rows = IndepPoutine(None, "rows", vectorized=False)
        for i in range(2):
            with rows, IndepPoutine(None, "columns", vectorized=True):
                sumout.sample(f"x_{i}", dist.Normal(torch.zeros(3), 1.0))

    stack = program.get_trace().nodes["x_1"]["cond_indep_stack"]
    assert stack == (("rows", 2, False), ("columns", 1, True))


def test_elements_of_a_loop_are_independent_and_a_vectorized_context_is_one() -> None:
    def program(vectorized: bool) -> None:
        sumout.sample("z", dist.Normal(0.0, 1.0))
        context = IndepPoutine(None, "p", vectorized)
        for i in range(2):
            with context:
                sumout.sample(f"x_{i}", dist.Normal(0.0, 1.0))
                sumout.sample(f"y_{i}", dist.Normal(0.0, 1.0))

    traced = TracePoutine(program, graph_type="dense")
    within = {("z", "x_0"), ("z", "y_0"), ("z", "x_1"), ("z", "y_1"), ("x_0", "y_0"), ("x_1", "y_1")}
    assert set(traced.get_trace(False).edges) == within
    across = {("x_0", "x_1"), ("x_0", "y_1"), ("y_0", "x_1"), ("y_0", "y_1")}
    assert set(traced.get_trace(True).edges) == within | across


def test_a_program_in_a_context_is_an_element_each_time_it_runs() -> None:
    element = IndepPoutine(lambda i: sumout.sample(f"x_{i}", dist.Normal(0.0, 1.0)), "loop", False)
    assert element.counter == 0
    with TracePoutine(None, graph_type="dense") as recorder:
        element(0), element(1)
        assert [frame.counter for frame in recorder.trace.nodes["x_1"]["cond_indep_stack"]] == [2]
        assert len(poutine.get_plates()) == 0
        with element:
            assert poutine.get_plates() == (("loop", 3, False),)
    assert recorder.get_trace().number_of_edges() == 0
    assert copy.deepcopy(element).counter == 0


def test_exact_queries_follow_a_loop() -> None:
    def program() -> None:
        coin = sumout.sample("coin", dist.Bernoulli(number(0.3)))
        loop = IndepPoutine(None, "flips", vectorized=False)
        for i in range(2):
            with loop:
                side = sumout.sample(f"y_{i}", dist.Bernoulli(0.1 + 0.8 * coin))
                sumout.sample(f"x_{i}", dist.Bernoulli(0.2 + 0.6 * side), obs=number(1.0))

    likelihood = [0.9 * 0.2 + 0.1 * 0.8, 0.1 * 0.2 + 0.9 * 0.8]
    exact = torch.log(number(0.7 * likelihood[0] ** 2 + 0.3 * likelihood[1] ** 2))
    torch.testing.assert_close(infer.log_evidence(program)(), exact)


def test_a_vectorized_context_declares_no_dimension_and_objectives_say_so() -> None:
    def program() -> None:
        with IndepPoutine(None, "data", vectorized=True):
            sumout.sample("x", dist.Normal(torch.zeros(3), 1.0), obs=torch.zeros(3))

    assert TracePoutine(program).get_trace().batch_log_pdf().shape == (3,)
    with pytest.raises(PlateError):
        infer.log_evidence(program)()
    with pytest.raises(PlateError):
        infer.Trace_ELBO().loss(program, lambda: None)


# ----------------------------------------------------------------------------------------- recording a run


def test_the_recorded_sites() -> None:
    traced = TracePoutine(chain)
    value = traced()
    record = traced.trace
    assert isinstance(record, Trace)
    assert list(record) == ["_INPUT", "s", "a", "b", "x", "_RETURN"]
    assert record.nodes["_RETURN"]["value"] is value
    assert record.nodes["b"]["value"] is value
    assert (record.graph_type, record.number_of_edges()) == ("flat", 0)
    assert (record.param_nodes, record.observation_nodes) == (["s"], ["x"])
    assert (record.stochastic_nodes, record.reparameterized_nodes) == (["a", "b"], ["a", "b"])


def test_a_new_run_has_a_new_trace_and_get_trace_gives_a_copy() -> None:
    traced = TracePoutine(chain)
    first = traced.get_trace()
    assert first is not traced.trace
    first.nodes["a"]["value"] = number(9.0)
    assert traced.trace.nodes["a"]["value"] != 9.0
    traced.get_trace()
    assert first.nodes["a"]["value"] == 9.0


def test_as_a_context_manager() -> None:
    with TracePoutine(None) as recorder:
        sumout.sample("z", dist.Normal(0.0, 1.0))
    assert list(recorder.get_trace()) == list(recorder.trace) == ["z"]
    assert isinstance(recorder.get_trace(), Trace)


def test_reparameterized_and_other_sites() -> None:
    @TracePoutine
    def program() -> None:
        sumout.sample("normal", dist.Normal(0.0, 1.0))
        sumout.sample("coin", dist.Bernoulli(0.5))
        sumout.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    record = program.get_trace()
    assert record.reparameterized_nodes == ["normal"]
    assert record.nonreparam_stochastic_nodes == ["coin"]
    assert record.observation_nodes == ["x"]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_it_records_what_todays_trace_records(name: str) -> None:
    program = MODELS[name].program()
    with poutine.seed(rng_seed=1):
        today = poutine.trace(program, graph_type="dense").get_trace()
    with poutine.seed(rng_seed=1):
        record = TracePoutine(program, graph_type="dense").get_trace()
    assert list(record) == list(today)
    assert list(record.edges) == list(today.edges)
    assert record.topological_sort() == today.topological_sort()
    torch.testing.assert_close(record.log_pdf(), torch.as_tensor(today.log_prob_sum()), rtol=0, atol=0)
    for site_list in ("stochastic_nodes", "observation_nodes", "param_nodes", "reparameterized_nodes"):
        assert getattr(record, site_list) == getattr(today, site_list)
    for converted in (Trace(today), Trace(record), record.copy(), copy.copy(record)):
        assert (list(converted), list(converted.edges)) == (list(today), list(today.edges))
        assert (type(converted), converted.graph_type) == (Trace, "dense")


def test_old_and_new_handlers_nest_in_each_other() -> None:
    record = TracePoutine(chain).get_trace()
    inside = poutine.trace(poutine.scale(ReplayPoutine(chain, record), scale=2.0)).get_trace()
    around = TracePoutine(ScalePoutine(poutine.replay(chain, trace=record), 2.0)).get_trace()
    assert (
        inside.log_prob_sum().item() == around.log_pdf().item() == pytest.approx(2 * record.log_pdf().item())
    )
    assert type(inside) is PlainTrace
    assert isinstance(record, PlainTrace)


def test_objectives_and_queries_take_poutines_for_programs() -> None:
    def model(x: Tensor) -> None:
        z = sumout.sample("z", dist.Normal(number(0.0), 1.0))
        sumout.sample("x", dist.Normal(z, 1.0))

    given = ConditionPoutine(model, {"x": number(1.0)})
    posterior = Poutine(lambda x: sumout.sample("z", dist.Normal(x / 2, 0.5**0.5)))
    loss = infer.Trace_ELBO().loss(given, posterior, number(1.0))
    exact = -dist.Normal(number(0.0), 2**0.5).log_prob(number(1.0))
    assert loss == pytest.approx(float(exact))


# ---------------------------------------------------------------------------------------- log-probabilities


def test_log_pdf_of_a_batch_in_closed_form() -> None:
    record = TracePoutine(ConditionPoutine(batch, {"z": number(0.5)})).get_trace()
    standard = -torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64)) / 2
    of_z = standard - 0.125
    of_x = torch.stack([2 * standard, number(0.0), 2 * (standard - 0.5 * 1.5**2)])  # scaled and masked
    torch.testing.assert_close(record.log_pdf(), of_z + of_x.sum())
    torch.testing.assert_close(record.batch_log_pdf(), of_z + of_x)
    torch.testing.assert_close(record.nodes["x"]["batch_log_pdf"], of_x)
    torch.testing.assert_close(record.nodes["x"]["log_pdf"], of_x.sum())
    torch.testing.assert_close(record.log_pdf(lambda name, site: name == "z"), of_z)
    torch.testing.assert_close(record.batch_log_pdf(lambda name, site: site["is_observed"]), of_z + of_x)
    torch.testing.assert_close(record.batch_log_pdf(lambda name, site: name == "x"), of_x)
    assert record.log_pdf(lambda name, site: False) == 0.0
    assert isinstance(record.log_pdf(lambda name, site: False), Tensor)


@pytest.mark.parametrize("method", ["log_pdf", "batch_log_pdf", "compute_batch_log_pdf"])
def test_local_log_probabilities_are_kept(method: str) -> None:
    record = TracePoutine(batch).get_trace()
    site, params = record.nodes["x"], record.nodes["z"]
    assert "log_pdf" not in site
    assert "batch_log_pdf" not in site
    getattr(record, method)(lambda name, site: name == "x")
    assert "log_pdf" in site
    assert "batch_log_pdf" in site
    assert "log_pdf" not in params  # the filter did not let it pass
    assert site["batch_log_pdf"] is site["batch_log_pdf"] is site["log_prob"]  # computed once
    assert site["log_pdf"] is site["log_prob_sum"]
    getattr(record, method)()
    assert site["batch_log_pdf"] is record.copy().nodes["x"]["batch_log_pdf"]


def test_kept_log_probabilities_follow_every_edit() -> None:
    record = TracePoutine(ConditionPoutine(chain, {"a": number(0.0), "b": number(0.0)})).get_trace()
    site = record.nodes["a"]

    def local(value: float, scale: float = 1.0) -> Tensor:
        return dist.Normal(number(0.0), scale).log_prob(number(value))

    rest = record.log_pdf(lambda name, site: name != "a")
    torch.testing.assert_close(record.log_pdf(), rest + local(0.0))
    site["value"] = number(2.0)
    torch.testing.assert_close(record.log_pdf(), rest + local(2.0))
    site["value"].mul_(2.0)  # in place
    torch.testing.assert_close(record.batch_log_pdf(), rest + local(4.0))
    site["fn"] = dist.Normal(number(0.0), 3.0)
    torch.testing.assert_close(site["log_pdf"], local(4.0, 3.0))
    site["scale"] = 0.5
    torch.testing.assert_close(site["batch_log_pdf"], 0.5 * local(4.0, 3.0))
    site["mask"] = False
    assert site["log_pdf"] == 0.0
    torch.testing.assert_close(record.log_pdf(), rest)


def test_a_log_probability_may_be_assigned_until_the_next_edit() -> None:
    record = TracePoutine(chain).get_trace()
    site = record.nodes["a"]
    site["log_pdf"] = number(-3.0)
    assert site["log_prob_sum"] == -3.0
    del site["log_pdf"]
    assert "log_pdf" not in site
    site["log_pdf"] = number(-3.0)
    site["value"] = number(0.0)
    torch.testing.assert_close(site["log_pdf"], dist.Normal(number(0.0), 1.0).log_prob(number(0.0)))


def test_params_have_no_log_probability() -> None:
    site = TracePoutine(chain).get_trace().nodes["s"]
    assert site.get("log_pdf") is None
    with pytest.raises(KeyError):
        site["batch_log_pdf"]


def test_gradients_flow_through_log_pdf() -> None:
    record = TracePoutine(ConditionPoutine(chain, {"a": number(0.0), "b": number(0.0)})).get_trace()
    leaf = record.nodes["s"]["value"].unconstrained()
    (gradient,) = torch.autograd.grad(record.log_pdf(), leaf)
    torch.testing.assert_close(gradient, number(1.0 / 0.5**3 - 1.0 / 0.5))  # of -log s - 1 / (2 s^2)


def test_an_error_names_the_site_and_its_shape() -> None:
    record = Trace()
    record.add_node("a", type="sample", fn=dist.Normal(torch.zeros(3), 1.0), value=torch.zeros(3))
    record.add_node("b", type="sample", fn=dist.Normal(torch.zeros(2), 1.0), value=torch.zeros(2))
    with pytest.raises(ModelError, match=r"'b' has log-probabilities of shape \(2,\).*\(3,\)"):
        record.batch_log_pdf()
    assert record.log_pdf().shape == ()
    record.nodes["a"]["value"] = torch.full((3,), float("nan"))
    with pytest.raises(ValueError, match=r"(?s)scoring site 'a'.*Trace Shapes"):
        record.log_pdf()


# ------------------------------------------------------------------------------------------ the trace, a graph


def test_it_is_a_directed_graph_of_networkx() -> None:
    assert issubclass(Trace, networkx.DiGraph)
    assert Trace.node_dict_factory is OrderedDict
    assert Trace().graph_type == "flat"
    assert Trace(graph_type="dense").graph_type == "dense"
    assert Trace([("a", "b")], graph_type="dense", colour="red").graph["colour"] == "red"
    with pytest.raises(ModelError, match="'flat' or 'dense'"):
        Trace(graph_type="round")


def test_add_node_refuses_a_name_that_is_taken() -> None:
    record = Trace()
    record.add_node("a", type="sample", value=number(1.0))
    assert (record.nodes["a"]["name"], record.nodes["a"]["value"]) == ("a", 1.0)
    for kind in ("sample", "param"):
        with pytest.raises(DuplicateSiteError, match="'a'"):
            record.add_node("a", type=kind, value=number(2.0))
    with pytest.raises(RuntimeError):
        record.add_node("a")
    assert record.nodes["a"]["value"] == 1.0
    record.add_node("s", type="param", value=number(1.0))
    record.add_node("s", type="param", value=number(2.0))  # a param may be met again in a run
    assert record.nodes["s"]["value"] == 2.0
    record.remove_node("a")
    record.add_node("a", type="sample", value=number(2.0))
    with pytest.raises(TypeError):
        record.add_node("b", 1, 2, 3)


def test_two_sites_of_one_name_in_a_run() -> None:
    def program() -> None:
        for _ in range(2):
            sumout.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(DuplicateSiteError, match="'z'"):
        TracePoutine(program)()


def test_copy_keeps_type_graph_type_nodes_edges_and_attributes() -> None:
    record = TracePoutine(chain, graph_type="dense").get_trace()
    record.graph["title"] = "a run"
    record.edges["a", "b"]["weight"] = 3
    for made in (record.copy(), record.shallow_copy(), copy.copy(record)):
        assert (type(made), made.graph_type, made.graph["title"]) == (Trace, "dense", "a run")
        assert (list(made.nodes), list(made.edges)) == (list(record.nodes), list(record.edges))
        assert made.edges["a", "b"]["weight"] == 3
        assert made.nodes["a"]["value"] is record.nodes["a"]["value"]

    made = record.copy()
    made.nodes["a"]["value"] = number(9.0)
    made.nodes["a"]["infer"]["mark"] = True
    made.remove_edge("a", "b")
    made.remove_node("x")
    made.graph["title"] = "another"
    made.graph_type = "flat"
    assert record.nodes["a"]["value"] != 9.0
    assert "mark" not in record.nodes["a"]["infer"]
    assert record.has_edge("a", "b")
    assert "x" in record
    assert (record.graph["title"], record.graph_type) == ("a run", "dense")
    assert record.shallow_copy().nodes["a"] is record.nodes["a"]


def test_algorithms_of_networkx_work_on_a_dense_trace() -> None:
    record = TracePoutine(chain, graph_type="dense").get_trace()
    assert set(record.edges) == {("a", "b"), ("a", "x"), ("b", "x")}
    assert networkx.ancestors(record, "x") == {"a", "b"}
    assert networkx.descendants(record, "a") == {"b", "x"}
    assert [name for name in networkx.topological_sort(record) if name in "abx"] == ["a", "b", "x"]
    assert networkx.is_directed_acyclic_graph(record)
    assert set(record.predecessors("x")) == {"a", "b"}
    assert set(record.successors("a")) == {"b", "x"}
    assert record.topological_sort(reverse=True) == record.topological_sort()[::-1]
    record.remove_edge("a", "x")
    assert networkx.is_d_separator(record, {"a"}, {"x"}, {"b"})


def test_graphs_made_of_a_trace_keep_its_sites_though_they_carry_gradients() -> None:
    record = TracePoutine(chain, graph_type="dense").get_trace()
    assert record.nodes["x"]["fn"].scale.requires_grad
    part = record.subgraph(["a", "x"])
    assert (type(part), part.graph_type, list(part.edges)) == (Trace, "dense", [("a", "x")])
    exact = record.log_pdf(lambda name, site: name != "b")
    for each in (part, part.copy(), record.copy(as_view=True).subgraph(["a", "x"])):
        torch.testing.assert_close(each.log_pdf(), exact)
    for turned in (record.reverse(), record.reverse(copy=False)):
        assert set(turned.edges) == {("b", "a"), ("x", "a"), ("x", "b")}
        assert turned.nodes["a"]["value"] is record.nodes["a"]["value"]
    assert type(record.reverse()) is type(record.to_directed()) is Trace
    undirected = networkx.moral_graph(record)
    assert {frozenset(edge) for edge in undirected.edges} == {frozenset(edge) for edge in record.edges}
    assert type(record.to_undirected()) is networkx.Graph
    assert record.to_undirected(as_view=True).nodes["a"] is record.nodes["a"]
    record.add_edge("b", "a")
    assert list(record.to_undirected(reciprocal=True).edges) == [("a", "b")]
    renamed = networkx.relabel_nodes(record, {"a": "z"})
    assert renamed.nodes["z"]["value"] is record.nodes["a"]["value"]


def test_a_trace_may_be_pickled_and_copied_deeply() -> None:
    record = TracePoutine(batch, graph_type="dense").get_trace()
    score = record.log_pdf()
    for other in (pickle.loads(pickle.dumps(record)), copy.deepcopy(record)):
        assert (type(other), type(other.nodes["x"]), other.graph_type) == (Trace, Site, "dense")
        assert (list(other), list(other.edges)) == (list(record), list(record.edges))
        other.nodes["z"]["value"].add_(1.0)
        assert other.log_pdf() != score
    assert record.log_pdf() == score


def test_a_cycle_has_no_order() -> None:
    record = Trace([("a", "b"), ("b", "a"), ("b", "c")])
    with pytest.raises(ModelError, match=r"\['a', 'b'\] form a cycle"):
        record.topological_sort()


def test_what_a_trace_of_sumout_can_do_this_one_can() -> None:
    record = TracePoutine(batch).get_trace()
    record.compute_log_prob()
    record.compute_score_parts()
    record.pack_tensors()
    assert record.nodes["x"]["packed"]["log_prob"].shape == (3,)
    assert "x dist 3 |" in record.format_shapes()
    assert [name for name, _ in record.iter_stochastic_nodes()] == record.stochastic_nodes
    assert type(poutine.util.prune_subsample_sites(record)) is Trace
    assert "data" not in poutine.util.prune_subsample_sites(record)
    parameter = torch.tensor(1.0, requires_grad=True)
    other = Trace()
    other.add_node("a", type="sample", fn=dist.Normal(0.0, 1.0), value=2 * parameter)
    assert other.log_pdf().requires_grad
    other.detach_()
    assert not other.log_pdf().requires_grad
    with pytest.raises(ModelError, match="without a name"):
        other.record(poutine.runtime.Message(type="sample"))


def test_one_handler_in_two_threads_at_once() -> None:
    barrier = threading.Barrier(2, timeout=30)
    loop = IndepPoutine(None, "loop", vectorized=False)

    @TracePoutine
    def program(elements: int) -> None:
        for i in range(elements):
            with loop:
                barrier.wait() if i == 0 else None
                sumout.sample(f"x_{i}", dist.Normal(0.0, 1.0))

    records: dict[int, Trace] = {}

    def run(elements: int) -> None:
        records[elements] = program.get_trace(elements)

    threads = [threading.Thread(target=run, args=(elements,)) for elements in (2, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    for elements in (2, 5):
        assert records[elements].stochastic_nodes == [f"x_{i}" for i in range(elements)]
        counters = [
            site["cond_indep_stack"][0].counter for _, site in records[elements].iter_stochastic_nodes()
        ]
        assert counters == list(range(1, elements + 1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: TracePoutine(chain, graph_type="dense"),
        lambda: TracePoutine(ScalePoutine(chain, 2.0)),
        lambda: TracePoutine(BlockPoutine(chain, hide=["a"])),
        lambda: TracePoutine(LiftPoutine(chain, {"s": dist.Exponential(1.0)})),
        lambda: TracePoutine(IndepPoutine(chain, "p", vectorized=False)),
        lambda: TracePoutine(ConditionPoutine(chain, {"a": number(0.0)})),
    ],
)
def test_a_deep_copy_does_the_same_and_is_independent(make: Any) -> None:
    traced = make()
    copied = copy.deepcopy(traced)
    torch.manual_seed(1)
    one = traced.get_trace()
    torch.manual_seed(1)
    other = copied.get_trace()
    assert list(one) == list(other)
    assert one.log_pdf().item() == other.log_pdf().item()
    assert copied.trace is not traced.trace
