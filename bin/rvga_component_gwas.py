#!/usr/bin/env python3
"""Associate a chunk of variants with every component by least squares."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvga import cli, formats
from rvga.chromosomes import RANK, pseudoautosomal
from rvga.coding import encode_z
from rvga.component_gwas import (
    BLOCK_VARIANTS,
    BlockResult,
    NullModel,
    Workspace,
    associate_block,
    null_model,
    workspace_bytes,
)
from rvga.errors import InputError
from rvga.genotypes import Genotypes, listed_variants, open_genotypes, read_info, read_sex
from rvga.minimal import TEXT_COLUMNS, total_counts, write_chunk
from rvga.null import rows_of_chromosomes
from rvga.packed import width
from rvga.parallel import ordered_map
from rvga.pgen import PackedReader
from rvga.ploidy import DIPLOID, MT, UNKNOWN, Sexes, X, Y
from rvga.variant_filters import (
    DROPPED,
    ESTIMATED,
    MISSING_ROWS,
    NOT_KEPT,
    REMOVED,
    Filters,
)

# Python, its libraries and the compiler of the kernels, measured.
LIBRARY_BYTES = 280 << 20
_KINDS = {"Y": Y, "MT": MT}


def parser() -> argparse.ArgumentParser:
    """Return the stage's command line."""
    arguments = cli.make_parser(__doc__)
    add = arguments.add_argument
    add("--genotypes", type=Path, required=True, help=".pgen or .bed")
    add("--variants", type=Path, help=".pvar or .bim; default: the same stem")
    add("--samples", type=Path, help=".psam or .fam; default: the same stem")
    add("--subject-id", choices=("IID", "FID_IID"), default="IID", help="what a subject is called")
    add("--first-variant", type=int, default=0, help="first variant, from 0")
    add("--n-variants", type=cli.positive_integer, help="variants of the chunk; default: the rest")
    add("--null", type=Path, required=True, help="null model of this study")
    cli.add_dataset_options(arguments)
    add(
        "--minimum-info",
        type=cli.number_between(0, 1),
        default=0.0,
        help="leave out variants of less imputation quality (R2, INFO or DR2 of the .pvar file, "
        "else the variance of the dosages over that expected)",
    )
    add(
        "--maximum-missing-rate",
        type=cli.number_between(0, 1),
        default=1.0,
        help="leave out variants with a larger share of missing genotypes",
    )
    add(
        "--hardy-weinberg-p",
        type=cli.number_between(0, 1),
        default=0.0,
        help="leave out variants whose exact test of equilibrium has a smaller p",
    )
    add("--keep-variants", type=Path, help="list of the variants to keep")
    add("--remove-variants", type=Path, help="list of variants to leave out")
    add(
        "--block-variants",
        type=cli.positive_integer,
        default=BLOCK_VARIANTS,
        help="variants a product",
    )
    add("--out", type=Path, required=True, help="minimal dataset of the chunk")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    cli.check_minor_allele_count(args.minor_allele_count)
    # Every product is computed by one thread of BLAS; the threads share out the blocks.
    with (
        cli.threads(1),
        formats.open_file(args.null, "null") as null_file,
        open_genotypes(
            args.genotypes,
            args.variants,
            args.samples,
            subject_id=args.subject_id,
            variant_range=_asked(args),
        ) as genotypes,
    ):
        if "residual_ldrs" not in null_file or "Q" not in null_file:
            raise InputError(
                f"{args.null}: holds no people, only their cross-product, so that nothing can be "
                "associated with it; give the null model of FIT_NULL"
            )
        _run(args, null_file, genotypes)


