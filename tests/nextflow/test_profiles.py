"""Profiles by themselves and together, as the engine reads them; what the environments install."""

from __future__ import annotations

import json
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
