"""IMPORT_LDRS: the sample and the LDRs from a table, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers import files_in, run_stage
from rvga import formats
from rvga.samples import sample_hash
from rvga_import_ldrs import main as import_ldrs
from small_study import make_study, run_here, write_samples

N, R = 40, 3


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a folder with a table of LDRs, covariates and genotype samples, and the study."""
    folder = tmp_path_factory.mktemp("study")
    s = make_study(folder, N, r=R)
    order = np.random.default_rng(1).permutation(N)
    lines = ["subject\t" + "\t".join(f"LDR{j + 1}" for j in range(R))]
    lines += ["\t".join([s.subjects[row], *map(repr, s.ldrs[row].tolist())]) for row in order]
    (folder / "ldrs.tsv").write_text("\n".join(lines) + "\n")
    lines = [
        "\t".join([s.subjects[row], *map(repr, s.covariates[row, 1:].tolist())])
        for row in order[::-1]
    ]
    (folder / "covariates.tsv").write_text("subject\tx\ty\tz\n" + "\n".join(lines) + "\n")
    write_samples(folder / "one.psam", [*s.subjects[5:], "stranger"])
    write_samples(folder / "two.fam", s.subjects[:-3])
    return folder, s


def words(study, out, **changes):
    """Return the stage's options; files are named by changes."""
    folder, s = study
    given = {
        "--ldrs": folder / "ldrs.tsv",
        "--bases": s.bases,
        "--covariates": folder / "covariates.tsv",
        "--subjects": out / "subjects.h5",
        "--out": out / "ldrs.h5",
    } | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return [word for pair in given.items() for word in pair]


def test_sample_is_who_is_in_every_table(study, tmp_path):
    folder, s = study
    (tmp_path / "remove.txt").write_text(s.subjects[10] + "\n")
    done = run_stage(
        "import_ldrs",
        *words(study, tmp_path, remove=tmp_path / "remove.txt"),
        *("--samples", folder / "one.psam", folder / "two.fam"),
        *("--summary", tmp_path / "s.json"),
    )
    assert done.returncode == 0, done.stderr
    expected = [name for name in s.subjects[5:-3] if name != s.subjects[10]]
    rows = [s.subjects.index(name) for name in expected]
    with (
        formats.open_file(tmp_path / "subjects.h5", "subjects") as selected,
        formats.open_file(tmp_path / "ldrs.h5", "ldrs") as represented,
        formats.open_file(s.bases, "bases") as bases,
    ):
        assert selected.array("subject").tolist() == expected
        assert selected.attributes["sample_hash"] == sample_hash(expected)
        assert selected.parameters["subject_id"] == "IID"
        represented.require_made_from("subjects", selected)
        represented.require_made_from("bases", bases)
        np.testing.assert_array_equal(represented["ldrs"][...], s.ldrs[rows])
    numbers = json.loads((tmp_path / "s.json").read_text())["numbers"]
    assert numbers["n"] == len(expected)
    steps = [(step["n_in"], step["n_out"]) for step in numbers["flow"]]
    assert steps == [(40, 40), (40, 40), (40, 40), (40, 40), (40, 35), (35, 32), (32, 31)]


def test_listed_ids_that_no_ldr_has_are_warned_of(study, tmp_path):
    (tmp_path / "gone.txt").write_text("nobody\n")
    done = run_here(import_ldrs, *words(study, tmp_path), "--remove", tmp_path / "gone.txt")
    assert done.returncode == 0, done.stderr
    assert "1 of the 1 ids of the list gone.txt (remove) are not among the LDRs'" in done.stderr
    assert "nobody" not in done.stderr


def test_missing_ldrs_leave_the_sample(study, tmp_path):
    folder, s = study
    lines = (folder / "ldrs.tsv").read_text().splitlines()
    lines[3] = lines[3].rsplit("\t", 1)[0] + "\tNA"
    (tmp_path / "l.tsv").write_text("\n".join(lines) + "\n")
    done = run_here(import_ldrs, *words(study, tmp_path, ldrs=tmp_path / "l.tsv"))
    assert done.returncode == 0, done.stderr
    with formats.open_file(tmp_path / "subjects.h5", "subjects") as selected:
        assert set(s.subjects) - set(selected.array("subject")) == {lines[3].split("\t")[0]}


def test_table_of_another_program(study, tmp_path):
    """FID and IID separated by spaces, as PLINK and REGENIE read phenotypes."""
    folder, s = study
    lines = (folder / "ldrs.tsv").read_text().splitlines()
    text = "FID IID LDR1 LDR2 LDR3\n" + "".join(
        "0 " + " ".join(x.split()) + "\n" for x in lines[1:]
    )
    (tmp_path / "l.txt").write_text(text)
    done = run_here(import_ldrs, *words(study, tmp_path, ldrs=tmp_path / "l.txt"))
    assert done.returncode == 0, done.stderr
    with formats.open_file(tmp_path / "ldrs.h5", "ldrs") as represented:
        np.testing.assert_array_equal(represented["ldrs"][...], s.ldrs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("LDR3", "LDR4"), "(LDR1, LDR2, LDR4, 3 in all) are not LDR1 to"),
        (
            lambda text: text.replace("\tLDR3", "\tage"),
            "(LDR1, LDR2, 2 in all) are not LDR1 to LDR3",
        ),
        (lambda text: text[: text.rstrip().rindex("\t")] + "\tmuch\n", "'much' is not a number"),
        (lambda text: text.replace("\ns", "\nother"), "no subject of the LDRs' subjects"),
        (lambda text: "\n".join(text.splitlines()[:6]) + "\n", "only 5 subjects"),
        (lambda text: text + text.splitlines()[1] + "\n", "is there twice"),
        (lambda text: "", "the file is empty"),
    ],
)
def test_wrong_tables(study, tmp_path, change, message):
    text = (study[0] / "ldrs.tsv").read_text()
    (tmp_path / "l.tsv").write_text(change(text))
    done = run_here(import_ldrs, *words(study, tmp_path, ldrs=tmp_path / "l.tsv"))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("ERROR") == 1
    assert files_in(tmp_path) == {"l.tsv"}


def test_a_constant_covariate_is_refused_here(study, tmp_path):
    lines = (study[0] / "covariates.tsv").read_text().splitlines()
    text = lines[0] + "\tc\n" + "".join(line + "\t1\n" for line in lines[1:])
    (tmp_path / "c.tsv").write_text(text)
    done = run_here(import_ldrs, *words(study, tmp_path, covariates=tmp_path / "c.tsv"))
    assert done.returncode == 2
    assert "covariate 'c' is constant" in done.stderr
    assert files_in(tmp_path) == {"c.tsv"}
