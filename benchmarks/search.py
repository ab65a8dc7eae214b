"""Measures searching in mini's recordings: `python benchmarks/search.py` prints the figures of docs/search.md.

Parts: words (label and caption queries by sound, by text, by both), esc (ESC-10's test fold), moments (composed
recordings), likes (other cuts of a recording), copies (lossy, softer and cut copies), tags. Every setting was chosen on
the validation split; --calibrate fits the curves of `enclap.search.relevance` there. What was heard is kept in --cache.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from enclap import Captioner
from enclap.data.recordings import Recording, read_collection
from enclap.data.splits import TEST, VALIDATION, select
from enclap.data.synthetic.grammar import finish
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.evaluation.calibration import calibration_error, reliability
from enclap.hub.resolve import find_model
from enclap.search.fingerprint import fingerprint
from enclap.search.hearing import Heard, HeardWindow, hear
from enclap.search.indexing import window_rows
from enclap.search.labels import LabelSet, text_vector
from enclap.search.library import SCHEMA, Facts, Library, model_hashes, written_library
from enclap.search.likeness import search_like
from enclap.search.query import key_of, relevance_values, search_words
from enclap.search.relevance import LABEL_CURVE, LIKE_CURVE, OTHER_LABEL_CURVE, WORD_CURVE
from enclap.search.store import Row, embeddings_in, table_of
from enclap.search.words import content_lemmas
from enclap.types import Caption
from search_parts import (
    COPIES,
    average_precision,
    fit_curve,
    make_copies,
    make_cuts,
    make_moments,
    overlap,
    span_precision,
)
from tables import hardware, today

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = ROOT.parent / "shared" / "data" / "sounds"
ALL = 10_000
SHOWN = 10  # hits that recall and precision look at


def main() -> None:
    """Measure the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}; without any, all")
    parser.add_argument("--split", choices=(VALIDATION, TEST), default=TEST)
    parser.add_argument("--recordings", type=Path, default=RECORDINGS)
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "search")
    parser.add_argument("--sample", type=int, default=60, help="recordings that are cut and copied")
    parser.add_argument("--calibrate", action="store_true", help="fit the curves on validation instead")
    options = parser.parse_args()
    bench = Bench(options.recordings, options.split, options.cache, options.sample)
    print(f"{today()}, {hardware()}; {options.split} split, {len(bench.recordings)} recordings", flush=True)
    for part in ["calibrate"] if options.calibrate else options.parts:
        {**PARTS, "calibrate": calibrate}[part](bench)


class Bench:
    """The recordings of a split, what mini heard in them, and libraries of them."""

    def __init__(self, folder: Path, split: str, cache: Path, sample: int) -> None:
        self.folder, self.cache, self.sample = folder, cache, sample
        self.captioner = Captioner.from_pretrained("mini", threads=1)
        self.engine = self.captioner.engine
        self.labels = LabelSet(self.engine, memory=self.captioner.memory)
        self.collection = read_collection(folder)
        self.recordings = select(self.collection, split)
        self.of = {recording.path: recording for recording in self.collection}
        self.heard = self.hear_split(split)

    def hear_split(self, split: str) -> dict[str, tuple[HeardWindow, ...]]:
        """The windows of each recording, without fingerprints; heard once and kept."""
        file = self.cache / f"{split}.npz"
        if not file.is_file():
            names = [recording.path for recording in select(self.collection, split)]
            found = hear(self.captioner, [self.folder / name for name in names])
            keep(file, {name: item.windows for name, item in zip(names, found, strict=True)})
        return read_kept(file)

    def library(self, path: Path, heard: Mapping[str, Sequence[HeardWindow]]) -> Library:
        """A library of these recordings, by name."""
        space = model_hashes(find_model("mini"))[0]
        facts = Facts(
            schema=SCHEMA, model="mini", space=space, captioner="", width=self.labels.width, folder=str(path), table=1
        )
        rows = []
        for name, windows in heard.items():
            state = {"size": 0, "modified": 0, "sha256": name}
            rows += [row | state for row in window_rows(name, windows, self.labels, facts.width)]
        with written_library(path, facts, reindex=False) as library:
            library.rows.replace(table_of(rows, facts.width), list(heard))
            library.rows.tidy()
            return library

    def hear_files(self, paths: Sequence[Path], *, captions: bool = True) -> dict[str, tuple[HeardWindow, ...]]:
        """What is heard in files, by name; ValueError for one that fails."""
        return {item.path.name: windows_of(item) for item in hear(self.captioner, paths, captions=captions)}

    def with_codes(self) -> dict[str, tuple[HeardWindow, ...]]:
        """The windows of the split with their fingerprints."""
        found = {}
        for name, windows in self.heard.items():
            pieces = self.captioner.windows(str(self.folder / name), warn=False)
            codes = [fingerprint(piece.waveform) for piece, _ in pieces]
            found[name] = tuple(replace(window, codes=item) for window, item in zip(windows, codes, strict=True))
        return found


