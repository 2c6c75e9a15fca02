"""Which variants are tested: maths on counts of genotypes; arrays in, arrays out."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from rvga.packed import compiled

(
    ESTIMATED,
    ALL_MISSING,
    MONOMORPHIC,
    COLLINEAR,
    NOT_KEPT,
    REMOVED,
    ABOVE_MISSING,
    BELOW_COUNT,
    BELOW_FREQUENCY,
    BELOW_INFO,
    BELOW_HARDY_WEINBERG,
    FEW_CARRIERS,
) = range(12)
# Nothing can be estimated, and nobody's genotype shows: the variant gets a row without estimate.
MISSING_ROWS = {
    ALL_MISSING: "all_missing",
    MONOMORPHIC: "monomorphic",
    COLLINEAR: "collinear",
}
DROPPED = {
    NOT_KEPT: "not_kept",
    REMOVED: "removed",
    ABOVE_MISSING: "above_maximum_missing_rate",
    BELOW_COUNT: "below_minor_allele_count",
    BELOW_FREQUENCY: "below_minor_allele_frequency",
    BELOW_INFO: "below_minimum_info",
    BELOW_HARDY_WEINBERG: "below_hardy_weinberg_p",
    FEW_CARRIERS: "few_carriers",
}
# The largest share of a variant's variation that one person may have: the correlation of the
# effect with that person's image is about its square root.
LARGEST_SHARE = 0.2
# The square of two copies: with so many alleles, one person with two has no more than 4 / count.
_TWO_COPIES = 4.0


@dataclass(frozen=True)
class Filters:
    """Bounds that a variant must keep; the defaults keep every variant.

    Attributes
    ----------
    minor_allele_frequency, minor_allele_count : float
        Least of either.
    minimum_info : float
        Least imputation quality.
    maximum_missing_rate : float
        Largest share of people without a genotype.
    hardy_weinberg_p : float
        Least p of the exact test.
    """

    minor_allele_frequency: float = 0.0
    minor_allele_count: float = 0.0
    minimum_info: float = 0.0
    maximum_missing_rate: float = 1.0
    hardy_weinberg_p: float = 0.0

    @property
    def largest_share(self) -> float:
        """Largest share of the sum of squares that one person may have; 1 without a count.

        No more than a fifth, and for high counts 4 / count: calls with that many minor alleles
        keep it unless nearly everybody is heterozygous.
        """
        if self.minor_allele_count <= 0:
            return 1.0
        return min(LARGEST_SHARE, _TWO_COPIES / self.minor_allele_count)

    def may_have_few_carriers(self, variation: np.ndarray) -> np.ndarray:
        """Return whether one person could have too large a share of the variation, (m,) bool.

        No dosage is further than two copies from the mean.
        """
        return variation * self.largest_share < _TWO_COPIES

    def as_parameters(self) -> dict[str, float]:
        """Return the bounds by name."""
        return asdict(self)


def screen(
    filters: Filters,
    *,
    called: np.ndarray,
    variation: np.ndarray,
    alleles: np.ndarray,
    chromosomes: np.ndarray,
    missing_rate: np.ndarray,
    info: np.ndarray,
    hardy_weinberg: np.ndarray,
) -> np.ndarray:
    """Return each variant's status, (m,) int8: ``ESTIMATED`` or why not.

    A variant with several reasons gets the first of: no genotype at all, no variation, share of
    missing genotypes, minor allele count, minor allele frequency, imputation quality,
    Hardy-Weinberg.

    Parameters
    ----------
    called : (m,)
        People with a genotype.
    variation : (m,)
        Sum of squares of the dosages about their mean.
    alleles, chromosomes : (m,)
        Effect alleles, and chromosomes that may carry them, among the called.
    missing_rate, info, hardy_weinberg : (m,)
        As in :class:`Filters`; NaN is not judged.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        frequency = alleles / chromosomes
    count = np.minimum(alleles, chromosomes - alleles)
    frequency = np.minimum(frequency, 1 - frequency)
    status = np.full(len(called), ESTIMATED, dtype=np.int8)
    status[hardy_weinberg < filters.hardy_weinberg_p] = BELOW_HARDY_WEINBERG
    status[info < filters.minimum_info] = BELOW_INFO
    # A count is a sum of as many dosages as people: rounding must not decide at the bound.
    status[frequency < filters.minor_allele_frequency * (1 - 1e-9)] = BELOW_FREQUENCY
    status[count < filters.minor_allele_count - 1e-6] = BELOW_COUNT
    status[missing_rate > filters.maximum_missing_rate + 1e-12] = ABOVE_MISSING
    status[~(variation > 1e-9 * called)] = MONOMORPHIC
    status[called == 0] = ALL_MISSING
    return status


