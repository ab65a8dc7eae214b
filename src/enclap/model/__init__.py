"""The caption model in PyTorch; importing this registers it with transformers' Auto classes."""

from transformers import AutoConfig, AutoModelForSeq2SeqLM

from enclap.model.captioner import EnclapForConditionalGeneration, EnclapOutput
from enclap.model.configuration import EnclapConfig

AutoConfig.register(EnclapConfig.model_type, EnclapConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(EnclapConfig, EnclapForConditionalGeneration, exist_ok=True)

__all__ = ["EnclapConfig", "EnclapForConditionalGeneration", "EnclapOutput"]
