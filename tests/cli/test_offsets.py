"""Heritability from a dataset whose components have an offset by chromosome."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest

from helpers import run_stage
from heritability_study import heritability_args, make_study, write_ld_reference
from rvga import bands, formats, significance
from rvga import heritability as h
from rvga.dataset import MinimalDataset
from rvga.genetic_covariance import estimate_covariance, estimate_with_trait, match_dataset
from rvga.ld_reference import LdReference
from rvga.tables import read_table

R = 12


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a study without any heritability, and its LD reference.

    On chromosome 1 offsets take 60 % of the even components, on 2 a tenth of all.
    """
    shares = np.stack([np.where(np.arange(R) % 2, 0.2, 0.6), np.full(R, 0.1)])
    made = make_study(tmp_path_factory.mktemp("offsets"), r=R, h2=0.0, offsets=shares)
    return made, write_ld_reference(made, run_stage)


@pytest.fixture(scope="module")
def blocks(study):
    """Return (A row, moments, projection, shares of the trace) of each block."""
    made, reference_path = study
    found = []
    with LdReference.open(reference_path) as reference:
        position = reference.variants.base_pair_location.to_numpy()
        second = (reference.variants.chromosome == "2").to_numpy()
        scores = made.scores[(position - 1000) // 100 + second * (len(made.scores) // 2)]
        for first, stop, b in reference.blocks():
            seen = h.project_block(
                b.M, b.R_a, b.R_b, b.T, scores[first:stop], reference.n_a, reference.n_b,
                b.t_1_ratio, made.n,
            )  # fmt: skip
            found.append((int(second[first]), h.moments_of(seen), seen, b.share))
        return found, float(reference.m), reference.factors()


def estimate(study, **options):
    options = {"method": "moments", "fixed_intercept": True, "workers": 1, **options}
    with MinimalDataset.open(study[0].dataset) as dataset, LdReference.open(study[1]) as reference:
        match = match_dataset(dataset, reference)
        return estimate_covariance(dataset, reference, match, **options)


def mean_h2(study, Gamma):
    """Return the mean h² of the components and its error, as they are independent."""
    each = np.diag(Gamma) / np.diag(study[0].Sigma)
    return each.mean(), each.std(ddof=1) / np.sqrt(len(each))


def test_noise_of_each_chromosome_is_taken_off(study, blocks):
    made = study[0]
    parts, m, factors = blocks
    kappa = made.A / (made.n * (made.n - 1))
    total = sum(part.quadratic for _, part, *_ in parts)
    t_2 = sum(part.t_2 for _, part, *_ in parts)
    noise = sum(part.t_1 * kappa[c] for c, part, *_ in parts)
    found, _ = estimate(study)
    np.testing.assert_allclose(found.moments.Gamma, m / t_2 * (total - noise), rtol=1e-4, atol=1e-4)
    s = factors[1] * sum(part.quartic - part.t_4 * kappa[c] for c, part, *_ in parts)
    np.testing.assert_allclose(found.moments.s, s, rtol=1e-3, atol=1e-6)
    mean, error = mean_h2(study, found.moments.Gamma)
    assert abs(mean) < 4 * error
    # The noise of a study without offsets would be far from it.
    t_1 = sum(part.t_1 for _, part, *_ in parts)
    plain, _ = mean_h2(study, m / t_2 * (total - t_1 * made.Sigma / made.n))
    assert plain < -6 * error
    # Without the blocks of each chromosome, whose noise the mean over both is not.
    for g in (0, len(found.left_out) - 1):
        rest = [x for i, x in enumerate(parts) if i != g]
        here = m / sum(part.t_2 for _, part, *_ in rest) * sum(
            part.quadratic - part.t_1 * kappa[c] for c, part, *_ in rest
        )  # fmt: skip
        np.testing.assert_allclose(found.left_out[g], here, rtol=1e-4, atol=1e-4)


def test_errors_are_relative_to_the_variance_without_offsets(study, blocks):
    parts, _, _ = blocks
    made, x = study[0], estimate(study)[0].moments
    kappa = made.A / (made.n * (made.n - 1))
    t_1 = sum(part.t_1 for _, part, *_ in parts)
    mean = sum(part.t_1 * kappa[c] for c, part, *_ in parts) / t_1
    k = np.diag(mean) / np.diag(made.Sigma)
    assert np.all(k < 0.9 / made.n)
    h2, error = h.heritability(x, np.eye(R))
    np.testing.assert_allclose(h2, np.diag(x.Gamma) / np.diag(made.Sigma), rtol=1e-10)
    s = np.diag(x.s) / np.diag(made.Sigma)
    expected = x.scale**2 * (2 * x.t_4 * k**2 + 4 * s * k) - 2 * h2**2 / made.n
    np.testing.assert_allclose(error, np.sqrt(expected), rtol=1e-6)


@pytest.mark.parametrize("fixed", [True, False])
def test_bands_take_off_the_noise_of_each_block(study, blocks, fixed):
    made = study[0]
    parts, m, _ = blocks
    kappa = made.A / (made.n * (made.n - 1))
    found, sums = estimate(study, method="bands", fixed_intercept=fixed)
    sample = bands.Sample(made.n - 1, float(np.trace(made.Sigma)), fixed)
    h2 = bands.mean_heritability(sums.equations, 0, sample, m)
    v = bands.inverse_variances(sums.equations, [sample], [h2], m)[:, 0]
    coefficient = bands.coefficients(sums.equations, v, m, fixed)
    t_1 = sum(part.t_1 for _, part, *_ in parts)
    mean = sum(part.t_1 * kappa[c] for c, part, *_ in parts) / t_1
    Gamma, number = np.zeros((R, R)), len(bands.EDGES)
    for i, (c, _, seen, share) in enumerate(parts):
        band = bands.band_of(share)
        for b in range(number):
            q = seen.q[band == b]
            here = kappa[c] if fixed else kappa[c] - mean
            e = i * number + b
            Gamma += coefficient[e] * (q.T @ q - sums.equations.t_1[e] * here)
    np.testing.assert_allclose(found.moments.Gamma, Gamma, rtol=1e-4, atol=1e-4)
    average, error = mean_h2(study, Gamma)
    assert abs(average) < 4 * error
    np.testing.assert_allclose(found.moments.kappa, mean, rtol=1e-6, atol=1e-9)
    # The scores' squares, brought to noise Σ/n, give weights that see no heritability either.
    assert h2 < 0.1


def test_free_intercept_is_that_of_the_mean_noise(study, tmp_path):
    done = run_stage(
        "heritability", heritability_args(*study, tmp_path), "--summary", tmp_path / "s.json",
        "--heritability-method", "moments",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "s.json").read_text())["numbers"]
    table = read_table(tmp_path / "intercepts.tsv", "intercepts")
    assert (table.expected == 1).all()
    error = table.intercept.std(ddof=1) / np.sqrt(R)
    assert abs(numbers["mean_intercept"] - 1) < 4 * error
    # Beside Σ/n the intercepts would be the shares that offsets leave, .6 and .85.
    assert 4 * error < 0.25
    with h5py.File(tmp_path / "genetic_covariance.h5") as file:
        ratio = np.diag(file["kappa"][...]) / np.diag(file["Sigma"][...]) * study[0].n
    np.testing.assert_allclose(ratio, np.where(np.arange(R) % 2, 0.85, 0.65), atol=0.06)


