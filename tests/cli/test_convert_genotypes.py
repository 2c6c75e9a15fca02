"""convert_genotypes: what is made and said, and that every format gives one GWAS."""

from __future__ import annotations

import gzip
import json

import h5py
import numpy as np
import pytest

from genotype_files import (
    bgen_dosages,
    export,
    needs_plink2,
    write_bgen,
    write_sample_file,
    write_vcf,
    write_vcf_lines,
)
from helpers import files_in
from rvga_convert_genotypes import main as convert_genotypes
from small_study import dosages_of, hard_calls, make_study, run_here, write_bed, write_pgen

N, M = 300, 60


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a null model and the genotypes of its people, complete calls and dosages."""
    folder = tmp_path_factory.mktemp("study")
    made = make_study(folder, N)
    calls = hard_calls(M, N, seed=5, missing=0.02)
    calls[7] = 0
    return made, calls, dosages_of(calls, seed=6)


def gwas(run_stage, study, main, folder):
    """Return the datasets of a component GWAS of all variants of a set."""
    out = folder / f"{main.name}.h5"
    done = run_stage(
        "component_gwas", "--genotypes", main, "--null", study.null, "--dataset-coding", "float32",
        "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with h5py.File(out) as file:
        names = ["z", "a", "variants/effect_allele_frequency", "variants/base_pair_location"]
        names += ["variants/missing_rate", "variants/effect_allele", "variants/variant_id"]
        return {name: file[name][...] for name in names}


def converted(run_stage, path, *options):
    """Run the stage; return the main file made."""
    out = path.parent / f"from_{path.name}"
    done = run_stage("convert_genotypes", "--genotypes", path, *options, "--out", out)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.pgen"))


def assert_equal(one, other, what):
    """Compare two GWAS: the same numbers."""
    for name, values in one.items():
        np.testing.assert_array_equal(other[name], values, err_msg=f"{what}: {name}")


@needs_plink2
def test_hard_calls_of_every_format_give_the_same_numbers(run_stage, study, tmp_path):
    """Calls are exact in 8 bits, so PLINK 1, PLINK 2, BGEN, VCF and BCF agree in every bit."""
    made, calls, _ = study
    people = made.subjects
    pgen = write_pgen(tmp_path / "pgen", calls, people)
    expected = gwas(run_stage, made, pgen, tmp_path)
    assert len(expected["a"]) == M
    assert np.flatnonzero(np.isnan(expected["a"])).tolist() == [7]
    rows = [("0", name) for name in people]
    sample = write_sample_file(tmp_path / "no_ids.sample", rows)
    sets = {
        "bed": write_bed(tmp_path / "bed", calls, people),
        "bgen with ids": converted(
            run_stage, write_bgen(tmp_path / "ids.bgen", calls.astype(float), ids=people)
        ),
        "bgen 1.3 without ids": converted(
            run_stage,
            write_bgen(tmp_path / "no_ids.bgen", calls.astype(float), compression="zstd"),
            *("--samples", sample),
        ),
        "vcf": converted(run_stage, write_vcf(tmp_path / "g.vcf.gz", calls, people)),
        "bcf": converted(run_stage, export(pgen, tmp_path / "g.bcf", "bcf")),
    }
    for name, main in sets.items():
        found = gwas(run_stage, made, main, tmp_path)
        assert_equal(expected, found, name)


@needs_plink2
def test_dosages_of_every_format_give_the_same_numbers(run_stage, study, tmp_path):
    """DS with six digits and 16 bits of BGEN meet the grid of PLINK 2 files (1/16384) again."""
    made, _, dosages = study
    people = made.subjects
    pgen = write_pgen(tmp_path / "pgen", dosages, people)
    expected = gwas(run_stage, made, pgen, tmp_path)
    vcf = converted(run_stage, write_vcf(tmp_path / "g.vcf.gz", dosages, people))
    assert_equal(expected, gwas(run_stage, made, vcf, tmp_path), "vcf")
    for version in ("bgen-1.2", "bgen-1.3"):
        path = export(pgen, tmp_path / f"{version}.bgen", version, "ref-first", "bits=16")
        found = gwas(run_stage, made, converted(run_stage, path), tmp_path)
        assert_equal(expected, found, version)


@needs_plink2
def test_eight_bits_of_bgen_are_the_dosages_it_holds(run_stage, study, tmp_path):
    """Against a PLINK 2 file of the dosages that 8 bits can hold, on its grid of 1/16384."""
    made, _, dosages = study
    held = np.round(bgen_dosages(dosages) * 16384) / 16384
    held = np.where(dosages == -9, -9, held).astype(np.float32)
    pgen = write_pgen(tmp_path / "pgen", held, made.subjects)
    path = write_bgen(tmp_path / "g.bgen", dosages, ids=made.subjects)
    expected = gwas(run_stage, made, pgen, tmp_path)
    found = gwas(run_stage, made, converted(run_stage, path), tmp_path)
    np.testing.assert_allclose(found["z"], expected["z"], atol=0.005)


@needs_plink2
def test_what_is_written_and_said(run_stage, tmp_path):
    ids = ["a_1", "b_2"]
    lines = [
        "chr1\t10\trs1\tA\tG,T\t.\tPASS\t.\tGT:GP\t0/1:.\t1/2:.",
        "chr1\t20\trs2\tA\tG\t.\tPASS\t.\tGT\t0/.\t1/1",
        "chrUn_1\t30\trs3\tA\tG\t.\tPASS\t.\tGT\t0/1\t1/1",
    ]
    path = write_vcf_lines(tmp_path / "study.vcf.gz", ids, lines)
    content = gzip.decompress(path.read_bytes()).replace(
        b"##INFO", b'##FORMAT=<ID=GP,Number=G,Type=Float,Description="x">\n##INFO', 1
    )
    path.write_bytes(content)
    summary = tmp_path / "s.json"
    options = ["--memory", 700, "--threads", 2, "--summary", summary]
    done = run_stage(
        "convert_genotypes", "--genotypes", path, *options, "--out", tmp_path / "converted"
    )
    assert done.returncode == 0, done.stderr
    assert files_in(tmp_path / "converted") == {"study.pgen", "study.pvar", "study.psam"}
    assert (tmp_path / "converted/study.psam").read_text() == "#IID\tSEX\na_1\tNA\nb_2\tNA\n"
    said = json.loads(summary.read_text())
    numbers = said["numbers"]
    assert numbers.pop("plink2").startswith("v2.")
    assert numbers == {
        "file": "study.vcf.gz", "format": "vcf", "field": "GT", "n_variants": 3, "n_samples": 2,
        "n_left_out": 1, "n_multiallelic_split": 1, "n_multiallelic_dropped": 0, "n_need_sex": 0,
    }  # fmt: skip
    assert said["warnings"] == [
        "study.vcf.gz: 1 variants are not on chromosome 1-22, X, Y or MT and are left out",
        "study.vcf.gz: has no dosages (DS), so that calls (GT) are used although there are GP",
    ]
    assert "memory: about" in done.stderr


def a_file(folder):
    return write_vcf_lines(
        folder / "g.vcf", ["a", "b"], ["X\t9000000\trs\tA\tG\t.\tPASS\t.\tGT\t0/1\t1/1"]
    )


@needs_plink2
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chromosome", "moon"], "chromosome 'moon' is unknown"),
        (["--chromosome", "5"], "g.vcf: holds no variant of chromosome 5"),
        (["--format", "bgen"], "g.vcf: not a BGEN file"),
        (["--samples", "none.psam"], "none.psam: no such file"),
        ([], "g.vcf: has 1 variants on chromosome X or Y, where men have one copy, but nobody"),
    ],
)
def test_bad_input(tmp_path, options, message):
    path = a_file(tmp_path)
    done = run_here(
        convert_genotypes, "--genotypes", path, *options, "--out", tmp_path / "converted"
    )
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert files_in(tmp_path) == {"g.vcf"}


@needs_plink2
def test_a_panel_needs_no_sexes(tmp_path):
    options = ["--sex-not-needed", "--out", tmp_path / "converted"]
    done = run_here(convert_genotypes, "--genotypes", a_file(tmp_path), *options)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_without_plink2(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run_here(
        convert_genotypes, "--genotypes", a_file(tmp_path), "--out", tmp_path / "converted"
    )
    assert done.returncode == 2
    assert "plink2 is not on PATH" in done.stderr
