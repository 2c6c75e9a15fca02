"""Simulated studies: genotypes as a population has them, and a truth that is the truth."""

from __future__ import annotations

import csv
import gzip
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

import helpers
from rvga import formats, simulate
from rvga.genotypes import open_genotypes

SEED = 5


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Return a small study."""
    folder = tmp_path_factory.mktemp("simulate") / "study"
    result = helpers.run_stage("simulate", "--preset", "small", "--seed", SEED, "--out", folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def chromosome() -> tuple[np.ndarray, np.ndarray]:
    """Return positions and genotypes of one simulated chromosome."""
    return simulate.simulate_chromosome(500, 1500, 2e6, 0.01, seed=3)


def test_chromosome__frequencies_are_neutral(chromosome):
    position, genotypes = chromosome
    assert genotypes.shape == (1500, 500)
    assert np.all(np.diff(position) > 0)
    frequency = genotypes.mean(axis=1) / 2
    minor = np.minimum(frequency, 1 - frequency)
    assert minor.min() >= 0.01
    # Neutral: the share of derived alleles in [a, b] is log(b/a) over log(.99/.01).
    share = np.mean(frequency < 0.1)
    assert share == pytest.approx(np.log(10) / np.log(99), abs=0.08)


def test_chromosome__genotypes_are_in_hardy_weinberg_proportions(chromosome):
    frequency = chromosome[1].mean(axis=1) / 2
    expected = 2 * frequency * (1 - frequency)
    observed = np.mean(chromosome[1] == 1, axis=1)
    assert np.mean(observed) == pytest.approx(np.mean(expected), rel=0.03)


def test_chromosome__linkage_disequilibrium_decays(chromosome):
    position, genotypes = chromosome
    frequency = genotypes.mean(axis=1) / 2
    common = np.flatnonzero(np.minimum(frequency, 1 - frequency) > 0.1)
    r2 = np.corrcoef(genotypes[common]) ** 2
    distance = np.abs(position[common][:, None] - position[common])
    near, middle, far = (
        r2[(distance > low) & (distance < high)].mean()
        for low, high in ((0, 5e3), (4e4, 6e4), (1e6, 2e6))
    )
    assert near > 0.3
    assert near > 2 * middle > 4 * far
    assert far < 0.02


def test_chromosome__too_many_variants_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        simulate.simulate_chromosome(50, 5000, 3000, 0.01, seed=1)


def test_imputed_dosages__stay_near_the_truth():
    rng = np.random.default_rng(1)
    truth = rng.binomial(2, 0.3, (50, 400)).astype(np.int8)
    dosages = simulate.imputed_dosages(truth, rng)
    assert dosages.min() >= 0
    assert dosages.max() <= 2
    assert np.abs(dosages - truth).max() <= 0.4
    assert np.any(dosages != truth)
    assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(dosages, truth, strict=True)) > 0.98


def test_choose_causal__planted_are_common_and_apart():
    rng = np.random.default_rng(2)
    frequency = rng.uniform(0.001, 0.999, 400)
    planted, background = simulate.choose_causal(frequency, 3, 50, rng)
    assert len(planted) == 3
    assert len(background) == 50
    assert not set(planted) & set(background)
    minor = np.minimum(frequency, 1 - frequency)
    assert minor[planted].min() >= 0.15
    assert minor[background].min() >= 0.01
    assert np.diff(planted).min() > 30


@pytest.mark.parametrize(
    ("n", "share", "n_planted", "expected"),
    [
        (22, 0.36, 10, (8, 3)),
        (22, 0.36, 0, (8, 0)),
        (22, 0, 2, (0, 2)),
        (3, 0.34, 4, (1, 0)),
        (1, 0.9, 4, (0, 0)),
        (2, 0.9, 1, (1, 0)),
    ],
)
def test_choose_chromosomes__some_have_nothing_some_only_planted(n, share, n_planted, expected):
    planted, background = simulate.choose_chromosomes(n, share, n_planted, np.random.default_rng(3))
    assert planted.sum() == n_planted
    assert np.sum((planted == 0) & ~background) == expected[0]
    assert np.sum((planted > 0) & ~background) == expected[1]
    if n_planted > expected[1]:
        assert np.any((planted > 0) & background)
    assert background.any()
    n_active = n - expected[0]
    assert planted.max() == -(-n_planted // n_active)


def test_choose_chromosomes__by_the_seed():
    def chosen(seed):
        rng = np.random.default_rng(seed)
        return tuple(simulate.choose_chromosomes(22, 0.36, 10, rng)[1])

    assert chosen(1) == chosen(1)
    assert len({chosen(seed) for seed in range(10)}) == 10


def test_background_effects__are_normal_with_scores_of_variance_one():
    rng = np.random.default_rng(7)
    standardised = rng.standard_normal((3000, 200))
    effect = simulate.background_effects(standardised, 4, rng)
    np.testing.assert_allclose((effect.T @ standardised).std(axis=1), 1)
    kurtosis = np.mean(effect**4) / np.mean(effect**2) ** 2
    assert kurtosis == pytest.approx(3, abs=0.25)


def test_covariance_factor__equals_covariance_of_genetic_values():
    rng = np.random.default_rng(3)
    patterns = rng.standard_normal((40, 5))
    scores = rng.standard_normal((5, 5)) @ rng.standard_normal((5, 300)) + 1
    F, to_factors = simulate.covariance_factor(patterns, scores)
    values = patterns @ scores
    np.testing.assert_allclose(F @ F.T, np.cov(values, bias=True), atol=1e-10)
    np.testing.assert_allclose(F @ (to_factors @ scores), values, atol=1e-10)


def test_denoised_heritability__equals_explicit_product():
    rng = np.random.default_rng(4)
    F, E = rng.standard_normal((30, 4)), rng.standard_normal((30, 7))
    noise = rng.uniform(0.5, 1, 30)
    B = np.linalg.qr(rng.standard_normal((30, 6)))[0]
    projector = B @ B.T
    genetic = projector @ F @ F.T @ projector
    total = projector @ (F @ F.T + E @ E.T + np.diag(noise)) @ projector
    np.testing.assert_allclose(
        simulate.denoised_heritability(B, F, E, noise), np.diag(genetic) / np.diag(total)
    )


def test_power__of_none_and_of_much():
    assert simulate.power(np.array([6.5]), 6.5)[0] == pytest.approx(0.5)
    assert simulate.power(np.array([0.0]), 1.959964)[0] == pytest.approx(0.05, rel=1e-4)


def test_marginal_statistics__equal_least_squares():
    statsmodels = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(6)
    dosages = rng.binomial(2, 0.3, (4, 120)).astype(float)
    dosages[1, :7] = np.nan
    trait = rng.standard_normal(120) + 0.3 * np.nan_to_num(dosages[1])
    beta, standard_error, p_value, frequency, n = simulate.marginal_statistics(dosages, trait)
    for row, variant in enumerate(dosages):
        called = np.isfinite(variant)
        fit = statsmodels.OLS(trait[called], statsmodels.add_constant(variant[called])).fit()
        assert beta[row] == pytest.approx(fit.params[1], rel=1e-9)
        assert standard_error[row] == pytest.approx(fit.bse[1], rel=1e-9)
        assert p_value[row] == pytest.approx(fit.pvalues[1], rel=1e-6)
        assert frequency[row] == pytest.approx(variant[called].mean() / 2)
        assert n[row] == called.sum()


def _truth(study: Path) -> dict[str, np.ndarray]:
    with formats.open_file(study / "truth.h5", "truth") as envelope:
        return {name: envelope[name][...] for name in formats.KINDS["truth"].datasets}


def _complete(study: Path) -> list[str]:
    """Return the people with an image, genotypes and all covariates."""
    with open(study / "images.csv", newline="") as handle:
        imaged = {row["subject"] for row in csv.DictReader(handle)}
    table = pd.read_csv(study / "covariates.tsv", sep="\t", dtype={"subject": str}).dropna()
    with open_genotypes(study / "genotypes/chr1.pgen") as genotypes:
        return sorted(imaged & set(table["subject"]) & set(genotypes.subject))


def _causal_dosages(study: Path, truth: dict[str, np.ndarray], subjects: list[str]) -> np.ndarray:
    """Return observed dosages of the causal variants, missing ones at the mean."""
    rows = []
    for chromosome in np.unique(truth["causal/chromosome"]):
        wanted = truth["causal/variant_id"][truth["causal/chromosome"] == chromosome]
        with open_genotypes(study / f"genotypes/chr{chromosome}.pgen") as genotypes:
            ids = list(genotypes.variants["variant_id"])
            index = np.array([ids.index(_text(name)) for name in wanted])
            rows.append(genotypes.dosages(index, genotypes.subject_index(subjects)))
    dosages = np.concatenate(rows).astype(float)
    mean = np.nanmean(dosages, axis=1, keepdims=True)
    return np.where(np.isfinite(dosages), dosages, mean)


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture(scope="module")
def certain(tmp_path_factory) -> Path:
    """Return a study of one chromosome, whose calls are complete and true."""
    folder = tmp_path_factory.mktemp("certain") / "study"
    result = helpers.run_stage(
        "simulate", "--preset", "small", "--chromosomes", 1, "--variants", 600, "--out", folder
    )
    assert result.returncode == 0, result.stderr
    return folder


def test_study__covariance_of_genetic_values_is_the_truth(certain):
    truth, subjects = _truth(certain), _complete(certain)
    F = truth["genetic_covariance_factor"]
    dosages = _causal_dosages(certain, truth, subjects)
    np.testing.assert_allclose(dosages.var(axis=1), truth["causal/dosage_variance"], rtol=1e-6)
    values = F @ truth["causal/effect"].T @ dosages
    covariance = np.cov(values, bias=True)
    np.testing.assert_allclose(covariance, F @ F.T, atol=1e-9 * np.trace(covariance))


def test_study__trait_covariance_is_that_of_genetic_values(certain):
    truth, subjects = _truth(certain), _complete(certain)
    F = truth["genetic_covariance_factor"]
    dosages = _causal_dosages(certain, truth, subjects)
    factors = truth["causal/effect"].T @ dosages
    trait = truth["causal/trait_effect"] @ dosages
    covariance = (factors - factors.mean(axis=1, keepdims=True)) @ trait / len(subjects)
    np.testing.assert_allclose(covariance, truth["trait_covariance"], atol=1e-9)
    assert trait.var() == pytest.approx(0.5, rel=1e-9)
    correlation = F @ truth["trait_covariance"] / np.sqrt(0.5 * np.sum(F**2, axis=1))
    assert np.abs(correlation).max() <= 1
    assert correlation.max() > 0.3
    assert correlation.min() < -0.2


def test_study__images_hold_the_planted_effects_and_the_noise(study):
    """Least squares on all factors' scores gives F back, and the residual variance."""
    truth, subjects = _truth(study), _complete(study)
    index = tuple(truth["geometry/index"].T)
    images = np.stack(
        [
            np.asarray(nibabel.load(study / f"images/{name}.nii.gz").dataobj)[index]
            for name in subjects
        ]
    )
    table = pd.read_csv(study / "covariates.tsv", sep="\t", dtype={"subject": str})
    table = table.set_index("subject").loc[subjects]
    dosages = _causal_dosages(study, truth, subjects)
    scores = dosages.T @ truth["causal/effect"]
    design = np.column_stack(
        [
            np.ones(len(subjects)), scores, table["age"], table["sex"], table["head_size"] / 1e6,
            table["site"] == "B", table["site"] == "C",
        ]
    ).astype(float)  # fmt: skip
    coefficient, *_ = np.linalg.lstsq(design, images, rcond=None)
    F = truth["genetic_covariance_factor"]
    fitted = coefficient[1 : 1 + F.shape[1]].T
    residual = images - design @ coefficient
    degrees = len(subjects) - design.shape[1]
    variance = np.sum(residual**2, axis=0) / degrees
    expected = np.sum(truth["residual_covariance_factor"] ** 2, axis=1) + truth["noise_variance"]
    assert variance.mean() == pytest.approx(expected.mean(), rel=0.06)
    assert np.corrcoef(variance, expected)[0, 1] > 0.8
    # Each coefficient's error has this variance, about; their mean square says so.
    inverse = np.linalg.inv(design.T @ design)
    error = np.sqrt(expected[:, None] * np.diag(inverse)[None, 1 : 1 + F.shape[1]])
    assert np.mean(((fitted - F) / error) ** 2) == pytest.approx(1, abs=0.35)