def test_with_a_trait_the_components_are_the_same(study):
    made = study[0]
    with MinimalDataset.open(made.dataset) as dataset, LdReference.open(study[1]) as reference:
        match = match_dataset(dataset, reference)
        trait = np.random.default_rng(3).normal(size=reference.m) / 30
        one, _ = estimate_covariance(
            dataset, reference, match, method="moments", fixed_intercept=True, workers=1
        )
        both = estimate_with_trait(
            dataset, reference, match, trait, 900.0, method="moments", overlap=False, workers=1
        )
        np.testing.assert_allclose(both.Gamma[:-1, :-1], one.moments.Gamma, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(both.left_out[:, :-1, :-1], one.left_out, rtol=1e-9, atol=1e-9)
        assert both.closed_form.Sigma[0, 0] == pytest.approx(made.Sigma[0, 0])
        free = estimate_with_trait(
            dataset, reference, match, trait, 900.0, method="moments", overlap=True, workers=1
        )
    ratio = np.diag(free.intercept.kappa)[:-1] / np.diag(free.expected_kappa)[:-1]
    assert abs(ratio.mean() - 1) < 4 * ratio.std(ddof=1) / np.sqrt(R)


def test_published_scores_have_the_variance_of_their_chromosome(study):
    found, _ = estimate(study, method="published")
    mean, error = mean_h2(study, found.moments.Gamma)
    assert abs(mean) < 4 * error


def test_offsets_that_change_within_a_block_are_refused(study, tmp_path):
    made = study[0]
    path = tmp_path / "mixed.rvga.h5"
    with formats.open_file(made.dataset, "minimal") as old:
        names = []
        old._handle.visititems(
            lambda n, x: names.append(n) if isinstance(x, h5py.Dataset) else None
        )
        with formats.create(path, "minimal", old.attributes) as writer:
            for name in names:
                text = formats.KINDS["minimal"].datasets[name].dtype == formats.TEXT
                values = old.array(name) if text else old[name][...]
                writer.add(name, np.arange(len(values)) % 2 if name == "A_index" else values)
    folder = tmp_path / "out"
    folder.mkdir()
    options = heritability_args(*study, folder)
    options[1] = path
    done = run_stage("heritability", options)
    assert done.returncode == 2
    assert "variants of one LD block have different offsets" in done.stderr
    assert "Traceback" not in done.stderr


def test_image_tail_is_of_the_mean_covariance_over_variants(study, tmp_path):
    made, out = study[0], tmp_path / "tail.h5"
    done = run_stage("image_tail", "--dataset", made.dataset, "--out", out, "--draws", 2000)
    assert done.returncode == 0, done.stderr
    with formats.open_file(out, "tail") as file:
        found = significance.Tail.of(file).critical_z_image_wide

    def critical(Sigma):
        return significance.image_wide_tail(
            made.bases, Sigma, n_eff=2.0, significance="image_wide", significance_level=5e-8,
            draws=2000, seed=1, threads=1,
        ).critical_z_image_wide  # fmt: skip

    # Both chromosomes have as many variants.
    assert found == pytest.approx(critical(made.A.mean(axis=0) / made.n), rel=1e-9)
    assert found != pytest.approx(critical(made.Sigma), rel=1e-6)


def test_an_index_of_no_cross_product_is_refused(study, tmp_path):
    path = tmp_path / "bad.rvga.h5"
    shutil.copy(study[0].dataset, path)
    with h5py.File(path, "r+") as file:
        file["A_index"][5] = 2
    done = run_stage("image_tail", "--dataset", path, "--out", tmp_path / "t.h5")
    assert done.returncode == 2
    assert "bad.rvga.h5: an A_index is out of range" in done.stderr
    assert not (tmp_path / "t.h5").exists()
