"""Profiles by themselves and together, as the engine reads them; what the environments install."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("nextflow-parameters")

REPOSITORY = Path(__file__).resolve().parents[2]
ENGINES = ("docker", "singularity", "apptainer", "podman", "charliecloud")
SCHEDULERS = {"slurm": "slurm", "sge": "sge", "pbs": "pbspro", "awsbatch": "awsbatch"}
SIMULATED = {"demo": "demo", "test": "small", "test_full": "demo"}
PROFILES = ("standard", "conda", *ENGINES, *SCHEDULERS, *SIMULATED)
TOGETHER = [f"{scheduler},{engine}" for scheduler in ("slurm", "sge", "pbs") for engine in ENGINES]
TOGETHER += ["awsbatch,docker", "slurm,conda", "test,slurm,charliecloud", "demo,docker"]

# The configuration of every profile, by one start of the engine: what `nextflow config` prints.
SCRIPT = """
workflow {
    def pipeline = file(params.pipeline)
    def given = [queue: 'long', aws_region: 'eu-west-1', aws_work_dir: 's3://bucket/work']
    def found = params.profiles.tokenize('+').collectEntries { profile ->
        def options = new nextflow.cli.CliOptions()
        def run = new nextflow.cli.CmdRun(params: given.collectEntries { n, v -> [n, v] })
        def builder = new nextflow.config.ConfigBuilder()
            .setOptions(options).setCmdRun(run).setBaseDir(pipeline).setCurrentDir(pipeline)
            .setProfile(profile).setShowClosures(true)
        [profile, builder.buildConfigObject().toMap()]
    }
    def plain
    plain = { value ->
        value instanceof Map ? value.collectEntries { n, v -> [n.toString(), plain(v)] }
            : value instanceof Number || value instanceof Boolean || value == null ? value
            : value.toString()
    }
    file('found.json').text = groovy.json.JsonOutput.toJson(plain(found))
}
"""


@pytest.fixture(scope="module")
def configurations(tmp_path_factory, nextflow):
    """Return the whole configuration of each profile and combination."""
    folder = tmp_path_factory.mktemp("profiles")
    (folder / "main.nf").write_text(SCRIPT)
    run = nextflow(
        folder,
        "--pipeline",
        REPOSITORY,
        "--profiles",
        "+".join([*PROFILES, *TOGETHER]),
        pipeline=folder / "main.nf",
    )
    assert run.returncode == 0, run.text
    return json.loads((folder / "found.json").read_text())


def test_no_profile_is_left_out():
    text = (REPOSITORY / "nextflow.config").read_text()
    block = text[text.index("\nprofiles {") : text.index("\n}\n", text.index("\nprofiles {"))]
    assert set(re.findall(r"^    (\w+) \{$", block, re.MULTILINE)) == set(PROFILES)


@pytest.mark.parametrize("profiles", [*PROFILES, *TOGETHER])
def test_a_profile_sets_what_its_name_says(profiles, configurations):
    found = configurations[profiles]
    names = profiles.split(",")
    for engine in ENGINES:
        assert found.get(engine, {}).get("enabled", False) is (engine in names)
    assert found.get("conda", {}).get("enabled", False) is ("conda" in names)
    scheduler = [name for name in names if name in SCHEDULERS]
    if scheduler:
        assert found["process"]["executor"] == SCHEDULERS[scheduler[0]]
        assert found["process"]["queue"] == "long"
        # This machine's processors and memory say nothing of the nodes'.
        if not set(names) & set(SIMULATED):
            assert found["process"]["resourceLimits"] == {}
    else:
        assert found["process"].get("executor", "local") == "local"
        assert found["process"]["resourceLimits"]["cpus"] >= 1
    simulated = [name for name in names if name in SIMULATED]
    assert found["params"]["simulate"] == (SIMULATED[simulated[0]] if simulated else None)
    assert found["process"]["container"] == found["params"]["container"]
    assert "retry" in found["process"]["errorStrategy"]


def test_awsbatch_takes_region_folder_and_spot_attempts_from_parameters(configurations):
    found = configurations["awsbatch"]
    assert found["aws"] == {"region": "eu-west-1", "batch": {"maxSpotAttempts": 3}}
    assert found["workDir"] == "s3://bucket/work"


def test_environments_install_the_same_lock_on_the_same_python():
    environment = (REPOSITORY / "conf/environment.yml").read_text()
    docker = (REPOSITORY / "containers/Dockerfile").read_text()
    apptainer = (REPOSITORY / "containers/rvga.def").read_text()
    [lock] = re.findall(r"- -r (\S+)", environment)
    assert (REPOSITORY / "conf" / lock).resolve() == REPOSITORY / "containers/requirements.lock"
    assert "containers/requirements.lock" in docker
    assert "containers/requirements.lock" in apptainer
    versions = [
        re.findall(r"python[=:](3\.\d+)", text) for text in (environment, docker, apptainer)
    ]
    assert versions[0]
    assert versions[0] == versions[1] == versions[2]
    for text in (environment, docker, apptainer):
        assert "plink2" in text
    installed = [shell_words(text) for text in (docker, apptainer)]
    assert len(installed[0]) == 2
    assert installed[0] == installed[1]


def shell_words(text: str) -> list[list[str]]:
    """Return the commands of a recipe that install packages, by words."""
    commands = re.split(r"\n|&&", text.replace("\\\n", " "))
    return [line.split() for line in commands if re.search(r"\binstall --", line)]


def test_the_text_of_the_conda_environment_changes_with_the_lock():
    # Nextflow keys the environment on this text, and would keep an old one for a new lock.
    lock = hashlib.sha256((REPOSITORY / "containers/requirements.lock").read_bytes()).hexdigest()
    environment = (REPOSITORY / "conf/environment.yml").read_text()
    assert f"sha256 of containers/requirements.lock: {lock}" in environment


# Keeps what a job asks for, and refuses it as a scheduler does.
REFUSING = """#!/bin/bash
grep '^#SBATCH' .command.run > '{asked}'
echo 'sbatch: error: invalid partition specified: long' >&2
echo 'sbatch: error: Batch job submission failed: Invalid partition name specified' >&2
exit 1
"""


def test_a_job_that_is_refused_and_what_it_asked_for(tmp_path, nextflow):
    asked = tmp_path / "asked"
    for name, text in {"sbatch": REFUSING.format(asked=asked), "squeue": "#!/bin/bash\n"}.items():
        (tmp_path / "programs").mkdir(exist_ok=True)
        (tmp_path / "programs" / name).write_text(text)
        (tmp_path / "programs" / name).chmod(0o755)
    (tmp_path / "x.h5").touch()
    # More than this machine has, for the label of the first stage.
    site = tmp_path / "site.config"
    site.write_text(
        "process { withLabel: 'medium' { cpus = 900; memory = 9000.GB; time = 3.h } }\n"
    )
    # A link into the work folder, as an earlier run may have left it.
    (tmp_path / "results/pipeline_info").mkdir(parents=True)
    (tmp_path / "kept").write_text("of an earlier task")
    (tmp_path / "results/pipeline_info/params.json").symlink_to(tmp_path / "kept")
    run = nextflow(
        tmp_path, "-c", site, "-profile", "slurm", "--queue", "long", "--minimal", "x.h5",
        environment={"PATH": f"{tmp_path / 'programs'}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert run.returncode == 1, run.text
    said = [line for line in run.text.splitlines() if "ERROR ~" in line][-1]
    assert re.search(r"IMAGE_TAIL \(\w+\): not submitted: sbatch: error: Batch job sub", said)
    options = " ".join(asked.read_text().split())
    for option in ("-c 900", "-t 03:00:00", "--mem 9216000M", "-p long"):
        assert f"#SBATCH {option}" in options
    kept = json.loads((tmp_path / "results/pipeline_info/params.json").read_text())
    assert kept["minimal"] == "x.h5"
    assert kept["scan_parts"] == 8
    assert (tmp_path / "kept").read_text() == "of an earlier task"
    # What is known of a run that failed.
    versions = (tmp_path / "results/pipeline_info/software_versions.tsv").read_text()
    assert re.match(r"software\tversion\nRVGA\t\d[\d.]+\nNextflow\t2\d\.[\d.]+\nJava\t\d", versions)
