"""The tokenizer of the captioning metrics: Stanford's PTB tokenizer in lower case, without punctuation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from enclap.errors import EnvironmentFault
from enclap.evaluation.captioning.java import Java, run_java

TOKENIZER = "PTB tokenizer"
CLASS = "edu.stanford.nlp.process.PTBTokenizer"


def tokenize_ptb(captions: Sequence[str], java: Java, seconds: float) -> list[str]:
    """The tokens of each caption with spaces between them; EnvironmentFault when Java fails.

    Captions hold no line breaks. The tokens that are dropped are pycocoevalcap's list (tokenizer/ptbtokenizer.py).
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    distinct = list(dict.fromkeys(captions))
    arguments = ["-cp", str(jar), CLASS, "-preserveLines", "-lowerCase"]
    output = run_java(java, arguments, TOKENIZER, seconds, "".join(f"{caption}\n" for caption in distinct))
    lines = output.split("\n")[:-1]
    if len(lines) != len(distinct):
        raise EnvironmentFault(f"{TOKENIZER}: gave {len(lines)} lines for {len(distinct)} captions")
    dropped = set(ptbtokenizer.PUNCTUATIONS)
    tokens = (" ".join(token for token in line.split() if token not in dropped) for line in lines)
    found = dict(zip(distinct, tokens, strict=True))
    return [found[caption] for caption in captions]
