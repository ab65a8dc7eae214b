"""A trained model as a folder that `enclap caption` takes, also where there is no PyTorch."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from enclap.export.folder import export_folder
from enclap.files import replacement_folder
from enclap.hub.integrity import write_checksums
from enclap.hub.layout import ATTRIBUTION, CARD, CLAP, CODEC, GENERATION, TOKENIZER, write_json
from enclap.training.card import Card
from enclap.training.start import Start

logger = logging.getLogger(__name__)


def write_model(start: Start, encoders: Path, target: Path, card: Card) -> None:
    """Make `target` the folder of a trained model: weights, tokenizer, the encoders it hears with, graphs, card.

    What the scores of another model were calibrated with is not taken over. A folder that was there is replaced when
    the new one is complete.
    """
    with replacement_folder(target) as folder:
        start.model.save_pretrained(folder)
        start.tokenizer.save(str(folder / TOKENIZER))
        write_json(folder / GENERATION, start.generation)
        for part in (CODEC, CLAP):
            if (encoders / part).is_dir():
                shutil.copytree(encoders / part, folder / part)
        if (encoders / ATTRIBUTION).is_file():  # the encoders go on being what they were made of
            shutil.copyfile(encoders / ATTRIBUTION, folder / ATTRIBUTION)
        (folder / CARD).write_text(card.text(target.parent.name), encoding="utf-8")
        logger.info("%s: exporting graphs", target)
        export_folder(folder)
        write_checksums(folder)