def test_study__planted_effect_is_recovered_without_noise(study):
    truth, subjects = _truth(study), _complete(study)
    F, effect = truth["genetic_covariance_factor"], truth["causal/effect"]
    dosages = _causal_dosages(study, truth, subjects)
    values = F @ effect.T @ dosages
    centred = dosages - dosages.mean(axis=1, keepdims=True)
    together = values @ np.linalg.pinv(centred)  # one least squares on all causal variants
    planted = np.flatnonzero(truth["causal/planted"])
    assert len(planted) == 4
    np.testing.assert_allclose(together[:, planted], F @ effect[planted].T, atol=1e-8)
    local = np.abs(F @ effect[planted].T)
    assert np.all(np.median(local, axis=0) < 0.2 * local.max(axis=0))


def test_study__people_are_disjoint_and_the_flow_is_not_trivial(study):
    with open_genotypes(study / "genotypes/chr1.pgen") as genotypes:
        genotyped = set(genotypes.subject)
    panels = [
        set(pd.read_csv(study / f"ld_panel_{panel}/chr1.psam", sep="\t")["#IID"])
        for panel in (1, 2)
    ]
    assert not panels[0] & panels[1]
    assert not genotyped & (panels[0] | panels[1])
    imaged = set(pd.read_csv(study / "images.csv")["subject"])
    table = pd.read_csv(study / "covariates.tsv", sep="\t")
    assert imaged - genotyped
    assert genotyped - imaged
    assert (imaged & genotyped) - set(table["subject"])
    assert table.isna().any(axis=1).any()
    with formats.open_file(study / "truth.h5", "truth") as envelope:
        assert envelope.attributes["n"] == len(_complete(study)) < len(imaged)


