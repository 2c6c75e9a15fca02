#!/usr/bin/env python3
"""Import component summary statistics of another program as chunks of a minimal dataset."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rvga import cli, formats, recovery
from rvga.chromosomes import RANK
from rvga.coding import encode_z
from rvga.component_sumstats import (
    LARGEST_POSITION,
    Block,
    HeigFile,
    OrderError,
    RepeatedError,
    TextFile,
    aligned_blocks,
    component_order,
    joined_blocks,
    open_files,
)
from rvga.errors import InputError
from rvga.minimal import TEXT_COLUMNS, merge_counts, total_counts, write_chunk
from rvga.null import null_size, rows_of_chromosomes

# Variants that the components' agreement is judged by before anything is trusted.
JUDGED_VARIANTS = 5000
# A component's residual variance may differ from A's by this share, beyond rounding.
VARIANCE_SHARE = 2e-3
# Share of variants on which components may disagree.
DISAGREEING_SHARE = 0.01
# Least share of the sample that a variant was tested in.
LEAST_SAMPLE = 0.9
# Below this, a component's correlations with the others have the opposite sign of A's.
TURNED = -0.5
# Bounds of the median of a / (2 f (1 - f) n): what imputation and covariates leave.
SCALE_BOUNDS = (0.2, 1.25)

ESTIMATED, NO_ESTIMATE, DISAGREE, OTHER_SAMPLE, ALLELES, BELOW_COUNT, BELOW_FREQUENCY = range(7)
MISSING = {
    NO_ESTIMATE: "no_estimate",
    DISAGREE: "components_disagree",
    OTHER_SAMPLE: "sample_size_differs",
}
DROPPED = {
    ALLELES: "alleles_not_valid",
    BELOW_COUNT: "below_minor_allele_count",
    BELOW_FREQUENCY: "below_minor_allele_frequency",
}


def parser() -> argparse.ArgumentParser:
    """Return the stage's command line."""
    arguments = cli.make_parser(__doc__)
    add = arguments.add_argument
    add(
        "--component-sumstats",
        type=Path,
        nargs="+",
        required=True,
        help="component summary statistics",
    )
    add("--components", type=cli.names, required=True, help="component of each file, or all")
    add("--variants", type=Path, help="HEIG's .snpinfo; default: the stem of its .sumstats")
    add("--null", type=Path, required=True, help="null model of the study")
    cli.add_dataset_options(arguments)
    add("--chunk-variants", type=cli.positive_integer, default=20000, help="variants of a chunk")
    add("--out", type=Path, required=True, help="chunks to write: OUT.00001.h5, OUT.00002.h5, …")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    cli.check_minor_allele_count(args.minor_allele_count)
    with cli.threads(1), formats.open_file(args.null, "null") as null:
        files = open_files(args.component_sumstats, args.components, args.variants)
        importer = Importer(args, null, files)
        try:
            importer.run()
        except BaseException:
            importer.remove_chunks()
            raise
        cli.write_summary(args.summary, "import_sumstats", importer.numbers(), importer.warnings)


