"""The minimal dataset as a user opens it, against least squares on the denoised image."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rvga import formats
from rvga.coding import decode_z, encode_z
from rvga.dataset import MinimalDataset
from rvga.errors import InputError
from rvga.reconstruction import beta_from_z, voxel_z
from rvga.tables import VARIANT_COLUMNS
from small_study import (
    MISSING,
    dosages_of,
    hard_calls,
    least_squares,
    make_study,
    mean_imputed,
    run_chunks,
    run_dataset,
    subject_names,
    write_bed,
    write_pgen,
)

N_PEOPLE, N_VOXELS, M = 320, 40, 150
# What variants on X need.
BUILD = ("--genome-build", "GRCh37")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return the folder, the study, genotype files of two chromosomes and their matrix."""
    folder = tmp_path_factory.mktemp("study")
    # The files hold people that the study lacks, in another order.
    people = subject_names(N_PEOPLE + 15)[::-1]
    names = sorted(subject_names(N_PEOPLE), key=str.encode)
    dosage = dosages_of(hard_calls(M, N_PEOPLE + 15, seed=11, missing=0.02), seed=12)
    dosage[M // 3 : M // 2] = dosages_of(
        hard_calls(M // 2 - M // 3, N_PEOPLE + 15, seed=13), seed=14
    )
    rows = [people.index(name) for name in names]
    mine = dosage[:, rows]
    effect = np.zeros((M, N_VOXELS))
    effect[[3, 60]] = np.random.default_rng(1).normal(scale=0.5, size=(2, N_VOXELS))
    study = make_study(folder, N_PEOPLE, n_voxels=N_VOXELS, extra=mean_imputed(mine).T @ effect)
    half = M // 2
    mains = [
        write_pgen(folder / "x", dosage[half:], people, "X", 500),
        write_pgen(folder / "two", dosage[:half], people, "chr2", 1000),
    ]
    return folder, study, mains, mine


@pytest.fixture(scope="module")
def expected(study):
    """Return beta and SE of every variant on the denoised image, (m, N)."""
    _, s, _, mine = study
    denoised = s.ldrs @ s.B.astype(float).T
    return least_squares(mean_imputed(mine), s.covariates, denoised)


@pytest.fixture(scope="module")
def path(study):
    """Return the int16 dataset."""
    folder, s, mains, _ = study
    return run_dataset(folder / "int16", s, mains, "--genome-build", "GRCh37", chunk=40)


@pytest.fixture(scope="module")
def plain_path(study):
    """Return the float32 dataset."""
    folder, s, mains, _ = study
    options = ("--dataset-coding", "float32", "--genome-build", "GRCh37")
    return run_dataset(folder / "float32", s, mains, *options)


def test_sizes_and_order(path):
    with MinimalDataset.open(path) as dataset:
        assert (dataset.n, dataset.p, dataset.r, dataset.N, dataset.m) == (320, 4, 5, 40, M)
        assert dataset.nu == 315
        variants = dataset.variants
    assert list(variants.columns) == list(VARIANT_COLUMNS)
    assert variants["chromosome"].tolist() == ["2"] * 75 + ["X"] * 75
    assert variants["base_pair_location"].iloc[[0, 75]].tolist() == [1000, 500]
    assert set(variants["effect_allele"]) == {"G"}
    assert set(variants["other_allele"]) == {"A"}


def test_frequency_is_of_the_sample(path, study):
    mine = np.where(study[3] == MISSING, np.nan, study[3])
    with MinimalDataset.open(path) as dataset:
        got = dataset.variants["effect_allele_frequency"]
        missing = dataset.missing_rate
    np.testing.assert_allclose(got, np.nanmean(mine, axis=1) / 2, atol=1e-6)
    np.testing.assert_allclose(missing, np.isnan(mine).mean(axis=1), atol=1e-6)


def test_float32_voxels_are_within_the_exactness_rule(plain_path, expected):
    beta, standard_error = expected
    assert np.abs(beta / standard_error).max() > 10
    with MinimalDataset.open(plain_path) as dataset:
        for voxel in range(25):
            table = dataset.voxel(voxel)
            error = standard_error[:, voxel]
            assert np.max(np.abs(table["beta"] - beta[:, voxel]) / error) <= 1e-4
            assert np.max(np.abs(table["standard_error"] / error - 1)) <= 1e-5


def voxel_bound(scale, bases, A, z, nu):
    """Return the bound of an int16 voxel's |error of z| as docs/minimal_dataset.md states it."""
    V = np.einsum("vj,jk,vk->v", bases, A, bases)
    weights = np.abs(bases) * np.sqrt(np.diag(A)) / np.sqrt(V)[:, None]
    return scale[:, None] / 2 * (1 + z * z / nu) ** 1.5 * weights.sum(axis=1)


def test_int16_coding_is_within_its_bounds(path, plain_path):
    with MinimalDataset.open(path) as coded, MinimalDataset.open(plain_path) as plain:
        exact = plain.components().z
        got = coded.components().z
        assert coded.attributes["coding"] == "int16"
        bound = np.abs(exact).max(axis=1, keepdims=True) / 65_534 + 1e-4
        assert np.all(np.abs(got - exact) <= bound)
        z, exact_z = (file.voxel_statistics(0, M)["z"] for file in (coded, plain))
        nu = coded.nu
    with h5py.File(path) as file:
        scale, A, bases = file["scale"][...], file["A"][0], file["bases"][...].astype(float)
    bound = voxel_bound(scale, bases, A, np.maximum(np.abs(z), np.abs(exact_z)), nu)
    error = np.abs(z - exact_z)
    # What float32 loses, 6e-8 of z, is more where voxels are explained well.
    assert np.all(error <= bound * (1 + 1e-3) + 1e-6)
    assert np.max(error / bound) > 0.5


def decoded_voxels(z, bases, nu):
    """Return the scale, and z of voxels before and after int16 coding, for A of unity."""
    variance, a = np.ones(z.shape[1]), np.ones(len(z))
    codes, scale = encode_z(z)
    before, after = (
        voxel_z(beta_from_z(values, a, variance, nu), a, bases, (bases**2).sum(axis=1), nu)
        for values in (z, decode_z(codes, scale))
    )
    return scale, before, after


def test_int16_error_of_voxels_has_the_size_that_is_stated():
    """Strong variants of 100 components: typical size, and more than the size of one code."""
    rng = np.random.default_rng(2)
    r, nu = 100, 49_990
    bases = rng.normal(size=(500, r))
    z = rng.normal(size=(200, r))
    z[:, 0] = rng.uniform(55, 60, 200)
    scale, before, after = decoded_voxels(z, bases, nu)
    error = np.abs(after - before)
    largest = np.maximum(np.abs(before), np.abs(after))
    assert np.all(error <= voxel_bound(scale, bases, np.eye(r), largest, nu))
    typical = scale[:, None] / np.sqrt(12) * (1 + before**2 / nu) ** 1.5
    assert np.sqrt(np.mean((error / typical) ** 2)) == pytest.approx(1, abs=0.05)
    # A code's half unit is 9e-4; 2e-3 is not kept by voxels, as the page says.
    print(f"largest {error.max():.2e}, typical {np.sqrt(np.mean(error**2)):.2e}")
    assert 2e-3 < error.max() < 6 * typical.max()


@pytest.mark.parametrize(("nu", "amplified"), [(50_000, 1.026), (1_000, 17.5)])
def test_int16_error_of_voxels_reaches_its_bound(nu, amplified):
    """All components rounded the same way, in a voxel to which all contribute alike."""
    r, step = 100, 3 / 32767
    z = np.full((1, r), (32_000 + 0.49) * step)
    z[0, 0] = 3
    bases = np.full((1, r), 1.0)
    scale, before, after = decoded_voxels(z, bases, nu)
    largest = np.maximum(before, after)
    bound = voxel_bound(scale, bases, np.eye(r), largest, nu)
    assert (1 + before[0, 0] ** 2 / nu) ** 1.5 == pytest.approx(amplified, rel=0.01)
    assert 0.9 * bound < np.abs(after - before) <= bound


def test_p_is_of_the_t_distribution(path):
    with MinimalDataset.open(path) as dataset:
        table = dataset.voxel(0)
        nu = dataset.nu
    reference = -np.log10(2 * stats.t.sf(np.abs(table["z"]), nu))
    np.testing.assert_allclose(table["neg_log_10_p_value"], reference, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(table["z"], table["beta"] / table["standard_error"], rtol=1e-9)


def test_voxel_variant_and_region_agree(path):
    with MinimalDataset.open(path) as dataset:
        voxel = dataset.voxel(7)
        variant = dataset.variant("2:1030:A:G")
        view = dataset.region("chr2", 1100, 1200)
        assert view.variants["base_pair_location"].tolist() == list(range(1100, 1201, 10))
        pd.testing.assert_frame_equal(
            view.voxel(7), voxel.iloc[10:21].reset_index(drop=True), check_exact=False, rtol=1e-12
        )
        assert len(view) == len(view.components().a) == 11
        lead = view.lead_voxels()
        z = dataset.voxel_statistics(10, 21)["z"]
        np.testing.assert_array_equal(lead["lead_voxel"], np.abs(z).argmax(axis=1))
        np.testing.assert_allclose(np.abs(lead["z"]), np.abs(z).max(axis=1), rtol=1e-9)
    for name in ("beta", "standard_error", "z", "neg_log_10_p_value"):
        assert variant[name].iloc[7] == pytest.approx(voxel[name].iloc[3], rel=1e-9)
    assert len(variant) == N_VOXELS


def test_voxel_does_not_depend_on_the_others_asked_for(path):
    with MinimalDataset.open(path) as dataset:
        everything = dataset.voxel_statistics(0, M)["beta"]
        some = dataset.voxel_statistics(0, M, np.array([30, 4]))["beta"]
    np.testing.assert_allclose(some, everything[:, [30, 4]], rtol=1e-10)


def test_mean_of_voxels_is_least_squares_on_their_mean(plain_path, study):
    _, s, _, mine = study
    voxels = [1, 5, 6]
    mean = (s.ldrs @ s.B.astype(float).T)[:, voxels].mean(axis=1, keepdims=True)
    beta, standard_error = least_squares(mean_imputed(mine), s.covariates, mean)
    with MinimalDataset.open(plain_path) as dataset:
        table = dataset.mean_of_voxels(voxels)
    assert np.max(np.abs(table["beta"] - beta[:, 0]) / standard_error[:, 0]) <= 1e-4


def test_variant_by_position_and_alleles(path):
    with MinimalDataset.open(path) as dataset:
        row = dataset.variant_row("rs1500")
        assert row == 50
        assert dataset.variant_row("2:1500:A:G") == row
        assert dataset.variant_row("chr2:1050:G:A") == dataset.variant_row("2:1050:A:G") == 5
        with pytest.raises(InputError, match=r"2 variants are called .rs1030."):
            dataset.variant("rs1030")
        for name in ("rs1", "2:1050:A:T", "2:1051:A:G", "nonsense"):
            with pytest.raises(InputError, match=f"holds no variant '{name}'"):
                dataset.variant(name)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda d: d.voxel(1.7), "voxel 1.7 is not a whole number"),
        (lambda d: d.voxel("a"), "voxel 'a' is not a whole number"),
        (lambda d: d.mean_of_voxels([1, 2.5]), "voxel 2.5 is not a whole number"),
        (lambda d: d.component(0.5), "component 0.5 is not a whole number"),
        (lambda d: d.variant(5), "variant 5 is not text"),
        (lambda d: d.region("3", "one", 9), "region 3:one-9: start and end are positions"),
        (lambda d: d.region("3", 1, float("inf")), "region 3:1-inf: start and end are positions"),
        (lambda d: d.nearest_voxel(5), "point 5: 3 finite coordinates"),
        (lambda d: d.nearest_voxel("abc"), "point abc: 3 finite coordinates"),
    ],
)
def test_mistakes_in_a_notebook_are_told(path, ask, message):
    with MinimalDataset.open(path) as dataset, pytest.raises(InputError, match=re.escape(message)):
        ask(dataset)


