"""Parameters: the schema, the configuration, and what a user is told about mistakes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest

pytestmark = pytest.mark.xdist_group("nextflow-parameters")

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((REPOSITORY / "nextflow_schema.json").read_text())
PARAMETERS = {
    name: property_
    for group in SCHEMA["$defs"].values()
    for name, property_ in group["properties"].items()
}


def test_schema_is_valid_and_complete():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert [entry["$ref"] for entry in SCHEMA["allOf"]] == [f"#/$defs/{n}" for n in SCHEMA["$defs"]]
    assert len(PARAMETERS) == sum(len(group["properties"]) for group in SCHEMA["$defs"].values())
    for name, property_ in PARAMETERS.items():
        assert property_["type"] in {"string", "integer", "number", "boolean"}, name
        assert property_["description"], name


def test_schema_has_the_names_and_defaults_of_the_configuration(engine, tmp_path):
    done = subprocess.run(
        [engine, "config", "-flat", str(REPOSITORY)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    configured = {}
    for line in done.stdout.splitlines():
        if line.startswith("params."):
            name, value = line.removeprefix("params.").split(" = ", 1)
            configured[name] = value
    assert set(configured) == set(PARAMETERS)
    for name, property_ in PARAMETERS.items():
        default = property_.get("default")
        text = configured[name]
        if default is None:
            assert text == "null", name
        elif property_["type"] == "string":
            assert text.replace("\\\\", "\\") == f"'{default}'", name
        else:
            assert json.loads(text.lower()) == default, name


def test_every_default_meets_its_own_schema():
    for name, property_ in PARAMETERS.items():
        if "default" in property_:
            jsonschema.validate(property_["default"], property_)
        else:
            assert property_["type"] == "string", name


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a folder with the files of a study; sheets with mistakes stand beside them."""
    folder = tmp_path_factory.mktemp("study")
    files = ["mask.nii.gz", "covariates.tsv", "a.nii.gz", "b.nii.gz", "one/x.bed", "one/x.bim"]
    files += ["one/x.fam", "two/x.bed", "two/x.bim", "two/x.fam", "three/x.bed", "trait.tsv"]
    files += ["one/y.bgen", "one/y.sample", "one/y.bgen.bgi", "one/z.VCF.gz", "one/z.psam"]
    files += ["one/v.pgen", "one/v.pvar.zst", "one/v.psam", "one/w.bcf", "one/calls"]
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    sheets = {
        "images.csv": "subject,image\na,a.nii.gz\nb,b.nii.gz\n",
        "semicolons.csv": "\ufeffsubject;image\r\n007;a.nii.gz\r\n7;b.nii.gz\r\n  \r\n\r\n",
        "one_image.csv": "subject,image\na,a.nii.gz\nb,one/../a.nii.gz\n",
        "folder.csv": "subject,image\na,a.nii.gz\nb,one\n",
        "empty.csv": "",
        "header.csv": "subject,image\n",
        "column.csv": "subject,picture\na,a.nii.gz\n",
        "cells.csv": "subject,image\na,a.nii.gz,b.nii.gz\n",
        "absent.csv": "subject,image\na,a.nii.gz\nb,c.nii.gz\n",
        "twice.csv": "subject,image\na,a.nii.gz\n\na,b.nii.gz\n",
        "blank.csv": 'subject,image\n"a b",a.nii.gz\n',
        "lack.csv": "subject,image,part\na,a.nii.gz,lh\nb,b.nii.gz,lh\na,one/calls,rh\n",
        "joined.csv": "subject,image,part\na,a.nii.gz,lh\na,one/calls,rh\n",
        "both.csv": "subject,subjects,image\na,ids.txt,a.nii.gz\n",
        "part.csv": "subject,image,part\na,a.nii.gz,l/h\n",
        "some.csv": "subject,image\na,a.nii.gz\n,b.nii.gz\n",
        "lists.csv": "image,subjects\na.nii.gz,ids.txt\nb.nii.gz,\n",
        "uneven.csv": "image,part\na.nii.gz,lh\nb.nii.gz,rh\none/calls,rh\n",
        "analyze.csv": "subject,image\na,one/alone.hdr\n",
        "parts.csv": "part,mask\nlh,mask.nii.gz\nrh,a.nii.gz\n",
        "parts_other.csv": "part,mask\nlh,mask.nii.gz\nmiddle,a.nii.gz\n",
        "parts_few.csv": "part,mask\nlh,mask.nii.gz\n",
        "table.tsv": "subject\tv1\tv2\na\t1\t2\n",
        "ids.txt": "a\nb\n",
        "one/alone.hdr": "",
        "genotypes.tsv": "chromosome\tpath\nchr1\tone/x.bed\n02\ttwo/x.bed\n",
        "chromosome.csv": "chromosome,path\n27,one/x.bed\n",
        "file_twice.csv": "chromosome,path\n1,one/x.bed\n2,./two/../one/x.bed\n",
        "companion.csv": "chromosome,path\n1,three/x.bed\n",
        "kind.csv": "chromosome,path\n1,trait.tsv\n",
        "form.csv": "chromosome,path,format\n1,one/x.bed,gen\n",
        "no_samples.csv": "chromosome,path,samples\n1,one/y.bgen,one/none.sample\n",
        "formats.csv": "chromosome,path,variants,samples,format\n"
        "0X,one/y.bgen,one/y.bgen.bgi,,\nall,one/z.VCF.gz,,,\n26,one/w.bcf,,one/y.sample,BCF\n"
        "M,one/v.pgen,,,\nPAR1,one/calls,,,vcf\n",
        "trait.csv": "trait,path,n\n../up,trait.tsv,10\n",
        "trait_n.csv": "trait,path,n\nup,trait.tsv,many\n",
        "trait_overlap.csv": "trait,path,overlap\nup,trait.tsv,some\n",
        "trait_build.csv": "trait,path,build\nup,trait.tsv,GRCh37\n",
        "trait_chain.csv": "trait,path,chain\nup,trait.tsv,no.chain\n",
        "trait_taken.csv": "trait,path\nup.regions,trait.tsv\n",
        "regions.csv": "part,labels,names\nlh,a.nii.gz,trait.tsv\nrh,one/calls,\n",
        "regions_other.csv": "part,labels\nlh,a.nii.gz\nmid,b.nii.gz\n",
        "regions_absent.csv": "part,labels\nlh,c.annot\n",
        "regions_same.csv": "part,labels\nlh,a.nii.gz\nrh,of [me] & 'you'/a.nii.gz\n",
        "regions_column.csv": "part,labels,name\nlh,a.nii.gz,x\n",
        "voxels.csv": "voxel,region,labels\n0,A,no.gii\n",
    }
    for name, text in sheets.items():
        (folder / name).write_text(text, newline="")
    (folder / "latin.csv").write_bytes("subject,image\nmüller,a.nii.gz\n".encode("latin-1"))
    (folder / "volumes.nii").write_bytes((348).to_bytes(4, "little") + bytes(400))
    (folder / "sheet.xlsx").write_bytes(b"PK\x03\x04\x14\x00\x06\x00")
    (folder / "of [me] & 'you'").mkdir()
    for name in ("a.nii.gz", "b.nii.gz"):
        (folder / "of [me] & 'you'" / name).touch()
    return folder


