"""Plates: dimensions, expansion, subsampling, loops, and every way to get them wrong."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch

import sumout.distributions as dist
from sumout.effects import CondIndepStackFrame, Message, Messenger, get_plates
from sumout.effects.handlers import EnumMessenger, MarkovMessenger, broadcast, replay, trace
from sumout.effects.handlers.indep import IndepMessenger
from sumout.effects.handlers.plate import block_plate
from sumout.effects.primitives import param, plate, plate_stack, sample, subsample
from sumout.effects.primitives.param import get_param_store
from sumout.effects.stack import state
from sumout.errors import PlateError

Frame = CondIndepStackFrame


class Recorder(Messenger):
    """Keeps every sample message as it leaves the handlers inside of it."""

    def __init__(self) -> None:
        self.sites: dict[str, Message] = {}

    def _pyro_post_sample(self, msg: Message) -> None:
        self.sites[msg.name or ""] = msg.copy()


def test_distributions_are_expanded_along_the_plates_and_sites_know_them() -> None:
    with Recorder() as run, plate("a", 3), plate("b", 4):
        sample("x", dist.Normal(0.0, 1.0))
    assert run.sites["x"].value.shape == (4, 3)
    assert run.sites["x"].fn.batch_shape == (4, 3)
    assert run.sites["x"].cond_indep_stack == (Frame("a", -1, 3, 0, 3), Frame("b", -2, 4, 0, 4))
    assert run.sites["x"].scale == 1.0


def test_elements_of_an_expanded_site_are_drawn_independently() -> None:
    with plate("a", 1000):
        x = sample("x", dist.Normal(torch.zeros(()).double(), 1.0))
    assert x.unique().numel() == 1000


def test_expansion_copies_nothing() -> None:
    loc = torch.zeros(4, 1)
    with Recorder() as run, plate("a", 3):
        sample("x", dist.Normal(loc, 1.0))
    assert run.sites["x"].fn.loc.stride() == (1, 0)


def test_a_distribution_of_the_right_shape_is_left_alone() -> None:
    fn = dist.Normal(torch.zeros(5, 3), 1.0)
    with Recorder() as run, plate("a", 3):
        sample("x", fn)
    assert run.sites["x"].fn is fn


def test_manual_dimensions_leave_room_between() -> None:
    with plate("a", 3, dim=-3):
        assert sample("x", dist.Normal(0.0, 1.0)).shape == (3, 1, 1)
        with plate("b", 2):
            assert sample("y", dist.Normal(torch.zeros(5), 1.0).to_event(1)).shape == (3, 1, 2, 5)


def test_one_plate_used_thrice_keeps_its_dimension() -> None:
    rows, columns = plate("rows", 3, dim=-2), plate("columns", 2, dim=-1)
    with rows:
        assert sample("r", dist.Normal(0.0, 1.0)).shape == (3, 1)
    with columns:
        assert sample("c", dist.Normal(0.0, 1.0)).shape == (2,)
    with rows, columns:
        assert sample("rc", dist.Normal(0.0, 1.0)).shape == (3, 2)


def test_a_stack_of_plates_has_the_shape_of_a_tensor() -> None:
    with plate_stack("grid", [4, 3], rightmost_dim=-2):
        assert sample("x", dist.Normal(0.0, 1.0)).shape == (4, 3, 1)
        assert [(frame.name, frame.dim) for frame in get_plates()] == [("grid_0", -2), ("grid_1", -3)]


def test_a_plate_of_no_size_expands_nothing() -> None:
    with Recorder() as run, plate("a"):
        sample("x", dist.Normal(torch.zeros(7), 1.0))
        sample("y", dist.Normal(0.0, 1.0))
    assert run.sites["x"].value.shape == (7,)
    assert run.sites["y"].value.shape == ()
    assert run.sites["x"].scale == 1.0


def test_decorator() -> None:
    @plate("a", 3)
    def model() -> torch.Tensor:
        return sample("x", dist.Normal(0.0, 1.0))

    assert model().shape == (3,)
    assert model().shape == (3,)


def test_subsampling_scales_and_gives_indices() -> None:
    with Recorder() as run, plate("a", 100, subsample_size=10) as indices:
        sample("x", dist.Normal(0.0, 1.0))
    assert indices.shape == (10,)
    assert indices.unique().numel() == 10
    assert 0 <= indices.min() <= indices.max() < 100
    assert run.sites["x"].scale == 10.0
    assert run.sites["x"].cond_indep_stack == (Frame("a", -1, 10, 0, 100),)
    assert run.sites["a"].value is indices


def test_scales_of_nested_subsamples_multiply() -> None:
    with Recorder() as run, plate("a", 6, subsample_size=2), plate("b", 10, subsample=torch.tensor([1, 8])):
        sample("x", dist.Normal(0.0, 1.0))
    assert run.sites["x"].scale == 15.0


def test_every_element_is_chosen_equally_often() -> None:
    counts = torch.zeros(5)
    for _ in range(2000):
        with plate("a", 5, subsample_size=2) as indices:
            counts[indices] += 1
    # Binomial(2000, 2/5) has standard deviation 22; five of them.
    assert (counts - 800).abs().max() < 110


def test_a_loop_gives_numbers_and_counts_its_elements() -> None:
    with Recorder() as run:
        for i in plate("a", 3):
            assert isinstance(i, int)
            sample(f"x{i}", dist.Normal(0.0, 1.0))
    frames = [run.sites[f"x{i}"].cond_indep_stack for i in range(3)]
    assert frames == [(Frame("a", None, 3, counter, 3),) for counter in (1, 2, 3)]
    assert run.sites["x0"].value.shape == ()


def test_a_subsampled_loop() -> None:
    with Recorder() as run:
        seen = [
            (i, sample(f"x{i}", dist.Normal(0.0, 1.0)))
            for i in plate("a", 9, subsample=torch.tensor([7, 2, 4]))
        ]
    assert [i for i, _ in seen] == [7, 2, 4]
    assert run.sites["x7"].scale == 3.0


def test_a_loop_that_is_left_early_leaves_nothing_behind() -> None:
    for _ in plate("a", 3):
        break
    assert state.stack == []

    def first() -> int:
        for i in plate("a", 3):
            return i
        return -1

    assert first() == 0
    assert state.stack == []


def test_an_error_inside_leaves_nothing_behind() -> None:
    with pytest.raises(ZeroDivisionError), plate("a", 3), plate("b", 2):
        _ = 1 / 0
    assert state.stack == []
    with plate("c", 3, dim=-1), plate("d", 2, dim=-2):
        pass


def test_loops_in_step_are_an_error_that_leaves_nothing_behind() -> None:
    with pytest.raises(ValueError, match="must nest"):
        list(zip(plate("rows", 3), plate("columns", 3), strict=True))
    assert state.stack == []


def test_parameters_with_batch_dimensions_are_cut_to_the_subsample() -> None:
    chosen = torch.tensor([3, 0])
    with get_param_store().scope():
        with plate("a", 4, subsample=chosen), plate("b", 3):
            part = param("w", torch.arange(24.0).reshape(2, 1, 4, 3), event_dim=1)
            other = param("v", torch.arange(4.0))
        full = param("w")
        # Dim -1 is "a", dim -2 "b": the event dimension at the right has size three.
        assert full.shape == (2, 1, 4, 3)
        assert part.shape == (2, 1, 2, 3)
        assert (part == full[:, :, chosen]).all()
        assert part.unconstrained() is full.unconstrained()
        assert other.shape == (4,)
        part.sum().backward()
        assert (full.unconstrained().grad.sum((0, 1, 3)) == torch.tensor([6.0, 0, 0, 6.0])).all()


def test_data_are_cut_to_the_subsample() -> None:
    data = torch.arange(12).reshape(4, 3)
    with plate("a", 4, subsample=torch.tensor([3, 0]), dim=-2), plate("b", 3, subsample=torch.tensor([1])):
        assert subsample(data, event_dim=0).tolist() == [[10], [1]]
    with plate("a", 4, subsample=torch.tensor([3, 0])):
        assert subsample(data, 1).tolist() == [[9, 10, 11], [0, 1, 2]]
        assert subsample(torch.zeros(1), event_dim=0).shape == (1,)


def test_a_blocked_plate_is_stepped_out_of() -> None:
    with plate("a", 3), plate("b", 2):
        with block_plate("a"):
            assert sample("x", dist.Normal(0.0, 1.0)).shape == (2, 1)
        with block_plate(dim=-2):
            assert sample("y", dist.Normal(0.0, 1.0)).shape == (3,)
        assert sample("z", dist.Normal(0.0, 1.0)).shape == (2, 3)


def test_broadcast_expands_along_contexts_that_do_not_themselves() -> None:
    def model() -> torch.Tensor:
        with IndepMessenger("batch", 100, dim=-2), IndepMessenger("components", 3, dim=-1):
            return sample("x", dist.Bernoulli(torch.tensor(0.5)))

    assert model().shape == ()
    assert broadcast(model)().shape == (100, 3)


def test_custom_reparametrization_flags_survive_expansion() -> None:
    fn = dist.Normal(0.0, 1.0)
    fn.has_rsample = False
    with Recorder() as run, plate("a", 3):
        sample("x", fn)
    assert run.sites["x"].fn.has_rsample is False


def test_data_of_another_size_name_site_plate_and_shapes() -> None:
    with pytest.raises(PlateError, match=r"'x'.*shape \(12,\): 12 along dim -1.*'data' of size 10"), trace():
        with plate("data", 10):
            sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(12))


def test_data_conditioned_from_outside_are_compared_too() -> None:
    class Observe(Messenger):
        def _pyro_sample(self, msg: Message) -> None:
            if msg.name == "x":
                msg.value, msg.is_observed = torch.zeros(12, 2), True

    with pytest.raises(PlateError, match=r"\(12, 2\): 12 along dim -1"), Observe(), plate("data", 10):
        sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def test_a_distribution_of_another_size_names_site_plate_and_shapes() -> None:
    with pytest.raises(
        PlateError, match=r"'x' has batch shape \(7,\): 7 along dim -1, which is plate 'data' of size 10"
    ):
        with plate("data", 10):
            sample("x", dist.Normal(torch.zeros(7), 1.0))


def test_parameters_and_data_of_another_size_are_errors() -> None:
    with get_param_store().scope(), plate("data", 10):
        with pytest.raises(PlateError, match=r"param\('w'.*event_dim=0\) has shape \(7,\)"):
            param("w", torch.zeros(7), event_dim=0)
        with pytest.raises(PlateError, match=r"subsample\(.*has shape \(7,\)"):
            subsample(torch.zeros(7), event_dim=0)


def test_colliding_dimensions() -> None:
    with pytest.raises(PlateError, match="'docs' and 'words' both use dim -1"):
        with plate("docs", 3, dim=-1), plate("words", 4, dim=-1):
            pass
    assert state.stack == []


def test_one_plate_inside_itself() -> None:
    rows = plate("rows", 3)
    with pytest.raises(PlateError, match="'rows' is already active"), rows, rows:
        pass
    with pytest.raises(PlateError, match="'rows' is already active"), plate("rows", 3), plate("rows", 2):
        pass
    assert state.stack == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"size": 0}, "at least one"),
        ({"size": -3}, "at least one"),
        ({"size": 2.5}, "a size is an integer"),
        ({"size": 3, "subsample_size": 4}, "4 cannot be chosen"),
        ({"size": 3, "subsample": torch.arange(4)}, "a subsample of 4"),
        ({"size": 3, "subsample": torch.tensor([])}, "a subsample of 0"),
        ({"size": 5, "subsample_size": 3, "subsample": torch.tensor([1, 2])}, "subsample_size=3"),
        ({"size": 5, "subsample": torch.tensor([1, 5])}, "goes from 1 to 5"),
        ({"subsample_size": 3}, "has no size"),
        ({"size": 5, "use_cuda": True, "device": "cpu"}, "Give the device alone"),
    ],
)
def test_contradicting_sizes(arguments: dict[str, object], problem: str) -> None:
    with pytest.raises(PlateError, match=f"'data'.*{problem}"):
        plate("data", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("dim", [0, 2])
def test_a_dimension_from_the_left(dim: int) -> None:
    with pytest.raises(PlateError, match=r"counted from the right.*dim=-1"), plate("data", 3, dim=dim):
        pass


def test_a_plate_is_a_dimension_or_a_loop() -> None:
    rows = plate("rows", 3)
    with rows, pytest.raises(PlateError, match="cannot be iterated too"):
        list(rows)
    looped = plate("looped", 3)
    list(looped)
    with pytest.raises(PlateError, match="Make two plates"), looped:
        pass


def test_blocking_needs_one_plate() -> None:
    with pytest.raises(PlateError, match="a name or a dim"), block_plate():
        pass
    with pytest.raises(PlateError, match="found 0 active plates named 'a'"), block_plate("a"):
        pass
    with block_plate("a", strict=False):
        pass


def test_threads_do_not_share_plates() -> None:
    shared, ready = plate("shared", 3), threading.Barrier(2)
    problems: list[BaseException] = []

    def run(outer: int) -> None:
        try:
            for _ in range(50):
                ready.wait(timeout=30)
                with plate("outer", outer), shared:
                    ready.wait(timeout=30)
                    assert [frame.name for frame in get_plates()] == ["outer", "shared"]
                    assert sample("x", dist.Normal(0.0, 1.0)).shape == (3, outer)
        except BaseException as error:
            problems.append(error)
            ready.abort()

    threads = [threading.Thread(target=run, args=(outer,)) for outer in (4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_handlers_can_be_copied_and_pickled() -> None:
    rows = plate("rows", 3)
    with rows:
        pass
    for handler in (rows, MarkovMessenger(history=2), EnumMessenger(first_available_dim=-2)):
        for again in (copy.deepcopy(handler), pickle.loads(pickle.dumps(handler))):
            with again:
                assert sample("x", dist.Normal(0.0, 1.0)).shape == ((3,) if handler is rows else ())


def test_a_replayed_subsample_is_the_same() -> None:
    def model() -> torch.Tensor:
        with plate("data", 100, subsample_size=5) as indices:
            sample("x", dist.Normal(0.0, 1.0), obs=torch.arange(100.0)[indices])
        return indices

    first = trace(model).get_trace()
    again = trace(replay(model, trace=first)).get_trace()
    assert torch.equal(again.nodes["_RETURN"].value, first.nodes["_RETURN"].value)
    torch.testing.assert_close(again.log_prob_sum(), first.log_prob_sum(), rtol=0, atol=0)


class TestContextsWithoutPlate:
    """``IndepMessenger``, whose arguments all have defaults in the text."""

    def test_without_a_size_nothing_is_checked(self) -> None:
        for given in (IndepMessenger("rows"), IndepMessenger("rows", size=None, dim=-2, device=None)):
            with Recorder() as run, given as rows:
                sample("x", dist.Normal(torch.zeros(5, 1), 1.0))
            assert run.sites["x"].cond_indep_stack == (Frame("rows", rows.dim, -1, 0),)
            with pytest.raises(PlateError, match="'rows' has no size, so its elements are not known"):
                rows.indices  # noqa: B018
            with pytest.raises(PlateError, match="'rows'"):
                list(rows)

    def test_it_needs_a_name(self) -> None:
        for make in (IndepMessenger, lambda: IndepMessenger(size=3), lambda: IndepMessenger(None, 3)):
            with pytest.raises(PlateError, match=r"no name, .*IndepMessenger\('data', \.\.\.\)"):
                make()

    def test_a_dim_is_an_integer(self) -> None:
        for make in (IndepMessenger, plate):
            for wrong in (-1.5, "-1", [-1]):
                with pytest.raises(PlateError, match="'rows' asks for dim=.*negative integer"):
                    make("rows", 3, dim=wrong)  # type: ignore[arg-type]