def test_a_closed_dataset_says_so(path):
    with MinimalDataset.open(path) as dataset:
        view = dataset.region("1", 0, 10**9)
        expected = dataset.bases.shape
    for ask in (lambda: dataset.voxel(0), lambda: dataset.variants, lambda: view.components()):
        with pytest.raises(InputError, match="was closed; use the dataset inside its 'with'"):
            ask()
    dataset.close()
    assert dataset.bases.shape == expected


def test_nearest_voxel(path):
    with MinimalDataset.open(path) as dataset:
        for voxel in (0, 17, 39):
            assert dataset.nearest_voxel(dataset.coordinates[voxel] + 0.4) == voxel
        with pytest.raises(InputError, match="3 finite coordinates in millimetres are due"):
            dataset.nearest_voxel((1.0, 2.0))
        for voxel in (-1, N_VOXELS):
            with pytest.raises(InputError, match=f"voxel {voxel} does not exist"):
                dataset.voxel(voxel)


def test_empty_region_and_bounds(path):
    with MinimalDataset.open(path) as dataset:
        assert len(dataset.region("2", 1001, 1009)) == 0
        assert len(dataset.region("2", 1000, 1010)) == 2
        assert len(dataset.region("7", 1, 10**9)) == 0
        assert len(dataset.region("23", 0, 10**9)) == 75
        with pytest.raises(InputError, match="start must not be after"):
            dataset.region("2", 10, 9)
        with pytest.raises(InputError, match="unknown"):
            dataset.region("Z", 1, 2)


