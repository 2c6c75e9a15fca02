"""Genotype files of a simulated study: simulated ones, or those of a user with panels beside."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pgenlib

from rvga import cli, simulate
from rvga.chromosomes import AUTOSOMES, RANK
from rvga.errors import InputError
from rvga.genotypes import MISSING, open_genotypes

BLOCK = 512  # variants held at a time
HIDDEN = ".trait"  # folder of the trait's people, until their statistics are made
_MISSING_RATE = 0.01


@dataclass
class Causal:
    """Causal variants of a study; ``study`` and ``trait`` are true dosages (l, people)."""

    variants: list[pd.DataFrame] = field(default_factory=list)
    planted: list[np.ndarray] = field(default_factory=list)
    study: list[np.ndarray] = field(default_factory=list)
    trait: list[np.ndarray] = field(default_factory=list)

    def add(
        self,
        variants: pd.DataFrame,
        planted: np.ndarray,
        background: np.ndarray,
        study: Callable[[np.ndarray], np.ndarray],
        trait: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """Add a file's causal variants by index; ``study`` and ``trait`` fetch their dosages."""
        index = np.sort(np.concatenate([planted, background]))
        if index.size == 0:
            return
        self.variants.append(variants.iloc[index])
        self.planted.append(np.isin(index, planted))
        self.study.append(study(index))
        if trait is not None:
            self.trait.append(trait(index))

    def merged(self) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, np.ndarray | None]:
        """Return variants, planted (l,), study dosages (l, n), trait people's dosages."""
        trait = np.concatenate(self.trait) if self.trait else None
        return (
            pd.concat(self.variants, ignore_index=True),
            np.concatenate(self.planted),
            np.concatenate(self.study).astype(np.float64),
            trait,
        )


@contextlib.contextmanager
def _pgen(
    stem: Path, samples: pd.DataFrame, variants: pd.DataFrame, has_dosages: bool
) -> Iterator[pgenlib.PgenWriter]:
    """Write ``.psam`` and ``.pvar`` and yield the writer of the ``.pgen`` of the same stem."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    samples.to_csv(f"{stem}.psam", sep="\t", index=False, lineterminator="\n")
    table = pd.DataFrame(
        {
            "#CHROM": variants["chromosome"],
            "POS": variants["base_pair_location"],
            "ID": variants["variant_id"],
            "REF": variants["other_allele"],
            "ALT": variants["effect_allele"],
        }
    )
    with open(f"{stem}.pvar", "w", newline="\n") as handle:
        handle.write("##fileformat=VCFv4.2\n")
        table.to_csv(handle, sep="\t", index=False, lineterminator="\n")
    with pgenlib.PgenWriter(
        f"{stem}.pgen".encode(),
        len(samples),
        variant_ct=len(variants),
        nonref_flags=False,
        dosage_present=has_dosages,
    ) as writer:
        yield writer


def _append(writer: pgenlib.PgenWriter, block: np.ndarray) -> None:
    """Append variants (m, n): int8 calls or float32 dosages, -9 missing."""
    block = np.ascontiguousarray(block)
    if block.dtype == np.int8:
        writer.append_biallelic_batch(block)
    else:
        writer.append_dosages_batch(block)


def _write_pgen(
    stem: Path, samples: pd.DataFrame, variants: pd.DataFrame, genotypes: np.ndarray
) -> None:
    with _pgen(stem, samples, variants, genotypes.dtype != np.int8) as writer:
        for first in range(0, len(genotypes), BLOCK):
            _append(writer, genotypes[first : first + BLOCK])


def _samples(prefix: str, n: int, male: np.ndarray) -> pd.DataFrame:
    names = [f"{prefix}{number:05d}" for number in range(1, n + 1)]
    return pd.DataFrame({"#IID": names, "SEX": np.where(male, 1, 2)})


def _shares(total: int, parts: int) -> list[int]:
    """Split a number into nearly equal parts, the larger ones first."""
    return [total // parts + (part < total % parts) for part in range(parts)]


@dataclass
class Population:
    """What the genotypes of a study decide."""

    subject: np.ndarray  # ids of everybody in the study
    male: np.ndarray | None
    role: np.ndarray  # 0 complete, 1 no genotypes, 2 no image, 3 no covariates, 4 a value missing
    causal: Causal
    n_variants: int
    n_chromosomes: int
    n_panel: tuple[int, int]
    null_chromosomes: list[str]  # those without a causal variant


def _roles(n: int, kinds: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Give a few people (0.4 %, at least one, of each kind) incomplete data."""
    role = np.zeros(n, dtype=np.int8)
    each = max(1, round(0.004 * n))
    role[rng.permutation(n)[: each * len(kinds)]] = np.repeat(kinds, each)
    return role


