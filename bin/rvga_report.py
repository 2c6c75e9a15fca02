#!/usr/bin/env python3
"""Write the report of a run: one HTML file that holds all it shows and works offline."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rvga import cli, figures, formats, map_figures, report, tables, truth
from rvga.atomic import replacing
from rvga.calibration import LAMBDA_VARIANTS, lambda_bound
from rvga.chromosomes import CHROMOSOMES, RANK
from rvga.dataset import MinimalDataset
from rvga.errors import InputError
from rvga.geometry import Geometry, geometry_of
from rvga.heritability import region_bases
from rvga.parcels import default_regions
from rvga.reconstruction import voxel_variance
from rvga.regions import read_regions
from rvga.significance import Tail, image_wide_neg_log_10_p, normal_to_t, t_to_normal
from rvga.version import VERSION

SOFTWARE = (
    "h5py", "jinja2", "matplotlib", "nibabel", "nilearn", "numba", "numpy", "pandas", "Pgenlib",
    "pyarrow", "scikit-learn", "scipy", "threadpoolctl",
)  # fmt: skip
VARIANT_BLOCK = 200_000


def parser() -> argparse.ArgumentParser:
    """Return the options of the stage."""
    made = cli.make_parser(__doc__)
    add = made.add_argument
    add("--title", default="Voxel-level genetic analysis", help="title of the study")
    add("--parameters", type=Path, required=True, help="the run's parameters, JSON")
    add("--summaries", type=Path, nargs="*", default=[], help="the stages' summaries, JSON")
    add("--bases", type=Path, help="functional bases; taken from the dataset when absent")
    add("--dataset", type=Path, help="minimal dataset")
    add("--tail", type=Path, help="image-wide tail")
    add("--variants", type=Path, help="table of all variants from the scan")
    add("--voxels", type=Path, help="table of voxels from the scan")
    add("--loci", type=Path, help="table of loci")
    add("--lead-variants", type=Path, help="table of lead variants")
    add("--heritability", type=Path, help="table of heritability by voxel")
    add("--regions", type=Path, help="table of heritability by region")
    add("--region-labels", type=Path, help="the regions as HERITABILITY had them, for the truth")
    add("--intercepts", type=Path, help="table of the components' intercepts")
    add("--genetic-correlation", type=Path, help="table of genetic correlations of regions")
    add("--genetic-covariance", type=Path, help="genetic covariance of the components")
    add("--cross-trait", type=Path, nargs="*", default=[], help="tables by external trait")
    add("--cross-trait-regions", type=Path, help="table of all external traits by region")
    add("--truth", type=Path, help="truth of a simulated study")
    add("--engine-version", default="", help="version of the workflow engine")
    add("--out", type=Path, required=True, help="the report, HTML")
    add("--out-versions", type=Path, required=True, help="table of software versions")
    add("--out-truth", type=Path, help="table of the comparison with the truth")
    add("--out-truth-loci", type=Path, help="table of planted loci")
    return made


@dataclass(frozen=True)
class Basis:
    """The representation, from the bases file or else from the dataset."""

    bases: np.ndarray
    eigenvalues: np.ndarray
    geometry: Geometry
    n: int
    n_eff: float
    mean: np.ndarray | None = None
    total_variance: float = math.nan
    bandwidth: float | None = None
    candidates: tuple[np.ndarray, np.ndarray] | None = None


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file; a mistake in it is an input error."""
    try:
        return json.loads(cli.require_file(path, what).read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error}); {what} is due here") from error


def read_summaries(paths: Sequence[Path]) -> report.Summaries:
    """Read the stages' summaries."""
    read = []
    for path in paths:
        summary = read_json(path, "summary of a stage")
        if not isinstance(summary, dict) or set(summary) != {"stage", "numbers", "warnings"}:
            raise InputError(f"{path}: not the summary of a stage (stage, numbers, warnings)")
        read.append(summary)
    # The order in which files are given must not matter.
    read.sort(key=lambda summary: json.dumps(summary, sort_keys=True))
    return report.Summaries(read)