def windows_of(item: Heard) -> tuple[HeardWindow, ...]:
    """The windows of a recording that could be heard."""
    if item.fault is not None:
        raise ValueError(str(item.fault))
    return item.windows


def keep(file: Path, heard: Mapping[str, Sequence[HeardWindow]]) -> None:
    """Write windows to a file, without fingerprints."""
    rows = [(name, window) for name, windows in heard.items() for window in windows]
    width = next(window.embedding.shape[0] for _, window in rows if window.embedding is not None)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        file,
        path=[name for name, _ in rows],
        span=[(window.caption.start, window.caption.end) for _, window in rows],
        text=[window.caption.text for _, window in rows],
        score=[np.nan if window.caption.score is None else window.caption.score for _, window in rows],
        embedding=[np.zeros(width, np.float32) if w.embedding is None else w.embedding for _, w in rows],
    )


def read_kept(file: Path) -> dict[str, tuple[HeardWindow, ...]]:
    """The windows in a file."""
    table, found = np.load(file), defaultdict(list)
    for name, span, text, score, embedding in zip(*(table[key] for key in table.files), strict=True):
        is_silent = bool(np.isnan(score))
        caption = Caption(float(span[0]), float(span[1]), str(text), None if is_silent else float(score), is_silent)
        window = HeardWindow(caption, None if is_silent else embedding.astype(np.float32), np.zeros(0, np.uint32))
        found[str(name)].append(window)
    return {name: tuple(windows) for name, windows in found.items()}


def label_query(label: str) -> str:
    """A label as somebody types it."""
    return label


def caption_query(label: str) -> str:
    """A whole sentence about the sound of a label."""
    entry = load_lexicon()[label]
    return finish((entry.sentences or entry.clauses)[0])


FORMS = {"label": label_query, "caption": caption_query}


def rankings(bench: Bench, library: Library, words: str, generator: np.random.Generator) -> dict[str, list[str]]:
    """Files in the order in which each way of searching gives them."""
    rows, values = valued_rows(bench, library, words)
    ranked = Library(library.path, library.facts.model_copy(update={"space": ""}), library.rows)  # no curve is for it
    weights = np.array(WORD_CURVE.weights)
    ways = {
        "sound alone": values[:, 0],
        "captions alone": values[:, 1],
        "text alone: captions and names": values[:, 1:] @ weights[1:],
        "sound and captions": values[:, :2] @ weights[:2],
    }
    searches = {"hybrid, by reciprocal ranks": ranked, "hybrid: sound, captions and names": library}
    found = {name: ordered(rows, scores) for name, scores in ways.items()}
    found |= {n: [hit.path for hit in search_words(lib, bench.engine, words, SHOWN)] for n, lib in searches.items()}
    return found | {"random": list(generator.permutation(sorted({row.path for row in rows})))}


def valued_rows(bench: Bench, library: Library, words: str) -> tuple[list[Row], np.ndarray]:
    """All rows, and what their scores are made of, float [N, 3]."""
    vector = text_vector(bench.engine, words)
    rows, captions, names = library.rows.rankings(vector, words, ALL)
    return rows, np.array(relevance_values(words, rows, captions, names))


def ordered(rows: Sequence[Row], scores: np.ndarray) -> list[str]:
    """Files by the highest score of their rows; 0 is that of what does not match, and left out."""
    best: dict[str, float] = {}
    for row, score in zip(rows, scores, strict=True):
        if score:
            best[row.path] = max(best.get(row.path, -np.inf), float(score))
    return sorted(best, key=lambda path: (-best[path], path))


