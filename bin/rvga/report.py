"""The report: numbers, tables and pictures of a study as one HTML page that works offline.

A page is a list of sections, a section a list of blocks; the template knows blocks only, and
escapes all text. Every function ``*_section`` takes what its section shows and nothing else,
and says why when there is nothing to show.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from rvga import figures, map_figures
from rvga.calibrated import MOST_OVER_CLOSED_FORM
from rvga.chromosomes import RANK
from rvga.figures import Picture, Space
from rvga.map_figures import Canvas

DOI = "10.1038/s41467-026-69816-z"
MOST_LEAD_MAPS = 12
MOST_COMPONENT_MAPS = 6
MOST_TABLE_ROWS = 200
MOST_REGIONS = 60
MOST_FIRST_WARNINGS = 5
SLICES_OF_COMPONENTS = 4
FALSE_DISCOVERY_RATE = 0.05
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Shown in the appendix only when they are plain numbers or text; lists may hold subjects' ids, and
# so may groups of numbers other than these.
_SCALARS = (str, int, float, bool)
_GROUPS = (
    "agreement", "correlation_reasons", "coverage", "dropped", "filters", "haploid_heterozygotes",
    "kinship", "outliers", "reasons", "region_reasons",
)  # fmt: skip


# --- blocks -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Note:
    """A paragraph that says what was not run, or what to beware of."""

    text: str
    kind: str = "note"


@dataclass(frozen=True)
class Plot:
    """A picture and its caption; pictures of one :class:`Row` stand side by side."""

    picture: Picture
    caption: str
    kind: str = "plot"


@dataclass(frozen=True)
class Row:
    """Pictures side by side: three in a row, or two ``wide`` ones."""

    plots: Sequence[Plot]
    wide: bool = False
    kind: str = "row"


@dataclass(frozen=True)
class Table:
    """A table of text; ``numeric`` columns are set to the right and sorted as numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numeric: frozenset[int] = frozenset()
    kind: str = "table"


@dataclass(frozen=True)
class Facts:
    """Large numbers with what they are, and an optional remark."""

    facts: Sequence[tuple[str, str, str]]
    kind: str = "facts"


@dataclass(frozen=True)
class Flow:
    """Steps of the flow of subjects: (step, in, out, lost, reason, share that is left)."""

    steps: Sequence[tuple[str, str, str, str, str, float]]
    caption: str
    kind: str = "flow"


@dataclass(frozen=True)
class Items:
    """A list of lines."""

    items: Sequence[str]
    kind: str = "items"


@dataclass(frozen=True)
class Methods:
    """The methods paragraph, from its own template with these numbers."""

    values: Mapping[str, Any]
    kind: str = "methods"


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    id: str
    title: str
    blocks: Sequence[Any] = field(default_factory=list)


# --- numbers as text ------------------------------------------------------------------------


def count(value: Any) -> str:
    """Return a whole number with separated thousands; a dash for None or NaN."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)) or value is pd.NA:
        return "–"
    return f"{int(value):,}"


def decimal(value: Any, digits: int = 3) -> str:
    """Return a number with so many significant digits; a dash for None or NaN."""
    if value is None or value is pd.NA or not math.isfinite(float(value)):
        return "–"
    text = f"{float(value):.{digits}g}"
    if "e" not in text:
        return text.replace("-", "−")
    mantissa, exponent = text.split("e")
    return f"{mantissa}\u00a0×\u00a010{str(int(exponent)).translate(_SUPERSCRIPT)}".replace(
        "-", "−"
    )


def p_value(neg_log_10_p: Any) -> str:
    """Return p as text from −log10 p, however small it is."""
    if neg_log_10_p is None or not math.isfinite(float(neg_log_10_p)):
        return "–"
    if neg_log_10_p < 3:
        return f"{10.0 ** -float(neg_log_10_p):.3g}"
    exponent = math.floor(-float(neg_log_10_p))
    mantissa = 10.0 ** (-float(neg_log_10_p) - exponent)
    if f"{mantissa:.1f}" == "10.0":
        mantissa, exponent = 1.0, exponent + 1
    return f"{mantissa:.1f}\u00a0×\u00a010{str(exponent).translate(_SUPERSCRIPT)}"


def text_of(value: Any) -> str:
    """Return any scalar as text; a dash for what is missing."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return str(value)


# --- summaries of the stages ----------------------------------------------------------------


class Summaries:
    """The stages' summaries ``{stage, numbers, warnings}``, grouped by stage."""

    def __init__(self, summaries: Iterable[Mapping[str, Any]]):
        self._by_stage: dict[str, list[Mapping[str, Any]]] = {}
        for summary in sorted(summaries, key=lambda item: str(item["stage"])):
            self._by_stage.setdefault(summary["stage"], []).append(summary)

    def ran(self, stage: str) -> bool:
        """Tell whether the stage left a summary."""
        return stage in self._by_stage

    def all(self, stage: str) -> list[Mapping[str, Any]]:
        """Return the numbers of each task of a stage."""
        return [summary["numbers"] for summary in self._by_stage.get(stage, [])]

    def one(self, stage: str) -> Mapping[str, Any]:
        """Return the numbers of a stage of one task; empty when it did not run."""
        found = self.all(stage)
        return found[0] if found else {}

    def warnings(self) -> list[tuple[str, str, int]]:
        """Return (stage, warning, number of tasks that gave it), by stage."""
        counted: dict[tuple[str, str], int] = {}
        for stage, summaries in self._by_stage.items():
            for summary in summaries:
                for warning in summary["warnings"]:
                    counted[stage, warning] = counted.get((stage, warning), 0) + 1
        return [(stage, text, number) for (stage, text), number in counted.items()]

    def scalars(self) -> list[tuple[str, str, str]]:
        """Return (stage, name, value) of the plain numbers; of several tasks, their range."""
        rows = []
        for stage, summaries in self._by_stage.items():
            tasks = [_plain(summary["numbers"]) for summary in summaries]
            if len(tasks) > 1:
                rows.append((stage, "tasks", str(len(tasks))))
            for name in sorted(set().union(*tasks)):
                rows.append((stage, name, _range([task[name] for task in tasks if name in task])))
        return rows


