"""A server of captions in a process of its own, for benchmarks of `enclap serve`, and a client that costs little."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

READY = re.compile(r"is ready on (http://\S+);")
HEAD = b"POST /v1/captions HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"


@dataclass(frozen=True)
class Server:
    """A server of its own process."""

    url: str
    process: subprocess.Popen[str]
    seconds: float

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", int(self.url.rpartition(":")[2])

    @property
    def memory(self) -> float:
        """MB that it holds now."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    """A server that listens; seconds until it did."""
    began = time.monotonic()
    command = [sys.executable, "-m", "enclap.cli.main", "serve", "--port", "0", "--state-dir", str(folder), *options]
    log = folder.with_suffix(".log")
    with log.open("w") as errors, subprocess.Popen(command, stderr=errors, text=True) as process:
        try:
            while not (match := READY.search(log.read_text())):
                assert process.poll() is None, log.read_text()
                time.sleep(0.01)
            yield Server(match[1], process, time.monotonic() - began)
        finally:
            process.kill()


def clip(path: Path, seconds: float, seed: int = 0) -> Path:
    """A clip of noise that rises and falls."""
    generator = np.random.default_rng(seed)
    samples = generator.normal(0, 0.1, round(seconds * 16_000)) * np.linspace(0.2, 1, round(seconds * 16_000))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * 32_767).clip(-32_768, 32_767).astype("<i2").tobytes())
    return path


async def exchange(server: Server, request: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to prepared bytes, over a connection of its own: a client that costs little."""
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
        return int(head.split()[1]), await reader.readexactly(length)
    finally:
        writer.close()
