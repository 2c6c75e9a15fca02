"""Where the estimators were calibrated (docs/method.md), and what to say of a run beyond it."""

from __future__ import annotations

import numpy as np

# People of the smaller LD panel from which h² is promised to be right to 3 %; 500 were tried too.
FEWEST_IN_PANEL = 1000
# Below it h² leans more on where effects lie.
SMALL_SHARE = 0.95
# Largest share tried; above .99 the panel's noise takes over.
LARGEST_SHARE = 0.98
# Jackknife over closed form: 2.8 with 20 causal variants, at most 1.2 with 500 and more.
MOST_OVER_CLOSED_FORM = 1.5
# Groups of the jackknife below which its errors are uncertain themselves.
FEW_GROUPS = 50
# Standard errors that h² should be above 0, for ratios of it to be near normal.
FEWEST_ERRORS = 5.0


def beyond_panels(people: int, ld_share: float) -> list[str]:
    """Return what to say of an LD reference whose panels or share are outside of the calibration.

    Parameters
    ----------
    people : int
        Of the smaller panel.
    ld_share : float
        Share of each block's variance that M keeps.
    """
    found = []
    if people < FEWEST_IN_PANEL:
        found.append(
            f"the smaller LD panel has {people} people, and heritability was calibrated with "
            f"{FEWEST_IN_PANEL:,} or more: with fewer it may come out too high; use larger panels"
        )
    if ld_share > LARGEST_SHARE:
        found.append(
            f"ld_share is {ld_share:g}, and {LARGEST_SHARE:g} is the largest that was calibrated: "
            "the noise of the LD panels in the smallest eigenvalues makes heritability too high"
        )
    elif ld_share < SMALL_SHARE:
        found.append(
            f"ld_share is {ld_share:g}: below {SMALL_SHARE:g} heritability leans more on where "
            "effects lie (with .6 and effects in low-LD variants it came out 12 % too low, by "
            "moments 30 %); use .95 to .98"
        )
    return found


def jackknife_excess(jackknife: np.ndarray, closed_form: np.ndarray) -> float:
    """Return the median of the jackknife's standard errors over those of the closed form, or NaN.

    Parameters
    ----------
    jackknife, closed_form : (N,)
        Of the same estimates.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(jackknife, dtype=float) / np.asarray(closed_form, dtype=float)
    ratio = ratio[np.isfinite(ratio)]
    return float(np.median(ratio)) if len(ratio) else float("nan")


def few_causal(excess: float, groups: int) -> list[str]:
    """Return what to say where few variants seem to be causal, by :func:`jackknife_excess`.

    Nothing with fewer than 50 groups, whose jackknife is too rough.
    """
    if groups < FEW_GROUPS or not excess > MOST_OVER_CLOSED_FORM:
        return []
    return [
        f"the jackknife's standard errors of heritability are {excess:.1f} times those of the "
        f"closed form (at most {MOST_OVER_CLOSED_FORM:g} is usual): few variants may carry most "
        "effects, with which the jackknife is too long, also for traits whose GWAS may share "
        "people with the study; prefer --se-method closed_form"
    ]


def weak_trait(trait: str, h2: float, error: float) -> list[str]:
    """Return what to say where a trait's heritability is known too poorly for a ratio of it."""
    if not (error > 0 and h2 / error < FEWEST_ERRORS):
        return []
    return [
        f"the heritability of {trait} is {h2 / error:.2f} of its standard errors: below "
        f"{FEWEST_ERRORS:g} genetic correlations are skewed, and their intervals uncertain"
    ]
