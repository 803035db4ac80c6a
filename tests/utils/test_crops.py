"""Crops and flips: torchvision's own pixels for the same draws, and draws that are what they claim."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sln.utils import crops
from sln.utils.devices import torchvision
from sln.utils.rng import torch_generator


def photographs(count, side=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def test_the_pixels_are_torchvisions_for_the_same_draws_bit_for_bit(monkeypatch):
    transforms = torchvision().transforms
    images = photographs(64)
    draws = crops.draw_crops(64, 4, torch_generator(0, "augmentation", 1))
    ours = crops.crop_and_flip(images, draws, 4)
    for n, image in enumerate(images):
        crop = transforms.RandomCrop(32, padding=4)
        # torchvision's only source of randomness for a crop; RandomCrop itself pads and cuts
        place = (int(draws.top[n]), int(draws.left[n]), 32, 32)
        monkeypatch.setattr(crop, "get_params", lambda *_, place=place: place)
        flip = transforms.RandomHorizontalFlip(float(draws.flip[n]))
        assert torch.equal(ours[n], flip(crop(image))), n
    assert draws.flip.any()
    assert not draws.flip.all()


def test_the_released_pipeline_gives_the_same_numbers_up_to_rounding(monkeypatch):
    # crop, flip, ToTensor and Normalize on a PIL image, as the released script composes them
    transforms = torchvision().transforms
    images, mean, std = photographs(8), (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    draws = crops.draw_crops(8, 4, torch_generator(3, "augmentation", 1))
    ours = crops.crop_and_flip(images, draws, 4).float()
    ours = (ours - 255 * torch.tensor(mean).view(3, 1, 1)) / (255 * torch.tensor(std).view(3, 1, 1))
    for n, image in enumerate(images):
        crop = transforms.RandomCrop(32, padding=4)
        place = (int(draws.top[n]), int(draws.left[n]), 32, 32)
        monkeypatch.setattr(crop, "get_params", lambda *_, place=place: place)
        steps = [crop, transforms.RandomHorizontalFlip(float(draws.flip[n]))]
        steps += [transforms.ToTensor(), transforms.Normalize(mean, std)]
        released = transforms.Compose(steps)(transforms.ToPILImage()(image))
        torch.testing.assert_close(ours[n], released, rtol=1e-5, atol=1e-6)


@given(
    side=st.integers(2, 9),
    padding=st.integers(0, 4),
    top=st.integers(0, 8),
    left=st.integers(0, 8),
    flip=st.booleans(),
)
def test_each_pixel_is_the_one_that_the_draw_says(side, padding, top, left, flip):
    top, left = min(top, 2 * padding), min(left, 2 * padding)
    image = photographs(1, side, seed=side)
    draws = crops.CropsAndFlips(torch.tensor([top]), torch.tensor([left]), torch.tensor([flip]))
    out = crops.crop_and_flip(image, draws, padding)[0]
    for row in range(side):
        for column in range(side):
            y = row + top - padding
            x = (side - 1 - column if flip else column) + left - padding
            inside = 0 <= y < side and 0 <= x < side
            expected = image[0, :, y, x] if inside else torch.zeros(3, dtype=torch.uint8)
            assert torch.equal(out[:, row, column], expected)


def test_all_81_places_and_both_sides_are_equally_likely():
    N = 81_000
    draws = crops.draw_crops(N, 4, torch_generator(0, "augmentation", 5))
    counts = np.bincount((9 * draws.top + draws.left).numpy(), minlength=81)
    chi2 = ((counts - N / 81) ** 2 / (N / 81)).sum()
    assert 40 < chi2 < 140  # 80 degrees of freedom: both ends are beyond one in ten thousand
    assert abs(draws.flip.double().mean() - 0.5) < 4 * 0.5 / N**0.5
    by_place = draws.flip[(draws.top == 0) & (draws.left == 0)].double()
    assert abs(by_place.mean() - 0.5) < 4 * 0.5 / len(by_place) ** 0.5


def test_some_of_the_images_get_their_own_draws():
    images, draws = photographs(10), crops.draw_crops(10, 4, torch_generator(1, "augmentation"))
    index = torch.tensor([7, 2, 2])
    whole = crops.crop_and_flip(images, draws, 4)
    assert torch.equal(crops.crop_and_flip(images[index], draws.of(index), 4), whole[index])
