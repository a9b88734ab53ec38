from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from forms import in_threads
from sumout.effects import Message, Trace
from sumout.effects.handlers import enum, identify_dense_edges, trace
from sumout.effects.primitives import deterministic, factor, param, plate, sample
from sumout.effects.trace import prune_subsample_sites, site_is_factor, site_is_subsample
from sumout.errors import DuplicateSiteError, ModelError, ParseError
from sumout.settings import settings


def normal(size: int = 0) -> Any:
    return dist.Normal(torch.zeros((size,) if size else (), dtype=torch.float64), 1.0)


def model(shift: float = 0.0) -> torch.Tensor:
    z = sample("z", normal())
    with plate("data", 3):
        x = sample("x", dist.Normal(z + shift, 1.0), obs=torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))
        sample("k", dist.Categorical(torch.ones(4)))
    return x


class TestRecording:
    def test_sites_in_order_with_input_and_return(self) -> None:
        recorded = trace(model).get_trace(shift=1.0)
        assert list(recorded) == ["_INPUT", "z", "data", "x", "k", "_RETURN"]
        assert recorded.nodes["_INPUT"]["type"] == "args"
        assert recorded.nodes["_INPUT"]["kwargs"] == {"shift": 1.0}
        assert recorded.nodes["_RETURN"]["value"] is recorded.nodes["x"]["value"]
        assert len(recorded) == 6
        assert "z" in recorded
        assert "y" not in recorded

    def test_as_a_context_manager(self) -> None:
        with trace() as tracer:
            model()
            so_far = tracer.get_trace()
            sample("later", normal())
        assert "later" not in so_far
        assert list(tracer.trace) == ["z", "data", "x", "k", "later"]
        with tracer:
            sample("y", normal())
        assert list(tracer.trace) == ["y"]

    def test_the_handler_returns_what_the_function_returns(self) -> None:
        handler = trace(model)
        value = handler()
        assert handler.trace.nodes["_RETURN"]["value"] is value
        assert handler.__name__ == "model"

    def test_a_handler_can_be_copied(self) -> None:
        handler = trace(model)
        handler()
        copied = copy.deepcopy(handler)
        assert len(copied.trace) == 0
        assert "z" in copied.get_trace()

    def test_as_a_decorator(self) -> None:
        @trace
        def plain() -> None:
            sample("a", normal())

        @trace(param_only=True)
        def configured() -> None:
            sample("a", normal())
            param("p", torch.tensor(1.0))

        assert list(plain.get_trace()) == ["_INPUT", "a", "_RETURN"]
        assert list(configured.get_trace()) == ["p"]

    def test_sites_are_recorded_as_they_left_the_inner_handlers(self) -> None:
        with trace() as outer, trace() as inner:
            sample("a", normal(), infer={"colour": "red"})
        assert outer.trace.nodes["a"] is not inner.trace.nodes["a"]
        outer.trace.nodes["a"].infer["colour"] = "blue"
        assert inner.trace.nodes["a"]["infer"] == {"colour": "red"}

    def test_sites_marked_so_are_not_recorded(self) -> None:
        with trace() as tracer:
            sample("a", normal(), infer={"_do_not_trace": True, "is_auxiliary": True})
        assert len(tracer.trace) == 0

    def test_node_lists(self) -> None:
        with trace() as tracer:
            param("p", torch.tensor(1.0))
            sample("continuous", normal())
            sample("discrete", dist.Bernoulli(0.5))
            sample("data", normal(), obs=torch.tensor(0.0))
            deterministic("twice", torch.tensor(2.0))
            factor("penalty", torch.tensor(-1.0))
        recorded = tracer.trace
        assert recorded.param_nodes == ["p"]
        assert recorded.stochastic_nodes == ["continuous", "discrete"]
        assert recorded.observation_nodes == ["data", "twice", "penalty"]
        assert recorded.reparameterized_nodes == ["continuous"]
        assert recorded.nonreparam_stochastic_nodes == ["discrete"]
        assert [name for name, _ in recorded.iter_stochastic_nodes()] == ["continuous", "discrete"]
        assert [name for name in recorded if site_is_factor(recorded.nodes[name])] == ["penalty"]

    def test_subsample_sites_can_be_pruned(self) -> None:
        with trace() as tracer, plate("data", 10, subsample_size=3):
            sample("x", normal())
        assert [name for name in tracer.trace if site_is_subsample(tracer.trace.nodes[name])] == ["data"]
        assert list(prune_subsample_sites(tracer.trace)) == ["x"]
        assert list(tracer.trace) == ["data", "x"]

    def test_graph_type_is_one_of_two(self) -> None:
        with pytest.raises(ModelError, match="'round'"):
            trace(model, graph_type="round")  # type: ignore[call-overload]

    def test_as_a_decorator_of_a_method(self) -> None:
        class Model:
            def __init__(self, shift: float) -> None:
                self.shift = shift

            @trace
            def run(self, scale: float) -> torch.Tensor:
                return sample("z", dist.Delta(torch.tensor(self.shift * scale)))

        model = Model(2.0)
        assert model.run(3.0) == 6.0
        assert model.run.get_trace(4.0).nodes["_RETURN"]["value"] == 8.0
        assert model.run.trace.nodes["z"]["value"] == 8.0  # of the last run
        assert Model.run.get_trace(model, 5.0).nodes["z"]["value"] == 10.0


