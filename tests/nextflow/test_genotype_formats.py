"""One study whose genotypes come as PLINK 2 files, and as BGEN and VCF files."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from genotype_files import needs_plink2, vcf_line, write_bgen, write_sample_file, write_vcf_lines
from rvga.genotypes import open_genotypes

pytestmark = [pytest.mark.xdist_group("nextflow-chain"), needs_plink2]

INPUTS = ("images", "mask", "covariates", "categorical_columns", "genome_build", "known_loci")
# Those of the ``test`` profile, and its name of the study.
OPTIONS = ["--study", "test", "--chunk_variants", 1000, "--images_per_batch", 150]
OPTIONS += ["--tail_draws", 2000, "--scan_parts", 2]
OUT = "results/other"


def read_set(path: Path) -> tuple[list[str], list[list[str]], np.ndarray]:
    """Return subjects, variants (as in the .pvar) and genotypes of a PLINK 2 file."""
    with open_genotypes(path) as genotypes:
        everybody = np.arange(len(genotypes.subject))
        values = genotypes.dosages(np.arange(genotypes.n_variants), everybody)
        calls = values if genotypes.has_dosages else np.where(np.isnan(values), -9, values)
        subjects = genotypes.subject.tolist()
        dtype = np.float32 if genotypes.has_dosages else np.int8
    lines = path.with_suffix(".pvar").read_text().splitlines()
    variants = [line.split("\t") for line in lines if not line.startswith("#")]
    return subjects, variants, np.where(np.isnan(calls), -9, calls).astype(dtype)


def write_sets(study: Path, folder: Path) -> None:
    """Write the study's genotypes and its first LD panel in other formats, with their sheets.

    Chromosome 1 becomes a BGEN file without ids, 2 (dosages) and 3 (missing calls) one VCF file.
    """
    folder.mkdir()
    subjects, variants, calls = read_set(study / "genotypes/chr1.pgen")
    write_bgen(folder / "one.bgen", calls.astype(float), variants=variants)
    write_sample_file(folder / "one.sample", [("0", name) for name in subjects])
    (folder / "one.bgen.bgi").write_bytes(b"an index, which is not read")
    lines = []
    for name in ("chr2", "chr3"):
        subjects, variants, values = read_set(study / f"genotypes/{name}.pgen")
        lines += [vcf_line(fixed, row) for fixed, row in zip(variants, values, strict=True)]
    write_vcf_lines(folder / "rest.vcf.gz", subjects, lines, dosage=True)
    (folder / "genotypes.tsv").write_text(
        "chromosome\tpath\tvariants\n1\tone.bgen\tone.bgen.bgi\nall\trest.vcf.gz\t\n"
    )
    subjects, variants, values = read_set(study / "ld_panel_1/chr1.pgen")
    lines = [vcf_line(fixed, row) for fixed, row in zip(variants, values, strict=True)]
    write_vcf_lines(folder / "panel.vcf", subjects, lines)
    rest = "".join(f"{name},{study}/ld_panel_1/chr{name}.pgen\n" for name in (2, 3))
    (folder / "ld_panel_1.csv").write_text("chromosome,path\n1,panel.vcf\n" + rest)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, nextflow, chain_run):
    """Return the results from PLINK files, the run on the same in other formats, and it again.

    The former is the run of the ``test`` profile, which finds the study in its work folder.
    """
    folder = tmp_path_factory.mktemp("formats")
    [study] = chain_run.folder.glob("work/*/*/study/study.yml")
    study = study.parent
    write_sets(study, folder / "other")
    lines = (study / "study.yml").read_text().splitlines(keepends=True)
    common = [line for line in lines if line.partition(":")[0] in INPUTS]
    assert len(common) == len(INPUTS)
    sheets = {
        "genotypes": folder / "other/genotypes.tsv",
        "ld_panel_1": folder / "other/ld_panel_1.csv",
        "ld_panel_2": study / "ld_panel_2.csv",
    }
    content = [*common, *(f'{key}: "{path}"\n' for key, path in sheets.items())]
    (folder / "params.yml").write_text("".join(content))

    def run(*options):
        arguments = ["-params-file", folder / "params.yml", "--outdir", OUT, *OPTIONS]
        return nextflow(folder, *arguments, *options)

    finished = run()
    assert finished.returncode == 0, finished.text
    return chain_run, finished, run


def test_results_are_those_of_the_plink_files(runs):
    chain, finished, _ = runs
    plink, other = chain.folder / "kept", finished.folder / OUT
    files = ["test.rvga.h5", "ld_reference/panel.ld.h5", "heritability/heritability.tsv"]
    same, *different = filecmp.cmpfiles(plink, other, files, shallow=False)
    assert (same, different) == (files, [[], []])
    with h5py.File(plink / "test.rvga.h5") as dataset:
        assert len(dataset["a"]) > 1000
    tables = ["lead_variants.tsv", "loci.tsv", "variants.tsv.gz"]
    assert len((plink / "loci/lead_variants.tsv").read_text().splitlines()) > 1
    same, *different = filecmp.cmpfiles(plink / "loci", other / "loci", tables, shallow=False)
    assert (same, different) == (tables, [[], []])


def test_only_foreign_formats_are_converted(runs):
    chain, finished, _ = runs
    assert "CONVERT_GENOTYPES" not in chain.processes("COMPLETED", "kept")
    tasks = finished.tasks(OUT)["COMPLETED"]
    assert len([task for task in tasks if task.startswith("CONVERT_GENOTYPES")]) == 3


def test_resumed_run_does_not_convert_again(runs):
    _, _, run = runs
    again = run("-resume", "--clump_kb", 300)
    assert again.returncode == 0, again.text
    cached = again.tasks(OUT)["CACHED"]
    assert len([task for task in cached if task.startswith("CONVERT_GENOTYPES")]) == 3
    assert again.processes("COMPLETED", OUT) == {"CLUMP_VARIANTS", "FIND_LOCI", "REPORT"}


def test_damaged_file_ends_the_run_with_its_name(runs):
    _, finished, run = runs
    folder = finished.folder / "other"
    whole = folder / "whole.vcf.gz"
    shutil.copy(folder / "rest.vcf.gz", whole)
    content = whole.read_bytes()
    (folder / "rest.vcf.gz").write_bytes(content[: len(content) // 2])
    done = run("-resume")
    shutil.copy(whole, folder / "rest.vcf.gz")
    assert done.returncode == 2, done.text
    assert "rest.vcf.gz: plink2 cannot convert the file" in done.text