def test_blocks_make_up_the_whole(path):
    with MinimalDataset.open(path) as dataset:
        whole = dataset.components()
        parts = list(dataset.blocks(37))
    assert [part[:2] for part in parts] == [(0, 37), (37, 74), (74, 111), (111, 148), (148, 150)]
    np.testing.assert_array_equal(np.concatenate([part[2].z for part in parts]), whole.z)


def test_file_split_chunks_and_format_change_nothing(tmp_path):
    calls = hard_calls(90, 200, seed=21, missing=0.05)
    people = subject_names(200)
    study = make_study(tmp_path, 200, seed=3)
    whole = [write_pgen(tmp_path / "whole", calls, people)]
    bed = [write_bed(tmp_path / "bed", calls, people)]
    split = [
        write_pgen(tmp_path / "b", calls[50:], people, start=1500),
        write_pgen(tmp_path / "a", calls[:50], people),
    ]
    options = ("--block-variants", "16")
    one = run_dataset(tmp_path / "1", study, whole, *options).read_bytes()
    assert run_dataset(tmp_path / "2", study, whole, *options, chunk=17).read_bytes() == one
    assert run_dataset(tmp_path / "3", study, bed, *options, chunk=40).read_bytes() == one
    assert run_dataset(tmp_path / "4", study, split, *options).read_bytes() == one
    threaded = run_dataset(tmp_path / "5", study, whole, *options, "--threads", "3", chunk=41)
    assert threaded.read_bytes() == one