def read_basis(path: Path | None, dataset: MinimalDataset | None) -> Basis:
    """Read the representation."""
    if path is None:
        if dataset is None:
            raise InputError("a report needs --bases or --dataset: neither was given")
        return Basis(
            bases=dataset.bases,
            eigenvalues=dataset.eigenvalues,
            geometry=dataset.geometry,
            n=dataset.n,
            n_eff=float(dataset.attributes["n_eff"]),
        )
    with formats.open_file(path, "bases") as file:
        if dataset is not None and dataset.inputs.get("bases") != file.digest:
            raise InputError(
                f"{dataset.path.name} was not made from {path.name}: they are of different runs; "
                "give the bases of the same run"
            )
        return Basis(
            bases=file["bases"][...].astype(np.float64),
            eigenvalues=file["eigenvalues"][...],
            geometry=geometry_of(file),
            n=int(file.attributes["n"]),
            n_eff=float(file.attributes["n_eff"]),
            mean=file["mean"][...],
            total_variance=float(file.attributes["total_variance"]),
            bandwidth=float(file.attributes["bandwidth"]),
            candidates=(file["candidate_bandwidths"][...], file["candidate_scores"][...]),
        )


def positions_by_chromosome(path: Path) -> dict[str, np.ndarray]:
    """Return the positions of the dataset's variants by chromosome, in genome order."""
    with formats.open_file(path, "minimal") as file:
        code, position = (
            file[f"variants/{name}"][...] for name in ("chromosome", "base_pair_location")
        )
    return {CHROMOSOMES[value - 1]: position[code == value] for value in np.unique(code)}


def variant_row(dataset: MinimalDataset, chromosome: str, position: int, name: str) -> int | None:
    """Return the dataset's row of a variant, without reading all variants; None if absent."""
    view = dataset.region(chromosome, position, position)
    with formats.open_file(dataset.path, "minimal") as file:
        ids = file["variants/variant_id"].asstr()[view.first : view.stop]
    found = np.flatnonzero(ids == name)
    return view.first + int(found[0]) if len(found) else None


def read_scan(
    path: Path, tail_path: Path, dataset: MinimalDataset, extents: Mapping
) -> report.Scan:
    """Stream the table of variants and keep what the pictures need."""
    with formats.open_file(tail_path, "tail") as file:
        if file.inputs.get("dataset") != dataset.digest:
            raise InputError(
                f"{tail_path.name} was not made from {dataset.path.name}: they are of different "
                "runs; give the tail of the same run"
            )
        tail = Tail.of(file)
    threshold = float(image_wide_neg_log_10_p(np.array([tail.critical_z]), tail)[0])
    thinner = figures.GenomeThinner(extents, threshold)
    image_wide, omnibus = figures.QuantileSketch(), figures.QuantileSketch()
    n_significant = 0
    critical = {
        "image_wide": tail.critical_z_image_wide,
        "published": tail.critical_z_published,
    }
    beyond = dict.fromkeys(critical, 0)
    for block, _ in tables.read_table_blocks(path, "variants", VARIANT_BLOCK):
        chromosome = block["chromosome"].to_numpy(dtype=object)
        unknown = sorted(set(chromosome) - set(extents))
        if unknown:
            raise InputError(
                f"{path}: chromosome '{unknown[0]}' is not in {dataset.path.name}: they are of "
                "different runs"
            )
        height = block["neg_log_10_p_image_wide"].to_numpy(dtype=float)
        thinner.add(chromosome, block["base_pair_location"].to_numpy(), height)
        image_wide.add(height)
        omnibus.add(block["neg_log_10_p_omnibus"].to_numpy(dtype=float))
        n_significant += int((block["n_significant_voxels"] > 0).sum())
        z = np.abs(t_to_normal(block["z"].to_numpy(dtype=float), dataset.nu))
        for name, limit in critical.items():
            beyond[name] += int((z > limit).sum())
    return report.Scan(
        thinner,
        image_wide,
        omnibus,
        thinner.read,
        n_significant,
        str(tail.significance),
        float(tail.significance_level),
        float(tail.critical_z),
        float(tail.n_eff),
        threshold,
        {
            name: report.Rule(
                float(limit),
                float(image_wide_neg_log_10_p(np.array([limit]), tail)[0]),
                beyond[name],
            )
            for name, limit in critical.items()
        },
    )


