"""A run against the truth of its simulated study: estimands, power, found and false loci.

The estimand of a run is the denoised image S Bᵀ, so the truth is projected on the run's own
bases: genetic covariance of the components Bᵀ F Fᵀ B, phenotypic covariance
Bᵀ(F Fᵀ + E Eᵀ + diag(noise))B. The truth of the raw voxels stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from rvga.chromosomes import CHROMOSOMES
from rvga.errors import InputError
from rvga.formats import Envelope
from rvga.significance import normal_to_t

NEAR_BASES = 500_000
GOOD_POWER = 0.95
GOAL_CORRELATION = 0.8
LEAST_FALLIBLE = 0.25
MOST_SAMPLED_VOXELS = 200


@dataclass(frozen=True)
class Truth:
    """What a study was simulated from, at the voxels of the run.

    Attributes
    ----------
    genetic_factor : (N, f)
        F; the genetic covariance of raw voxels is F Fᵀ.
    residual_factor : (N, e)
        E; the smooth residual covariance is E Eᵀ.
    noise_variance : (N,)
        White noise, by voxel.
    causal : DataFrame
        ``chromosome`` (text), ``base_pair_location``, ``variant_id``, ``planted`` (bool);
        a row a causal variant (l).
    effect : (l, f)
        Effect of a dosage on each genetic factor.
    trait_covariance : (f,)
        Genetic covariance of each genetic factor with the external trait.
    trait_heritability : float
        Of the external trait, whose variance is 1.
    """

    genetic_factor: np.ndarray
    residual_factor: np.ndarray
    noise_variance: np.ndarray
    causal: pd.DataFrame
    effect: np.ndarray
    trait_covariance: np.ndarray
    trait_heritability: float


@dataclass(frozen=True)
class Projected:
    """Truth of the denoised image, in terms of the components.

    Attributes
    ----------
    genetic, phenotypic : (r, r)
        Covariances of the components.
    trait : (r,)
        Genetic covariance of the components with the external trait.
    effect : (l, r)
        Effect of a dosage of each causal variant on the components.
    """

    genetic: np.ndarray
    phenotypic: np.ndarray
    trait: np.ndarray
    effect: np.ndarray


def read_truth(file: Envelope, index: np.ndarray) -> Truth:
    """Return the truth of the voxels with grid indices ``index`` (N, 3), in their order.

    Raises
    ------
    InputError
        A voxel of the run is not in the truth.
    """
    rows = match_voxels(file["geometry/index"][...], index)
    causal = pd.DataFrame(
        {
            "chromosome": [CHROMOSOMES[code - 1] for code in file["causal/chromosome"][...]],
            "base_pair_location": file["causal/base_pair_location"][...].astype(np.int64),
            "variant_id": file.array("causal/variant_id"),
            "planted": file["causal/planted"][...] == 1,
        }
    )
    return Truth(
        genetic_factor=file["genetic_covariance_factor"][...][rows],
        residual_factor=file["residual_covariance_factor"][...][rows],
        noise_variance=file["noise_variance"][...][rows],
        causal=causal,
        effect=file["causal/effect"][...],
        trait_covariance=file["trait_covariance"][...],
        trait_heritability=float(file.attributes["trait_heritability"]),
    )


def match_voxels(truth_index: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the truth's row of each voxel of the run, by grid indices (k, 3) and (N, 3).

    Raises
    ------
    InputError
        A voxel of the run is not in the truth.
    """
    rows = {tuple(place): row for row, place in enumerate(truth_index.tolist())}
    found = [rows.get(tuple(place), -1) for place in index.tolist()]
    result = np.array(found, dtype=np.int64)
    if np.any(result < 0):
        first = index[np.flatnonzero(result < 0)[0]].tolist()
        raise InputError(
            f"the truth file lacks the voxel with grid indices {first}: it is of another "
            "simulated study; give the truth.h5 that was written with these images"
        )
    return result


def project(truth: Truth, bases: np.ndarray) -> Projected:
    """Project the truth on bases (N, r): covariances of the components S = X B."""
    loadings = bases.T @ truth.genetic_factor
    residual = bases.T @ truth.residual_factor
    genetic = loadings @ loadings.T
    noise = (bases * truth.noise_variance[:, None]).T @ bases
    return Projected(
        genetic=genetic,
        phenotypic=genetic + residual @ residual.T + noise,
        trait=loadings @ truth.trait_covariance,
        effect=truth.effect @ loadings.T,
    )


def raw_heritability(truth: Truth) -> np.ndarray:
    """Return the heritability of the raw voxels, (N,)."""
    genetic = np.sum(truth.genetic_factor**2, axis=1)
    residual = np.sum(truth.residual_factor**2, axis=1) + truth.noise_variance
    return _ratio(genetic, genetic + residual)