def test_study__heritability_varies_and_loci_are_strong(study):
    truth = _truth(study)
    F, E = truth["genetic_covariance_factor"], truth["residual_covariance_factor"]
    noise = truth["noise_variance"]
    B = simulate.denoised_bases(np.hstack([F, E]), 0.0)
    assert simulate.denoised_heritability(B, F, E, noise).std() > 0.12
    variance = simulate.denoised_variance(B, F, E, noise)
    planted = truth["causal/planted"] == 1
    scaled = (
        truth["causal/effect"][planted] * np.sqrt(truth["causal/dosage_variance"][planted])[:, None]
    )
    strength = np.abs(simulate.noncentrality(B, F @ scaled.T, variance, 290)).max(axis=0)
    assert np.sum(simulate.power(strength, 6.5) > 0.95) >= 2


def test_study__a_chromosome_without_causal_variants(study):
    """One of three chromosomes is free of them, and the study's description names it."""
    truth = _truth(study)
    free = sorted({1, 2, 3} - set(truth["causal/chromosome"].tolist()))
    assert len(free) == 1
    assert len(truth["causal/chromosome"]) == 124
    text = " ".join((study / "README.txt").read_text().split())
    assert f"without any causal variant, where every locus found is false: {free[0]}." in text


def test_study__same_seed_same_bytes_whatever_the_threads(study, tmp_path):
    for seed, name in ((SEED, "again"), (SEED + 1, "other")):
        result = helpers.run_stage(
            "simulate", "--preset", "small", "--seed", seed, "--out", tmp_path / name,
            "--threads", 2,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    again, other = tmp_path / "again", tmp_path / "other"
    names = helpers.files_in(study)
    assert helpers.files_in(again) == names
    for name in sorted(names - {"study.yml"}):
        assert (again / name).read_bytes() == (study / name).read_bytes(), name
    for name in ("genotypes/chr1.pgen", "images/sub-00100.nii.gz", "traits/simulated_trait.tsv"):
        if (study / name).exists() and (other / name).exists():
            assert (other / name).read_bytes() != (study / name).read_bytes(), name


def test_study__trait_table_tells_effect_alleles(study):
    """A line that counts the other allele has the frequency of that allele."""
    table = pd.read_csv(study / "traits/simulated_trait.tsv", sep="\t", dtype={"chromosome": str})
    with open_genotypes(study / "genotypes/chr1.pgen") as genotypes:
        variants = genotypes.variants.set_index("variant_id")
        frequency = (
            np.nanmean(
                genotypes.dosages(
                    np.arange(genotypes.n_variants), np.arange(len(genotypes.subject))
                ),
                axis=1,
            )
            / 2
        )
    variants["frequency"] = frequency
    joined = table[table["chromosome"] == "1"].join(variants.add_suffix("_study"), on="rsid")
    flipped = joined["effect_allele"] != joined["effect_allele_study"]
    assert 0.4 < flipped.mean() < 0.6
    assert (joined["effect_allele"][flipped] == joined["other_allele_study"][flipped]).all()
    expected = np.where(flipped, 1 - joined["frequency_study"], joined["frequency_study"])
    assert np.abs(joined["effect_allele_frequency"] - expected).max() < 0.12
    assert 0.9 < len(joined) / len(variants) < 1


def test_study__plink2_reads_the_genotypes(study, tmp_path):
    plink2 = shutil.which("plink2")
    if plink2 is None:
        pytest.skip("plink2 is not on PATH")
    for chromosome, dosages, missing in ((1, False, 0.0), (2, True, 0.0), (3, False, 0.01)):
        out = tmp_path / f"chr{chromosome}"
        subprocess.run(
            [plink2, "--pfile", study / f"genotypes/chr{chromosome}", "--freq", "--missing",
             "vcols=+fmissdosage", "--out", out],
            check=True, capture_output=True,
        )  # fmt: skip
        frequency = pd.read_csv(f"{out}.afreq", sep="\t")
        rate = pd.read_csv(f"{out}.vmiss", sep="\t")["F_MISS_DOSAGE"]
        with open_genotypes(study / f"genotypes/chr{chromosome}.pgen") as genotypes:
            assert genotypes.has_dosages is dosages
            values = genotypes.dosages(
                np.arange(genotypes.n_variants), np.arange(len(genotypes.subject))
            )
            assert list(frequency["ID"]) == list(genotypes.variants["variant_id"])
            assert list(frequency["ALT"]) == list(genotypes.variants["effect_allele"])
        np.testing.assert_allclose(
            frequency["ALT_FREQS"], np.nanmean(values, axis=1) / 2, rtol=1e-4, atol=1e-6
        )
        assert rate.mean() == pytest.approx(missing, abs=0.002)
        assert "error" not in Path(f"{out}.log").read_text().lower()


def test_study__regions_and_mask_share_the_grid(study):
    mask = nibabel.load(study / "mask.nii.gz")
    regions = nibabel.load(study / "regions.nii.gz")
    inside = np.asarray(mask.dataobj) > 0
    assert inside.sum() <= 500
    labels = np.asarray(regions.dataobj)
    assert sorted(np.unique(labels)) == list(range(7))
    np.testing.assert_array_equal(labels > 0, inside)
    name = pd.read_csv(study / "images.csv")["image"][0]
    np.testing.assert_array_equal(nibabel.load(study / name).affine, mask.affine)
    with gzip.open(study / name) as handle:
        assert len(handle.read()) == 352 + inside.size * 4
