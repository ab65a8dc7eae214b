"""The networks in PyTorch: caption model, codec and CLAP, with masks and losses; no engine and no exporter.

Importing it registers the caption model with transformers' Auto classes.

May import: audio, errors, hub, text, types.
"""

from transformers import AutoConfig, AutoModelForSeq2SeqLM

from enclap.model.captioner import EnclapForConditionalGeneration, EnclapOutput
from enclap.model.configuration import EnclapConfig

AutoConfig.register(EnclapConfig.model_type, EnclapConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(EnclapConfig, EnclapForConditionalGeneration, exist_ok=True)

__all__ = ["EnclapConfig", "EnclapForConditionalGeneration", "EnclapOutput"]
