"""The one sample of a study: ids with data, covariates and genotypes, and the user's lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rvga import samples
from rvga.covariates import CovariateTable
from rvga.errors import InputError


@dataclass(frozen=True)
class Source:
    """Where the subjects come from: a word for tables, one for messages, a step and its reason."""

    name: str
    whose: str
    step: str
    reason: str


@dataclass(frozen=True)
class Lists:
    """Files that the sample is cut down by.

    Attributes
    ----------
    genotypes : sequence of path
        ``.psam`` or ``.fam`` files; the sample is in every one.
    keep, remove : path, optional
    subject_id : {"IID", "FID_IID"}
    step_by_file : bool
        Whether each genotype file is a step of the flow.
    """

    genotypes: Sequence[Path]
    keep: Path | None
    remove: Path | None
    subject_id: str
    step_by_file: bool = False


def select_sample(
    subjects: Sequence[str],
    source: Source,
    covariates: CovariateTable,
    lists: Lists,
    complete: tuple[Iterable[str], str, str] | None = None,
) -> tuple[samples.Sample, list[dict[str, object]], list[str]]:
    """Return the sample, the distinct match reports, and what to warn of.

    Parameters
    ----------
    complete : (subjects, step, reason), optional
        Those whose own data are whole, where that is a step of its own.

    Raises
    ------
    InputError
        Too few ids match, or too few subjects remain.
    """
    matches: list[dict[str, object]] = []

    def match(others: Sequence[str], name: str, what: str) -> None:
        samples.require_overlap(subjects, others, f"the {source.whose} subjects", name)
        found = samples.match_report(subjects, others, source.name, what)
        # The same genotyped people usually come in one file a chromosome.
        if found not in matches:
            matches.append(found)

    sample = samples.Sample.start(subjects, source.step, source.reason)
    if complete is not None:
        sample.keep(*complete)
    match(covariates.subject, f"the covariates {covariates.path.name}", "covariates")
    sample.keep(covariates.subject, "covariates", "are in the table of covariates")
    sample.keep(covariates.complete, "complete covariates", "have no missing covariate")
    genotyped = set(subjects)
    for path in lists.genotypes:
        ids = samples.read_samples(path, lists.subject_id)
        match(ids, f"the genotype samples {path.name}", "genotypes")
        genotyped &= set(ids)
        if lists.step_by_file:
            sample.keep(ids, f"genotypes {path.name}", "are in the genotype file")
    if lists.genotypes and not lists.step_by_file:
        sample.keep(genotyped, "genotypes", "are in every genotype file")
    unknown: list[str] = []
    if lists.keep:
        listed = samples.read_id_list(lists.keep, lists.subject_id)
        unknown += _unknown(listed, subjects, source, f"{lists.keep.name} (keep)")
        sample.keep(listed, "keep list", "are kept")
    if lists.remove:
        listed = samples.read_id_list(lists.remove, lists.subject_id)
        unknown += _unknown(listed, subjects, source, f"{lists.remove.name} (remove)")
        sample.remove(listed, "remove list", "are not on the list of those to remove")
    if len(sample.subjects) < samples.LEAST_SUBJECTS:
        steps = ", ".join(f"{step['step']} {step['n_out']}" for step in sample.flow)
        raise InputError(
            f"only {len(sample.subjects)} subjects remain ({steps}); at least "
            f"{samples.LEAST_SUBJECTS} are needed: check the lists, the ids and missing covariates"
        )
    return sample, matches, unknown


def _unknown(listed: set[str], subjects: Sequence[str], source: Source, name: str) -> list[str]:
    """Return a warning of listed ids that nobody has, by their number alone.

    Who withdrew consent stays in the sample where the list writes ids in another way.
    """
    unknown = listed - set(subjects)
    if not unknown:
        return []
    hint = samples.id_hint(subjects, unknown)
    return [
        f"{len(unknown)} of the {len(listed)} ids of the list {name} are not among the "
        f"{source.whose} subjects, so they have no effect; "
        f"{hint or 'check that the ids are written as there'}"
    ]