def test_unsorted_file_comes_out_in_genome_order(tmp_path):
    calls = np.random.default_rng(22).binomial(2, 0.4, (12, 150)).astype(np.int8)
    people = subject_names(150)
    study = make_study(tmp_path, 150, seed=3)
    main = write_pgen(tmp_path / "g", calls, people)
    lines = main.with_suffix(".pvar").read_text().splitlines()
    shuffled = np.random.default_rng(0).permutation(12)
    chromosomes = ["X", "10", "2"]
    rows = [f"{chromosomes[i % 3]}\t{100 - i}\tv{i}\tA\tG" for i in range(12)]
    main.with_suffix(".pvar").write_text("\n".join(lines[:2] + [rows[i] for i in shuffled]) + "\n")
    with MinimalDataset.open(
        run_dataset(tmp_path / "o", study, [main], *BUILD, chunk=5)
    ) as dataset:
        ids = [f"v{i}" for i in (11, 8, 5, 2, 10, 7, 4, 1, 9, 6, 3, 0)]
        assert dataset.variants["variant_id"].tolist() == ids
        place = [shuffled.tolist().index(int(name[1:])) for name in ids]
        rows = [people.index(name) for name in study.subjects]
        expected = least_squares(calls[place][:, rows].astype(float), study.covariates, study.ldrs)
        np.testing.assert_allclose(dataset.components().z, expected[0] / expected[1], atol=1e-3)


