"""The stages on Ray Data: read -> decode (tasks) -> model (actors that load it once) -> write (one actor).

Lines of the listing are read and shards are written on the driver's machine, whose disk holds the output; decoding and
the model run anywhere. Sound travels in blocks of a few windows, and Ray holds the stages back when the next one lags.
What a killed worker or machine takes with it is asked for again: the writer knows which shards are complete, and the
driver runs another round for those that are not.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from enclap.batch.decode import Decoded, DecodedWindow, ItemEnd, Position, decode_slice
from enclap.batch.listing import Listing
from enclap.batch.local import CPU_TOGETHER, GPU_TOGETHER, Fault, Job, batched
from enclap.batch.shards import ShardReport, ShardWriter
from enclap.batch.sources import Item
from enclap.batch.work import ModelRun, Part, Work
from enclap.captioner import Captioner
from enclap.errors import EnclapError, EnvironmentFault, MissingExtra
from enclap.text import LONGEST_LINE, printable
from enclap.types import FloatArray, Waveform, Window

logger = logging.getLogger("enclap")

BLOCK_BYTES = 16 * 2**20  # of sound, after which a block ends: some ten windows of 10 s at 44.1 kHz
STORE_BYTES = 2**30  # of a Ray that is started here
MOST_READS = 1000  # tasks that read the listing, so that the driver's plan does not grow with the corpus
DECODE_CPUS = 0.25  # of a core, for a task that decodes
BLOCKS_AT_ONCE = 2  # in an actor: the features of one are made while the sentences of the other are searched
END_FACTS = 4  # of the end of an item, beside its position
THREADS_PER_WORKER = 4
REACH_SECONDS = 5.0  # to wait for an answer from an address
ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
LOCAL = {"RAY_AUTH_MODE": "token", ON_LOOPBACK: "0"}  # 0: a Ray of one machine listens on loopback alone, on Linux too
"""Environment of a Ray that is started here."""


@contextmanager
def connected(address: str, *, dashboard: bool = False) -> Iterator[str]:
    """Joined to the cluster at `address` until the block ends; auto: that of RAY_ADDRESS, else a Ray started here.

    What is given out says in words which one it is.
    A Ray that is started here listens on loopback, asks for a token, and has a dashboard only when told. Usage
    statistics are off. EnvironmentFault when there is no Ray there, or one that this one cannot talk to.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its remarks on how actors are started help nobody here
    joined = address if address != "auto" else os.environ.get("RAY_ADDRESS", "")
    shown = printable(joined)
    if joined:
        require_answer(joined)
        if "RAY_AUTH_TOKEN" in os.environ or Path("~/.ray/auth_token").expanduser().exists():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
    else:
        os.environ.update(LOCAL)
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("--ray", "ray") from error
    own: dict[str, Any] = {} if joined else {"include_dashboard": dashboard, "object_store_memory": STORE_BYTES}
    try:
        with discarded_stderr():
            ray.init(joined or "local", log_to_driver=False, logging_level="error", configure_logging=False, **own)
    except Exception as error:  # ConnectionError, RuntimeError for other versions, its own for tokens
        where = f"the Ray at {shown}" if joined else "a Ray on this machine"
        what = "cannot be joined" if joined else "cannot be started"
        raise EnvironmentFault(f"{where} {what}: {reason_of(error)}") from error
    try:
        yield f"joined the Ray cluster at {shown}" if joined else "started a Ray on this machine, on loopback"
    finally:
        ray.shutdown()


