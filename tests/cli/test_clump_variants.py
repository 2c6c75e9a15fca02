"""The clump_variants stage as a program: LD from a chromosome's genotypes, bad input."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import rvga_clump_variants
from helpers import files_in
from rvga import formats, genotypes, loci
from rvga.samples import sample_hash
from rvga.tables import TABLES, write_table
from small_study import hard_calls, subject_names, write_bed, write_pgen

N_PEOPLE, EACH = 200, 12


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return two chromosomes of genotypes and the significant variants of two parts of a scan."""
    folder = tmp_path_factory.mktemp("clumps")
    people = sorted(subject_names(N_PEOPLE), key=str.encode)
    base = hard_calls(4, N_PEOPLE, seed=3)
    # Copies of four variants in turn; the last variant of chromosome 2 does not vary.
    calls = [np.tile(base, (3, 1)), np.tile(base[::-1], (3, 1))]
    calls[1][-1] = 1
    mains = [
        write_pgen(folder / "one", calls[0][:, ::-1], people[::-1], "1"),
        write_bed(folder / "two", calls[1], people, "2"),
    ]
    frame = pd.DataFrame({name: [] for name in TABLES["significant"]})
    rows = []
    for chromosome, file in (
        ("1", mains[0].with_suffix(".pvar")),
        ("2", mains[1].with_suffix(".bim")),
    ):
        lines = [line.split() for line in file.read_text().splitlines() if line[0] != "#"]
        for words in lines:
            bed = file.suffix == ".bim"
            position, identity = (words[3], words[1]) if bed else (words[1], words[2])
            effect, other = (words[4], words[5]) if bed else (words[4], words[3])
            rows.append((chromosome, int(position), identity, effect, other))
    strength = np.random.default_rng(4).permutation(2 * EACH) + 10.0
    frame = pd.DataFrame(rows, columns=list(TABLES["significant"])[1:6]).assign(
        row=np.arange(2 * EACH) * 3, effect_allele_frequency=0.3, z=strength,
        neg_log_10_p_image_wide=strength,
    )[list(TABLES["significant"])]  # fmt: skip
    parts = [folder / "significant.1.tsv", folder / "significant.2.tsv"]
    for path, part in zip(parts, (frame[:10], frame[10:]), strict=True):
        write_table(part, path, "significant")
    subjects = folder / "subjects.h5"
    with formats.create(
        subjects, "subjects", {"sample_hash": sample_hash(people), "flow": []}
    ) as writer:
        writer.add("subject", people)
        writer.add("voxel_index", np.arange(3))
    return SimpleNamespace(
        mains=mains, parts=parts, frame=frame, subjects=subjects, people=people, calls=calls
    )


def clump(run_stage, made, out, *options, parts=None, mains=None):
    return run_stage(
        "clump_variants", "--significant", *(parts or made.parts), "--genotypes",
        *(mains or made.mains), "--out", out, *options,
    )  # fmt: skip


def content(path):
    with formats.open_file(path, "clumps") as file:
        arrays = {name: file.array(name) for name in formats.KINDS["clumps"].datasets}
        return arrays, dict(file.attributes)


