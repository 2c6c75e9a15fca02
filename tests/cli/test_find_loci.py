"""The find_loci stage as a program: joining parts, clumps, novelty, maps, bad input."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
import pytest

import helpers
from helpers import files_in
from rvga import formats
from rvga.dataset import MinimalDataset
from rvga.samples import sample_hash
from rvga.tables import TABLES, read_table
from small_study import (
    hard_calls,
    make_study,
    mean_imputed,
    run_dataset,
    subject_names,
    write_bed,
    write_pgen,
)

M, N_PEOPLE, N_VOXELS = 90, 260, 40
OUTPUTS = ("variants.tsv.gz", "voxels.tsv", "loci.tsv", "lead_variants.tsv")


def linked(seed: int) -> np.ndarray:
    """Return calls of 90 variants: three copies, 20 variants apart, of each of 30 with noise."""
    base = hard_calls(30, N_PEOPLE, seed=seed)
    calls = np.tile(base, (3, 1))
    rng = np.random.default_rng(seed + 1)
    noise = rng.random(calls.shape) < 0.03
    noise[:30] = False
    calls[noise] = rng.integers(0, 3, noise.sum())
    return calls


def scan_parts(folder, dataset, tail, parts):
    """Scan all parts within this process; return the tables of variants and of voxels."""
    import rvga_scan_voxels

    folder.mkdir()
    hits, voxels = [], []
    for part in range(1, parts + 1):
        hits.append(folder / f"hits.{part}.tsv.gz")
        voxels.append(folder / f"voxels.{part}.tsv")
        rvga_scan_voxels.main(
            ["--dataset", str(dataset), "--tail", str(tail), "--part", str(part)]
            + ["--parts", str(parts), "--out", str(hits[-1]), "--out-voxels", str(voxels[-1])]
            + ["--threads", "1", "--out-pairs", str(folder / f"pairs.{part}.tsv.gz")]
            + ["--out-significant", str(folder / f"significant.{part}.tsv")]
        )
    return hits, voxels


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the paths of a study with two causal variants, scanned in three parts."""
    import rvga_image_tail

    folder = tmp_path_factory.mktemp("loci")
    people = sorted(subject_names(N_PEOPLE), key=str.encode)
    calls = np.concatenate([linked(31), linked(41)])
    effect = np.zeros((2 * M, N_VOXELS))
    effect[[12, M + 7]] = np.random.default_rng(5).normal(scale=1.2, size=(2, N_VOXELS))
    study = make_study(folder, N_PEOPLE, extra=mean_imputed(calls).T @ effect)
    # The genotype files hold the people in another order.
    backwards = people[::-1]
    mains = [
        write_pgen(folder / "one", calls[:M, ::-1], backwards, "1"),
        write_bed(folder / "two", calls[M:, ::-1], backwards, "2"),
    ]
    dataset = run_dataset(folder / "run", study, mains)
    tail, other_tail = folder / "tail.h5", folder / "other_tail.h5"
    for path, level in ((tail, "5e-8"), (other_tail, "1e-4")):
        rvga_image_tail.main(
            ["--dataset", str(dataset), "--out", str(path), "--draws", "2000", "--threads", "1"]
            + ["--significance-level", level, "--seed", level[0]]
        )
    hits, voxels = scan_parts(folder / "parts", dataset, tail, 3)
    subjects = folder / "subjects.h5"
    with formats.create(
        subjects, "subjects", {"sample_hash": sample_hash(people), "flow": []}
    ) as writer:
        writer.add("subject", people)
        writer.add("voxel_index", np.arange(N_VOXELS))
    return SimpleNamespace(
        folder=folder, dataset=dataset, tail=tail, other_tail=other_tail, hits=hits,
        voxels=voxels, subjects=subjects, mains=mains, calls=calls, people=people,
    )  # fmt: skip


def find(run_stage, made, folder, *options, **changed):
    """Run the stage with the study's files, some of them changed."""
    files = SimpleNamespace(**{**vars(made), **changed})
    folder.mkdir(exist_ok=True)
    return run_stage(
        "find_loci", "--hits", files.hits, "--voxels", files.voxels, "--dataset", files.dataset,
        "--tail", files.tail, "--out-variants", folder / OUTPUTS[0], "--out-voxels",
        folder / OUTPUTS[1], "--out-loci", folder / OUTPUTS[2], "--out-lead-variants",
        folder / OUTPUTS[3], "--out-maps", folder / "maps", "--summary", folder / "s.json",
        *options,
    )  # fmt: skip


