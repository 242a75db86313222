"""The launcher of local workers, the chief, and the scripts for clusters.

The launcher runs by its path where it can: as `python -m keras_vqvae.distribute` it imports the
package first, which takes seconds.
"""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from keras_vqvae import distribute
from tests.inside import inside

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "examples" / "cluster"
LAUNCHER = [sys.executable, "-P", str(ROOT / "keras_vqvae" / "distribute.py")]
SCRIPT = """
import json, os, pathlib, signal, subprocess, sys, time
INDEX = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
HERE = pathlib.Path(__file__).parent

def note(name, text):  # whole, or not at all
    (HERE / f"{name}.part").write_text(str(text))
    (HERE / f"{name}.part").rename(HERE / name)

def wait_for(name):
    while not (HERE / name).exists():
        time.sleep(0.01)
"""
# A worker that says so when it is told to stop, and a child of its own that does not listen.
LINGER = """
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", deaf])

def stop(*_):
    print("told to stop")
    sys.exit(0)

signal.signal(signal.SIGTERM, stop)
note(f"pids{INDEX}", f"{os.getpid()} {child.pid}")
"""


def write(folder: Path, body: str) -> Path:
    script = folder / "script.py"
    script.write_text(SCRIPT + body)
    return script


def launch(script: Path, *options: str, launcher: list = LAUNCHER) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*launcher, *options, str(script)], capture_output=True, text=True, timeout=120
    )


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def lingering(folder: Path, workers: int = 2) -> list[int]:
    """Process ids of all workers that `LINGER` and of their children, once they are there."""
    for index in range(workers):
        wait_until((folder / f"pids{index}").exists)
    return [int(x) for i in range(workers) for x in (folder / f"pids{i}").read_text().split()]


def wait_until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited for a minute"
        time.sleep(0.02)


def wait_until_gone(pids: list[int]) -> None:
    # A process that has been sent SIGKILL may still be there for a moment.
    wait_until(lambda: not any(map(alive, pids)))


