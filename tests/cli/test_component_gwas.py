"""component_gwas: a chunk's file and numbers, and what is refused."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess

import numpy as np
import pytest

from rvga import formats
from rvga.coding import decode_z
from rvga.tile_products import available
from rvga_component_gwas import main as component_gwas
from small_study import (
    MISSING,
    dosages_of,
    hard_calls,
    least_squares,
    make_study,
    mean_imputed,
    run_dataset,
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
    assert numbers["arithmetic"] == ["whole" if available() else "single"]
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
        parts = {key: old.array(key) for key in formats.KINDS["null"].datasets if key in old}
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
    null = bad_null(s, tmp_path, residual_ldrs=np.zeros((1, N, 5)))
    done = run_here(
        component_gwas, "--genotypes", main, "--null", null, "--out", tmp_path / "gwas.h5"
    )
    assert done.returncode == 2
    assert "null.h5: component 1 does not vary" in done.stderr


def chunk_of(path):
    """Return a chunk's z (decoded), a, ids and counts."""
    with formats.open_file(path, "minimal") as chunk:
        z = decode_z(chunk["z"][...], chunk["scale"][...])
        ids = chunk.array("variants/variant_id").tolist()
        return z, chunk["a"][...], ids, json.loads(chunk.attributes["counts"])


