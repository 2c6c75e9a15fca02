"""Leave-one-chromosome-out offsets: exact through all stages, and what is refused."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from scipy import stats

import rvga_component_gwas
import rvga_fit_null
import rvga_minimal_dataset
from helpers import files_in
from rvga import formats
from rvga.dataset import MinimalDataset
from rvga.samples import sample_hash
from small_study import hard_calls, make_study, run_chunks, run_here, subject_names, write_pgen

N, R, M = 130, 4, 60
CHROMOSOMES = ("1", "2", "3")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a study with its subjects, LDRs and covariates on disk, and predictions (c, n, r)."""
    folder = tmp_path_factory.mktemp("loco")
    s = make_study(folder, N, r=R)
    with formats.open_file(s.bases, "bases") as bases:
        digest = bases.digest
    attributes = {"sample_hash": sample_hash(s.subjects), "flow": []}
    with formats.create(
        folder / "subjects.h5", "subjects", attributes, parameters={"subject_id": "IID"}
    ) as writer:
        writer.add("subject", s.subjects)
        writer.add("voxel_index", np.arange(40))
    with formats.open_file(folder / "subjects.h5", "subjects") as subjects:
        inputs = {"subjects": subjects.digest, "bases": digest}
    with formats.create(folder / "ldrs.h5", "ldrs", {}, inputs=inputs) as writer:
        writer.add("ldrs", s.ldrs)
        writer.add("subject", s.subjects)
        writer.add("quality_components", [R])
        writer.add("quality_correlation", [0.5])
    lines = [
        "\t".join([name, *map(repr, row)])
        for name, row in zip(s.subjects, s.covariates[:, 1:].tolist(), strict=True)
    ]
    (folder / "covariates.tsv").write_text("subject\tx\ty\tz\n" + "\n".join(lines) + "\n")
    Q = np.linalg.qr(s.covariates)[0]
    residual = s.ldrs - Q @ (Q.T @ s.ldrs)
    deviation = np.sqrt((residual**2).sum(axis=0) / (N - 4))
    rng = np.random.default_rng(8)
    # In standard deviations of the residual, correlated with it, as REGENIE writes them.
    predictions = 0.4 * residual / deviation + 0.3 * rng.normal(size=(3, N, R))
    return s, folder, predictions.round(6), deviation


def write_loco(path, predictions, subjects, j, *, family="{name}", codes=(1, 2, 3)):
    """Write the file of component j, with a stranger and in another order of people."""
    order = np.random.default_rng(j).permutation(len(subjects))
    ids = [family.format(name=subjects[row]) + "_" + subjects[row] for row in order]
    lines = [" ".join(["FID_IID", "stranger_stranger", *ids])]
    for row, code in enumerate(codes):
        values = [f"{value:.6f}" for value in predictions[row][order, j]]
        lines.append(" ".join([str(code), "NA", *values]))
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_all(study, folder, **more):
    s, _, predictions, _ = study
    return [
        write_loco(folder / f"ldr_{j + 1}.loco{'.gz' if j % 2 else ''}", predictions, s.subjects, j,
                   **more)
        for j in range(R)
    ]  # fmt: skip


def fit(study, out, files, names, *options):
    folder = study[1]
    loco = ("--loco-predictions", files, "--loco-components", ",".join(names)) if files else ()
    return run_here(
        rvga_fit_null.main, "--ldrs", folder / "ldrs.h5", "--subjects", folder / "subjects.h5",
        "--covariates", folder / "covariates.tsv", *loco, *options, "--out", out,
    )  # fmt: skip


NAMES = [f"LDR{j + 1}" for j in range(R)]


def dense(y, covariates, g):
    """Return beta and its standard error by least squares of y on [covariates, g]."""
    design = np.column_stack([covariates, g])
    solution = np.linalg.lstsq(design, y, rcond=None)[0]
    left = y - design @ solution
    inverse = np.linalg.inv(design.T @ design)[-1, -1]
    return solution[-1], np.sqrt(left @ left / (len(y) - design.shape[1]) * inverse)


