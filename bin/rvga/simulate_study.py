"""Write a simulated study: genotypes, images, covariates, LD panels, a trait and the truth."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rvga import cli, formats, simulate
from rvga.chromosomes import RANK
from rvga.errors import InputError
from rvga.genotypes import open_genotypes
from rvga.geometry import Geometry, volume_of
from rvga.parallel import ordered_map
from rvga.simulate_genotypes import (
    BLOCK,
    HIDDEN,
    Population,
    given_genotypes,
    read_sheet,
    simulated_genotypes,
    write_sheet,
)

DESCRIPTION = "Simulate a study whose truth is known: genotypes, images, covariates, LD panels."

CRITICAL_Z = 6.5  # about where image-wide significance at 5e-8 lies
PRESETS: dict[str, dict[str, Any]] = {
    "small": {
        "subjects": 300,
        "variants": 2000,
        "chromosomes": 3,
        "chromosome_length": 1_000_000,
        "panel_subjects": 150,
        "trait_subjects": 600,
        "voxel_size": 14,
        "planted_loci": 4,
        "causal_variants": 120,
        "null_chromosomes": 0.34,
        "genetic_factors": 6,
        "residual_factors": 60,
        "regions": 6,
        "heritability": 0.35,
        "trait_heritability": 0.5,
        "minor_allele_frequency": 0.01,
    },
    "demo": {
        "subjects": 3000,
        "variants": 20_000,
        "chromosomes": 22,
        "chromosome_length": 8_000_000,
        "panel_subjects": 1000,
        "trait_subjects": 3000,
        "voxel_size": 5,
        "planted_loci": 10,
        "causal_variants": 4000,
        "null_chromosomes": 0.36,
        "genetic_factors": 8,
        "residual_factors": 200,
        "regions": 12,
        "heritability": 0.26,
        "trait_heritability": 0.5,
        "minor_allele_frequency": 0.008,
    },
}

# Option: (parser, what). Each preset has a value for each.
_OPTIONS: dict[str, tuple[Any, str]] = {
    "subjects": (int, "people with an image or genotypes, at least 60"),
    "variants": (int, "variants over all chromosomes"),
    "chromosomes": (int, "chromosomes, 1 to 22"),
    "chromosome_length": (int, "base pairs of each chromosome, at most 20,000,000"),
    "panel_subjects": (int, "people of each of the two LD panels, at least 20"),
    "trait_subjects": (int, "people of the external trait's own sample; 0 is no trait"),
    "voxel_size": (int, "millimetres, 3 to 20"),
    "planted_loci": (int, "variants that act on a local region, 0 to 40"),
    "causal_variants": (int, "variants of the polygenic background"),
    "null_chromosomes": (
        float,
        "share of the chromosomes, chosen by the seed, that hold no causal variant at all, so "
        "that a locus found there is false, 0 to 0.9",
    ),
    "genetic_factors": (int, "spatial factors of the background, 1 to 40"),
    "residual_factors": (int, "spatial factors of the residual, 2 to 400"),
    "regions": (int, "regions of the atlas, 2 to 200"),
    "heritability": (float, "mean over the voxels, without noise and loci, 0 to 0.5"),
    "trait_heritability": (float, "of the external trait, 0.01 to 0.95"),
    "minor_allele_frequency": (float, "least among the simulated people, 0.001 to 0.2"),
}
_BOUNDS: dict[str, tuple[float, float]] = {
    "subjects": (60, 1_000_000),
    "variants": (20, 20_000_000),
    "chromosomes": (1, 22),
    "chromosome_length": (10_000, 20_000_000),
    "panel_subjects": (20, 1_000_000),
    "trait_subjects": (0, 1_000_000),
    "voxel_size": (3, 20),
    "planted_loci": (0, 40),
    "causal_variants": (1, 1_000_000),
    "null_chromosomes": (0, 0.9),
    "genetic_factors": (1, 40),
    "residual_factors": (2, 400),
    "regions": (2, 200),
    "heritability": (0, 0.5),
    "trait_heritability": (0.01, 0.95),
    "minor_allele_frequency": (0.001, 0.2),
}
_ONLY_SIMULATED = (
    "subjects", "variants", "chromosomes", "chromosome_length", "trait_subjects",
    "trait_heritability", "minor_allele_frequency",
)  # fmt: skip

_OWN = {
    "images", "images.csv", "mask.nii.gz", "genotypes", "genotypes.csv", "covariates.tsv",
    "ld_panel_1", "ld_panel_1.csv", "ld_panel_2", "ld_panel_2.csv", "traits", "traits.csv",
    "known_loci.tsv", "regions.nii.gz", "truth.h5", "study.yml", "README.txt",
}  # fmt: skip
_MARK = "Simulated study of RVGA"
_TRAIT = "simulated_trait"
_UNIT = 0.04


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the simulation's own options (not those of :func:`rvga.cli.make_parser`)."""
    parser.add_argument("--out", type=Path, required=True, help="folder to write the study to")
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), default="demo", help="values of all other options"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed; equal seeds give equal bytes")
    parser.add_argument(
        "--genotypes",
        type=Path,
        default=argparse.SUPPRESS,
        help="samplesheet 'chromosome,path[,variants,samples]' of PLINK 2 or PLINK 1 files: images "
        "are simulated for its people as they are, two disjoint parts of them become the LD "
        "panels, and there is no external trait",
    )
    for name, (kind, what) in _OPTIONS.items():
        low, high = _BOUNDS[name]
        values = ", ".join(f"{preset}: {PRESETS[preset][name]}" for preset in sorted(PRESETS))
        parser.add_argument(
            _flag(name),
            type=_bounded(kind, low, high),
            default=argparse.SUPPRESS,
            metavar="NUMBER",
            help=f"{what} ({values})",
        )


