"""component_gwas: a chunk's file and numbers, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rvga import formats
from rvga.coding import decode_z
from rvga_component_gwas import main as component_gwas
from small_study import (
    dosages_of,
    hard_calls,
    least_squares,
    make_study,
    mean_imputed,
    run_here,
    subject_names,
    write_pgen,
)

M, N = 90, 150


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a study, its genotype file and the dosages of its people, in its order."""
    folder = tmp_path_factory.mktemp("study")
    s = make_study(folder, N)
    people = subject_names(N + 5)[::-1]
    dosage = dosages_of(hard_calls(M, N + 5, seed=1, missing=0.03), seed=2)
    dosage[10] = np.isin(np.arange(N + 5), (50, 51, 52, 53))
    main = write_pgen(folder / "g", dosage, people, "chr6")
    return s, main, dosage[:, [people.index(name) for name in s.subjects]]


def test_chunk_holds_least_squares(run_stage, study, tmp_path):
    s, main, dosage = study
    out, summary = tmp_path / "gwas.h5", tmp_path / "s.json"
    done = run_stage(
        "component_gwas", "--genotypes", main, "--variants", main.with_suffix(".pvar"),
        "--samples", main.with_suffix(".psam"), "--first-variant", 5, "--n-variants", 60,
        "--null", s.null, "--dataset-coding", "float32", "--genome-build", "GRCh38",
        "--minor-allele-count", 6, "--block-variants", 16, "--threads", 2, "--out", out,
        "--summary", summary, "--code", "abc",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "memory: about" in done.stderr
    rows = np.delete(np.arange(5, 65), 5)
    beta, error = least_squares(mean_imputed(dosage[rows]), s.covariates, s.ldrs)
    with formats.open_file(s.null, "null") as null, formats.open_file(out, "minimal") as chunk:
        chunk.require_made_from("null", null)
        np.testing.assert_allclose(chunk["z"][...], beta / error, atol=1e-3, rtol=1e-5)
        assert chunk.array("variants/variant_id").tolist() == [f"rs{1000 + 10 * i}" for i in rows]
        assert set(chunk["variants/chromosome"][...]) == {6}
        assert chunk.attributes["genome_build"] == "GRCh38"
        assert chunk.attributes["sample_hash"] == null.attributes["sample_hash"]
        assert "bases" not in chunk
    numbers = json.loads(summary.read_text())["numbers"]
    assert numbers["read"] == 60
    assert numbers["written"] == 59
    assert numbers["counts"] == {
        "6": {
            "read": 60, "written": 59, "dropped": {"below_minor_allele_count": 1}, "missing": {},
        }
    }  # fmt: skip


def test_default_coding_is_int16_with_a_count_of_20(study, tmp_path):
    s, main, _ = study
    out = tmp_path / "gwas.h5"
    done = run_here(component_gwas, "--genotypes", main, "--null", s.null, "--out", out)
    assert done.returncode == 0, done.stderr
    with formats.open_file(out, "minimal") as chunk:
        assert chunk["z"].dtype == np.int16
        assert chunk.attributes["minor_allele_count"] == 20
        frequency = chunk["variants/effect_allele_frequency"][...].astype(float)
        called = N * (1 - chunk["variants/missing_rate"][...].astype(float))
        assert (2 * called * np.minimum(frequency, 1 - frequency)).min() >= 20 - 1e-3
        z = decode_z(chunk["z"][...], chunk["scale"][...])
    assert np.isfinite(z).all()


def test_frequency_filter_is_counted(study, tmp_path):
    s, main, _ = study
    summary = tmp_path / "s.json"
    done = run_here(
        component_gwas, "--genotypes", main, "--null", s.null, "--minor-allele-frequency", 0.2,
        "--out", tmp_path / "gwas.h5", "--summary", summary,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    numbers = json.loads(summary.read_text())["numbers"]
    assert numbers["dropped"]["below_minor_allele_frequency"] > 0
    assert numbers["read"] == numbers["written"] + sum(numbers["dropped"].values()) == M
    with formats.open_file(tmp_path / "gwas.h5", "minimal") as chunk:
        frequency = chunk["variants/effect_allele_frequency"][...]
        assert np.minimum(frequency, 1 - frequency).min() >= 0.2


def test_chunk_without_a_variant_left_is_written_and_counted(study, tmp_path):
    s, main, _ = study
    out = tmp_path / "gwas.h5"
    done = run_here(
        component_gwas, "--genotypes", main, "--null", s.null, "--minor-allele-count", 1e6,
        "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with formats.open_file(out, "minimal") as chunk:
        assert chunk["z"].shape == (0, 5)
        assert json.loads(chunk.attributes["counts"])["6"]["read"] == M


def test_threads_and_blocks_give_the_same_bytes(study, tmp_path):
    s, main, _ = study
    contents = set()
    for number, threads in enumerate((1, 2, 5)):
        out = tmp_path / f"{number}.h5"
        run_here(
            component_gwas, "--genotypes", main, "--null", s.null, "--threads", threads,
            "--block-variants", 16, "--out", out,
        )  # fmt: skip
        contents.add(out.read_bytes())
    assert len(contents) == 1


def bad_null(study, tmp_path, name="null.h5", **changes):
    """Write a null model with something changed."""
    path = tmp_path / name
    with formats.open_file(study.null, "null") as old:
        parts = {key: old.array(key) for key in ("Q", "residual_ldrs", "A", "subject")}
        attributes = old.attributes
    parts.update(changes)
    with formats.create(path, "null", attributes) as writer:
        for key, value in parts.items():
            writer.add(key, value)
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minor-allele-count", 4], "--minor-allele-count 4 is below 5"),
        (["--minor-allele-count", "nan"], "--minor-allele-count nan is below 5"),
        (["--minor-allele-frequency", 0.7], "0.7 is outside"),
        (["--first-variant", 80, "--n-variants", 11], "within the 90 variants"),
        (["--first-variant", -1], "within the 90 variants"),
        (["--dataset-coding", "int8"], "invalid choice: 'int8'"),
        (["--genome-build", "hg19"], "invalid choice: 'hg19'"),
        (["--null", "nowhere.h5"], "nowhere.h5: no such file"),
        (["--genotypes", "nowhere.pgen"], "nowhere.pgen: no such file"),
        (["--subject-id", "FID_IID"], "150 of 150 subjects are not in the genotype file"),
    ],
)
def test_bad_options(study, tmp_path, options, message):
    s, main, _ = study
    done = run_here(
        component_gwas, "--genotypes", main, "--null", s.null, *options, "--out",
        tmp_path / "gwas.h5",
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_null_model_of_other_people_is_refused(study, tmp_path):
    s, main, _ = study
    null = bad_null(s, tmp_path, subject=["stranger", *s.subjects[1:]])
    done = run_here(
        component_gwas, "--genotypes", main, "--null", null, "--out", tmp_path / "gwas.h5"
    )
    assert done.returncode == 2
    assert "1 of 150 subjects are not in the genotype file, the first is 'stranger'" in done.stderr


def test_component_without_variance_is_refused(study, tmp_path):
    s, main, _ = study
    null = bad_null(s, tmp_path, residual_ldrs=np.zeros((N, 5)))
    done = run_here(
        component_gwas, "--genotypes", main, "--null", null, "--out", tmp_path / "gwas.h5"
    )
    assert done.returncode == 2
    assert "null.h5: component 1 does not vary" in done.stderr
