"""The whole chain on surfaces and on a table: maps come out in the geometry that came in."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from scipy.io import savemat
from scipy.spatial import cKDTree

from helpers import write_cifti, write_metric, write_nifti, write_surface
from rvga import formats

pytestmark = pytest.mark.xdist_group("nextflow-kinds")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Write a simulated study once as GIFTI (two hemispheres) and once as a table."""
    folder = tmp_path_factory.mktemp("kinds")
    subprocess.run(
        [
            sys.executable, "-m", "rvga.command", "simulate", "--preset", "small",
            "--subjects", "120", "--seed", "3", "--out", str(folder / "study"),
        ],
        check=True,
    )  # fmt: skip
    mask = nibabel.load(folder / "study/mask.nii.gz")
    index = np.argwhere(mask.get_fdata() > 0)
    points = nibabel.affines.apply_affine(mask.affine, index).astype(np.float32)
    with (folder / "study/images.csv").open() as sheet:
        subjects = [row["subject"] for row in csv.DictReader(sheet)]
    images = np.array(
        [
            nibabel.load(folder / f"study/images/{subject}.nii.gz").get_fdata()[tuple(index.T)]
            for subject in subjects
        ]
    )
    sides = {"lh": points[:, 0] < 0, "rh": points[:, 0] >= 0}
    sheet = ["subject,image,part"]
    parts = ["part,surface"]
    (folder / "gifti").mkdir()
    for side, here in sides.items():
        near = cKDTree(points[here]).query(points[here], k=5)[1]
        triangles = np.vstack([near[:, [0, 1, 2]], near[:, [0, 3, 4]]]).astype(np.int32)
        structure = {"lh": "CortexLeft", "rh": "CortexRight"}[side]
        write_surface(folder / f"{side}.surf.gii", structure, points[here], triangles)
        parts.append(f"{side},{side}.surf.gii")
        for subject, values in zip(subjects, images, strict=True):
            write_metric(folder / f"gifti/{side}.{subject}.func.gii", values[here])
            sheet.append(f"{subject},gifti/{side}.{subject}.func.gii,{side}")
    (folder / "surfaces.csv").write_text("\n".join(sheet) + "\n")
    (folder / "parts.csv").write_text("\n".join(parts) + "\n")
    names = [f"v{k}" for k in range(len(points))]
    rows = [
        "\t".join([subject, *(f"{value:.9g}" for value in values)])
        for subject, values in zip(subjects, images, strict=True)
    ]
    (folder / "table.tsv").write_text("\n".join(["\t".join(["subject", *names]), *rows]) + "\n")
    places = [f"{name},{x},{y},{z}" for name, (x, y, z) in zip(names, points.tolist(), strict=True)]
    (folder / "places.csv").write_text("voxel,x,y,z\n" + "\n".join(places) + "\n")
    return folder, sides


def run(nextflow, folder, name, **given):
    """Run the pipeline on the study with these images and return the folder of results."""
    parameters = {
        "study": name, "outdir": f"results/{name}", "categorical_columns": "site",
        "covariates": "study/covariates.tsv", "genotypes": "study/genotypes.csv",
        "ld_panel_1": "study/ld_panel_1.csv", "ld_panel_2": "study/ld_panel_2.csv",
        "traits": "study/traits.csv", "genome_build": "GRCh38", "components": 5,
        "tail_draws": 2000, "scan_parts": 1, "chunk_variants": 5000, "images_per_batch": 70,
        "minor_allele_count": 5, "significance_level": 1e-4, **given,
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(parameters))
    done = nextflow(folder, "-params-file", f"{name}.json")
    assert done.returncode == 0, done.text
    return folder / "results" / name