def reason_of(error: BaseException) -> str:
    """Why Ray raised an error, in one line: what led to it says more, as that the versions are others."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = str(error).strip() or type(error).__name__
    said = said.splitlines()[-1] if "Traceback" in said else said
    return printable(" ".join(said.split()))[: 2 * LONGEST_LINE]


@contextmanager
def discarded_stderr() -> Iterator[None]:
    """Discards what is written to standard error, by C++ too: Ray tells there which log level it was given."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def require_answer(address: str) -> None:
    """Raises EnvironmentFault when nothing answers at host:port; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if "://" in address:
        remedy = "give the head's HOST:PORT, from a machine that belongs to the cluster"
        raise EnvironmentFault(f"--ray {printable(address)}: not an address that is joined here; {remedy}")
    if not port.isdecimal():
        return  # a name that Ray knows, as "local"
    try:
        socket.create_connection((host, int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise EnvironmentFault(
            f"no Ray answers at {printable(address)} ({reason}); check --ray, RAY_ADDRESS"
        ) from error
    if host in ("localhost", "127.0.0.1", "::1"):  # which Ray would turn into the address of the network, but not here
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe, suppress(OSError):
            probe.connect(("192.0.2.1", 9))  # sends nothing; it tells which address this machine has
            try:
                socket.create_connection((probe.getsockname()[0], int(port)), REACH_SECONDS).close()
            except OSError:  # a Ray that listens on loopback alone
                os.environ[ON_LOOPBACK] = LOCAL[ON_LOOPBACK]


def run_on_ray(
    job: Job, listing: Listing, shards: Sequence[int], workers: int | None = None, threads: int | None = None
) -> Generator[ShardReport, None, None]:
    """The reports of these shards as they are written; those that a dead worker took along are missing.

    Raises the EnclapError that stopped a stage, and EnvironmentFault for what Ray cannot mend.
    """
    import ray

    crashes = (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.ObjectLostError)
    try:
        for row in report_rows(job, listing, shards, workers, threads).iter_rows():
            told = json.loads(row["report"])
            if "fault" in told:
                raise Fault(**told["fault"]).error()
            yield ShardReport(**told)
    except crashes as error:
        logger.warning("Ray lost work that it could not do again (%s); trying once more", type(error).__name__)
    except ray.exceptions.RayError as error:
        raise EnvironmentFault(f"Ray: {type(error).__name__}: {reason_of(error)}") from error


def report_rows(job: Job, listing: Listing, shards: Sequence[int], workers: int | None, threads: int | None) -> Any:
    """The data set that, walked through, does the work; its rows hold reports as JSON."""
    import ray

    configure_data()
    job = replace(job, paths=replace(job.paths, folder=job.paths.folder.resolve()))  # actors run in other folders
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    count, cpus, gpus, threads = resources_of(job.model.device, workers, threads)
    device = "cuda" if gpus else job.model.device  # an actor sees the GPU that it was given, and no other
    model, together = replace(job.model, device=device, threads=threads), GPU_TOGETHER if gpus else CPU_TOGETHER
    pool, blocks = ray.data.ActorPoolStrategy, min(len(shards), MOST_READS)
    return (
        # not ray.data.range, whose tasks ask for a whole processor, which the actors leave to nobody
        ray.data.from_items([{"id": number} for number in range(len(shards))], override_num_blocks=blocks)
        .flat_map(Reader(listing, shards, together), label_selector=here, num_cpus=0, concurrency=1)
        .map_batches(
            Decoder(job.work.window, together),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=DECODE_CPUS,
        )
        .map_batches(
            ModelActor,
            fn_constructor_args=(job.work, model),
            batch_size=None,
            batch_format="pyarrow",
            compute=pool(size=count, max_concurrent_calls_per_actor=BLOCKS_AT_ONCE, enable_true_multi_threading=True),
            num_cpus=cpus,
            num_gpus=gpus,
        )
        .map_batches(
            WriterActor,
            fn_constructor_args=(job,),
            batch_size=None,
            batch_format="pyarrow",
            compute=pool(size=1),
            num_cpus=0,
            label_selector=here,
        )
    )


def configure_data() -> None:
    """Have Ray Data use small blocks, and say nothing: what is to be said, `enclap batch` says."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def resources_of(device: str, workers: int | None, threads: int | None) -> tuple[int, float, float, int]:
    """How many actors, the share of processors and GPUs of each, and its threads.

    A worker for each GPU, or for every four cores of the smallest machine; each leaves room for a task that decodes.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    smallest = min((node["CPU"] for node in nodes if node.get("CPU")), default=1.0)
    on_gpu = device.startswith("cuda") or (device == "auto" and gpus >= 1)
    if on_gpu and not gpus:
        raise EnvironmentFault("--device cuda: this Ray has no GPU; leave --device out, or join another cluster")
    threads = max(1, min(threads or THREADS_PER_WORKER, int(smallest)))
    share = threads - DECODE_CPUS
    most = int(gpus) if on_gpu else max(1, int(cores // threads))
    return min(workers or most, most), min(1.0, share) if on_gpu else share, float(on_gpu), threads


class Reader:
    """A row {"id": number} -> the items of the shard with that number among those that are asked for.

    together: items of a slice.
    """

    def __init__(self, listing: Listing, shards: Sequence[int], together: int) -> None:
        self._together = together
        self._path = listing.path.resolve()
        self._spans = np.array([(shard, *listing.span(shard)) for shard in shards], dtype=np.int64)  # [shards, 3]

    def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """A row for each slice of the shard."""
        shard, start, end = (int(number) for number in self._spans[row["id"]])
        with self._path.open("rb") as file:
            file.seek(start)
            lines = file.read(end - start).decode().splitlines()
        places = range(0, len(lines), self._together)
        return [{"shard": shard, "place": place, "lines": lines[place : place + self._together]} for place in places]


class Decoder:
    """A table of slices -> a table for each run of its windows and ends; see `decode_slice`."""

    def __init__(self, window: float, together: int) -> None:
        self._window = window
        self._together = together

    def __call__(self, table: Any) -> Iterator[Any]:
        """The tables, one by one, as they are decoded."""
        logging.getLogger("enclap").setLevel(logging.ERROR)
        for row in table.to_pylist():
            items = [Item(**json.loads(line)) for line in row["lines"]]
            for run in decode_slice(Position(row["shard"], row["place"]), items, self._window, self._together):
                yield run_table(run)


class ModelActor:
    """Loads the model once, and makes rows of parts of the rows of decoded windows."""

    def __init__(self, work: Work, model: ModelRun) -> None:
        logging.getLogger("enclap").setLevel(logging.ERROR)
        self._work = work
        self._captioner: Captioner | None = None
        self._fault: Fault | None = None
        try:
            self._captioner = work.load(model)
        except EnclapError as error:
            self._fault = Fault.of(error)

    def __call__(self, table: Any) -> Iterator[Any]:
        """A table for each batch of the engine."""
        if self._captioner is None:
            yield part_table([Part(Position(-1, 0), 0, fault=json.dumps(asdict(self._fault)))])  # type: ignore[arg-type]
            return
        runs = (events_of(facts, samples) for facts, samples in zip(table["facts"], table["samples"], strict=True))
        for parts in self._work.parts(self._captioner, batched(runs, self._captioner)):
            yield part_table(parts)


class WriterActor:
    """Gathers parts into shards and writes them; gives a row for each report, or for the fault that ends the run."""

    def __init__(self, job: Job) -> None:
        listing = Listing(job.paths.folder / job.listing)
        self._writer = ShardWriter(listing, job.work, job.paths, job.settings, strict=job.strict)

    def __call__(self, table: Any) -> dict[str, list[str]]:
        """The reports, as JSON."""
        found: list[dict[str, Any]] = []
        try:
            events = [part_of(row) for row in table.to_pylist()]
            for event in events:
                if event.position.shard < 0:
                    return {"report": [json.dumps({"fault": json.loads(event.fault or "{}")})]}
            found += [asdict(report) for report in self._writer.add(events)]
        except EnclapError as error:
            found.append({"fault": asdict(Fault.of(error))})
        return {"report": [json.dumps(report) for report in found]}


def run_table(run: Sequence[Decoded]) -> Any:
    """The row in which a run travels: the facts of its events, as JSON, and the samples of all of them."""
    import pyarrow as pa

    facts: list[list[Any]] = []
    samples: list[FloatArray] = []
    for event in run:
        facts.append([event.position.shard, event.position.place])
        if isinstance(event, DecodedWindow):
            window, length = event.window, 0 if event.silent else len(event.window.waveform.samples)
            facts[-1] += [event.index, event.name, window.start, window.end, window.waveform.rate, event.silent, length]
            samples += [] if event.silent else [window.waveform.samples]
        else:
            facts[-1] += [event.windows, event.sha256, event.fault, event.kind]
    joined = np.concatenate([np.zeros(0, np.float32), *samples]).astype("<f4", copy=False)
    sound = pa.Array.from_buffers(
        pa.large_binary(), 1, [None, pa.py_buffer(np.array([0, joined.nbytes])), pa.py_buffer(joined)]
    )
    return pa.table({"facts": [json.dumps(facts)], "samples": sound})


def events_of(described: Any, samples: Any) -> list[Decoded]:
    """The events of a row that `run_table` made; their samples stay where they are, and cannot be written to."""
    sound, start = np.frombuffer(samples.as_buffer(), "<f4"), 0
    events: list[Decoded] = []
    for shard, place, *facts in json.loads(described.as_py()):
        position = Position(shard, place)
        if len(facts) == END_FACTS:
            events.append(ItemEnd(position, *facts))
            continue
        index, name, begin, end, rate, is_silent, length = facts
        window = Window(Waveform(sound[start : start + length], rate), begin, end)
        start += length
        events.append(DecodedWindow(position, index, name, window, is_silent))
    return events


def part_table(events: Sequence[Part | ItemEnd]) -> Any:
    """The table in which parts and ends travel."""
    import pyarrow as pa

    rows = []
    for event in events:
        told = asdict(event)
        told.pop("position")
        row = {"shard": event.position.shard, "place": event.position.place}
        codes, embedding = (told.pop(name, None) for name in ("codes", "embedding"))
        rows.append(row | {"told": json.dumps(told), "codes": codes, "embedding": embedding})
    kinds = [("shard", pa.int64()), ("place", pa.int64()), ("told", pa.string())]
    return pa.Table.from_pylist(rows, pa.schema([*kinds, ("codes", pa.binary()), ("embedding", pa.binary())]))


def part_of(row: dict[str, Any]) -> Part | ItemEnd:
    """The part or the end of a row."""
    position, told = Position(row["shard"], row["place"]), json.loads(row["told"])
    if "windows" in told:
        return ItemEnd(position, **told)
    return Part(position, codes=row["codes"], embedding=row["embedding"], **told)