def simulated_genotypes(folder: Path, options: dict[str, Any]) -> Population:
    """Simulate and write all genotype files; those of the trait's people go to a hidden folder."""
    seed = options["seed"]
    sizes = [
        options["subjects"], options["panel_subjects"], options["panel_subjects"],
        options["trait_subjects"],
    ]  # fmt: skip
    n_people, bounds = sum(sizes), np.cumsum([0, *sizes])
    male = simulate.generator(seed, "sex").random(n_people) < 0.5
    samples = [
        _samples(prefix, size, male[first : first + size])
        for prefix, size, first in zip(
            ("sub-", "ref1-", "ref2-", "trait-"), sizes, bounds, strict=False
        )
    ]
    role = _roles(sizes[0], (1, 2, 3, 4), simulate.generator(seed, "roles"))
    genotyped = np.flatnonzero(role != 1)
    n_chromosomes = options["chromosomes"]
    counts = _shares(options["variants"], n_chromosomes)
    cli.state_memory("one chromosome's genotypes", counts[0] * n_people * 22.0 + 2e8)
    _state_causal(options, sizes[0] + sizes[3])
    planted, has_background = simulate.choose_chromosomes(
        n_chromosomes, options["null_chromosomes"], options["planted_loci"],
        simulate.generator(seed, "chromosomes"),
    )  # fmt: skip
    background = _background_counts(counts, has_background, options)
    causal = Causal()
    for number in cli.progress(range(n_chromosomes), n_chromosomes, "chromosome"):
        label = str(number + 1)
        try:
            position, genotypes = simulate.simulate_chromosome(
                n_people, counts[number], options["chromosome_length"],
                options["minor_allele_frequency"], int(seed) * 100 + number + 1,
            )  # fmt: skip
        except ValueError as error:
            raise InputError(
                f"--variants {options['variants']}: {error}; give --chromosome-length more"
            ) from error
        rng = simulate.generator(seed, "variants", number)
        variants = _name_variants(label, position, rng)
        study, panel_1, panel_2, trait = np.split(genotypes, bounds[1:-1], axis=1)
        chosen = simulate.choose_causal(
            study.mean(axis=1) / 2, int(planted[number]), int(background[number]), rng
        )
        causal.add(
            variants, *chosen,
            lambda index, study=study: study[index],
            (lambda index, trait=trait: trait[index]) if sizes[3] else None,
        )  # fmt: skip
        name = f"chr{label}"
        observed = _observe(np.hstack([study[:, genotyped], trait]), number, rng)
        _write_pgen(
            folder / "genotypes" / name, samples[0].iloc[genotyped], variants,
            observed[:, : len(genotyped)],
        )  # fmt: skip
        for panel, (calls, people) in enumerate(
            ((panel_1, samples[1]), (panel_2, samples[2])), start=1
        ):
            # A panel never has quite the study's variants.
            kept = np.flatnonzero(rng.random(len(variants)) >= 0.01)
            _write_pgen(
                folder / f"ld_panel_{panel}" / name, people, variants.iloc[kept], calls[kept]
            )
        if sizes[3]:
            _write_pgen(folder / HIDDEN / name, samples[3], variants, observed[:, len(genotyped) :])
    labels = [str(number + 1) for number in range(n_chromosomes)]
    for sheet in ("genotypes", "ld_panel_1", "ld_panel_2"):
        write_sheet(
            folder / f"{sheet}.csv",
            ["chromosome", "path"],
            [[label, f"{sheet}/chr{label}.pgen"] for label in labels],
        )
    return Population(
        samples[0]["#IID"].to_numpy(dtype=str), male[: sizes[0]], role, causal,
        options["variants"], n_chromosomes, (sizes[1], sizes[2]),
        [label for label, k in zip(labels, planted + background, strict=True) if not k],
    )  # fmt: skip


