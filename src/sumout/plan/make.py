"""From a structure to a plan, once per structure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from sumout.errors import PlanError
from sumout.plan.choose import Chooser
from sumout.plan.cost import Machine
from sumout.plan.draft import Draft
from sumout.plan.outline import StuckError, listed
from sumout.plan.plan import EliminationPlan
from sumout.plan.planning import Planning, in_force
from sumout.plan.saved import check_path, from_json
from sumout.plan.search import search
from sumout.plan.slices import Room, fitted, sliceable, why_not
from sumout.plan.structure import Readout, Structure
from sumout.plan.unroll import Unrolled, cheapest, how_many

_MOST_COPIES = 2**13
"""Of factors and variables, when plates are written out only to save memory."""


class PlanCacheInfo(NamedTuple):
    """Counters of the plan cache since it was last cleared."""

    hits: int
    misses: int
    size: int


class _Question(NamedTuple):
    """What is to be planned."""

    structure: Structure
    marginals: tuple[Readout, ...]
    maximised: tuple[str, ...]
    unroll: bool = False


_kept: dict[_Question, EliminationPlan] = {}
"""Plans that were loaded, or asked to be kept."""


@lru_cache(maxsize=1024)
def _make_plan(question: _Question, how: Planning) -> EliminationPlan:
    draft = _draft(question)
    if question.unroll:
        try:
            _ = draft.outline
        except StuckError as stuck:
            draft = _unrolled(question, stuck, how.machine)
    return _fill(draft, how)


def _draft(question: _Question, unrolled: Sequence[str] = (), sliced: Sequence[str] = ()) -> Draft:
    return Draft(question.structure, question.marginals, question.maximised, unrolled, sliced)


def _unrolled(question: _Question, stuck: StuckError, machine: Machine) -> Draft:
    """The draft with the cheapest plates written out, in which also all that is asked for can be read."""

    def seconds(unrolled: Unrolled) -> float:
        chooser = Chooser(_draft(question, unrolled.plates).problems, machine)
        chooser.try_orders(("min_fill",))
        return min(each.seconds for each in chooser.considered)

    plates = cheapest(question.structure, stuck, seconds).plates
    return _draft(question, plates)


def _fill(draft: Draft, how: Planning) -> EliminationPlan:
    """A plan of the best paths that are found for a draft."""
    chooser = Chooser(draft.problems, how.machine)
    search(chooser, how.orders, how.time_limit)
    choice = chooser.choice()
    paths = [tuple(choice.paths[key].pairs) for key in draft.problems]
    return draft.plan(choice.order, paths, choice.considered, how.machine, choice.safe)


@lru_cache(maxsize=64)
def _make_fitting(
    question: _Question, how: Planning, room: Room, whole: EliminationPlan
) -> EliminationPlan | str:
    """A plan that fits into memory, or why none is found."""
    found = _sliced(question, how, room, whole)
    if isinstance(found, EliminationPlan) or not question.unroll:
        return found
    plan, why, unrolled = whole, [found], frozenset(whole.unrolled)
    while True:
        # Written out, the elements of a plate run one after the other, and what lives in them can be fixed.
        ordinals = dict(plan.structure.variables)
        inside = frozenset[str]().union(*[ordinals.get(each, ()) for each in plan.largest_dims])
        tried: list[tuple[int, EliminationPlan, str]] = []
        for plate in sorted(inside):
            draft = _written_out(question, sorted(unrolled | {plate}))
            if isinstance(draft, str):
                why.append(draft)
                continue
            plan = _fill(draft, replace(how, time_limit=0.0))
            found = _sliced(question, how, room, plan)
            if isinstance(found, EliminationPlan):
                return found
            tried.append((plan.bytes(room.itemsize, room.backward), plan, found))
        if not tried:
            return " ".join(why)
        _, plan, found = min(tried, key=lambda each: each[0])
        unrolled = frozenset(plan.unrolled)
        why = [why[0], f"With the plates {sorted(unrolled)} written out: {found}"]


def _written_out(question: _Question, plates: Sequence[str]) -> Draft | str:
    """A draft with plates written out that need not be, or why there is none."""
    copies = how_many(question.structure, plates)
    if copies > _MOST_COPIES:
        return f"Written out, {listed(plates)} would make {copies:,} copies; {_MOST_COPIES:,} are made to save memory."
    try:
        draft = _draft(question, plates)
        _ = draft.outline
    except StuckError:
        return f"With {listed(plates)} written out, the others are not tree-shaped."
    except PlanError:
        return f"A plate of {listed(plates)} is subsampled and cannot be written out: its elements stand for others."
    return draft


def _sliced(question: _Question, how: Planning, room: Room, whole: EliminationPlan) -> EliminationPlan | str:
    """A plan that fits into memory with the same plates written out, or why none is found."""
    quick = replace(how, time_limit=0.0)

    def make(fixed: Sequence[str], frugal: bool) -> EliminationPlan:
        if not fixed and not frugal:
            return whole
        draft = _draft(question, whole.unrolled, fixed)
        plan = make(fixed, frugal=False) if frugal else _fill(draft, quick)
        found = plan
        for shared in (True, False) if frugal and fixed else (False,):
            if found.frugal != frugal or not room.holds(found):
                safe = plan.simplified.safe
                found = draft.plan(
                    plan.order, plan.paths, plan.considered, plan.machine, safe, frugal, shared
                )
        return found

    draft = _draft(question, whole.unrolled)
    candidates = sliceable(draft.structure)
    if draft.last:
        candidates &= draft.last  # A maximum over slices may come last, but a sum may not.
    found = fitted(room, draft.structure, candidates, make, how.patience)
    if isinstance(found, EliminationPlan):
        return found
    return f"{found} {why_not(draft.structure, whole, draft.last)}".rstrip()


def make_plan(
    structure: Structure,
    marginals: Sequence[Readout] = (),
    orders: Sequence[str] | None = None,
    machine: Machine | None = None,
    *,
    maximised: Sequence[str] = (),
    time_limit: float | None = None,
    memory_limit: int | None = None,
    itemsize: int = 8,
    backward: bool = False,
    slices: int = 1,
    unroll: bool = False,
) -> EliminationPlan:
    """The cheapest plan that is found; the same structure is planned only once.

    Args:
        structure: names, sizes and kinds of a factor graph (``FactorGraph.structure``).
        marginals: variables, and tuples of them, whose marginals are to be read out of a backward sweep.
        orders: the heuristics to try, keys of ``ORDERS`` and ``SEARCHES``; what ``planning`` says if ``None``.
        machine: the rates by which costs are compared; what ``planning`` says if ``None``.
        maximised: variables that are maximised after all others were summed out (marginal MAP).
        time_limit: seconds of further search; what ``planning`` says if ``None``.
        memory_limit: bytes that the plan may need. A plan that needs more is run step by step, then in slices: with
            some variables fixed to one joint state after the other; with ``unroll``, plates may be written out for
            that.
        itemsize: bytes of a number.
        backward: whether the memory of a backward sweep counts.
        slices: how many there are to be at least, to be shared out; fewer where no more variables can be fixed.
        unroll: whether plates that are not tree-shaped are written out, the cheapest that make the rest a tree. The
            plan then runs on the unrolled graph (``factors.unroll``).

    Raises:
        PlanError: if the plates are not tree-shaped, and are not or cannot be written out; if factors of one variable
            have different scales.
        MemoryLimitError: if no plan is found that fits into ``memory_limit`` and takes no longer than
            ``planning(patience=...)``; if writing plates out makes too many copies to be planned.
        MissingExtraError: if an order needs a package that is not installed.

    >>> from sumout.plan import FactorShape
    >>> chain = Structure(
    ...     factors=tuple(FactorShape((f"x{t}", f"x{t + 1}")) for t in range(8)),
    ...     sizes=tuple((f"x{t}", 3) for t in range(9)),
    ...     variables=tuple((f"x{t}", frozenset()) for t in range(9)),
    ... )
    >>> plan = make_plan(chain, orders=("min_fill",))
    >>> plan.width, plan.largest
    (1, 9)
    """
    question = _Question(structure, tuple(marginals), tuple(maximised), unroll)
    how, plan = in_force(), None
    if orders is not None or machine is not None or time_limit is not None:
        how = how.changed(orders, machine, time_limit)
    elif _kept:
        plan = _kept.get(question)
    if plan is None:
        plan = _make_plan(question, how)
    if memory_limit is None:
        memory_limit = max(sys.maxsize, plan.bytes(itemsize, backward))
    if slices <= plan.slices and plan.bytes(itemsize, backward) <= memory_limit:
        return plan
    # The limit may be another at each call, and the plan should not: it counts in eighths of its power of two.
    coarse = memory_limit & ~((1 << max(0, memory_limit.bit_length() - 4)) - 1)
    whole = _make_plan(question, how) if plan.sliced or plan.frugal else plan
    found = _make_fitting(question, how, Room(coarse, itemsize, backward, slices), whole)
    if isinstance(found, str):
        whole.check_memory(memory_limit, itemsize, backward, found)
        return whole
    return found


def load_plan(path: str | Path, structure: Structure | None = None) -> EliminationPlan:
    """Reads a plan that ``EliminationPlan.save`` wrote.

    Args:
        path: the file.
        structure: what the plan is to be used for.

    Raises:
        PlanError: if the file is no plan, of another version or damaged, or the plan was made for another structure.

    >>> import tempfile
    >>> from sumout.plan import FactorShape
    >>> pair = Structure((FactorShape(("x",)), FactorShape(("x",))), (("x", 2),), (("x", frozenset()),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     make_plan(pair).save(f"{folder}/pair.json")
    ...     load_plan(f"{folder}/pair.json", pair) == make_plan(pair)
    True
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PlanError(f"{path} is no plan: {error}. Make one with make_plan.") from None
    saved = from_json(text, str(path))
    if structure is not None and structure != saved.asked:
        raise PlanError(
            f"The plan in {path} was made for another structure: {_difference(saved.asked, structure)}. "
            "Make one with make_plan."
        )
    try:
        draft = Draft(saved.asked, saved.marginals, saved.maximised, saved.unrolled, saved.sliced)
        problems = [each.problem for each in draft.problems.values()]
    except (KeyError, IndexError, TypeError) as error:
        raise PlanError(f"{path} is a damaged plan: {error!r}. Make it again with make_plan.") from error
    if len(problems) != len(saved.paths):
        raise PlanError(
            f"{path} is a damaged plan: {len(saved.paths)} paths for {len(problems)} contractions."
        )
    for problem, found in zip(problems, saved.paths, strict=True):
        check_path(found, len(problem.operands))
    return draft.plan(
        saved.order, saved.paths, saved.considered, saved.machine, saved.safe, saved.frugal, saved.shared
    )


def _difference(one: Structure, other: Structure) -> str:
    for field in Structure._fields:
        mine, theirs = getattr(one, field), getattr(other, field)
        if mine != theirs:
            return f"its {field} differ ({len(mine)} there, {len(theirs)} here)"
    return "they are the same"


def keep_plan(plan: EliminationPlan) -> None:
    """Lets every query of the plan's structure use it, so that a search that took long is paid for once.

    A call of ``make_plan`` that says how to search makes a plan of its own all the same.
    """
    for unroll in (True,) if plan.unrolled else (True, False):
        _kept[_Question(plan.asked, plan.marginals, plan.maximised, unroll)] = plan


def plan_cache_info() -> PlanCacheInfo:
    """How often a plan was found (hits) and made (misses).

    >>> clear_plan_cache()
    >>> plan_cache_info()
    PlanCacheInfo(hits=0, misses=0, size=0)
    """
    info = _make_plan.cache_info()
    return PlanCacheInfo(info.hits, info.misses, info.currsize)


def clear_plan_cache() -> None:
    """Forgets all plans, those that were to be kept too, and sets the counters to zero."""
    _make_plan.cache_clear()
    _make_fitting.cache_clear()
    _kept.clear()
