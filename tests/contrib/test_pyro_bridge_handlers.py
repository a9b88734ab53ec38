"""Two stacks of handlers joined to one: what stands inside, outside and between, and what is left behind."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import LifoQueue
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.infer
import pyro.optim
import pytest
import torch
from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.runtime import _DIM_ALLOCATOR, _PYRO_STACK
from torch import Tensor

import sumout
from models import pyro_language, sumout_language, vector
from sumout import infer, poutine
from sumout.errors import EnumerationError, ModelError, PlateError
from sumout.infer.reparam import LocScaleReparam
from sumout_contrib.pyro_bridge import as_sumout

ONE = torch.tensor(1.0)


def model(x: Tensor | None = None) -> Tensor:
    z = pyro.sample("z", dist.Bernoulli(0.5))
    pyro.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=x)
    return z


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    expand = BroadcastMessenger._pyro_sample
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()
    assert _PYRO_STACK == []
    assert _DIM_ALLOCATOR._stack == []
    assert BroadcastMessenger._pyro_sample is expand
    assert not poutine.runtime.am_i_wrapped()


# ---------------------------------------------------------------------------------------------- the function form


def test_name_arguments_and_docstring_are_kept() -> None:
    def program(x: int, *, y: int = 2) -> int:
        """Adds."""
        return x + y

    wrapped = as_sumout(program)
    assert wrapped(1, y=3) == 4
    assert (wrapped.__name__, wrapped.__doc__) == ("program", "Adds.")
    assert inspect.signature(wrapped) == inspect.signature(program)


def test_it_is_a_decorator_of_methods_too() -> None:
    class Holder:
        probs = 0.25

        @as_sumout
        def model(self) -> None:
            pyro.sample("z", dist.Bernoulli(self.probs))

    assert infer.marginals(Holder().model)()["z"].probs.item() == pytest.approx(0.25)


def test_what_is_no_program() -> None:
    with pytest.raises(ModelError, match="as_sumout takes a Pyro program and was given Tensor"):
        as_sumout(model())  # type: ignore[arg-type]


def test_outside_of_all_handlers_it_is_a_pyro_program() -> None:
    wrapped = as_sumout(model)
    torch.manual_seed(1)
    value = model()
    torch.manual_seed(1)
    assert torch.equal(wrapped(), value)
    conditioned = pyro.poutine.condition(wrapped, data={"z": ONE})
    record = pyro.poutine.trace(conditioned).get_trace(ONE)
    assert record.nodes["z"]["is_observed"]
    with pyro.plate("data", 3):
        assert wrapped().shape == (3,)
    elbo = pyro.infer.TraceEnum_ELBO(max_plate_nesting=0)
    loss = elbo.loss(pyro.infer.config_enumerate(wrapped), lambda x: None, ONE)
    assert loss == pytest.approx(0.6931, abs=1e-4)


# ------------------------------------------------------------------------------------- Pyro's handlers, inside


def inner_trace() -> Any:
    with pyro.plate("data", 2):
        return pyro.poutine.trace(model).get_trace(ONE)


def test_a_pyro_trace_inside_sees_what_sumouts_handlers_did() -> None:
    data = {"z": torch.tensor([0.0, 1.0, 1.0]).expand(2, 3)}
    with sumout.plate("outer", 3), poutine.scale(scale=2.0), poutine.condition(data=data):
        recorded = as_sumout(inner_trace)()
    site = recorded.nodes["z"]
    assert site["is_observed"]
    assert torch.equal(site["value"], data["z"])
    assert site["fn"].batch_shape == (2, 3)


PYRO_HANDLERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "condition": (
        lambda: pyro.poutine.condition(model, data={"z": ONE}),
        lambda: poutine.condition(as_sumout(model), data={"z": ONE}),
    ),
    "mask": (lambda: pyro.poutine.mask(model, mask=False), lambda: poutine.mask(as_sumout(model), mask=False)),
    "scale": (lambda: pyro.poutine.scale(model, scale=0.5), lambda: poutine.scale(as_sumout(model), scale=0.5)),
    "block": (lambda: pyro.poutine.block(model, hide=["x"]), lambda: poutine.block(as_sumout(model), hide=["x"])),
    "seed": (lambda: pyro.poutine.seed(model, rng_seed=1), lambda: poutine.seed(as_sumout(model), rng_seed=1)),
    "plate": (lambda: pyro.plate("data", 2)(model), lambda: sumout.plate("data", 2)(as_sumout(model))),
}  # fmt: skip


@pytest.mark.parametrize("name", PYRO_HANDLERS)
def test_pyros_handlers_inside_do_what_sumouts_do_outside(name: str) -> None:
    inside, outside = PYRO_HANDLERS[name]
    torch.manual_seed(0)
    first = poutine.trace(as_sumout(inside())).get_trace(ONE)
    torch.manual_seed(0)
    second = poutine.trace(outside()).get_trace(ONE)
    assert list(first) == list(second)
    assert torch.equal(torch.as_tensor(first.log_prob_sum()), torch.as_tensor(second.log_prob_sum()))
    for site in first.stochastic_nodes:
        assert torch.equal(first.nodes[site]["value"], second.nodes[site]["value"])


def test_interventions_replay_and_lifted_params_of_pyros() -> None:
    def program() -> Tensor:
        bias = pyro.param("bias", torch.tensor(0.0))
        z = pyro.sample("z", dist.Bernoulli(0.5))
        return pyro.sample("y", dist.Normal(10 * z + bias, 0.1))

    cut = as_sumout(pyro.poutine.do(program, data={"z": ONE}))
    assert poutine.trace(cut).get_trace().nodes["y"]["fn"].loc == 10
    record = pyro.poutine.trace(program).get_trace()
    again = poutine.trace(as_sumout(pyro.poutine.replay(program, trace=record))).get_trace()
    assert torch.equal(again.nodes["y"]["value"], record.nodes["y"]["value"])
    lifted = as_sumout(pyro.poutine.lift(program, prior={"bias": dist.Normal(0.0, 1.0)}))
    assert "bias" in poutine.trace(lifted).get_trace().stochastic_nodes


def test_a_mask_of_data_that_is_partly_missing() -> None:
    present = torch.tensor([True, False, True])

    def program() -> None:
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Bernoulli(vector(0.5)[0]))
            pyro.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=vector(1, 1, 0), obs_mask=present)

    found = infer.marginals(as_sumout(program), "z")()
    torch.testing.assert_close(found["z"].probs, vector(0.8, 0.5, 0.2))


def test_enumeration_by_pyro_inside_is_refused() -> None:
    inside = pyro.poutine.enum(pyro.infer.config_enumerate(model), first_available_dim=-1)
    with pytest.raises(EnumerationError, match="Pyro's enum handler has enumerated site 'z'"):
        infer.log_evidence(as_sumout(inside))(ONE)


# --------------------------------------------------------------------------------- sumout's handlers, outside


def many_kinds_of_sites(ppl: Any) -> Callable[[], Tensor]:
    data = vector(0.5, -1.0, 2.0)

    def program() -> Tensor:
        scale = ppl.param("scale", vector(1.5)[0], constraint=dist.constraints.positive)
        z = ppl.sample("z", ppl.dist.Normal(vector(0.0)[0], 1.0))
        with ppl.plate("data", 6, subsample_size=3):
            c = ppl.sample("c", ppl.dist.Bernoulli(vector(0.3)[0]))
            loc = ppl.sample("loc", ppl.dist.Normal(z + c, scale))
            with ppl.mask(mask=torch.tensor([True, False, True])):
                ppl.sample("x", ppl.dist.Normal(loc, 1.0), obs=data)
        for i in ppl.plate("loop", 2):
            z = z + ppl.sample(f"b_{i}", ppl.dist.Bernoulli(vector(0.6)[0]))
        return z

    return program


def known_run() -> Any:
    torch.manual_seed(5)
    return poutine.trace(many_kinds_of_sites(sumout_language())).get_trace()


SUMOUT_HANDLERS: dict[str, Callable[[Any], Any]] = {
    "do": lambda program: poutine.do(program, data={"z": vector(3.0)[0]}),
    "do and condition": lambda program: poutine.condition(
        poutine.do(program, data={"z": vector(3.0)[0]}), data={"z": vector(1.0)[0]}
    ),
    "lift": lambda program: poutine.lift(program, prior={"scale": dist.LogNormal(vector(0.0)[0], 1.0)}),
    "substitute": lambda program: poutine.substitute(program, data={"scale": vector(0.7)[0]}),
    "uncondition": poutine.uncondition,
    "equalize": lambda program: poutine.equalize(program, ["z", "loc"]),
    "replay": lambda program: poutine.replay(program, trace=known_run()),
    "reparam": lambda program: poutine.reparam(
        program, config={name: LocScaleReparam(0.0) for name in ("z", "loc")}
    ),
    "block": lambda program: poutine.block(program, hide_fn=lambda site: site["name"] == "c"),
}


@pytest.mark.parametrize("name", SUMOUT_HANDLERS)
def test_sumouts_handlers_do_what_they_do_to_sumouts_programs(name: str) -> None:
    handler = SUMOUT_HANDLERS[name]
    with sumout.get_param_store().scope():
        torch.manual_seed(0)
        expected = poutine.trace(handler(many_kinds_of_sites(sumout_language()))).get_trace()
    torch.manual_seed(0)
    found = poutine.trace(handler(as_sumout(many_kinds_of_sites(pyro_language())))).get_trace()
    assert list(expected) == list(found)
    assert torch.equal(expected.nodes["_RETURN"]["value"], found.nodes["_RETURN"]["value"])
    for site in (*expected.stochastic_nodes, *expected.observation_nodes, *expected.param_nodes):
        first, second = expected.nodes[site], found.nodes[site]
        for field in ("type", "is_observed", "scale", "cond_indep_stack"):
            assert first[field] == second[field], (site, field)
        assert torch.equal(first["value"], second["value"])
        if first["type"] == "sample":
            assert torch.equal(first["log_prob"], second["log_prob"])


def test_runs_one_after_another_from_a_queue() -> None:
    def program() -> None:
        z = pyro.sample("z", dist.Bernoulli(vector(0.3)[0]))
        for i in pyro.plate("loop", 2):
            pyro.sample(f"x_{i}", dist.Categorical(torch.stack([z, 1 - z]) + 1))

    partial: LifoQueue[Any] = LifoQueue()
    partial.put(poutine.Trace())
    each_run = poutine.trace(poutine.queue(as_sumout(program), queue=partial))
    found = []
    while not partial.empty():
        found.append(each_run.get_trace().log_prob_sum().exp().item())
    assert len(found) == 8
    assert sum(found) == pytest.approx(1.0)


# ------------------------------------------------------------------------------------- Pyro's handlers, outside


def test_a_pyro_trace_outside_sees_what_sumouts_handlers_did() -> None:
    data = {"z": ONE}
    watched = pyro.poutine.trace(as_sumout(model))
    with poutine.condition(data=data), poutine.scale(scale=2.0):
        record = watched.get_trace(ONE)
    assert record.nodes["z"]["is_observed"]
    assert record.nodes["x"]["scale"] == 2.0
    assert record.log_prob_sum().item() == pytest.approx(2 * (0.5 * torch.tensor(0.8)).log().item())


def test_what_sumout_hides_is_hidden_from_pyro_outside() -> None:
    watched = pyro.poutine.trace(as_sumout(model))
    with poutine.block(hide=["x"]):
        assert "x" not in watched.get_trace().nodes


def test_pyros_svi_may_train_exact_evidence() -> None:
    def coin(x: Tensor) -> None:
        probs = pyro.param("probs", torch.tensor([0.5, 0.5]), constraint=dist.constraints.simplex)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(probs))
            pyro.sample("x", dist.Normal(10.0 * z, 1.0), obs=x)

    def loss(model: Any, guide: Any, x: Tensor) -> Tensor:
        return -infer.log_evidence(as_sumout(model))(x)

    svi = pyro.infer.SVI(coin, lambda x: None, pyro.optim.Adam({"lr": 0.1}), loss=loss)
    for _ in range(200):
        svi.step(torch.tensor([0.0, 10.0, 10.0, 10.0]))
    torch.testing.assert_close(pyro.param("probs"), torch.tensor([0.25, 0.75]), rtol=1e-2, atol=1e-2)


OUTSIDE: dict[str, Callable[[Any], Any]] = {
    "value": lambda program: pyro.poutine.condition(program, data={"z": ONE}),
    "cond_indep_stack": lambda program: pyro.plate("data", 2)(program),
    "mask": lambda program: pyro.poutine.mask(program, mask=False),
    "scale": lambda program: pyro.poutine.scale(program, scale=2.0),
    "infer": lambda program: pyro.poutine.infer_config(program, config_fn=lambda site: {"enumerate": None}),
}


@pytest.mark.parametrize("field", OUTSIDE)
def test_changes_from_outside_come_too_late(field: str) -> None:
    expected = rf"outside of as_sumout \(\w+\) changes .*{field}.* of site .*Put the handler"
    with pytest.raises(ModelError, match=expected):
        infer.log_evidence(OUTSIDE[field](as_sumout(model)))(ONE)


# ------------------------------------------------------------------------------------------- what programs ask for


def test_masks_and_plates_that_a_program_asks_for() -> None:
    def program() -> Any:
        with pyro.plate("inner", 2):
            plates = [(frame.name, frame.dim, frame.size) for frame in pyro.poutine.runtime.get_plates()]
            return pyro.poutine.get_mask(), plates

    assert as_sumout(program)() == (None, [("inner", -1, 2)])
    with sumout.plate("outer", 3), poutine.mask(mask=False):
        assert as_sumout(program)() == (False, [("outer", -1, 3), ("inner", -2, 2)])
    masked = pyro.poutine.mask(program, mask=torch.tensor([True, False]))
    with poutine.mask(mask=torch.tensor([True, True])):
        assert as_sumout(masked)()[0].tolist() == [True, False]


# -------------------------------------------------------------------------------------------------- mixed programs


def shared(x: Tensor) -> None:
    """A program of sumout's that calls one of Pyro's in the middle."""
    with sumout.plate("rows", 3):
        z = sumout.sample("z", dist.Bernoulli(vector(0.3)[0]))
        w = as_sumout(noisy)(z)
        sumout.sample("x", dist.Normal(w, 1.0), obs=x)


def noisy(z: Tensor) -> Tensor:
    w = pyro.sample("w", dist.Bernoulli(0.2 + 0.5 * z))
    with pyro.plate("columns", 2):
        pyro.sample("y", dist.Normal(w, 1.0), obs=torch.ones(2, 3).double())
    return w


def all_ours(x: Tensor) -> None:
    with sumout.plate("rows", 3):
        z = sumout.sample("z", dist.Bernoulli(vector(0.3)[0]))
        w = sumout.sample("w", dist.Bernoulli(0.2 + 0.5 * z))
        with sumout.plate("columns", 2):
            sumout.sample("y", dist.Normal(w, 1.0), obs=torch.ones(2, 3).double())
        sumout.sample("x", dist.Normal(w, 1.0), obs=x)


def test_a_pyro_program_in_a_program_of_sumouts() -> None:
    x = vector(0.1, 0.9, 0.4)
    assert torch.equal(infer.log_evidence(shared)(x), infer.log_evidence(all_ours)(x))
    expected, found = infer.marginals(all_ours)(x), infer.marginals(shared)(x)
    for name in ("z", "w"):
        assert torch.equal(expected[name].probs, found[name].probs)
    plates = poutine.trace(shared).get_trace(x).nodes["y"]["cond_indep_stack"]
    assert [(frame.name, frame.dim) for frame in plates] == [("rows", -1), ("columns", -2)]


def test_steps_of_pyros_in_a_chain_of_sumouts() -> None:
    move = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)

    def step(language: Any, t: int, x: Tensor) -> Tensor:
        x = language.sample(f"x_{t}", dist.Categorical(move[x]))
        for s in language.markov(range(2)):
            language.sample(f"y_{t}_{s}", dist.Normal(x, 1.0), obs=vector(0.3)[0])
        return x

    def chain(step: Callable[..., Tensor], language: Any) -> None:
        x = torch.tensor(0)
        for t in sumout.markov(range(80)):
            x = step(language, t, x)

    mixed, ours = (as_sumout(step), pyro), (step, sumout)
    assert torch.equal(infer.log_evidence(chain)(*mixed), infer.log_evidence(chain)(*ours))


def test_a_wrapped_program_in_a_wrapped_program() -> None:
    def outer() -> None:
        with pyro.plate("data", 2):
            z = as_sumout(model)(torch.tensor([1.0, 0.0]))
            with poutine.condition(data={"y": ONE}):
                as_sumout(lambda: pyro.sample("y", dist.Bernoulli(0.1 + 0.5 * z)))()

    found = infer.marginals(as_sumout(outer))()
    seen = torch.tensor([[0.8, 0.2], [0.2, 0.8]]) * torch.tensor([[0.6, 0.6], [0.1, 0.1]])
    torch.testing.assert_close(found["z"].probs, seen[0] / seen.sum(0))


def test_statements_of_both_libraries_side_by_side() -> None:
    def program() -> None:
        z = pyro.sample("z", dist.Bernoulli(0.5))
        sumout.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=ONE)

    assert infer.marginals(as_sumout(program))()["z"].probs.item() == pytest.approx(0.8)


def test_statements_of_sumouts_inside_pyros_handlers() -> None:
    """What is written in Pyro's language, and the same with every second statement in sumout's."""
    move = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)

    def build(other: Any) -> Callable[[], None]:
        def program() -> None:
            with pyro.plate("outer", 4, subsample_size=2), pyro.poutine.scale(scale=0.5):
                x = torch.tensor(0)
                weights = other.param("weights", torch.arange(4.0), event_dim=0)
                assert weights.shape == (2,)
                for t in pyro.markov(range(30)):
                    x = other.sample(f"x_{t}", dist.Categorical(move[x]))
                    with pyro.plate(f"inner_{t}", 3), pyro.poutine.mask(mask=torch.tensor(True)):
                        other.sample(f"y_{t}", dist.Normal(x, 1.0), obs=vector(0.3)[0])
                        mask = (pyro if other is pyro else sumout).poutine.get_mask()
                        plates = (pyro if other is pyro else sumout).poutine.runtime.get_plates()
                        assert mask is not None
                        assert [(frame.name, frame.dim) for frame in plates] == [
                            ("outer", -1),
                            (f"inner_{t}", -2),
                        ]
                other.factor("end", x * weights)

        return as_sumout(program)

    with sumout.get_param_store().scope():
        recorded = []
        for other in (pyro, sumout):
            torch.manual_seed(0)
            enumerated = poutine.enum(infer.config_enumerate(build(other)), first_available_dim=-3)
            recorded.append(poutine.trace(enumerated).get_trace())
            torch.manual_seed(0)
            recorded.append(infer.log_evidence(build(other))())
    expected, evidence, found, other_evidence = recorded
    assert torch.equal(evidence, other_evidence)
    assert list(expected) == list(found)
    for name in (*expected.stochastic_nodes, *expected.observation_nodes, "weights"):
        site, other = expected.nodes[name], found.nodes[name]
        for field in ("enum_dim", "enum_dims", "cond_indep_stack", "scale", "mask", "is_observed", "infer"):
            assert site[field] == other[field], (name, field)
        assert torch.equal(site["value"], other["value"])
        assert torch.equal(
            torch.as_tensor(site.get("log_prob", 0)), torch.as_tensor(other.get("log_prob", 0))
        )


def test_pyros_handlers_inside_see_statements_of_sumouts() -> None:
    def program() -> Tensor:
        with pyro.poutine.condition(data={"z": ONE}), pyro.poutine.block(hide=["hidden"]):
            with pyro.poutine.trace() as inner, poutine.scale(scale=2.0):
                z = sumout.sample("z", dist.Bernoulli(0.5))
                sumout.sample("hidden", dist.Normal(z, 1.0))
        assert list(inner.trace.nodes) == ["z", "hidden"]
        assert inner.trace.nodes["z"]["is_observed"]
        assert inner.trace.nodes["z"]["scale"] == 2.0
        return z

    record = poutine.trace(as_sumout(program)).get_trace()
    assert record.observation_nodes == ["z"]
    assert record.stochastic_nodes == []
    assert record.nodes["_RETURN"]["value"] == 1


def test_plates_of_both_libraries_along_one_dimension_are_refused() -> None:
    def program(dim: int | None = None) -> None:
        with sumout.plate("ours", 2, dim=dim), pyro.plate("theirs", 2):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(2, 2))

    with pytest.raises(PlateError, match="Plates 'ours' and 'theirs' both use dim -1 at site 'x'"):
        infer.log_evidence(as_sumout(program))()
    found = infer.log_evidence(as_sumout(program))(dim=-2)
    assert found.item() == pytest.approx(4 * dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.0)).item())


# ------------------------------------------------------------------------------------------- what is left behind


PLACES = ["in a plate", "in a loop", "in a chain", "in a handler", "in a nested program"]


@pytest.mark.parametrize("where", PLACES)
def test_errors_leave_nothing_behind(where: str) -> None:
    def program() -> None:
        if where == "in a plate":
            with pyro.plate("data", 2), pyro.plate("more", 3):
                raise KeyError("here")
        if where == "in a loop":
            for _ in pyro.plate("loop", 3):
                raise KeyError("here")
        if where == "in a chain":
            for t in pyro.markov(range(3)):
                pyro.sample(f"x_{t}", dist.Bernoulli(0.5))
                if t == 1:
                    raise KeyError("here")
        if where == "in a nested program":
            where_to = as_sumout(lambda: pyro.poutine.scale(lambda: [][1], scale=2.0)())
            with pyro.plate("data", 2):
                where_to()
        pyro.sample("x", dist.Bernoulli(0.5))

    class Refuse(poutine.Messenger):
        def _pyro_sample(self, msg: Any) -> None:
            if where == "in a handler" and msg.name == "x":
                raise KeyError("here")

    with pytest.raises((KeyError, IndexError)), sumout.plate("outer", 4), Refuse():
        poutine.trace(as_sumout(program))()
    assert infer.marginals(as_sumout(model))(ONE)["z"].probs.item() == pytest.approx(0.8)


def test_a_handler_that_is_entered_and_not_left_is_cut_off() -> None:
    def program() -> None:
        pyro.poutine.scale(scale=2.0).__enter__()

    with pytest.raises(ValueError, match="stack"):
        poutine.trace(as_sumout(program))()


def test_threads_do_not_see_each_other() -> None:
    together = threading.Barrier(4)
    pause = threading.Event()

    def program(probs: float) -> None:
        z = pyro.sample("z", dist.Bernoulli(vector(probs)[0]))
        with pyro.plate("data", 3):
            pause.wait(0.0005)  # lets another thread have a turn in the middle of the run
            pyro.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=vector(1, 1, 0))

    def evidences(number: int) -> list[float]:
        together.wait()
        if number % 2:
            runs = [poutine.trace(as_sumout(program)).get_trace(0.5) for _ in range(10)]
            return [run.log_prob_sum().exp().item() for run in runs]
        return [infer.log_evidence(as_sumout(program))(number / 10).exp().item() for _ in range(10)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(evidences, range(4)))
    for number in (0, 2):
        expected = (1 - number / 10) * 0.2**2 * 0.8 + number / 10 * 0.8**2 * 0.2
        assert found[number] == pytest.approx([expected] * 10, rel=1e-6)
    both_sides = (0.5 * 0.2**2 * 0.8, 0.5 * 0.8**2 * 0.2)
    assert all(min(abs(each - side) for side in both_sides) < 1e-6 for each in found[1] + found[3])
