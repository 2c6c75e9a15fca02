"""The plan of a run: the engine and ``planning.py`` evaluate the same formulas alike."""

from __future__ import annotations

import gzip
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

import planning

pytestmark = pytest.mark.xdist_group("nextflow-parameters")

STAGES = list(planning.CONSTANTS["stages"])
# Cells other than 0 of each.
MASKS = {
    "small.nii": 3,
    "wide.nii.gz": 2,
    "short.nii": 3,
    "double.nii": 2,
    "none.nii": None,
    "rgb.nii": None,
    "cut.nii.gz": None,
}
# Rows of the plan of given studies, and what is found out about small files.
SCRIPT = """
include { checkParameters   } from './subworkflows/parameters/main'
include { covariateCount    } from './subworkflows/plan/main'
include { failureMessage    } from './subworkflows/completion/main'
include { lockedOrAlone     } from './subworkflows/completion/main'
include { planText          } from './subworkflows/plan/main'
include { reachedSteps      } from './subworkflows/parameters/main'
include { studyFiles        } from './subworkflows/parameters/main'
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
    def plans = given.plans.collect { changed ->
        def defaults = params.findAll { name, _value -> name != 'given' }
        def options = checkParameters(defaults + changed)
        planText(options, reachedSteps(options), studyFiles(options), 2)
    }
    def clock = java.lang.management.ManagementFactory.getThreadMXBean()
    def before = clock.getCurrentThreadCpuTime()
    def large = maskVoxels(file(given.large))
    def said = [
        large: [large, (clock.getCurrentThreadCpuTime() - before) / 1e9],
        plans: plans,
        columns: given.lines.collect { path -> covariateCount([:], file(path)) },
        locks: [
            lockedOrAlone([tryLock: { -> throw new IOException('No locks available') }], 'far'),
            lockedOrAlone([tryLock: { -> null }], 'held')
        ],
        rows: rows,
        hours: rows.collect { row -> planHours(row, 100) },
        unknown: planTable(planRows(constants, nothing, given.stages), nothing, 2),
        masks: given.masks.collect { path -> maskVoxels(file(path)) },
        genotypes: given.genotypes.collect { format, main, samples ->
            genotypeNumbers(['', format, '', file(main), '', samples ? file(samples) : ''])
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
# The same on a job that the scheduler refused.
REFUSED = """Error executing process > 'RVGA:SIMULATE (small)'

Caused by:
  Failed to submit process to grid scheduler for execution


Command executed:

  sbatch .command.run

Command exit status:
  1

Command output:
  sbatch: error: invalid partition specified: nowhere
  sbatch: error: Batch job submission failed: Invalid partition name specified

Work dir:
  /scratch/work/3b/6ff5

Tip: when you have fixed the problem you can continue
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
    short = struct.pack(">6h", 0, 1, 256, -1, 0, 0)
    (folder / "short.nii").write_bytes(nifti(">", short, (1, 2, 3), 16))
    double = struct.pack("<4d", 0, 1e-300, 2, 0)
    (folder / "double.nii").write_bytes(nifti("<", double, (4, 1, 1), 64))
    (folder / "rgb.nii").write_bytes(nifti("<", bytes(12), (4, 1, 1), 24))
    packed = gzip.compress(nifti("<", np.random.default_rng(1).bytes(4000), (10, 10, 10), 32))
    (folder / "cut.nii.gz").write_bytes(packed[:2000])
    cells = np.zeros(256**3, dtype="<f4")
    cells[::3] = 1
    (folder / "large.nii").write_bytes(nifti("<", cells.tobytes(), (256, 256, 256), 32))
    (folder / "plain.tsv.gz").write_text("IID\tage\n1\t50\n")
    (folder / "i.nii").write_bytes(nifti("<", bytes(1), (1, 1, 1), 8))
    (folder / "images.csv").write_text("subject,image\na,i.nii\n")
    far = "http://127.0.0.1:9/far"
    (folder / "far.csv").write_text(
        f"chromosome,path,variants,samples\n1,{far}.pgen,{far}.pvar,{far}.psam\n"
        f"2,{far}.bed,{far}.bim,{far}.fam\n"
    )
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
        "masks": [str(folder / name) for name in MASKS] + [f"{far}.nii"],
        "large": str(folder / "large.nii"),
        "plans": [
            {
                "images": "images.csv",
                "mask": "cut.nii.gz",
                "covariates": "plain.tsv.gz",
                "genotypes": "far.csv",
            },
            {"minimal": "none.nii"},
            {"minimal": "none.nii", "genotypes": "far.csv"},
        ],
        "genotypes": [
            [kind, str(folder / f"g.{kind}"), str(folder / "g.fam")]
            for kind in ("pgen", "bgen", "bed", "vcf")
        ]
        # Of another format, and none at all.
        + [["pgen", str(folder / "none.nii"), ""]]
        + [[kind, f"{far}.{kind}", f"{far}.fam"] for kind in ("pgen", "bgen", "bed")],
        "failures": [FAILED.format(status=s, error=e) for s, e in FAILURES] + [REFUSED, "", None],
        "lines": [str(folder / name) for name in ("g.fam", "t.tsv.gz", "plain.tsv.gz")],
    }
    (folder / "given.json").write_text(json.dumps(given))
    script = pipeline_copy / "plan.nf"
    script.write_text(SCRIPT)
    run = nextflow(folder, "--given", folder / "given.json", pipeline=script)
    assert run.returncode == 0, run.text
    return json.loads((folder / "said.json").read_text()) | {"text": run.text}


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
    refused, killed, fault, other, submission, none, nothing = said["failures"]
    assert submission == (
        "SIMULATE (small): not submitted: sbatch: error: Batch job submission failed: Invalid "
        "partition name specified"
    )
    assert refused == f"{task}: images.tsv, line 7: is no number; correct it"
    assert killed.startswith(f"{task}: killed or out of memory in every attempt: give it more")
    assert fault.startswith(f"{task}: a fault of the program")
    assert other.startswith(f"{task}: ended with status 99")
    for message in (killed, fault, other):
        assert message.endswith("its output is in /scratch/work/3f/ab12/.command.log")
    assert none == nothing == ""


def test_counts_by_headers_alone(said):
    assert said["masks"] == [*MASKS.values(), None]
    assert said["genotypes"] == [
        {"variants": 700, "people": 31},
        {"variants": 900, "people": 41},
        {"variants": 11, "people": 5},
        *[{"variants": None, "people": None}] * 5,
    ]
    assert said["lines"] == [5, 2, None]
    assert said["columns"][2] is None


def test_a_large_mask_is_counted_in_seconds(said):
    voxels, seconds = said["large"]
    assert voxels == len(range(0, 256**3, 3))
    assert seconds < 20


def test_what_cannot_be_read_ends_no_plan(said):
    damaged, minimal, with_genotypes = said["plans"]
    lines = {line.split()[0]: line.split() for line in damaged.splitlines()[1:]}
    assert lines["read_images"] == ["read_images", "1", "1", "GB", "?", "?"]
    assert lines["component_gwas"][1:3] == ["?", "?"]
    assert "the number of voxels" in damaged
    assert "the number of variants" in damaged
    for text in said["plans"]:
        assert not re.search(r"-\d", text), text
    for text in (minimal, with_genotypes):
        assert "FIT_BASES" not in text
        assert "at least 0 " not in text
        assert "? core-hours" in text
        assert "not known before the dataset is read" in text


def test_a_file_system_without_locks_is_only_warned_of(said):
    assert said["locks"] == [True, False]
    assert "--outdir far: this file system has no locks (No locks available)" in said["text"]
