"""Features of a pretrained network: torchvision's numbers, weights that run no code, a linear head."""

import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
from own_images import lay

from sln.relabel import features
from sln.relabel.pipeline import relabel
from sln.utils.devices import torchvision


@pytest.fixture(scope="module")
def network():
    """A ResNet-18 of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torchvision().models.resnet18(weights=None).eval()


@pytest.fixture
def weights(network, tmp_path):
    path = tmp_path / "resnet18.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    return path


IMAGES = torch.randint(256, (3, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_features_are_the_input_of_the_last_layer_of_torchvisions_network(network, weights, tmp_path):
    normalise = torchvision().transforms.Normalize(features.MEAN, features.STD)
    with torch.no_grad():
        expected = network(normalise(IMAGES.float() / 255))
    found = features.encoder("resnet18", weights)(IMAGES)
    assert found.shape == (3, 512)
    torch.testing.assert_close(
        found @ network.fc.weight.detach().T + network.fc.bias.detach(), expected, atol=1e-4, rtol=1e-4
    )
    torch.save(network.state_dict(), tmp_path / "w.pth")
    torch.testing.assert_close(features.encoder("resnet18", tmp_path / "w.pth")(IMAGES), found)


def test_making_an_encoder_leaves_the_global_generator_alone(weights):
    before = torch.random.get_rng_state()
    features.encoder("resnet18", weights)
    assert torch.equal(torch.random.get_rng_state(), before)


class Live:
    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.parametrize("content", ["pickle", "text", "tensor", "safetensors"])
def test_other_files_are_refused_and_none_of_their_code_runs(content, tmp_path, refused, capfd):
    path = tmp_path / ("w.safetensors" if content == "safetensors" else "w.pth")
    if content == "pickle":
        path.write_bytes(pickle.dumps({"conv1.weight": Live()}))
    elif content == "tensor":
        torch.save(torch.zeros(3), path)
    else:
        path.write_text("no weights")
    with refused(path.name, "no weights" if content == "tensor" else "no file of weights"):
        features.encoder("resnet18", path)
    assert "this ran" not in capfd.readouterr().out


def test_unknown_backbones_missing_weights_and_weights_of_another_network_are_refused(
    weights, tmp_path, refused
):
    with refused("unknown backbone 'resnet19'", "resnet18"):
        features.encoder("resnet19")
    with refused("none.pth", "missing"):
        features.encoder("resnet18", tmp_path / "none.pth")
    with refused("no weights of resnet50", weights.name):
        features.encoder("resnet50", weights)


def test_resnet18_without_weights_names_the_missing_file(tmp_path, monkeypatch, refused):
    monkeypatch.setenv("SLN_DATA", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with refused("resnet18-f37072fd.pth", "--weights"):
        features.encoder("resnet18")


def test_the_weights_of_resnet50_are_downloaded_once(tmp_path, monkeypatch):
    asked = []
    with torch.random.fork_rng(devices=[]):
        state = torchvision().models.resnet50(weights=None).state_dict()
    monkeypatch.setattr(features.registry, "get", lambda name: asked.append(name) or [])
    monkeypatch.setattr(features.clothing1m, "imagenet_weights", lambda name: state)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("SLN_DATA", str(tmp_path))
    assert features.encoder("resnet50")(IMAGES[:1]).shape == (1, 2048)
    assert asked == ["resnet50"]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / features.clothing1m.IMAGENET["resnet50"]).write_text("torch.hub's")
    features.encoder("resnet50")
    assert asked == ["resnet50"]


@pytest.mark.slow
def test_relabel_judges_features_by_a_linear_head(weights, tmp_path):
    folder = lay(tmp_path / "mine", count=16)
    (folder / "left" / "000.png").rename(folder / "right" / "000.png")
    judged = relabel(
        folder,
        tmp_path / "out",
        backbone="resnet18",
        weights=weights,
        sigma=0.2,
        folds=4,
        repeats=1,
        quiet=True,
    )
    assert judged.fitted.model == "linear"
    assert judged.labels.sort_values("rank")["path"].iloc[0] == "right/000.png"
    assert np.isfinite(judged.labels["suspect"]).all()