def test_no_subject_and_no_genotype_is_inside(path, study):
    names = set(study[1].subjects)
    n = len(names)
    content = path.read_bytes()
    assert not any(f"\0{name}\0".encode() in content for name in names)
    with h5py.File(path) as handle:
        texts: list[str] = [str(value) for value in handle.attrs.values()]
        sizes: list[int] = []

        def visit(name, item):
            if isinstance(item, h5py.Dataset):
                sizes.extend(item.shape)
                if h5py.check_string_dtype(item.dtype):
                    texts.extend(item.asstr()[...].tolist())

        handle.visititems(visit)
    assert not names & set(texts)
    # No dataset has a row a person.
    assert n not in sizes


def test_collinear_variant_is_a_missing_row_and_rare_ones_are_left_out(tmp_path):
    people = subject_names(200)
    study = make_study(tmp_path, 200, seed=3)
    rows = [people.index(name) for name in study.subjects]
    calls = hard_calls(6, 200, seed=5)
    calls[1] = 1
    calls[2] = MISSING
    calls[3] = 0
    calls[3, :3] = 1
    calls[4] = 0
    calls[4, :100] = 2
    covariate = calls[4, rows].astype(float)
    Q = np.linalg.qr(np.column_stack([study.covariates, covariate]))[0]
    residual = study.ldrs - Q @ (Q.T @ study.ldrs)
    with formats.open_file(study.null, "null") as old:
        attributes, inputs, subject = old.attributes, old.inputs, old.array("subject")
    with formats.create(study.null, "null", attributes, inputs=inputs) as writer:
        writer.add("Q", Q)
        writer.add("residual_ldrs", residual[None])
        writer.add("A", (residual.T @ residual)[None])
        writer.add("A_chromosome", [0])
        writer.add("Sigma", residual.T @ residual / len(residual))
        writer.add("subject", subject)
    main = write_pgen(tmp_path / "g", calls, people)
    with MinimalDataset.open(run_dataset(tmp_path / "o", study, [main])) as dataset:
        names = dataset.variants["variant_id"].tolist()
        assert names == ["rs1000", "rs1010", "rs1020", "rs1040", "rs1050"]
        absent = [False, True, True, True, False]
        components = dataset.components()
        assert np.isnan(components.a).tolist() == absent
        assert np.isnan(components.z).all(axis=1).tolist() == absent
        table = dataset.voxel(0)
        assert np.isnan(table["neg_log_10_p_value"]).tolist() == absent
        dropped = {"below_minor_allele_count": 1}
        missing = {"all_missing": 1, "collinear": 1, "monomorphic": 1}
        assert json.loads(dataset.attributes["counts"]) == {
            "1": {"dropped": dropped, "missing": missing, "read": 6, "written": 5}
        }


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not on PATH")
def test_plink_agrees_on_the_denoised_image(study, plain_path, path, tmp_path):
    folder, s, _, mine = study
    denoised = s.ldrs @ s.B.astype(float).T
    voxels = list(range(0, N_VOXELS, 2))
    frame = pd.DataFrame({"#IID": s.subjects})
    for column in range(1, s.covariates.shape[1]):
        frame[f"c{column}"] = s.covariates[:, column]
    frame.to_csv(tmp_path / "covar", sep="\t", index=False)
    columns = {f"v{voxel}": denoised[:, voxel] for voxel in voxels}
    columns |= {f"l{component}": s.ldrs[:, component] for component in range(5)}
    phenotypes = pd.DataFrame({"#IID": s.subjects, **columns})
    phenotypes.to_csv(tmp_path / "pheno", sep="\t", index=False, float_format="%.17g")
    subprocess.run(
        ["plink2", "--pfile", str(folder / "two"), "--pheno", "pheno", "--covar", "covar",
         "--glm", "hide-covar", "omit-ref", "cols=chrom,pos,ref,alt,a1freq,nobs,beta,se,tz",
         "--out", "o", "--threads", "1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    complete = np.flatnonzero((mine[: M // 2] != MISSING).all(axis=1))
    assert len(complete) >= 20

    def plink(name):
        table = pd.read_csv(tmp_path / f"o.{name}.glm.linear", sep="\t").iloc[complete]
        assert (table["OBS_CT"] == N_PEOPLE).all()
        assert (table["A1"] == "G").all()
        return table["BETA"].to_numpy(), table["SE"].to_numpy()

    def within_rule(beta, standard_error, name):
        plink_beta, plink_error = plink(name)
        # PLINK prints six digits: half a unit of the last is at most 5e-6 of the value.
        printed = 5e-6 * np.abs(plink_beta) / plink_error
        assert np.all(np.abs(beta - plink_beta) / plink_error <= 1e-4 + printed)
        assert np.all(np.abs(standard_error / plink_error - 1) <= 1e-5 + 5e-6)

    with MinimalDataset.open(plain_path) as plain, MinimalDataset.open(path) as coded:
        for voxel in voxels:
            table = plain.voxel(voxel).iloc[complete]
            within_rule(table["beta"], table["standard_error"], f"v{voxel}")
            beta, standard_error = plink(f"v{voxel}")
            z = coded.voxel(voxel)["z"].iloc[complete]
            printed = 1e-5 * np.abs(beta / standard_error)
            assert np.all(np.abs(z - beta / standard_error) <= 2e-3 + printed)
        components = plain.components()
        for component in range(5):
            beta = components.beta[complete, component]
            error = beta / components.z[complete, component]
            within_rule(beta, error, f"l{component}")


def test_chunk_is_refused_as_dataset(study, tmp_path):
    _, s, mains, _ = study
    chunk = run_chunks(tmp_path, s, mains[:1], *BUILD)[0]
    with pytest.raises(InputError, match="it is a chunk"):
        MinimalDataset.open(chunk)


def damaged(path, tmp_path, change):
    copy = tmp_path / "bad.rvga.h5"
    shutil.copy(path, copy)
    with h5py.File(copy, "r+") as handle:
        change(handle)
        # As a forger would; what an honest change does is in test_dataset_safety.py.
        digest = formats.attributes_digest(handle)
        handle.attrs["attributes_digest"] = np.bytes_(digest.encode())
    return copy


def replace(handle, name, **options):
    del handle[name]
    return handle.create_dataset(name, **options)


def cut(handle):
    values = handle["a"][:-1]
    replace(handle, "a", data=values)


def inflate(handle):
    for name in ("bases", "coordinates", "geometry/index"):
        columns = handle[name].shape[1]
        dtype = handle[name].dtype
        replace(handle, name, shape=(10**11, columns), dtype=dtype, chunks=(1000, columns))


def link(handle):
    del handle["A"]
    handle["A"] = h5py.ExternalLink("/etc/hostname", "/A")


def link_group(handle):
    handle.move("variants", "other")
    handle["variants"] = h5py.SoftLink("/other")


def virtual(handle):
    layout = h5py.VirtualLayout(handle["A"].shape, dtype="f8")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "A", shape=handle["A"].shape)
    del handle["A"]
    handle.create_virtual_dataset("A", layout)


def external(handle):
    shape = handle["Sigma"].shape
    replace(handle, "Sigma", shape=shape, dtype="f8", external=[("elsewhere.raw", 0, 200)])


def not_finite(handle):
    handle["A"][0, 0, 0] = np.nan


def negative(handle):
    handle["A"][0, 0, 0] = -1


def unsorted(handle):
    handle["variants/base_pair_location"][3] = 1


def outside(handle):
    handle["geometry/index"][0] = (0, 0, 99)


def few_people(handle):
    handle.attrs["n"] = 5


def coding(handle):
    handle.attrs["coding"] = np.bytes_(b"pickle")


def chromosome(handle):
    handle["variants/chromosome"][-1] = 77


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, r"m = 149"),
        (inflate, r"claims \d+ bytes but stores 0"),
        (link, "values from elsewhere"),
        (link_group, "not part of such a file|values from elsewhere"),
        (virtual, "values from other files"),
        (external, "values from other files"),
        (not_finite, "not finite"),
        (negative, "positive diagonal"),
        (outside, "outside the image grid"),
        (few_people, "no degrees of freedom"),
        (coding, "does not agree with the type of z"),
        (
            lambda handle: handle.attrs.__setitem__("format", np.bytes_(b"rvga.ld")),
            "'minimal' file",
        ),
        (lambda handle: handle.attrs.__setitem__("format_version", 99), "format_version 99"),
        (lambda handle: handle.__delitem__("scale"), "'scale' is missing"),
    ],
)
def test_damaged_or_hostile_file_is_refused(path, tmp_path, change, message):
    bad = damaged(path, tmp_path, change)
    with pytest.raises(InputError, match=message):
        MinimalDataset.open(bad)