# Arguments (beside images, mask and covariates) and what the message says.
MISTAKES = {
    "no input": ({"images": ""}, "nothing to analyse"),
    "unknown name": (
        {"imagesPerBatch": 3, "images-per-batch": 3},
        "--images-per-batch: no such parameter; did you mean --images_per_batch?",
    ),
    "out of range": (
        {"clump_r2": 3},
        "--clump_r2 3: out of range, should be above 0 and at most 1",
    ),
    "no number": ({"tail_draws": "few"}, "--tail_draws few: should be of type integer"),
    "not among the choices": (
        {"se_method": "boot"},
        "should be one of closed_form, jackknife, auto",
    ),
    "no switch": ({"genetic_correlation_matrix": "yes"}, "should be true or false"),
    "no width of smoothing": ({"bandwidth": "0.0"}, "--bandwidth 0.0: should match"),
    "below the privacy limit": ({"minor_allele_count": 1}, "should be at least 5"),
    "work folder of a cloud": (
        {"aws_work_dir": "/scratch/work"},
        "--aws_work_dir /scratch/work: should match s3://.+",
    ),
    "bad study name": ({"study": "a b"}, "--study a b: should match"),
    "folder for a file": (
        {"covariates": "one"},
        "--covariates one: is a folder, but a file is due",
    ),
    "missing file": ({"images": "nowhere.csv"}, "--images nowhere.csv: no such file"),
    "no mask": ({"mask": ""}, "needs --mask too"),
    "second panel alone": ({"ld_panel_2": "genotypes.tsv"}, "give --ld_panel_1 too"),
    "two beginnings": ({"minimal": "a.nii.gz"}, "leave out --images (or --minimal)"),
    "simulated and own": ({"simulate": "small"}, "leave out --images, --mask, --covariates"),
    "empty sheet": ({"images": "empty.csv"}, "--images empty.csv: the file is empty"),
    "sheet without rows": (
        {"images": "header.csv"},
        "header.csv: the sheet has a header but no row",
    ),
    "column missing": (
        {"images": "column.csv"},
        "column.csv, line 1: column image is missing (found subject, picture)",
    ),
    "too many cells": ({"images": "cells.csv"}, "cells.csv, line 2: 3 columns where"),
    "file of a sheet missing": ({"images": "absent.csv"}, "absent.csv, line 3: "),
    "subject twice": (
        {"images": "twice.csv"},
        "twice.csv, line 4: subject 'a' stands there twice (first at twice.csv, line 2)",
    ),
    "image twice": ({"images": "one_image.csv"}, "one_image.csv, line 3: image '"),
    "folder in a sheet": ({"images": "folder.csv"}, "folder.csv, line 3: "),
    "not UTF-8": ({"images": "latin.csv"}, "latin.csv, line 2: is no UTF-8 text"),
    "not text": ({"images": "sheet.xlsx"}, "sheet.xlsx, line 1: is no UTF-8 text"),
    "blank in an id": ({"images": "blank.csv"}, "blank.csv, line 2: subject 'a b'"),
    "part without an image": ({"images": "lack.csv"}, "1 subjects have no image of part 'rh' ('b'"),
    "one subject or many": ({"images": "both.csv"}, "line 2: both subject and subjects are given"),
    "name of a part": ({"images": "part.csv"}, "line 2: part 'l/h' cannot name a file"),
    "subject left out": ({"images": "some.csv"}, "some.csv, line 3: subject is empty"),
    "list left out": ({"images": "lists.csv"}, "some files have a list of subjects and others"),
    "parts of other numbers": (
        {"images": "uneven.csv"},
        "different numbers of files (lh: 1, rh: 2)",
    ),
    "half of a pair": ({"images": "analyze.csv"}, "alone.hdr and alone.img, and one is not there"),
    "volumes without ids": ({"images": "volumes.nii"}, "give the list of its subjects"),
    "table with ids": ({"images": "table.tsv", "image_subjects": "ids.txt"}, "leave the list out"),
    "part that is no image's": (
        {"images": "joined.csv", "parts": "parts_other.csv"},
        "parts_other.csv, line 3: part 'middle' is in no row of the images",
    ),
    "part left out": (
        {"images": "joined.csv", "parts": "parts_few.csv"},
        "--parts parts_few.csv: part 'rh' is missing",
    ),
    "no surface": ({"surface": "lh.gii,rh.gii"}, "--surface lh.gii: no such file"),
    "no coordinates": ({"coordinates": "x.csv"}, "give a table (voxel,x,y,z), index or none"),
    "coverage": ({"min_coverage": 0}, "--min_coverage 0: out of range, should be above 0"),
    "no file matches": (
        {"images": ".", "image_pattern": "(x)[.]gz"},
        "no file name matches --image_pattern",
    ),
    "unknown chromosome": (
        {"genotypes": "chromosome.csv"},
        "chromosome.csv, line 2: chromosome '27' is unknown",
    ),
    "genotype file twice": ({"genotypes": "file_twice.csv"}, "file_twice.csv, line 3: path"),
    "companion missing": ({"genotypes": "companion.csv"}, "three/x.bim: no such file"),
    "no genotype file": ({"genotypes": "kind.csv"}, "no genotype file that is read"),
    "unknown format": (
        {"genotypes": "form.csv"},
        "form.csv, line 2: 'gen' is no genotype file that is read; use PLINK 2 (.pgen), PLINK 1",
    ),
    "sample file missing": (
        {"genotypes": "no_samples.csv"},
        "one/none.sample: no such file (column samples)",
    ),
    "bad name of a trait": ({"traits": "trait.csv"}, "line 2: trait '../up' cannot name a file"),
    "size of a trait": ({"traits": "trait_n.csv"}, "trait_n.csv, line 2: n 'many' is no number"),
    "overlap of a trait": (
        {"traits": "trait_overlap.csv"},
        "line 2: overlap 'some' should be possible",
    ),
    "build of a trait": (
        {"traits": "trait_build.csv", "genome_build": "GRCh38"},
        "line 2: up is on GRCh37, the study on GRCh38; give a chain file",
    ),
    "chain of a trait": ({"traits": "trait_chain.csv"}, "no.chain: no such file (column chain)"),
    "regions of an unknown part": (
        {"images": "joined.csv", "regions": "regions_other.csv"},
        "regions_other.csv, line 3: part 'mid' is in no row of the images (parts of the images: lh",
    ),
    "labels missing": (
        {"regions": "regions_absent.csv"},
        "c.annot: no such file (column labels)",
    ),
    "labels of one name": (
        {"regions": "regions_same.csv"},
        "names two files called a.nii.gz; give them different names",
    ),
    "column of regions": (
        {"regions": "regions_column.csv"},
        "column name is unknown; use labels, part, names",
    ),
    "name of a trait that is taken": (
        {"traits": "trait_taken.csv"},
        "trait 'up.regions' has the name of another table",
    ),
}