def test_copies_of_a_variant_are_one_clump_led_by_the_strongest(run_stage, made, tmp_path):
    out = tmp_path / "clumps.h5"
    done = clump(run_stage, made, out, "--subjects", made.subjects, "--clump-r2", "0.9")
    assert done.returncode == 0, done.stderr
    found, attributes = content(out)
    np.testing.assert_array_equal(found["row"], made.frame["row"])
    strength = made.frame["z"].to_numpy()
    still = 2 * EACH - 1
    for variant in range(2 * EACH - 1):
        first = EACH * (variant // EACH)
        copies = [k for k in range(first, first + EACH) if k % 4 == variant % 4 and k != still]
        leader = found["leader"][variant] // 3
        # The one that does not vary has no LD: distance decides, and it may lead anyone.
        if leader != still:
            assert leader == max(copies, key=lambda k: strength[k])
    assert found["has_ld"].tolist() == [1] * still + [0]
    assert attributes["people"] == "study"
    assert attributes["sample_hash"] == sample_hash(made.people)
    assert int(attributes["n_people"]) == N_PEOPLE


def test_a_chromosome_alone_is_the_same_and_needs_its_own_files_only(run_stage, made, tmp_path):
    both, _ = (clump(run_stage, made, tmp_path / "both.h5"), None)
    assert both.returncode == 0, both.stderr
    whole, _ = content(tmp_path / "both.h5")
    for name, main, rows in (("1", 0, slice(0, EACH)), ("2", 1, slice(EACH, None))):
        out = tmp_path / f"{name}.h5"
        done = clump(
            run_stage, made, out, "--chromosome", name, mains=[made.mains[main]],
            parts=made.parts[::-1],
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found, attributes = content(out)
        assert attributes["people"] == "everyone"
        for key in found:
            np.testing.assert_array_equal(found[key], whole[key][rows])


def test_nothing_significant_and_no_genotypes_of_what_is(run_stage, made, tmp_path):
    for name, mains, variants in (("X", made.mains, 0), ("1", [made.mains[1]], EACH)):
        out = tmp_path / f"{name}.h5"
        done = clump(run_stage, made, out, "--chromosome", name, mains=mains)
        assert done.returncode == 0, done.stderr
        found, attributes = content(out)
        assert len(found["row"]) == variants
        assert not found["has_ld"].any()
        assert (attributes["people"], attributes["sample_hash"]) == ("", "")


def test_genotypes_are_read_in_blocks_of_one_size_however_many_people(made, tmp_path, monkeypatch):
    sizes = []
    read = genotypes.Genotypes.dosages

    def dosages(self, variants, people):
        sizes.append(len(variants) * len(people))
        return read(self, variants, people)

    monkeypatch.setattr(genotypes.Genotypes, "dosages", dosages)
    files = (*made.parts, "--genotypes", *made.mains, "--subjects", made.subjects)
    found = []
    for values in (loci._VALUES, 5 * N_PEOPLE + 1):
        monkeypatch.setattr(rvga_clump_variants, "GENOTYPE_VALUES", values)
        monkeypatch.setattr(loci, "_VALUES", values)
        out = tmp_path / f"{values}.h5"
        rvga_clump_variants.main(list(map(str, ("--significant", *files, "--out", out))))
        found.append(content(out)[0])
    assert sizes == [EACH * N_PEOPLE] * 2 + 2 * [5 * N_PEOPLE, 5 * N_PEOPLE, 2 * N_PEOPLE]
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("part twice", "a part of the scan is given twice"),
        ("samples", "--samples has 1 files, --genotypes 2"),
        ("other people", "two.bed"),
        ("columns", "its columns are not those of a 'significant' table"),
        ("r2", "outside [0, 1]"),
        ("kb", "outside [0"),
        ("chromosome", "invalid choice: '99'"),
    ],
)
def test_what_is_refused(run_stage, made, tmp_path, change, message):
    mains, parts, options = list(made.mains), list(made.parts), []
    if change == "part twice":
        parts.append(parts[0])
    elif change == "samples":
        options = ["--samples", mains[0].with_suffix(".psam")]
    elif change == "other people":
        names = [f"p{k}" for k in range(N_PEOPLE)]
        mains[1] = write_bed(tmp_path / "two", made.calls[1], names, "2")
    elif change == "columns":
        parts[0] = tmp_path / "significant.tsv"
        parts[0].write_text("chromosome\tz\n1\t9\n")
    else:
        options = {
            "r2": ["--clump-r2", "1.2"], "kb": ["--clump-kb", "-5"],
            "chromosome": ["--chromosome", "99"],
        }[change]  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    done = clump(run_stage, made, out / "clumps.h5", *options, parts=parts, mains=mains)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert files_in(out) == set()
