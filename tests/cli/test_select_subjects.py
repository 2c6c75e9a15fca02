"""SELECT_SUBJECTS: the sample, the voxels, and what it says about bad input."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from helpers import files_in, make_image_study, run_stage, write_cifti, write_nifti
from rvga import formats
from rvga.samples import sample_hash

AFFINE = np.array([[2.0, 0, 0, -5], [0, 2, 0, -4], [0, 0, 2, -3], [0, 0, 0, 1]])


@pytest.fixture
def study(tmp_path):
    return make_image_study(tmp_path, n=24)


def batches(study, splits):
    """Run READ_IMAGES over some splits of the subjects."""
    paths = []
    for number, rows in enumerate(splits):
        path = study.folder / f"images.{len(splits)}.{number}.h5"
        done = study.read_images(path, list(rows))
        assert done.returncode == 0, done.stderr
        paths.append(path)
    return paths


def edit(path, change):
    """Change the lines of a text file."""
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")


def test_the_sample_is_the_intersection(study, tmp_path):
    order = sorted(study.subjects)
    edit(study.covariates, lambda lines: [line for line in lines if order[0] not in line])
    edit(
        study.covariates,
        lambda lines: [
            line if order[1] not in line else line.rsplit("\t", 1)[0] + "\tNA" for line in lines
        ],
    )
    fam = tmp_path / "chr2.fam"
    fam.write_text("".join(f"x {s} 0 0 1 -9\n" for s in reversed(order) if s != order[2]))
    (tmp_path / "keep.txt").write_text("\n".join(s for s in order if s != order[3]))
    (tmp_path / "remove.txt").write_text(f"#FID IID\nx {order[4]}\nx nobody\n")
    images = batches(study, [range(24)])
    done = study.select(
        images,
        tmp_path / "subjects.h5",
        *("--samples", study.psam, fam),
        *("--keep", tmp_path / "keep.txt", "--remove", tmp_path / "remove.txt"),
        *("--summary", tmp_path / "x.json"),
    )
    assert done.returncode == 0, done.stderr
    with formats.open_file(tmp_path / "subjects.h5", "subjects") as found:
        assert found.array("subject").tolist() == order[5:]
        assert found["voxel_index"][...].tolist() == list(range(116))
        assert found.attributes["sample_hash"] == sample_hash(order[5:])
        flow = json.loads(found.attributes["flow"])
    counts = [(step["step"], step["n_in"], step["n_out"]) for step in flow]
    assert counts == [
        ("images", 24, 24),
        ("covariates", 24, 23),
        ("complete covariates", 23, 22),
        ("genotypes", 22, 21),
        ("keep list", 21, 20),
        ("remove list", 20, 19),
    ]
    numbers = json.loads((tmp_path / "x.json").read_text())["numbers"]
    assert numbers["flow"] == flow
    assert numbers["n"] == 19
    assert [match["n_common"] for match in numbers["matches"]] == [23, 24, 23]
    assert not any(subject in (tmp_path / "x.json").read_text() for subject in order)


@pytest.mark.parametrize("option", ["keep", "remove"])
def test_listed_ids_that_no_image_has_are_counted(study, tmp_path, option):
    order = sorted(study.subjects)
    images = batches(study, [range(24)])
    # People who withdrew, under ids that the images write in another way.
    listed = [f"sub-{subject}" for subject in order[:3]]
    chosen = order[5:20] if option == "keep" else []
    (tmp_path / "list.txt").write_text("\n".join([*listed, *chosen]))
    summary = tmp_path / "x.json"
    given = (f"--{option}", tmp_path / "list.txt", "--summary", summary)
    done = study.select(images, tmp_path / "subjects.h5", *given)
    assert done.returncode == 0, done.stderr
    n = len(chosen) + 3
    message = f"3 of the {n} ids of the list list.txt ({option}) are not among the images' subjects"
    assert message in done.stderr
    (warning,) = json.loads(summary.read_text())["warnings"]
    assert warning.startswith(message)
    assert "the prefix 'sub-'" in warning
    assert not any(subject in warning for subject in order)
    (tmp_path / "list.txt").write_text("\n".join(order[2:20] if chosen else order[:3]))
    done = study.select(images, tmp_path / "subjects.h5", *given)
    assert done.returncode == 0, done.stderr
    assert json.loads(summary.read_text())["warnings"] == []


def test_bytes_do_not_depend_on_batches_or_the_order_of_anything(study, tmp_path):
    splits = [
        [range(24)],
        [range(0, 9), range(9, 24)],
        [range(23, 11, -1), [3, 1, 2, 0], range(4, 12)],
    ]
    found = set()
    for number, split in enumerate(splits):
        paths = batches(study, split)
        done = study.select(paths[::-1], tmp_path / f"{number}.h5")
        assert done.returncode == 0, done.stderr
        found.add((tmp_path / f"{number}.h5").read_bytes())
        edit(study.covariates, lambda lines: [lines[0], *sorted(lines[1:])])
        edit(study.psam, lambda lines: [lines[0], *lines[:0:-1]])
    assert len(found) == 1


def test_voxels_that_lack_a_value_or_are_constant_are_left_out(study, tmp_path):
    order = sorted(study.subjects)
    for row, volume in enumerate(study.volumes):
        volume[2, 2, 2] = 7.0
        if study.subjects[row] == order[0]:
            # Removed below: a voxel constant in the sample only, and one missing outside it.
            volume[5, 4, 3], volume[1, 1, 1] = 3.0, np.nan
        else:
            volume[5, 4, 3] = 4.0
        if study.subjects[row] == order[5]:
            volume[0, 1, 0] = np.nan
        write_nifti(study.images[row], volume, AFFINE)
    (tmp_path / "remove.txt").write_text(order[0])
    done = study.select(
        batches(study, [range(10), range(10, 24)]),
        tmp_path / "subjects.h5",
        *("--remove", tmp_path / "remove.txt", "--summary", tmp_path / "x.json"),
    )
    assert done.returncode == 0, done.stderr
    dropped = {(2, 2, 2), (5, 4, 3), (0, 1, 0)}
    expected = [k for k, i in enumerate(np.argwhere(study.inside)) if tuple(i) not in dropped]
    with formats.open_file(tmp_path / "subjects.h5", "subjects") as found:
        assert found["voxel_index"][...].tolist() == expected
    numbers = json.loads((tmp_path / "x.json").read_text())["numbers"]
    assert numbers["n_voxels_mask"] == 116
    assert numbers["n_voxels"] == 113
    assert numbers["n_voxels_dropped_coverage"] == 1
    assert numbers["n_voxels_dropped_constant"] == 2
    assert numbers["n_subjects_incomplete_images"] == 1


@pytest.mark.parametrize("missing", [False, True])
def test_images_of_one_value_are_counted(study, tmp_path, missing):
    for row, volume in enumerate(study.volumes):
        if row in (3, 17):
            volume[...] = 2.5
        elif row == 8:
            # Equal at both ends is not equal throughout.
            volume[study.inside] = np.r_[1.0, np.arange(114), 1.0]
        if missing and row in (3, 4):
            volume[2, 2, 2] = np.nan
        write_nifti(study.images[row], volume, AFFINE)
    summary = tmp_path / "x.json"
    done = study.select(
        batches(study, [range(10), range(10, 24)]), tmp_path / "subjects.h5", "--summary", summary
    )
    assert done.returncode == 0, done.stderr
    assert "2 of 24 images have one value everywhere in the mask" in done.stderr
    numbers = json.loads(summary.read_text())["numbers"]
    assert numbers["n_subjects_constant_images"] == 2
    assert numbers["n_subjects_incomplete_images"] == 2 * missing


def test_coverage_decides_over_the_final_sample(study, tmp_path):
    order = sorted(study.subjects)
    values = {}
    for row, volume in enumerate(study.volumes):
        subject = study.subjects[row]
        if subject in order[:4]:
            volume[1, 1, 1] = np.nan  # 4 of 20 subjects, of whom 1 is removed: 3 of 19
        if subject in order[:6]:
            volume[2, 2, 2] = np.nan  # 6, of whom 1 is removed: 5 of 19
        if subject not in order[:2]:
            volume[3, 3, 3] = np.nan  # one value is left: constant
        if subject == order[0]:
            volume[4, 4, 1] = np.nan  # full in the sample
        values[subject] = volume[study.inside]
        write_nifti(study.images[row], volume, AFFINE)
    (tmp_path / "remove.txt").write_text("\n".join([order[0], *order[20:]]))
    places = [tuple(i) for i in np.argwhere(study.inside)]
    some, fewer, alone, full = (
        places.index(p) for p in ((1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 1))
    )
    given = [batches(study, [range(10), range(10, 24)]), tmp_path / "subjects.h5"]
    options = ("--remove", tmp_path / "remove.txt", "--summary", tmp_path / "x.json")
    sample = np.array([values[subject] for subject in order[1:20]])
    for least, dropped in (
        (1.0, {some, fewer, alone}),
        (0.8, {fewer, alone}),
        (0.05, {alone}),
    ):
        done = study.select(*given, *options, "--min-coverage", least)
        assert done.returncode == 0, done.stderr
        kept = [k for k in range(len(places)) if k not in dropped]
        assert full in kept
        with formats.open_file(tmp_path / "subjects.h5", "subjects") as found:
            assert found["voxel_index"][...].tolist() == kept
            expected = np.nanmean(sample[:, kept], axis=0, dtype=np.float64)
            np.testing.assert_allclose(found["voxel_mean"][...], expected, rtol=1e-12)
            assert found.parameters["min_coverage"] == least
        numbers = json.loads((tmp_path / "x.json").read_text())["numbers"]["coverage"]
        assert numbers["n_values_filled"] == np.isnan(sample[:, kept]).sum()
        assert numbers["n_subjects_filled"] == np.isnan(sample[:, kept]).any(axis=1).sum()
        assert ("are filled in with the voxel's mean" in done.stderr) == (least < 1)
    found = nibabel.load(tmp_path / "coverage.nii.gz").get_fdata()[study.inside]
    np.testing.assert_allclose(found, np.isfinite(sample).mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("least", ["0", "1.1", "nan"])
def test_a_share_out_of_range_is_refused(study, tmp_path, least):
    done = study.select([study.mask], tmp_path / "s.h5", "--min-coverage", least)
    assert done.returncode == 2
    assert "--min-coverage" in done.stderr


def test_without_genotypes_the_images_and_covariates_decide(study, tmp_path):
    order = sorted(study.subjects)
    edit(study.covariates, lambda lines: [line for line in lines if order[0] not in line])
    out = tmp_path / "subjects.h5"
    done = run_stage(
        "select_subjects",
        *("--images", batches(study, [range(24)]), "--covariates", study.covariates),
        *("--categorical-columns", "site", "--out", out, "--summary", tmp_path / "x.json"),
    )
    assert done.returncode == 0, done.stderr
    with formats.open_file(out, "subjects") as found:
        assert found.array("subject").tolist() == order[1:]
    numbers = json.loads((tmp_path / "x.json").read_text())["numbers"]
    steps = [step["step"] for step in numbers["flow"]]
    assert steps == ["images", "covariates", "complete covariates"]
    assert numbers["n_genotype_files"] == 0


def test_an_option_that_is_refused_is_one_message(study, tmp_path):
    done = study.select([tmp_path / "x.h5"], tmp_path / "s.h5", "--subject-id", "name")
    assert done.returncode == 2
    assert done.stderr.startswith("ERROR: argument --subject-id: invalid choice: 'name'")
    assert len(done.stderr.splitlines()) == 1


def test_family_ids(study, tmp_path):
    study.subjects[:] = [f"f{subject}_{subject}" for subject in study.subjects]
    edit(
        study.covariates,
        lambda lines: (
            [lines[0].replace("subject", "FID\tIID")]
            + [f"f{line.split(chr(9))[0]}\t{line}" for line in lines[1:]]
        ),
    )
    images = batches(study, [range(24)])
    done = study.select(images, tmp_path / "subjects.h5", "--subject-id", "FID_IID")
    assert done.returncode == 0, done.stderr
    with formats.open_file(tmp_path / "subjects.h5", "subjects") as found:
        assert found.array("subject").tolist() == sorted(study.subjects)
    done = study.select(images, tmp_path / "other.h5")
    assert done.returncode == 2
    assert "family id before '_' (try the other subject_id)" in done.stderr


def nobody_in_common(study):
    edit(study.psam, lambda lines: [lines[0], *(f"x\tsub-{k.split()[1]}\t1" for k in lines[1:])])
    return "no subject of the images' subjects", "hint: the ids match after dropping the prefix"


def few_in_common(study):
    edit(study.psam, lambda lines: [*lines[:8], *(f"x\ty{k}\t1" for k in range(1000, 1100))])
    return "only 7 subjects of the images' subjects", "at least 10 are needed"


def few_left(study):
    edit(
        study.covariates,
        lambda lines: lines[:10] + [line.rsplit("\t", 1)[0] + "\tNA" for line in lines[10:]],
    )
    return "only 9 subjects remain", "complete covariates 9"


def constant(study):
    edit(
        study.covariates,
        lambda lines: [lines[0] + "\tscanner", *(line + "\t3" for line in lines[1:])],
    )
    return ("covariates.tsv: covariate 'scanner' is constant",)


def text(study):
    edit(
        study.covariates,
        lambda lines: [
            *lines[:5], "\t".join([lines[5].split("\t")[0], "old", "1", "a"]), *lines[6:]
        ],
    )  # fmt: skip
    return ("covariates.tsv: line 6, column 'age': 'old' is not a number",)


def too_many_covariates(study):
    rng = np.random.default_rng(0)
    edit(
        study.covariates,
        lambda lines: [
            lines[0] + "".join(f"\tc{k}" for k in range(22)),
            *(line + "".join(f"\t{x:.4f}" for x in rng.normal(size=22)) for line in lines[1:]),
        ],
    )
    return ("24 subjects are too few for 26 covariates",)


def twice_in_covariates(study):
    edit(study.covariates, lambda lines: [*lines, lines[3]])
    return ("is there twice (lines 4 and 26)",)


def twice_in_psam(study):
    edit(study.psam, lambda lines: [*lines, lines[3]])
    return ("is there twice (lines 4 and 26)",)


def no_covariates(study):
    study.covariates.unlink()
    return ("covariates.tsv: no such file",)


def empty_psam(study):
    study.psam.write_text("")
    return ("study.psam: the file is empty",)


@pytest.mark.parametrize(
    "spoil",
    [
        nobody_in_common, few_in_common, few_left, constant, text, too_many_covariates,
        twice_in_covariates, twice_in_psam, no_covariates, empty_psam,
    ],
)  # fmt: skip
def test_bad_input_is_one_message_and_leaves_nothing(study, tmp_path, spoil):
    images = batches(study, [range(24)])
    messages = spoil(study)
    before = files_in(tmp_path)
    done = study.select(images, tmp_path / "subjects.h5", "--summary", tmp_path / "x.json")
    assert done.returncode == 2
    for message in messages:
        assert message in done.stderr
    assert done.stderr.count("ERROR") == 1
    assert "Traceback" not in done.stderr
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    ("second", "options", "refused", "warned"),
    [
        (["{s}_area", "{s}_thickness"], (), False, False),
        (["{s}_thickness", "{s}_area"], (), True, False),
        (["{s}_thickness", "{s}_area"], ("--cifti-maps", "1"), True, False),
        (["{s}_curvature", "{s}_thickness"], (), False, True),
        (["area", "thickness"], ("--cifti-maps", "thickness,area"), False, False),
    ],
)
def test_maps_are_in_one_order_in_every_batch(tmp_path, second, options, refused, warned):
    rng = np.random.default_rng(4)
    by_name = "," in "".join(options)
    first = ["thickness", "area"] if by_name else ["{s}_area", "{s}_thickness"]
    paths = []
    for number, names in enumerate((first, second)):
        subjects = [f"s{10 * number + k}" for k in range(10)]
        for subject in subjects:
            maps = rng.normal(size=(2, 12))
            named = [name.format(s=subject) for name in names]
            write_cifti(tmp_path / f"{subject}.dscalar.nii", maps, named)
        ids = tmp_path / f"{number}.txt"
        ids.write_text("\n".join(subjects) + "\n")
        paths.append(tmp_path / f"images.{number}.h5")
        done = run_stage(
            "read_images",
            *("--images", [tmp_path / f"{subject}.dscalar.nii" for subject in subjects]),
            *("--subjects", ids, "--out", paths[-1], *options),
        )
        assert done.returncode == 0, done.stderr
        assert "other names" not in done.stderr
    table = tmp_path / "covariates.tsv"
    rows = [f"s{k}\t{40 + k * k % 17}" for k in range(20)]
    table.write_text("\n".join(["subject\tage", *rows]) + "\n")
    out = tmp_path / "subjects.h5"
    done = run_stage(
        "select_subjects", "--images", paths, "--covariates", table, "--out", out,
        "--summary", tmp_path / "x.json",
    )  # fmt: skip
    assert done.returncode == (2 if refused else 0), done.stderr
    message = "images.1.h5: its first image (of 's10') has its maps in another order than that of"
    assert (message in done.stderr) == refused
    assert out.exists() != refused
    assert ("1 of 2 batches begin with an image whose maps have other names" in done.stderr) == (
        warned
    )


def test_a_subject_in_two_batches_is_refused(study, tmp_path):
    images = batches(study, [range(12), range(11, 24)])
    done = study.select(images, tmp_path / "subjects.h5")
    assert done.returncode == 2
    assert f"subject '{study.subjects[11]}' is there twice" in done.stderr
    assert not (tmp_path / "subjects.h5").exists()


def test_images_file_cut_short_is_refused(study, tmp_path):
    images = batches(study, [range(24)])
    images[0].write_bytes(images[0].read_bytes()[:-500])
    done = study.select(images, tmp_path / "subjects.h5")
    assert done.returncode == 2
    assert "not a readable HDF5 file" in done.stderr


def test_no_voxel_left(study, tmp_path):
    for row, path in enumerate(study.images):
        write_nifti(path, np.full((6, 5, 4), row + 1.0, dtype=np.float32) * 0 + 5, AFFINE)
    done = study.select(batches(study, [range(24)]), tmp_path / "subjects.h5")
    assert done.returncode == 2
    assert "0 of 116 voxels can be used (0 have a value in less than 1 of the" in done.stderr
