#!/usr/bin/env python3
"""Join the parts of the scan and the clumps of significant variants, merge clumps to loci."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from rvga import cli, formats, loci, significance, tables
from rvga.chromosomes import CHROMOSOMES, RANK
from rvga.dataset import MinimalDataset
from rvga.errors import InputError
from rvga.geometry import write_map
from rvga.known_loci import KnownLoci, read_known_loci

STAGE = "find_loci"
BLOCK_ROWS = 65_536
FEW_PEOPLE = 100
MEDIAN_CHI_SQUARE = 0.454936423119572
POSITION = "base_pair_location"
KEYS = ["chromosome", POSITION, "variant_id", "effect_allele", "other_allele"]


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--hits", type=Path, nargs="+", required=True, help="tables of variants, all parts")
    add("--voxels", type=Path, nargs="+", required=True, help="tables of voxels, all parts")
    add("--pairs", type=Path, nargs="*", default=[], help="tables of significant pairs, all parts")
    add("--dataset", type=Path, required=True, help="minimal dataset")
    add("--tail", type=Path, required=True, help="image-wide tail of the same dataset")
    add("--clumps", type=Path, nargs="*", default=[], help="clumps by LD, of all chromosomes")
    add("--ld", action="store_true", help="there are genotypes: clumps are by LD, if any")
    cli.add_clump_options(result)
    add("--known-loci", type=Path, help="table of known associations, for novelty")
    add("--out-variants", type=Path, required=True, help="all variants (.tsv.gz)")
    add("--out-voxels", type=Path, required=True, help="all voxels (.tsv)")
    add("--out-pairs", type=Path, help="all significant pairs (.tsv.gz)")
    add("--out-loci", type=Path, required=True, help="loci (.tsv)")
    add("--out-lead-variants", type=Path, required=True, help="lead variants of clumps (.tsv)")
    add("--out-maps", type=Path, required=True, help="folder for maps (NIfTI)")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    warnings: list[str] = []
    with contextlib.ExitStack() as stack:
        dataset = stack.enter_context(MinimalDataset.open(args.dataset))
        stored = stack.enter_context(formats.open_file(args.tail, "tail"))
        stored.require_made_from("dataset", dataset)
        tail = significance.Tail.of(stored)
        known = None
        if args.known_loci is not None:
            cli.require_file(args.known_loci, "known associations")
            known = read_known_loci(args.known_loci)
            note_build(known, dataset, args.known_loci, warnings)
        voxels = join_voxels(args.voxels, dataset)

        # The table of variants appears only if all that follows succeeds.
        writer = stack.enter_context(tables.table_writer(args.out_variants, "variants"))
        joined = join_hits(args.hits, dataset, tail, writer)
        if int(voxels["n_significant_variants"].sum()) != joined.n_pairs:
            raise InputError(
                f"{args.voxels[0].name}: the tables of voxels count "
                f"{int(voxels['n_significant_variants'].sum())} significant pairs, the tables of "
                f"variants {joined.n_pairs}: they are not of the same parts; give all parts of "
                "one scan, each once"
            )
        hits = joined.significant
        if args.pairs:
            if args.out_pairs is None:
                raise InputError("--pairs was given without --out-pairs; say where they go")
            pairs_writer = stack.enter_context(tables.table_writer(args.out_pairs, "pairs"))
            join_pairs(args.pairs, hits, pairs_writer)
        rank = hits["chromosome"].map(RANK).to_numpy(dtype=np.int64)
        position = hits[POSITION].to_numpy(dtype=np.int64)
        order = loci.priority(
            hits["neg_log_10_p_image_wide"].to_numpy(dtype=float), np.abs(hits["z"]).to_numpy()
        )
        clumped = join_clumps(args, hits, dataset)
        n_unmatched = int((~clumped.has_ld).sum())
        if args.ld or args.clumps:
            note_linkage(clumped.n_people, n_unmatched, len(hits), warnings)
        else:
            cli.warn("no genotypes were given: variants are clumped by distance alone", warnings)
        # Where a chromosome has no genotypes, distance alone decides.
        by_distance = loci.leaders(
            rank, position, order, None, clump_r2=args.clump_r2, clump_kb=args.clump_kb
        )
        leader = np.where(clumped.leader >= 0, clumped.leader, by_distance)
        clumps = loci.clumps_of(leader, position)
        merged = loci.merge_clumps(rank, clumps)
        places = np.empty(len(order), dtype=np.int64)
        places[order] = np.arange(len(order))
        lead_frame = lead_variants(hits, clumps, merged)
        locus_frame, lead_rows = locus_table(hits, clumps, merged, places, known, dataset)

        tables.write_table(voxels, args.out_voxels, "voxels")
        tables.write_table(lead_frame, args.out_lead_variants, "lead_variants")
        write_maps(args.out_maps, voxels, locus_frame, lead_rows, dataset)
        tables.write_table(locus_frame, args.out_loci, "loci")

    n_novel = None if known is None else int((locus_frame["novel"] == "yes").sum())
    numbers = {
        "m": dataset.m,
        "N": dataset.N,
        "n_missing": joined.n_missing,
        "n_significant_variants": len(hits),
        "n_significant_voxels": int((voxels["n_significant_variants"] > 0).sum()),
        "n_significant_pairs": joined.n_pairs,
        "n_clumps": len(clumps.index),
        "n_loci": len(locus_frame),
        "n_novel_loci": n_novel,
        "n_known_associations": None if known is None else len(known.chromosome),
        "clump_r2": args.clump_r2,
        "clump_kb": args.clump_kb,
        "ld_source": "genotypes" if args.ld or args.clumps else "distance",
        "n_ld_subjects": clumped.n_people,
        "n_without_ld": n_unmatched,
        "significance": tail.significance,
        "significance_level": tail.significance_level,
        "critical_z": tail.critical_z,
        "n_eff": tail.n_eff,
        "lambda_gc_omnibus": joined.omnibus.lambda_gc(),
        "lambda_gc_image_wide": joined.image_wide.lambda_gc(),
    }
    cli.report(
        f"{len(hits)} significant variants in {len(clumps.index)} clumps and "
        f"{len(locus_frame)} loci"
    )
    cli.write_summary(args.summary, STAGE, numbers, warnings)


class MedianOf:
    """The median of many −log10 p in little memory, by counts in narrow bins."""

    _EDGES = np.linspace(0.0, 2.0, 20_001)

    def __init__(self):
        self._counts = np.zeros(len(self._EDGES), dtype=np.int64)

    def add(self, values: np.ndarray) -> None:
        """Take in values; missing ones are left out."""
        values = values[np.isfinite(values)]
        bins = np.searchsorted(self._EDGES, values, side="right") - 1
        self._counts += np.bincount(np.maximum(bins, 0), minlength=len(self._counts))

    def lambda_gc(self) -> float | None:
        """Return the median chi-square with one degree of freedom over that under the null.

        None where there is no value, or where the median p is capped at 1.
        """
        total = self._counts.sum()
        if not total:
            return None
        cumulated = np.cumsum(self._counts)
        k = int(np.searchsorted(cumulated, total / 2))
        if k >= len(self._EDGES) - 1:
            median = float(self._EDGES[-1])
        else:
            before = cumulated[k] - self._counts[k]
            share = (total / 2 - before) / self._counts[k]
            median = float(self._EDGES[k] + share * (self._EDGES[k + 1] - self._EDGES[k]))
        chi_square = float(significance.normal_from_neg_log_10_p(median)) ** 2
        return chi_square / MEDIAN_CHI_SQUARE if self._counts[0] < total / 2 else None


@dataclass(frozen=True)
class JoinedHits:
    """What the parts of the scan add up to; ``significant`` has a column ``row`` (dataset row)."""

    significant: pd.DataFrame
    n_missing: int
    n_pairs: int
    omnibus: MedianOf
    image_wide: MedianOf


def join_hits(
    paths: Sequence[Path],
    dataset: MinimalDataset,
    tail: significance.Tail,
    writer: tables.TableWriter,
) -> JoinedHits:
    """Copy the parts to one table in genome order; keep the significant variants.

    Raises
    ------
    InputError
        A part is absent, doubled, of another dataset or of another tail.
    """
    order = sorted((place, str(path), path) for path in paths for place in places_of(path, dataset))
    at = n_missing = n_pairs = 0
    omnibus, image_wide = MedianOf(), MedianOf()
    significant = []
    for place, _, path in order:
        if place != at:
            what = "twice" if place < at else f"with variants {at + 1} to {place} missing"
            raise InputError(
                f"{path}: the parts of the scan do not join: this part comes {what}; "
                "give all parts of one scan, each once"
            )
        for frame, lines in tables.read_table_blocks(path, "variants", BLOCK_ROWS):
            stop = at + len(frame)
            if stop > dataset.m or not same_variants(frame, dataset.variant_block(at, stop)):
                raise InputError(
                    f"{path}: holds other variants than {dataset.path.name} from its variant "
                    f"{at + 1} on: they are of different runs; scan this dataset again"
                )
            require_tail(frame, path, dataset, tail)
            writer.add_lines(lines)
            counts = frame["n_significant_voxels"].to_numpy(dtype=float)
            chosen = frame[counts > 0]
            significant.append(chosen.assign(row=at + np.flatnonzero(counts > 0)))
            n_missing += int(np.isnan(counts).sum())
            n_pairs += int(np.nansum(counts))
            omnibus.add(frame["neg_log_10_p_omnibus"].to_numpy(dtype=float))
            image_wide.add(frame["neg_log_10_p_image_wide"].to_numpy(dtype=float))
            at = stop
    if at != dataset.m:
        raise InputError(
            f"{paths[0]}: the {len(paths)} parts hold {at} variants, {dataset.path.name} has "
            f"{dataset.m}: a part of the scan is missing; give all parts"
        )
    columns = [*tables.TABLES["variants"], "row"]
    kept = [part for part in significant if len(part)]
    frame = pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=columns)
    return JoinedHits(frame, n_missing, n_pairs, omnibus, image_wide)


def join_pairs(paths: Sequence[Path], hits: pd.DataFrame, writer: tables.TableWriter) -> None:
    """Copy the parts' significant pairs to one table, in the order of the variants.

    Raises
    ------
    InputError
        The pairs are not those that the tables of variants count.
    """
    keys = list(zip(*(hits[key].astype(str) for key in KEYS), strict=True))
    expected = hits["n_significant_voxels"].to_numpy(dtype=np.int64)
    # A part begins with its first significant variant; a part without any has no place.
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    placed = []
    for path in paths:
        head = next(tables.read_table_blocks(path, "pairs", 1), None)
        if head is not None:
            key = tuple(str(head[0].at[0, name]) for name in KEYS)
            placed.append((first.get(key, -1), str(path), path))
    row = 0
    left = int(expected[0]) if len(expected) else 0
    for _, _, path in sorted(placed):
        for frame, lines in tables.read_table_blocks(path, "pairs", BLOCK_ROWS):
            for key, size in runs(frame):
                while size:  # two variants may have the same names
                    if row >= len(keys) or keys[row] != key:
                        raise _foreign_pairs(path)
                    taken = min(size, left)
                    size, left = size - taken, left - taken
                    if left == 0:
                        row += 1
                        left = int(expected[row]) if row < len(expected) else 0
            writer.add_lines(lines)
    if row != len(keys):
        raise _foreign_pairs(paths[-1])


def runs(frame: pd.DataFrame) -> list[tuple[tuple[str, ...], int]]:
    """Return the variants of consecutive rows, and how many rows each has."""
    text = [frame[key].astype(str).to_numpy(dtype=object) for key in KEYS]
    changes = np.zeros(len(frame), dtype=bool)
    changes[0] = True
    for values in text:
        changes[1:] |= values[1:] != values[:-1]
    starts = np.flatnonzero(changes)
    sizes = np.diff(np.append(starts, len(frame)))
    return [
        (tuple(values[start] for values in text), int(size))
        for start, size in zip(starts, sizes, strict=True)
    ]


def _foreign_pairs(path: Path) -> InputError:
    return InputError(
        f"{path}: its significant pairs are not those that the tables of variants count; give all "
        "parts of one scan, each once"
    )


def places_of(path: Path, dataset: MinimalDataset) -> list[int]:
    """Return the dataset's row of a part's first variant (one number; none if it has no rows)."""
    for frame, _ in tables.read_table_blocks(path, "variants", 1):
        first = frame.iloc[:1].reset_index(drop=True)
        chromosome, position = first.at[0, "chromosome"], first.at[0, "base_pair_location"]
        if chromosome in RANK and np.isfinite(position) and position >= 0:
            view = dataset.region(chromosome, int(position), int(position))
            for row in range(view.first, view.stop):
                if same_variants(first, dataset.variant_block(row, row + 1)):
                    return [row]
        raise InputError(
            f"{path}: its first variant '{first.at[0, 'variant_id']}' is not in "
            f"{dataset.path.name}: they are of different runs; scan this dataset again"
        )
    return []


def same_variants(frame: pd.DataFrame, expected: pd.DataFrame) -> bool:
    """Tell whether two tables list the same variants in the same order."""
    return all(
        np.array_equal(
            frame[key].fillna("NA").astype(str).to_numpy(dtype=object),
            expected[key].astype(str).to_numpy(dtype=object),
        )
        for key in KEYS
    )


def require_tail(
    frame: pd.DataFrame, path: Path, dataset: MinimalDataset, tail: significance.Tail
) -> None:
    """Refuse hits whose image-wide p are not those of the tail."""
    some = frame[["z", "neg_log_10_p_image_wide", "n_significant_voxels"]].dropna()
    z = np.abs(significance.t_to_normal(some["z"].to_numpy(dtype=float), dataset.nu))
    expected = significance.image_wide_neg_log_10_p(z, tail)
    given = some["neg_log_10_p_image_wide"].to_numpy(dtype=float)
    found = some["n_significant_voxels"].to_numpy(dtype=float) > 0
    # Tables hold eight digits, so values at the very edge may fall either way.
    beyond = z > tail.critical_z
    differ = (found != beyond) & (np.abs(z - tail.critical_z) > 1e-4 * (1 + z))
    if differ.any() or not np.allclose(given, expected, rtol=1e-5, atol=1e-5):
        raise InputError(
            f"{path}: its image-wide p are not those of the tail given: they are of different "
            "runs or options; scan the voxels again with this tail"
        )


def join_voxels(paths: Sequence[Path], dataset: MinimalDataset) -> pd.DataFrame:
    """Return one table of voxels: sums of counts, largest of the largest |z|."""
    result: pd.DataFrame | None = None
    for path in paths:
        frame = tables.read_table(path, "voxels")
        if len(frame) != dataset.N or not np.array_equal(
            frame["voxel"].to_numpy(), np.arange(dataset.N)
        ):
            raise InputError(
                f"{path}: has {len(frame)} voxels, {dataset.path.name} has {dataset.N}: they are "
                "of different runs; scan this dataset again"
            )
        if result is None:
            result = frame[list(tables.TABLES["voxels"])].copy()
            continue
        result["n_significant_variants"] += frame["n_significant_variants"]
        result["largest_abs_z"] = np.fmax(result["largest_abs_z"], frame["largest_abs_z"])
    return result


class Clumped(NamedTuple):
    """Index variant of each hit (−1 unknown), whether it has LD, and how many people LD is from."""

    leader: np.ndarray
    has_ld: np.ndarray
    n_people: int


def join_clumps(args, hits: pd.DataFrame, dataset: MinimalDataset) -> Clumped:
    """Return the clumps of all files by row of the hits.

    Raises
    ------
    InputError
        A file is of another scan, of other options, or its LD is of other people.
    """
    row, position = (hits[name].to_numpy(dtype=np.int64) for name in ("row", POSITION))
    rank = hits["chromosome"].map(RANK).to_numpy(dtype=np.int64)
    leader, has_ld = np.full(len(hits), -1, dtype=np.int64), np.zeros(len(hits), dtype=bool)
    of_study = {dataset.attributes["sample_hash"]}
    people: dict[str, Path] = {}
    n_people = 0
    for path in args.clumps:
        with formats.open_file(path, "clumps") as file:
            given = file.attributes
            for name in ("clump_r2", "clump_kb"):
                if float(given[name]) != getattr(args, name):
                    raise InputError(
                        f"{path}: was made with {name} {float(given[name]):g}, not "
                        f"{getattr(args, name):g}; clump the variants again"
                    )
            if given["people"]:
                if given["people"] == "study" and given["sample_hash"] not in of_study:
                    raise InputError(
                        f"{path}: its people are not those of {dataset.path.name}: they are of "
                        "different runs; clump the variants again with the subjects of this run"
                    )
                people.setdefault(given["sample_hash"], path)
                n_people = int(given["n_people"])
            rows, led = file.array("row"), file.array("leader")
            at = np.minimum(np.searchsorted(row, rows), max(len(row) - 1, 0))
            lead = np.minimum(np.searchsorted(row, led), max(len(row) - 1, 0))
            known = len(rows) == 0 or (
                len(row) > 0
                and np.array_equal(row[at], rows)
                and np.array_equal(row[lead], led)
                and np.array_equal(position[at], file.array("base_pair_location"))
                and np.isin(rank, rank[at]).sum() == len(rows)
                and (leader[at] < 0).all()
            )
            if not known:
                raise InputError(
                    f"{path}: its variants are not the significant ones of its chromosomes: it is "
                    "of another scan, or given twice; clump the variants of this scan"
                )
            leader[at], has_ld[at] = lead, file.array("has_ld") > 0
    if len(people) > 1:
        one, other = list(people.values())[:2]
        raise InputError(
            f"{other}: its LD is of other people than that of {one}; give genotype files of the "
            "same people"
        )
    return Clumped(leader, has_ld, n_people)


def note_build(known: KnownLoci, dataset: MinimalDataset, path: Path, warnings: list[str]) -> None:
    """Warn of positions that may be on another build, or that are missing."""
    build = dataset.attributes["genome_build"]
    if known.catalog and build != "GRCh38":
        cli.warn(
            f"{path.name} is a GWAS Catalog export, with positions on GRCh38, but the dataset is "
            f"on {build or 'an unknown build'}: novelty is not to be trusted",
            warnings,
        )
    if known.n_without_position:
        cli.warn(
            f"{path.name}: {known.n_without_position} rows without a single position are left out",
            warnings,
        )


def note_linkage(n_people: int, n_unmatched: int, n: int, warnings: list[str]) -> None:
    """Warn of LD that is missing or imprecise."""
    if n_unmatched:
        cli.warn(
            f"{n_unmatched} of {n} significant variants have no LD (absent or constant): "
            "they are clumped by distance alone",
            warnings,
        )
    if n > n_unmatched and n_people < FEW_PEOPLE:
        cli.warn(
            f"LD comes from only {n_people} people: chance alone makes r2 of about "
            f"{1 / max(n_people - 1, 1):.2g}",
            warnings,
        )


def lead_variants(hits: pd.DataFrame, clumps: loci.Clumps, merged: loci.Loci) -> pd.DataFrame:
    """Return the table of clumps, in genome order."""
    frame = hits.iloc[clumps.index].reset_index(drop=True)
    frame = frame.assign(
        locus=merged.locus_of_clump + 1,
        n_clumped=clumps.size,
        start=clumps.start,
        end=clumps.end,
    )
    return with_integers(frame[list(tables.TABLES["lead_variants"])])


def locus_table(
    hits: pd.DataFrame,
    clumps: loci.Clumps,
    merged: loci.Loci,
    places: np.ndarray,
    known: KnownLoci | None,
    dataset: MinimalDataset,
) -> tuple[pd.DataFrame, list[int]]:
    """Return the table of loci, and the dataset's rows of their lead variants."""
    inside = None
    if known is not None:
        inside = loci.inside(merged, known.chromosome, known.base_pair_location)
    rows, lead_rows = [], []
    for locus in range(len(merged.start)):
        of_locus = np.flatnonzero(merged.locus_of_clump == locus)
        lead = clumps.index[of_locus[np.argmin(places[clumps.index[of_locus]])]]
        hit = hits.iloc[lead]
        row, voxel = int(hit["row"]), int(hit["lead_voxel"])
        statistics = dataset.voxel_statistics(row, row + 1, np.array([voxel]))
        where = dict(zip(("x_mm", "y_mm", "z_mm"), dataset.coordinates[voxel], strict=False))
        novel, listed = np.nan, np.nan
        if inside is not None:
            name = CHROMOSOMES[merged.chromosome[locus] - 1]
            novel = "no" if len(inside[locus]) else "yes"
            listed = ";".join(f"{name}:{at}" for at in inside[locus][:5]) or np.nan
        rows.append(
            {
                **{name: hit[name] for name in tables.TABLES["variants"]},
                "locus": locus + 1,
                "start": int(merged.start[locus]),
                "end": int(merged.end[locus]),
                "lead_variant_id": hit["variant_id"],
                **where,
                "beta": float(statistics["beta"][0, 0]),
                "standard_error": float(statistics["standard_error"][0, 0]),
                "n_significant_variants": int(clumps.size[of_locus].sum()),
                "n_clumps": len(of_locus),
                "novel": novel,
                "known_associations": listed,
            }
        )
        lead_rows.append(row)
    frame = pd.DataFrame(rows).reindex(columns=list(tables.TABLES["loci"]))
    return with_integers(frame), lead_rows


def with_integers(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its counts and places as integers."""
    whole = ("locus", "base_pair_location", "lead_voxel", "n_significant_voxels", "start", "end")
    return frame.astype({name: np.int64 for name in whole if name in frame})


def write_maps(
    folder: Path,
    voxels: pd.DataFrame,
    locus_frame: pd.DataFrame,
    lead_rows: Sequence[int],
    dataset: MinimalDataset,
) -> None:
    """Write maps of the voxel totals, and of z of the lead variant of each locus."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("n_significant_variants", "largest_abs_z"):
        write_map(folder / f"{name}.nii.gz", voxels[name].to_numpy(dtype=float), dataset.geometry)
    for locus, identity, row in zip(
        locus_frame["locus"], locus_frame["lead_variant_id"], lead_rows, strict=True
    ):
        safe = re.sub(r"[^A-Za-z0-9_-]+", "_", str(identity))[:60]
        z = dataset.voxel_statistics(row, row + 1)["z"][0]
        write_map(folder / f"{locus}_{safe}.nii.gz", z, dataset.geometry)


if __name__ == "__main__":
    cli.run(main)
