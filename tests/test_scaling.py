"""docs/scaling.md: what it tells the reader to type, and what it says that comes out."""

import itertools
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from minigpt_cli.cli.app import app

PAGE = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
FENCED = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for name, text in FENCED if name == language]


def torchrun_commands() -> list[list[str]]:
    joined = PAGE.replace("\\\n", " ")
    texts = re.findall(r"^.*torchrun +(--nnodes .*(?:\n +\S.*)*?--continue)$", joined, re.MULTILINE)
    return [shlex.split(text) for text in texts]


def minigpt_commands() -> list[list[str]]:
    typed = re.findall(r"^(?:    |\$ )minigpt (.*)$", PAGE, flags=re.MULTILINE)
    typed += [text.removesuffix("`") for text in re.findall(r"`minigpt (.*?`)", PAGE)]
    commands = [shlex.split(text) for text in typed]
    return commands + [words[words.index("minigpt_cli") + 1 :] for words in torchrun_commands()]


def test_plan_on_the_page_is_what_the_command_prints() -> None:
    (block,) = blocks("console")
    command, *shown = block.splitlines()
    words = shlex.split(command.removeprefix("$ minigpt "))
    printed = CliRunner().invoke(app, words, env={"COLUMNS": "120"})
    assert printed.exit_code == 0
    assert [line.split() for line in printed.stdout.splitlines()] == [x.split() for x in shown]


def test_every_option_on_the_page_exists() -> None:
    commands = minigpt_commands()
    assert len(commands) >= 7
    root = typer.main.get_command(app)
    for name, *words in commands:
        command = root.commands[name]  # type: ignore[attr-defined]
        known = set(itertools.chain.from_iterable(p.opts for p in command.params))
        used = {word for word in words if word.startswith("--")}
        assert used <= known, f"minigpt {name}: {used - known}"


def test_torchrun_understands_every_command() -> None:
    from torch.distributed.run import get_args_parser

    commands = torchrun_commands()
    assert len(commands) == 3
    for words in commands:
        found = get_args_parser().parse_args(words)
        assert (found.module, found.training_script) == (True, "minigpt_cli")
        assert found.training_script_args[-1] == "--continue"
        assert (found.rdzv_backend, found.max_restarts) == ("c10d", 3)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_shell_on_the_page_is_well_formed() -> None:
    scripts = blocks("bash")
    assert len(scripts) == 2
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_manifest_is_a_job_of_two_pods_with_eight_gpus() -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML, which transformers installs")
    (text,) = blocks("yaml")
    job = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert replicas.keys() == {"Master", "Worker"}
    pods = sum(replica["replicas"] for replica in replicas.values())
    for replica in replicas.values():
        pod = replica["template"]["spec"]
        (container,) = pod["containers"]
        assert container["name"] == "pytorch"  # the operator looks for this name
        assert {v["name"] for v in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
        (script,) = container["args"]
        words = shlex.split(script)
        assert int(words[words.index("--nnodes") + 1]) == pods
        gpus = container["resources"]["limits"]["nvidia.com/gpu"]
        assert int(words[words.index("--nproc-per-node") + 1]) == gpus