def test_voxels_are_least_squares_on_the_offset_components(study, tmp_path):
    s, _, predictions, deviation = study
    files = write_all(study, tmp_path)
    null = tmp_path / "null.h5"
    # In another order of components than theirs.
    done = fit(study, null, files[::-1], NAMES[::-1], "--summary", tmp_path / "s.json")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["warnings"] == []
    assert content["numbers"]["n_chromosomes_with_offsets"] == 3
    assert max(content["numbers"]["variance_left_by_offsets"]) < 0.9
    people = subject_names(N)
    calls = hard_calls(M, N, seed=3)
    main = write_pgen(tmp_path / "g", calls, people)
    # The chunk spans chromosomes.
    place = np.repeat([0, 1, 2], M // 3)
    rows = [f"{CHROMOSOMES[c]}\t{1000 + row}\trs{row}\tA\tG" for row, c in enumerate(place)]
    text = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\n" + "\n".join(rows) + "\n"
    main.with_suffix(".pvar").write_text(text)
    chunk, out = tmp_path / "gwas.h5", tmp_path / "o.rvga.h5"
    done = run_here(
        rvga_component_gwas.main, "--genotypes", main, "--null", null, "--threads", 2,
        "--block-variants", 16, "--dataset-coding", "float32", "--out", chunk,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run_here(
        rvga_minimal_dataset.main, "--chunks", chunk, "--bases", s.bases, "--null", null,
        "--threads", 1, "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    offset = [s.ldrs - predictions[c] * deviation for c in range(3)]
    with MinimalDataset.open(out) as dataset, formats.open_file(null, "null") as model:
        assert model["A_chromosome"][...].tolist() == [1, 2, 3]
        np.testing.assert_array_equal(dataset.A, model["A"][...])
        Q = np.linalg.qr(s.covariates)[0]
        plain = s.ldrs - Q @ (Q.T @ s.ldrs)
        np.testing.assert_allclose(dataset.Sigma, plain.T @ plain / N, rtol=1e-9, atol=1e-9)
        components = dataset.components()
        kept = [int(name[2:]) for name in dataset.variants["variant_id"]]
        assert len(kept) > 50
        assert components.A_index.tolist() == place[kept].tolist()
        order = [people.index(name) for name in s.subjects]
        for voxel in (0, 17):
            table = dataset.voxel(voxel)
            b = s.B[voxel].astype(float)
            for at, row in list(enumerate(kept))[::7]:
                g = calls[row, order].astype(float)
                beta, error = dense(offset[place[row]] @ b, s.covariates, g)
                found = table.iloc[at]
                assert abs(found["beta"] - beta) < 1e-4 * error
                assert abs(found["standard_error"] / error - 1) < 1e-5
        for at, row in list(enumerate(kept))[::11]:
            g = calls[row, order].astype(float)
            for j in range(R):
                beta, error = dense(offset[place[row]][:, j], s.covariates, g)
                assert abs(components.z[at, j] - beta / error) < 1e-4
                assert abs(components.beta[at, j] - beta) < 1e-4 * error


def test_only_the_chromosomes_that_are_analysed_are_kept(study, tmp_path):
    files = write_all(study, tmp_path, codes=(1, 2, 23))
    done = fit(study, tmp_path / "n.h5", files, NAMES, "--chromosomes", "2,X,MT")
    assert done.returncode == 0, done.stderr
    with formats.open_file(tmp_path / "n.h5", "null") as model:
        # REGENIE collapses the sex chromosomes and MT.
        assert model["A_chromosome"][...].tolist() == [2, 23, 25]
        np.testing.assert_array_equal(model["A"][1], model["A"][2])
        assert (model["A"][0] != model["A"][1]).any()


def test_a_variant_on_a_chromosome_without_predictions_is_refused(study, tmp_path):
    files = write_all(study, tmp_path, codes=(1, 2))
    assert fit(study, tmp_path / "n.h5", files, NAMES).returncode == 0
    main = write_pgen(tmp_path / "g", hard_calls(5, N, seed=3), subject_names(N), "7")
    done = run_here(
        rvga_component_gwas.main, "--genotypes", main, "--null", tmp_path / "n.h5", "--threads", 1,
        "--out", tmp_path / "gwas.h5",
    )  # fmt: skip
    assert done.returncode == 2
    assert "no leave-one-chromosome-out prediction for chromosome 7" in done.stderr
    assert not (tmp_path / "gwas.h5").exists()


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        (NAMES[:-1], {}, "names 3 components, but there are 4 files"),
        ([*NAMES[:-1], "LDR5"], {}, "component 'LDR5' is none of LDR1 to LDR4"),
        ([*NAMES[:-1], "ldr1"], {}, "component 'LDR1' is there twice"),
        (NAMES, {"codes": (1, 2, 2)}, "line 4: chromosome 2 is there twice"),
        (NAMES, {"codes": (1, 2, 27)}, "line 4: chromosome '27' is unknown"),
    ],
)
def test_wrong_names_and_chromosomes(study, tmp_path, options, more, message):
    files = write_all(study, tmp_path, **more)
    done = fit(study, tmp_path / "n.h5", files, options)
    assert done.returncode == 2
    assert message in done.stderr
    assert "n.h5" not in files_in(tmp_path)


def test_a_chromosome_that_is_analysed_must_be_there(study, tmp_path):
    files = write_all(study, tmp_path)
    done = fit(study, tmp_path / "n.h5", files, NAMES, "--chromosomes", "1,4")
    assert done.returncode == 2
    assert "ldr_1.loco: has no prediction for chromosome 4, which is analysed" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("FID_IID", "IID"), "line 1 does not begin with FID_IID"),
        (lambda text: text.replace(" s7_s7 ", " x7_x7 "), "1 of 130 subjects have no prediction"),
        (lambda text: text.replace(" s7_s7 ", " s8_s8 "), "subject 's8' is in line 1 twice"),
        (lambda text: text[:-40] + "\n", "line 4 has "),
        (lambda text: text.replace("\n1 NA ", "\n1 NA x"), "line 2 holds something that is not a"),
        (lambda text: text.replace("\n2 NA ", "\n2 NA NA ", 1).replace(" \n", "\n"), "line 3 has"),
        (lambda text: text.split("\n")[0] + "\n", "holds people but no chromosome's"),
        (lambda text: "", "does not begin with FID_IID"),
    ],
)
def test_wrong_files(study, tmp_path, change, message):
    files = write_all(study, tmp_path)
    files[0].write_text(change(files[0].read_text()))
    done = fit(study, tmp_path / "n.h5", files, NAMES)
    assert done.returncode == 2
    assert "ldr_1.loco" in done.stderr
    assert message in done.stderr
    assert done.stderr.count("ERROR") == 1
    assert "n.h5" not in files_in(tmp_path)


