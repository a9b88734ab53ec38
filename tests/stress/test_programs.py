"""Every query on random programs beside a count of all assignments."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from programs import Program, programs
from stress import checks
from stress.cases import program_case

CHECKS = [check for check in checks.CHECKS if check not in (checks.rows, checks.second_derivatives)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@given(programs(max_statements=4, max_assignments=400), st.integers(0, 2**20))
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
def test_programs(check, program: Program, seed: int) -> None:  # type: ignore[no-untyped-def]
    case = program_case(program, seed)
    assume(case.names)
    torch.manual_seed(seed)
    check(case)
