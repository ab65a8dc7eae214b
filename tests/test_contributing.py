"""What contributors and hosted machines read agrees with pyproject.toml, the Makefile and the version."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import check_pythons
from enclap.version import __version__

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"


def content(*path: str) -> Any:
    return yaml.safe_load(ROOT.joinpath(*path).read_text(encoding="utf-8"))


def steps(job: dict[str, Any]) -> str:
    return "\n".join(step.get("run", step.get("uses", "")) for step in job["steps"])


def test_pre_commit_has_the_ruff_that_make_lint_has() -> None:
    (ruff,) = (line for line in check_pythons.project()["optional-dependencies"]["dev"] if line.startswith("ruff"))
    (repository,) = content(".pre-commit-config.yaml")["repos"]
    assert {hook["id"] for hook in repository["hooks"]} == {"ruff-format", "ruff-check"}
    assert all(hook["additional_dependencies"] == [ruff] for hook in repository["hooks"])


def test_the_hosted_workflow_runs_the_public_half_on_every_supported_python() -> None:
    job = content(".github", "workflows", "ci.yml")["jobs"]["checks"]
    assert job["strategy"]["matrix"]["python"] == check_pythons.supported_versions()
    assert job["strategy"]["matrix"]["system"] == ["ubuntu-latest", "macos-latest"]
    assert "bash .ci/run public" in steps(job)


def test_a_release_is_published_only_after_a_clean_installation_and_without_a_token() -> None:
    text = (WORKFLOWS / "release.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    assert (jobs["clean-install"]["needs"], jobs["publish"]["needs"]) == ("build", "clean-install")
    assert "enclap caption" in steps(jobs["clean-install"]) and "make wheel" in steps(jobs["build"])
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in text and "password" not in text


@pytest.mark.parametrize(("argument", "shared"), [("", True), ("public", False)])
def test_ci_runs_every_group_even_when_one_fails(tmp_path: Path, argument: str, shared: bool) -> None:
    """With a `make` that notes its arguments and fails in the first group."""
    (tmp_path / "make").write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/calls\ntest "$1" != test\n')
    (tmp_path / "make").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", str(ROOT / ".ci" / "run"), *argument.split()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "ci: FAILED" in done.stderr
    calls = (tmp_path / "calls").read_text().split()
    assert ("test-shared" in calls) is shared
    assert {"test", "test-slow", "test-pythons"} <= set(calls)


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = content("CITATION.cff")
    assert citation["version"] == __version__
    assert "2401.17690" in str(citation["references"])


def test_the_image_is_built_from_files_that_are_there_for_a_user_without_rights() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied and all((ROOT / name).exists() and f"!{name}" in ignored for name in copied)
    assert re.search(r"^USER 1\d+$", "\n".join(lines), re.MULTILINE)
    (python,) = (line.removeprefix("ARG PYTHON=") for line in lines if line.startswith("ARG PYTHON="))
    assert python in check_pythons.supported_versions()


def test_the_image_has_all_that_the_wheel_is_built_from() -> None:
    """What pyproject.toml puts into the wheel from outside the package must be copied too, or the build fails."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    forced = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert {Path(name).parts[0] for name in forced} <= set(re.findall(r"^COPY (\w+) \w+$", dockerfile, re.MULTILINE))


def test_the_composed_server_is_the_stage_of_the_image_and_has_no_rights() -> None:
    service = content("compose.yaml")["services"]["enclap"]
    assert f"AS {service['build']['target']}\n" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_the_issue_form_asks_for_the_output_of_doctor() -> None:
    fields = content(".github", "ISSUE_TEMPLATE", "bug_report.yml")["body"]
    (doctor,) = (field for field in fields if field["id"] == "doctor")
    assert "enclap doctor" in doctor["attributes"]["label"] and doctor["validations"]["required"]
