#!/usr/bin/env python3
"""Clump significant variants by LD from the genotypes of one chromosome (or of all)."""

from __future__ import annotations

import contextlib
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from rvga import cli, formats, loci, tables
from rvga.chromosomes import CHROMOSOMES, RANK
from rvga.errors import InputError
from rvga.genotypes import Genotypes, open_genotypes
from rvga.samples import sample_hash

STAGE = "clump_variants"
BLOCK_ROWS = 65_536
GENOTYPE_VALUES = 1 << 22
IN_MEMORY_BYTES = 1 << 28
KEYS = ["chromosome", "base_pair_location", "variant_id", "effect_allele", "other_allele"]


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--significant", type=Path, nargs="+", required=True, help="tables, all parts of the scan")
    add("--chromosome", choices=("all", *CHROMOSOMES), default="all", help="which variants")
    add("--genotypes", type=Path, nargs="+", required=True, help="genotype files for LD")
    add("--variants", type=Path, nargs="*", default=[], help="their .pvar or .bim files")
    add("--samples", type=Path, nargs="*", default=[], help="their .psam or .fam files")
    add("--subjects", type=Path, help="subjects file: LD in these people; else in everyone")
    add("--subject-id", choices=("IID", "FID_IID"), default="IID", help="form of the subject ids")
    cli.add_clump_options(result)
    add("--out", type=Path, required=True, help="clumps to write (.h5)")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    with contextlib.ExitStack() as stack:
        # One thread of BLAS: the last digit of an r2 must not depend on the machine's load.
        stack.enter_context(cli.threads(1))
        hits = significant_variants(args.significant, args.chromosome)
        found = linkage(args, hits, study_subjects(args.subjects), stack)
        position = hits["base_pair_location"].to_numpy(dtype=np.int64)
        order = loci.priority(
            hits["neg_log_10_p_image_wide"].to_numpy(dtype=float), np.abs(hits["z"]).to_numpy()
        )
        leader = loci.leaders(
            hits["chromosome"].map(RANK).to_numpy(dtype=np.int64),
            position,
            order,
            found.r_squared,
            clump_r2=args.clump_r2,
            clump_kb=args.clump_kb,
        )
    row = hits["row"].to_numpy(dtype=np.int64)
    n_people = len(found.people)
    of_study = "study" if args.subjects is not None else "everyone"
    attributes = {
        "people": of_study if n_people else "",
        "sample_hash": sample_hash(found.people) if n_people else "",
        "n_people": n_people,
        "clump_r2": args.clump_r2,
        "clump_kb": args.clump_kb,
    }
    with formats.create(args.out, "clumps", attributes, code=args.code) as writer:
        writer.add("row", row)
        writer.add("base_pair_location", position)
        writer.add("leader", row[leader])
        writer.add("has_ld", found.has_ld)
    numbers = {
        "chromosome": args.chromosome,
        "n_significant_variants": len(hits),
        "n_clumps": len(np.unique(leader)),
        "n_people": n_people,
        "n_without_ld": int((~found.has_ld).sum()),
    }
    cli.report(f"{len(hits)} significant variants in {numbers['n_clumps']} clumps")
    cli.write_summary(args.summary, STAGE, numbers)


def significant_variants(paths: Sequence[Path], chromosome: str) -> pd.DataFrame:
    """Return the significant variants of a chromosome, in the order of the dataset.

    Raises
    ------
    InputError
        A part is given twice, or cannot be read.
    """
    frames = [
        frame if chromosome == "all" else frame[frame["chromosome"] == chromosome]
        for path in paths
        for frame, _ in tables.read_table_blocks(path, "significant", BLOCK_ROWS)
    ]
    kept = [frame for frame in frames if len(frame)]
    if not kept:
        return pd.DataFrame(columns=list(tables.TABLES["significant"]))
    hits = pd.concat(kept, ignore_index=True).sort_values("row", ignore_index=True)
    if hits["row"].duplicated().any():
        raise InputError(
            f"{paths[0]}: a part of the scan is given twice; give all parts of one scan, each once"
        )
    return hits


def study_subjects(path: Path | None) -> list[str] | None:
    """Return the people of the study, or None for everyone in the genotype files."""
    if path is None:
        return None
    with formats.open_file(path, "subjects") as file:
        return list(file.array("subject"))


class Linkage(NamedTuple):
    """r² between variants, which of them have it (s,), and the people that it comes from."""

    r_squared: loci.LD
    has_ld: np.ndarray
    people: list[str]