# What people's programs write, and is read.
ACCEPTED = {
    "nothing unusual": {},
    "semicolons, CRLF, byte order mark, blank lines": {"images": "semicolons.csv"},
    "a table": {"images": "table.tsv", "mask": "", "coordinates": "index"},
    "volumes with a list": {"images": "volumes.nii", "image_subjects": "ids.txt"},
    "several parts": {"images": "joined.csv", "parts": "parts.csv"},
    "folder with marks in its name": {"images": "of [me] & 'you'"},
    "genotypes of every format": {"genotypes": "formats.csv"},
    "labels for each part": {"images": "joined.csv", "regions": "regions.csv"},
    "voxels of regions": {"regions": "voxels.csv"},
}


@pytest.fixture(scope="module")
def messages(study, nextflow, pipeline_copy):
    """Return what the parameter functions say to each mistake, from one start of the engine."""
    given = {"images": "images.csv", "mask": "mask.nii.gz", "covariates": "covariates.tsv"}
    cases = {name: {**given, **changed} for name, (changed, _) in MISTAKES.items()}
    accepted = {name: {**given, **changed} for name, changed in ACCEPTED.items()}
    (study / "cases.json").write_text(json.dumps({**accepted, **cases}))
    script = pipeline_copy / "mistakes.nf"
    script.write_text(
        "include { checkParameters } from './subworkflows/parameters/main'\n"
        "include { studyFiles } from './subworkflows/parameters/main'\n"
        "def say(given) {\n"
        "    try {\n"
        "        studyFiles(checkParameters(params.findAll { n, v -> n != 'cases' } + given))\n"
        "        return 'nothing'\n"
        "    }\n"
        "    catch (Exception refused) {\n"
        "        return (refused.cause ?: refused).message\n"
        "    }\n"
        "}\n"
        "workflow {\n"
        "    def cases = new groovy.json.JsonSlurper().parseText(file(params.cases).text)\n"
        "    def said = cases.collectEntries { name, given -> [name, say(given)] }\n"
        "    file('said.json').text = groovy.json.JsonOutput.toJson(said)\n"
        "}\n"
    )
    run = nextflow(study, "--cases", "cases.json", pipeline=script)
    assert run.returncode == 0, run.text
    return json.loads((study / "said.json").read_text())