def run(args: argparse.Namespace) -> None:
    """Simulate the study that the options describe and write it to ``args.out``.

    Raises
    ------
    InputError
        An option does not fit the others, a genotype file is wrong, or the folder holds
        something else than a simulated study.
    """
    options = _options(args)
    out = Path(args.out).absolute()
    _check_target(out)
    warnings: list[str] = []
    threads = getattr(args, "threads", os.cpu_count() or 1)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        # One BLAS thread, so that sums have one order; images are made by threads of our own.
        with cli.threads(1):
            numbers = _write_study(
                temporary, out, options, threads, getattr(args, "code", ""), warnings
            )
        _put_in_place(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    cli.write_summary(getattr(args, "summary", None), "simulate", numbers, warnings)
    cli.report(f"study written to {out}; run it with: -params-file {out / 'study.yml'}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _bounded(kind: type, low: float, high: float):
    """Return a parser of numbers of one type within bounds."""

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError as error:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"'{text}' is not {what}") from error
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is outside {low:g} to {high:g}")
        return value

    return parse


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return preset values overridden by the options given, checked against each other."""
    given = {name: getattr(args, name) for name in _OPTIONS if hasattr(args, name)}
    options = {**PRESETS[args.preset], **given, "preset": args.preset, "seed": args.seed}
    options["genotypes"] = getattr(args, "genotypes", None)
    options["sheet"] = None
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}: a seed is at least 0")
    if options["causal_variants"] < options["genetic_factors"]:
        raise InputError(
            f"--causal-variants {options['causal_variants']}: fewer than the "
            f"{options['genetic_factors']} spatial factors that they make; give more, or fewer "
            "--genetic-factors"
        )
    if options["genotypes"] is not None:
        useless = [name for name in _ONLY_SIMULATED if name in given]
        if useless:
            raise InputError(
                f"{_flag(useless[0])} does not go with --genotypes, whose files decide it; "
                "leave one of them out"
            )
        options["panel_subjects"] = given.get("panel_subjects")
        options["sheet"] = read_sheet(options["genotypes"])
        return options
    if options["variants"] < options["chromosomes"] * 20:
        raise InputError(
            f"--variants {options['variants']}: at least 20 are needed for each of the "
            f"{options['chromosomes']} chromosomes"
        )
    return options


def _check_target(out: Path) -> None:
    """Refuse a folder that something else than this program filled."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give --out a folder that does not exist yet")
    if not out.is_dir() or not any(out.iterdir()):
        return
    readme = out / "README.txt"
    if not readme.is_file() or not readme.read_text(errors="replace").startswith(_MARK):
        raise InputError(
            f"{out}: the folder is not empty and is no simulated study; give --out another folder"
        )
    foreign = sorted(path.name for path in out.iterdir() if path.name not in _OWN)
    if foreign:
        raise InputError(
            f"{out}: a simulated study, but '{foreign[0]}' in it is not part of one and would be "
            "lost; move it away or give --out another folder"
        )