class TestThreads:
    def test_where_a_thread_had_no_run_the_last_run_of_any_is_seen(self) -> None:
        handler = trace(lambda loc: sample("z", dist.Delta(torch.tensor(loc))))
        assert len(handler.trace) == 0
        in_threads(lambda: handler(1.0))
        assert handler.trace.nodes["z"]["value"] == 1.0
        assert handler.msngr.get_trace().nodes["z"]["value"] == 1.0
        in_threads(lambda: handler(2.0))
        assert handler.trace.nodes["z"]["value"] == 2.0

    def test_a_threads_own_run_goes_first(self) -> None:
        handler = trace(lambda loc: sample("z", dist.Delta(torch.tensor(loc))))
        handler(1.0)

        def other() -> tuple[float, float]:
            before = handler.trace.nodes["z"]["value"].item()
            handler(2.0)
            return before, handler.trace.nodes["z"]["value"].item()

        assert in_threads(other) == [(1.0, 2.0)]
        assert handler.trace.nodes["z"]["value"] == 1.0

    def test_also_while_it_goes_on(self) -> None:
        """As in Pyro, where all threads have one."""

        def program() -> list[Any]:
            sample("z", normal())
            return in_threads(lambda: list(handler.trace))

        handler = trace(program)
        assert handler() == [["_INPUT", "z"]]
        assert list(handler.trace) == ["_INPUT", "z", "_RETURN"]

    def test_with_edges_and_params_alone(self) -> None:
        dense, params = trace(model, graph_type="dense"), trace(model, param_only=True)
        in_threads(dense, params)
        assert list(dense.trace.edges)
        assert list(params.trace) == []


class TestNames:
    def test_a_duplicate_is_also_the_runtime_error_that_programs_for_pyro_catch(self) -> None:
        def twice() -> None:
            sample("z", normal())
            sample("z", normal())

        with pytest.raises(RuntimeError, match="'z'"):
            trace(twice).get_trace()

    def test_two_sample_sites_of_one_name(self) -> None:
        def twice() -> None:
            sample("z", normal())
            sample("z", normal())

        with pytest.raises(DuplicateSiteError, match="Multiple sample sites named 'z'.*number them"):
            trace(twice).get_trace()

    def test_a_sample_site_named_like_a_param(self) -> None:
        def clash() -> None:
            param("z", torch.tensor(0.0))
            sample("z", normal())

        with pytest.raises(DuplicateSiteError, match="'z' is already in this trace as a param site"):
            trace(clash).get_trace()

    def test_a_param_may_be_met_twice(self) -> None:
        def twice() -> None:
            param("p", torch.tensor(1.0))
            sample("z", normal())
            param("p", torch.tensor(1.0))

        assert list(trace(twice).get_trace()) == ["_INPUT", "p", "z", "_RETURN"]

    def test_a_plate_made_twice(self) -> None:
        def twice() -> None:
            for name in "ab":
                with plate("data", 3):
                    sample(name, normal())

        with pytest.raises(DuplicateSiteError, match="Plate 'data' is made twice"):
            trace(twice).get_trace()

    def test_a_site_without_a_name(self) -> None:
        with pytest.raises(ModelError, match="without a name"):
            Trace().record(Message(type="sample"))

    def test_add_node(self) -> None:
        recorded = Trace()
        recorded.add_node("z", name="z", type="sample", value=1)
        with pytest.raises(DuplicateSiteError, match="'z'"):
            recorded.add_node("z", **recorded.nodes["z"])
        recorded.add_node("y", **{**recorded.nodes["z"], "name": "y"})
        assert recorded.nodes["y"]["value"] == 1