def _run(args: argparse.Namespace, null_file: formats.Envelope, genotypes: Genotypes) -> None:
    first, stop = _range(args, genotypes)
    rows = genotypes.subject_index(null_file.array("subject"))
    # The null model is brought in the order of the file, not the genotypes in that of the model.
    order = np.argsort(rows)
    variants = genotypes.variants.loc[first : stop - 1]
    warnings: list[str] = []
    plan = _plan(args, null_file, genotypes, rows[order], order, variants, warnings)
    filters = Filters(
        minor_allele_frequency=args.minor_allele_frequency,
        minor_allele_count=args.minor_allele_count,
        minimum_info=args.minimum_info,
        maximum_missing_rate=args.maximum_missing_rate,
        hardy_weinberg_p=args.hardy_weinberg_p,
    )
    info = None
    if args.minimum_info > 0:
        info = read_info(genotypes.variants_path, first, stop)
    n, p = null_file["Q"].shape
    r = null_file["A"].shape[1]
    _state_memory(args, genotypes, n, r, p, stop - first)
    chunk = _Chunk(args.dataset_coding, r)
    models = _Models(null_file, order, str(args.null))
    with _readers(args, genotypes, rows[order], first, stop, r + p) as free:

        def one(job: tuple[_Block, NullModel]) -> BlockResult:
            block, null = job
            reader, workspace = free.get()
            try:
                return associate_block(
                    reader.read(block.first, block.stop),
                    null,
                    workspace,
                    first=block.first,
                    filters=filters,
                    kind=block.kind,
                    sexes=plan.sexes,
                    info=None if info is None else info[block.first - first : block.stop - first],
                )
            finally:
                free.put((reader, workspace))

        jobs = ((block, models.row(block.row)) for block in plan.blocks)
        results = ordered_map(one, jobs, args.threads)
        for result in cli.progress(results, len(plan.blocks), "block"):
            chunk.append(result, plan.left_out[result.first - first : result.stop - first])
    counts = chunk.counts(variants["chromosome"].to_numpy(dtype=object))
    crossed = chunk.crossed(variants["chromosome"].to_numpy(dtype=object))
    for name, number in crossed.items():
        cli.warn(
            f"{genotypes.path.name}: {number} genotypes of men on chromosome {name} show two "
            "different alleles where there is one copy, and are made missing",
            warnings,
        )
    _write(args, null_file, variants, chunk, counts, plan.a_index, filters)
    totals = total_counts(counts)
    cli.report(
        f"{totals['read']} variants read, {totals['written']} written, dropped: "
        f"{totals['dropped'] or 'none'}, without estimate: {totals['missing'] or 'none'}"
    )
    numbers = {
        "n": n, "p": p, "r": r, "counts": counts, "haploid_heterozygotes": crossed,
        "filters": filters.as_parameters(), "arithmetic": sorted(models.arithmetic), **totals,
    }  # fmt: skip
    cli.write_summary(args.summary, "component_gwas", numbers, warnings)


def _state_memory(
    args: argparse.Namespace, genotypes: Genotypes, n: int, r: int, p: int, m: int
) -> None:
    block = args.block_variants
    row_bytes = width(n) * 2 if genotypes.has_dosages else width(n) // 4
    cli.state_memory(
        f"{m} variants x {n} people x {r} components",
        LIBRARY_BYTES
        # A block and what is read of it, products, results waiting; null model; results.
        + args.threads * (block * row_bytes + (8 << 20) + 5 * len(genotypes.subject))
        + args.threads * workspace_bytes(r + p, block)
        + 2 * block * 8 * r
        + n * (28 * r + 28 * p)
        + m * (4 * r + 200),
    )


@dataclass(frozen=True)
class _Block:
    """Variants that are computed together: one row of the null model, one kind of ploidy."""

    first: int
    stop: int
    row: int
    kind: int


@dataclass(frozen=True)
class _Plan:
    """What is to be done with each variant of the chunk."""

    blocks: list[_Block]
    a_index: np.ndarray
    left_out: np.ndarray
    sexes: Sexes | None