def lead_maps(dataset: MinimalDataset, loci: pd.DataFrame) -> list[tuple[pd.Series, np.ndarray]]:
    """Return the z maps of the loci with the smallest p, in genome order."""
    order = loci["neg_log_10_p_image_wide"].sort_values(ascending=False, kind="stable").index
    maps = []
    for label in sorted(order[: report.MOST_LEAD_MAPS]):
        row = loci.loc[label]
        number = variant_row(
            dataset, row["chromosome"], int(row["base_pair_location"]), row["lead_variant_id"]
        )
        if number is None:
            raise InputError(
                f"lead variant '{row['lead_variant_id']}' of the loci table is not in "
                f"{dataset.path.name}: they are of different runs"
            )
        maps.append((row, dataset.voxel_statistics(number, number + 1)["z"][0]))
    return maps


def regions_of_voxels(path: Path | None, basis: Basis) -> tuple[np.ndarray, np.ndarray]:
    """Return names and mean basis rows of the regions, as HERITABILITY makes and calls them."""
    read = default_regions if path is None else functools.partial(read_regions, path)
    labels, names = read(basis.geometry)
    return np.array(names, dtype=object), region_bases(basis.bases, labels)[1]


def software_versions(engine: str) -> pd.DataFrame:
    """Return the table of software versions."""
    rows = [("RVGA", VERSION), ("Python", platform.python_version())]
    if engine:
        rows.append(("Nextflow", engine))
    rows += [(name, importlib.metadata.version(name)) for name in SOFTWARE]
    return pd.DataFrame(rows, columns=["software", "version"])


