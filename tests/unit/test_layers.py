"""The architecture, drawn as a check: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "bin" / "rvga"
FOUNDATION = {"__init__", "errors", "machine_code", "packed", "parallel", "version"}
MATHEMATICS = {
    "balance",
    "bands",
    "calibrated",
    "calibration",
    "coding",
    "component_gwas",
    "covariance",
    "digit_products",
    "exceedances",
    "false_discovery",
    "fpca",
    "heritability",
    "heterogeneity",
    "jackknife",
    "ld",
    "ld_products",
    "loci",
    "ploidy",
    "projection",
    "published",
    "reconstruction",
    "recovery",
    "scan",
    "significance",
    "simulate",
    "single_products",
    "smoothing",
    "surface",
    "tile_products",
    "variant_filters",
}
FILES = {
    "atomic",
    "chromosomes",
    "component_sumstats",
    "conversion",
    "covariates",
    "formats",
    "genotype_samples",
    "genotype_sources",
    "genotypes",
    "geometry",
    "exports",
    "gwas_ssf",
    "hdf5_safety",
    "image_files",
    "image_parts",
    "image_tables",
    "images",
    "kinship",
    "known_loci",
    "label_files",
    "liftover",
    "loco",
    "minimal",
    "null",
    "pgen",
    "regions",
    "sample_selection",
    "samples",
    "sink",
    "sumstats",
    "sumstats_formats",
    "tables",
    "trait_matching",
    "vcf_split",
    "voxel_match",
}
ABOVE = {
    "cli",
    "command",
    "dataset",
    "export",
    "figures",
    "genetic_covariance",
    "ld_reference",
    "map_figures",
    "parcels",
    "query",
    "report",
    "simulate_genotypes",
    "simulate_study",
    "truth",
}
FILE_LIBRARIES = {"argparse", "logging", "pandas", "h5py", "nibabel", "pathlib", "pgenlib", "sys"}


def imported(module: str) -> tuple[set[str], set[str]]:
    """Return the package's own modules and the outside libraries that a module imports."""
    own, outside = set(), set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "rvga":
            names = [f"rvga.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "rvga":
                own.add(rest.split(".")[0])
            else:
                outside.add(first)
    return own, outside


def test_every_module_has_a_layer():
    found = {path.stem for path in PACKAGE.glob("*.py")}
    assert found == FOUNDATION | MATHEMATICS | FILES | ABOVE


@pytest.mark.parametrize("module", sorted(MATHEMATICS))
def test_mathematics_knows_no_files(module):
    own, outside = imported(module)
    assert own <= MATHEMATICS | FOUNDATION
    assert not outside & FILE_LIBRARIES


@pytest.mark.parametrize("module", sorted(FILES))
def test_files_do_no_statistics(module):
    own, _ = imported(module)
    assert own <= FILES | FOUNDATION


def test_nothing_is_imported_with_the_package():
    own, outside = imported("__init__")
    assert not own
    assert not outside


def test_nothing_imports_an_entrypoint():
    for path in PACKAGE.glob("*.py"):
        _, outside = imported(path.stem)
        assert not any(name.startswith("rvga_") for name in outside), path.name
