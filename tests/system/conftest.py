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
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from engine import REPOSITORY, Run, find_engine, once, runner

SITE = """
process.resourceLimits = [cpus: 2, memory: {memory}.MB, time: 1.h]
executor {{
    pollInterval      = '1 sec'
    queueStatInterval = '2 sec'
    submitRateLimit   = '50 sec'
    exitReadTimeout   = '5 sec'
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
SchedulerParameters=sched_interval=2,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def need(*programs: str, root: bool = True) -> None:
    """Skip, with the reason, where a program or the right to use it is missing."""
    if root and os.geteuid() != 0:
        pytest.skip("needs root (daemons, debootstrap)")
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="session")
def engine() -> str:
    """Return the Nextflow executable."""
    return find_engine()


@pytest.fixture(scope="session")
def nextflow(engine: str) -> Callable[..., Run]:
    """Return a function that runs ``nextflow run <pipeline> <arguments>`` in a folder."""
    return runner(engine)


@pytest.fixture(scope="session")
def local_run(tmp_path_factory, nextflow) -> Run:
    """Return an undisturbed run of the smallest study on this machine."""
    return once(tmp_path_factory, "local", lambda folder: nextflow(folder, "-profile", "test"))


@pytest.fixture(scope="session")
def dataset(local_run) -> Path:
    """Return the minimal dataset of the undisturbed run."""
    return local_run.folder / "results/test/test.rvga.h5"


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, nextflow, dataset) -> Run:
    """Return an undisturbed run from the dataset to its loci, which faults are put into."""
    options = from_dataset(dataset)
    return once(tmp_path_factory, "undisturbed", lambda folder: nextflow(folder, *options))


def from_dataset(dataset: Path) -> list[object]:
    """Return the arguments of the shortest run that has tasks of every kind of trouble."""
    return [
        "--minimal", dataset, "--scan_parts", 2, "--tail_draws", 2000, "--outdir", "results/test"
    ]  # fmt: skip


def scan_config(folder: Path, text: str) -> Path:
    """Write a configuration of SCAN_VOXELS and return its path."""
    path = folder / "fault.config"
    path.write_text(f"process {{ withName: 'SCAN_VOXELS' {{\n{text}\n}} }}\n")
    return path


def attempts(run: Run) -> list[tuple[str, str, int]]:
    """Return (status, exit, attempt) of every attempt of SCAN_VOXELS."""
    return sorted(
        (row["status"], row["exit"], int(row["attempt"]))
        for row in run.trace()
        if "SCAN_VOXELS" in row["name"]
    )


class Cluster(NamedTuple):
    """A running one-node cluster: what to set to reach it, its site's config, its node."""

    environment: dict[str, str]
    site: Path
    node: str
    folder: Path

    def options(self) -> list[object]:
        """Return the arguments of a run on the cluster."""
        return ["-profile", "slurm", "-c", self.site]

    def call(self, *command: str) -> str:
        """Return what a SLURM command prints."""
        return subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout

    def states(self) -> set[str]:
        """Return the node's states."""
        return set(self.call("sinfo", "--noheader", "--format=%T").split())

    def start_node(self, hidden: Path | None = None) -> None:
        """Start the node's daemon and wait until it takes jobs.

        With ``hidden``, the node does not see what is in this folder: it has a mount of its own.
        """
        start = ["slurmd", "-f", self.environment["SLURM_CONF"]]
        if hidden:
            shell = f"mount -t tmpfs none '{hidden}' && exec {' '.join(start)}"
            start = ["unshare", "--mount", "sh", "-c", shell]
        subprocess.run(start, check=True, timeout=60)
        self.wait_for(lambda: self.states() & {"idle", "mixed", "allocated"})

    def stop_node(self) -> None:
        """End the node's daemon, as when it is maintained."""
        self.end(self.folder / "slurmd.pid", signal.SIGTERM)

    def lose_node(self, work: Path) -> None:
        """Kill the node's daemon and all that runs in a work folder, as when its power fails."""
        self.end(self.folder / "slurmd.pid", signal.SIGKILL)
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "cwd").resolve().is_relative_to(work):
                    # The daemon's helper first, which would tell how its job ended.
                    parent = int((process / "stat").read_text().rsplit(")")[1].split()[1])
                    if "slurmstepd" in Path(f"/proc/{parent}/comm").read_text():
                        os.kill(parent, signal.SIGKILL)
                    os.kill(int(process.name), signal.SIGKILL)
        self.call("scontrol", "update", f"nodename={self.node}", "state=down", "reason=lost")

    def end(self, pid_file: Path, how: signal.Signals) -> None:
        """Send a signal to a daemon and wait for its end."""
        if pid_file.is_file():
            pid = int(pid_file.read_text())
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
            self.wait_for(lambda: ended(pid))
            pid_file.unlink(missing_ok=True)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"the cluster did not answer; logs in {self.folder}")
            time.sleep(0.3)