def _state_causal(options: dict[str, Any], n_people: int) -> None:
    """State the memory of the causal variants' dosages, which stay until the images are made."""
    n_causal = options["causal_variants"] + options["planted_loci"]
    cli.state_memory("dosages of the causal variants", n_causal * n_people * 32.0)


def _background_counts(
    sizes: Sequence[int], has_background: np.ndarray, options: dict[str, Any]
) -> np.ndarray:
    """Share the background variants out in proportion to the variants of the chromosomes.

    Raises
    ------
    InputError
        More causal variants than half of those that may be.
    """
    room = np.where(has_background, sizes, 0)
    if options["causal_variants"] + options["planted_loci"] > room.sum() // 2:
        raise InputError(
            f"--causal-variants {options['causal_variants']}: together with --planted-loci more "
            f"than half of the {room.sum()} variants on the chromosomes "
            "with a polygenic background; give fewer, or less --null-chromosomes"
        )
    ends = np.concatenate([[0], np.cumsum(room)])
    return np.diff(np.round(ends * options["causal_variants"] / ends[-1]).astype(np.int64))


def _name_variants(label: str, position: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Return the variant table of a simulated chromosome, which starts at 20 Mb."""
    reference = rng.integers(0, 4, len(position))
    alternate = (reference + rng.integers(1, 4, len(position))) % 4
    letters = np.array(list("ACGT"))
    return pd.DataFrame(
        {
            "chromosome": label,
            "base_pair_location": position + 20_000_001,
            "variant_id": [
                f"rs{int(label) * 10_000_000 + number}" for number in range(1, len(position) + 1)
            ],
            "effect_allele": letters[alternate],
            "other_allele": letters[reference],
        }
    )


def _observe(genotypes: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return what a study knows of true genotypes: complete calls, dosages, or 1 % missing calls,
    by turns of chromosomes.
    """
    if number % 3 == 1:
        return simulate.imputed_dosages(genotypes, rng)
    if number % 3 == 2:
        return simulate.missing_calls(genotypes, _MISSING_RATE, rng)
    return genotypes


def given_genotypes(folder: Path, options: dict[str, Any], warnings: list[str]) -> Population:
    """Take people and variants of the user's files; write two parts of the people as LD panels."""
    seed = options["seed"]
    rows = options["sheet"]
    opened = []
    with contextlib.ExitStack() as stack:
        for row in rows:
            opened.append(
                stack.enter_context(
                    open_genotypes(row["path"], row.get("variants"), row.get("samples"))
                )
            )
        subject = opened[0].subject
        n = len(subject)
        if n < 60:
            raise InputError(f"{rows[0]['path']}: {n} people; at least 60 are needed")
        size = options["panel_subjects"] or n // 2
        if 2 * size > n:
            raise InputError(
                f"--panel-subjects {size}: two disjoint panels need {2 * size} people, but "
                f"{rows[0]['path']} has {n}; give at most {n // 2}"
            )
        order = simulate.generator(seed, "panels").permutation(n)
        panels = [np.sort(order[:size]), np.sort(order[size : 2 * size])]
        total = sum(genotypes.n_variants for genotypes in opened)
        # Parts of a file that are a chromosome each; a chromosome may be in several files.
        parts = [
            (number, name, np.flatnonzero(chromosome == name))
            for number, genotypes in enumerate(opened)
            for chromosome in [genotypes.variants["chromosome"].to_numpy(dtype=object)]
            for name in AUTOSOMES
            if np.any(chromosome == name)
        ]
        names = sorted({name for _, name, _ in parts}, key=RANK.get)
        if not names:
            raise InputError(f"{options['genotypes']}: no variant on chromosomes 1 to 22")
        planted, has_background = simulate.choose_chromosomes(
            len(names), options["null_chromosomes"], options["planted_loci"],
            simulate.generator(seed, "chromosomes"),
        )  # fmt: skip
        of_name = np.array([names.index(name) for _, name, _ in parts])
        n_background = _background_counts(
            [len(rows) for *_, rows in parts], has_background[of_name], options
        )
        n_planted = np.zeros(len(parts), dtype=np.int64)
        for place, number in enumerate(planted):
            same = np.flatnonzero(of_name == place)
            n_planted[same] = _shares(int(number), len(same))
        cli.state_memory("blocks of genotypes", BLOCK * n * 20.0 + 2e8)
        _state_causal(options, n)
        causal, sheets = Causal(), [[], []]
        for number, (row, genotypes) in enumerate(
            cli.progress(list(zip(rows, opened, strict=True)), len(rows), "genotype file")
        ):
            everybody = genotypes.subject_index(subject)
            frequency = np.empty(genotypes.n_variants)
            stems = [f"ld_panel_{panel}/{number + 1:02d}_{row['path'].stem}" for panel in (1, 2)]
            with contextlib.ExitStack() as writers:
                written = [
                    writers.enter_context(
                        _pgen(
                            folder / stem,
                            pd.DataFrame({"#IID": subject[part]}),
                            genotypes.variants,
                            genotypes.has_dosages,
                        )
                    )
                    for stem, part in zip(stems, panels, strict=True)
                ]
                for first, stop, block in genotypes.blocks(
                    0, genotypes.n_variants, BLOCK, everybody
                ):
                    called = np.isfinite(block)
                    frequency[first:stop] = np.where(called, block, 0).sum(axis=1) / np.maximum(
                        2 * called.sum(axis=1), 1
                    )
                    block = np.where(called, block, np.float32(MISSING))
                    if not genotypes.has_dosages:
                        block = block.astype(np.int8)
                    for writer, part in zip(written, panels, strict=True):
                        _append(writer, block[:, part])
            frequency[genotypes.variants["variant_id"].duplicated(keep=False)] = 0
            rng = simulate.generator(seed, "variants", number)
            chosen: list[list[np.ndarray]] = [[], []]
            for place, (file, _, index) in enumerate(parts):
                if file == number:
                    picked = simulate.choose_causal(
                        frequency[index], int(n_planted[place]), int(n_background[place]), rng
                    )
                    for kind, which in zip(chosen, picked, strict=True):
                        kind.append(index[which])
            causal.add(
                genotypes.variants,
                *(np.concatenate([np.zeros(0, np.int64), *kind]) for kind in chosen),
                lambda index, genotypes=genotypes, everybody=everybody: genotypes.dosages(
                    index, everybody
                ),
            )  # fmt: skip
            for sheet, stem in zip(sheets, stems, strict=True):
                sheet.append([row["chromosome"], f"{stem}.pgen"])
    for panel, sheet in enumerate(sheets, start=1):
        write_sheet(folder / f"ld_panel_{panel}.csv", ["chromosome", "path"], sheet)
    columns = [name for name in ("chromosome", "path", "variants", "samples") if name in rows[0]]
    write_sheet(
        folder / "genotypes.csv", columns, [[str(row[name]) for name in columns] for row in rows]
    )
    if sum(int(flags.sum()) for flags in causal.planted) < options["planted_loci"]:
        cli.warn("fewer planted loci than asked for: too few common variants", warnings)
    cli.report("no external trait: the genotype files leave no people for a sample of its own")
    role = _roles(n, (2, 3, 4), simulate.generator(seed, "roles"))
    null = [name for name, k, b in zip(names, planted, has_background, strict=True) if not k | b]
    return Population(subject, None, role, causal, total, len(names), (size, size), null)


def read_sheet(path: Path) -> list[dict[str, Any]]:
    """Read a genotype samplesheet; paths become absolute."""
    cli.require_file(path, "samplesheet of genotypes")
    with open(path, newline="") as handle:
        text = handle.read()
    delimiter = "\t" if "\t" in text.splitlines()[0] else ","
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
    rows = []
    for name in ("chromosome", "path"):
        if name not in (reader.fieldnames or []):
            raise InputError(f"{path}: column '{name}' is missing; the header is chromosome,path")
    for line, row in enumerate(reader, start=2):
        if None in row or not row["path"]:
            raise InputError(f"{path}: line {line} has not the columns of the header; mend it")
        if row.get("format") and row["format"] not in ("pgen", "bed", "plink1", "plink2"):
            raise InputError(
                f"{path}: line {line}: format '{row['format']}' cannot be used here; give PLINK 2 "
                "or PLINK 1 files"
            )
        entry: dict[str, Any] = {"chromosome": row["chromosome"]}
        for name in ("path", "variants", "samples"):
            if row.get(name):
                entry[name] = (path.parent / row[name]).resolve()
        rows.append(entry)
    if not rows:
        raise InputError(f"{path}: no line below the header; list the genotype files")
    return rows


def write_sheet(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with open(path, "w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