class Importer:
    """Files of component statistics on their way to chunks."""

    def __init__(
        self, args: argparse.Namespace, null: formats.Envelope, files: list[TextFile | HeigFile]
    ):
        self.args = args
        self.null = null
        self.files = files
        self.A = null["A"][...]
        self.diagonal = np.einsum("crr->cr", self.A)
        self.n, self.p = null_size(null)
        self.nu = self.n - self.p - 1
        self.order = component_order(files, self.A.shape[1])
        self.score = files[0].score
        self.digits = min(file.digits for file in files)
        self.tolerance = recovery.tolerance(self.digits)
        self.warnings: list[str] = []
        self._start()

    def _start(self) -> None:
        self.chunks: list[Path] = []
        self.counts: dict[str, dict] = {}
        self.n_unknown = 0
        self.joined = False
        self.judged: dict[str, object] | None = None
        self._inverse: list[np.ndarray] = []
        self._scale: list[np.ndarray] = []
        self._people: list[np.ndarray] = []
        self._z: list[np.ndarray] = []
        self.turned: list[str] = []

    def run(self) -> None:
        """Write every chunk."""
        args, r = self.args, self.A.shape[1]
        if self.digits < 4:
            cli.warn(
                f"{self.files[0].path.name}: standard errors have {self.digits} significant "
                "digits only, and no result is more precise; let the program print more",
                self.warnings,
            )
        if r == 1:
            cli.warn("one component only: whether it belongs to A cannot be checked", self.warnings)
        cli.state_memory(
            f"{args.chunk_variants} variants x {r} components at a time",
            120.0 * args.chunk_variants * r + 2000.0 * args.chunk_variants,
        )
        try:
            self._write_aligned()
        except OrderError:
            self.remove_chunks()
            self._start()
            self.joined = True
            cli.report(
                "the files differ in their variants or their order: they are held whole and "
                "joined by chromosome, position and alleles (memory: about 400 bytes x variants "
                "x files)"
            )
            self._write_all(joined_blocks(self.files, self.order, args.chunk_variants))
        self._check_shares()

    def _write_aligned(self) -> None:
        blocks = (self.files, self.order, self.args.chunk_variants)
        try:
            self._write_all(aligned_blocks(*blocks))
        except RepeatedError as error:
            self.remove_chunks()
            self._start()
            cli.report(f"{error}: the files are read once more without them")
            self._write_all(aligned_blocks(*blocks, error.hashes))

    def _write_all(self, blocks: Iterator[tuple[Block, pd.DataFrame]]) -> None:
        for block, dropped in blocks:
            self._write(block, dropped)
        if not self.chunks:
            raise InputError(
                f"{self.files[0].path}: no variant is left that every component has; give files "
                "of the same variants"
            )
        self._judge()

    def remove_chunks(self) -> None:
        """Remove the chunks that were written."""
        for path in self.chunks:
            path.unlink(missing_ok=True)
        self.chunks = []

    def _write(self, block: Block, dropped: pd.DataFrame) -> None:
        code = self._codes(block.keys["chromosome"])
        self.n_unknown += int((code == 0).sum())
        block, code = block.rows(code > 0), code[code > 0]
        row_of_A = rows_of_chromosomes(self.null, code)
        diagonal = self.diagonal[row_of_A]
        inverse = recovery.inverse_a(
            block.beta, block.standard_error, diagonal, self.nu, self.score
        )
        a = recovery.mean_a(inverse)
        z = block.z
        if z is None:
            z = recovery.t_statistics(
                block.beta, block.standard_error, a, diagonal, self.nu, self.score
            )
        frequency, status = self._screen(block, code, a, z, inverse)
        self._collect(block, code, a, z, inverse, frequency, status)
        counts = self._counts(code, status)
        self._count_left_out(counts, dropped)
        self.counts = merge_counts([self.counts, counts])
        keep = np.isin(status, (ESTIMATED, *MISSING))
        unknown = status[keep] != ESTIMATED
        a, z = np.where(unknown, np.nan, a[keep]), np.where(unknown[:, None], np.nan, z[keep])
        self._write_chunk(block.rows(keep), code[keep], row_of_A[keep], a, z, counts)

    def _codes(self, names: pd.Series) -> np.ndarray:
        """Return each variant's chromosome as a rank, 0 for contigs that are none."""
        return names.map(RANK).fillna(0).to_numpy(dtype=np.int64)

    def _screen(
        self,
        block: Block,
        code: np.ndarray,
        a: np.ndarray,
        z: np.ndarray,
        inverse: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the frequency that counts are made from, and what becomes of each variant."""
        status = np.full(len(a), ESTIMATED, dtype=np.int8)
        there = np.isfinite(z).all(axis=1) & np.isfinite(a) & (a > 0)
        people = np.where(np.isfinite(block.n), block.n, self.n)
        far = recovery.disagreement(inverse, a)
        allowed = recovery.allowed_disagreement(self.tolerance, self.n, block.n)
        status[far > allowed] = DISAGREE
        status[(people > self.n) | (people < LEAST_SAMPLE * self.n)] = OTHER_SAMPLE
        status[~there] = NO_ESTIMATE
        frequency = np.where(
            np.isfinite(block.frequency), block.frequency, recovery.frequency_from_a(a, self.n)
        )
        minor = np.minimum(frequency, 1.0 - frequency)
        # On X, Y and MT the people may carry one allele each: the least that can be.
        alleles = np.where(code > 22, 1.0, 2.0) * people
        # The rounding of printed frequencies must not decide at the bound.
        bound = 1.0 - self.files[0].frequency_rounding
        status[minor < self.args.minor_allele_frequency * bound] = BELOW_FREQUENCY
        status[minor * alleles < self.args.minor_allele_count * bound] = BELOW_COUNT
        effect, other = block.keys["effect_allele"], block.keys["other_allele"]
        valid = effect.str.fullmatch("[^,.\\s]+") & other.str.fullmatch("[^,.\\s]+")
        valid &= (effect + other).map(str.isprintable).astype(bool)
        status[~(valid & (effect != other)).to_numpy(dtype=bool)] = ALLELES
        return frequency, status

    def _collect(
        self,
        block: Block,
        code: np.ndarray,
        a: np.ndarray,
        z: np.ndarray,
        inverse: np.ndarray,
        frequency: np.ndarray,
        status: np.ndarray,
    ) -> None:
        """Keep what the judgement needs, until there is enough."""
        if self.judged is not None:
            return
        use = np.isin(status, (ESTIMATED, DISAGREE, OTHER_SAMPLE))
        self._inverse.append(inverse[use])
        self._z.append(z[use])
        known = use & np.isfinite(block.frequency) & (code <= 22)
        share = 2.0 * frequency[known] * (1.0 - frequency[known]) * self.n
        self._scale.append(a[known] / np.maximum(share, np.finfo(float).tiny))
        self._people.append(block.n[use & np.isfinite(block.n)])
        if sum(map(len, self._inverse)) >= JUDGED_VARIANTS:
            self._judge()

    def _judge(self) -> None:
        """Refuse statistics that were not made with the people, covariates and LDRs of A."""
        if self.judged is not None:
            return
        inverse = np.concatenate(self._inverse)
        ratio = recovery.component_ratios(inverse)
        scale, people = np.concatenate(self._scale), np.concatenate(self._people)
        name = self.args.null.name
        if len(people):
            usual = float(np.median(people))
            if usual > self.n or usual < LEAST_SAMPLE * self.n:
                raise InputError(
                    f"component_sumstats: variants were tested in {usual:.0f} people, but "
                    f"{name} has {self.n}: give the sample (ldrs and covariates, or "
                    "residual_cross_product with n_subjects) that the statistics were made with"
                )
        bound = max(VARIANCE_SHARE, 2.0 * self.tolerance)
        wrong = np.flatnonzero(np.abs(ratio - 1.0) > bound)
        if len(wrong):
            worst = int(np.argmax(np.abs(ratio - 1.0)))
            raise InputError(
                f"component_sumstats: {len(wrong)} of {len(ratio)} components disagree with the "
                f"residual variances in {name}, most of all LDR{worst + 1}, whose variance was "
                f"{ratio[worst]:.4g} times what it should be beside the others: they were made "
                "with other LDRs, other covariates, a transformation of the phenotype (such as "
                "rank-inverse-normal), or predictions taken off (give loco_predictions too)"
            )
        usual = float(np.median(scale)) if len(scale) else None
        if usual is not None and not SCALE_BOUNDS[0] <= usual <= SCALE_BOUNDS[1]:
            raise InputError(
                f"component_sumstats: a variant carries {usual:.4g} times the information that "
                f"its frequency and {self.n} people allow: all components are on another scale "
                f"than {name} (a covariance in place of the cross-product S'PS, standardised "
                "phenotypes, or another sample)"
            )
        self.judged = {
            "n_variants": len(inverse),
            "least_component_ratio": float(ratio.min()),
            "largest_component_ratio": float(ratio.max()),
            "information_share": usual,
        }
        # With predictions taken off, every chromosome has an A; they differ little in this.
        agreement = recovery.sign_agreement(np.concatenate(self._z), self.A.mean(axis=0))
        self.turned = [f"LDR{j + 1}" for j in np.flatnonzero(agreement < TURNED)]
        self._inverse, self._scale, self._people, self._z = [], [], [], []

    def _check_shares(self) -> None:
        totals = total_counts(self.counts)
        disagree = totals["missing"].get(MISSING[DISAGREE], 0)
        if disagree > DISAGREEING_SHARE * totals["written"] and disagree > 1:
            raise InputError(
                f"component_sumstats: the components disagree on {disagree} of "
                f"{totals['written']} variants, which a few mistakes do not explain: they were "
                "not all made from the same genotypes, people and covariates"
            )
        if disagree:
            cli.warn(
                f"the components disagree on {disagree} variants, which have no estimate",
                self.warnings,
            )
        if self.turned:
            cli.warn(
                f"{', '.join(self.turned)}: correlated with other components with the opposite "
                f"sign of A's in {self.args.null.name}; the sign of an LDR may be turned",
                self.warnings,
            )
        differs = totals["missing"].get(MISSING[OTHER_SAMPLE], 0)
        if differs:
            cli.warn(
                f"{differs} variants were tested in fewer than {100 * LEAST_SAMPLE:.0f} % of the "
                "sample, or in more people, and have no estimate",
                self.warnings,
            )
        if self.n_unknown:
            cli.warn(
                f"{self.n_unknown} variants are on contigs other than 1-22, X, Y and MT and are "
                "left out",
                self.warnings,
            )
        if self.joined:
            cli.warn(
                "the files differ in their variants or their order and were joined by chromosome, "
                f"position and alleles; {totals['dropped'].get('not_in_every_component', 0)} "
                "variants are not in every file",
                self.warnings,
            )
        cli.report(
            f"{totals['read']} variants of {self.files[0].format} read, {totals['written']} "
            f"written, dropped: {totals['dropped'] or 'none'}, without estimate: "
            f"{totals['missing'] or 'none'}"
        )

    def _counts(self, code: np.ndarray, status: np.ndarray) -> dict[str, dict]:
        table = {}
        for name, rank in RANK.items():
            here = status[code == rank]
            if len(here) == 0:
                continue
            dropped, missing = (
                {reason: int((here == key).sum()) for key, reason in reasons.items()}
                for reasons in (DROPPED, MISSING)
            )
            table[name] = {
                "read": len(here),
                "written": len(here) - sum(dropped.values()),
                "dropped": {reason: number for reason, number in dropped.items() if number},
                "missing": {reason: number for reason, number in missing.items() if number},
            }
        return table

    def _count_left_out(self, counts: dict[str, dict], dropped: pd.DataFrame) -> None:
        """Count variants that not every file has, or one has twice."""
        code = self._codes(dropped["chromosome"])
        self.n_unknown += int((code == 0).sum())
        names = {rank: name for name, rank in RANK.items()}
        for rank, reason in zip(code[code > 0], dropped["reason"][code > 0], strict=True):
            entry = counts.setdefault(
                names[int(rank)], {"read": 0, "written": 0, "dropped": {}, "missing": {}}
            )
            entry["read"] += 1
            entry["dropped"][reason] = entry["dropped"].get(reason, 0) + 1

    def _write_chunk(
        self,
        block: Block,
        code: np.ndarray,
        row_of_A: np.ndarray,
        a: np.ndarray,
        z: np.ndarray,
        counts: dict[str, dict],
    ) -> None:
        args, m = self.args, len(z)
        position = block.keys["base_pair_location"].to_numpy()
        if np.any((position < 1) | (position > LARGEST_POSITION)):
            raise ValueError(f"positions are outside 1 to {LARGEST_POSITION}")
        path = args.out.with_name(f"{args.out.name}.{len(self.chunks) + 1:05d}.h5")
        codes, scale = encode_z(z, args.dataset_coding)
        folded = isinstance(self.files[0], HeigFile) and self.files[0].folded
        columns = {
            "z": codes,
            "scale": scale,
            "a": a,
            "A_index": row_of_A,
            "variants/chromosome": code,
            "variants/base_pair_location": position,
            "variants/effect_allele_frequency": np.full(m, np.nan) if folded else block.frequency,
            "variants/missing_rate": 1.0 - block.n / self.n,
            **{f"variants/{name}": block.keys[name] for name in TEXT_COLUMNS},
        }
        write_chunk(
            path,
            self.null,
            columns,
            coding=args.dataset_coding,
            genome_build=args.genome_build,
            minor_allele_count=args.minor_allele_count,
            counts=counts,
            parameters={"minor_allele_frequency": args.minor_allele_frequency},
            code=args.code,
        )
        self.chunks.append(path)

    def numbers(self) -> dict[str, object]:
        """Return what the summary holds."""
        return {
            "n": self.n,
            "p": self.p,
            "r": self.A.shape[1],
            "format": self.files[0].format,
            "n_files": len(self.files),
            "n_chunks": len(self.chunks),
            "joined_by_key": self.joined,
            "significant_digits": self.digits,
            "tolerance": self.tolerance,
            "agreement": self.judged,
            "n_on_other_contigs": self.n_unknown,
            "counts": self.counts,
            **total_counts(self.counts),
        }


if __name__ == "__main__":
    cli.run(main)