def ended(pid: int) -> bool:
    """Tell whether a process is no more, or waits only to be counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """Start munge and a one-node SLURM on 127.0.0.1 that touch nothing outside a folder."""
    need("munged", "slurmctld", "slurmd", "sbatch", "squeue")
    folder = tmp_path_factory.mktemp("slurm")
    # munge refuses a socket in a folder that others cannot pass.
    temporary = tmp_path_factory.getbasetemp().parent
    for parent in [folder, *folder.parents]:
        if parent.is_relative_to(temporary):
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
    one = Cluster({"SLURM_CONF": str(conf)}, site, host, folder)
    try:
        subprocess.run(
            ["munged", "--force", f"--key-file={key}", f"--socket={munge}/socket",
             f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"],
            check=True,
        )  # fmt: skip
        subprocess.run(["slurmctld", "-f", str(conf)], check=True)
        one.start_node()
        yield one
    finally:
        for pid_file in (folder / "slurmd.pid", folder / "slurmctld.pid", munge / "pid"):
            one.end(pid_file, signal.SIGTERM)


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
        # In memory where there is enough: most of the time would go to the disk.
        memory = Path("/dev/shm")
        roomy = memory.is_dir() and shutil.disk_usage(memory).free > 8 << 30
        scratch = memory / f"rvga-image-{os.getpid()}" if roomy else tmp_path_factory.mktemp("i")
        try:
            build_image(scratch, target)
        finally:
            # The store mounts itself; what is mounted cannot be removed.
            mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
            for place in sorted(mounted, key=len, reverse=True):
                if place.startswith(f"{scratch}/"):
                    subprocess.run(["umount", "--lazy", place], check=False)
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def build_image(scratch: Path, target: Path) -> None:
    """Build the image from a base that ``debootstrap`` makes; no container registry is asked."""

    def buildah(*arguments: object) -> str:
        store = ("--root", scratch / "store", "--runroot", scratch / "run")
        return output("buildah", *store, *arguments).strip()

    scratch.mkdir(exist_ok=True)
    try:
        container = buildah("from", "scratch")
        base = Path(buildah("mount", container))
        # A base is made of device files and of programs run in a root folder of their own.
        output("mknod", base / "probe", "c", 1, 3)
        (base / "probe").unlink()
    except AssertionError as refused:
        pytest.skip(f"this machine may not mount or make device files: {str(refused)[-200:]}")
    urls = output("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    mirror = next(url for url in urls.split() if "security" not in url)
    output("debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates",
           "bookworm", base, mirror)  # fmt: skip
    shutil.rmtree(base / "var/cache/apt/archives")
    # The base reaches packages the way this machine does.
    (base / "etc/apt/sources.list").unlink(missing_ok=True)
    for name in ("etc/apt/sources.list", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt"):
        if Path("/", name).is_file():
            shutil.copy(Path("/", name), base / name)
    for name in ("etc/apt/sources.list.d", "etc/apt/apt.conf.d"):
        shutil.copytree(Path("/", name), base / name, dirs_exist_ok=True)
    buildah("commit", "--quiet", container, "localhost/base")
    recipe = REPOSITORY / "containers/Dockerfile"
    buildah("bud", "--isolation", "chroot", "--pull-never", "--build-arg", "BASE=localhost/base",
            "--file", recipe, "--tag", "rvga", REPOSITORY)  # fmt: skip
    built = buildah("from", "--pull-never", "localhost/rvga")
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(exist_ok=True)
    output("cp", "--archive", buildah("mount", built), part)
    # What the image says of itself, beside it.
    text = buildah("inspect", "--type", "image", "localhost/rvga")
    target.with_suffix(".json").write_text(text)
    part.rename(target)


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