def write_labels(folder, sides):
    """Write an annotation of one hemisphere and labels of the other; return sizes of regions."""
    (folder / "atlas").mkdir()
    rows = {side: np.arange(here.sum()) * 3 // here.sum() for side, here in sides.items()}
    table = np.array([[9, 9, 9, 0, 0], [7, 7, 7, 0, 0], [5, 5, 5, 0, 0]])
    nibabel.freesurfer.write_annot(
        folder / "atlas/lh.a.annot", rows["lh"], table, ["unknown", "front", "back"], fill_ctab=True
    )
    array = nibabel.gifti.GiftiDataArray(rows["rh"].astype(np.int32), intent="NIFTI_INTENT_LABEL")
    nibabel.save(nibabel.gifti.GiftiImage(darrays=[array]), folder / "atlas/rh.label.gii")
    (folder / "names.tsv").write_text("index\tname\n1\tfront\n2\tback\n")
    (folder / "atlas/regions.csv").write_text(
        "part,labels,names\nrh,rh.label.gii,../names.tsv\nlh,lh.a.annot,\n"
    )
    return {
        f"{side} {name}": int((rows[side] == k).sum())
        for side in sides
        for k, name in ((1, "front"), (2, "back"))
    }


def test_two_hemispheres_on_their_surfaces(study, nextflow):
    folder, sides = study
    sizes = write_labels(folder, sides)
    out = run(
        nextflow, folder, "surfaces", images="surfaces.csv", parts="parts.csv",
        regions="atlas/regions.csv",
    )  # fmt: skip
    with (out / "heritability/regions.tsv").open() as lines:
        regions = {
            row["region"]: int(row["n_voxels"]) for row in csv.DictReader(lines, delimiter="\t")
        }
    assert regions == sizes
    n_maps = 0
    for side, here in sides.items():
        maps = [
            out / f"coverage/coverage.{side}.func.gii",
            out / f"heritability/heritability.{side}.func.gii",
            *out.glob(f"cross_trait/*.{side}.func.gii"),
            *out.glob(f"maps/*.{side}.func.gii"),
        ]
        n_maps += len(maps)
        for path in maps:
            image = nibabel.load(path)
            assert len(image.darrays[0].data) == here.sum()
            assert image.meta["AnatomicalStructurePrimary"].startswith("Cortex")
    assert n_maps > 8
    assert list(out.rglob("*.nii.gz")) == []
    with formats.open_file(out / "surfaces.rvga.h5", "minimal") as dataset:
        assert len(dataset["geometry/vertices"]) == sum(here.sum() for here in sides.values())
        assert sorted(set(dataset["part"][...].tolist())) == [0, 1]
    assert "</html>" in (out / "report.html").read_text()


def test_a_table_with_coordinates(study, nextflow):
    folder, sides = study
    out = run(nextflow, folder, "table", images="table.tsv", coordinates="places.csv")
    n = sum(here.sum() for here in sides.values())
    names = [f"v{k}" for k in range(n)]
    for name in ("coverage/coverage.map.tsv", "heritability/heritability.map.tsv"):
        with (out / name).open() as lines:
            rows = list(csv.DictReader(lines, delimiter="\t"))
        assert list(rows[0]) == ["voxel", "x", "y", "z", "value"]
        assert [row["voxel"] for row in rows] == names
    assert list(out.rglob("*.nii.gz")) == []
    assert "</html>" in (out / "report.html").read_text()


def test_analyze_with_the_affine_of_spm_beside_cifti_of_two_maps(tmp_path, nextflow):
    rng = np.random.default_rng(3)
    shape, n = (5, 4, 3), 14
    affine = np.array([[0, -2.0, 0, 9], [2, 0, 0, -5], [0, 0, 2, -3], [0, 0, 0, 1]])
    write_nifti(tmp_path / "mask.nii.gz", np.ones(shape, dtype=np.uint8), affine)
    from_one = np.eye(4)
    from_one[:3, 3] = -1
    sheet = ["subject,image,part"]
    for k in range(n):
        image = nibabel.AnalyzeImage(rng.normal(size=shape).astype(np.float32), np.eye(4))
        image.to_filename(tmp_path / f"s{k}.hdr")
        savemat(tmp_path / f"s{k}.mat", {"mat": affine @ from_one})
        maps = rng.normal(size=(2, 16))
        write_cifti(tmp_path / f"s{k}.dscalar.nii", maps, [f"s{k}_area", f"s{k}_thickness"])
        sheet += [f"s{k},s{k}.img,volume", f"s{k},s{k}.dscalar.nii,cortex"]
    (tmp_path / "images.csv").write_text("\n".join(sheet) + "\n")
    (tmp_path / "parts.csv").write_text("part,mask\nvolume,mask.nii.gz\ncortex,\n")
    rows = [f"s{k}\t{40 + k * k % 11}" for k in range(n)]
    (tmp_path / "covariates.tsv").write_text("\n".join(["subject\tage", *rows]) + "\n")
    given = (
        *("--images", "images.csv", "--parts", "parts.csv", "--covariates", "covariates.tsv"),
        *("--components", 3, "--images_per_batch", 7, "--study", "mixed"),
    )
    done = nextflow(tmp_path, *given, "--outdir", "results/mixed")
    assert done.returncode == 0, done.text
    volume = nibabel.load(tmp_path / "results/mixed/coverage/coverage.volume.nii.gz")
    np.testing.assert_allclose(volume.affine, affine)
    cifti = nibabel.load(tmp_path / "results/mixed/coverage/coverage.cortex.dscalar.nii")
    assert cifti.shape == (2, 16)
    with formats.open_file(tmp_path / "results/mixed/bases.h5", "bases") as bases:
        assert bases["bases"].shape == (60 + 32, 3)
    # The first image of the second batch has its maps the other way round.
    write_cifti(tmp_path / "s7.dscalar.nii", maps, ["s7_thickness", "s7_area"])
    for k in range(8, n):
        write_cifti(tmp_path / f"s{k}.dscalar.nii", maps, [f"s{k}_thickness", f"s{k}_area"])
    done = nextflow(tmp_path, *given, "--outdir", "results/turned", "-resume")
    assert done.returncode == 2, done.text
    message = "SELECT_SUBJECTS: images/images.00002.h5: its first image (of 's7') has its maps in"
    assert message in done.text
