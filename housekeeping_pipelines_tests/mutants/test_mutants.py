"""Every mutant is of the code as it is; with `--long`, each is caught."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines_tests.mutants.decisions import MUTANTS
from housekeeping_pipelines_tests.mutants.running import copy_project, is_caught, occurrences

if TYPE_CHECKING:
    from pathlib import Path

    from housekeeping_pipelines_tests.mutants.running import Mutant

# One of each kind of decision to keep something.
KINDS = (
    "held", "young", "referenced", "in use", "unknown", "locked", "unrecognised", "paused", "empty reference", "budget",
    "changed",
)  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.keeps)
def test_the_decision_stands_in_the_code_once(mutant: Mutant) -> None:
    assert occurrences(mutant) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_decision_has_a_mutant(kind: str) -> None:
    assert any(kind in mutant.keeps for mutant in MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.keeps)
def test_a_decision_that_is_turned_round_is_noticed(
    mutant: Mutant, long: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not long:
        pytest.skip("each runs a part of the tests again; --long or `make mutants`")
    copy: Path = tmp_path_factory.mktemp("copy")
    copy_project(copy)
    assert is_caught(mutant, copy)
