"""IMPORT_SUMSTATS: every program's tables give the dataset of our own GWAS, or a refusal."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

import rvga.command
import rvga_minimal_dataset
from component_tables import SINGLE, WIDE, component_statistics, write_components
from helpers import files_in
from rvga import formats
from rvga.coding import decode_z
from rvga.dataset import MinimalDataset
from rvga_import_sumstats import main as import_sumstats
from small_study import (
    hard_calls,
    make_study,
    mean_imputed,
    run_dataset,
    run_here,
    subject_names,
    write_pgen,
)

M, N, R = 120, 300, 23


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a study, its genotypes, our own dataset, and least squares of every component."""
    folder = tmp_path_factory.mktemp("study")
    people = subject_names(N)
    calls = hard_calls(M, N, seed=2)
    signal = np.outer(calls[7] - 1.0, np.ones(60))
    rows = [people.index(name) for name in sorted(people, key=str.encode)]
    s = make_study(folder, N, n_voxels=60, r=R, extra=1.2 * signal[rows])
    main = write_pgen(folder / "g", calls, people)
    own = run_dataset(folder / "own", s, [main], "--dataset-coding", "float32")
    statistics = component_statistics(mean_imputed(calls[:, rows]), s.covariates, s.ldrs)
    return s, main, own, statistics


def run_import(s, folder, files, components, *options, name="gwas"):
    """Run the stage within this process."""
    return run_here(
        import_sumstats, "--component-sumstats", files, "--components", ",".join(components),
        "--null", s.null, "--threads", 1, *options, "--out", folder / name,
    )  # fmt: skip