@pytest.mark.parametrize("case", ACCEPTED, ids=str)
def test_no_mistake_no_message(case, messages):
    assert messages[case] == "nothing"


@pytest.mark.parametrize("case", MISTAKES, ids=str)
def test_a_mistake_has_one_message(case, messages):
    assert MISTAKES[case][1] in messages[case]
    assert len(messages[case].splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--image", "x.csv", "--clump_r2", "3"],
            ["--image: no such parameter; did you mean --images?", "--clump_r2 3: out of range"],
        ),
        (
            ["--images", "absent.csv", "--mask", "mask.nii.gz", "--covariates", "covariates.tsv"],
            ["absent.csv, line 3: ", "c.nii.gz: no such file (column image)"],
        ),
        (
            [
                *("--images", "images.csv", "--mask", "mask.nii.gz"),
                *("--covariates", "covariates.tsv", "--outdir", "images.csv/below"),
            ],
            ["--outdir images.csv/below: nothing can be written there"],
        ),
    ],
    ids=["parameters", "sheet", "folder"],
)
def test_a_mistake_ends_the_run_with_status_2(arguments, expected, study, nextflow):
    run = nextflow(study, *arguments)
    assert run.returncode == 2, run.text
    for text in expected:
        assert text in run.text
    assert run.text.count("ERROR ~") == 1
    assert "Submitted process" not in run.text
    assert "Exception" not in run.text


