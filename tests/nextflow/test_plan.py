"""The plan of a run: the engine and ``planning.py`` evaluate the same formulas alike."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import pytest

import planning

pytestmark = pytest.mark.xdist_group("nextflow-parameters")

STAGES = list(planning.CONSTANTS["stages"])
# Rows of the plan of given studies, and what is found out about small files.
SCRIPT = """
include { failureMessage    } from './subworkflows/completion/main'
include { genotypeNumbers   } from './subworkflows/plan/main'
include { lineCount         } from './subworkflows/plan/main'
include { maskVoxels        } from './subworkflows/plan/main'
include { planHours         } from './subworkflows/plan/main'
include { planRows          } from './subworkflows/plan/main'
include { planTable         } from './subworkflows/plan/main'
include { resourceConstants } from './subworkflows/resources/main'

workflow {
    def constants = resourceConstants()
    def given = new groovy.json.JsonSlurper().parseText(file(params.given).text)
    def rows = given.studies.collect { study -> planRows(constants, study, given.stages) }
    def nothing = given.studies[0] + [
        voxels: null, smoothed_voxels: null, described: 'a study', notes: ['a note']
    ]
    def said = [
        rows: rows,
        hours: rows.collect { row -> planHours(row, 100) },
        unknown: planTable(planRows(constants, nothing, given.stages), nothing, 2),
        masks: given.masks.collect { path -> maskVoxels(file(path)) },
        genotypes: given.genotypes.collect { format, main, samples ->
            genotypeNumbers(['', format, '', file(main), '', file(samples)])
        },
        failures: given.failures.collect { report -> failureMessage(report) },
        lines: given.lines.collect { path -> lineCount(file(path)) }
    ]
    file('said.json').text = groovy.json.JsonOutput.toJson(said)
}
"""


# The report of the engine on a task that failed.
FAILED = """Error executing process > 'RVGA:ASSOCIATE:COMPONENT_GWAS (00001.00001)'

Caused by:
  Process `COMPONENT_GWAS (00001.00001)` terminated with an error exit status ({status})

Command exit status:
  {status}

Command error:
  memory: about 3 MiB
  {error}

Work dir:
  /scratch/work/3f/ab12
"""
FAILURES = [
    (2, "ERROR: images.tsv, line 7: is no number; correct it"),
    (137, "Killed"),
    (1, "KeyError: 'x'"),
    (99, ""),
]


def nifti(order: str, cells: bytes, shape: tuple[int, int, int], bits: int) -> bytes:
    """Return a NIfTI-1 file by the definition of its header."""
    header = bytearray(352)
    struct.pack_into(f"{order}i", header, 0, 348)
    struct.pack_into(f"{order}8h", header, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into(f"{order}h", header, 72, bits)
    struct.pack_into(f"{order}f", header, 108, 352.0)
    return bytes(header) + cells


@pytest.fixture(scope="module")
def said(tmp_path_factory, nextflow, pipeline_copy):
    """Return what the functions of the plan say, from one start of the engine."""
    folder: Path = tmp_path_factory.mktemp("plan")
    (folder / "small.nii").write_bytes(nifti("<", bytes([0, 1, 2, 0, 0, 9]), (1, 2, 3), 8))
    wide = struct.pack(">4f", 0, 1, 0.5, 0)
    (folder / "wide.nii.gz").write_bytes(gzip.compress(nifti(">", wide, (2, 2, 1), 32)))
    (folder / "none.nii").write_bytes(b"no image")
    (folder / "g.pgen").write_bytes(struct.pack("<3sIIB4x", b"\x6c\x1b\x10", 700, 31, 0))
    (folder / "g.bgen").write_bytes(struct.pack("<IIII", 20, 20, 900, 41))
    (folder / "g.bed").write_bytes(b"\x6c\x1b\x01" + bytes(2 * 11))
    (folder / "g.fam").write_text("f i 0 0 1 -9\n" * 5)
    (folder / "t.tsv.gz").write_bytes(gzip.compress(b"a\n\nb\n"))
    studies = []
    for numbers in planning.STUDIES:
        quantities, tasks, shares = planning.study(*numbers)
        studies.append({**quantities, "tasks": tasks, "shares": shares})
    # What these studies do not have, but formulas of stages ask for.
    for study in studies:
        study |= {"offsets": 0, "sumstats": 0, "tables": 0, "matrix": 0, "genotypes": 0}
        study |= {"converted_bytes": 0}
    given = {
        "studies": studies,
        "stages": STAGES,
        "masks": [str(folder / name) for name in ("small.nii", "wide.nii.gz", "none.nii")],
        "genotypes": [
            [kind, str(folder / f"g.{kind}"), str(folder / "g.fam")]
            for kind in ("pgen", "bgen", "bed", "vcf")
        ],
        "failures": [FAILED.format(status=s, error=e) for s, e in FAILURES] + ["", None],
        "lines": [str(folder / "g.fam"), str(folder / "t.tsv.gz")],
    }
    (folder / "given.json").write_text(json.dumps(given))
    script = pipeline_copy / "plan.nf"
    script.write_text(SCRIPT)
    run = nextflow(folder, "--given", folder / "given.json", pipeline=script)
    assert run.returncode == 0, run.text
    return json.loads((folder / "said.json").read_text())


def test_the_engine_evaluates_the_formulas_as_the_table_of_the_documents(said):
    for numbers, found, hours in zip(planning.STUDIES, said["rows"], said["hours"], strict=True):
        rows = planning.plan(*planning.study(*numbers), STAGES)
        assert [row["stage"] for row in found] == STAGES
        for one, other in zip(rows, found, strict=True):
            assert other["tasks"] == one["tasks"]
            assert other["cpus"] == one["cpus"]
            assert other["memory"] == pytest.approx(one["memory"], rel=1e-9, abs=2)
            assert other["seconds"] == pytest.approx(one["seconds"], rel=1e-9)
            assert other["writes"] == pytest.approx(one["writes"], rel=1e-9)
        assert hours == pytest.approx(planning.hours(rows, 100), rel=1e-9)


def test_what_is_not_known_is_a_question_mark(said):
    lines = {line.split()[0]: line.split() for line in said["unknown"].splitlines()[1:]}
    assert lines["fit_bases"][1:] == ["1", "?", "?", "?"]
    assert "?" not in lines["plan_chunks"]
    assert "at least" in " ".join(lines["total:"])
    assert lines["a"] == ["a", "note"]


def test_a_failed_task_says_what_is_wrong_and_what_to_do(said):
    task = "COMPONENT_GWAS (00001.00001)"
    refused, killed, fault, other, none, nothing = said["failures"]
    assert refused == f"{task}: images.tsv, line 7: is no number; correct it"
    assert killed.startswith(f"{task}: killed or out of memory in every attempt: give it more")
    assert fault.startswith(f"{task}: a fault of the program")
    assert other.startswith(f"{task}: ended with status 99")
    for message in (killed, fault, other):
        assert message.endswith("its output is in /scratch/work/3f/ab12/.command.log")
    assert none == nothing == ""


def test_counts_by_headers_alone(said):
    assert said["masks"] == [3, 2, None]
    assert said["genotypes"] == [
        {"variants": 700, "people": 31},
        {"variants": 900, "people": 41},
        {"variants": 11, "people": 5},
        {"variants": None, "people": None},
    ]
    assert said["lines"] == [5, 2]