def join(s, folder, name="gwas"):
    """Join the imported chunks to a dataset."""
    out = folder / "imported.rvga.h5"
    done = run_here(
        rvga_minimal_dataset.main, "--chunks", sorted(folder.glob(f"{name}.*.h5")), "--bases",
        s.bases, "--null", s.null, "--threads", 1, "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def agree(own, imported, *, z=1e-4, a=2e-5, frequency=True):
    """Compare two datasets in float32 coding; the bounds are six printed digits'."""
    with MinimalDataset.open(own) as one, MinimalDataset.open(imported) as two:
        first, second = one.components(), two.components()
        np.testing.assert_allclose(second.a, first.a, rtol=a)
        np.testing.assert_allclose(second.z, first.z, rtol=2e-5, atol=z)
        columns = ["chromosome", "base_pair_location", "effect_allele", "other_allele"]
        assert two.variants[columns].equals(one.variants[columns])
        assert two.variants["variant_id"].equals(one.variants["variant_id"])
        if frequency:
            np.testing.assert_allclose(
                two.variants["effect_allele_frequency"],
                one.variants["effect_allele_frequency"],
                rtol=1e-5,
            )
        mine, theirs = one.voxel(11), two.voxel(11)
        np.testing.assert_allclose(theirs["z"], mine["z"], atol=2e-4, rtol=2e-5)
        size = (theirs["beta"] - mine["beta"]) / mine["standard_error"]
        assert np.abs(size).max() < 2e-4
        np.testing.assert_allclose(theirs["standard_error"], mine["standard_error"], rtol=2e-5)
        return first.z


@pytest.mark.parametrize("program", [*SINGLE, *WIDE])
def test_every_program_gives_our_own_dataset(study, tmp_path, program):
    s, _, own, statistics = study
    files, components = write_components(tmp_path / "in", statistics, program)
    summary = tmp_path / "s.json"
    coding = ("--dataset-coding", "float32", "--summary", summary, "--chunk-variants", 50)
    done = run_import(s, tmp_path, files, components, *coding)
    assert done.returncode == 0, done.stderr
    assert "memory: about" in done.stderr
    assert len(list(tmp_path.glob("gwas.*.h5"))) == 3
    has_frequency = program not in ("PLINK 2 old", "HEIG")
    z = agree(own, join(s, tmp_path), frequency=has_frequency)
    assert np.abs(z).max() > 10
    numbers = json.loads(summary.read_text())["numbers"]
    assert numbers["format"] == program.removesuffix(" old").removesuffix(" wide")
    assert numbers["written"] == numbers["read"] == M
    assert numbers["missing"] == {}
    assert numbers["agreement"]["n_variants"] == M
    assert abs(numbers["agreement"]["largest_component_ratio"] - 1) < 1e-4


def test_compressed_files_and_int16_coding(study, tmp_path):
    s, _, own, statistics = study
    files, components = write_components(tmp_path / "in", statistics, "REGENIE", packed=True)
    done = run_import(s, tmp_path, files, components)
    assert done.returncode == 0, done.stderr
    with (
        MinimalDataset.open(own) as one,
        formats.open_file(tmp_path / "gwas.00001.h5", "minimal") as chunk,
    ):
        z = one.components().z
        assert chunk["z"].dtype == np.int16
        found = decode_z(chunk["z"][...], chunk["scale"][...])
        bound = np.abs(z).max(axis=1, keepdims=True) / 65534 + 1e-4 + 2e-5 * np.abs(z)
        assert (np.abs(found - z) <= bound).all()


def test_files_in_any_order_of_components(study, tmp_path):
    s, _, own, statistics = study
    files, components = write_components(tmp_path / "in", statistics, "fastGWA")
    turned = [name.lower() if j % 2 else name[3:] for j, name in enumerate(components)]
    done = run_import(
        s, tmp_path, files[::-1], turned[::-1], "--dataset-coding", "float32", "--threads", 2
    )
    assert done.returncode == 0, done.stderr
    agree(own, join(s, tmp_path))


def test_files_in_other_orders_are_joined_by_place_and_alleles(study, tmp_path):
    s, _, own, statistics = study
    files, components = write_components(tmp_path / "in", statistics, "GWAS-SSF")
    lines = files[3].read_text().splitlines()
    turned = []
    for line in lines[:0:-1]:
        words = line.split("\t")
        words[2:5] = [words[3], words[2], repr(-float(words[4]))]
        turned.append("\t".join(words))
    files[3].write_text("\n".join([lines[0], *turned]) + "\n")
    lines = files[5].read_text().splitlines()
    files[5].write_text("\n".join([*lines[:31], *lines[33:]]) + "\n")
    lines = files[8].read_text().splitlines()
    files[8].write_text("\n".join([*lines, lines[51]]) + "\n")
    summary = tmp_path / "s.json"
    options = ("--dataset-coding", "float32", "--summary", summary, "--chunk-variants", 50)
    done = run_import(s, tmp_path, files, components, *options)
    assert done.returncode == 0, done.stderr
    content = json.loads(summary.read_text())
    assert content["numbers"]["joined_by_key"]
    assert content["numbers"]["read"] == M
    assert content["numbers"]["dropped"] == {"not_in_every_component": 3}
    assert "were joined by chromosome, position and alleles; 3 variants" in content["warnings"][0]
    with MinimalDataset.open(own) as one, MinimalDataset.open(join(s, tmp_path)) as two:
        kept = np.delete(np.arange(M), [30, 31, 50])
        np.testing.assert_allclose(
            two.components().z, one.components().z[kept], atol=1e-4, rtol=2e-5
        )
        assert two.variants["variant_id"].tolist() == [statistics.name[row] for row in kept]


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not on PATH")
@pytest.mark.parametrize("columns", ["", "+a1freq", "+ax,+a1freq,-ref"])
def test_plink_2_itself(study, tmp_path, columns):
    s, main, own, _ = study
    people = "\n".join(
        " ".join([name, *map(repr, row)])
        for name, row in zip(s.subjects, s.ldrs.tolist(), strict=True)
    )
    names = [f"LDR{j + 1}" for j in range(R)]
    (tmp_path / "ldrs.txt").write_text("#IID " + " ".join(names) + "\n" + people + "\n")
    rows = zip(s.subjects, s.covariates[:, 1:].tolist(), strict=True)
    text = "\n".join(" ".join([name, *map(repr, row)]) for name, row in rows)
    (tmp_path / "c.txt").write_text("#IID x y z\n" + text + "\n")
    wanted = [f"cols={columns}"] if columns else []
    subprocess.run(
        ["plink2", "--pfile", main.with_suffix(""), "--pheno", tmp_path / "ldrs.txt", "--covar",
         tmp_path / "c.txt", "--glm", *["log10"][: len(wanted)], *wanted, "--out", tmp_path / "p",
         "--threads", "1"],
        check=True, capture_output=True,
    )  # fmt: skip
    files = [tmp_path / f"p.{name}.glm.linear" for name in names]
    done = run_import(s, tmp_path, files, names, "--dataset-coding", "float32")
    assert done.returncode == 0, done.stderr
    with MinimalDataset.open(own) as one, MinimalDataset.open(join(s, tmp_path)) as two:
        # PLINK 2 may count the other allele.
        same = (one.variants["effect_allele"] == two.variants["effect_allele"]).to_numpy()
        assert (~same).any()
        sign = np.where(same, 1, -1)[:, None]
        np.testing.assert_allclose(
            sign * two.components().z, one.components().z, atol=1e-4, rtol=2e-5
        )
        swapped = two.variants["other_allele"].where(~same, two.variants["effect_allele"])
        assert swapped.equals(one.variants["effect_allele"])
        np.testing.assert_allclose(two.components().a, one.components().a, rtol=2e-5)


def test_variants_without_estimate_are_missing_and_counted(study, tmp_path):
    s, _, _, statistics = study
    frequency, n, error = statistics.frequency.copy(), statistics.n.copy(), statistics.error.copy()
    frequency[4] = 0.01
    n[9] = 200
    error[20, 5] *= 1.05
    error[21, 7] = np.nan
    changed = replace(statistics, frequency=frequency, n=n, error=error)
    files, components = write_components(tmp_path / "in", changed, "GWAS-SSF")
    summary = tmp_path / "s.json"
    done = run_import(s, tmp_path, files, components, "--summary", summary)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(summary.read_text())["numbers"]
    missing = {"components_disagree": 1, "sample_size_differs": 1, "no_estimate": 1}
    assert numbers["missing"] == missing
    assert numbers["dropped"] == {"below_minor_allele_count": 1}
    assert numbers["counts"]["1"]["missing"] == missing
    with formats.open_file(tmp_path / "gwas.00001.h5", "minimal") as chunk:
        rows = np.flatnonzero(np.isnan(chunk["a"][...]))
        names = chunk.array("variants/variant_id")[rows].tolist()
        assert names == [statistics.name[row] for row in (9, 20, 21)]
        assert np.isnan(decode_z(chunk["z"][...], chunk["scale"][...])[rows]).all()
        assert statistics.name[4] not in chunk.array("variants/variant_id")


def test_rare_variants_are_found_without_frequencies(study, tmp_path):
    s = study[0]
    calls = np.zeros((2, N))
    calls[0, :8], calls[1, :40] = 1, 1
    rare = component_statistics(calls, s.covariates, s.ldrs)
    files, components = write_components(tmp_path / "in", rare, "PLINK 2 old")
    done = run_import(s, tmp_path, files, components)
    assert done.returncode == 0, done.stderr
    assert "dropped: {'below_minor_allele_count': 1}" in done.stderr


def refused(done, message, folder):
    """Assert one sentence, status 2 and nothing written."""
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("ERROR") == 1
    assert "Traceback" not in done.stderr
    assert not [name for name in files_in(folder) if name.startswith((".", "gwas"))]


def refuse(study, tmp_path, changed, message, program="PLINK 2", **more):
    files, components = write_components(tmp_path / "in", changed, program, **more)
    options = ("--chunk-variants", 50)
    refused(run_import(study[0], tmp_path, files, components, *options), message, tmp_path)


def test_other_covariates_are_refused_by_name_of_the_component(study, tmp_path):
    statistics = study[3]
    error = statistics.error.copy()
    error[:, 6] *= 1.01
    changed = replace(statistics, error=error)
    refuse(study, tmp_path, changed, "1 of 23 components disagree with the residual variances")
    refuse(study, tmp_path, changed, "most of all LDR7, whose variance was 1.02 times")


def test_a_component_with_its_sign_turned_is_warned_of(tmp_path):
    # Images that share a factor have correlated LDRs.
    rng = np.random.default_rng(8)
    shared = np.outer(rng.normal(size=N), rng.normal(size=40))
    s = make_study(tmp_path, N, n_voxels=40, r=4, extra=3 * shared)
    calls = hard_calls(1300, N, seed=3)
    found = component_statistics(mean_imputed(calls), s.covariates, s.ldrs)
    turned = replace(found, beta=found.beta * [1, -1, 1, 1])
    for statistics, warned in ((found, False), (turned, True)):
        files, components = write_components(tmp_path / "in", statistics, "REGENIE")
        done = run_import(s, tmp_path, files, components, "--chunk-variants", 500)
        assert done.returncode == 0, done.stderr
        assert ("LDR2: correlated with other components with the opposite" in done.stderr) == warned


def test_a_covariate_too_few_is_refused(study, tmp_path):
    s = study[0]
    calls = hard_calls(M, N, seed=2)
    rows = [subject_names(N).index(name) for name in s.subjects]
    changed = component_statistics(calls[:, rows].astype(float), s.covariates[:, :-1], s.ldrs)
    refuse(study, tmp_path, changed, "components disagree with the residual variances")


def test_a_rank_inverse_normal_transformation_is_refused(study, tmp_path):
    from scipy.special import ndtri
    from scipy.stats import rankdata

    s = study[0]
    normal = ndtri((rankdata(s.ldrs, axis=0) - 0.5) / N)
    calls = hard_calls(M, N, seed=2)
    rows = [subject_names(N).index(name) for name in s.subjects]
    changed = component_statistics(calls[:, rows].astype(float), s.covariates, normal)
    refuse(study, tmp_path, changed, "components disagree with the residual variances", "REGENIE")


def test_another_scale_is_refused(study, tmp_path):
    changed = replace(study[3], beta=study[3].beta * 10, error=study[3].error * 10)
    refuse(study, tmp_path, changed, "all components are on another scale than null.h5")


def test_another_sample_is_refused(study, tmp_path):
    changed = replace(study[3], n=study[3].n * 2)
    refuse(study, tmp_path, changed, "were tested in 600 people, but null.h5 has 300")


def test_disagreement_variant_by_variant_is_refused(study, tmp_path):
    error = study[3].error.copy()
    rng = np.random.default_rng(1)
    error *= 1 + 0.05 * rng.choice([-1, 0, 0, 1], size=error.shape)
    refuse(study, tmp_path, replace(study[3], error=error), "the components disagree on 120 of")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, c: (f[:-1], c[:-1]), "1 of 23 components have no file, the first is LDR23"),
        (lambda f, c: (f, [*c[:-1], "LDR1"]), "component 'LDR1' is there twice"),
        (lambda f, c: (f, [*c[:-1], "LDR24"]), "component 'LDR24' is none of LDR1 to LDR23"),
        (lambda f, c: (f, c[:-1]), "names 22 files, but there are 23"),
        (lambda f, c: (f, ["all", *c[1:]]), "holds one component (PLINK 2); name it in the sheet"),
    ],
)
def test_wrong_sheets(study, tmp_path, change, message):
    files, components = write_components(tmp_path / "in", study[3].rows(slice(0, 5)), "PLINK 2")
    refused(run_import(study[0], tmp_path, *change(files, components)), message, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("#CHROM", "KROM"), "is of none of the formats REGENIE, PLINK 2"),
        (lambda text: text.replace("BETA", "BEATA"), "has no columns of effects"),
        (lambda text: text.replace("OMITTED", "X").replace("REF", "Y"), "without OMITTED"),
        (lambda text: text.replace("BETA\tSE", "OR\tSE"), "holds odds ratios"),
        (
            lambda text: text.replace("\tADD\t300\t", "\tADD\t300\tx"),
            "LDR1.txt: line 2, column BETA: 'x",
        ),
        (lambda text: "", "the file is empty"),
        (lambda text: text.replace("ADD", "DOM"), "LDR1.txt: has no row of the additive test"),
        (lambda text: text.splitlines()[0] + "\n", "LDR1.txt: has a header but no row"),
        (lambda text: text.replace("\t1010\t", "\t-5\t"), "line 4, column POS: -5 is no position"),
        (lambda text: text.replace("\t1010\t", "\t0\t"), "line 4, column POS: 0 is no position"),
        (lambda text: text.replace("\t1010\t", "\tNA\t"), "line 4, column POS: NA is no position"),
        (lambda text: text.replace("\t1010\t", "\t1010.7\t"), "column POS: 1010.7 is no position"),
        (
            lambda text: text.replace("\n1\t1010\t", "\n\n1\t3000000000\t"),
            "line 5, column POS: 3000000000 is no position (a whole number from 1 to 2147483647)",
        ),
        (
            lambda text: text.replace("\tADD\t300\t", "\tADD\t-3\t"),
            "line 2, column OBS_CT: -3 is no number of people",
        ),
        (
            lambda text: re.sub("\t[0-9.]+\tADD", "\t1.5\tADD", text),
            "line 2, column A1_FREQ: 1.5 is no frequency (from 0 to 1)",
        ),
        (lambda text: text.replace("\trs1010\t", "\trs 1010\t"), "column ID: 'rs 1010' is no id"),
        (lambda text: text.replace("\trs1010\t", "\trs\x1b[2J\t"), "'rs\\x1b[2J' is no id"),
        (lambda text: text.replace("\tPOS", "\tPOS\tPOS"), "column 'POS' stands twice"),
    ],
)
def test_wrong_files(study, tmp_path, change, message):
    files, components = write_components(tmp_path / "in", study[3].rows(slice(0, 5)), "PLINK 2")
    for path in files:
        path.write_text(change(path.read_text()))
    refused(run_import(study[0], tmp_path, files, components), message, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("1\t1010\t", "1\t-5\t"), "heig.snpinfo: line 3, column POS: -5 is no position"),
        (("1\t1010\t", "1\tNA\t"), "heig.snpinfo: line 3, column POS: NA is no position"),
        (("1\t1010\t", "1\there\t"), "heig.snpinfo: line 3, column POS: 'here' is no number"),
        (("1\t1010\t", "1\t3000000000\t"), "column POS: 3000000000 is no position"),
        (("rs1010\t", "rs 1010\t"), "line 3, column SNP: 'rs 1010' is no id"),
        (("\t300\n", "\t-300\n"), "line 2, column N: -300 is no number of people"),
        (("e-01\t", "e+01\t"), "is no frequency (from 0 to 1)"),
    ],
)
def test_wrong_values_of_heig(study, tmp_path, change, message):
    files, components = write_components(tmp_path / "in", study[3].rows(slice(0, 5)), "HEIG")
    table = tmp_path / "in/heig.snpinfo"
    text = table.read_text()
    assert change[0] in text
    table.write_text(text.replace(*change))
    refused(run_import(study[0], tmp_path, files, components), message, tmp_path)