def test_a_missing_prediction_is_named_once_with_the_count(study, tmp_path):
    files = write_all(study, tmp_path)
    lines = files[2].read_text().splitlines()
    for line in (1, 2, 3):
        words = lines[line].split(" ")
        words[5] = words[9] = "NA"
        lines[line] = " ".join(words)
    files[2].write_text("\n".join(lines) + "\n")
    done = fit(study, tmp_path / "n.h5", files, NAMES)
    assert done.returncode == 2
    assert "ldr_3.loco: line 2: 2 of 130 subjects have no prediction, the first is" in done.stderr


def test_family_ids_and_underscores(study, tmp_path):
    files = write_all(study, tmp_path, family="fam_of_{name}")
    assert fit(study, tmp_path / "n.h5", files, NAMES).returncode == 0
    plain = write_all(study, tmp_path)
    assert fit(study, tmp_path / "p.h5", plain, NAMES).returncode == 0
    with (
        formats.open_file(tmp_path / "n.h5", "null") as one,
        formats.open_file(tmp_path / "p.h5", "null") as two,
    ):
        np.testing.assert_array_equal(one["A"][...], two["A"][...])


def test_predictions_of_the_opposite_sign_are_warned_of(study, tmp_path):
    s, folder, predictions, deviation = study
    files = write_all((s, folder, -predictions, deviation), tmp_path)
    done = fit(study, tmp_path / "n.h5", files, NAMES)
    assert done.returncode == 0, done.stderr
    assert "WARNING: loco_predictions: 4 of 4 components vary more without" in done.stderr


KINSHIP = {
    "king": "#FID1\tIID1\tFID2\tIID2\tNSNP\tKINSHIP\n0\ts1\t0\ts2\t9\t0.25\n0\ts2\t0\ts1\t9\t0.25\n"
    "0\ts3\t0\ts2\t9\t0.05\n0\ts5\t0\ts6\t9\t0.04\n0\ts1\t0\tstranger\t9\t0.5\n",
    "biobank": "ID1 ID2 HetHet IBS0 Kinship\ns1 s2 0.1 0.1 0.25\ns3 s2 0 0 0.05\ns5 s6 0 0 0.01\n"
    "x y 0 0 0.3\nx y 0 0 0.3\n",
}


@pytest.mark.parametrize("kind", list(KINSHIP))
def test_relatives_are_counted_and_warned_of(study, tmp_path, kind):
    table = tmp_path / "k.txt"
    table.write_text(KINSHIP[kind])
    done = fit(
        study, tmp_path / "n.h5", [], [], "--kinship", table, "--summary", tmp_path / "s.json"
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "s.json").read_text())
    expected = {"threshold": 0.0442, "n_pairs": 2, "n_people": 3, "n_pairs_listed": 5}
    assert content["numbers"]["kinship"] == expected
    [warning] = content["warnings"]
    assert warning.startswith("2 pairs of the sample (3 people) are third-degree relatives")
    assert "give loco_predictions" in warning
    files = write_all(study, tmp_path)
    done = fit(study, tmp_path / "n.h5", files, NAMES, "--kinship", table)
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b c\n1 2 3\n", "has no columns IID1 and IID2"),
        ("IID1 IID2 KINSHIP\ns1 s2\n", "line 2 has 2 fields, but the header has 3"),
        ("IID1 IID2 KINSHIP\ns1 s2 much\n", "line 2: kinship 'much' is not a number"),
        ("", "the file is empty"),
    ],
)
def test_wrong_kinship(study, tmp_path, text, message):
    (tmp_path / "k.txt").write_text(text)
    done = fit(study, tmp_path / "n.h5", [], [], "--kinship", tmp_path / "k.txt")
    assert done.returncode == 2
    assert message in done.stderr


