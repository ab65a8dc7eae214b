"""`enclap serve`: captions over HTTP."""

from __future__ import annotations

import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from enclap.cli import caption_options as options
from enclap.cli.choices import EngineName, PrecisionName
from enclap.cli.exit import print_error
from enclap.cli.extras import require_extra
from enclap.errors import MissingExtra, UsageError

EVERYWHERE = {"0.0.0.0", "::"}
MODEL_NICENESS = 10  # more than the server's own: the model gets a tenth of a core that the rest wants for itself


def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; other machines reach all but loopback.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, metavar="N", help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    model: options.Model = "mini",
    engine: options.Engine = EngineName.auto,
    device: options.Device = "auto",
    precision: options.Precision = PrecisionName.float32,
    threads: options.Threads = None,
    max_upload: Annotated[str, typer.Option(metavar="SIZE", help="Largest request.")] = "512MB",
    max_seconds: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Longest recording.")] = 14_400.0,
    queue: Annotated[
        int, typer.Option(min=1, max=1024, metavar="N", help="Most requests at once; more are refused (429).")
    ] = 32,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Longest time for one request.")] = 600.0,
    rate: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Most requests per minute from one client.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File of accepted keys, one per line.")
    ] = None,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Let other machines use it without a key.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Host name that clients use for it.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="Web origin whose pages may call it.")
    ] = None,
    model_alias: Annotated[
        list[str] | None, typer.Option(metavar="NAME=MODEL", help="Another name for the model.")
    ] = None,
    root_path: Annotated[str, typer.Option(metavar="PATH", help="Path prefix that a proxy adds.")] = "",
    ssl_certfile: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate for HTTPS.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(metavar="FILE", help="Private key of that certificate.")] = None,
    grace: Annotated[
        int, typer.Option(min=0, metavar="SECONDS", help="Time for running requests to finish after a stop.")
    ] = 30,
    state_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for jobs. [default: below ~/.local/state]")
    ] = None,
    upload_quota: Annotated[
        str, typer.Option(metavar="SIZE", help="Most disk space for uploads of waiting jobs.")
    ] = "4GB",
    keep_jobs: Annotated[
        float, typer.Option(min=0, metavar="HOURS", help="How long captions of finished jobs are kept.")
    ] = 168.0,
    library: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Library of `enclap index` that can be searched.")
    ] = None,
    callback_prefix: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Address below which callbacks of jobs may go.")
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Serve a web page at /.")] = True,
    log_requests: Annotated[bool, typer.Option("--log-requests", help="Log a line of JSON for each request.")] = False,
) -> None:
    """Serve captions over HTTP, until it is stopped.

    \b
    Examples:
      enclap serve
      enclap serve --port 9000 --model mini
      enclap serve --host 0.0.0.0 --api-key-file keys.txt

    \b
    Then, from another terminal:
      curl -F file=@dog.wav http://127.0.0.1:8000/v1/captions
    """
    try:
        from enclap.serving.recordings import CaptionService
    except ModuleNotFoundError as error:
        raise MissingExtra("enclap serve", "serve") from error
    from enclap.captioner import Captioner
    from enclap.serving.access import check_exposure
    from enclap.serving.callbacks import parse_prefixes
    from enclap.serving.settings import ServeSettings, parse_aliases, parse_size, read_keys

    keys = read_keys(api_key_file) if api_key_file else ()
    check_exposure(host, bool(keys), allow_anonymous)
    shown = shown_model(model)
    settings = ServeSettings(
        max_upload=parse_size(max_upload, "--max-upload"),
        max_seconds=max_seconds,
        queue=queue,
        timeout=timeout,
        keys=keys,
        allowed_hosts=(*(allowed_host or ()), *([] if host in EVERYWHERE else [host])),
        cors_origins=tuple(cors_origin or ()),
        aliases=parse_aliases(model_alias or [], shown),
        rate=rate,
        library=opened_library(library, "enclap serve --library"),
        root_path="/".join(["", *filter(None, root_path.split("/"))]),
        callback_prefixes=parse_prefixes(callback_prefix or []),
    )
    certificate, key = existing(ssl_certfile), existing(ssl_keyfile)
    quota = parse_size(upload_quota, "--upload-quota")
    logging.basicConfig(format="%(message)s", level=logging.INFO if log_requests else logging.WARNING)

    def start_service() -> CaptionService:
        captioner = Captioner.from_pretrained(model, engine.value, device, precision.value, threads)
        service = CaptionService(captioner, settings, shown)
        service.start()
        return service

    def announce(port: int) -> None:
        scheme = "https" if ssl_certfile else "http"
        address = f"[{host}]" if ":" in host else host
        print_error(f"enclap: {shown} is ready on {scheme}://{address}:{port}; Ctrl-C stops it")

    with ThreadPoolExecutor(1, initializer=give_way) as beside:  # while the libraries of the server are loaded
        starting = beside.submit(start_service)
        from enclap.serving.job_runner import JobRunner
        from enclap.serving.run import Listening
        from enclap.serving.run import serve as listen

        service = starting.result()
    runner = JobRunner(service, state_dir or default_state_dir(port), quota, keep_jobs * 3600)
    listen(service, runner, Listening(host, port, grace, certificate, key, page, log_requests), announce)


def give_way() -> None:
    """Lower the priority of this thread and of those that it will start: whatever computes for the model.

    A busy model keeps every core; so the loop that answers, and refuses, waits for none of them. Linux alone gives
    threads priorities of their own.
    """
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, own + MODEL_NICENESS))


def default_state_dir(port: int) -> Path:
    """A folder for each port, so that two servers of one user share none; see the XDG base directory specification."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "enclap" / f"serve-{port}"


def shown_model(model: str) -> str:
    """The model's name as clients see it: of a folder the last part, no path of this machine."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def opened_library(library: Path | None, feature: str) -> Path | None:
    """The path of a library that is there when it is named; UsageError or DataError when it cannot be read."""
    if library is None:
        return None
    require_extra(feature, "search", "lancedb")
    from enclap.search.library import Library

    return Library.open(library).path


def existing(path: Path | None) -> str | None:
    """The path of a file that must be there when it is named."""
    if path is not None and not path.is_file():
        raise UsageError(f"{path}: no such file; --ssl-certfile and --ssl-keyfile name a certificate and its key")
    return None if path is None else str(path)