def test_file_cut_short_is_refused(path, tmp_path):
    bad = tmp_path / "bad.rvga.h5"
    content = path.read_bytes()
    for size in (0, 100, len(content) // 2, len(content) - 1):
        bad.write_bytes(content[:size])
        with pytest.raises(InputError, match="not a readable HDF5 file"):
            MinimalDataset.open(bad)


def test_a_index_out_of_range_is_refused(path, tmp_path):
    bad = damaged(path, tmp_path, lambda handle: handle["A_index"].__setitem__(0, 3))
    with MinimalDataset.open(bad) as dataset, pytest.raises(InputError, match="A_index"):
        dataset.components()


def test_several_cross_products(path, tmp_path):
    """A variant uses the A that its index names."""

    def two(handle):
        A = handle["A"][...]
        replace(handle, "A", data=np.concatenate([A, 4 * A]))
        index = handle["A_index"][...]
        index[10:] = 1
        handle["A_index"][...] = index

    with (
        MinimalDataset.open(path) as one,
        MinimalDataset.open(damaged(path, tmp_path, two)) as other,
    ):
        left, right = one.voxel_statistics(0, M), other.voxel_statistics(0, M)
    np.testing.assert_allclose(right["z"], left["z"], rtol=1e-9)
    np.testing.assert_allclose(right["beta"][:10], left["beta"][:10], rtol=1e-9)
    np.testing.assert_allclose(right["beta"][10:], 2 * left["beta"][10:], rtol=1e-9)


def test_readable_with_h5py_alone(path):
    """What the data model says suffices to read a dataset."""
    with MinimalDataset.open(path) as dataset:
        table = dataset.voxel(9)
    with h5py.File(path) as handle:
        z = handle["z"][...] * handle["scale"][...].astype(float)[:, None]
        a, A, b = handle["a"][...], handle["A"][0], handle["bases"][9].astype(float)
        nu = handle.attrs["n"] - handle.attrs["p"] - 1
        ids = handle["variants/variant_id"].asstr()[...]
    beta = z * np.sqrt(np.diag(A) / (a[:, None] * (nu + z * z)))
    voxel = beta @ b
    error = np.sqrt((b @ A @ b - a * voxel**2) / (nu * a))
    np.testing.assert_allclose(table["beta"], voxel, rtol=1e-9)
    np.testing.assert_allclose(table["standard_error"], error, rtol=1e-9)
    assert table["variant_id"].tolist() == ids.tolist()