def test_no_position_outside_32_bits_is_written(study, tmp_path, monkeypatch):
    files, components = write_components(tmp_path / "in", study[3], "REGENIE")
    monkeypatch.setattr("rvga_import_sumstats.LARGEST_POSITION", 2000)
    with pytest.raises(ValueError, match="positions are outside 1 to 2000"):
        run_import(study[0], tmp_path, files, components)
    assert not list(tmp_path.glob("gwas*"))


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("row", [11, 52, 119])
def test_repeated_variants_are_left_out_whatever_the_order(study, tmp_path, shuffled, row):
    # The same place with alleles exchanged is the same variant; the row may be far away.
    s, _, own, statistics = study
    files, components = write_components(tmp_path / "in", statistics, "GWAS-SSF")
    for number, path in enumerate(files):
        lines = path.read_text().splitlines()
        words = lines[11].split("\t")
        if row == 52:
            words[2:5] = [words[3], words[2], repr(-float(words[4]))]
        lines.insert(row + 1, "\t".join(words))
        if shuffled and number == 4:
            lines[1:] = lines[:0:-1]
        path.write_text("\n".join(lines) + "\n")
    summary = tmp_path / "s.json"
    options = ("--dataset-coding", "float32", "--summary", summary, "--chunk-variants", 50)
    done = run_import(s, tmp_path, files, components, *options)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(summary.read_text())["numbers"]
    assert numbers["joined_by_key"] == shuffled
    assert (numbers["read"], numbers["written"]) == (M + 1, M - 1)
    assert numbers["dropped"] == {"repeated": 2}
    with MinimalDataset.open(own) as one, MinimalDataset.open(join(s, tmp_path)) as two:
        kept = np.delete(np.arange(M), 10)
        np.testing.assert_allclose(
            two.components().z, one.components().z[kept], atol=1e-4, rtol=2e-5
        )