def gwas(main, null, out, *options):
    """Run the stage within this process; return what it wrote."""
    done = run_here(component_gwas, "--genotypes", main, "--null", null, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    return chunk_of(out)


def test_odd_variants_get_a_row_or_are_counted(tmp_path):
    n = 400
    s = make_study(tmp_path, n, extra=None)
    calls = hard_calls(8, n, seed=1)
    calls[0] = 0
    calls[1] = MISSING
    calls[2] = 0
    calls[2, 7] = 1
    calls[3] = 2
    calls[3, :9] = MISSING
    calls[4] = 0
    calls[4, 7] = 2
    calls[5] = 2
    calls[5, 7] = 1
    # A covariate that is a genotype.
    covariates = np.column_stack([s.covariates, calls[6].astype(float)])
    Q = np.linalg.qr(covariates)[0]
    residual = s.ldrs - Q @ (Q.T @ s.ldrs)
    A = residual.T @ residual
    null = bad_null(
        s, tmp_path, "own.h5", Q=Q, residual_ldrs=residual[None], A=A[None], Sigma=A / n
    )
    main = write_pgen(tmp_path / "g", calls, s.subjects)
    for frequency in (0, 0.01):
        z, a, ids, counts = gwas(
            main, null, tmp_path / "gwas.h5", "--minor-allele-frequency", frequency
        )
        assert ids == [f"rs{1000 + 10 * row}" for row in (0, 1, 3, 6, 7)]
        assert np.isnan(z[:4]).all()
        assert np.isnan(a[:4]).all()
        assert np.isfinite(z[4]).all()
        assert counts == {
            "1": {
                "read": 8,
                "written": 5,
                "dropped": {"below_minor_allele_count": 3},
                "missing": {"all_missing": 1, "monomorphic": 2, "collinear": 1},
            }
        }


@pytest.mark.parametrize("kind", ["calls", "dosages"])
def test_variants_that_are_one_persons_are_left_out(tmp_path, kind):
    n = 2000
    covariate = np.zeros(n)
    covariate[:30] = 1
    person = np.arange(n)
    s = make_study(tmp_path, n)
    covariates = np.column_stack([s.covariates, covariate])
    Q = np.linalg.qr(covariates)[0]
    residual = s.ldrs - Q @ (Q.T @ s.ldrs)
    A = residual.T @ residual
    null = bad_null(
        s, tmp_path, "own.h5", Q=Q, residual_ldrs=residual[None], A=A[None], Sigma=A / n
    )
    rows = {
        "20 carriers": 1.0 * np.isin(person, range(100, 120)),
        "one homozygous of 20 alleles": np.isin(person, range(100, 119)) + 1.0 * (person == 100),
        "all but one heterozygous": 1.0 + (person == 9),
        "the other way": 1.0 - (person == 9),
        "a covariate, and one person": np.maximum(covariate, person == 50),
        "most of a covariate, and others": 1.0 * np.isin(person, [*range(28), 50, 51]),
    }
    shown = {"20 carriers", "one homozygous of 20 alleles"}
    if kind == "dosages":
        # An allele count of 31, of which one person's is all that varies; also from above.
        rows["one among noise"] = np.where(person == 9, 1.0, 0.015)
        rows["one lacking it"] = np.where(person == 9, 1.0, 1.985)
        rows["uncertain"] = np.where(np.isin(person, range(100, 160)), 1 / 3, 0.0)
        shown.add("uncertain")
    g = np.array(list(rows.values()), dtype=np.float32)
    g[:, -1] = MISSING
    g = g if kind == "dosages" else g.astype(np.int8)
    main = write_pgen(tmp_path / "g", g, s.subjects)
    alleles = g[:, :-1].astype(float).sum(axis=1)
    assert np.minimum(alleles, 2 * (n - 1) - alleles).min() > 19.9
    *_, ids, counts = gwas(main, null, tmp_path / "gwas.h5", "--minor-allele-count", 19)
    names = np.array(list(rows))
    assert {names[(int(name[2:]) - 1000) // 10] for name in ids} == shown
    assert counts["1"]["dropped"] == {"few_carriers": len(rows) - len(shown)}


def test_filters_are_counted_by_reason(study, tmp_path):
    s, main, dosage = study
    called = dosage != MISSING
    options = ["--minor-allele-count", 6, "--dataset-coding", "float32"]
    z, _, ids, _ = gwas(main, s.null, tmp_path / "all.h5", *options)
    rate = 1 - called.mean(axis=1)
    few = rate > 0.03
    g = np.where(called, dosage, np.nan)
    frequency = np.nanmean(g, axis=1) / 2
    r2 = np.nanvar(g, axis=1) / (2 * frequency * (1 - frequency))
    poor = r2 < 0.9
    kept, _, kept_ids, counts = gwas(
        main, s.null, tmp_path / "some.h5", *options, "--maximum-missing-rate", 0.03,
        "--minimum-info", 0.9,
    )  # fmt: skip
    names = np.array([f"rs{1000 + 10 * row}" for row in range(M)])
    single = np.arange(M) == 10
    assert kept_ids == names[~few & ~poor & ~single].tolist()
    assert 0 < few.sum() < M
    assert 0 < (poor & ~few).sum() < M
    np.testing.assert_array_equal(kept, z[np.isin(ids, kept_ids)])
    assert counts["6"]["dropped"] == {
        "above_maximum_missing_rate": few.sum(),
        "below_minor_allele_count": (single & ~few).sum(),
        "below_minimum_info": (poor & ~few & ~single).sum(),
    }


def test_equilibrium_filter(tmp_path):
    n = 400
    s = make_study(tmp_path, n)
    calls = hard_calls(20, n, seed=1)
    calls[3] = np.where(np.arange(n) % 2, 0, 2)
    main = write_pgen(tmp_path / "g", calls, s.subjects)
    _, _, ids, counts = gwas(main, s.null, tmp_path / "o.h5", "--hardy-weinberg-p", 1e-10)
    assert "rs1030" not in ids
    assert len(ids) == 19
    assert counts["1"]["dropped"] == {"below_hardy_weinberg_p": 1}


def test_info_of_the_variant_file(tmp_path):
    s = make_study(tmp_path, 100)
    main = write_pgen(tmp_path / "g", hard_calls(4, 100, seed=1), s.subjects)
    rows = ["AF=.2;R2=0.95", "INFO=.2", "ER2=.1", "DR2=0.5;IMP"]
    lines = ["#CHROM\tPOS\tID\tREF\tALT\tINFO"]
    lines += [f"1\t{10 + row}\tv{row}\tA\tG\t{info}" for row, info in enumerate(rows)]
    main.with_suffix(".pvar").write_text("\n".join(lines) + "\n")
    options = ["--minor-allele-count", 5, "--minimum-info", 0.5]
    _, _, ids, counts = gwas(main, s.null, tmp_path / "o.h5", *options)
    assert ids == ["v0", "v2", "v3"]
    assert counts["1"]["dropped"] == {"below_minimum_info": 1}
    _, _, ids, _ = gwas(
        main, s.null, tmp_path / "p.h5", *options, "--first-variant", 1, "--n-variants", 2
    )
    assert ids == ["v2"]
    text = main.with_suffix(".pvar").read_text().replace("INFO=.2", "INFO=good")
    main.with_suffix(".pvar").write_text(text)
    done = run_here(
        component_gwas, "--genotypes", main, "--null", s.null, *options, "--out", tmp_path / "q.h5"
    )
    assert done.returncode == 2
    assert "g.pvar: an R2, INFO or DR2 of the lines 2 to 5 is no number" in done.stderr


def test_lists_of_variants(study, tmp_path):
    s, main, _ = study
    keep, remove = tmp_path / "keep.txt", tmp_path / "remove.txt.gz"
    keep.write_text(
        "#ID\nrs1000\nchr6:1010:A:G\n6:1020:G:A\nrs1030 comment\nother\nnot:a:place:x\n"
    )
    with gzip.open(remove, "wt") as handle:
        handle.write("06:1030:A:G\nrs1040\n")
    _, _, ids, counts = gwas(
        main, s.null, tmp_path / "o.h5", "--keep-variants", keep, "--remove-variants", remove
    )
    assert ids == ["rs1000", "rs1010"]
    assert counts["6"]["dropped"] == {"not_kept": M - 4, "removed": 2}
    keep.write_text("# nothing\n")
    for option, path, message in (
        ("--keep-variants", keep, "keep.txt: holds no variant id"),
        ("--remove-variants", tmp_path / "no.txt", "no.txt: no such file (list of variants)"),
    ):
        done = run_here(
            component_gwas, "--genotypes", main, "--null", s.null, option, path,
            "--out", tmp_path / "p.h5",
        )  # fmt: skip
        assert done.returncode == 2
        assert message in done.stderr


def sexed_set(folder, calls, people, sex, chromosome="X", start=5_000_000):
    """Write a PLINK 2 set with sexes."""
    main = write_pgen(folder / "x", calls, people, chromosome, start)
    rows = "".join(f"{name}\t{s}\n" for name, s in zip(people, sex, strict=True))
    main.with_suffix(".psam").write_text("#IID\tSEX\n" + rows)
    return main


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not on PATH")
@pytest.mark.parametrize("kind", ["calls", "dosages"])
def test_x_as_plink_does(tmp_path, kind):
    n, m = 300, 12
    s = make_study(tmp_path, n)
    rng = np.random.default_rng(4)
    sex = rng.integers(1, 3, n)
    people = rng.permutation(s.subjects).tolist()
    calls = hard_calls(m, n, seed=1)
    calls[:, sex == 1] = 2 * rng.binomial(1, 0.4, (m, (sex == 1).sum()))
    if kind == "dosages":
        calls = dosages_of(calls, seed=2)
    main = sexed_set(tmp_path, calls, people, sex)
    z, a, _, _ = gwas(
        main, s.null, tmp_path / "gwas.h5", "--genome-build", "GRCh38",
        "--dataset-coding", "float32",
    )  # fmt: skip
    for name, matrix in (("covar", s.covariates[:, 1:]), ("pheno", s.ldrs)):
        head = "\t".join(f"{name}{column}" for column in range(matrix.shape[1]))
        rows = [
            "\t".join([subject, *(f"{value:.12g}" for value in values)])
            for subject, values in zip(s.subjects, matrix, strict=True)
        ]
        (tmp_path / name).write_text("\n".join([f"#IID\t{head}", *rows]) + "\n")
    subprocess.run(
        ["plink2", "--pfile", "x", "--pheno", "pheno", "--covar", "covar", "--xchr-model", "2",
         "--glm", "hide-covar", "omit-ref", "no-x-sex", "--out", "o", "--threads", "1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    for component in range(5):
        lines = (tmp_path / f"o.pheno{component}.glm.linear").read_text().splitlines()
        at = lines[0].split("\t").index("T_STAT")
        expected = [float(line.split("\t")[at]) for line in lines[1:]]
        # PLINK prints six digits.
        np.testing.assert_allclose(z[:, component], expected, rtol=2e-5, atol=2e-5)
    assert np.isfinite(a).all()


def test_men_with_two_alleles_on_x_are_missing_and_counted(tmp_path):
    n = 200
    s = make_study(tmp_path, n)
    sex = np.arange(n) % 2 + 1
    calls = hard_calls(4, n, seed=1)
    main = sexed_set(tmp_path, calls, s.subjects, sex)
    summary = tmp_path / "s.json"
    z, _, _, _ = gwas(
        main, s.null, tmp_path / "gwas.h5", "--genome-build", "GRCh38", "--summary", summary,
        "--dataset-coding", "float32",
    )  # fmt: skip
    crossed = (calls == 1) & (sex == 1)
    content = json.loads(summary.read_text())
    assert content["numbers"]["haploid_heterozygotes"] == {"X": int(crossed.sum())}
    assert "genotypes of men on chromosome X show two different alleles" in content["warnings"][0]
    calls[crossed] = MISSING
    beta, error = least_squares(mean_imputed(calls), s.covariates, s.ldrs)
    np.testing.assert_allclose(z, beta / error, atol=1e-3)
    with formats.open_file(tmp_path / "gwas.h5", "minimal") as chunk:
        men = np.where(calls[:, sex == 1] == MISSING, np.nan, calls[:, sex == 1]) / 2
        women = calls[:, sex == 2]
        known = np.isfinite(men).sum(axis=1) + 2 * women.shape[1]
        frequency = (np.nansum(men, axis=1) + women.sum(axis=1)) / known
        np.testing.assert_allclose(
            chunk["variants/effect_allele_frequency"][...], frequency, rtol=1e-6
        )


def test_pseudoautosomal_variants_are_as_others(tmp_path):
    n = 200
    s = make_study(tmp_path, n)
    calls = hard_calls(4, n, seed=1)
    main = sexed_set(tmp_path, calls, s.subjects, [1] * n, start=1_000_000)
    z, _, _, counts = gwas(
        main, s.null, tmp_path / "gwas.h5", "--genome-build", "GRCh37",
        "--dataset-coding", "float32",
    )  # fmt: skip
    beta, error = least_squares(mean_imputed(calls), s.covariates, s.ldrs)
    np.testing.assert_allclose(z, beta / error, atol=1e-3)
    assert counts["X"]["written"] == 4


def test_x_needs_sexes_and_a_build(tmp_path):
    n = 60
    s = make_study(tmp_path, n)
    main = sexed_set(tmp_path, hard_calls(3, n, seed=1), s.subjects, [0] * n)
    for options, message in (
        (["--genome-build", "GRCh38"], "x.psam: gives the sex of none of the 60 subjects"),
        ([], "x.pvar: there are 3 variants on chromosome X"),
    ):
        done = run_here(
            component_gwas, "--genotypes", main, "--null", s.null, *options,
            "--out", tmp_path / "o.h5",
        )  # fmt: skip
        assert done.returncode == 2
        assert message in done.stderr
    sexed_set(tmp_path, hard_calls(3, n, seed=1), s.subjects, [0, 1] * (n // 2))
    summary = tmp_path / "s.json"
    gwas(main, s.null, tmp_path / "o.h5", "--genome-build", "GRCh38", "--summary", summary)
    assert "the sex of 30 subjects is unknown" in json.loads(summary.read_text())["warnings"][0]


def with_sex(null, out, sex):
    """Copy a null model, with the sexes of its people."""
    with (
        formats.open_file(null, "null") as old,
        formats.create(out, "null", old.attributes, inputs=old.inputs) as writer,
    ):
        for name in ("Q", "residual_ldrs", "A", "A_chromosome", "Sigma"):
            writer.add(name, old[name][...])
        writer.add("subject", list(old.array("subject")))
        writer.add("sex", np.asarray(sex, dtype=np.int8))
    return out


def test_sex_of_a_covariate_goes_before_that_of_the_file(tmp_path):
    n = 60
    s = make_study(tmp_path, n)
    sex = np.arange(n) % 2 + 1
    calls = hard_calls(4, n, seed=1)
    # The people of the file are in another order than those of the null model.
    turned = s.subjects[::-1]
    told = sexed_set(tmp_path, calls[:, ::-1], turned, sex[::-1])
    build = ("--genome-build", "GRCh38", "--minor-allele-count", 5)
    expected = gwas(told, s.null, tmp_path / "told.h5", *build)[0]
    assert np.isfinite(expected).all()
    # Nobody's sex in the file; then two people's, one of them another; and one known there only.
    cases = (
        ([0] * n, sex, 0),
        ([1, 1] + [0] * (n - 2), sex, 1),
        ([1, 2, *sex[2:]], [0, 0, *sex[2:]], 0),
    )
    for number, (in_file, given, differ) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        main = sexed_set(folder, calls[:, ::-1], turned, list(in_file)[::-1])
        null, summary = with_sex(s.null, folder / "null.h5", given), folder / "s.json"
        z = gwas(main, null, folder / "o.h5", *build, "--summary", summary)[0]
        np.testing.assert_array_equal(z, expected)
        warnings = json.loads(summary.read_text())["warnings"]
        told = [text for text in warnings if "sex_column" in text]
        assert len(told) == (differ > 0)
        if differ:
            assert told[0].startswith("x.psam: the sex of 1 of 60 subjects is another than")


def test_each_chromosome_has_its_own_null_model(tmp_path):
    n = 150
    s = make_study(tmp_path, n)
    calls = hard_calls(30, n, seed=1)
    main = write_pgen(tmp_path / "g", calls, s.subjects)
    lines = main.with_suffix(".pvar").read_text().splitlines()
    lines[2 + 10 :] = [line.replace("1\t", "2\t", 1) for line in lines[2 + 10 :]]
    main.with_suffix(".pvar").write_text("\n".join(lines) + "\n")
    rng = np.random.default_rng(3)
    Q = np.linalg.qr(s.covariates)[0]
    phenotypes = [s.ldrs, s.ldrs + rng.normal(size=s.ldrs.shape)]
    residual = np.stack([y - Q @ (Q.T @ y) for y in phenotypes])
    A = residual.transpose(0, 2, 1) @ residual
    parts = {"residual_ldrs": residual, "A": A, "A_chromosome": [1, 2]}
    null = bad_null(s, tmp_path, "loco.h5", **parts)
    options = ["--dataset-coding", "float32"]
    z, _, _, _ = gwas(main, null, tmp_path / "gwas.h5", *options, "--block-variants", 16)
    for rows, y in ((slice(0, 10), phenotypes[0]), (slice(10, 30), phenotypes[1])):
        beta, error = least_squares(mean_imputed(calls[rows]), s.covariates, y)
        np.testing.assert_allclose(z[rows], beta / error, atol=1e-3)
    with formats.open_file(tmp_path / "gwas.h5", "minimal") as chunk:
        assert chunk["A_index"][...].tolist() == [0] * 10 + [1] * 20
        np.testing.assert_array_equal(chunk["A"][...], A)
    null = bad_null(s, tmp_path, "short.h5", **{**parts, "A_chromosome": [1, 3]})
    done = run_here(component_gwas, "--genotypes", main, "--null", null, "--out", tmp_path / "o.h5")
    assert done.returncode == 2
    assert "short.h5: has no leave-one-chromosome-out prediction for chromosome 2" in done.stderr


@pytest.mark.parametrize("kind", ["calls", "dosages"])
def test_chunks_threads_and_file_split_give_the_same_bytes(tmp_path, kind):
    n, m = 120, 70
    s = make_study(tmp_path, n)
    g = hard_calls(m, n + 3, seed=1, missing=0.03)
    if kind == "dosages":
        g = dosages_of(g, seed=2)
    people = subject_names(n + 3)[::-1]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole = [write_pgen(tmp_path / "one" / "g", g, people)]
    split = [
        write_pgen(tmp_path / "two" / "a", g[:33], people),
        write_pgen(tmp_path / "two" / "b", g[33:], people, start=1330),
    ]
    contents = set()
    for number, (mains, chunk, threads) in enumerate(
        [(whole, 1000, 1), (whole, 1000, 3), (whole, 17, 2), (split, 1000, 2), (split, 10, 1)]
    ):
        out = run_dataset(tmp_path / str(number), s, mains, "--threads", str(threads), chunk=chunk)
        contents.add(out.read_bytes())
    assert len(contents) == 1


def test_genotype_file_cut_short_is_named(tmp_path):
    s = make_study(tmp_path, 100)
    main = write_pgen(tmp_path / "g", hard_calls(40, 100, seed=1), s.subjects)
    whole = main.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 20):
        main.write_bytes(whole[:size])
        done = run_here(
            component_gwas, "--genotypes", main, "--null", s.null, "--out", tmp_path / "o.h5"
        )
        assert done.returncode == 2
        assert "g.pgen: " in done.stderr
        assert "cut short" in done.stderr
        assert not (tmp_path / "o.h5").exists()


def test_null_model_without_people_is_refused(study, tmp_path):
    s, main, _ = study
    with formats.open_file(s.null, "null") as old:
        parts = {key: old.array(key) for key in ("A", "A_chromosome", "Sigma")}
        attributes = old.attributes
    with formats.create(tmp_path / "null.h5", "null", attributes) as writer:
        for key, value in parts.items():
            writer.add(key, value)
        writer.add("size", [N, 4])
    done = run_here(
        component_gwas, "--genotypes", main, "--null", tmp_path / "null.h5",
        "--out", tmp_path / "o.h5",
    )  # fmt: skip
    assert done.returncode == 2
    assert "null.h5: holds no people" in done.stderr