def write_cross_product(path, A):
    header = "\t".join(f"LDR{j + 1}" for j in range(len(A)))
    path.write_text(header + "\n" + "".join("\t".join(map(repr, r)) + "\n" for r in A.tolist()))
    return path


def test_cross_product_in_place_of_people(study, tmp_path):
    s = study[0]
    with formats.open_file(s.null, "null") as old:
        A = old["A"][0]
    table = write_cross_product(tmp_path / "A.tsv", A)
    done = run_here(
        rvga_fit_null.main, "--residual-cross-product", table, "--bases", s.bases, "--n-subjects",
        N, "--n-covariates", 3, "--out", tmp_path / "n.h5",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with formats.open_file(tmp_path / "n.h5", "null") as model:
        np.testing.assert_allclose(model["A"][0], A, rtol=1e-12)
        np.testing.assert_allclose(model["Sigma"][...], A / N, rtol=1e-12)
        assert model["size"][...].tolist() == [N, 4]
        assert "subject" not in model


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda A: A, {"--n-subjects": 0}, "needs --bases, --n-subjects"),
        (lambda A: A, {"--n-subjects": 6}, "--n-subjects 6 is too small"),
        (lambda A: A[:3, :3], {}, "has 3 components, but bases.h5 has 4"),
        (lambda A: A[:3], {}, "has 3 lines below the header, but 4 are due"),
        (lambda A: A + np.triu(np.ones((4, 4)), 1), {}, "is not symmetric"),
        (lambda A: -A, {}, "is not positive definite"),
        (lambda A: A * np.nan, {}, "is not symmetric, or has a value that is not finite"),
    ],
)
def test_wrong_cross_products(study, tmp_path, change, options, message):
    s = study[0]
    with formats.open_file(s.null, "null") as old:
        A = change(old["A"][0])
    header = "\t".join(f"LDR{j + 1}" for j in range(A.shape[1]))
    table = tmp_path / "A.tsv"
    table.write_text(header + "\n" + "".join("\t".join(map(repr, r)) + "\n" for r in A.tolist()))
    given = {"--n-subjects": N, "--n-covariates": 3} | options
    words = [word for pair in given.items() for word in pair]
    done = run_here(
        rvga_fit_null.main, "--residual-cross-product", table, "--bases", s.bases, *words, "--out",
        tmp_path / "n.h5",
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert "n.h5" not in files_in(tmp_path)


@pytest.mark.parametrize("structured", [True, False])
def test_inflated_statistics_are_warned_of(tmp_path, structured):
    """Two populations with other frequencies and other images, not among the covariates."""
    n, m = 200, 400
    people = subject_names(n)
    group = np.arange(n) % 2 * structured
    ordered = np.array([group[people.index(name)] for name in sorted(people, key=str.encode)])
    s = make_study(tmp_path, n, r=3, extra=np.outer(ordered, np.full(40, 1.5)))
    rng = np.random.default_rng(5)
    frequency = rng.uniform(0.2, 0.6, (m, 1)) + 0.2 * group
    main = write_pgen(tmp_path / "g", rng.binomial(2, frequency).astype(np.int8), people)
    [chunk] = run_chunks(tmp_path / "c", s, [main])
    done = run_here(
        rvga_minimal_dataset.main, "--chunks", chunk, "--bases", s.bases, "--null", s.null,
        "--threads", 1, "--out", tmp_path / "o.rvga.h5", "--summary", tmp_path / "s.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "s.json").read_text())
    with MinimalDataset.open(tmp_path / "o.rvga.h5") as dataset:
        z, nu = dataset.components().z, dataset.nu
    expected = np.median(z**2, axis=0) / stats.t.ppf(0.75, nu) ** 2
    np.testing.assert_allclose(content["numbers"]["lambda_gc"], expected, rtol=1e-12)
    warned = [text for text in content["warnings"] if "lambda_GC" in text]
    if structured:
        assert "components is above 1.57 (LDR" in warned[0]
        assert "give loco_predictions or more covariates" in warned[0]
    else:
        assert not warned