def compare_with_truth(
    args: argparse.Namespace,
    known: truth.Truth,
    basis: Basis,
    dataset: MinimalDataset | None,
    positions: Mapping[str, np.ndarray],
    critical_z: float | None,
    found: Mapping[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame, list[report.Plot]]:
    """Return both truth tables and the scatter plots."""
    projected = truth.project(known, basis.bases)
    comparison = truth.Comparison()
    loci = found["loci"]
    planted = pd.DataFrame(columns=list(tables.TABLES["truth_loci"]))
    if dataset is not None and critical_z is not None and loci is not None:
        a, ncp = np.full((2, len(known.causal)), np.nan)
        A_index = np.zeros(len(a), dtype=np.int64)
        significant = np.zeros(len(known.causal), dtype=bool)
        critical_t = normal_to_t(critical_z, dataset.nu)
        for number, row in enumerate(known.causal.itertuples()):
            place = None
            if row.planted:
                place = variant_row(dataset, row.chromosome, row.base_pair_location, row.variant_id)
            if place is not None:
                components = dataset.components(place, place + 1)
                a[number], A_index[number] = components.a[0], components.A_index[0]
                z = dataset.voxel_statistics(place, place + 1)["z"]
                significant[number] = bool(np.any(np.abs(z) > critical_t))
        for index in np.unique(A_index):
            here = A_index == index
            variance = voxel_variance(basis.bases, dataset.A[index])
            ncp[here], _ = truth.noncentrality(
                projected.effect[here], a[here], basis.bases, variance, dataset.nu
            )
        probability = truth.power(ncp, critical_z, dataset.nu)
        planted = truth.truth_loci(known, probability, significant, loci)
        chromosome = np.concatenate(
            [np.full(len(where), name, dtype=object) for name, where in positions.items()]
        )
        variants = (chromosome, np.concatenate(list(positions.values())))
        comparison.add_loci(planted, loci, known.causal, variants)
    agreements: dict[str, tuple[truth.Agreement, str]] = {}
    if found["heritability"] is not None:
        for name, agreement in truth.heritability_agreements(
            known, projected, basis.bases, found["heritability"]
        ).items():
            agreements[name] = (agreement, "voxels")
    if found["regions"] is not None and len(found["regions"]):
        region, rows = regions_of_voxels(args.region_labels, basis)
        if not set(found["regions"]["region"]) <= set(region):
            raise InputError(
                f"{args.regions}: its regions are not those of the labels, so they cannot be "
                "compared with the truth; give --region-labels of the same run"
            )
        for name, agreement in truth.region_agreements(
            projected, region, rows, found["regions"], found["pairs"]
        ).items():
            agreements[name] = (agreement, "pairs" if "correlation" in name else "regions")
    if found["Gamma"] is not None:
        agreements["genetic correlation of voxels"] = (
            truth.voxel_pair_agreement(projected, found["Gamma"], basis.bases),
            "pairs within range",
        )
    for trait, table in found["traits"].items():
        agreements[f"genetic correlation with {trait}"] = (
            truth.cross_trait_agreement(known, projected, basis.bases, table),
            "voxels",
        )
    plots = []
    for name, (agreement, unit) in agreements.items():
        goal = truth.GOAL_CORRELATION if name == "h² of the denoised image" else None
        comparison.add_agreement(name, agreement, goal=goal, unit=unit)
        if np.any(agreement.used):
            plots.append(
                report.Plot(
                    figures.agreement(
                        agreement.truth, agreement.estimate, "truth", "estimate",
                        agreement.standard_error,
                    ),
                    f"Estimate against truth, {name}, over "
                    f"{report.count(agreement.used.sum())} {unit}; correlation "
                    f"{report.decimal(agreement.correlation)}.",
                )
            )  # fmt: skip
    return comparison.table(), planted, plots


def given(parameters: Mapping[str, Any], *names: str) -> bool:
    """Tell whether any of some parameters was given."""
    return any(parameters.get(name) not in (None, "", False, []) for name in names)


def why_not(parameters: Mapping[str, Any], what: str) -> str:
    """Return why a part of the analysis is absent, as far as the parameters tell."""
    if what in ("heritability", "traits") and not given(parameters, "ld_reference", "ld_panel_1"):
        return "it needs ld_panel_1 (and ld_panel_2), or ld_reference, and neither was given"
    if what == "traits" and not given(parameters, "traits"):
        return "no external traits were given"
    if what == "flow" and not given(parameters, "images"):
        return "the run did not start from images, so it chose no sample"
    return "its results were not handed to the report"


def read_optional(path: Path | None, kind: str) -> pd.DataFrame | None:
    """Read a table that not every run has."""
    return None if path is None else tables.read_table(path, kind)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    with contextlib.ExitStack() as stack:
        stack.enter_context(cli.threads(args.threads))
        write_report(args, stack)


def write_report(args: argparse.Namespace, stack: contextlib.ExitStack) -> None:
    """Read what is there, compare, draw, write."""
    parameters = read_json(args.parameters, "the run's parameters")
    if not isinstance(parameters, dict):
        raise InputError(f"{args.parameters}: an object of parameters is due here")
    summaries = read_summaries(args.summaries)
    dataset = None
    if args.dataset is not None:
        dataset = stack.enter_context(MinimalDataset.open(args.dataset))
    basis = read_basis(args.bases, dataset)
    N, components = basis.bases.shape
    cli.state_memory(
        "the bases, a block of variants and the pictures", 3 * basis.bases.nbytes + 6e8
    )
    geometry = basis.geometry

    positions: dict[str, np.ndarray] = {}
    counts: dict[str, dict] = {}
    if dataset is not None:
        positions = positions_by_chromosome(args.dataset)
        counts = json.loads(dataset.attributes["counts"])
        counts = {name: counts[name] for name in sorted(counts, key=RANK.__getitem__)}
    scan = None
    if args.variants is not None:
        if args.tail is None or dataset is None:
            raise InputError("--variants needs --tail and --dataset of the same run")
        extents = {name: (int(where.min()), int(where.max())) for name, where in positions.items()}
        scan = read_scan(args.variants, args.tail, dataset, extents)
    voxels = read_optional(args.voxels, "voxels")
    loci = read_optional(args.loci, "loci")
    read_optional(args.lead_variants, "lead_variants")
    heritability = read_optional(args.heritability, "heritability")
    regions = read_optional(args.regions, "regions")
    intercepts = read_optional(args.intercepts, "intercepts")
    pairs = read_optional(args.genetic_correlation, "genetic_correlation")
    traits = {
        path.name.removesuffix(".tsv"): tables.read_table(path, "cross_trait")
        for path in sorted(args.cross_trait, key=lambda path: path.name)
    }
    trait_regions = read_optional(args.cross_trait_regions, "cross_trait_regions")
    if trait_regions is not None:
        absent = sorted(set(trait_regions["trait"]) ^ set(traits))
        if absent:
            raise InputError(
                f"{args.cross_trait_regions}: trait '{absent[0]}' is in the table by region or in "
                "the tables by voxel, but not in both: they are of different runs"
            )
    for name, table in (("voxels", voxels), ("heritability", heritability), *traits.items()):
        if table is not None and len(table) != N:
            raise InputError(
                f"table '{name}' has {len(table)} rows, but there are {N} voxels: they are of "
                "different runs"
            )
    Gamma, covariance_attributes = None, {}
    if args.genetic_covariance is not None:
        with formats.open_file(args.genetic_covariance, "genetic_covariance") as file:
            if dataset is not None and file.inputs.get("dataset") != dataset.digest:
                raise InputError(
                    f"{args.genetic_covariance.name} was not made from {dataset.path.name}: they "
                    "are of different runs; give the one of the same run"
                )
            Gamma, covariance_attributes = file["Gamma"][...], file.attributes

    known = None
    if args.truth is not None:
        with formats.open_file(args.truth, "truth") as file:
            known = truth.read_truth(file, geometry.index)

    # Everything is read: mistakes were told before anything was drawn.
    canvas = map_figures.canvas_of(geometry, basis.mean)
    sections = []
    flow = summaries.one("select_subjects") or summaries.one("import_ldrs")
    ldrs = summaries.one("make_ldrs")
    if flow:
        sections.append(
            report.flow_section(
                flow["flow"], flow, ldrs.get("outliers"), summaries.all("read_images")
            )
        )
    else:
        sections.append(report.not_run("flow", "Flow of subjects", why_not(parameters, "flow")))
    quality = None
    if ldrs:
        quality = (
            np.array(ldrs["quality_components"], dtype=float),
            np.array(ldrs["quality_correlation"], dtype=float),
            np.array(ldrs["quality_correlation_centred"], dtype=float),
        )
    sections.append(
        report.representation_section(
            basis.eigenvalues, basis.total_variance, components, basis.bandwidth, basis.candidates,
            quality, basis.n_eff, summaries.one("fit_bases"),
            report.component_maps(canvas, basis.bases, basis.eigenvalues, basis.total_variance),
        )
    )  # fmt: skip
    conversions = summaries.all("convert_genotypes")
    if conversions:
        sections.append(report.genotypes_section(conversions))
    made = summaries.one("minimal_dataset")
    if made and made.get("m"):
        bound = lambda_bound(min(int(made["m"]), LAMBDA_VARIANTS))
        notes = report.model_notes(summaries)
        sections.append(report.dataset_section(made, N, bound, notes))
    if scan is not None:
        sections.append(report.association_section(scan, loci, counts, summaries.one("image_tail")))
    else:
        section = report.not_run("association", "Association", why_not(parameters, "association"))
        if counts:
            section.blocks.append(report.counts_table(counts))
        sections.append(section)
    if loci is not None and dataset is not None:
        maps = lead_maps(dataset, loci)
        sections.append(report.maps_section(canvas, voxels, maps, len(loci)))
        sections.append(report.loci_section(loci))
    else:
        sections.append(report.not_run("loci", "Loci", why_not(parameters, "loci")))
    if heritability is not None:
        sections.append(
            report.heritability_section(
                canvas,
                heritability,
                regions,
                summaries.one("heritability"),
                intercepts,
                summaries.one("ld_reference"),
            )
        )
    else:
        sections.append(
            report.not_run("heritability", "Heritability", why_not(parameters, "heritability"))
        )
    sampled = None
    if Gamma is not None:
        sampled = truth.within_range(
            truth.correlation_of(Gamma, basis.bases[truth.sampled_voxels(N)])
        )
    if pairs is not None or sampled is not None:
        sections.append(report.correlation_section(pairs, sampled, N))
    trait_numbers = {str(entry["trait"]): entry for entry in summaries.all("cross_trait")}
    if traits:
        sections.append(report.cross_trait_section(canvas, traits, trait_numbers, trait_regions))
    else:
        sections.append(
            report.not_run(
                "cross_trait", "Genetic correlation with other traits",
                why_not(parameters, "traits"),
            )
        )  # fmt: skip

    comparison = planted = None
    if known is not None:
        found = {
            "loci": loci, "heritability": heritability, "regions": regions, "pairs": pairs,
            "Gamma": Gamma, "traits": traits,
        }  # fmt: skip
        comparison, planted, plots = compare_with_truth(
            args, known, basis, dataset, positions, None if scan is None else scan.critical_z, found
        )
        sections.insert(0, report.truth_section(comparison, planted, plots))

    facts = [
        (report.count(basis.n if dataset is None else dataset.n), "subjects", ""),
        (report.count(N), "voxels", ""),
        (report.count(components), "components", ""),
        (report.decimal(basis.n_eff, 4), "effective voxels", "N_eff"),
    ]
    if dataset is not None:
        facts.append((report.count(dataset.m), "variants", str(dataset.attributes["genome_build"])))
    n_novel = None
    if loci is not None:
        if loci["novel"].notna().any():
            n_novel = int((loci["novel"] == "yes").sum())
        remark = "novelty not known" if n_novel is None else f"{n_novel} novel"
        facts.append(
            (
                report.count(len(loci)),
                "locus" if len(loci) == 1 else "loci",
                remark if len(loci) else "",
            )
        )
    if heritability is not None:
        median = heritability["heritability_raw"].median()
        facts.append((report.decimal(median), "median h²", "over voxels, raw estimates"))
    if traits:
        facts.append((report.count(len(traits)), "external traits", ""))
    warnings = summaries.warnings()
    sections.insert(0, report.glance_section(facts, warnings))

    share = None
    if math.isfinite(basis.total_variance):
        share = float(basis.eigenvalues[:components].sum() / basis.total_variance)
    reference = summaries.one("ld_reference")
    clump = {
        name: float(parameters[name]) if given(parameters, name) else None
        for name in ("clump_r2", "clump_kb")
    }
    sections += [
        report.methods_section(
            {
                "version": VERSION,
                "n": basis.n,
                "n_voxels": N,
                "components": components,
                "share": share,
                "bandwidth": basis.bandwidth,
                "bandwidth_chosen": basis.candidates is not None
                and bool(np.isfinite(basis.candidates[1]).any()),
                "n_eff": basis.n_eff,
                "m": 0 if dataset is None else dataset.m,
                "p": 0 if dataset is None else dataset.p,
                "nu": 0 if dataset is None else dataset.nu,
                "minor_allele_count": 0
                if dataset is None
                else float(dataset.attributes["minor_allele_count"]),
                "genome_build": "" if dataset is None else dataset.attributes["genome_build"],
                "critical_z": None if scan is None else scan.critical_z,
                "significance": None if scan is None else scan.significance,
                "level": None if scan is None else scan.level,
                "n_loci": None if loci is None else len(loci),
                "n_novel": n_novel,
                **clump,
                "heritability_method": covariance_attributes.get("heritability_method"),
                "se_method": summaries.one("heritability").get("se_method"),
                "intercept": summaries.one("heritability").get("intercept"),
                "m_heritability": covariance_attributes.get("m"),
                "n_panel_1": reference["n_a"] + reference["n_b"] if reference else None,
                "n_panel_2": reference["n_2"] if reference else None,
                "ld_share": reference["ld_share"] if reference else None,
                "traits": len(traits),
                "traits_overlap": sum(
                    entry.get("overlap") == "possible" for entry in summaries.all("cross_trait")
                ),
            }
        ),
        report.parameters_section(parameters),
        report.stages_section(summaries),
    ]
    versions = software_versions(args.engine_version)
    sections += [report.versions_section(versions), report.warnings_section(warnings)]
    page = report.render(args.title, VERSION, sections)

    tables.write_table(versions, args.out_versions, "software_versions")
    if comparison is not None and planted is not None:
        if args.out_truth is not None:
            tables.write_table(comparison, args.out_truth, "truth_comparison")
        if args.out_truth_loci is not None:
            tables.write_table(planted, args.out_truth_loci, "truth_loci")
        for row in comparison.itertuples():
            goal = "" if row.goal == "NA" else f"  (goal {row.goal}: {row.reached})"
            cli.report(f"{row.quantity:<66}{row.value:>12}{goal}")
    with replacing(args.out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    numbers = {
        "bytes": len(page.encode()),
        "n_sections": len(sections),
        "n_warnings": len(warnings),
    }
    cli.write_summary(args.summary, "report", numbers)


if __name__ == "__main__":
    cli.run(main)