def mach_r2(
    called: np.ndarray, variation: np.ndarray, frequency: np.ndarray, expected_factor: np.ndarray
) -> np.ndarray:
    """Return the variance of the dosages over that of genotypes in equilibrium (MACH's r²).

    Parameters
    ----------
    called, variation : (m,)
        People with a dosage, and their sum of squares about the mean.
    frequency : (m,)
        Effect-allele frequency.
    expected_factor : (m,)
        Mean variance of a genotype in units of p(1 - p): 2 where all have two chromosomes.

    Returns
    -------
    (m,) float64
        NaN for a variant without variation.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = called * expected_factor * frequency * (1 - frequency)
        return np.where(expected > 0, variation / expected, np.nan)


def hardy_weinberg_p(number: np.ndarray) -> np.ndarray:
    """Return the exact p of Hardy-Weinberg equilibrium (Wigginton, Cutler and Abecasis 2005).

    The sum of the probabilities, given the alleles' counts, of all numbers of heterozygotes that
    are not more probable than the one seen.

    Parameters
    ----------
    number : (m, 3) int
        People with 0, 1 and 2 copies.

    Returns
    -------
    (m,) float64
        1 for a variant with one allele only.
    """
    out = np.empty(len(number))
    _hardy_weinberg(np.ascontiguousarray(number, dtype=np.int64), out)
    return out


@compiled
def _more_heterozygotes(heterozygotes, rare, common):
    """Return the probability of two more heterozygotes over that of this number.

    ``rare`` and ``common`` are the homozygotes.
    """
    return 4.0 * rare * common / ((heterozygotes + 2.0) * (heterozygotes + 1.0))


@compiled
def _hardy_weinberg(number, out):
    for row in range(number.shape[0]):
        seen = number[row, 1]
        rare_alleles = 2 * min(number[row, 0], number[row, 2]) + seen
        people = number[row, 0] + seen + number[row, 2]
        if rare_alleles == 0 or people == 0:
            out[row] = 1.0
            continue
        # Start near the most probable number, of the parity that the allele count asks for.
        middle = rare_alleles * (2 * people - rare_alleles) // (2 * people)
        if (middle ^ rare_alleles) & 1:
            middle += 1
        middle = min(middle, rare_alleles)
        observed = 1.0
        at = middle
        while at < seen and observed > 0.0:
            rare = (rare_alleles - at) // 2
            observed *= _more_heterozygotes(float(at), float(rare), float(people - at - rare))
            at += 2
        while at > seen and observed > 0.0:
            at -= 2
            rare = (rare_alleles - at) // 2
            observed /= _more_heterozygotes(float(at), float(rare), float(people - at - rare))
        limit = observed * (1.0 + 1e-7)
        total, tail = 0.0, 0.0
        for upwards in (True, False):
            weight = 1.0
            at = middle
            if not upwards:
                at -= 2
                if at < 0:
                    continue
                rare = (rare_alleles - at) // 2
                weight /= _more_heterozygotes(float(at), float(rare), float(people - at - rare))
            while weight > 0.0:
                total += weight
                if weight <= limit:
                    tail += weight
                    if weight < 1e-18 * tail:
                        break
                rare = (rare_alleles - at) // 2
                if upwards:
                    if rare == 0:
                        break
                    weight *= _more_heterozygotes(float(at), float(rare), float(people - at - rare))
                    at += 2
                else:
                    at -= 2
                    if at < 0:
                        break
                    rare = (rare_alleles - at) // 2
                    weight /= _more_heterozygotes(float(at), float(rare), float(people - at - rare))
        out[row] = min(tail / total, 1.0)
