"""rvga export: GWAS-SSF, LDSC, HEIG's pair and PheWeb of a voxel, a region's mean, a component."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest

from dataset_files import synthetic_variants, write_dataset
from rvga import command, exports
from rvga.dataset import MinimalDataset
from rvga.gwas_ssf import CHROMOSOME_CODES
from small_study import run_here

BIN = Path(__file__).parents[2] / "bin"
M, R, N_VOXELS = 600, 25, 60
NAMES = (*(str(number) for number in range(1, 23)), "X")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Return a dataset over all autosomes and X, with rows of every difficult sort."""
    variants = synthetic_variants(M, names=NAMES)
    variants.loc[[10, 20], "variant_id"] = "."
    variants.loc[[30, 400], "variant_id"] = "rs77"
    variants.loc[40, ["effect_allele", "other_allele"]] = ["ACCT", "A"]
    variants.loc[50, ["effect_allele", "other_allele"]] = ["<DEL>", "A"]
    variants.loc[60, ["effect_allele", "other_allele"]] = ["A", "T"]
    out = tmp_path_factory.mktemp("dataset") / "d.rvga.h5"
    write_dataset(out, variants, r=R, n_voxels=N_VOXELS)
    with h5py.File(out, "r+") as file:
        file["z"][70] = -32768
        file["a"][70] = np.nan
    return out


@pytest.fixture(scope="module")
def labels(path, tmp_path_factory):
    """Return an image of labels 0, 1 and 2 on the dataset's grid, and them by voxel."""
    with MinimalDataset.open(path) as dataset:
        geometry = dataset.geometry
    by_voxel = np.arange(N_VOXELS) % 3
    volume = np.zeros(geometry.shape, dtype=np.int16)
    volume[tuple(geometry.index.T)] = by_voxel
    out = tmp_path_factory.mktemp("labels") / "labels.nii.gz"
    nibabel.Nifti1Image(volume, geometry.affine).to_filename(out)
    return out, by_voxel


def export(path, *words, cwd):
    with contextlib.chdir(cwd):
        return run_here(command.dispatch, "export", path, *words)


def read_yaml(path: Path) -> dict:
    """Read the YAML that is needed here: scalars, lists, lists of mappings, one a line."""

    def scalar(text):
        return text if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else json.loads(text)

    found: dict = {}
    for line in path.read_text().splitlines():
        if not line.startswith(" "):
            key, _, value = line.partition(":")
            found[key] = scalar(value.strip()) if value.strip() else []
            continue
        entry = re.fullmatch(r"(  - |    )(?:(\w+): )?(.+)", line)
        new, name, value = entry.groups()
        if name is None:
            found[key].append(scalar(value))
        elif new == "  - ":
            found[key].append({name: scalar(value)})
        else:
            found[key][-1][name] = scalar(value)
    return found