def _plain(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain numbers of a summary, those of known groups as ``group.name``."""
    found = {}
    for name, value in numbers.items():
        if isinstance(value, _SCALARS) and value != "":
            found[name] = value
        elif name in _GROUPS and isinstance(value, Mapping):
            inside = ((key, entry) for key, entry in value.items() if isinstance(entry, _SCALARS))
            found |= {f"{name}.{key}": entry for key, entry in inside}
    return found


def _range(values: Sequence[Any]) -> str:
    """Return a value that all tasks have, the range of different numbers, else how many."""

    def text(value: Any) -> str:
        return decimal(value, 6) if isinstance(value, float) else str(value)

    different = list(dict.fromkeys(values))
    if len(different) == 1:
        return text(different[0])
    if any(isinstance(value, (str, bool)) for value in different):
        return f"{len(different)} different"
    whole = all(isinstance(value, int) for value in different)
    together = f"; together {sum(values)}" if whole else ""
    return f"{text(min(different))} to {text(max(different))}{together}"


# --- sections -------------------------------------------------------------------------------


def not_run(id: str, title: str, reason: str) -> Section:
    """Return a section that says why there is nothing in it."""
    return Section(id, title, [Note(f"Not run: {reason}.")])


def glance_section(
    facts: Sequence[tuple[str, str, str]], warnings: Sequence[tuple[str, str, int]]
) -> Section:
    """Return the study at a glance: (number, name, remark), and the first warnings."""
    blocks: list[Any] = [Facts(facts)]
    blocks += [Note(f"Warning: {line}") for line in _warning_lines(warnings[:MOST_FIRST_WARNINGS])]
    left = len(warnings) - MOST_FIRST_WARNINGS
    if left > 0:
        plural = "s" if left > 1 else ""
        blocks.append(Note(f"{left} more warning{plural}: see the section Warnings."))
    return Section("glance", "Study at a glance", blocks)


def _warning_lines(warnings: Sequence[tuple[str, str, int]]) -> list[str]:
    return [
        f"{stage}: {text}" + (f" ({number} tasks)" if number > 1 else "")
        for stage, text, number in warnings
    ]


def flow_section(
    flow: Sequence[Mapping[str, Any]],
    voxels: Mapping[str, Any],
    outliers: Mapping[str, Any] | None = None,
    batches: Sequence[Mapping[str, Any]] = (),
) -> Section:
    """Return the flow of subjects, from steps {step, n_in, n_out, reason}, and of voxels.

    ``voxels`` are the numbers of SELECT_SUBJECTS, ``outliers`` those of MAKE_LDRS, {n, threshold},
    ``batches`` those of each task of READ_IMAGES.
    """
    most = max((int(step["n_in"]) for step in flow), default=0) or 1
    steps = [
        (
            str(step["step"]),
            count(step["n_in"]),
            count(step["n_out"]),
            count(int(step["n_in"]) - int(step["n_out"])),
            str(step.get("reason") or ""),
            100.0 * int(step["n_out"]) / most,
        )
        for step in flow
    ]
    blocks: list[Any] = [
        Flow(
            steps,
            "Flow of subjects. One complete-case sample is fixed before the representation and "
            "used in every later step.",
        )
    ]
    if batches:
        blocks.append(Text(_images_read(batches)))
    if "n_voxels_mask" in voxels:
        dropped = [
            f"{count(voxels[key])} {why}"
            for key, why in (
                ("n_voxels_dropped_coverage", "with too few finite values"),
                ("n_voxels_dropped_constant", "without variation"),
            )
            if voxels.get(key)
        ]
        lost = f" Left out: {', '.join(dropped)}." if dropped else ""
        blocks.append(
            Text(
                f"{count(voxels['n_voxels'])} of the mask's {count(voxels['n_voxels_mask'])} "
                f"voxels are analysed.{lost}"
            )
        )
    if voxels.get("coverage"):
        blocks.append(Text(_coverage(voxels["coverage"])))
    if outliers:
        number = int(outliers["n"])
        blocks.append(
            Text(
                "No subject is an outlier: none lies far from all others in its components."
                if not number
                else f"{count(number)} subject{'s lie' if number > 1 else ' lies'} far from all "
                f"others in their components (distance beyond {decimal(outliers['threshold'])}); "
                "they are listed in private/ldr_outliers.tsv and kept in the sample."
            )
        )
    return Section("flow", "Flow of subjects", blocks)


def _images_read(batches: Sequence[Mapping[str, Any]]) -> str:
    """Return what was read, from READ_IMAGES' numbers."""
    images, lacking, values = (
        sum(int(batch.get(key) or 0) for batch in batches)
        for key in ("n_images", "n_images_not_finite", "n_values_not_finite")
    )
    text = (
        f"{count(images)} images of the type {batches[0]['geometry_type']} were read in "
        f"{count(len(batches))} batch{'es' if len(batches) > 1 else ''}"
    )
    if not lacking:
        return f"{text}; all their values are finite."
    return f"{text}; {count(lacking)} of them lack {count(values)} values in all."


def _coverage(coverage: Mapping[str, Any]) -> str:
    """Return what is known of missing values, from SELECT_SUBJECTS' ``coverage``."""
    least = float(coverage["min_coverage"])
    if float(coverage["lowest"]) == 1.0:
        return "Coverage: every subject has a value at every voxel of the mask."
    text = (
        f"Coverage: a voxel is kept when at least {100 * least:g} % of the subjects have a value "
        f"there; before that rule the least covered voxel has {100 * coverage['lowest']:.1f} %, "
        f"the mean over the mask is {100 * coverage['mean']:.2f} %."
    )
    if coverage["n_values_filled"]:
        text += (
            f" {count(coverage['n_values_filled'])} missing values of "
            f"{count(coverage['n_subjects_filled'])} subjects are filled with the voxel's mean, at "
            f"most {100 * coverage['largest_share_filled']:.1f} % of a subject's voxels."
        )
    return text


def representation_section(
    eigenvalues: np.ndarray,
    total_variance: float,
    components: int,
    bandwidth: float | None,
    candidates: tuple[np.ndarray, np.ndarray] | None,
    quality: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
    n_eff: float,
    numbers: Mapping[str, Any] | None = None,
    maps: Sequence[Plot] = (),
) -> Section:
    """Return scree, bandwidth curve, reconstruction quality and maps of the first components.

    ``bandwidth`` of 0 is no smoothing, None unknown; ``candidates`` are (bandwidths, scores)
    and ``quality`` (numbers of components, correlations of raw images and of images less their
    mean), None when not known. ``numbers`` are
    FIT_BASES' and ``maps`` come from :func:`component_maps`.
    """
    numbers = numbers or {}
    used = f"The first {components} components are used"
    known = math.isfinite(total_variance)
    if known:
        share = float(np.sum(eigenvalues[:components]) / total_variance)
        used += f"; they hold {100 * share:.1f} % of the variance of the smoothed images"
    plots = [
        Plot(
            figures.scree(eigenvalues, total_variance, components),
            "Eigenvalues of the smoothed, centred images"
            + (" (blue) and the cumulated share of the variance (orange). " if known else ". ")
            + f"{used}.",
        )
    ]
    blocks: list[Any] = []
    if candidates is not None and np.any(np.isfinite(candidates[1])):
        skipped = int(np.sum(~np.isfinite(candidates[1])))
        plots.append(
            Plot(
                figures.bandwidth_curve(*candidates, chosen=bandwidth or 0.0),
                "Generalized cross-validation (GCV) score of each bandwidth tried; the one used "
                f"({decimal(bandwidth)} mm) is marked."
                + (f" Dotted: {skipped} skipped{_why_skipped(numbers)}." if skipped else ""),
            )
        )
    elif bandwidth is not None:
        blocks.append(
            Text(
                f"The bandwidth of {decimal(bandwidth)} mm was given; none was searched for."
                if bandwidth
                else "The images were not smoothed."
            )
        )
    if quality is not None:
        plots.append(
            Plot(
                figures.reconstruction_quality(*quality),
                "Mean correlation, over subjects, of the raw image and its reconstruction from the "
                f"first components (blue; {decimal(quality[1][-1])} with {count(quality[0][-1])}), "
                "and of the image less the mean image and the reconstruction of that (orange; "
                f"{decimal(quality[2][-1])}). Components are of what differs between people: few "
                "of them hold little of the mean image, and the blue line may be below 0.",
            )
        )
    else:
        blocks.append(
            Note("Reconstruction quality is not shown: the run did not start from images.")
        )
    blocks.insert(0, Row(plots))
    blocks.append(
        Text(
            f"Effective number of independent voxels: {decimal(n_eff, 4)} "
            "(squared sum of the eigenvalues over the sum of their squares)." + _accuracy(numbers)
        )
    )
    if maps:
        blocks.append(Row(list(maps), wide=True))
    return Section("representation", "Representation of the images", blocks)


def _why_skipped(numbers: Mapping[str, Any]) -> str:
    """Return why bandwidths were skipped, from FIT_BASES' numbers."""
    reasons = [
        f"{decimal(entry['bandwidth'])} mm: {entry['skipped']}"
        for entry in numbers.get("candidates") or []
        if entry.get("skipped")
    ]
    return f" ({'; '.join(reasons)})" if reasons else ""


def _accuracy(numbers: Mapping[str, Any]) -> str:
    """Return how well the components are known, from FIT_BASES' numbers."""
    text = ""
    if numbers.get("n_eff_standard_error"):
        text += f" Its standard error is {decimal(numbers['n_eff_standard_error'], 2)}."
    if numbers.get("decomposition") == "exact":
        text += " The decomposition is exact."
    elif numbers.get("largest_relative_residual") is not None:
        text += (
            " The decomposition is iterative; its largest relative residual is "
            f"{decimal(numbers['largest_relative_residual'], 2)}."
        )
    return text


def component_maps(
    canvas: Canvas | Space, bases: np.ndarray, eigenvalues: np.ndarray, total_variance: float
) -> list[Plot]:
    """Return maps of the first components, bases (N, r)."""
    plots = []
    for number in range(min(MOST_COMPONENT_MAPS, bases.shape[1])):
        share = ""
        if math.isfinite(total_variance) and number < len(eigenvalues):
            share = f", {100 * eigenvalues[number] / total_variance:.1f} % of the variance"
        plots.append(
            Plot(
                map_figures.overview(
                    bases[:, number], canvas, "basis", diverging=True, slices=SLICES_OF_COMPONENTS
                ),
                f"Component {number + 1}{share}." + _left_out(canvas),
            )
        )
    return plots


def _left_out(canvas: Canvas | Space) -> str:
    number = getattr(canvas, "left_out", 0)
    return f" {count(number)} further parts of the image are not drawn." if number else ""


def model_notes(summaries: Summaries) -> list[str]:
    """Return what is to be known of the model and of the genotypes or statistics it met."""
    notes = []
    null = summaries.one("fit_null")
    if null.get("covariates_redundant"):
        names = ", ".join(map(str, null["covariates_redundant"]))
        notes.append(f"Covariates left out because others say the same: {names}.")
    kinship = null.get("kinship")
    if kinship:
        notes.append(
            f"Relatives: {count(kinship['n_people'])} people of the sample have one of the third "
            f"degree or nearer in it: {count(kinship['n_pairs'])} of the "
            f"{count(kinship['n_pairs_listed'])} pairs that the kinship table lists are both in "
            f"the sample and above a kinship of {decimal(kinship['threshold'])}."
        )
    if null.get("variance_left_by_offsets"):
        left = [value for value in null["variance_left_by_offsets"] if value is not None]
        notes.append(
            f"Leave-one-chromosome-out predictions of {count(null['n_chromosomes_with_offsets'])} "
            f"chromosomes are offsets of the components; they leave {decimal(min(left))} to "
            f"{decimal(max(left))} of the variance."
        )
    chunks = summaries.all("component_gwas")
    crossed: dict[str, int] = {}
    for chunk in chunks:
        for chromosome, number in (chunk.get("haploid_heterozygotes") or {}).items():
            crossed[chromosome] = crossed.get(chromosome, 0) + int(number)
    if sum(crossed.values()):
        places = ", ".join(f"{count(number)} on {name}" for name, number in crossed.items())
        notes.append(f"Heterozygous calls where people have one copy, taken as missing: {places}.")
    if len({kind for chunk in chunks for kind in chunk.get("arithmetic") or ()}) > 1:
        notes.append(
            "Some chunks of the component GWAS were multiplied in whole numbers, others in single "
            "precision: the processors were of two kinds, or a component has someone far from all "
            "others. Both are exact to 1e-4 SE, but another run may differ from this one in the "
            "last digits."
        )
    for number, key, text in (
        ("n_multiallelic_split", "convert_genotypes", "variants with several alleles were split"),
        ("n_multiallelic_dropped", "convert_genotypes", "variants with several alleles left out"),
        ("n_repeated", "minimal_dataset", "variants repeat another of the same place and alleles"),
    ):
        total = sum(int(entry.get(number) or 0) for entry in summaries.all(key))
        if total:
            notes.append(f"{count(total)} {text}.")
    imported = summaries.one("import_sumstats")
    if imported:
        notes.append(
            f"Component statistics were imported from {count(imported['n_files'])} files "
            f"({imported['format']}, {count(imported['significant_digits'])} significant digits)."
        )
        if imported.get("agreement"):
            notes.append(_agreement_note(imported["agreement"]))
    return notes


def _agreement_note(found: Mapping[str, Any]) -> str:
    """Return how well imported statistics agree with A, from IMPORT_SUMSTATS' ``agreement``."""
    text = (
        f"Over {count(found['n_variants'])} variants the residual variances that the imported "
        f"statistics tell of are {found['least_component_ratio']:.4f} (lowest component) to "
        f"{found['largest_component_ratio']:.4f} (highest) times what the components' "
        "cross-product says beside the others; 1 is agreement."
    )
    if found.get("information_share") is not None:
        text += (
            f" A variant carries {found['information_share']:.3f} times the information that its "
            "frequency and the people allow."
        )
    return text


def genotypes_section(conversions: Sequence[Mapping[str, Any]]) -> Section:
    """Return the genotype files that were converted, from CONVERT_GENOTYPES' numbers."""
    rows = [
        [
            str(entry["file"]),
            str(entry["format"]),
            {"DS": "dosages (DS)", "GT": "calls (GT)"}.get(entry["field"], text_of(entry["field"])),
            count(entry["n_variants"]),
            count(entry["n_samples"]),
            count(entry["n_left_out"]),
            count(entry["n_multiallelic_split"]),
            count(entry["n_multiallelic_dropped"]),
            text_of(entry["plink2"]),
        ]
        for entry in sorted(conversions, key=lambda entry: str(entry["file"]))[:MOST_TABLE_ROWS]
    ]
    cut = (
        f" The first {MOST_TABLE_ROWS} of {count(len(conversions))} files."
        if len(conversions) > MOST_TABLE_ROWS
        else ""
    )
    table = Table(
        [
            "file",
            "format",
            "read",
            "variants",
            "people",
            "left out",
            "multiallelic, split",
            "multiallelic, left out",
            "plink2",
        ],
        rows,
        "Genotype files that were converted to PLINK 2's format. Left out: variants of other "
        f"chromosomes than were asked for.{cut}",
        frozenset(range(3, 8)),
    )
    return Section("genotypes", "Genotype files", [table])


def dataset_section(
    numbers: Mapping[str, Any],
    N: int,
    critical_lambda: float | None = None,
    notes: Sequence[str] = (),
) -> Section:
    """Return size of the dataset and λ_GC by component, from MINIMAL_DATASET's numbers.

    ``notes`` come from :func:`model_notes`.
    """
    blocks: list[Any] = [Items(list(notes))] if notes else []
    m, r = int(numbers["m"]), int(numbers["r"])
    if "variant_bytes" in numbers:
        variant, fixed = int(numbers["variant_bytes"]), int(numbers["fixed_bytes"])
        whole = 8.0 * m * N
        blocks.append(
            Table(
                ["part", "bytes", "what"],
                [
                    ["variants", count(variant), "codes, scales, a, table of variants"],
                    ["fixed", count(fixed), "bases, A, geometry and the file's own"],
                    ["together", count(variant + fixed), ""],
                    [
                        "β and SE of every voxel in single precision",
                        count(whole),
                        f"{decimal(whole / (variant + fixed))} times the dataset",
                    ],
                ],
                f"Size of the minimal dataset: {count(m)} variants, {count(r)} components, "
                f"{decimal(variant / max(m * r, 1))} bytes a variant and component.",
                frozenset({1}),
            )
        )
    inflation = np.array(
        [math.nan if value is None else value for value in numbers.get("lambda_gc") or []],
        dtype=float,
    )
    if np.isfinite(inflation).any():
        middle = float(np.nanmedian(inflation))
        blocks.append(
            Plot(
                figures.by_component(inflation, "λ_GC", 1.0, critical_lambda),
                "Genomic-control factor of each component (median z² over what chance gives): "
                f"median {decimal(middle)}, largest {decimal(float(np.nanmax(inflation)))}."
                + (
                    f" Dotted: {decimal(critical_lambda)}, beyond which a component is remarkable."
                    if critical_lambda
                    else ""
                ),
            )
        )
    return Section("dataset", "Minimal dataset", blocks)


@dataclass(frozen=True)
class Rule:
    """A rule of significance: critical |z|, its image-wide −log10 p, variants beyond it."""

    critical_z: float
    neg_log_10_p_image_wide: float
    n_variants: int


@dataclass(frozen=True)
class Scan:
    """What the scan of all voxels found, thinned for drawing.

    Attributes
    ----------
    thinner : GenomeThinner
        Image-wide −log10 p over the genome.
    image_wide, omnibus : QuantileSketch
        Distributions of −log10 p.
    n_variants, n_significant : int
        Variants read, and those beyond the image-wide level.
    significance : str
        ``image_wide`` or ``published``.
    level, critical_z, n_eff : float
        Significance level of the study, critical |z|, effective number of voxels.
    threshold : float
        −log10 image-wide p of the critical |z|.
    rules : mapping of str to Rule
        Both rules by name.
    """

    thinner: figures.GenomeThinner
    image_wide: figures.QuantileSketch
    omnibus: figures.QuantileSketch
    n_variants: int
    n_significant: int
    significance: str
    level: float
    critical_z: float
    n_eff: float
    threshold: float
    rules: Mapping[str, Rule] = field(default_factory=dict)


def rules_table(scan: Scan) -> Table:
    """Return both rules of significance and the variants that pass each."""
    named = {
        "image_wide": f"image-wide p = {decimal(scan.level)}",
        "published": f"p of a voxel = {decimal(scan.level)} / N_eff (published)",
    }
    rows = [
        [
            named[name] + (" – used" if name == scan.significance else ""),
            f"{rule.critical_z:.3f}",
            p_value(rule.neg_log_10_p_image_wide),
            count(rule.n_variants),
        ]
        for name, rule in scan.rules.items()
    ]
    return Table(
        ["rule", "critical |z|", "error over the image", "variants beyond it"],
        rows,
        "Both rules of significance. Error over the image: probability under the null that a "
        "variant's largest |z| is beyond the critical value.",
        frozenset({1, 2, 3}),
    )


def association_section(
    scan: Scan,
    loci: pd.DataFrame | None,
    counts: Mapping[str, Mapping[str, Any]],
    tail: Mapping[str, Any],
) -> Section:
    """Return Manhattan, QQ and the counts of variants; ``tail`` are IMAGE_TAIL's numbers."""
    leads = []
    if loci is not None:
        leads = [
            (chromosome, int(position), float(height), str(name))
            for chromosome, position, height, name in zip(
                loci["chromosome"],
                loci["base_pair_location"],
                loci["neg_log_10_p_image_wide"],
                loci["lead_variant_id"],
                strict=True,
            )
            if math.isfinite(height)
        ]
    points = scan.thinner.points()
    shown = sum(len(where) for where, _ in points.values())
    rule = (
        f"p = {decimal(scan.level)} image-wide"
        if scan.significance == "image_wide"
        else f"{decimal(scan.level)} / N_eff at a voxel (the published rule)"
    )
    blocks: list[Any] = [
        Text(
            f"{count(scan.n_significant)} of {count(scan.n_variants)} variants are significant: "
            f"their largest |z| over the image is beyond {scan.critical_z:.2f} ({rule})."
            + (
                f" The image counts as {decimal(tail['effective_tests'])} independent tests at "
                f"that level; the published rule would take |z| > "
                f"{tail['critical_z_published']:.2f}."
                if tail and scan.significance == "image_wide"
                else ""
            )
        ),
        *([rules_table(scan)] if scan.rules else []),
        Plot(
            figures.manhattan(points, scan.thinner.extents, scan.threshold, leads),
            "Manhattan plot over the whole image: for each variant the image-wide p of its largest "
            f"|z| over all voxels. Dashed: the critical value ({rule}); orange: variants beyond "
            "it. Lead variants of the loci are named"
            + (" (the 20 with the smallest p)" if len(leads) > 20 else "")
            + f". {count(shown)} of {count(scan.n_variants)} points are drawn: all beyond the "
            "critical value, and one a pixel below it.",
        ),
        Plot(
            figures.qq({"image-wide": scan.image_wide, "omnibus": scan.omnibus}),
            "Observed against expected −log₁₀ p over the variants. Left: image-wide p of the "
            "largest |z|; right: omnibus test over all components "
            f"(genomic-control factor {decimal(scan.omnibus.inflation())}). Grey: pointwise 95 % "
            "band for independent variants; linkage disequilibrium widens it.",
        ),
    ]
    if counts:
        blocks.append(counts_table(counts))
    return Section("association", "Association", blocks)


def _genome_order(chromosome: str) -> tuple[int, str]:
    """Return what sorts names of chromosomes as in the genome, unknown names last."""
    return RANK.get(chromosome, len(RANK) + 1), chromosome


def counts_table(counts: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return variants read and left out, by reason, by chromosome."""
    reasons: dict[str, str] = {}
    for entry in counts.values():
        for group in ("dropped", "missing"):
            for reason in entry.get(group, {}):
                reasons.setdefault(reason, group)
    names = sorted(reasons, key=lambda reason: (reasons[reason], reason))
    rows, totals = [], [0] * (2 + len(names))
    # JSON keeps text keys in the order of text, which puts 10 before 2.
    for chromosome, entry in sorted(counts.items(), key=lambda item: _genome_order(item[0])):
        numbers = [int(entry["read"]), int(entry["written"])] + [
            int(entry.get(reasons[reason], {}).get(reason, 0)) for reason in names
        ]
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
        rows.append([chromosome, *map(count, numbers)])
    if len(rows) > 1:
        rows.append(["all", *map(count, totals)])
    headings = [
        ("dropped: " if reasons[name] == "dropped" else "kept without estimate: ")
        + name.replace("_", " ")
        for name in names
    ]
    return Table(
        ["chromosome", "read", "in the dataset", *headings],
        rows,
        "Variants read, kept in the dataset, and left out by reason.",
        frozenset(range(1, 3 + len(names))),
    )


def _background(space: Canvas | Space) -> str:
    behind = f" Background: {space.background_name}." if space.background_name else ""
    return behind + _left_out(space)


def maps_section(
    space: Canvas | Space,
    voxels: pd.DataFrame | None,
    lead_maps: Sequence[tuple[pd.Series, np.ndarray]],
    n_loci: int,
) -> Section:
    """Return the map of the number of significant variants and the z maps of lead variants.

    ``lead_maps`` holds a row of the loci table and the z map (N,) of its lead variant, in the
    order to be shown.
    """
    blocks: list[Any] = []
    if voxels is not None:
        number = voxels["n_significant_variants"].to_numpy(dtype=float)
        if np.any(number > 0):
            blocks.append(
                Plot(
                    map_figures.overview(number, space, "significant variants"),
                    "Number of significant variants by voxel; voxels without any are transparent "
                    f"({count(np.sum(number > 0))} of {count(len(number))} have one or more)."
                    + _background(space),
                )
            )
        else:
            blocks.append(Text("No voxel has a significant variant."))
    if lead_maps:
        if len(lead_maps) < n_loci:
            blocks.append(
                Text(
                    f"Maps of the {len(lead_maps)} loci with the smallest image-wide p of "
                    f"{count(n_loci)}; all of them are in the maps folder of the results."
                )
            )
        plots = []
        for row, z in lead_maps:
            at = [row["x_mm"], row["y_mm"], row["z_mm"]]
            place = ", ".join(decimal(value, 4) for value in at)
            plots.append(
                Plot(
                    map_figures.around(z, space, "z", int(row["lead_voxel"])),
                    f"Locus {row['locus']}, {row['lead_variant_id']} ({row['chromosome']}:"
                    f"{count(row['base_pair_location'])}, effect allele {row['effect_allele']}): "
                    f"z of every voxel; its largest |z| ({decimal(row['z'])}), at ({place}), is "
                    "marked or in the planes.",
                )
            )
        blocks.append(Row(plots, wide=True))
    if not blocks:
        blocks.append(Text("No locus is significant, so there is no map to show."))
    return Section("maps", "Brain maps of association", blocks)


def loci_section(loci: pd.DataFrame) -> Section:
    """Return the table of loci, novel ones flagged."""
    if not len(loci):
        return Section("loci", "Loci", [Text("No locus is significant.")])
    known = loci["novel"].notna().any()
    rows = []
    for _, row in loci.head(MOST_TABLE_ROWS).iterrows():
        novel = text_of(row["novel"]) if known else "–"
        associations = row["known_associations"]
        if isinstance(associations, str) and associations:
            novel = f"{novel} ({associations})"
        rows.append(
            [
                count(row["locus"]),
                str(row["chromosome"]),
                f"{count(row['start'])}–{count(row['end'])}",
                str(row["lead_variant_id"]),
                count(row["base_pair_location"]),
                f"{row['effect_allele']}/{row['other_allele']}",
                decimal(row["effect_allele_frequency"]),
                ", ".join(decimal(row[name], 4) for name in ("x_mm", "y_mm", "z_mm")),
                decimal(row["beta"]),
                decimal(row["standard_error"]),
                decimal(row["z"]),
                p_value(row["neg_log_10_p_image_wide"]),
                count(row["n_significant_voxels"]),
                count(row["n_significant_variants"]),
                count(row["n_clumps"]),
                novel,
            ]
        )
    caption = (
        "Loci in genome order. Alleles: effect/other; β, SE and z at the voxel of the largest |z|; "
        "β in image units per effect allele."
    )
    if len(loci) > MOST_TABLE_ROWS:
        caption += f" The first {MOST_TABLE_ROWS} of {count(len(loci))}; all are in loci.tsv."
    blocks: list[Any] = []
    if known:
        novel = int((loci["novel"] == "yes").sum())
        blocks.append(
            Text(
                f"{loci_of(len(loci))}, {count(novel)} of them novel (without any of the known "
                "associations given)."
            )
        )
    else:
        blocks.append(
            Text(f"{loci_of(len(loci))}. Novelty is not known: no known associations were given.")
        )
    blocks.append(
        Table(
            [
                "locus",
                "chr",
                "bounds (bp)",
                "lead variant",
                "position",
                "alleles",
                "frequency",
                "lead voxel (mm)",
                "β",
                "SE",
                "z",
                "image-wide p",
                "voxels",
                "variants",
                "clumps",
                "novel",
            ],
            rows,
            caption,
            frozenset({0, 4, 6, 8, 9, 10, 11, 12, 13, 14}),
        )
    )
    return Section("loci", "Loci", blocks)


def _region(label: str) -> str:
    return f"region {label}" if label.isdigit() else label


def loci_of(number: int) -> str:
    """Return ``1 locus``, ``2 loci`` …"""
    return f"{count(number)} loc{'us' if number == 1 else 'i'}"


def _reasons(frame: pd.DataFrame) -> str:
    reasons = frame["reason"].dropna()
    if not len(reasons):
        return "No estimate is out of range."
    parts = ", ".join(f"{count(number)} {name}" for name, number in reasons.value_counts().items())
    return (
        f"{count(len(reasons))} of {count(len(frame))} estimates are not shown ({parts}); their "
        "raw values stand in the table and enter every mean and test."
    )


def _model_tests(numbers: Mapping[str, Any]) -> list[Table]:
    """Return the tests of the model as a table, from HERITABILITY's numbers; none if none."""
    rows = []
    if numbers.get("model_difference") is not None:
        for what in ("balanced", "moments", "bands"):
            if numbers.get(key := f"heritability_{what}") is not None:
                rows.append([f"mean h² by {what}", decimal(numbers[key]), "–", "–", "–"])
        rows.append(
            [
                "their difference",
                decimal(numbers["model_difference"]),
                decimal(numbers["model_difference_standard_error"]),
                "0",
                p_value(numbers["model_test_neg_log_10_p_value"]),
            ]
        )
    if numbers.get("mean_intercept") is not None:
        rows.append(
            [
                "mean intercept",
                decimal(numbers["mean_intercept"]),
                decimal(numbers["mean_intercept_standard_error"]),
                "1",
                p_value(numbers["mean_intercept_neg_log_10_p_value"]),
            ]
        )
        rows.append(
            [
                "components whose intercept is not 1 (false-discovery rate 5 %)",
                count(numbers["n_intercepts_not_1_fdr_5_percent"]),
                "–",
                "–",
                "–",
            ]
        )
    if numbers.get("heterogeneity_p_value") is not None:
        p = float(numbers["heterogeneity_p_value"])
        rows.append(
            [
                f"variance of h² over {count(numbers['heterogeneity_n_voxels'])} voxels",
                decimal(numbers["heterogeneity_variance"]),
                "–",
                decimal(numbers["heterogeneity_variance_expected"]),
                p_value(-math.log10(p)) if p > 0 else "0",
            ]
        )
    if not rows:
        return []
    if numbers.get("jackknife_over_closed_form") is not None:
        rows.append(
            [
                "jackknife errors of h² over those of the closed form (median)",
                decimal(numbers["jackknife_over_closed_form"]),
                "–",
                f"up to {MOST_OVER_CLOSED_FORM:g}",
                "–",
            ]
        )
    if numbers.get("n_negative_eigenvalues") is not None:
        number = count(numbers["n_negative_eigenvalues"])
        own = numbers.get("n_negative_eigenvalues_for_correlations")
        if own is not None and numbers.get("heritability_by") == "balanced":
            number += f" (for correlations {count(own)})"
        rows.append(["eigenvalues of genetic covariance below 0", number, "–", "–", "–"])
    groups = numbers.get("n_jackknife_groups")
    return [
        Table(
            ["test of the model", "estimate", "SE", "expected", "p"],
            rows,
            "Tests of the model. Both estimators of mean h² weigh variants differently, so they "
            "part when effects depend on LD or frequency, or people are structured; the intercept "
            "is above 1 when people are related or structured beyond the covariates; the variance "
            "of h² over voxels is above its expected value when h² is not the same everywhere; "
            "the jackknife's errors are much longer than the closed form's when few variants carry "
            "most effects. "
            "Genetic covariance is unbiased as it is; eigenvalues below 0 are sampling error, and "
            "voxels along them have no genetic correlation to show."
            + (
                f" Errors of the difference and the intercepts are a jackknife of {count(groups)} "
                "groups of LD blocks."
                if groups
                else ""
            ),
            frozenset({1, 2, 3, 4}),
        )
    ]


def _discovered(regions: pd.DataFrame | None) -> str:
    if regions is None or not len(regions):
        return ""
    found = int((regions["false_discovery_rate"] <= FALSE_DISCOVERY_RATE).sum())
    return f" and {count(found)} of {count(len(regions))} regions"


def _errors(numbers: Mapping[str, Any]) -> str:
    how = {
        "closed_form": "in closed form, given the effects of this run's variants",
        "jackknife": "by leaving out one group of LD blocks at a time",
        "auto": "from the closed form and the jackknife together",
    }.get(str(numbers.get("se_method")))
    return f" Standard errors are found {how}." if how else ""


def _reference(numbers: Mapping[str, Any]) -> str:
    """Return what the LD reference is, from LD_REFERENCE's numbers."""
    counts = numbers.get("counts") or {}
    lost = [
        f"{count(value)} {name.replace('_', ' ')}"
        for name, value in sorted(counts.items())
        if value and not name.startswith("in_") and name not in ("kept", "alleles_swapped")
    ]
    in_both = f", of {count(counts['in_both'])} in both" if "in_both" in counts else ""
    split = ""
    if numbers.get("n_panels") == 1:
        split = f" (one panel, split at random with seed {numbers['seed']})"
    return (
        f"LD reference: {count(numbers['n_a'] + numbers['n_b'])} people of the first panel and "
        f"{count(numbers['n_2'])} of the second{split}, {count(numbers['n_variants'])} "
        f"variants{in_both}, in {count(numbers['n_blocks'])} blocks, the largest of "
        f"{count(numbers['largest_block'])}." + (f" Left out: {', '.join(lost)}." if lost else "")
    )


def _intercepts(intercepts: pd.DataFrame) -> Plot:
    """Return the picture of each component's own intercept with its interval."""
    own = intercepts[intercepts["component"].astype(str) == intercepts["other"].astype(str)]
    found = int((own["false_discovery_rate"] <= FALSE_DISCOVERY_RATE).sum())
    return Plot(
        figures.by_component(
            own["intercept"].to_numpy(dtype=float), "intercept κ", 1.0,
            standard_error=own["standard_error"].to_numpy(dtype=float),
        ),
        "Intercept κ of each component in the band regression, in units of the noise of unrelated "
        f"people, with 95 % intervals; 1 without structure or relatives. {count(found)} of "
        f"{count(len(own))} differ from 1 at a false-discovery rate of 5 %.",
    )  # fmt: skip


def heritability_section(
    space: Canvas | Space,
    heritability: pd.DataFrame,
    regions: pd.DataFrame | None,
    numbers: Mapping[str, Any],
    intercepts: pd.DataFrame | None = None,
    reference: Mapping[str, Any] | None = None,
) -> Section:
    """Return map, histogram, regions, tests of the model and intercepts of heritability.

    ``reference`` are the numbers of LD_REFERENCE, where it was made in this run.
    """
    raw = heritability["heritability_raw"].to_numpy(dtype=float)
    shown = heritability["heritability"].to_numpy(dtype=float)
    error = heritability["standard_error_raw"].to_numpy(dtype=float)
    finite = raw[np.isfinite(raw)]
    median = float(np.median(finite)) if len(finite) else float("nan")
    blocks: list[Any] = [
        Text(
            f"Heritability of the denoised image: median {decimal(median)} over "
            f"{count(len(finite))} voxels, median standard error "
            f"{decimal(np.nanmedian(error) if np.any(np.isfinite(error)) else None)}. "
            f"{_reasons(heritability)}"
        )
    ]
    if numbers:
        blocks.append(
            Text(
                f"{count(numbers['n_used_variants'])} variants "
                f"({100 * numbers['share_of_reference']:.1f} % of the LD reference's) in "
                f"{count(numbers['n_blocks_used'])} LD blocks enter the estimate. "
                f"{count(numbers['n_significant_voxels_fdr_5_percent'])} of "
                f"{count(numbers['n_voxels'])} voxels{_discovered(regions)} are heritable at a "
                "false-discovery rate of 5 %." + _errors(numbers)
            )
        )
        if reference:
            blocks.append(Text(_reference(reference)))
        blocks += _model_tests(numbers)
    if intercepts is not None and len(intercepts):
        blocks.append(_intercepts(intercepts))
    if np.any(shown > 0):
        blocks.append(
            Plot(
                map_figures.overview(shown, space, "h²"),
                "Heritability by voxel; values out of range are transparent." + _background(space),
            )
        )
    plots = []
    if len(finite):
        plots.append(
            Plot(
                figures.histogram(raw, "h² (raw estimate)", mean=median, mean_label="median"),
                "Raw estimates over the voxels, those out of range included.",
            )
        )
    if regions is not None and len(regions):
        value = regions["heritability_raw"].to_numpy(dtype=float)
        order = np.argsort(-np.nan_to_num(value, nan=-np.inf), kind="stable")[:MOST_REGIONS]
        part = regions.iloc[np.sort(order)]
        cut = (
            f" The {MOST_REGIONS} highest of {count(len(regions))}."
            if len(regions) > MOST_REGIONS
            else ""
        )
        plots.append(
            Plot(
                figures.intervals(
                    [_region(name) for name in part["region"]],
                    part["heritability_raw"].to_numpy(dtype=float),
                    part["standard_error_raw"].to_numpy(dtype=float),
                    "h² of the region's mean image",
                ),
                "Heritability of the mean image of each region, with 95 % intervals (raw "
                f"estimates).{cut} {_reasons(regions)}",
            )
        )
    if plots:
        blocks.append(Row(plots))
    return Section("heritability", "Heritability", blocks)


def square_of(pairs: pd.DataFrame, column: str) -> tuple[list[str], np.ndarray]:
    """Return labels and the symmetric matrix (k, k) of a column of the pair table."""
    labels = list(dict.fromkeys([*pairs["region_1"], *pairs["region_2"]]))
    number = {label: index for index, label in enumerate(labels)}
    matrix = np.full((len(labels), len(labels)), np.nan)
    row = pairs["region_1"].map(number).to_numpy()
    column_number = pairs["region_2"].map(number).to_numpy()
    matrix[row, column_number] = pairs[column]
    matrix[column_number, row] = pairs[column]
    return labels, matrix


def correlation_section(
    pairs: pd.DataFrame | None, sampled: np.ndarray | None, n_voxels: int
) -> Section:
    """Return heat maps of genetic correlation: between regions, and between sampled voxels.

    ``sampled`` (k, k) holds genetic correlations between voxels taken evenly from the mask.
    """
    maps: list[Plot] = []
    scatter: list[Plot] = []
    if pairs is not None and len(pairs):
        labels, matrix = square_of(pairs, "genetic_correlation")
        np.fill_diagonal(matrix, 1.0)
        _, evidence = square_of(pairs, "neg_log_10_p_value")
        different = pairs[pairs["region_1"] != pairs["region_2"]]
        needed = -math.log10(0.05 / max(1, len(different)))
        marked = np.nan_to_num(evidence, nan=0.0) > needed
        np.fill_diagonal(marked, False)
        _, phenotypic = square_of(pairs, "phenotypic_correlation")
        np.fill_diagonal(phenotypic, 1.0)
        maps.append(
            Plot(
                figures.correlation_heat_map(
                    matrix, [_region(name) for name in labels], "genetic correlation", marked
                ),
                f"Genetic correlation between {count(len(labels))} regions (mean images) in "
                f"clustered order; dots: p < 0.05 / {count(len(different))} pairs; grey: not "
                f"shown. {_reasons(different)}",
            )
        )
        below = np.tril_indices(len(labels), -1)
        if len(labels) > 2:
            x, y = phenotypic[below], matrix[below]
            if np.any(np.isfinite(x) & np.isfinite(y)):
                scatter.append(
                    Plot(
                        figures.agreement(x, y, "phenotypic correlation", "genetic correlation"),
                        "Genetic against phenotypic correlation of the pairs of regions.",
                    )
                )
    if sampled is not None and len(sampled) > 1:
        missing = int(np.isnan(sampled[np.tril_indices(len(sampled), -1)]).sum())
        maps.append(
            Plot(
                figures.correlation_heat_map(sampled, None, "genetic correlation"),
                f"Genetic correlation between {count(len(sampled))} of {count(n_voxels)} voxels, "
                "taken evenly from the mask, in clustered order; grey: out of range "
                f"({count(missing)} pairs).",
            )
        )
    blocks: list[Any] = [Row(maps)] if maps else []
    blocks += [Row(scatter)] if scatter else []
    return Section("correlation", "Genetic correlation within the image", blocks)


def _trait_numbers(entry: Mapping[str, Any] | None) -> list[str]:
    if entry is None:
        return ["–"] * 8
    return [
        count(entry["n_trait"]),
        count(entry["n_rows"]),
        f"{count(entry['n_shared_variants'])} of {count(entry['n_reference_variants'])}",
        decimal(entry["heritability_trait_raw"]),
        decimal(entry["standard_error_trait_raw"]),
        decimal(entry.get("intercept_trait")),
        decimal(entry.get("largest_intercept_with_trait")),
        count(entry.get("n_intercepts_with_trait_fdr_5_percent")),
    ]


_USED_ROWS = ("alleles_swapped", "matched_by_position", "matched_by_rsid", "strand_flipped")


def dropped_table(numbers: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Return what became of the rows of each trait's file; None where it is not known."""
    known: dict[str, None] = {}
    for entry in numbers.values():
        known |= {fate: None for fate, rows in (entry.get("dropped") or {}).items() if rows}
    if not known:
        return None
    fates = sorted(known, key=lambda fate: (fate in _USED_ROWS, fate))
    rows = []
    for trait, entry in sorted(numbers.items()):
        of_fate = entry.get("dropped") or {}
        rows.append(
            [
                trait,
                text_of(entry.get("format")),
                text_of(entry.get("build")),
                count(entry["n_rows"]),
                *(count(int(of_fate.get(fate, 0))) for fate in fates),
            ]
        )
    headings = [
        ("" if fate in _USED_ROWS else "left out: ") + fate.replace("_", " ") for fate in fates
    ]
    return Table(
        ["trait", "format", "genome build", "rows read", *headings],
        rows,
        "What became of the rows of the traits' files: left out, by reason; used, by how they were "
        "matched with the LD reference; and of these, alleles that were turned round.",
        frozenset(range(3, 4 + len(fates))),
    )


def _trait_heat_map(regions: pd.DataFrame) -> Plot:
    """Return the picture of the table of all traits by regions."""
    names = [str(name) for name in dict.fromkeys(regions["region"])]
    traits = [str(name) for name in dict.fromkeys(regions["trait"])]

    def square(column: str) -> np.ndarray:
        wide = regions.pivot(index="trait", columns="region", values=column)
        return wide.loc[traits, names].to_numpy(dtype=float)

    rate = square("false_discovery_rate")
    marked = np.nan_to_num(rate, nan=1.0) <= FALSE_DISCOVERY_RATE
    return Plot(
        figures.region_heat_map(
            square("genetic_correlation"), traits, [_region(name) for name in names],
            "genetic correlation", marked,
        ),
        f"Genetic correlation of {count(len(traits))} trait{'s' if len(traits) > 1 else ''} with "
        f"the mean image of {count(len(names))} regions; dots: the {count(marked.sum())} of "
        f"{count(marked.size)} pairs with a false-discovery rate of at most 5 % over all traits "
        f"and regions; grey: not shown. {_reasons(regions)}",
    )  # fmt: skip


def cross_trait_section(
    space: Space,
    traits: Mapping[str, pd.DataFrame],
    numbers: Mapping[str, Mapping[str, Any]],
    regions: pd.DataFrame | None = None,
) -> Section:
    """Return the table of external traits, traits by regions, and a map of each trait.

    ``numbers`` holds the summary numbers of each trait, ``regions`` the table of all traits.
    """
    rows, plots = [], []
    for trait, frame in traits.items():
        shown = frame["genetic_correlation"].to_numpy(dtype=float)
        raw = frame["genetic_correlation_raw"].to_numpy(dtype=float)
        evidence = frame["neg_log_10_p_value"].to_numpy(dtype=float)
        rows.append(
            [
                trait,
                decimal(np.median(raw[np.isfinite(raw)]) if np.any(np.isfinite(raw)) else None),
                count(np.sum(evidence > -math.log10(0.05 / max(1, len(frame))))),
                count(np.sum(frame["false_discovery_rate"] <= FALSE_DISCOVERY_RATE)),
                count(frame["reason"].notna().sum()),
                *_trait_numbers(numbers.get(trait)),
            ]
        )
        if np.any(np.isfinite(shown) & (shown != 0)):
            plots.append(
                Plot(
                    map_figures.overview(shown, space, "genetic correlation", diverging=True),
                    f"Genetic correlation of each voxel with {trait}. {_reasons(frame)}"
                    + _background(space),
                )
            )
    table = Table(
        [
            "trait",
            "median ρ",
            "voxels p < 0.05/N",
            "voxels FDR ≤ 5 %",
            "not shown",
            "n",
            "rows read",
            "variants shared",
            "h² of the trait",
            "its SE",
            "its intercept",
            "largest intercept with a component",
            "components with overlap",
        ],
        rows,
        "External traits. Median of the raw estimates; voxels that pass a Bonferroni rule over all "
        "N voxels; voxels at a false-discovery rate of 5 %; estimates not shown because out of "
        "range; n times the trait's own intercept, 1 without structure; intercepts of the trait "
        "with the components, 0 without people in common: the largest, and how many differ from 0 "
        "at a false-discovery rate of 5 %. h² of the trait is over the shared variants; where "
        "people may be in common it is a slope of the band regression, which leans on where "
        "effects lie more than h² within the image does.",
        frozenset(range(1, 13)),
    )
    tables = [table]
    dropped = dropped_table(numbers)
    if dropped is not None:
        tables.append(dropped)
    if regions is not None and len(regions):
        plots.insert(0, _trait_heat_map(regions))
    return Section("cross_trait", "Genetic correlation with other traits", [*tables, *plots])


def _agreement_table(comparison: pd.DataFrame) -> Table:
    """Return the rows ``what: measure`` of the comparison as a table of what by measure."""
    measures: dict[str, str] = {}
    cells: dict[str, dict[str, str]] = {}
    for row in comparison.itertuples():
        what, _, measure = row.quantity.partition(": ")
        if measure.endswith("compared"):
            number = count(row.value) if row.value.isdigit() else row.value
            cells.setdefault(what, {})["compared"] = f"{number} {measure[: -len(' compared')]}"
            measures["compared"] = "compared"
            continue
        measures[measure] = measure
        text = row.value.replace("-", "−").replace("NA", "–")
        if _blank(row.goal):
            text += f" (goal {row.goal}: {_blank(row.reached) or 'not known'})"
        cells.setdefault(what, {})[measure] = text
    return Table(
        ["estimate", *measures],
        [[what, *(entry.get(name, "") for name in measures)] for what, entry in cells.items()],
        "Estimates (raw values) against the truth.",
        frozenset(range(1, 1 + len(measures))),
    )


def truth_section(
    comparison: pd.DataFrame, planted: pd.DataFrame, plots: Sequence[Plot]
) -> Section:
    """Return the comparison of a simulated study with its truth."""
    single = comparison[~comparison["quantity"].str.contains(": ")]
    many = comparison[comparison["quantity"].str.contains(": ")]
    blocks: list[Any] = [
        Text(
            "This study is simulated. The estimand is the denoised image, so the truth is "
            "projected on the run's own components; the truth of the raw voxels stands beside it. "
            "Neighbouring voxels are alike, so shares over voxels rest on few independent numbers."
        ),
        Table(
            ["quantity", "value", "goal", "reached"],
            [
                [row.quantity, row.value, _blank(row.goal), _blank(row.reached)]
                for row in single.itertuples()
            ],
            "Loci against the truth. A locus is false when its lead has no causal variant within "
            "500 kb; linkage disequilibrium, which could only excuse more loci, is not looked at. "
            "The rule shows little where few variants lie that far from every causal variant: "
            "below a quarter of them, its goal counts as not known.",
            frozenset({1}),
        ),
        Table(
            ["planted variant", "chr", "position", "power", "found", "locus"],
            [
                [
                    row.variant_id,
                    row.chromosome,
                    count(row.base_pair_location),
                    decimal(row.power),
                    row.found,
                    count(row.locus),
                ]
                for row in planted.itertuples()
            ],
            "Planted variants. Power: probability that |z| at the voxel with the largest "
            "non-centrality is beyond the critical value. Found: the variant is significant itself "
            "and lies in a locus.",
            frozenset({2, 3, 5}),
        ),
    ]
    if not len(single):
        del blocks[1:3]
    if len(many):
        blocks.append(_agreement_table(many))
    if plots:
        blocks.append(Row(list(plots)))
    return Section("truth", "Comparison with the truth", blocks)


def _blank(value: Any) -> str:
    return "" if value is None or value is pd.NA or value != value or value == "NA" else str(value)


def methods_section(values: Mapping[str, Any]) -> Section:
    """Return the methods paragraph with the run's own numbers."""
    return Section("methods", "Methods", [Methods({"doi": DOI, **values})])


def parameters_section(parameters: Mapping[str, Any]) -> Section:
    """Return the parameters of the run; those not given are left out and counted."""
    given = {
        name: value for name, value in sorted(parameters.items()) if value not in (None, "", [])
    }
    rows = [
        [name, value if isinstance(value, str) else json.dumps(value)]
        for name, value in given.items()
    ]
    left = len(parameters) - len(given)
    caption = f"Parameters of the run; not given: {left}." if left else ""
    return Section("parameters", "Parameters", [Table(["parameter", "value"], rows, caption)])


def stages_section(summaries: Summaries) -> Section:
    """Return the plain numbers that the stages left."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for stage, name, value in summaries.scalars():
        rows.setdefault(stage, []).append((name, value))
    tables = [Table([stage, "value"], found, "", frozenset({1})) for stage, found in rows.items()]
    return Section("stages", "Numbers of the stages", tables)


def versions_section(versions: pd.DataFrame) -> Section:
    """Return the table of software versions."""
    rows = [[row.software, row.version] for row in versions.itertuples()]
    text = (
        "Time, memory and processors of every task stand in pipeline_info/trace.tsv and "
        "timeline.html beside this report: they differ from run to run, this page does not."
    )
    return Section("versions", "Software", [Table(["software", "version"], rows), Text(text)])


def warnings_section(warnings: Sequence[tuple[str, str, int]]) -> Section:
    """Return the warnings of all stages."""
    if not warnings:
        return Section("warnings", "Warnings", [Text("No stage gave a warning.")])
    return Section("warnings", "Warnings", [Items(_warning_lines(warnings))])


# --- the page -------------------------------------------------------------------------------


def render(title: str, version: str, sections: Sequence[Section]) -> str:
    """Return the page: one HTML text with everything in it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=count, decimal=decimal)
    template = environment.get_template("report.html.j2")
    return template.render(title=title, version=version, sections=list(sections), doi=DOI) + "\n"
