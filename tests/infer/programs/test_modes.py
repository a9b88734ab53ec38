"""However the values of enumerated sites look to a program, the answer is the same; which way is taken when."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import settings as example_settings

import oracles
import sumout.distributions as dist
from models import MODELS
from programs import Program, programs
from sumout import condition, get_param_store, infer, markov, plate, poutine, sample, set_rng_seed
from sumout.errors import EnumerationError, MemoryLimitError, PlateError
from sumout.infer.programs.modes import Mode, in_a_mode_that_works
from sumout.infer.programs.program import EnumeratedProgram
from sumout.infer.programs.sequential import sequential_runs
from sumout.infer.solving.solve import solve
from sumout.lower import lower

EXACT = {"rtol": 1e-9, "atol": 1e-9}
THIRDS = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
MOVE = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)


@pytest.mark.parametrize("mode", list(Mode))
@given(program=programs())
@example_settings(max_examples=60)
def test_random_programs_have_the_same_evidence_and_gradient_in_all_modes(
    mode: Mode, program: Program
) -> None:
    trace = EnumeratedProgram(program).run_in(mode, (), {})
    ours = solve(lower(trace)).value
    theirs = oracles.log_z(program.problem())
    torch.testing.assert_close(ours, theirs, **EXACT)
    parameters = program.parameters()
    for a, b in zip(
        torch.autograd.grad(ours, parameters, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(theirs, parameters, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **EXACT)


@given(programs(max_assignments=64))
@example_settings(max_examples=40)
def test_random_programs_have_the_same_evidence_and_marginals_sequentially(program: Program) -> None:
    problem = program.problem()
    assume(problem.sizes)
    found = infer.log_evidence(program, enumeration="sequential")()
    torch.testing.assert_close(found, oracles.log_z(problem), **EXACT)
    marginals = infer.marginals(program, enumeration="sequential")()
    expected = oracles.marginals(problem)
    assert set(marginals) == set(expected)
    for site in program.sites:
        if site.obs is None:
            order = [sorted(site.path).index(name) for name in reversed(site.path)]
            table = expected[site.name].permute((*order, len(order)))
            torch.testing.assert_close(marginals.tables[site.name], table, **EXACT)


def test_a_trace_is_the_same_but_for_the_numbers_of_dims() -> None:
    def model() -> None:
        with plate("data", 4):
            z = sample("z", dist.Categorical(THIRDS))
            w = sample(
                "w", dist.Bernoulli(0.2 + 0.3 * (z == 1)).mask(torch.tensor([True, False, True, True]))
            )
            sample("x", dist.Normal(z + w, 1.0).expand([2, 4]).to_event(0).mask(z > 0), obs=torch.zeros(2, 4))

    def other() -> None:
        one_hot = sample("one_hot", dist.OneHotCategorical(THIRDS))
        sample("seen", dist.MultivariateNormal(one_hot, torch.eye(3)), obs=torch.ones(3))

    for program in (model, other):
        values = []
        for mode in Mode:
            query = EnumeratedProgram(program, 2)
            graph = lower(query.run_in(mode, (), {})) if program is other else None
            if graph is not None:
                values.append(solve(graph).value)
                assert graph.variables["one_hot"].size == 3
        for value in values:
            torch.testing.assert_close(value, values[0], **EXACT)


def test_families_that_are_scored_one_by_one_and_marginals_of_their_own_family() -> None:
    def model() -> None:
        with plate("data", 3):
            hot = sample("hot", dist.OneHotCategorical(THIRDS))
            coin = sample("coin", dist.Bernoulli((hot * THIRDS).sum(-1)).mask(True))
            rate = (hot * torch.tensor([1.0, 2.0, 3.0])).sum(-1) + coin
            sample("count", dist.Poisson(rate), obs=torch.tensor([1.0, 4.0, 0.0], dtype=torch.float64))
            both = torch.stack(torch.broadcast_tensors(rate, 1 + coin), -1)
            sample("pair", dist.Dirichlet(both), obs=torch.full((3, 2), 0.5))

    answers = []
    for mode in Mode:
        program = EnumeratedProgram(model)
        trace = program.run_in(mode, (), {})
        graph = lower(trace)
        result = solve(graph, marginals=("hot", "coin"))
        answers.append((result.value, result.marginal("hot").probs, result.marginal("coin").probs))
    for answer in answers:
        for one, other in zip(answer, answers[0], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def moving(shape: Any) -> Any:
    """A program that needs the shape of one value: three coins in a plate, used as a vector."""

    def model() -> None:
        with plate("data", 3):
            z = sample("z", dist.Bernoulli(torch.tensor([0.2, 0.3, 0.9], dtype=torch.float64)))
            table = z.reshape(shape)[..., None] * torch.ones(2, dtype=torch.float64)
            sample("x", dist.Normal(table, 1.0).to_event(1), obs=torch.ones(3, 2, dtype=torch.float64))

    return model


def test_a_program_may_need_the_shape_along_its_plates() -> None:
    free = torch.tensor([0.2, 0.3, 0.9], dtype=torch.float64)
    logs = dist.Normal(torch.tensor([0.0, 1.0], dtype=torch.float64), 1.0).log_prob(torch.ones(()).double())
    exact = torch.logsumexp(torch.stack([(1 - free).log() + 2 * logs[0], free.log() + 2 * logs[1]]), 0).sum()
    torch.testing.assert_close(infer.log_evidence(moving([3]))(), exact, **EXACT)


def test_failures() -> None:
    tried = []

    def attempt(error: Exception) -> Any:
        def run(mode: Mode) -> int:
            tried.append(mode)
            if mode is not Mode.SHAPED:
                raise error
            return 7

        return run

    key = lambda: None  # noqa: E731  (anything that can be remembered)
    assert in_a_mode_that_works(key, attempt(RuntimeError("sizes"))) == 7
    assert tried == list(Mode)
    tried.clear()
    assert in_a_mode_that_works(key, attempt(RuntimeError("sizes"))) == 7
    assert tried == [Mode.SHAPED]
    tried.clear()
    for error in (KeyError("a"), MemoryLimitError("too large")):
        with pytest.raises(type(error)):
            in_a_mode_that_works(lambda: None, attempt(error))
        assert tried.pop() is Mode.DIMS
        assert not tried

    def always(mode: Mode) -> int:
        raise [RuntimeError("torch"), PlateError("ours"), EnumerationError("later")][mode.value]

    with pytest.raises(PlateError, match="ours"):
        in_a_mode_that_works(1, always)  # of what cannot be remembered, too


def test_a_program_that_fails_by_itself_fails_with_its_own_error() -> None:
    def model() -> None:
        z = sample("z", dist.Bernoulli(0.5))
        raise ValueError(f"of the program, {z.shape is None}")

    with pytest.raises(ValueError, match="of the program"):
        infer.log_evidence(model)()


def test_chains_in_a_grid_of_markov_contexts() -> None:
    """Every row is a chain whose steps look up at the row before it (Pyro reuses dims that are still seen)."""
    tables = torch.rand(2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    tables = tables / tables.sum(-1, keepdim=True)
    data = torch.linspace(-1.0, 2.0, 9, dtype=torch.float64).reshape(3, 3)
    zero = torch.tensor(0)

    def model() -> None:
        x: dict[tuple[int, int], Any] = {}
        for i in markov(range(3)):
            for j in markov(range(3)):
                above, left = x.get((i - 1, j), zero), x.get((i, j - 1), zero)
                x[i, j] = sample(f"x_{i}_{j}", dist.Categorical(tables[above, left]))
                sample(f"y_{i}_{j}", dist.Normal(x[i, j], 1.0), obs=data[i, j])

    problem_tables, names = [], [f"x_{i}_{j}" for i in range(3) for j in range(3)]
    for i in range(3):
        for j in range(3):
            inputs, table = [f"x_{i}_{j}"], tables
            table = table if i else table[0]
            parents = ([f"x_{i - 1}_{j}"] if i else []) + ([f"x_{i}_{j - 1}"] if j else [])
            if not j:
                table = table[:, 0] if i else table[0]
            problem_tables.append(oracles.Table((*parents, *inputs), table.log()))
            logs = dist.Normal(torch.arange(2.0).double(), 1.0).log_prob(data[i, j])
            problem_tables.append(oracles.Table(tuple(inputs), logs))
    problem = oracles.Problem(dict.fromkeys(names, 2), dict.fromkeys(names, frozenset()), {}, problem_tables)
    torch.testing.assert_close(infer.log_evidence(model)(), oracles.log_z(problem), rtol=1e-6, atol=1e-6)
    found = infer.marginals(model)()
    for name, table in oracles.marginals(problem).items():
        torch.testing.assert_close(found.tables[name].double(), table, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(name for name, model in MODELS.items() if model.discrete))
def test_named_models_have_the_same_evidence_in_all_modes(name: str) -> None:
    """Given values for their continuous sites; what one mode refuses all refuse, but for want of dimensions."""
    model = MODELS[name]
    with get_param_store().scope():
        program = model.program()
        set_rng_seed(0)
        drawn = poutine.trace(program).get_trace().nodes
        fixed = {
            site: drawn[site]["value"]
            for site in model.latent
            if site not in model.discrete and site in drawn
        }
        given = EnumeratedProgram(condition(program, data=fixed), model.max_plate_nesting)
        found: list[Any] = []
        for mode in Mode:
            set_rng_seed(1)
            try:
                runs = sequential_runs(lambda mode=mode: solve(lower(given.run_in(mode, (), {}))).value)
                found.append(torch.logsumexp(torch.stack([run.result for run in runs]), 0).detach())
            except (PlateError, EnumerationError) as error:
                found.append(error)
    if any(isinstance(each, PlateError) for each in found):
        assert all(isinstance(each, PlateError) for each in found)
        return
    if isinstance(found[0], EnumerationError):
        del found[0]
    for each in found:
        torch.testing.assert_close(each, found[-1], **EXACT)


def test_a_second_try_has_the_same_random_numbers() -> None:
    def model() -> None:
        with plate("data", 50, subsample_size=5) as indices:
            seen.append(indices)
            z = sample("z", dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)))
            sample("x", dist.Normal(z.reshape([5]), 1.0), obs=torch.zeros(5, dtype=torch.float64))

    seen: list[torch.Tensor] = []
    torch.manual_seed(0)
    infer.log_evidence(model, max_plate_nesting=1)()
    torch.manual_seed(0)
    infer.log_evidence(model, max_plate_nesting=1)()
    assert len({tuple(each.tolist()) for each in seen}) == 1


def test_a_log_probability_is_that_of_its_value_only() -> None:
    def model() -> None:
        z = sample("z", dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)))
        sample("x", dist.Dirichlet(torch.stack([1 + z, 2 - z])), obs=torch.full((2,), 0.5).double())

    trace = EnumeratedProgram(model).run_in(Mode.HIDDEN, (), {})
    site = trace.nodes["x"]
    half = torch.full((2,), 0.5)
    expected = [float(dist.Dirichlet(torch.tensor(each)).log_prob(half)) for each in ([1.0, 2.0], [2.0, 1.0])]
    assert site["log_prob"].tolist() == pytest.approx(expected, rel=1e-6)
    copied = pickle.loads(pickle.dumps(trace.nodes["x"]["fn"]))
    torch.testing.assert_close(copied.log_prob(site["value"].clone()), site["log_prob"])
    site["value"] = torch.tensor([0.2, 0.8], dtype=torch.float64)
    with pytest.raises(ValueError, match="Dirichlet.*only at the value"):
        site["log_prob"]