def measure_words(bench: Bench) -> None:
    """Recall and mean average precision of the first ten hits, over the main labels of the split."""
    with TemporaryDirectory() as made:
        library = bench.library(Path(made) / "library", bench.heard)
        labels = sorted({recording.label for recording in bench.recordings})
        for form, query in FORMS.items():
            figures = defaultdict(list)
            generator = np.random.default_rng(0)
            for label in labels:
                total = sum(label in recording.labels for recording in bench.recordings)
                for way, files in rankings(bench, library, query(label), generator).items():
                    relevant = [label in bench.of[file].labels for file in files[:SHOWN]]
                    figures[way].append((sum(relevant) / total, average_precision(relevant, total, SHOWN)))
            for way, values in figures.items():
                recall, precision = np.mean(values, axis=0)
                print(f"{form} queries, {way}: recall@10 {recall:.3f}, mAP@10 {precision:.3f} ({len(labels)} queries)")


def measure_esc(bench: Bench) -> None:
    """Precision of the first eight hits for the ten classes of ESC-10, among its own recordings of the split."""
    esc = {clip.path: clip.label for clip in bench.recordings if clip.fold is not None}
    with TemporaryDirectory() as made:
        library = bench.library(Path(made) / "library", {path: bench.heard[path] for path in esc})
        figures = defaultdict(list)
        for label in sorted(set(esc.values())):
            for way, files in rankings(bench, library, label, np.random.default_rng(0)).items():
                figures[way].append(np.mean([esc[file] == label for file in files[:8]] or [0.0]))
    for way, values in figures.items():
        print(f"ESC-10, {len(esc)} clips, by label, {way}: precision@8 {np.mean(values):.3f}")