def test_chromosomes_may_be_spelt_differently(study, tmp_path):
    s, _, own, statistics = study
    files, components = write_components(tmp_path / "in", statistics, "GWAS-SSF")
    for path, name in zip(files[2:4], ("chr1", "01"), strict=True):
        path.write_text(path.read_text().replace("\n1\t", f"\n{name}\t"))
    done = run_import(s, tmp_path, files, components, "--dataset-coding", "float32")
    assert done.returncode == 0, done.stderr
    assert "joined" not in done.stderr
    agree(own, join(s, tmp_path))


def test_contigs_without_position_are_left_out(study, tmp_path):
    s, _, _, statistics = study
    files, components = write_components(tmp_path / "in", statistics, "PLINK 2")
    for path in files:
        path.write_text(path.read_text().replace("\n1\t1010\t", "\nUn_7\t0\t"))
    done = run_import(s, tmp_path, files, components)
    assert done.returncode == 0, done.stderr
    assert "1 variants are on contigs other than" in done.stderr


def test_programs_are_not_mixed(study, tmp_path):
    files, components = write_components(tmp_path / "a", study[3], "PLINK 2")
    others, _ = write_components(tmp_path / "b", study[3], "REGENIE")
    done = run_import(study[0], tmp_path, [*files[:-1], others[-1]], components)
    refused(done, "REGENIE_LDR23.txt: is of REGENIE, but PLINK_2_LDR1.txt of PLINK 2", tmp_path)


