"""temporary"""
from pathlib import Path
import torch
from enclap.training.teachers.mobilenet import MobileNet
def load_mobilenet(folder: Path) -> MobileNet:
    net = MobileNet(); net.load_state_dict(torch.load(folder / "mn04_as_mAP_432.pt", weights_only=True, map_location="cpu")); return net.eval()
def read_student(path: Path) -> dict[str, torch.Tensor]:
    return {k: v.float() if v.is_floating_point() else v for k, v in torch.load(path, weights_only=True, map_location="cpu").items()}