def measure_moments(bench: Bench) -> None:
    """Spans of composed recordings by label: the best hit, and all."""
    with TemporaryDirectory() as made:
        chosen = [clip for clip in bench.recordings if clip.seconds >= 3]
        moments = make_moments(bench.folder, chosen, Path(made), max(4, bench.sample // 8), seed=0)
        files = sorted({moment.file for moment in moments})
        library = bench.library(Path(made) / "library", bench.hear_files([Path(made) / file for file in files]))
        found, precisions = defaultdict(list), []
        queries = sorted({(moment.file, moment.labels[0]) for moment in moments})
        for file, label in queries:
            truth = [moment for moment in moments if moment.file == file and label in moment.labels]
            hits = search_words(library, bench.engine, label, ALL, segments=True)
            spans = [(hit.path, hit.start, hit.end) for hit in hits if hit.path == file]
            best = max(overlap((item.start, item.end), spans[0][1:]) for item in truth)
            for least in (0.3, 0.5, 0.7):
                found[least].append(best >= least)
            precisions.append(span_precision(spans, truth, 0.5, 10))
    shares = ", ".join(f"R1@{least} {np.mean(values):.3f}" for least, values in found.items())
    print(f"moments: {len(files)} recordings, {len(queries)} queries: {shares}, mAP (0.5) {np.mean(precisions):.3f}")


def measure_likes(bench: Bench) -> None:
    """Whether one half of a recording finds the other among the first five files; halves of silence alone find none.

    Some recordings of the collection are cuts of one longer one. A half of such a cut is another cut of the same sound:
    it is neither right nor wrong, and left out of the ranks; strictly, it counts as wrong.
    """
    chosen = sample([clip for clip in bench.recordings if clip.seconds >= 4], bench.sample)
    with TemporaryDirectory() as made:
        files = {clip.path: make_cuts(bench.folder, clip, Path(made)) for clip in chosen}
        heard = bench.hear_files([half for halves in files.values() for half in halves], captions=False)
        is_heard = {name: any(w.embedding is not None for w in windows) for name, windows in heard.items()}
        cuts = {path: halves for path, halves in files.items() if all(is_heard[half.name] for half in halves)}
        own = {clip.recording for clip in chosen}
        original = {first.name: bench.of[path].recording for path, (first, _) in cuts.items()}
        others = {name: w for name, w in bench.heard.items() if bench.of[name].recording not in own}
        library = bench.library(Path(made) / "library", {**others, **{name: heard[name] for name in original}})
        strict, ranks = [], []
        for first, second in cuts.values():
            names = [hit.path for hit in search_like(library, bench.captioner, str(second), ALL)]
            before = names[: names.index(first.name)] if first.name in names else names
            strict.append(len(before))
            ranks.append(sum(original.get(name) != original[first.name] for name in before))
    silent = f"{len(chosen) - len(cuts)} left out, as a half is silent"
    print(f"sounds like: the other half of {len(cuts)} recordings among {len(others) + len(cuts)} files; {silent}")
    for count in (1, 5, 10):
        shares = (np.mean([rank < count for rank in found]) for found in (ranks, strict))
        print("sounds like, among the first {}: {:.3f}, strictly {:.3f}".format(count, *shares))


def measure_copies(bench: Bench) -> None:
    """Copies that are found, at the right place, and pairs that are no copies."""
    from enclap.search.copies import find_copies

    chosen = sample(bench.recordings, bench.sample)
    with TemporaryDirectory() as made:
        copies = {clip.path: make_copies(bench.folder, clip, Path(made)) for clip in chosen}
        paths = [path for made_files in copies.values() for path, _ in made_files.values()]
        heard = bench.with_codes() | bench.hear_files(paths, captions=False)
        library = bench.library(Path(made) / "library", heard)
        pairs = {frozenset((pair.path, pair.of)): pair for pair in find_copies(library)}
    origin = {path.name: name for name, files_made in copies.items() for path, _ in files_made.values()}
    found: dict[str, list[bool]] = defaultdict(list)
    for name, files_made in copies.items():
        for kind, (path, offset) in files_made.items():
            pair = pairs.get(frozenset((name, path.name)))
            is_placed = pair is not None and abs(abs(pair.offset) - offset) < 0.05
            found[kind].append(is_placed)
    for kind in COPIES:
        print(f"copies, {kind}: {np.mean(found[kind]):.3f} found and placed ({len(found[kind])})")
    print(f"copies, all: {np.mean([item for values in found.values() for item in values]):.3f}")
    recording = {name: bench.of[origin.get(name, name)].recording for name in heard}
    wrong = [pair for pair in pairs.values() if recording[pair.path] != recording[pair.of]]
    for pair in wrong:
        print(f"  not of one recording: {pair}")
    touched = {name for pair in wrong for name in (pair.path, pair.of)}
    print(f"false: {len(wrong)} of {len(pairs)} pairs; {len(touched)} of {len(heard)} files are in one", flush=True)


def measure_tags(bench: Bench) -> None:
    """Precision and recall of labels at some thresholds: all that the lexicon knows, and those of the split alone."""
    windows = [(name, w) for name, found in bench.heard.items() for w in found if w.embedding is not None]
    lexicon = load_lexicon()
    own = sorted({label for name, _ in windows for label in bench.of[name].labels} & set(bench.labels.labels))
    for which, kinds in (("all", bench.labels), ("the split's", LabelSet(bench.engine, own, bench.captioner.memory))):
        scores = np.array([kinds.scores(window.embedding) for _, window in windows])
        families = [lexicon[label].family for label in kinds.labels]
        truths, relatives = [], []
        for name, _ in windows:
            true = {label for label in bench.of[name].labels if label in lexicon.entries}
            truths.append([label in true for label in kinds.labels])
            relatives.append([family in {lexicon[label].family for label in true} for family in families])
        truth, related = np.array(truths), np.array(relatives)
        for threshold in (0.2, 0.3, 0.5):
            is_tag = scores >= threshold
            shares = f"precision {truth[is_tag].mean():.3f} ({related[is_tag].mean():.3f} of its family)"
            found = (
                f"recall {truth[truth & is_tag].sum() / truth.sum():.3f}, {is_tag.sum() / len(windows):.2f} a window"
            )
            print(f"tags of {which} {len(kinds.labels)} labels, from {threshold}: {shares}, {found}")
        error = calibration_error(reliability(scores.ravel(), truth.ravel().astype(float), 50))
        print(f"tags of {which} labels: calibration error {error:.4f} over {truth.size} pairs of window and label")


def sample(recordings: Sequence[Recording], count: int) -> list[Recording]:
    """So many of the recordings, the same at every call."""
    chosen = np.random.default_rng(0).permutation(len(recordings))[:count]
    return [recordings[index] for index in sorted(chosen)]


def calibrate(bench: Bench) -> None:
    """Fit the curves on validation and print them; with --split test, print how far the present ones hold there."""
    with TemporaryDirectory() as made:
        library = bench.library(Path(made) / "library", bench.heard)
        fits, liked = word_pairs(bench, library), like_pairs(bench, library)
    tags = tag_pairs(bench)
    curves = {"words": (fits, WORD_CURVE), "like": (liked, LIKE_CURVE)}
    curves |= {"label": (tags[0], LABEL_CURVE), "other label": (tags[1], OTHER_LABEL_CURVE)}
    for name, ((values, correct), curve) in curves.items():
        scores = np.array([curve.probability(*row) for row in values])
        error = calibration_error(reliability(scores, correct))
        weights, offset = fit_curve(values, correct)
        shown = ", ".join(f"{weight:.3f}" for weight in weights)
        print(f"{name}: weights {shown}, offset {offset:.3f}; the present curve errs by {error:.3f} ({len(correct)})")


def word_pairs(bench: Bench, library: Library) -> tuple[np.ndarray, np.ndarray]:
    """What the scores of the first twenty hits are made of, and which hits are right."""
    values, correct = [], []
    for label in sorted({recording.label for recording in bench.recordings}):
        for query in FORMS.values():
            rows, found = valued_rows(bench, library, query(label))
            parts = {key_of(row): value for row, value in zip(rows, found, strict=True)}
            for hit in search_words(library, bench.engine, query(label), 20):
                values.append(parts[hit.path, hit.start])
                correct.append(label in bench.of[hit.path].labels)
    return np.array(values), np.array(correct, float)


def like_pairs(bench: Bench, library: Library) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of each recording to the twenty nearest others, and which have its label or are of its original."""
    values, correct = [], []
    table = library.rows.columns(["path", "embedding"], "silence = false")
    names, vectors = np.array(table["path"].to_pylist()), embeddings_in(table)
    for name in sorted(set(names)):
        cosines = (vectors[names == name] @ vectors.T).max(axis=0)
        best: dict[str, float] = {}
        for other, cosine in zip(names, cosines, strict=True):
            best[str(other)] = max(best.get(str(other), -9.0), float(cosine))
        del best[name]
        this = bench.of[name]
        for other in sorted(best, key=lambda item: -best[item])[:20]:
            values.append([best[other]])
            correct.append(bench.of[other].label == this.label or bench.of[other].recording == this.recording)
    return np.array(values), np.array(correct, float)


def tag_pairs(bench: Bench) -> list[tuple[np.ndarray, np.ndarray]]:
    """Evidence of labels in windows, and which are true: the labels of the split, then the commoner words in them."""
    windows = [(bench.of[name], w) for name, found in bench.heard.items() for w in found if w.embedding is not None]
    labels = sorted({label for clip, _ in windows for label in clip.labels} & set(bench.labels.labels))
    words = {clip.path: content_lemmas(" ".join(clip.labels)) for clip, _ in windows}
    counts = Counter(word for item in words.values() for word in item)
    common = sorted(word for word, count in counts.items() if count >= 3)
    pairs = []
    for wanted, is_true in (
        (labels, lambda clip, label: label in clip.labels),
        (common, lambda clip, word: word in words[clip.path]),
    ):
        kinds = LabelSet(bench.engine, wanted, bench.captioner.memory)
        values, correct = [], []
        for clip, window in windows:
            values += kinds.evidence(window.embedding)
            correct += [is_true(clip, item) for item in wanted]
        pairs.append((np.array(values)[:, None], np.array(correct, float)))
    return pairs


PARTS: dict[str, Callable[[Bench], None]] = {
    "words": measure_words,
    "esc": measure_esc,
    "moments": measure_moments,
    "likes": measure_likes,
    "copies": measure_copies,
    "tags": measure_tags,
}

if __name__ == "__main__":
    main()
