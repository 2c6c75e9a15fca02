"""The formulas of ``conf/resources.json``, evaluated here as the plan of a run does.

``python tests/planning.py`` prints the planning table of ``docs/usage.md``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

CONSTANTS = json.loads((Path(__file__).parents[1] / "conf/resources.json").read_text())
# People, voxels, variants, components.
STUDIES = (
    (3_000, 10_000, 20_000, 20),
    (5_000, 50_000, 8_000_000, 50),
    (50_000, 100_000, 9_000_000, 100),
    (500_000, 100_000, 9_000_000, 100),
)
HEADER = (
    "| people | voxels | variants | components | tasks | core-hours | hours on 2, 100 cores "
    "| most memory of a task | work folder | dataset |"
)


def sum_of(terms: dict, quantities: dict[str, float]) -> float:
    """Return a sum of products of quantities times factors, each perhaps bounded."""
    total = 0.0
    for names, factor in terms.items():
        product = math.prod(quantities.get(name, 0) for name in names.split("*") if name != "1")
        total += (
            min(product * factor[0], factor[1]) if isinstance(factor, list) else product * factor
        )
    return total


def memory_of(stage: str, quantities: dict[str, float]) -> int:
    """Return the bytes that the first attempt of a task asks for."""
    entry = CONSTANTS["stages"][stage]
    asked = CONSTANTS["margin"] * sum_of(entry["memory"], {"cpus": entry["cpus"], **quantities})
    return int(max(asked, CONSTANTS["least_memory"]))


def study(n: int, N: int, m: int, r: int) -> tuple[dict[str, float], dict[str, int], dict]:
    """Return a study as docs/usage.md describes it.

    Its quantities, its tasks by stage, and what differs by stage: sizes of files.
    """
    p, batches, panels = 20, -(-n // 500), min(m, 1_200_000)
    chunks = sum(-(-(m * (k + 1) // 22 - m * k // 22) // 20_000) for k in range(22))
    quantities = {
        "people": n, "voxels": N, "smoothed_voxels": N, "components": r, "covariates": p,
        "columns": r + p, "variants": m, "chunks": chunks, "genotype_files": 22,
        "batches": batches, "batch_people": min(n, 500), "image_bytes": 1.5e6 * n,
        "image": 1.5e6, "draws": 20_000, "parts": 8, "traits": 1, "panel_tasks": 22,
        "panel_variants": panels, "panel_people": 10_000, "samples": 20 * n,
        "variant_list": 40 * m / 22, "chunk_variants": min(m, 20_000),
        "clump_tasks": 22,
    }  # fmt: skip
    tasks = {
        "read_images": batches, "project_images": batches, "plan_chunks": 3,
        "component_gwas": chunks, "scan_voxels": 8, "ld_blocks": 22, "cross_trait": 1,
        "clump_variants": 22,
    }  # fmt: skip
    table = {"covariates": 10.0 * p * n}
    shares = {stage: table for stage in ("select_subjects", "import_ldrs", "fit_null")}
    shares["ld_blocks"] = {"samples": 20 * 2 * 10_000, "variant_list": 40 * 2 * panels / 22}
    return quantities, tasks, shares


def plan(quantities: dict, tasks: dict[str, int], shares: dict, stages: list[str]) -> list[dict]:
    """Return tasks, memory, seconds and bytes of each stage, as the plan of a run prints them."""
    sizes = {name: sum_of(terms, quantities) for name, terms in CONSTANTS["files"].items()}
    rows = []
    for stage in stages:
        entry, number = CONSTANTS["stages"][stage], tasks.get(stage, 1)
        known = {**sizes, **quantities}
        asked = {**known, **shares.get(stage, {})}
        rows.append(
            {
                "stage": stage,
                "cpus": entry["cpus"],
                "tasks": number,
                "memory": memory_of(stage, asked),
                "seconds": sum_of(entry["seconds"], known) + number * CONSTANTS["seconds_per_task"],
                "writes": sum_of(entry["writes"], known),
            }
        )
    return rows


def hours(rows: list[dict], cores: int) -> float:
    """Return the hours on some cores: stages one after another, each on those it can use."""
    return sum(row["seconds"] / min(cores, row["cpus"] * row["tasks"]) for row in rows) / 3600


def table() -> str:
    """Return the planning table of docs/usage.md."""
    without = {"simulate", "convert_genotypes", "import_ldrs", "import_sumstats"}
    stages = [stage for stage in CONSTANTS["stages"] if stage not in without]
    lines = [HEADER, "|" + "---|" * (HEADER.count("|") - 1)]
    for n, N, m, r in STUDIES:
        quantities, tasks, shares = study(n, N, m, r)
        rows = plan(quantities, tasks, shares, stages)
        dataset = sum_of(CONSTANTS["files"]["dataset"], quantities)
        core_hours = sum(row["seconds"] for row in rows) / 3600
        lines.append(
            f"| {n:,} | {N:,} | {m:,} | {r} | {sum(row['tasks'] for row in rows):,} "
            f"| {core_hours:.2g} | {hours(rows, 2):.2g}, {hours(rows, 100):.2g} "
            f"| {max(row['memory'] for row in rows) / 2**30:.2g} GiB "
            f"| {sum(row['writes'] for row in rows) / 1e9:.3g} GB | {dataset / 1e9:.2g} GB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