def clump(made, out, *options, mains=None, hits=None):
    """Clump the significant variants of a scan by LD; return the file."""
    import rvga_clump_variants

    parts = [
        path.parent / f"significant.{path.name.split('.')[1]}.tsv" for path in hits or made.hits
    ]
    given = ["--significant", *parts, "--genotypes", *(mains or made.mains), "--out", out, *options]
    rvga_clump_variants.main([str(word) for word in given])
    return out


def by_chromosome(made, folder, hits=None):
    """Return the options of FIND_LOCI for clumps of the study's people, a file a chromosome."""
    folder.mkdir(exist_ok=True)
    clumps = [
        clump(
            made, folder / f"clumps.{name}.h5", "--chromosome", name, "--subjects", made.subjects,
            mains=[main], hits=hits,
        )
        for name, main in zip("12", made.mains, strict=True)
    ]  # fmt: skip
    return ["--ld", "--clumps", *clumps[::-1]]


def test_loci_of_a_study(made, tmp_path):
    known = tmp_path / "known.tsv"
    known.write_text("chromosome\tbase_pair_location\nchr1\t1120\n2\t5\n")
    out = tmp_path / "out"
    run_stage = helpers.run_stage_process
    clumps = by_chromosome(made, tmp_path / "clumps")
    done = find(run_stage, made, out, *clumps, "--known-loci", known)
    assert done.returncode == 0, done.stderr
    table = read_table(out / "loci.tsv", "loci")
    # Copies of the causal variants, 20 variants apart, are in LD with them.
    assert table["chromosome"].tolist() == ["1", "2"]
    assert table["lead_variant_id"].tolist() == ["rs1120", "rs1070"]
    assert table["n_clumps"].tolist() == [1, 1]
    assert table["start"].tolist() == [1120, 1070]
    assert table["end"].tolist() == [1720, 1670]
    assert table["n_significant_variants"].tolist() == [3, 3]
    assert table["novel"].tolist() == ["no", "yes"]
    assert table["known_associations"].fillna("NA").tolist() == ["1:1120", "NA"]
    with MinimalDataset.open(made.dataset) as dataset:
        for row in table.itertuples():
            all_voxels = dataset.variant(f"{row.chromosome}:{row.base_pair_location}:A:G")
            lead = all_voxels.loc[all_voxels["z"].abs().idxmax()]
            assert lead["voxel"] == row.lead_voxel
            for name in ("beta", "standard_error", "z", "neg_log_10_p_value", "x_mm", "z_mm"):
                assert getattr(row, name) == pytest.approx(lead[name], rel=1e-6)
            image = nibabel.load(out / "maps" / f"{row.locus}_{row.lead_variant_id}.nii.gz")
            values = image.get_fdata()[tuple(dataset.geometry.index.T)]
            np.testing.assert_allclose(values, all_voxels["z"], rtol=1e-5)
    assert {path.name for path in (out / "maps").iterdir()} == {
        "n_significant_variants.nii.gz", "largest_abs_z.nii.gz", "1_rs1120.nii.gz",
        "2_rs1070.nii.gz",
    }  # fmt: skip
    clumps = read_table(out / "lead_variants.tsv", "lead_variants")
    assert clumps["n_clumped"].sum() == table["n_significant_variants"].sum()
    summary = json.loads((out / "s.json").read_text())
    numbers = summary["numbers"]
    assert numbers["n_loci"] == 2
    assert numbers["n_novel_loci"] == 1
    assert numbers["ld_source"] == "genotypes"
    assert numbers["n_ld_subjects"] == N_PEOPLE
    assert numbers["n_without_ld"] == 0
    variants = read_table(out / "variants.tsv.gz", "variants")
    median = variants["neg_log_10_p_omnibus"].median()
    from scipy import stats

    expected = stats.chi2.isf(10.0**-median, 1) / stats.chi2.isf(0.5, 1)
    assert numbers["lambda_gc_omnibus"] == pytest.approx(expected, rel=0.02)
    assert summary["warnings"] == []


def test_output_does_not_depend_on_parts(run_stage, made, tmp_path):
    hits, voxels = scan_parts(tmp_path / "one", made.dataset, made.tail, 1)
    results = []
    for name, changed in (
        ("a", {"hits": made.hits[::-1]}),
        ("b", {"hits": hits, "voxels": voxels}),
    ):
        clumps = by_chromosome(made, tmp_path / f"clumps_{name}", changed["hits"])
        done = find(run_stage, made, tmp_path / name, *clumps, **changed)
        assert done.returncode == 0, done.stderr
        results.append({p: (tmp_path / name / p).read_bytes() for p in files_in(tmp_path / name)})
    assert results[0] == results[1]
    assert gzip.decompress(results[0]["variants.tsv.gz"]) == gzip.decompress(hits[0].read_bytes())


