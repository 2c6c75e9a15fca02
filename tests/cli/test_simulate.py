"""rvga_simulate.py: options, refusals, and images on given genotypes."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest

import helpers
from rvga import formats
from rvga.genotypes import open_genotypes

TINY = (
    "--preset", "small", "--subjects", 60, "--variants", 60, "--panel-subjects", 20,
    "--trait-subjects", 30, "--causal-variants", 10, "--planted-loci", 2, "--voxel-size", 18,
    "--residual-factors", 8, "--chromosome-length", 100000,
)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--subjects", "ten"), "'ten' is not a whole number"),
        (("--subjects", 5), "5 is outside 60 to"),
        (("--heritability", 0.9), "0.9 is outside 0 to 0.5"),
        (("--chromosomes", 23), "23 is outside 1 to 22"),
        (("--voxel-size", 1), "1 is outside 3 to 20"),
        (("--preset", "large"), "invalid choice"),
        (("--colour", "red"), "unrecognized arguments"),
        (("--seed", -1), "a seed is at least 0"),
        (("--variants", 40), "at least 20 are needed for each of the 3 chromosomes"),
        (("--causal-variants", 900), "more than half of the 1333 variants on the chromosomes with"),
        (("--causal-variants", 5), "fewer than the 6 spatial factors"),
        (("--null-chromosomes", 1), "1 is outside 0 to 0.9"),
        (("--chromosome-length", 10000, "--variants", 200000), "do not fit"),
        (("--voxel-size", 20, "--regions", 100), "voxels are too few"),
        (("--genotypes", "absent.csv"), "absent.csv: no such file"),
        (("--genotypes", "absent.csv", "--subjects", 100), "--subjects does not go with"),
    ],
)
def test_simulate__bad_options(run_stage, tmp_path, options, message):
    words = ("--preset", "small", *options, "--out", tmp_path / "study")
    result = run_stage("simulate", *words)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert helpers.files_in(tmp_path) == set()


def test_simulate__out_is_required():
    result = helpers.run_stage_process("simulate", "--preset", "small")
    assert result.returncode == 2
    assert "--out" in result.stderr


def test_simulate__a_foreign_folder_is_refused(run_stage, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    result = run_stage("simulate", *TINY, "--out", tmp_path)
    assert result.returncode == 2
    assert "is no simulated study" in result.stderr
    assert helpers.files_in(tmp_path) == {"thesis.txt"}


def test_simulate__a_study_is_replaced_but_not_what_lies_in_it(run_stage, tmp_path):
    out = tmp_path / "study"
    assert run_stage("simulate", *TINY, "--out", out).returncode == 0
    first = (out / "truth.h5").read_bytes()
    result = run_stage("simulate", *TINY, "--seed", 2, "--out", out)
    assert result.returncode == 0, result.stderr
    assert (out / "truth.h5").read_bytes() != first
    (out / "results.tsv").write_text("mine")
    result = run_stage("simulate", *TINY, "--out", out)
    assert result.returncode == 2
    assert "'results.tsv' in it is not part of one" in result.stderr
    assert (out / "results.tsv").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study"]


def test_simulate__nothing_genetic_can_be_asked_for(run_stage, tmp_path):
    out = tmp_path / "study"
    result = run_stage(
        "simulate", *TINY, "--heritability", 0, "--planted-loci", 0, "--trait-subjects", 0,
        "--out", out,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    with formats.open_file(out / "truth.h5", "truth") as truth:
        assert np.all(truth["genetic_covariance_factor"][...] == 0)
        assert not truth["causal/planted"][...].any()
    assert not (out / "traits.csv").exists()
    assert "traits" not in (out / "study.yml").read_text()


def test_simulate__without_null_chromosomes(run_stage, tmp_path):
    out = tmp_path / "study"
    result = run_stage("simulate", *TINY, "--null-chromosomes", 0, "--out", out)
    assert result.returncode == 0, result.stderr
    assert "chromosomes without a causal variant: none" in result.stderr
    with formats.open_file(out / "truth.h5", "truth") as truth:
        assert set(truth["causal/chromosome"][...].tolist()) == {1, 2, 3}
    assert "Every chromosome has causal variants." in (out / "README.txt").read_text()


def test_simulate__parameters_name_existing_files(tmp_path):
    out = tmp_path / "study"
    assert helpers.run_stage_process("simulate", *TINY, "--out", out).returncode == 0
    lines = (out / "study.yml").read_text().splitlines()
    values = dict(line.replace('"', "").split(": ", 1) for line in lines)
    files = [value for value in values.values() if value.startswith(os.sep)]
    assert len(files) == 10
    for file in files:
        assert os.path.isfile(file), file
    assert values["categorical_columns"] == "site"
    assert values["genome_build"] == "GRCh38"


def _given(tmp_path, run_stage):
    source = tmp_path / "source"
    result = run_stage("simulate", *TINY, "--subjects", 80, "--out", source)
    assert result.returncode == 0, result.stderr
    return source


def test_simulate__images_on_given_genotypes(run_stage, tmp_path):
    source, out = _given(tmp_path, run_stage), tmp_path / "study"
    result = run_stage(
        "simulate", "--preset", "small", "--voxel-size", 18, "--residual-factors", 8,
        "--causal-variants", 10, "--planted-loci", 2, "--genotypes", source / "genotypes.csv",
        "--panel-subjects", 30, "--out", out,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "no external trait" in result.stderr
    sheet = pd.read_csv(out / "genotypes.csv")
    assert list(sheet["path"]) == [str(source / f"genotypes/chr{c}.pgen") for c in (1, 2, 3)]
    panels = []
    for panel in (1, 2):
        for row, path in enumerate(pd.read_csv(out / f"ld_panel_{panel}.csv")["path"]):
            with open_genotypes(out / path) as part, open_genotypes(sheet["path"][row]) as whole:
                assert len(part.subject) == 30
                index = np.arange(whole.n_variants)
                np.testing.assert_array_equal(
                    part.dosages(index, np.arange(30)),
                    whole.dosages(index, whole.subject_index(part.subject)),
                )
                panels.append(set(part.subject))
    assert not panels[0] & panels[-1]
    with formats.open_file(out / "truth.h5", "truth") as truth:
        assert len(set(truth["causal/chromosome"][...].tolist())) == 2
        assert truth["causal/planted"][...].sum() == 2
        assert len(truth["causal/planted"][...]) == 12
    assert not (out / "traits.csv").exists()


def test_simulate__given_genotypes_are_checked(run_stage, tmp_path):
    source = _given(tmp_path, run_stage)
    sheet = tmp_path / "sheet.csv"
    common = ("--preset", "small", "--genotypes", sheet, "--out", tmp_path / "study")
    for text, options, message in (
        ("chromosome\n1\n", (), "column 'path' is missing"),
        ("chromosome,path\n", (), "no line below the header"),
        ("chromosome,path\n1,nowhere.pgen\n", (), "nowhere.pgen: no such file"),
        ("chromosome,path,format\n1,a.vcf.gz,vcf\n", (), "line 2: format 'vcf'"),
        (f"chromosome,path\n1,{source}/genotypes/chr1.pgen\n", (), "more than half of the 20"),
        (
            f"chromosome,path\n1,{source}/genotypes/chr1.pgen\n",
            ("--panel-subjects", 50),
            "two disjoint panels need 100 people",
        ),
    ):
        sheet.write_text(text)
        result = run_stage("simulate", *common, *options)
        assert result.returncode == 2, result.stderr
        assert message in result.stderr
        assert not (tmp_path / "study").exists()


def test_simulate__on_real_genotypes(run_stage, tmp_path):
    folder = helpers.TEST_DATA / "1000g_eur"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent (RVGA_TEST_DATA names another place)")
    sheet = tmp_path / "sheet.csv"
    lines = [f"{number},{folder.resolve()}/chr{number}.bed" for number in (21, 22)]
    sheet.write_text("\n".join(["chromosome,path", *lines]) + "\n")
    out = tmp_path / "study"
    result = run_stage("simulate", "--preset", "small", "--genotypes", sheet, "--out", out)
    assert result.returncode == 0, result.stderr
    with formats.open_file(out / "truth.h5", "truth") as truth:
        assert truth["causal/planted"][...].sum() == 4
        assert len(set(truth["causal/chromosome"][...].tolist())) == 1
        assert 460 < truth.attributes["n"] < 489
    with open_genotypes(folder / "chr22.bed") as genotypes:
        assert len(pd.read_csv(out / "images.csv")) <= len(genotypes.subject)