class TestNodes:
    def test_a_dictionary_that_is_stored_becomes_a_site(self) -> None:
        given: Any = {"type": "sample", "fn": normal(), "value": torch.tensor(0.0), "colour": "red"}
        ways: list[Any] = [
            lambda nodes: nodes.__setitem__("z", given),
            lambda nodes: nodes.setdefault("z", given),
            lambda nodes: nodes.setdefault("z", default=given),
            lambda nodes: nodes.update(z=given),
            lambda nodes: nodes.__ior__({"z": given}),
        ]
        for way in ways:
            nodes = Trace().nodes
            way(nodes)
            assert isinstance(nodes["z"], Message)
            assert nodes["z"]["colour"] == "red"
            assert nodes["z"]["log_prob"] == normal().log_prob(torch.tensor(0.0))
        assert isinstance((Trace().nodes | {"z": given})["z"], Message)

    def test_setdefault_gives_the_site_that_is_there(self) -> None:
        nodes = trace(model).get_trace().nodes
        site, number = nodes["z"], len(nodes)
        assert nodes.setdefault("z", {"type": "param"}) is site
        assert nodes.setdefault("dict", {"type": "sample", "name": "dict"}) is nodes["dict"]
        assert isinstance(nodes.pop("dict"), Message)
        assert nodes.setdefault("new") is nodes["new"]
        assert (nodes["new"].name, nodes["new"].value) == ("new", None)
        assert len(nodes) == number + 1
        assert list(nodes)[-1] == "new"

    def test_are_an_ordered_dictionary(self) -> None:
        recorded = trace(model).get_trace()
        recorded.nodes.move_to_end("z")
        assert list(recorded.nodes)[-1] == "z"
        assert recorded.nodes.pop("z")["name"] == "z"
        assert "z" not in recorded

    def test_plain_dictionaries_become_sites(self) -> None:
        recorded = trace(model).get_trace()
        recorded.nodes["z"] = {**recorded.nodes["z"], "value": torch.tensor(2.0), "colour": "red"}
        recorded.nodes.update(k=dict(recorded.nodes["k"]))
        assert recorded.nodes["z"].value == 2
        assert recorded.nodes["z"]["colour"] == "red"
        recorded.log_prob_sum()

    def test_repr(self) -> None:
        recorded = Trace()
        recorded.add_node("z", type="sample", value=1.0)
        assert repr(recorded) == "Trace(z)"
        assert repr(recorded.nodes["z"]) == "Message(type='sample', name='z', value=1.0)"


class TestCopy:
    def test_shares_neither_sites_nor_edges(self) -> None:
        recorded = trace(model, graph_type="dense").get_trace()
        copied = recorded.copy()
        assert copied.nodes["z"] is not recorded.nodes["z"]
        assert list(copied.edges) == list(recorded.edges)
        copied.nodes["z"]["value"] = torch.tensor(9.0)
        copied.nodes["z"]["infer"]["colour"] = "red"
        copied.remove_node("x")
        copied.add_node("new", type="sample")
        copied.add_edge("new", "z")
        assert recorded.nodes["z"]["value"] != 9
        assert recorded.nodes["z"]["infer"] == {}
        assert list(recorded) == ["_INPUT", "z", "data", "x", "k", "_RETURN"]
        assert ("z", "x") in recorded.edges
        assert ("new", "z") not in recorded.edges

    def test_pickles(self) -> None:
        recorded = trace(model, graph_type="dense").get_trace()
        total = recorded.log_prob_sum()
        restored = pickle.loads(pickle.dumps(recorded))
        assert list(restored) == list(recorded)
        assert list(restored.edges) == list(recorded.edges)
        assert restored.log_prob_sum() == total

    def test_detach(self) -> None:
        loc = torch.tensor(0.0, requires_grad=True)
        with trace() as tracer:
            sample("z", dist.Normal(loc, 1.0))
            param("p", torch.tensor(1.0))
        recorded = tracer.trace
        assert recorded.nodes["z"]["value"].requires_grad
        recorded.detach_()
        assert not recorded.nodes["z"]["value"].requires_grad
        assert recorded.nodes["p"]["value"].requires_grad