def ssf_problems(table: Path, metadata: Path) -> list[str]:
    """Return what breaks the standard's rules (v1.0), checked by themselves."""
    with (gzip.open if table.suffix == ".gz" else open)(table, "rt") as file:
        header, *rows = [line.rstrip("\n").split("\t") for line in file]
    problems = []
    order = [
        "chromosome", "base_pair_location", "effect_allele", "other_allele", "beta",
        "standard_error", "effect_allele_frequency",
    ]  # fmt: skip
    if header[:7] != order or header[7] not in ("p_value", "neg_log_10_p_value"):
        problems.append(f"header {header}")
    rules = {
        "chromosome": lambda x: x.isdigit() and 1 <= int(x) <= 25,
        "base_pair_location": lambda x: x.isdigit(),
        "effect_allele": lambda x: re.fullmatch("LONG_STRING|[ACGTacgt]+", x),
        "other_allele": lambda x: re.fullmatch("LONG_STRING|[ACGTacgt]+", x),
        "beta": lambda x: np.isfinite(float(x)),
        "standard_error": lambda x: float(x) >= 0,
        "effect_allele_frequency": lambda x: 0 <= float(x) <= 1,
        "p_value": lambda x: 0 < float(x) <= 1,
        "neg_log_10_p_value": lambda x: float(x) >= 0,
        "rsid": lambda x: x == "#NA" or re.fullmatch("rs[0-9]+", x),
        "variant_id": lambda x: x == "#NA" or re.fullmatch("[A-Za-z0-9_]+", x),
        "n": lambda x: x == "#NA" or int(x) >= 0,
    }
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            problems.append(f"line {number} has {len(row)} fields")
        for name, value in zip(header, row, strict=False):
            if name in rules and not rules[name](value):
                problems.append(f"line {number}: {name} {value}")
    about = read_yaml(metadata)
    for key in ("genome_assembly", "data_file_name", "data_file_md5sum", "file_type",
                "date_metadata_last_modified", "trait_description", "samples"):  # fmt: skip
        if not about.get(key):
            problems.append(f"metadata lack {key}")
    if about["data_file_md5sum"] != hashlib.md5(table.read_bytes()).hexdigest():
        problems.append("md5sum")
    if about["data_file_name"] != table.name or about["file_type"] != "GWAS-SSF v1.0":
        problems.append("name or type")
    if about["coordinate_system"] != "1-based" or about["sex"] not in ("M", "F", "combined", "NR"):
        problems.append("coordinate_system or sex")
    place = [(int(row[0]), int(row[1])) for row in rows]
    if about["is_sorted"] != (place == sorted(place)):
        problems.append("is_sorted")
    for sample in about["samples"]:
        if not isinstance(sample["sample_size"], int):
            problems.append("sample_size")
        if not isinstance(sample["sample_ancestry_category"], list):
            problems.append("sample_ancestry_category")
    return problems


@pytest.mark.parametrize("what", ["voxel", "point", "voxels", "region", "component"])
def test_gwas_ssf_of_everything_that_can_be_asked_for(path, labels, tmp_path, what):
    image, by_voxel = labels
    with MinimalDataset.open(path) as dataset:
        words, expected = {
            "voxel": (["voxel", 7], dataset.voxel(7)),
            "point": (["point", *(dataset.coordinates[7] + 0.1)], dataset.voxel(7)),
            "voxels": (["voxels", "3,9,11"], dataset.mean_of_voxels([3, 9, 11])),
            "region": (["region", image, 2], dataset.region_mean(by_voxel, 2)),
            "component": (["component", 4], dataset.component(4)),
        }[what]
        n = dataset.n
    done = export(
        path, "--what", *words, "--format", "gwas-ssf", "--date", "2026-01-02", "--out", "g.tsv.gz",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table_path = tmp_path / "g.tsv.gz"
    assert ssf_problems(table_path, tmp_path / "g.tsv.gz-meta.yaml") == []
    table = pd.read_csv(table_path, sep="\t", na_values=["#NA"])
    # One has no estimate, one no allele that the standard allows.
    expected = expected.drop(index=[50, 70])
    assert len(table) == M - 2
    for name in ("beta", "standard_error", "effect_allele_frequency"):
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-7)
    np.testing.assert_allclose(
        -np.log10(table["p_value"]), expected["neg_log_10_p_value"], rtol=1e-6, atol=1e-7
    )
    assert set(table["n"]) == {n}
    assert table["chromosome"].tolist() == expected["chromosome"].map(CHROMOSOME_CODES).tolist()
    assert "left out: 2 without estimate or with alleles other than ACGT" in done.stderr