def test_a_cut_file_is_refused(study, tmp_path):
    files, components = write_components(tmp_path / "in", study[3], "REGENIE", packed=True)
    files[4].write_bytes(files[4].read_bytes()[:-200])
    done = run_import(study[0], tmp_path, files, components)
    refused(done, "cannot be read as a REGENIE table", tmp_path)


def test_heig_without_its_companion_is_refused(study, tmp_path):
    files, components = write_components(tmp_path / "in", study[3], "HEIG")
    (tmp_path / "in/heig.snpinfo").unlink()
    done = run_import(study[0], tmp_path, files, components)
    refused(done, "heig.snpinfo: no such file; HEIG's .sumstats needs its .snpinfo", tmp_path)


def test_an_export_for_heig_reads_back(study, tmp_path):
    s, _, own, _ = study
    done = run_here(
        rvga.command.main, "export", own, "--what", "components", "--format", "heig", "--out",
        tmp_path / "pair",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = [tmp_path / "pair.sumstats"]
    done = run_import(s, tmp_path, files, ["all"], "--dataset-coding", "float32")
    assert done.returncode == 0, done.stderr
    agree(own, join(s, tmp_path), z=1e-6, a=1e-6, frequency=False)


def test_mt_of_gwas_ssf_is_not_on_x(study, tmp_path):
    changed = replace(study[3], chromosome="25")
    files, components = write_components(tmp_path / "in", changed, "GWAS-SSF")
    done = run_import(study[0], tmp_path, files, components, "--minor-allele-count", 5)
    assert done.returncode == 0, done.stderr
    with formats.open_file(tmp_path / "gwas.00001.h5", "minimal") as chunk:
        assert set(chunk["variants/chromosome"][...]) == {25}


def test_same_bytes_whatever_threads_and_no_subject(study, tmp_path):
    files, components = write_components(tmp_path / "in", study[3], "REGENIE")
    contents = []
    for threads in (1, 2):
        folder = tmp_path / str(threads)
        folder.mkdir()
        assert run_import(study[0], folder, files, components, "--threads", threads).returncode == 0
        contents.append((folder / "gwas.00001.h5").read_bytes())
    assert contents[0] == contents[1]
    assert study[0].subjects[200].encode() not in contents[0]
