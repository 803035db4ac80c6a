"""Training in the page, opened from disk under a policy that allows the script and its worker, no more."""

import base64
import hashlib
import re

import numpy as np
import pytest
import torch
from looks import ONLY_CHROMIUM, expect_accessible, expect_no_overflow
from playwright.sync_api import expect
from servers import fresh
from torch import nn

from sln import method
from sln.reproduce import live

RUN = {"sigma": 1.0, "rate": 0.35, "seed": 3}  # 0.35 of 1,150 ends in a half, which rounds up
STEPS = """async ([name, run]) => {
  const element = document.querySelector(name);
  const train = Number(element.dataset.train);
  const trained = customElements.get(name).learner(...element.images, { ...run, train });
  const [losses, after] = [[], {}];
  for (let step = 1; step <= 50; step += 1) {
    losses.push(trained.step());
    if (step === 1 || step === 50) after[step] = [trained.weights, trained.average].map((all) => [...all]);
  }
  return { losses, after, given: [...trained.given], order: [...trained.order] };
}"""


@pytest.fixture(scope="session")
def written():
    """A page of the fragment alone."""
    digest = base64.b64encode(hashlib.sha256(live.SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; worker-src blob:"
    page = fresh("train") / "train.html"
    page.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width"><title>Train</title><style>'
        ":root { color-scheme: light dark } body { font: 1.06rem/1.6 system-ui, sans-serif; "
        f"background: light-dark(#fff, #16181c); color: light-dark(#1b1b1b, #e8e8e8) }}{live.STYLE}</style>"
        f"</head><body><main><h1>Train</h1>{live.fragment()}</main><script>{live.SCRIPT}</script></body></html>"
    )
    return page.as_uri()


@pytest.fixture
def ready(written, open_page):
    """The page, its requests and its errors, once the controls work."""
    page = open_page("about:blank")
    page.requests, page.problems = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("console", lambda message: page.problems.append(message.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(written)
    expect(page.get_by_role("button")).to_be_enabled()
    yield page
    assert page.problems == []
    assert [url for url in page.requests if not url.startswith(("file:", "blob:"))] == []


def train(page, sigma, epochs):
    """Set the sliders, train to the end; what the page says of it."""
    page.locator("[name=sigma]").fill(str(sigma))
    page.locator("[name=epochs]").fill(str(epochs))
    page.get_by_role("button", name="Train").click()
    expect(page.locator(".words")).not_to_contain_text("Training")  # a click has put it there
    return page.locator(".words").inner_text()


# --- the same numbers in Python


def uniform(seed, stream):
    """The generator sfc32 in whole numbers: a function that returns the next number in [0, 1)."""
    a, b, c, d, mask = seed, stream, 0, 1, 2**32 - 1

    def following():
        nonlocal a, b, c, d
        total = (a + b + d) & mask
        a, b, c, d = b ^ (b >> 9), 9 * c & mask, ((c << 21 | c >> 11) + total) & mask, (d + 1) & mask
        return total / 2**32

    for _ in range(15):
        following()
    return following


def shuffled(rows, random):
    """Fisher-Yates, in place."""
    for k in range(len(rows) - 1, 0, -1):
        other = int(random() * (k + 1))
        rows[k], rows[other] = rows[other], rows[k]
    return rows


def flat(network):
    return nn.utils.parameters_to_vector(network.parameters()).detach().clone()


def reference(steps):
    """Losses, weights and averages after each step, given labels, and the order, by torch in float64."""
    pixels, labels, count = live.images()
    images = pixels.double() / 16
    images -= images[:count].mean()
    for_labels, for_weights, for_order, for_noise = (uniform(RUN["seed"], k) for k in (1, 2, 3, 4))
    given = labels.clone()
    for row in shuffled(list(range(count)), for_labels)[: int(RUN["rate"] * count + 0.5)]:
        given[row] = (given[row] + 1 + int(9 * for_labels())) % 10
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).double()
    with torch.no_grad():
        for parameter, width in zip(network.parameters(), (64, 64, 128, 128), strict=True):
            drawn = [2 * for_weights() - 1 for _ in range(parameter.numel())]
            parameter.copy_(torch.tensor(drawn, dtype=torch.float64).view_as(parameter) / width**0.5)
    average = method.MomentumModel(network, 0.998)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    order, batches, losses, after = list(range(count)), iter(()), [], {}
    for step in range(1, steps + 1):
        rows = next(batches, None)
        if rows is None:
            batches = iter(torch.tensor(shuffled(order, for_order)).split(32))
            rows = next(batches)
        pairs = [[(for_noise(), for_noise()) for _ in range(10)] for _ in rows]
        z = [[(-2 * np.log(1 - u)) ** 0.5 * np.cos(2 * np.pi * v) for u, v in row] for row in pairs]
        one_hot = nn.functional.one_hot(given[rows], 10).double()
        targets = method.noisy_labels(one_hot, RUN["sigma"], torch.tensor(z, dtype=torch.float64))
        loss = method.soft_cross_entropy(network(images[rows]), targets).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(network)
        losses.append(loss.item())
        after[step] = flat(network), flat(average.module)
    return losses, after, given, order


def test_one_and_fifty_steps_in_the_page_are_torchs(ready):
    here = ready.evaluate(STEPS, ["sln-train", RUN])
    losses, after, given, order = reference(50)
    assert here["given"] == given.tolist()
    assert here["order"] == order  # of the second epoch: 36 steps make the first
    np.testing.assert_allclose(here["losses"], losses, rtol=0, atol=1e-9)
    assert abs(after[50][0] - after[1][0]).max() > 0.01
    for step in (1, 50):
        for found, wanted in zip(here["after"][str(step)], after[step], strict=True):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)


# --- what a reader does


def test_two_runs_are_compared_and_the_sentence_says_what_the_table_says(ready):
    expect(ready.locator("table")).to_be_hidden()
    train(ready, 0, 40)
    expect(ready.locator("path.plain:not(.earlier)")).to_have_count(6)  # three panels, network and average
    words = train(ready, 1, 40)
    expect(ready.locator("path.plain.earlier")).to_have_count(6)
    expect(ready.locator("path.noise:not(.earlier)")).to_have_count(6)
    newest = ready.locator("tbody tr").first
    (own_memory, memory), (own_test, test) = (
        cell.split(" / ") for cell in newest.locator("td").all_inner_texts()[1:]
    )
    assert words.startswith(f"σ = 1: {test} test accuracy (average), {memory} of the wrong labels memorised.")
    assert f"without averaging: {own_test} and {own_memory}. (40% wrong labels, 40 epochs, seed 0)" in words
    assert 80 < int(test[:-1]) < 97
    assert "σ = 0" in ready.locator("tbody tr").nth(1).inner_text()
    first = words
    assert train(ready, 1, 40) == first  # the same settings, the same numbers
    ready.locator("[name=seed]").fill("1")
    assert train(ready, 1, 40) != first
    train(ready, 1, 20)
    expect(ready.locator("tbody tr")).to_have_count(4)  # the oldest has left


def test_a_run_can_be_stopped_by_keyboard_and_the_page_answers_while_it_trains(ready):
    slider = ready.locator("[name=epochs]")
    slider.focus()
    slider.press("End")
    expect(ready.locator("output").nth(2)).to_have_text("300")
    for _ in range(2):
        ready.keyboard.press("Tab")
    assert ready.evaluate("() => document.activeElement.textContent") == "Train"
    ready.keyboard.press("Enter")
    expect(ready.locator(".left")).to_have_text(re.compile(r"^epoch \d+, \d+ s left$"))
    ready.locator("[name=sigma]").press("ArrowRight")
    expect(ready.locator("[name=sigma]")).to_have_attribute("aria-valuetext", "0.1")
    ready.locator("[name=seed]").fill("")  # a number that is half typed
    ready.get_by_role("button", name="Stop").press("Enter")
    expect(ready.locator(".words")).to_have_text(re.compile(r"^Stopped\. σ = 0: "))
    done = int(re.search(r"(\d+) epochs", ready.locator(".words").inner_text())[1])
    assert 0 < done < 300
    assert not ready.locator(".left").inner_text()


def test_without_wrong_labels_none_is_memorised(ready):
    ready.locator("[name=rate]").fill("0")
    assert "none of the wrong labels memorised" in train(ready, 0, 20)
    expect(ready.locator(".panel:nth-child(2) path:not(.grid)")).to_have_count(0)


def test_a_link_sets_the_controls(ready):
    ready.evaluate("() => { location.hash = 'train.sigma=0.7&train.rate=0.2&train.seed=5&other.sigma=1' }")
    expect(ready.locator("output").first).to_have_text("0.7")
    expect(ready.locator("output").nth(1)).to_have_text("20%")
    expect(ready.locator("[name=seed]")).to_have_value("5")


def test_everything_has_a_name_enough_contrast_and_room(ready):
    train(ready, 0, 20)
    expect_accessible(ready)
    expect_no_overflow(ready, 320, 375, 1200)


@ONLY_CHROMIUM
def test_without_script_a_sentence_says_what_would_be_seen(open_page, written):
    page = open_page(written, java_script_enabled=False)
    expect(page.locator(".words")).to_contain_text("at σ = 1 it memorises few")
    expect(page.get_by_role("button")).to_be_disabled()