def test_workers_know_their_places_and_get_the_arguments(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, sys\nprint(json.dumps({'env': dict(os.environ), 'argv': sys.argv}))"
    )
    arguments = ["--workers", "9", "-m", "--", "a b", "", "--restarts=x"]
    before = {**os.environ, "TF_CONFIG": "to be replaced", "OTHER": "kept"}
    before.pop("PYTHONUNBUFFERED", None)
    run = subprocess.run(
        [sys.executable, "-m", "keras_vqvae.distribute", "--workers=3", script, *arguments],
        cwd=ROOT,
        env=before,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    lines = sorted(run.stdout.splitlines())
    assert [line[:4] for line in lines] == ["[0] ", "[1] ", "[2] "]
    clusters = []
    for index, line in enumerate(lines):
        seen = json.loads(line[4:])
        assert seen["argv"] == [str(script), *arguments]
        config = json.loads(seen["env"]["TF_CONFIG"])
        assert config["task"] == {"type": "worker", "index": index}
        clusters.append(config["cluster"])
        changed = {k for k in {*before, *seen["env"]} if before.get(k) != seen["env"].get(k)}
        assert changed - {"LC_CTYPE"} == {"TF_CONFIG", "PYTHONUNBUFFERED"}  # LC_CTYPE: Python's own
    assert clusters[0] == clusters[1] == clusters[2]
    addresses = clusters[0]["worker"]
    assert len(set(addresses)) == 3 and all(a.startswith("127.0.0.1:") for a in addresses)


def test_output_keeps_its_lines_and_its_stream(tmp_path: Path) -> None:
    script = write(
        tmp_path,
        """
for number in range(300):  # in two writes each, that another worker's could come between
    sys.stdout.write(f"{INDEX} says ")
    sys.stdout.write(f"{number} " + "x" * 5000 + "\\n")
    sys.stderr.write(f"{INDEX} warns {number}\\n")
for number in range(1000):
    sys.stdout.write(f"\\r{number} of 1000")
sys.stdout.write("\\rall of 1000\\r\\n\\nno newline")
""",
    )
    run = launch(script, "--workers", "2")
    assert run.returncode == 0
    for index in (0, 1):
        said = [x for x in run.stdout.split("\n") if x.startswith(f"[{index}]")]
        assert said[:300] == [f"[{index}] {index} says {n} " + "x" * 5000 for n in range(300)]
        # Of a progress bar some states are shown, as lines, and the last one always.
        assert said[-3:] == [f"[{index}] {end}" for end in ("all of 1000", "", "no newline")]
        assert 1 <= len(said[300:-3]) < 1000
        assert all(line.endswith(" of 1000") for line in said[300:-3])
        warned = [x for x in run.stderr.split("\n") if x.startswith(f"[{index}]")]
        assert warned == [f"[{index}] {index} warns {n}" for n in range(300)]
    assert "\r" not in run.stdout


@pytest.mark.parametrize(
    "end, code, message",
    [
        ("sys.exit(3)", 3, "worker 1 ended with exit code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "worker 1 died: SIGKILL"),
    ],
)
def test_one_dies_all_are_stopped(tmp_path: Path, end: str, code: int, message: str) -> None:
    script = write(
        tmp_path,
        f"""
if INDEX == 2:
    sys.exit(0)  # one that has ended well does not end the others
{LINGER}
for other in (0, 1):
    wait_for(f"pids{{other}}")
if INDEX == 1:
    {end}
time.sleep(600)
""",
    )
    run = launch(script, "--workers", "3")
    assert run.returncode == code
    assert message in run.stderr
    assert "[0] told to stop\n" in run.stdout
    wait_until_gone(lingering(tmp_path))


def test_one_that_does_not_hear_is_killed(tmp_path: Path) -> None:
    script = write(
        tmp_path,
        """
if INDEX == 1:
    wait_for("pids0")
    sys.exit(3)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
note("pids0", os.getpid())
time.sleep(600)
""",
    )
    hasty = "import runpy, sys; sys.argv.pop(0); main = runpy.run_path(sys.argv[0])['main']; "
    hasty += "main.__globals__['GRACE_SECONDS'] = 0.3; sys.exit(main())"
    run = launch(script, launcher=[sys.executable, "-c", hasty, LAUNCHER[-1]])
    assert run.returncode == 3
    wait_until_gone(lingering(tmp_path, workers=1))


def test_restarts_are_counted_and_anew(tmp_path: Path) -> None:
    script = write(
        tmp_path,
        """
start = len(list(HERE.glob(f"start{INDEX}.*")))
note(f"start{INDEX}.{start}", os.environ["TF_CONFIG"])
wait_for(f"start{1 - INDEX}.{start}")
if INDEX == start % 2 and start < 2:
    sys.exit(start + 7)
if INDEX != start % 2 and start < 2:
    time.sleep(600)
""",
    )
    run = launch(script, "--workers", "2", "--restarts", "1")
    assert run.returncode == 8  # that of the last start
    said = [x for x in run.stderr.splitlines() if x.startswith("keras_vqvae.distribute: ")]
    assert len(said) == 2
    assert "worker 0 ended with exit code 7" in said[0] and "1 of 1 times" in said[0]
    assert "worker 1 ended with exit code 8" in said[1] and "all are stopped" in said[1]
    configs = [json.loads((tmp_path / f"start0.{n}").read_text()) for n in (0, 1)]
    assert not set(configs[0]["cluster"]["worker"]) & set(configs[1]["cluster"]["worker"])
    assert len(list(tmp_path.glob("start*"))) == 4

    run = launch(script, "--workers", "2", "--restarts", "5")  # goes on at start 2, and ends well
    assert run.returncode == 0
    assert "keras_vqvae.distribute" not in run.stderr


@pytest.mark.parametrize("number, code", [("SIGTERM", 143), ("SIGINT", 130), ("SIGKILL", -9)])
def test_the_launcher_leaves_nobody_behind(tmp_path: Path, number: str, code: int) -> None:
    script = write(tmp_path, LINGER + "time.sleep(600)")
    command = [*LAUNCHER, "--workers", "2", "--restarts", "9", str(script)]
    launcher = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    pids = lingering(tmp_path)
    assert all(map(alive, pids))
    launcher.send_signal(getattr(signal, number))
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == code
    wait_until_gone(pids)
    assert "anew" not in errors


def test_a_signal_while_workers_are_being_stopped_is_heard(tmp_path: Path) -> None:
    script = write(
        tmp_path,
        """
def stop(*_):
    note("stopping", "")
    wait_for("signalled")
    sys.exit(0)

if INDEX == 1:
    wait_for("ready")
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
note("ready", "")
time.sleep(600)
""",
    )
    command = [*LAUNCHER, "--workers", "2", "--restarts", "1", str(script)]
    launcher = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until((tmp_path / "stopping").exists)
    launcher.send_signal(signal.SIGTERM)
    (tmp_path / "signalled").touch()
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 143 and "anew" not in errors


def test_a_reader_that_goes_away_ends_it(tmp_path: Path) -> None:
    script = write(tmp_path, LINGER + 'while True:\n    print("x" * 1000)')
    launcher = subprocess.Popen([*LAUNCHER, str(script)], stdout=subprocess.PIPE)
    pids = lingering(tmp_path)
    assert launcher.stdout
    launcher.stdout.close()
    assert launcher.wait(60) != 0
    wait_until_gone(pids)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--workers", "0", __file__], "--workers: must be an integer of at least 1, got 0"),
        (["--restarts", "-1", __file__], "--restarts"),
        (["--workers", "2", "nowhere.py"], "no such script: nowhere.py"),
        (["--workers", "2"], "which script?"),
        (["--worker", "2", __file__], "--worker"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["distribute", *arguments])
    with pytest.raises(SystemExit, match="2"):
        distribute.main()
    assert message in capsys.readouterr().err


def test_a_module_in_place_of_a_script(tmp_path: Path) -> None:
    (tmp_path / "trains.py").write_text("import sys; print(sys.argv[1:])")
    run = subprocess.run(
        [*LAUNCHER, "--workers", "1", "-m", "trains", "-m", "x"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stdout) == (0, "[0] ['-m', 'x']\n")


def config(kind: str, index: int, *kinds: str) -> str:
    cluster = {each: ["a:1", "b:1"] for each in kinds}
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    "tf_config, expected",
    [
        (None, True),
        ("", True),
        (config("worker", 0, "worker"), True),
        (config("worker", 1, "worker"), False),
        (config("worker", 0, "chief", "worker"), False),
        (config("chief", 0, "chief", "worker"), True),
        (config("evaluator", 0, "worker"), False),
    ],
)
def test_is_chief(tf_config: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if tf_config is not None:
        monkeypatch.setenv("TF_CONFIG", tf_config)
    assert distribute.is_chief() == expected


@pytest.mark.tensorflow
@pytest.mark.parametrize("index", [0, 1])
def test_the_strategy_decides_who_is_chief(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": ["a:1", "b:1"]}), task_type="worker", task_id=index
    )
    # As a strategy with several workers keeps it; a real one would wait for the others.
    inside(strategy.extended).cluster_resolver = resolver
    monkeypatch.setenv("TF_CONFIG", config("worker", 1 - index, "worker"))
    with strategy.scope():
        assert distribute.is_chief() == (index == 0)
    assert distribute.is_chief() == (index == 1)


def commands(folder: Path, **scripts: str) -> dict:
    """An environment in whose PATH these commands come first."""
    for name, script in scripts.items():
        path = folder / name
        path.write_text(script)
        path.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


# In place of Python: tells what it was given.
TELL = f"""#!{sys.executable}
import json, os, sys
print(json.dumps([json.loads(os.environ["TF_CONFIG"]), sys.argv[1:]]))
"""


def check_tasks(told: list, hosts: list[str]) -> None:
    """Each task has its own index in one cluster."""
    assert [config["task"] for config, _ in told] == [
        {"type": "worker", "index": index} for index in range(len(hosts))
    ]
    for config, arguments in told:
        assert config["cluster"] == {"worker": hosts}
        assert arguments[0] == "examples/distributed_training.py"


SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
code=0
for node in 0 1 2; do SLURM_NODEID=$node "$@" || code=$?; done
exit $code
"""
SCONTROL = """#!/bin/bash
[[ $* == "show hostnames node[1-3]" ]] && printf 'node1\\nnode2\\nnode3\\n'
"""
FAIL = """
from pathlib import Path
with Path(__file__).with_name("failures").open("a+") as failures:
    failures.seek(0)
    if os.environ["SLURM_NODEID"] == "1" and len(failures.read()) < int(os.environ["FAILURES"]):
        failures.write(".")
        sys.exit(5)
"""


@pytest.mark.parametrize("failures, starts, code", [(0, 1, 0), (2, 3, 0), (9, 4, 1)])
def test_slurm(tmp_path: Path, failures: int, starts: int, code: int) -> None:
    environment = commands(tmp_path, srun=SRUN, scontrol=SCONTROL, python=TELL + FAIL)
    environment |= {
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "FAILURES": str(failures),
    }
    for name in ("OUT", "PYTHON"):
        environment.pop(name, None)
    run = subprocess.run(
        ["bash", CLUSTER / "slurm.sh", "--epochs", "3 4"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == code, run.stderr
    assert run.stderr.count("ended with exit code 5") == (starts if code else starts - 1)
    told = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(told) == 3 * starts
    for start in range(starts):
        check_tasks(
            told[3 * start : 3 * start + 3], [f"node{number}:23456" for number in (1, 2, 3)]
        )
    out = ["--out", f"{tmp_path}/runs/slurm-123456", "--epochs", "3 4"]
    assert all(arguments[1:] == out for _, arguments in told)


def test_kubernetes(tmp_path: Path) -> None:
    # No YAML parser is among what the tests need: values are read by their keys.
    text = (CLUSTER / "kubernetes.yaml").read_text()
    service, _, _, job = text.split("\n---\n")

    def value(key: str, document: str = job) -> str:
        (found,) = re.findall(rf"^ *{key}: ([^#\n]*?) *(?:#.*)?$", document, re.MULTILINE)
        return found.strip('"')

    workers = int(value("completions"))
    assert workers == int(value("parallelism")) == int(value("value"))
    assert value("subdomain") == re.findall(r"^  name: (.*)$", service, re.MULTILINE)[0]
    (name,) = re.findall(r"^  name: (.*)$", job, re.MULTILINE)
    # Service and policy choose the pods by the label that Kubernetes gives to those of the job.
    assert set(re.findall(r"job-name: (.*)$", text, re.MULTILINE)) == {name}
    assert value("- containerPort") == value("port", service)

    block = re.search(r"^( *)- \|\n((?:\1  .*\n)+)", job, re.MULTILINE)
    assert block
    told = []
    for index in range(workers):
        environment = commands(tmp_path, python=TELL)
        run = subprocess.run(
            ["bash", "-c", textwrap.dedent(block[2])],
            env={**environment, "WORKERS": str(workers), "JOB_COMPLETION_INDEX": str(index)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode == 0, run.stderr
        told.append(json.loads(run.stdout))
    hosts = [f"{name}-{i}.{value('subdomain')}:{value('port', service)}" for i in range(workers)]
    check_tasks(told, hosts)


def test_logs_of_workers_are_shown_when_one_dies(tmp_path: Path) -> None:
    """TensorFlow logs errors when workers end one after the other, after success too."""
    lines = (
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "E0000 00:00:1796043697.259929   17628 agent.cc:464] UNAVAILABLE",
    )
    body = "".join(f"print({line!r}, file=sys.stderr)\n" for line in lines)
    body += "print('E0000 is no log', file=sys.stderr)\nsys.exit(INDEX + int(sys.argv[1]))"
    script = write(tmp_path, body)
    for code, options, shown in ((0, [], 0), (0, ["--verbose"], 2), (3, [], 2)):
        run = subprocess.run(
            [*LAUNCHER, "--workers", "1", *options, str(script), str(code)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode == code
        assert [f"[0] {line}" in run.stderr for line in lines] == [bool(shown)] * 2
        assert "[0] E0000 is no log" in run.stderr
