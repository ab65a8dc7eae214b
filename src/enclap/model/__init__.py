"""The networks in PyTorch; importing this registers the caption model with transformers' Auto classes.

Needs the extra "train"; imports the runtime's `types`, `errors`, `text`, `audio` and `hub`, no engine and no exporter.
"""

from transformers import AutoConfig, AutoModelForSeq2SeqLM

from enclap.model.captioner import EnclapForConditionalGeneration, EnclapOutput
from enclap.model.configuration import EnclapConfig

AutoConfig.register(EnclapConfig.model_type, EnclapConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(EnclapConfig, EnclapForConditionalGeneration, exist_ok=True)

__all__ = ["EnclapConfig", "EnclapForConditionalGeneration", "EnclapOutput"]
