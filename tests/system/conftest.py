"""A one-node SLURM cluster and a container image, made for the tests and taken down again.

What cannot be made on a machine is skipped with the reason (``pytest -rs`` prints it).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SITE = """
process.resourceLimits = [cpus: 2, memory: {memory}.MB, time: 1.h]
executor {{
    pollInterval      = '1 sec'
    queueStatInterval = '2 sec'
    submitRateLimit   = '50 sec'
    exitReadTimeout   = '15 sec'
}}
"""
SLURM_CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdTimeout=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Run(NamedTuple):
    """How a run ended: exit status, all that it printed, and its launch folder."""

    returncode: int
    text: str
    folder: Path


def need(*programs: str, root: bool = True) -> None:
    """Skip, with the reason, where a program or the right to use it is missing."""
    if root and os.geteuid() != 0:
        pytest.skip("needs root (daemons, debootstrap)")
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="session")
def engine() -> str:
    """Return the Nextflow executable: from PATH, else the one that the Makefile fetched."""
    need("java", root=False)
    own = REPOSITORY / ".engine/bin/nextflow"
    found = shutil.which("nextflow") or (str(own) if own.is_file() else None)
    if found is None:
        pytest.skip("Nextflow is neither on PATH nor in .engine (make setup fetches it)")
    return found


def run_environment(folder: Path, **extra: str) -> dict[str, str]:
    """Return the environment of a run: the engine's own files inside ``folder``."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NXF_OFFLINE": "true",
        "NXF_ANSI_LOG": "false",
        "NXF_HOME": os.environ.get("NXF_HOME", str(folder / ".home")),
        "USER": os.environ.get("USER", "root"),
        **extra,
    }


@pytest.fixture(scope="session")
def nextflow(engine: str) -> Callable[..., Run]:
    """Return a function that runs ``nextflow run <pipeline> <arguments>`` in a folder."""

    def run(folder: Path, *arguments: object, environment: dict[str, str] | None = None) -> Run:
        done = subprocess.run(
            [engine, "run", str(REPOSITORY / "main.nf"), *map(str, arguments)],
            cwd=folder,
            env=run_environment(folder, **(environment or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        return Run(done.returncode, done.stdout, folder)

    return run


@pytest.fixture(scope="session")
def local_run(tmp_path_factory, nextflow) -> Run:
    """Return an undisturbed run of the smallest study on this machine."""
    run = nextflow(tmp_path_factory.mktemp("local"), "-profile", "test")
    assert run.returncode == 0, run.text
    return run


def results(folder: Path, outdir: str = "results/test") -> dict[str, str]:
    """Return the digest of every published file but logs of the run, by relative path."""
    root = folder / outdir
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not name.startswith("pipeline_info/") and "execution" not in name:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


class Cluster(NamedTuple):
    """A running one-node cluster: what to set to reach it, its site's config, its node."""

    environment: dict[str, str]
    site: Path
    node: str
    folder: Path

    def call(self, *command: str) -> str:
        """Return what a SLURM command prints."""
        return subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def start_node(self) -> None:
        """Start the node's daemon and wait until it takes jobs."""
        subprocess.run(["slurmd", "-f", self.environment["SLURM_CONF"]], check=True)
        self.wait_for(lambda: "idle" in self.call("sinfo", "--noheader", "--format=%t"))

    def wait_for(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"the cluster did not answer; logs in {self.folder}")
            time.sleep(0.3)


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """Start munge and a one-node SLURM on 127.0.0.1 that touch nothing outside a folder."""
    need("munged", "slurmctld", "slurmd", "sbatch", "squeue", "pgrep")
    folder = tmp_path_factory.mktemp("slurm")
    # munge refuses a socket in a folder that others cannot pass.
    for parent in [folder, *folder.parents]:
        if str(parent).startswith(str(tmp_path_factory.getbasetemp().parent)):
            parent.chmod(0o711)
    munge = folder / "munge"
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir()
    munge.chmod(0o700)
    key = munge / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host = socket.gethostname().split(".")[0]
    memory = int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20 * 0.9)
    conf = folder / "slurm.conf"
    conf.write_text(
        SLURM_CONF.format(
            folder=folder,
            host=host,
            cpus=os.cpu_count(),
            memory=memory,
            ports=[free_port(), free_port()],
        )
    )
    site = folder / "site.config"
    site.write_text(SITE.format(memory=min(memory, 6000)))
    subprocess.run(
        ["munged", "--force", f"--key-file={key}", f"--socket={munge}/socket",
         f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"],
        check=True,
    )  # fmt: skip
    one = Cluster({"SLURM_CONF": str(conf)}, site, host, folder)
    try:
        subprocess.run(["slurmctld", "-f", str(conf)], check=True)
        one.start_node()
        yield one
    finally:
        for pid_file in (folder / "slurmd.pid", folder / "slurmctld.pid", munge / "pid"):
            if pid_file.is_file():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid_file.read_text()), signal.SIGTERM)


@pytest.fixture(scope="session")
def image(tmp_path_factory) -> Path:
    """Return the folder of the container image, built by the Dockerfile on a local base.

    It is kept in ``.image/`` under the digest of what it is made from.
    """
    need("debootstrap", "buildah", "ch-run", "apt-get")
    sources = [REPOSITORY / "containers/Dockerfile", REPOSITORY / "containers/requirements.lock"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    target = REPOSITORY / ".image" / digest
    if not target.is_dir():
        build_image(tmp_path_factory.mktemp("image"), target)
    return target


def build_image(scratch: Path, target: Path) -> None:
    """Build the image from a base that ``debootstrap`` makes; no container registry is asked."""
    base = scratch / "base"
    urls = output("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    mirror = next(url for url in urls.split() if "security" not in url)
    output("debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates",
           "bookworm", base, mirror)  # fmt: skip
    # The base reaches packages the way this machine does.
    (base / "etc/apt/sources.list").unlink(missing_ok=True)
    for name in ("etc/apt/sources.list", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt"):
        if Path("/", name).is_file():
            shutil.copy(Path("/", name), base / name)
    for name in ("etc/apt/sources.list.d", "etc/apt/apt.conf.d"):
        shutil.copytree(Path("/", name), base / name, dirs_exist_ok=True)

    def buildah(*arguments: object) -> str:
        store = ("--root", scratch / "store", "--runroot", scratch / "run")
        return output("buildah", *store, *arguments).strip()

    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, f"{base}/", "/")
    buildah("commit", "--quiet", container, "localhost/base")
    recipe = REPOSITORY / "containers/Dockerfile"
    buildah("bud", "--isolation", "chroot", "--pull-never", "--build-arg", "BASE=localhost/base",
            "--file", recipe, "--tag", "rvga", REPOSITORY)  # fmt: skip
    built = buildah("from", "--pull-never", "localhost/rvga")
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(exist_ok=True)
    output("cp", "--archive", buildah("mount", built), part)
    part.rename(target)
    buildah("rm", "--all")
    # The store mounts itself; what is mounted cannot be removed.
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in sorted((place for place in mounted if place.startswith(f"{scratch}/")), key=len):
        subprocess.run(["umount", "--lazy", place], check=False)
    shutil.rmtree(scratch)


def output(*command: object, **environment: str) -> str:
    """Return what a command prints; a failure shows the end of what it said."""
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}\n{done.stdout[-3000:]}"
    return done.stdout