def denoised_heritability(projected: Projected, rows: np.ndarray) -> np.ndarray:
    """Return b'Gb / b'Pb for each row b of ``rows`` (k, r): voxels, or means of regions."""
    return _ratio(
        np.einsum("vr,vr->v", rows @ projected.genetic, rows),
        np.einsum("vr,vr->v", rows @ projected.phenotypic, rows),
    )


def correlation_of(covariance: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the correlation (k, k) of ``rows`` (k, r) by a covariance (r, r).

    NaN where a variance is not above 0, as estimated covariances may have it.
    """
    product = rows @ covariance @ rows.T
    variance = np.diag(product)
    scale = np.sqrt(np.where(variance > 0, variance, np.nan))
    return product / np.outer(scale, scale)


def cross_trait_correlation(
    projected: Projected, rows: np.ndarray, trait_heritability: float
) -> np.ndarray:
    """Return the genetic correlation of each row with the external trait, (k,)."""
    variance = np.einsum("vr,vr->v", rows @ projected.genetic, rows)
    return _ratio(rows @ projected.trait, np.sqrt(variance * trait_heritability))


def noncentrality(
    effect: np.ndarray, a: np.ndarray, rows: np.ndarray, variance: np.ndarray, nu: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest non-centrality of each variant over the image, and its voxel.

    Parameters
    ----------
    effect : (l, r)
        True effects on the components.
    a : (l,)
        g'Pg in the sample; NaN for a variant that is not in the dataset.
    rows : (N, r)
        Bases.
    variance : (N,)
        Residual sum of squares V_v = b'Ab.
    nu : float
        Degrees of freedom.

    Returns
    -------
    ncp : (l,)
        β_v √a / √(V_v/ν) in size at the voxel where it is largest; NaN where ``a`` is.
    voxel : (l,) int
    """
    ncp, voxel = np.full(len(a), np.nan), np.zeros(len(a), dtype=np.int64)
    scale = np.sqrt(nu / np.where(variance > 0, variance, np.inf))
    for number in np.flatnonzero(np.isfinite(a)):
        size = np.abs(rows @ effect[number]) * scale * np.sqrt(a[number])
        voxel[number] = int(np.argmax(size))
        ncp[number] = size[voxel[number]]
    return ncp, voxel


def power(ncp: np.ndarray, critical_z: float, nu: float) -> np.ndarray:
    """Return the probability that |t| exceeds the critical value, (l,).

    The critical value (normal scale) is brought to the t distribution; the non-central t is
    taken as normal with mean ncp and variance 1 + ncp²/(2ν), which is good for ν above 100.
    A variant counts by one voxel only, so the image-wide power is no less.
    """
    critical = normal_to_t(critical_z, nu)
    spread = np.sqrt(1.0 + ncp**2 / (2.0 * nu))
    return special.ndtr((ncp - critical) / spread) + special.ndtr((-critical - ncp) / spread)


def distance_to_causal(
    chromosome: np.ndarray, position: np.ndarray, causal: pd.DataFrame
) -> np.ndarray:
    """Return the distance in bases from each place to the nearest causal variant, (k,).

    Infinite on a chromosome without one.
    """
    distance = np.full(len(position), np.inf)
    for name in dict.fromkeys(chromosome.tolist()):
        rows = np.flatnonzero(chromosome == name)
        places = np.sort(causal.loc[causal["chromosome"] == name, "base_pair_location"].to_numpy())
        if not len(places):
            continue
        where = position[rows]
        after = np.searchsorted(places, where)
        ahead = np.abs(places[np.minimum(after, len(places) - 1)] - where)
        behind = np.abs(places[np.maximum(after - 1, 0)] - where)
        distance[rows] = np.minimum(ahead, behind)
    return distance


def locus_around(chromosome: str, position: int, loci: pd.DataFrame) -> int | None:
    """Return the number of the locus whose bounds hold a position, or None."""
    inside = loci[
        (loci["chromosome"] == chromosome) & (loci["start"] <= position) & (loci["end"] >= position)
    ]
    return int(inside["locus"].iloc[0]) if len(inside) else None


def truth_loci(
    truth: Truth, probability: np.ndarray, significant: np.ndarray, loci: pd.DataFrame
) -> pd.DataFrame:
    """Return the table of planted loci: power, found or not, and the locus.

    A planted variant is found when it is significant itself and lies in a locus: a locus nearby
    may be due to another causal variant.

    Parameters
    ----------
    probability : (l,)
        Power of every causal variant, NaN where it was not tested.
    significant : (l,) bool
        Whether the variant itself is beyond the critical value at some voxel.
    """
    planted = truth.causal["planted"].to_numpy()
    frame = truth.causal.loc[planted, ["variant_id", "chromosome", "base_pair_location"]].copy()
    frame["power"] = probability[planted]
    numbers = [
        locus_around(chromosome, position, loci) if own else None
        for chromosome, position, own in zip(
            frame["chromosome"], frame["base_pair_location"], significant[planted], strict=True
        )
    ]
    frame["found"] = ["no" if number is None else "yes" for number in numbers]
    frame["locus"] = pd.array(numbers, dtype="Int64")
    return frame.reset_index(drop=True)


@dataclass(frozen=True)
class Agreement:
    """Estimates against the truth over some units.

    Attributes
    ----------
    truth, estimate : (k,)
        NaN where there is none.
    standard_error : (k,) or None
    """

    truth: np.ndarray
    estimate: np.ndarray
    standard_error: np.ndarray | None = None

    @property
    def used(self) -> np.ndarray:
        """Units that have both, (k,) bool."""
        return np.isfinite(self.truth) & np.isfinite(self.estimate)

    @property
    def correlation(self) -> float:
        """Pearson correlation; NaN for fewer than 3 units or a constant."""
        x, y = self.truth[self.used], self.estimate[self.used]
        if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
            return float("nan")
        return float(np.corrcoef(x, y)[0, 1])

    @property
    def mean_difference(self) -> float:
        """Mean of estimate − truth."""
        return float(np.mean((self.estimate - self.truth)[self.used])) if any(self.used) else np.nan

    @property
    def root_mean_square(self) -> float:
        """Root mean square of estimate − truth."""
        difference = (self.estimate - self.truth)[self.used]
        return float(np.sqrt(np.mean(difference**2))) if len(difference) else float("nan")

    @property
    def coverage(self) -> float:
        """Share of 95 % intervals (estimate ± 1.96 SE) that hold the truth."""
        if self.standard_error is None:
            return float("nan")
        valid = self.used & np.isfinite(self.standard_error)
        if not np.any(valid):
            return float("nan")
        away = np.abs(self.estimate - self.truth)[valid]
        return float(np.mean(away <= 1.96 * self.standard_error[valid]))


class Comparison:
    """The table ``truth_comparison``, filled row by row."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str, str]] = []

    def add(
        self, quantity: str, value: float | int | str, goal: str = "NA", reached: bool | None = None
    ) -> None:
        """Add a row; ``reached`` of None is NA."""
        if isinstance(value, float):
            # Adding 0 turns a rounded −0 into 0.
            value = f"{round(value, 3) + 0.0:.3f}" if np.isfinite(value) else "NA"
        verdict = "NA" if reached is None else ("yes" if reached else "no")
        self._rows.append((quantity, str(value), goal, verdict))

    def add_loci(
        self,
        planted: pd.DataFrame,
        loci: pd.DataFrame,
        causal: pd.DataFrame,
        variants: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Add what became of planted loci, and which loci found are false.

        A locus is false when its lead has no causal variant within 500 kb. Linkage disequilibrium
        is not looked at: it could only excuse more loci. ``variants`` are chromosomes and
        positions of all variants tested: where less than a quarter lie that far from every causal
        variant, that no locus is false shows little, and the goal counts as not known.
        """
        found = planted["found"] == "yes"
        strong = planted["power"] >= GOOD_POWER
        untested = int(planted["power"].isna().sum())
        self.add("planted loci", len(planted))
        if untested:
            self.add("planted variants that are not in the dataset", untested)
        hits = int((found & strong).sum())
        self.add(
            f"planted loci with power ≥ {GOOD_POWER:g} that were found",
            f"{hits} of {int(strong.sum())}",
            "all",
            hits == int(strong.sum()) if strong.any() else None,
        )
        self.add(
            "planted loci found, whatever their power", f"{int(found.sum())} of {len(planted)}"
        )
        self.add("expected number found (sum of powers)", float(planted["power"].sum()))
        self.add("loci found", len(loci))
        leads = (loci["chromosome"].to_numpy(object), loci["base_pair_location"].to_numpy())
        away = distance_to_causal(*leads, causal)
        any_variant = distance_to_causal(*variants, causal)
        fallible = float(np.mean(any_variant > NEAR_BASES)) if len(any_variant) else 0.0
        false = int(np.sum(away > NEAR_BASES))
        telling = bool(false) or fallible >= LEAST_FALLIBLE
        self.add(
            "loci without a causal variant within 500 kb",
            false,
            "0",
            not false if telling else None,
        )
        self.add("share of all variants without a causal variant within 500 kb", fallible)
        background = distance_to_causal(*leads, causal[causal["planted"]])
        self.add(
            "loci without a planted variant within 500 kb", int(np.sum(background > NEAR_BASES))
        )
        for what, distance in (("leads", away), ("all variants", any_variant)):
            if len(distance):
                self.add(
                    f"median distance of {what} to a causal variant (kb)",
                    float(np.median(distance)) / 1000,
                )

    def add_agreement(
        self, what: str, agreement: Agreement, *, goal: float | None = None, unit: str = "voxels"
    ) -> None:
        """Add number, correlation, mean difference, root mean square and coverage."""
        correlation = agreement.correlation
        self.add(f"{what}: {unit} compared", int(agreement.used.sum()))
        self.add(
            f"{what}: correlation with the truth",
            correlation,
            "NA" if goal is None else f"≥ {goal:g}",
            None if goal is None or not np.isfinite(correlation) else correlation >= goal,
        )
        self.add(f"{what}: mean difference from the truth", agreement.mean_difference)
        self.add(f"{what}: root mean square difference", agreement.root_mean_square)
        if agreement.standard_error is not None:
            self.add(f"{what}: share of 95 % intervals that cover", agreement.coverage)

    def table(self) -> pd.DataFrame:
        """Return the table."""
        return pd.DataFrame(self._rows, columns=["quantity", "value", "goal", "reached"])


def sampled_voxels(number_of_voxels: int, most: int = MOST_SAMPLED_VOXELS) -> np.ndarray:
    """Return up to ``most`` voxels, evenly spread over the order of the mask."""
    number = min(number_of_voxels, most)
    return np.unique(np.round(np.linspace(0, number_of_voxels - 1, number)).astype(np.int64))


def pairs_of(matrix: np.ndarray) -> np.ndarray:
    """Return the entries below the diagonal of a symmetric matrix."""
    return matrix[np.tril_indices(len(matrix), -1)]


def within_range(correlation: np.ndarray) -> np.ndarray:
    """Return correlations with those beyond −1 to 1 missing, as maps and tables show them.

    What is beyond by rounding only is 1.
    """
    return np.where(np.abs(correlation) <= 1.0 + 1e-9, np.clip(correlation, -1.0, 1.0), np.nan)


def heritability_agreements(
    truth: Truth, projected: Projected, bases: np.ndarray, heritability: pd.DataFrame
) -> dict[str, Agreement]:
    """Return estimated h² of the voxels against the truth, denoised and raw."""
    estimate = heritability["heritability_raw"].to_numpy(dtype=float)
    error = heritability["standard_error_raw"].to_numpy(dtype=float)
    denoised = denoised_heritability(projected, bases)
    return {
        "h² of the denoised image": Agreement(denoised, estimate, error),
        "h² of raw voxels": Agreement(raw_heritability(truth), estimate),
    }


def region_agreements(
    projected: Projected,
    region: np.ndarray,
    rows: np.ndarray,
    regions: pd.DataFrame,
    pairs: pd.DataFrame | None,
) -> dict[str, Agreement]:
    """Return estimates of regions (mean images) and of their pairs against the truth.

    Parameters
    ----------
    region : (k,) of str
        Labels.
    rows : (k, r)
        Mean basis row of each.
    regions, pairs : DataFrame
        Tables ``regions`` and ``genetic_correlation``; rows with unknown labels are left out.
    """
    place = {label: number for number, label in enumerate(region)}
    known = regions[regions["region"].isin(place)]
    order = known["region"].map(place).to_numpy(dtype=np.int64)
    result = {
        "h² of regions": Agreement(
            denoised_heritability(projected, rows)[order],
            known["heritability_raw"].to_numpy(dtype=float),
            known["standard_error_raw"].to_numpy(dtype=float),
        )
    }
    if pairs is not None:
        different = pairs[
            pairs["region_1"].isin(place)
            & pairs["region_2"].isin(place)
            & (pairs["region_1"] != pairs["region_2"])
        ]
        true = correlation_of(projected.genetic, rows)
        one = different["region_1"].map(place).to_numpy(dtype=np.int64)
        two = different["region_2"].map(place).to_numpy(dtype=np.int64)
        result["genetic correlation of regions"] = Agreement(
            true[one, two],
            different["genetic_correlation_raw"].to_numpy(dtype=float),
            different["standard_error_raw"].to_numpy(dtype=float),
        )
    return result


def voxel_pair_agreement(projected: Projected, Gamma: np.ndarray, bases: np.ndarray) -> Agreement:
    """Return estimated against true genetic correlation of pairs of sampled voxels."""
    rows = bases[sampled_voxels(len(bases))]
    return Agreement(
        pairs_of(correlation_of(projected.genetic, rows)),
        within_range(pairs_of(correlation_of(Gamma, rows))),
    )


def cross_trait_agreement(
    truth: Truth, projected: Projected, bases: np.ndarray, table: pd.DataFrame
) -> Agreement:
    """Return estimated against true genetic correlation of the voxels with the trait."""
    return Agreement(
        cross_trait_correlation(projected, bases, truth.trait_heritability),
        table["genetic_correlation_raw"].to_numpy(dtype=float),
        table["standard_error_raw"].to_numpy(dtype=float),
    )


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), np.nan)