def test_a_very_small_p_is_written_as_logarithm_in_all_rows(tmp_path):
    out = write_dataset(
        tmp_path / "d.h5", synthetic_variants(20_000), r=1, n_voxels=3, largest=60.0
    )
    done = export(out, "--what", "component", 0, "--format", "gwas-ssf", "--out", "g.tsv",
                  cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ssf_problems(tmp_path / "g.tsv", tmp_path / "g.tsv-meta.yaml") == []
    table = pd.read_csv(tmp_path / "g.tsv", sep="\t")
    assert len(table) == 20_000
    assert table["neg_log_10_p_value"].max() > 300
    done = export(out, "--what", "component", 0, "--format", "pheweb", "--out", "p.tsv",
                  cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = pd.read_csv(tmp_path / "p.tsv", sep="\t", dtype=str)["pval"]
    assert re.fullmatch(r"\d(\.\d+)?e-\d{3,}", text[0])
    mantissa, exponent = text[0].split("e")
    logarithm = -np.log10(float(mantissa)) - int(exponent)
    np.testing.assert_allclose(logarithm, table["neg_log_10_p_value"].max(), rtol=1e-7)


VALIDATE = """
import sys
from pathlib import Path
import yaml
from gwas_sumstats_tools.validate import validate
from gwas_sumstats_tools.schema.metadata import SumStatsMetadata
table = Path(sys.argv[1])
valid, message, preview, kind = validate(table, minimum_rows=10)
about = yaml.safe_load(Path(str(table) + "-meta.yaml").read_text())
SumStatsMetadata(**about)
print("\\nverdict:", valid, message)
"""


@pytest.mark.skipif(
    shutil.which("gwas-ssf") is None,
    reason="the GWAS Catalog's validator (gwas-sumstats-tools) is not on PATH",
)
@pytest.mark.parametrize("form", ["p_value", "neg_log_10_p_value"])
def test_the_validator_of_the_gwas_catalog_agrees(path, tmp_path, form):
    source = path
    if form == "neg_log_10_p_value":
        source = write_dataset(
            tmp_path / "d.h5", synthetic_variants(M, names=NAMES), r=2, n_voxels=3, largest=60.0
        )
    done = export(
        source, "--what", "component", 0, "--format", "gwas-ssf", "--out", "g.tsv.gz", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    # The program's own interpreter, which is not ours.
    python = Path(shutil.which("gwas-ssf")).with_name("python")
    checked = subprocess.run(
        [python, "-c", VALIDATE, tmp_path / "g.tsv.gz"], capture_output=True, text=True, check=False
    )
    assert "verdict: True" in checked.stdout, checked.stdout + checked.stderr
    # It does find fault where there is some.
    lines = gzip.decompress((tmp_path / "g.tsv.gz").read_bytes()).decode().splitlines()
    assert form in lines[0]
    fields = lines[5].split("\t")
    fields[2] = "<DEL>"
    lines[5] = "\t".join(fields)
    (tmp_path / "g.tsv.gz").write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))
    checked = subprocess.run(
        [python, "-c", VALIDATE, tmp_path / "g.tsv.gz"], capture_output=True, text=True, check=False
    )
    assert "verdict: False" in checked.stdout


def test_own_check_finds_faults(path, tmp_path):
    done = export(
        path, "--what", "voxel", 1, "--format", "gwas-ssf", "--out", "g.tsv", cwd=tmp_path
    )
    assert done.returncode == 0
    table, about = tmp_path / "g.tsv", tmp_path / "g.tsv-meta.yaml"
    table.write_text(table.read_text().replace("\tA\t", "\t<A>\t", 1))
    assert {problem.split(":")[0] for problem in ssf_problems(table, about)} > {"md5sum"}


def test_ldsc(path, tmp_path):
    done = export(
        path, "--what", "voxel", 3, "--format", "ldsc", "--out", "v.sumstats.gz", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "v.sumstats.gz", sep="\t")
    assert list(table.columns) == ["SNP", "A1", "A2", "N", "Z"]
    with MinimalDataset.open(path) as dataset:
        expected = dataset.voxel(3).drop(index=[10, 20, 30, 70, 400])
    assert table["SNP"].tolist() == expected["variant_id"].tolist()
    assert table["SNP"].is_unique
    assert table["A1"].tolist() == expected["effect_allele"].tolist()
    np.testing.assert_allclose(table["Z"], expected["z"], rtol=1e-7)
    assert "1 without estimate, 2 without id, 2 id not unique" in done.stderr


def test_pheweb(path, tmp_path):
    done = export(
        path, "--what", "voxel", 3, "--format", "pheweb", "--out", "v.tsv.gz", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "v.tsv.gz", sep="\t", dtype={"chrom": str})
    assert list(table.columns) == ["chrom", "pos", "ref", "alt", "pval", "beta", "sebeta", "af"]
    with MinimalDataset.open(path) as dataset:
        expected = dataset.voxel(3).drop(index=[50, 70])
    assert table["alt"].tolist() == expected["effect_allele"].tolist()
    assert table["ref"].tolist() == expected["other_allele"].tolist()
    np.testing.assert_allclose(-np.log10(table["pval"]), expected["neg_log_10_p_value"], atol=1e-7)
    assert list(dict.fromkeys(table["chrom"])) == list(NAMES)
    listed = json.loads((tmp_path / "v.tsv.gz.pheno-list.json").read_text())
    assert listed == [{"phenocode": "v", "assoc_files": ["v.tsv.gz"]}]


def read_heig(prefix):
    """Read HEIG's pair as HEIG does: attributes, numbered blocks of 20, a table of SNPs."""
    with h5py.File(f"{prefix}.sumstats") as file:
        k, blocks, m = (int(file.attrs[name]) for name in ("n_gwas", "n_blocks", "n_snps"))
        beta, z = (
            np.concatenate([file[f"{name}{block}"][...] for block in range(blocks)], axis=1)
            for name in ("beta", "z")
        )
        assert all(file[f"z{block}"].dtype == "f4" for block in range(blocks))
    snps = pd.read_csv(f"{prefix}.snpinfo", sep="\t")
    assert beta.shape == z.shape == (m, k) == (len(snps), k)
    return beta, z, snps


def test_heig_components_give_back_the_voxels(path, tmp_path):
    done = export(path, "--what", "components", "--format", "heig", "--out", "ldr", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    beta, z, snps = read_heig(tmp_path / "ldr")
    assert list(snps.columns) == ["CHR", "POS", "SNP", "A1", "A2", "N"]
    assert beta.shape[1] == R
    bases = np.load(tmp_path / f"ldr_bases_top{R}.npy")
    ldr_cov = np.load(tmp_path / f"ldr_ldr_cov_top{R}.npy")
    with MinimalDataset.open(path) as dataset:
        variants = dataset.variants
        complement = {"A": "T", "T": "A", "C": "G", "G": "C"}
        single = [
            one in complement and complement[one] != other
            for one, other in zip(variants["effect_allele"], variants["other_allele"], strict=True)
        ]
        keep = np.array(single)
        keep[[10, 20, 30, 40, 50, 60, 70, 400]] = False
        assert snps["SNP"].tolist() == variants["variant_id"][keep].tolist()
        expected = dataset.voxel(5)[keep]
        n = dataset.n
    # HEIG's own way back to a voxel, with n for the degrees of freedom.
    ratio = np.mean((np.square(beta / z) + beta**2 / n) / np.diag(ldr_cov), axis=1)
    beta_v = beta @ bases[5]
    error = np.sqrt(bases[5] @ ldr_cov @ bases[5] * ratio - beta_v**2 / n)
    np.testing.assert_allclose(beta_v / expected["standard_error"], expected["z"], atol=2e-5)
    np.testing.assert_allclose(error, expected["standard_error"], rtol=2e-5)


def test_heig_of_one_phenotype(path, tmp_path):
    done = export(
        path, "--what", "voxel", 5, "--format", "heig", "--region", "X:1-900000", "--out", "v",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    _, z, snps = read_heig(tmp_path / "v")
    assert z.shape[1] == 1
    assert set(snps["CHR"]) == {23}
    with MinimalDataset.open(path) as dataset:
        expected = dataset.region("X", 1, 900_000).voxel(5).set_index("variant_id")["z"]
    np.testing.assert_allclose(z[:, 0], expected[snps["SNP"]], rtol=1e-6)


# A limit on the size of a file fails as a full disk does, and needs no disk.
LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from rvga import command
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
command.main(sys.argv[3:])
"""


@pytest.mark.parametrize("limit", [100, 10_000, 100_000, 1_000_000])
def test_heig_on_a_full_disk_ends_with_the_file_named_and_nothing_left(path, tmp_path, limit):
    words = ["export", path, "--what", "components", "--format", "heig", "--out", tmp_path / "ldr"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, BIN, str(limit), *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 74, done.stderr
    last = done.stderr.splitlines()[-1]
    names = [tmp_path / f"ldr.{end}" for end in ("sumstats", "snpinfo")]
    assert last in {f"ERROR: {name}: {os.strerror(errno.EFBIG)}" for name in names}
    if limit > 100_000:
        assert str(names[0]) in last
    assert list(tmp_path.iterdir()) == []


def test_a_region_of_the_genome_and_equal_bytes(path, tmp_path):
    for form, name in (("gwas-ssf", "r.tsv.gz"), ("pheweb", "p.tsv.gz"), ("ldsc", "l.sumstats.gz")):
        contents = []
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir(exist_ok=True)
            done = export(
                path, "--what", "component", 0, "--format", form, "--region", "2:1-15000",
                "--out", name, cwd=tmp_path / folder,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            contents.append((tmp_path / folder / name).read_bytes())
        assert contents[0] == contents[1]
        rows = gzip.decompress(contents[0]).decode().splitlines()
        with MinimalDataset.open(path) as dataset:
            assert 0 < len(rows) - 1 <= len(dataset.region("2", 1, 15_000)) < M


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--what", "brain", "--format", "ldsc", "--out", "a.sumstats.gz"], "is none of voxel"),
        (["--what", "voxel", "--format", "ldsc", "--out", "a.sumstats.gz"], "write 'voxel I'"),
        (["--what", "voxel", "1.5", "--format", "pheweb", "--out", "a.tsv"], "whole number"),
        (["--what", "voxel", 60, "--format", "pheweb", "--out", "a.tsv"], "does not exist"),
        (["--what", "component", R, "--format", "pheweb", "--out", "a.tsv"], "does not exist"),
        (["--what", "component", 1, "--format", "pheweb", "--out", "a.txt"], "must end in"),
        (["--what", "component", 1, "--format", "ldsc", "--out", "a.tsv"], "must end in"),
        (["--what", "components", "--format", "ldsc", "--out", "a.sumstats.gz"], "for --format he"),
        (["--what", "point", 1, "b", 2, "--format", "heig", "--out", "a"], "are numbers"),
        (["--what", "region", "no.nii", 2, "--format", "heig", "--out", "a"], "no.nii"),
        (["--what", "voxel", 1, "--format", "heig", "--region", "2", "--out", "a"], "start-end"),
        (["--what", "voxel", 1, "--format", "heig", "--region", "2:1-2", "--out", "a"], "no vari"),
        (["--what", "voxel", 1, "--format", "heig", "--region", "2:,-,", "--out", "a"], "start-e"),
        (["--what", "voxels", "3,4,4", "--format", "pheweb", "--out", "a.tsv"], "voxel 4 is given"),
        (
            ["--what", "voxel", 1, "--format", "gwas-ssf", "--date", "May", "--out", "a.tsv"],
            "is no date",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_told(path, tmp_path, words, message):
    done = export(path, *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_label_that_no_voxel_has(path, labels, tmp_path):
    done = export(path, "--what", "region", labels[0], 9, "--format", "pheweb", "--out", "a.tsv",
                  cwd=tmp_path)  # fmt: skip
    assert done.returncode == 2
    assert "no voxel has the label 9; there are 1, 2" in done.stderr


def test_p_in_digits():
    logarithm = np.array([0.0, 0.30103, 1.0, 2.5, 307.9, 412.25, 4000.0, 8 - 1e-12])
    texts = exports.p_digits(logarithm)
    for text, value in zip(texts, logarithm, strict=True):
        mantissa, _, exponent = text.partition("e")
        assert 1 <= float(mantissa) < 10 or exponent == ""
        np.testing.assert_allclose(
            -np.log10(float(mantissa)) - int(exponent or 0), value, rtol=1e-7, atol=1e-8
        )