def _plan(
    args: argparse.Namespace,
    null_file: formats.Envelope,
    genotypes: Genotypes,
    rows: np.ndarray,
    order: np.ndarray,
    variants,
    warnings: list[str],
) -> _Plan:
    codes, names = variants["chromosome"].factorize()
    ranks = np.array([RANK[name] for name in names])[codes]
    a_index = rows_of_chromosomes(null_file, ranks)
    kinds = np.array([_KINDS.get(name, DIPLOID) for name in names])[codes]
    on_x = ranks == RANK["X"]
    try:
        inside = pseudoautosomal(variants["base_pair_location"].to_numpy()[on_x], args.genome_build)
    except InputError as error:
        raise InputError(f"{genotypes.variants_path}: {error}") from error
    kinds[on_x] = np.where(inside, DIPLOID, X)
    sexes = None
    if np.isin(kinds, (X, Y)).any():
        sexes = Sexes.of(_sex(genotypes, rows, null_file, order, warnings))
    left_out = np.zeros(len(variants), dtype=np.int8)
    if args.keep_variants is not None:
        left_out[~listed_variants(args.keep_variants, variants)] = NOT_KEPT
    if args.remove_variants is not None:
        left_out[listed_variants(args.remove_variants, variants)] = REMOVED
    change = np.flatnonzero((np.diff(a_index) != 0) | (np.diff(kinds) != 0)) + 1
    bounds = [0, *change.tolist(), len(variants)]
    first, size = int(variants.index[0]), args.block_variants
    blocks = [
        _Block(first + start, first + min(start + size, high), int(a_index[low]), int(kinds[low]))
        for low, high in itertools.pairwise(bounds)
        for start in range(low, high, size)
    ]
    return _Plan(blocks, a_index, left_out, sexes)


def _sex(
    genotypes: Genotypes,
    rows: np.ndarray,
    null_file: formats.Envelope,
    order: np.ndarray,
    warnings: list[str],
) -> np.ndarray:
    """Return the sexes of these rows of the file: of the covariates, else of the file."""
    sex = read_sex(genotypes.samples_path)[rows]
    if "sex" in null_file:
        given = null_file["sex"][...][order]
        known, told = given != UNKNOWN, sex != UNKNOWN
        differ = int(np.sum(known & told & (given != sex)))
        if differ:
            cli.warn(
                f"{genotypes.samples_path.name}: the sex of {differ} of {len(sex)} subjects is "
                "another than that of sex_column, which is taken",
                warnings,
            )
        sex = np.where(known, given, sex)
    unknown = int(np.sum(sex == UNKNOWN))
    if unknown == len(sex):
        raise InputError(
            f"{genotypes.samples_path}: gives the sex of none of the {len(sex)} subjects, which "
            "variants on X outside the pseudo-autosomal regions and on Y need; fill in its column "
            "SEX (1 male, 2 female), or name a covariate as sex_column"
        )
    if unknown:
        cli.warn(
            f"{genotypes.samples_path.name}: the sex of {unknown} subjects is unknown: their "
            "genotypes on X outside the pseudo-autosomal regions and on Y are taken as missing",
            warnings,
        )
    return sex


class _Models:
    """Null models by row, of which the last is kept."""

    def __init__(self, null_file: formats.Envelope, order: np.ndarray, name: str):
        self.file, self.order, self.name = null_file, order, name
        self.last: tuple[int, NullModel] | None = None
        self.arithmetic: set[str] = set()

    def row(self, row: int) -> NullModel:
        """Return the null model of a row of the file, in the genotypes' order of people."""
        if self.last is None or self.last[0] != row:
            self.last = None
            Q, residual = self.file["Q"][...], self.file["residual_ldrs"][row]
            try:
                self.last = row, null_model(Q, residual, self.order)
            except ValueError as error:
                raise InputError(f"{self.name}: {error}") from error
            self.arithmetic.add(self.last[1].arithmetic)
        return self.last[1]


@contextlib.contextmanager
def _readers(
    args: argparse.Namespace,
    genotypes: Genotypes,
    rows: np.ndarray,
    first: int,
    stop: int,
    columns: int,
) -> Iterator[queue.SimpleQueue]:
    """Make a reader and working memory for each thread."""
    free: queue.SimpleQueue = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        for _ in range(args.threads):
            reader = PackedReader(genotypes, rows, first, stop, args.block_variants)
            stack.callback(reader.close)
            free.put((reader, Workspace(columns, args.block_variants)))
        yield free


def _asked(args: argparse.Namespace) -> tuple[int, int] | None:
    """Return the range of variants that was asked for, or None for the whole file."""
    if args.n_variants is None:
        return None
    return max(0, args.first_variant), args.first_variant + args.n_variants


def _range(args: argparse.Namespace, genotypes: Genotypes) -> tuple[int, int]:
    m = genotypes.n_variants
    stop = m if args.n_variants is None else args.first_variant + args.n_variants
    if not 0 <= args.first_variant < stop <= m:
        raise InputError(
            f"--first-variant {args.first_variant} and --n-variants {args.n_variants} do not lie "
            f"within the {m} variants of {args.genotypes}; plan the chunks again"
        )
    return args.first_variant, stop