class TestLogProb:
    def test_sum_over_sites(self) -> None:
        recorded = trace(model).get_trace()
        z = recorded.nodes["z"]["value"]
        data = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
        half_log_two_pi = 0.5 * torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))
        expected = -0.5 * z**2 - 0.5 * ((data - z) ** 2).sum() - 4 * half_log_two_pi
        expected = expected - 3 * torch.log(torch.tensor(4.0, dtype=torch.float64))
        assert torch.allclose(recorded.log_prob_sum(), expected, atol=1e-6)

    def test_the_filter_chooses_sites(self) -> None:
        recorded = trace(model).get_trace()
        total = recorded.log_prob_sum(lambda name, site: name == "x")
        assert total == recorded.nodes["x"]["log_prob_sum"]
        assert "log_prob" not in recorded.nodes["z"]
        assert recorded.log_prob_sum(lambda name, site: False) == 0.0
        recorded.compute_log_prob(lambda name, site: site["is_observed"])
        assert "log_prob" not in recorded.nodes["z"]

    def test_compute_log_prob_puts_them_into_the_sites(self) -> None:
        recorded = trace(model).get_trace()
        recorded.compute_log_prob()
        for name in ("z", "x", "k"):
            site = recorded.nodes[name]
            assert {"log_prob", "unscaled_log_prob", "log_prob_sum"} <= set(site)
        assert recorded.nodes["x"]["log_prob"].shape == (3,)
        assert recorded.nodes["x"]["log_prob_sum"].shape == ()

    def test_follows_edits(self) -> None:
        recorded = trace(model).get_trace()
        before = recorded.log_prob_sum()
        recorded.nodes["z"]["value"] = recorded.nodes["z"]["value"] + 10.0
        assert recorded.log_prob_sum() < before
        recorded.nodes["x"]["mask"] = False
        recorded.nodes["k"]["scale"] = 0.5
        assert recorded.nodes["x"]["log_prob_sum"] == 0
        expected = recorded.nodes["z"]["log_prob_sum"] - 0.5 * 3 * torch.log(torch.tensor(4.0))
        assert torch.allclose(recorded.log_prob_sum(), expected, atol=1e-6)

    def test_score_parts(self) -> None:
        recorded = trace(model).get_trace()
        recorded.compute_score_parts()
        assert {"score_parts", "log_prob", "log_prob_sum"} <= set(recorded.nodes["z"])
        recorded.nodes["z"]["value"].add_(1.0)
        assert "score_parts" not in recorded.nodes["z"]

    def test_an_impossible_shape_tells_the_shapes_up_to_the_site(self) -> None:
        recorded = trace(model).get_trace()
        recorded.nodes["x"]["value"] = torch.zeros(7)
        for compute in (recorded.log_prob_sum, recorded.compute_log_prob, recorded.compute_score_parts):
            with pytest.raises(
                ValueError, match=r"(?s)site 'x'.*Sample Sites:.*x dist 3 \|.*value 7 \|"
            ) as caught:
                compute()
            assert "k dist" not in str(caught.value)

    @pytest.mark.parametrize("number", [float("nan"), float("inf")])
    def test_nan_warns_where_checks_are_on(self, number: float) -> None:
        recorded = Trace()
        recorded.add_node(
            "z",
            type="sample",
            fn=dist.Unit(torch.tensor(number), validate_args=False),
            value=torch.tensor([]),
        )
        with settings.override(validation=False):
            recorded.copy().log_prob_sum()
        with settings.override(validation=True), pytest.warns(UserWarning, match=f"'z' sums to {number}"):
            recorded.log_prob_sum()

    def test_impossible_values_do_not_warn(self) -> None:
        recorded = Trace()
        recorded.add_node(
            "z", type="sample", fn=dist.Unit(torch.tensor(-float("inf"))), value=torch.tensor([])
        )
        assert recorded.log_prob_sum() == -float("inf")


class TestShapes:
    def test_table(self) -> None:
        def shapes() -> None:
            param("loc", torch.zeros(3, 2))
            sample("z", dist.Normal(torch.zeros(10, 1, 2), 1.0).to_event(1))
            sample("scalar", normal(), obs=1.0)

        recorded = trace(shapes).get_trace()
        lines = [line.rstrip() for line in recorded.format_shapes().split("\n")]
        assert lines == [
            "Trace Shapes:",
            " Param Sites:",
            "          loc    3 2",
            "Sample Sites:",
            "       z dist 10 1 | 2",
            "        value 10 1 | 2",
            "  scalar dist      |",
            "        value      |",
        ]
        recorded.nodes["z"]["log_prob"]
        assert "     log_prob 10 1 |" in recorded.format_shapes()
        assert "scalar" not in recorded.format_shapes(last_site="z")
        assert recorded.format_shapes("Shapes:").startswith("      Shapes:")

    def test_of_an_empty_trace(self) -> None:
        assert Trace().format_shapes("Nothing:") == "Nothing:"

    def test_is_told_by_errors_of_the_model(self) -> None:
        class OwnError(RuntimeError):
            code = 7

        problem = OwnError("no luck")

        def fails() -> None:
            sample("z", normal(3))
            raise problem

        with pytest.raises(OwnError, match=r"(?s)^no luck\nTrace Shapes:.*z dist 3 \|") as caught:
            trace(trace(fails)).get_trace()
        assert caught.value is problem
        assert str(caught.value).count("Trace Shapes:") == 1

    def test_errors_with_other_arguments_are_left_alone(self) -> None:
        def fails() -> None:
            raise ParseError("file", 3, "bad")

        with pytest.raises(ParseError, match=r"^file:3: bad$"):
            trace(fails).get_trace()