def test_help_lists_every_parameter(tmp_path, nextflow):
    run = nextflow(tmp_path, "--help")
    assert run.returncode == 0
    for name in PARAMETERS:
        assert f"--{name} " in run.text


@pytest.mark.parametrize(
    ("arguments", "not_run", "processes"),
    [
        (
            ["--images", "images.csv", "--mask", "mask.nii.gz", "--covariates", "covariates.tsv"],
            "Not run: association and all after it",
            {
                "READ_IMAGES",
                "SELECT_SUBJECTS",
                "FIT_BASES",
                "PROJECT_IMAGES",
                "MAKE_LDRS",
                "REPORT",
            },
        ),
        (
            ["--minimal", "a.nii.gz", "--ld_reference", "b.nii.gz"],
            "Not run: genetic correlation with other traits",
            {"IMAGE_TAIL", "SCAN_VOXELS", "FIND_LOCI", "HERITABILITY", "REPORT"},
        ),
        (
            ["--minimal", "a.nii.gz", "--ld_panel_1", "genotypes.tsv"],
            "Not run: genetic correlation with other traits",
            {
                "LD_BLOCKS",
                "LD_REFERENCE",
                "IMAGE_TAIL",
                "SCAN_VOXELS",
                "FIND_LOCI",
                "HERITABILITY",
                "REPORT",
            },
        ),
    ],
    ids=["representation only", "minimal dataset with LD", "one LD panel"],
)
def test_what_the_inputs_do_not_reach_is_not_run_and_said(
    arguments, not_run, processes, study, nextflow
):
    run = nextflow(study, *arguments, "-stub-run", "--outdir", "out")
    assert run.returncode == 0, run.text
    assert not_run in run.text
    assert run.processes("COMPLETED", "out") == processes


def test_equal_file_names_in_different_folders_do_not_collide(study, nextflow):
    """Genotype files one/x.bed and two/x.bed, and a saved representation instead of a fit."""
    run = nextflow(
        study,
        "--images",
        "images.csv",
        "--mask",
        "mask.nii.gz",
        "--covariates",
        "covariates.tsv",
        "--genotypes",
        "genotypes.tsv",
        "--ld_panel_1",
        "genotypes.tsv",
        "--ld_panel_2",
        "genotypes.tsv",
        "--bases",
        "a.nii.gz",
        "--images_per_batch",
        "1",
        "-stub-run",
        "--outdir",
        "collide",
    )
    assert run.returncode == 0, run.text
    names = run.tasks("collide")["COMPLETED"]
    assert {"READ_IMAGES (batch 00001)", "READ_IMAGES (batch 00002)"} <= names
    assert {"LD_BLOCKS (chromosome 1)", "LD_BLOCKS (chromosome 2)"} <= names
    assert "FIT_BASES" not in run.processes("COMPLETED", "collide")


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("sub-0012.nii.gz", "0012"),
        ("sub-A1_ses-2_space-MNI_desc-fa_map.nii.gz", "A1"),
        ("1234567_20252_2_0.nii.gz", "1234567"),
        ("1234567_20227_2_0_tensor.nii", "1234567"),
        ("person 7.mgz", "person 7"),
        ("100307.thickness.32k_fs_LR.dscalar.nii", "100307.thickness.32k_fs_LR"),
        ("s1.func.gii", "s1"),
        ("s1.hdr", "s1"),
        ("s1.img", None),
        ("README.txt", None),
    ],
)
def test_ids_in_the_names_of_files(name, subject):
    # The same syntax in Java, whose matches() is Python's fullmatch.
    found = re.fullmatch(PARAMETERS["image_pattern"]["default"], name)
    groups = [group for group in found.groups() if group] if found else [None]
    assert groups[0] == subject