def linkage(
    args, hits: pd.DataFrame, subjects: list[str] | None, stack: contextlib.ExitStack
) -> Linkage:
    """Return the LD of significant variants from the genotype files.

    Raises
    ------
    InputError
        Companions are of another number than genotype files, or a person is not in a file.
    """
    for name in ("variants", "samples"):
        given = getattr(args, name)
        if given and len(given) != len(args.genotypes):
            raise InputError(
                f"--{name} has {len(given)} files, --genotypes {len(args.genotypes)}; give one "
                "each, in the same order"
            )
    row_of = np.full(len(hits), -1, dtype=np.int64)
    sought = keys_of(hits)
    positions = hits["base_pair_location"].to_numpy(dtype=np.int64)
    rows = np.zeros((0, 0), np.float32)
    used = 0
    files = zip(
        args.genotypes,
        args.variants or [None] * len(args.genotypes),
        args.samples or [None] * len(args.genotypes),
        strict=True,
    )
    for main_file, variants, samples in cli.progress(files, len(args.genotypes), "genotype file"):
        if not len(hits):
            break
        with open_genotypes(main_file, variants, samples, subject_id=args.subject_id) as genotypes:
            matched = match(genotypes, sought, positions, hits["variant_id"].tolist(), row_of)
            if not matched:
                continue
            if subjects is None:
                subjects = list(genotypes.subject)
            people = genotypes.subject_index(subjects)
            if not rows.size:
                rows = scratch(len(hits), len(people), stack)
            size = max(GENOTYPE_VALUES // len(genotypes.subject), 1)
            for first in range(0, len(matched), size):
                block = matched[first : first + size]
                dosages = genotypes.dosages(np.array([row for _, row in block]), people)
                values = loci.standardised(dosages)
                rows[used : used + len(block)] = values
                # A variant that does not vary in these people has no LD with any other.
                for (hit, _), varies in zip(block, np.isfinite(values[:, 0]), strict=True):
                    if varies:
                        row_of[hit] = used
                    used += 1
    people_used = subjects if subjects is not None and rows.size else []
    return Linkage(loci.ld_of_standardised(rows, row_of), row_of >= 0, people_used)


def scratch(n_variants: int, n_people: int, stack: contextlib.ExitStack) -> np.ndarray:
    """Return room for standardised dosages: in memory, or in a nameless file when it is large."""
    size = 4.0 * n_variants * n_people
    cli.state_memory(
        f"LD of {n_variants} variants in {n_people} people", min(size, IN_MEMORY_BYTES)
    )
    if size <= IN_MEMORY_BYTES:
        return np.empty((n_variants, n_people), dtype=np.float32)
    file = tempfile.TemporaryFile(dir=".")  # noqa: SIM115 - closed by the stack
    stack.callback(file.close)
    return np.memmap(file, dtype=np.float32, mode="w+", shape=(n_variants, n_people))


def keys_of(hits: pd.DataFrame) -> dict[tuple, list[int]]:
    """Return chromosome, position and unordered alleles → rows of the hits."""
    keys: dict[tuple, list[int]] = defaultdict(list)
    for row, values in enumerate(hits[KEYS].itertuples(index=False)):
        keys[key_of(*values)].append(row)
    return keys


def key_of(chromosome, position, _identity, one, other) -> tuple:
    """Return what identifies a variant in any file: r² does not mind swapped alleles."""
    return str(chromosome), int(position), *sorted((str(one).upper(), str(other).upper()))


def match(
    genotypes: Genotypes,
    sought: dict[tuple, list[int]],
    positions: np.ndarray,
    identities: list[str],
    row_of: np.ndarray,
) -> list[tuple[int, int]]:
    """Return (hit, row of the genotype file) of hits that have no genotypes yet.

    Where several variants share position and alleles, those of one id belong together.
    """
    frame = genotypes.variants
    near = frame[np.isin(frame["base_pair_location"].to_numpy(), positions)]
    candidates: dict[int, int] = {}
    for row, *values in near[KEYS].itertuples():
        for hit in sought.get(key_of(*values), ()):
            if row_of[hit] < 0 and (hit not in candidates or identities[hit] == values[2]):
                candidates[hit] = int(row)
    return sorted(candidates.items(), key=lambda pair: pair[1])


if __name__ == "__main__":
    cli.run(main)