class TestEdges:
    def test_by_hand(self) -> None:
        recorded = Trace()
        for name in "abcd":
            recorded.add_node(name, type="sample")
        recorded.add_edge("c", "a")
        recorded.add_edge("a", "b")
        recorded.add_edge("b", "new")
        assert recorded.successors("a") == {"b"}
        assert recorded.predecessors("a") == {"c"}
        assert recorded.predecessors("d") == set()
        assert "new" in recorded
        assert set(recorded.edges) == {("c", "a"), ("a", "b"), ("b", "new")}
        assert recorded.topological_sort() == ["c", "a", "b", "d", "new"]
        assert recorded.topological_sort(reverse=True) == ["new", "d", "b", "a", "c"]
        recorded.remove_node("a")
        assert set(recorded.edges) == {("b", "new")}
        with pytest.raises(KeyError):
            recorded.successors("a")
        recorded.add_edge("new", "b")
        with pytest.raises(ModelError, match="cycle"):
            recorded.topological_sort()

    def test_dense_but_for_elements_of_one_plate(self) -> None:
        def loops() -> None:
            sample("a", normal())
            for i in plate("outer", 2):
                sample(f"b_{i}", normal())
                for j in plate(f"inner_{i}", 2):
                    sample(f"c_{i}{j}", normal())

        recorded = trace(loops, graph_type="dense").get_trace()
        inside = {f"b_{i}" for i in range(2)} | {f"c_{i}{j}" for i in range(2) for j in range(2)}
        expected = {("a", name) for name in inside}
        expected |= {(f"b_{i}", f"c_{i}{j}") for i in range(2) for j in range(2)}
        assert set(recorded.edges) == expected
        flat = trace(loops).get_trace()
        assert list(flat.edges) == []
        identify_dense_edges(flat)
        assert set(flat.edges) == expected


class TestPacking:
    def test_drops_broadcast_dims_and_names_the_others(self) -> None:
        def enumerated() -> None:
            z = sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            with plate("data", 3):
                y = sample("y", dist.Bernoulli(0.2 + 0.5 * z), infer={"enumerate": "parallel"})
                sample("x", dist.Normal(y, 1.0), obs=torch.zeros(3))

        recorded = trace(enum(enumerated, first_available_dim=-2)).get_trace()
        recorded.compute_log_prob()
        letters: dict[str, str] = {}
        recorded.pack_tensors(letters)
        data = letters["data"]
        packed = {name: recorded.nodes[name]["packed"]["log_prob"] for name in "zyx"}
        assert packed["z"].shape == (2,)
        assert packed["y"].shape == (2, 2, 3)
        assert packed["x"].shape == (2, 3)
        z, y = packed["z"]._pyro_dims, packed["y"]._pyro_dims[0]
        assert packed["y"]._pyro_dims == y + z + data
        assert packed["x"]._pyro_dims == y + data
        assert torch.equal(packed["x"], recorded.nodes["x"]["log_prob"].squeeze())

    def test_an_unknown_dim_is_an_error(self) -> None:
        recorded = Trace()
        recorded.add_node("z", type="sample", fn=normal(3), value=torch.zeros(3))
        recorded.compute_log_prob()
        with pytest.raises(ModelError, match=r"'z'.*\(3,\).*dim -1"):
            recorded.pack_tensors()


class TestReading:
    def test_changes_nothing(self) -> None:
        recorded = trace(model, graph_type="dense").get_trace()

        def contents() -> Any:
            return [(name, dict(site)) for name, site in recorded.nodes.items()], list(recorded.edges)

        before = contents()
        repr(recorded), repr(recorded.nodes), recorded.format_shapes(), recorded.topological_sort()
        recorded.stochastic_nodes, recorded.observation_nodes, recorded.param_nodes  # noqa: B018
        recorded.reparameterized_nodes, recorded.successors("z"), recorded.predecessors("x")
        list(recorded.iter_stochastic_nodes()), len(recorded), list(recorded), recorded.copy()
        after = contents()
        assert before[1] == after[1]
        for (name, one), (other_name, other) in zip(before[0], after[0], strict=True):
            assert name == other_name
            assert one.keys() == other.keys()
            assert all(one[key] is other[key] or one[key] == other[key] for key in one)
