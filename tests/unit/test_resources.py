"""Formulas of resources: the planning table, the modules, and the sizes of files they predict."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import planning
from rvga import fpca, scan, smoothing
from rvga.component_gwas import workspace_bytes
from rvga.images import block_rows
from rvga.packed import width
from rvga.significance import tail_memory

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = planning.CONSTANTS["stages"]


def test_usage_has_the_planning_table_of_the_formulas():
    usage = (REPOSITORY / "docs/usage.md").read_text()
    table = planning.table()
    assert table in usage
    # The worked example repeats the third row, rounded.
    row = [cell.strip() for cell in table.splitlines()[4].strip("|").split("|")]
    tasks, core_hours, work = row[4].replace(",", ""), float(row[5]), row[8]
    assert (
        f"about {round(int(tasks), -1)}\ntasks and {core_hours:.0f} core-hours, and "
        f"{float(work.removesuffix(' GB')):.0f} GB of work folder." in usage
    )


def test_every_stage_has_formulas_and_no_other():
    assert set(STAGES) == {path.parent.name for path in REPOSITORY.glob("modules/*/main.nf")}


@pytest.mark.parametrize("stage", STAGES)
def test_module_gives_its_formulas_what_they_need(stage):
    text = (REPOSITORY / f"modules/{stage}/main.nf").read_text()
    assert f"cpus {{ cpusOf('{stage}') }}" in text
    for directive in ("memory", "time"):
        [given] = re.findall(
            rf"^    {directive} {{ {directive}Of\('{stage}', \[(.+)\], task\.attempt\) }}$",
            text,
            re.MULTILINE,
        )
        names = set(re.findall(r"(?:^|, )(\w+):", given)) | {"1", "cpus"}
        for terms in (STAGES[stage]["memory"], STAGES[stage]["hours"]):
            assert {name for product in terms for name in product.split("*")} <= names


def test_sums_of_products_are_bounded_where_a_bound_is_given():
    terms = {"1": 10, "a*b": 2, "b": [3, 7]}
    assert planning.sum_of(terms, {"a": 4, "b": 5}) == 10 + 40 + 7
    assert planning.sum_of(terms, {"b": 1}) == 10 + 0 + 3


def test_more_people_voxels_variants_or_components_never_ask_for_less():
    stages = [stage for stage in STAGES if stage not in {"simulate", "convert_genotypes"}]
    small = planning.plan(*planning.study(2_000, 5_000, 100_000, 10), stages)
    for larger in ((9_000, 5_000, 100_000, 10), (2_000, 90_000, 100_000, 10)) + (
        (2_000, 5_000, 5_000_000, 10),
        (2_000, 5_000, 100_000, 90),
    ):
        for one, other in zip(small, planning.plan(*planning.study(*larger), stages), strict=True):
            assert other["memory"] >= one["memory"]
            assert other["seconds"] >= one["seconds"]
            assert other["writes"] >= one["writes"]


@pytest.mark.parametrize("numbers", planning.STUDIES, ids=str)
def test_stages_ask_for_what_they_will_state(numbers):
    """At the planning table's sizes, where no test can run: the entrypoints' own formulas."""
    n, N, _, r = numbers
    quantities, tasks, shares = planning.study(*numbers)
    rows = planning.plan(quantities, tasks, shares, list(STAGES))
    asked = {row["stage"]: row["memory"] for row in rows}
    p, m, t = quantities["covariates"], quantities["chunk_variants"], STAGES["fit_bases"]["cpus"]
    exact = min(n, N) <= fpca.EXACT_SIDE
    spectrum = fpca.gram_bytes(n, N) if exact else fpca.krylov_bytes(0, N)
    held = min(4 * n * N, 1 << 30) if exact and n <= N else 0
    blocks = (12 + 4 * t) * block_rows(N) * N
    assert asked["fit_bases"] > spectrum + held + blocks + smoothing.weight_bytes(N, t)
    t = STAGES["component_gwas"]["cpus"]
    block = 512
    reading = block * width(n) * 2 + (8 << 20) + 5 * n + workspace_bytes(r + p, block)
    model = 28 * n * (r + p) + m * (4 * r + 200) + 16 * block * r
    assert asked["component_gwas"] > (280 << 20) + t * reading + model
    t = STAGES["image_tail"]["cpus"]
    assert asked["image_tail"] > tail_memory(N, r, t)
    assert asked["scan_voxels"] > scan.memory(N, r, 1, 1024, t)
