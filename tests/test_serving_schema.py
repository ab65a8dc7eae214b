"""The OpenAPI document against the server: nothing it allows, or forbids, is answered with 5xx or in another shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from enclap.captioner import Captioner
from enclap.serving.settings import ServeSettings
from fakes import EchoEngine
from servers import running

CASES = int(os.environ.get("SCHEMA_CASES", "40"))  # for each route; 370 make some 5,000
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "allow_header_conformance",
    "unsupported_method",
    "negative_data_rejection",
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_document_is_kept_to(tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("schemathesis"))
    options = ["--phases", "examples,coverage,fuzzing", "--seed", "1", "--checks", ",".join(CHECKS)]
    options += ["--max-examples", str(CASES), "--suppress-health-check", "all"]
    with running(Captioner(EchoEngine(), "echo"), ServeSettings(queue=64)) as server:
        document = tmp_path / "openapi.json"
        document.write_bytes(server.client.get("/openapi.json", timeout=300).content)
        assert "/v1/uploads" in json.loads(document.read_bytes())["paths"]  # all routes that take recordings are asked
        command = [
            program,
            "--no-color",
            "run",
            str(document),
            "--url",
            server.url,
            "--request-timeout",
            "300",
            *options,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert server.client.get("/readyz").status_code == 200
    assert done.returncode == 0, done.stdout[-5000:]