def _put_in_place(temporary: Path, out: Path) -> None:
    """Let the finished study take the place of the folder that was there, if any."""
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.is_dir():
        out.rename(old)
    try:
        temporary.rename(out)
    except OSError:
        if old.is_dir():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_study(
    folder: Path,
    target: Path,
    options: dict[str, Any],
    threads: int,
    code: str,
    warnings: list[str],
) -> dict[str, Any]:
    """Write all files to ``folder``, which will be renamed to ``target``; return the numbers."""
    seed = options["seed"]
    geometry = _brain(options["voxel_size"])
    coordinates = geometry.coordinates
    n_voxels = len(coordinates)
    if n_voxels < 4 * max(options["genetic_factors"], options["regions"]):
        raise InputError(
            f"--voxel-size {options['voxel_size']}: {n_voxels} voxels are too few for so many "
            "factors or regions; give smaller voxels"
        )
    given = options["genotypes"] is not None
    study = (
        given_genotypes(folder, options, warnings)
        if given
        else simulated_genotypes(folder, options)
    )
    variants, planted, dosages, trait_dosages = study.causal.merged()
    complete = np.flatnonzero(study.role == 0)
    mean = np.nanmean(dosages[:, complete], axis=1, keepdims=True)
    standardised, deviation = simulate.standardise(dosages[:, complete])
    everybody = np.nan_to_num((dosages - mean) / deviation[:, None])

    background = np.zeros((len(variants), options["genetic_factors"]))
    background[~planted] = simulate.background_effects(
        standardised[~planted], options["genetic_factors"], simulate.generator(seed, "effects")
    )
    weights = np.hstack([np.eye(len(variants))[:, planted], background])
    scores = weights.T @ standardised
    wanted = _target_noncentrality(int(planted.sum()))
    cli.report(f"designing images of {n_voxels} voxels for {len(study.subject)} people")
    images = simulate.make_images(
        coordinates,
        scores,
        wanted,
        heritability=options["heritability"],
        n_residual_factors=min(options["residual_factors"], n_voxels // 2),
        n_covariates=5,
        unit=_UNIT,
        seed=seed,
    )
    effect = weights @ images.to_factors.T
    n_planted = int(planted.sum())
    # What single regressions see of the background: effects of neighbours in LD are in it.
    marginal = np.linalg.inv(images.to_factors)[:, n_planted:] @ (
        scores[n_planted:] @ standardised[~planted].T / len(complete)
    )
    has_trait = trait_dosages is not None
    trait_effect = np.zeros(len(variants))
    if has_trait:
        trait_effect = simulate.trait_effects(
            standardised, background, options["trait_heritability"],
            simulate.generator(seed, "trait effects"),
        )  # fmt: skip
    trait_covariance = (effect.T @ standardised) @ (trait_effect @ standardised) / len(complete)

    columns, scaled = simulate.covariates(
        len(study.subject),
        study.male
        if study.male is not None
        else simulate.generator(seed, "sex").random(len(study.subject)) < 0.5,
        simulate.generator(seed, "covariates"),
    )
    _write_covariates(folder / "covariates.tsv", study, columns, simulate.generator(seed, "gaps"))
    _write_images(folder, study, geometry, images, effect.T @ everybody, scaled, seed, threads)
    label = simulate.parcels(coordinates, options["regions"])
    _write_volume(folder / "regions.nii.gz", label, geometry, np.int16)
    if has_trait:
        _write_trait(
            folder,
            (trait_dosages - mean) / deviation[:, None],
            trait_effect,
            options,
        )
    known = _write_known_loci(folder / "known_loci.tsv", variants, planted, seed)

    factor_effect = effect / deviation[:, None]
    with formats.create(
        folder / "truth.h5",
        "truth",
        {
            "n": len(complete),
            "seed": seed,
            "trait_heritability": options["trait_heritability"] if has_trait else 0.0,
        },
        parameters={
            name: value for name, value in options.items() if name not in ("genotypes", "sheet")
        },
        code=code,
    ) as writer:
        for name, values in {
            "coordinates": coordinates,
            "geometry/index": geometry.index,
            "geometry/affine": geometry.affine,
            "geometry/shape": np.asarray(geometry.shape),
            "genetic_covariance_factor": images.F,
            "residual_covariance_factor": images.E,
            "noise_variance": images.noise_variance,
            "causal/chromosome": [RANK[name] for name in variants["chromosome"]],
            "causal/base_pair_location": variants["base_pair_location"].to_numpy(),
            "causal/variant_id": variants["variant_id"].tolist(),
            "causal/effect_allele": variants["effect_allele"].tolist(),
            "causal/planted": planted,
            "causal/effect": factor_effect,
            "causal/dosage_variance": deviation**2,
            "causal/trait_effect": trait_effect / deviation,
            "trait_covariance": trait_covariance,
        }.items():
            writer.add(name, values)

    _write_parameters(folder / "study.yml", target, has_trait, given)
    (folder / "README.txt").write_text(_readme(options, study, given, has_trait))
    return _numbers(
        options, study, images, variants, planted, effect, marginal, complete, n_voxels, known
    )


def _target_noncentrality(n_planted: int) -> np.ndarray:
    """Return the strengths wanted: most found for sure, one (from 8 loci on, two) by chance."""
    wanted = np.linspace(11.0, 15.0, n_planted)
    n_weak = 0 if n_planted < 3 else 1 + (n_planted >= 8)
    wanted[:n_weak] = (6.9, 6.2)[:n_weak]
    return wanted


def _brain(voxel_size: int) -> Geometry:
    """Return the white-matter voxels of the MNI152 template on a grid of ``voxel_size`` mm."""
    from nilearn.datasets import load_mni152_wm_mask

    mask = load_mni152_wm_mask(resolution=voxel_size)
    inside = np.asarray(mask.dataobj) > 0
    return Geometry(np.asarray(mask.affine), inside.shape, np.argwhere(inside).astype(np.int32))


def _write_images(
    folder: Path,
    study: Population,
    geometry: Geometry,
    images: simulate.Images,
    scores: np.ndarray,
    covariates: np.ndarray,
    seed: int,
    threads: int,
) -> None:
    """Write mask, images (one file a person, level 1 compression) and their samplesheet."""
    (folder / "images").mkdir()
    _write_volume(folder / "mask.nii.gz", np.ones(len(geometry.index)), geometry, np.uint8)
    head = _header(geometry, np.float32)
    people = np.flatnonzero(study.role != 2)
    cli.state_memory("images on their way", threads * len(geometry.index) * 200.0)

    def write(person: int) -> None:
        values = images.image(
            scores[:, person], covariates[person], simulate.generator(seed, "image", int(person))
        )
        content = head + volume_of(values, geometry, fill=0.0).tobytes(order="F")
        (folder / "images" / f"{study.subject[person]}.nii.gz").write_bytes(
            gzip.compress(content, compresslevel=1, mtime=0)
        )

    for _ in cli.progress(ordered_map(write, people, threads), len(people), "image"):
        pass
    names = study.subject[people]
    write_sheet(
        folder / "images.csv",
        ["subject", "image"],
        [[name, f"images/{name}.nii.gz"] for name in names],
    )


def _header(geometry: Geometry, dtype: type) -> bytes:
    """Return the head of an uncompressed single-file NIfTI image."""
    import nibabel

    image = nibabel.Nifti1Image(np.zeros(geometry.shape, dtype=dtype), geometry.affine)
    image.header.set_xyzt_units("mm")
    return image.to_bytes()[:352]


def _write_volume(path: Path, values: np.ndarray, geometry: Geometry, dtype: type) -> None:
    volume = volume_of(values, geometry, fill=0.0).astype(dtype)
    content = _header(geometry, dtype) + volume.tobytes(order="F")
    path.write_bytes(gzip.compress(content, compresslevel=6, mtime=0))


def _write_covariates(
    path: Path, study: Population, columns: dict[str, np.ndarray], rng: np.random.Generator
) -> None:
    """Write the covariates; some people have no line, some lack a value."""
    table = pd.DataFrame({"subject": study.subject, **columns})
    table["head_size"] = table["head_size"].astype("int64").astype(str)
    table["sex"] = table["sex"].astype(str)
    table["age"] = table["age"].map("{:.1f}".format)
    lacking = np.flatnonzero(study.role == 4)
    for person, name in zip(
        lacking, rng.choice(["age", "site", "head_size"], lacking.size), strict=True
    ):
        table.loc[person, name] = "NA"
    # In an order of its own, since order must never matter.
    table = table[study.role != 3].iloc[rng.permutation(int((study.role != 3).sum()))]
    table.to_csv(path, sep="\t", index=False, lineterminator="\n")


def _write_trait(
    folder: Path, standardised: np.ndarray, effect: np.ndarray, options: dict[str, Any]
) -> None:
    """Write the external trait's own summary statistics, in the shape of a published table.

    About half of the lines count the other allele, 3 % of the variants are absent, and the columns
    have the names of GWAS-SSF.
    """
    seed = options["seed"]
    rng = simulate.generator(seed, "trait")
    trait = effect @ standardised
    trait = trait + rng.standard_normal(len(trait)) * np.sqrt(1 - options["trait_heritability"])
    trait -= trait.mean()
    tables = []
    hidden = folder / HIDDEN
    for number in range(1, options["chromosomes"] + 1):
        with open_genotypes(hidden / f"chr{number}.pgen") as genotypes:
            people = np.arange(len(genotypes.subject))
            for first, stop, dosages in genotypes.blocks(0, genotypes.n_variants, BLOCK, people):
                table = genotypes.variants.iloc[first:stop]
                found = simulate.marginal_statistics(dosages.astype(np.float64), trait)
                beta, standard_error, p_value, frequency, n = found
                kept = (rng.random(stop - first) >= 0.03) & np.isfinite(beta)
                other = rng.random(stop - first) < 0.5
                alt, ref = table["effect_allele"].to_numpy(), table["other_allele"].to_numpy()
                tables.append(
                    pd.DataFrame(
                        {
                            "chromosome": table["chromosome"].to_numpy(),
                            "base_pair_location": table["base_pair_location"].to_numpy(),
                            "effect_allele": np.where(other, ref, alt),
                            "other_allele": np.where(other, alt, ref),
                            "beta": np.where(other, -beta, beta),
                            "standard_error": standard_error,
                            "effect_allele_frequency": np.where(other, 1 - frequency, frequency),
                            "p_value": p_value,
                            "rsid": table["variant_id"].to_numpy(),
                            "n": n,
                        }
                    )[kept]
                )
    shutil.rmtree(hidden)
    (folder / "traits").mkdir()
    pd.concat(tables).to_csv(
        folder / "traits" / f"{_TRAIT}.tsv",
        sep="\t",
        index=False,
        float_format="%.8g",
        lineterminator="\n",
    )
    write_sheet(
        folder / "traits.csv",
        ["trait", "path", "n", "overlap"],
        [[_TRAIT, f"traits/{_TRAIT}.tsv", str(len(trait)), "none"]],
    )


def _write_known_loci(path: Path, variants: pd.DataFrame, planted: np.ndarray, seed: int) -> int:
    """Write the positions of every second planted locus; the others are novel."""
    known = variants[planted].iloc[::2]
    known[["chromosome", "base_pair_location"]].to_csv(
        path, sep="\t", index=False, lineterminator="\n"
    )
    return len(known)


def _write_parameters(path: Path, target: Path, has_trait: bool, given: bool) -> None:
    """Write the parameters of a run; paths are absolute, since they resolve where it starts."""
    files = {
        "images": "images.csv",
        "mask": "mask.nii.gz",
        "genotypes": "genotypes.csv",
        "covariates": "covariates.tsv",
        "ld_panel_1": "ld_panel_1.csv",
        "ld_panel_2": "ld_panel_2.csv",
        **({"traits": "traits.csv"} if has_trait else {}),
        "known_loci": "known_loci.tsv",
        "regions": "regions.nii.gz",
        "truth": "truth.h5",
    }
    lines = [f"{name}: {json.dumps(str(target / file))}" for name, file in files.items()]
    lines += ['categorical_columns: "site"']
    if not given:
        lines += ['genome_build: "GRCh38"']
    path.write_text("\n".join(lines) + "\n")


def _readme(options: dict[str, Any], study: Population, given: bool, has_trait: bool) -> str:
    shown = {name: value for name, value in options.items() if value is not None}
    shown.pop("genotypes", None)
    shown.pop("sheet", None)
    if given:
        for name in _ONLY_SIMULATED:
            shown.pop(name, None)
    genotypes = (
        "genotypes.csv refers to the genotype files that were given. The LD panels are two\n"
        "disjoint parts of their people."
        if given
        else "Genotypes come from a coalescent with recombination; the study, two LD panels and\n"
        "the external trait's sample are disjoint people of one population. By turns,\n"
        "chromosomes have complete calls, imputed-like dosages, or one per cent of the calls\n"
        "missing. Causal variants act by their true genotypes."
    )
    trait = (
        "\ntraits/ holds the external trait's summary statistics, from people of its own."
        if has_trait
        else ""
    )
    null = ", ".join(study.null_chromosomes)
    where = (
        f"Chromosomes without any causal variant, where every locus found is false:\n{null}."
        if null
        else "Every chromosome has causal variants."
    )
    settings = "\n".join(f"  {name}: {value}" for name, value in shown.items())
    return (
        f"{_MARK}. Nobody's data: images, covariates and effects are made up.\n\n"
        f"{genotypes}{trait}\n\n{where}\n\n"
        "truth.h5 holds what the images were made from: the genetic covariance of the voxels\n"
        "(F F'), the residual one (E E' and white noise), and each causal variant's effects.\n"
        "study.yml holds the parameters of a run (absolute paths: make the study again\n"
        f"elsewhere, or edit them).\n\nMade with\n{settings}\n"
    )


def _numbers(
    options: dict[str, Any],
    study: Population,
    images: simulate.Images,
    variants: pd.DataFrame,
    planted: np.ndarray,
    effect: np.ndarray,
    marginal: np.ndarray,
    complete: np.ndarray,
    n_voxels: int,
    known: int,
) -> dict[str, Any]:
    """Return what the study holds and how strong its loci are, for the log and the summary."""
    factors = np.hstack([images.F, images.E])
    B = simulate.denoised_bases(factors, 0.02 * n_voxels * _UNIT**2)
    variance = simulate.denoised_variance(B, images.F, images.E, images.noise_variance)
    true_h2 = simulate.denoised_heritability(B, images.F, images.E, images.noise_variance)
    strength = np.zeros(0)
    if planted.any():
        strength = np.abs(
            simulate.noncentrality(B, images.F @ effect[planted].T, variance, len(complete))
        ).max(axis=0)
    background_strength = max(
        (
            float(np.abs(simulate.noncentrality(B, images.F @ part, variance, len(complete))).max())
            for part in np.split(marginal, range(BLOCK, marginal.shape[1], BLOCK), axis=1)
            if part.size
        ),
        default=0.0,
    )
    chance = simulate.power(strength, CRITICAL_Z)
    cli.report(
        "chromosomes without a causal variant: " + (", ".join(study.null_chromosomes) or "none")
    )
    cli.report(f"largest non-centrality of a background variant: {background_strength:.1f}")
    cli.report(
        f"{len(complete)} people with complete data, {study.n_variants} variants, {n_voxels} "
        f"voxels; about {B.shape[1]} components; true heritability of the denoised image "
        f"{true_h2.min():.2f} to {true_h2.max():.2f} (SD {true_h2.std():.2f})"
    )
    for (_, variant), ncp, probability in zip(
        variants[planted].iterrows(), strength, chance, strict=True
    ):
        cli.report(
            f"planted {variant['variant_id']} on chromosome {variant['chromosome']}: "
            f"non-centrality {ncp:.1f}, power {probability:.2f} at |z| = {CRITICAL_Z}"
        )
    return {
        "preset": options["preset"],
        "n_subjects": len(study.subject),
        "n_complete": len(complete),
        "n_variants": study.n_variants,
        "n_chromosomes": study.n_chromosomes,
        "n_voxels": n_voxels,
        "n_panel": list(study.n_panel),
        "n_causal": len(variants),
        "n_planted": int(planted.sum()),
        "n_known": known,
        "n_components": B.shape[1],
        "heritability_mean": true_h2.mean(),
        "heritability_sd": true_h2.std(),
        "null_chromosomes": study.null_chromosomes,
        "background_noncentrality": round(background_strength, 2),
        "planted_noncentrality": np.round(strength, 2),
        "planted_power": np.round(chance, 3),
    }