def test_significant_pairs_are_joined_in_the_order_of_the_variants(run_stage, made, tmp_path):
    parts = [path.with_name(path.name.replace("hits", "pairs")) for path in made.hits]
    scan_parts(tmp_path / "one", made.dataset, made.tail, 1)
    joined = tmp_path / "pairs.tsv.gz"
    clumps = by_chromosome(made, tmp_path / "clumps")
    done = find(
        run_stage, made, tmp_path / "a", *clumps, "--pairs", *parts[::-1],
        "--out-pairs", joined,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    whole = gzip.decompress((tmp_path / "one" / "pairs.1.tsv.gz").read_bytes())
    assert gzip.decompress(joined.read_bytes()) == whole
    assert whole.count(b"\n") > 10
    for wrong in (parts[:1], parts[1:], [*parts, parts[0]]):
        folder = tmp_path / "wrong"
        done = find(
            run_stage, made, folder, *clumps, "--pairs", *wrong,
            "--out-pairs", folder / "pairs.tsv.gz",
        )  # fmt: skip
        assert done.returncode == 2
        assert "significant pairs are not those" in done.stderr
        assert files_in(folder) == set()
    done = find(run_stage, made, tmp_path / "c", *clumps, "--pairs", *parts)
    assert done.returncode == 2
    assert "without --out-pairs" in done.stderr


def test_an_ld_panel_of_other_people_with_swapped_alleles(run_stage, made, tmp_path):
    # Same linkage, other ids, the .bim's alleles the other way round.
    names = [f"p{k}" for k in range(N_PEOPLE)]
    calls = made.calls[:M].copy()
    calls[72] = 2  # the third copy of the causal variant does not vary here
    panel = write_bed(tmp_path / "panel", calls, names, "1")
    bim = panel.with_suffix(".bim")
    swapped = [line.split("\t") for line in bim.read_text().splitlines()]
    bim.write_text("".join("\t".join([*w[:1], "x", *w[2:4], w[5], w[4]]) + "\n" for w in swapped))
    out = tmp_path / "out"
    clumps = clump(made, tmp_path / "clumps.h5", mains=[panel])
    done = find(run_stage, made, out, "--clumps", clumps)
    assert done.returncode == 0, done.stderr
    assert "4 of 6 significant variants have no LD" in done.stderr
    assert read_table(out / "loci.tsv", "loci")["n_significant_variants"].tolist() == [3, 3]


def test_without_genotypes_distance_decides(run_stage, made, tmp_path):
    done = find(run_stage, made, tmp_path / "near")
    assert done.returncode == 0, done.stderr
    assert "by distance alone" in done.stderr
    assert len(read_table(tmp_path / "near" / "loci.tsv", "loci")) == 2
    assert read_table(tmp_path / "near" / "loci.tsv", "loci")["novel"].isna().all()
    done = find(run_stage, made, tmp_path / "far", "--clump-kb", "0.1")
    assert done.returncode == 0, done.stderr
    assert len(read_table(tmp_path / "far" / "loci.tsv", "loci")) == 6


def test_nothing_significant_gives_empty_tables(run_stage, made, tmp_path):
    import rvga_image_tail

    tail = tmp_path / "tail.h5"
    rvga_image_tail.main(
        ["--dataset", str(made.dataset), "--out", str(tail), "--draws", "500", "--threads", "1"]
        + ["--significance-level", "1e-250"]
    )
    hits, voxels = scan_parts(tmp_path / "parts", made.dataset, tail, 1)
    out = tmp_path / "out"
    clumps = by_chromosome(made, tmp_path / "clumps", hits)
    done = find(run_stage, made, out, *clumps, hits=hits, voxels=voxels, tail=tail)
    assert done.returncode == 0, done.stderr
    for kind in ("loci", "lead_variants"):
        frame = read_table(out / f"{kind}.tsv", kind)
        assert len(frame) == 0
        assert list(frame.columns) == list(TABLES[kind])
    assert len(read_table(out / "variants.tsv.gz", "variants")) == 2 * M
    assert {path.name for path in (out / "maps").iterdir()} == {
        "n_significant_variants.nii.gz",
        "largest_abs_z.nii.gz",
    }


def test_catalog_on_another_build_is_a_warning(run_stage, made, tmp_path):
    known = tmp_path / "catalog.tsv"
    known.write_text("CHR_ID\tCHR_POS\n1\t1130\n\t\n")
    done = find(run_stage, made, tmp_path / "out", "--known-loci", known)
    assert done.returncode == 0, done.stderr
    assert "positions on GRCh38" in done.stderr
    assert "1 rows without a single position" in done.stderr


def refused(done, message, folder):
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert files_in(folder) == set()


def test_parts_that_do_not_join(run_stage, made, tmp_path):
    out = tmp_path / "out"
    for hits, message in (
        (made.hits[:2], "a part of the scan is missing"),
        (made.hits[1:], "with variants 1 to 60 missing"),
        ([made.hits[0], made.hits[2]], "with variants 61 to 120 missing"),
        ([*made.hits, made.hits[1]], "comes twice"),
    ):
        refused(find(run_stage, made, out, hits=hits), message, out)
    refused(
        find(run_stage, made, out, voxels=made.voxels[:1]), "they are not of the same parts", out
    )


def test_files_of_other_runs(run_stage, made, tmp_path):
    out = tmp_path / "out"
    refused(find(run_stage, made, out, tail=made.other_tail), "not those of the tail", out)
    study = make_study(tmp_path, N_PEOPLE, seed=3)
    main = write_pgen(tmp_path / "x", made.calls[:50], made.people, "7", 5000)
    other = run_dataset(tmp_path / "run", study, [main])
    refused(find(run_stage, made, out, dataset=other), "different runs", out)
    everyone = clump(made, tmp_path / "everyone.h5")
    with formats.open_file(everyone, "clumps") as file:
        content = {name: file.array(name) for name in formats.KINDS["clumps"].datasets}
        given = {name: file.attributes[name] for name in formats.KINDS["clumps"].attributes}
    for change, message in (
        ({"people": "study", "sample_hash": "0"}, "its people are not those of"),
        ({"clump_r2": 0.2}, "was made with clump_r2 0.2, not 0.1"),
        ({"leader": content["leader"] + 1}, "not the significant ones"),
        ({"base_pair_location": content["base_pair_location"] + 1}, "not the significant ones"),
        ({name: content[name][1:] for name in content}, "not the significant ones"),
    ):
        path = tmp_path / "changed.h5"
        with formats.create(path, "clumps", {**given, **change}) as writer:
            for name, values in (content | change).items():
                if name in content:
                    writer.add(name, values)
        refused(find(run_stage, made, out, "--clumps", path), message, out)
    refused(find(run_stage, made, out, "--clumps", everyone, everyone), "given twice", out)


def test_clumps_with_ld_of_other_people(run_stage, made, tmp_path):
    names = [f"p{k}" for k in range(N_PEOPLE)]
    other = write_bed(tmp_path / "two", made.calls[M:], names, "2")
    clumps = [
        clump(made, tmp_path / f"{name}.h5", "--chromosome", name, mains=[main])
        for name, main in (("1", made.mains[0]), ("2", other))
    ]
    out = tmp_path / "out"
    refused(find(run_stage, made, out, "--clumps", *clumps), "its LD is of other people", out)


def test_clumps_of_some_chromosomes_leave_the_others_to_distance(run_stage, made, tmp_path):
    clumps = by_chromosome(made, tmp_path / "clumps")
    done = find(run_stage, made, tmp_path / "out", *clumps[:-1])
    assert done.returncode == 0, done.stderr
    assert "3 of 6 significant variants have no LD" in done.stderr
    assert read_table(tmp_path / "out/loci.tsv", "loci")["n_significant_variants"].tolist() == [
        3,
        3,
    ]


@pytest.mark.parametrize("damage", ["cut", "text", "columns", "absent"])
def test_damaged_hits(run_stage, made, tmp_path, damage):
    path, out = tmp_path / "hits.tsv.gz", tmp_path / "out"
    whole = made.hits[0].read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "text":
        path.write_bytes(b"not gzip")
    elif damage == "columns":
        path.write_bytes(gzip.compress(b"a\tb\n1\t2\n"))
    refused(find(run_stage, made, out, hits=[path, *made.hits[1:]]), "hits.tsv.gz", out)


def test_voxels_of_another_image(run_stage, made, tmp_path):
    path, out = tmp_path / "voxels.tsv", tmp_path / "out"
    lines = made.voxels[0].read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    refused(find(run_stage, made, out, voxels=[path, *made.voxels[1:]]), "has 39 voxels", out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clump-r2", "1.2"], "outside [0, 1]"),
        (["--clump-r2", "-0.1"], "outside [0, 1]"),
        (["--clump-kb", "-5"], "outside [0"),
        (["--known-loci", "absent.tsv"], "absent.tsv: no such file"),
    ],
)
def test_options_out_of_range(run_stage, made, tmp_path, options, message):
    out = tmp_path / "out"
    refused(find(run_stage, made, out, *options), message, out)


def test_known_loci_without_the_columns(run_stage, made, tmp_path):
    known = tmp_path / "known.tsv"
    pd.DataFrame({"chr": [1], "pos": [5]}).to_csv(known, sep="\t", index=False)
    out = tmp_path / "out"
    done = find(run_stage, made, out, "--known-loci", known)
    refused(done, "column 'chromosome' is missing", out)