class _Chunk:
    """The rows to write, coded as they come."""

    def __init__(self, coding: str, r: int):
        self.coding = coding
        self.status: list[np.ndarray] = []
        self.heterozygotes: list[np.ndarray] = []
        dtype = np.int16 if coding == "int16" else np.float32
        self.z = [np.empty((0, r), dtype=dtype)]
        self.columns: dict[str, list[np.ndarray]] = {
            "scale": [np.empty(0)],
            "a": [np.empty(0)],
            "variants/effect_allele_frequency": [np.empty(0)],
            "variants/missing_rate": [np.empty(0)],
        }

    def append(self, result: BlockResult, left_out: np.ndarray) -> None:
        """Code and keep the rows of a block that are written.

        ``left_out`` is the reason of those that the user's lists leave out, else 0.
        """
        status = np.where(left_out > 0, left_out, result.status)
        self.status.append(status)
        self.heterozygotes.append(result.haploid_heterozygotes)
        keep = _written(status)
        codes, scale = encode_z(result.z[keep], self.coding)
        self.z.append(codes)
        for name, values in (
            ("scale", scale),
            ("a", result.a[keep]),
            ("variants/effect_allele_frequency", result.frequency[keep]),
            ("variants/missing_rate", result.missing_rate[keep]),
        ):
            self.columns[name].append(values)

    def kept(self) -> np.ndarray:
        """Return which variants of the chunk are written, as indexes."""
        return np.flatnonzero(_written(np.concatenate(self.status)))

    def counts(self, chromosome: np.ndarray) -> dict[str, dict]:
        """Return, by chromosome, how many were read, written, dropped and without estimate."""
        status = np.concatenate(self.status)
        table = {}
        for name in sorted(set(chromosome), key=RANK.__getitem__):
            here = status[chromosome == name]
            dropped = _numbers(here, DROPPED)
            table[name] = {
                "read": len(here),
                "written": len(here) - sum(dropped.values()),
                "dropped": dropped,
                "missing": _numbers(here, MISSING_ROWS),
            }
        return table

    def crossed(self, chromosome: np.ndarray) -> dict[str, int]:
        """Return, by chromosome, the heterozygous genotypes of one copy that were made missing."""
        number = np.concatenate(self.heterozygotes)
        found = {name: int(number[chromosome == name].sum()) for name in ("X", "Y")}
        return {name: total for name, total in found.items() if total}


def _written(status: np.ndarray) -> np.ndarray:
    return np.isin(status, (ESTIMATED, *MISSING_ROWS))


def _numbers(status: np.ndarray, reasons: dict[int, str]) -> dict[str, int]:
    numbers = {text: int((status == reason).sum()) for reason, text in reasons.items()}
    return {text: number for text, number in numbers.items() if number}


def _write(
    args: argparse.Namespace,
    null_file: formats.Envelope,
    variants,
    chunk: _Chunk,
    counts: dict[str, dict],
    a_index: np.ndarray,
    filters: Filters,
) -> None:
    kept = chunk.kept()
    variants = variants.iloc[kept]
    parameters = filters.as_parameters()
    parameters.pop("minor_allele_count")
    for name in ("keep_variants", "remove_variants"):
        path = getattr(args, name)
        parameters[name] = "" if path is None else _content_hash(path)
    columns = {name: np.concatenate(values) for name, values in chunk.columns.items()}
    columns |= {
        "z": np.concatenate(chunk.z),
        "A_index": a_index[kept],
        "variants/chromosome": variants["chromosome"].map(RANK).to_numpy(dtype=np.int64),
        "variants/base_pair_location": variants["base_pair_location"].to_numpy(),
        **{f"variants/{name}": variants[name] for name in TEXT_COLUMNS},
    }
    write_chunk(
        args.out,
        null_file,
        columns,
        coding=args.dataset_coding,
        genome_build=args.genome_build,
        minor_allele_count=args.minor_allele_count,
        counts=counts,
        parameters=parameters,
        code=args.code,
    )


def _content_hash(path: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 of a list, so that runs can be told apart."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]


if __name__ == "__main__":
    cli.run(main)
