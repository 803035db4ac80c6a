"""Every notebook in JupyterLab: it runs, its sliders answer, and *Train this* trains."""

import json
import re

import pytest
from explorer import COUNT_PICTURES, drag, explorers, movable, move, place_of, sliders_of, words_of
from playwright.sync_api import expect
from servers import ROOT, UI, copied, fresh, python, serving, status_of, wait_for, with_runs

pytestmark = pytest.mark.timeout(300, func_only=True)  # the first session trains the runs
PROFILE = "smoke"
PATHS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(scope="session")
def lab():
    """JupyterLab on copies of the notebooks at the profile, with all their runs trained."""
    folder = with_runs(fresh("lab"))
    for path in PATHS:
        copied(path, folder / "notebooks", PROFILE)
    options = ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=PORT", "--ServerApp.port_retries=0"]
    options += ["--IdentityProvider.token=only-for-these-tests", "--no-browser", "--allow-root"]
    options += ["--notebook-dir=" + str(folder / "notebooks"), "--expose-app-in-browser"]
    options += ["--LabApp.app_settings_dir=" + str(ROOT / "sln" / "explore" / "lab")]  # as `make lab` does
    with serving(folder, "jupyterlab", *options, ready="api/status") as server:
        yield server


@pytest.fixture(scope="module")
def page(lab, chromium):
    """JupyterLab, opened once."""
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(90_000)
    page.goto(lab.url("lab"))
    page.wait_for_function("window.jupyterapp?.restored")
    page.evaluate("async () => { await window.jupyterapp.restored }")
    yield page
    page.close()


@pytest.fixture(scope="module")
def notebook(page, request):
    """A notebook whose cells have run; tests of the same one share it, in the order of this file."""
    opened(page, request.param)
    run_all(page)
    yield page
    close(page)


@pytest.fixture(autouse=True)
def keep_a_screenshot(request):
    """After a failure, too."""
    yield
    if "page" in request.fixturenames:
        request.getfixturevalue("page").screenshot(path=UI / f"{request.node.name}.png")


def of(*names):
    """Runs a test on these notebooks."""
    return pytest.mark.parametrize("notebook", names, indirect=True)


def opened(page, name):
    """Open a notebook, and wait until its kernel is ready."""
    page.evaluate(
        "async (path) => { const opened = window.jupyterapp.commands.execute('docmanager:open', { path });"
        " await (await opened).context.ready }",
        f"{name}.ipynb",
    )
    wait_for_kernel(page)


def wait_for_kernel(page):
    """Wait until the notebook has its kernel."""
    page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel")
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.ready }")


def run_all(page):
    """Run all cells; wait until they have run, and see that none failed."""
    page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    expect(page.locator(".jp-mod-active .jp-InputPrompt", has_text="[*]")).to_have_count(0)
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").all_inner_texts() == []
    expect(page.locator(".jp-OutputArea-output :text('Error displaying widget')")).to_have_count(0)


def save(page):
    """Save the notebook, as Ctrl-S does."""
    page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save') }")


def end_kernel(page):
    """So that the next one has the machine to itself."""
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.shutdown() }")


def close(page):
    """Close the notebook, saved, and end its kernel."""
    end_kernel(page)
    save(page)
    page.evaluate("() => window.jupyterapp.shell.currentWidget.dispose()")


def test_without_the_token_nothing_is_served(lab):
    assert status_of(lab.url("api/contents", token=None)) == 403
    assert status_of(lab.url("api/contents", token="another")) == 403


@of("01_label_noise")
def test_a_drag_is_one_redraw_and_nothing_moves(notebook, lab):
    page, panel = notebook, explorers(notebook).first
    rate = panel.locator(".widget-hslider").nth(1)
    rate.scroll_into_view_if_needed()
    image, before = panel.locator(".sln-picture"), words_of(panel).inner_text()
    places = [place_of(image), place_of(words_of(panel))]
    panel.evaluate(COUNT_PICTURES)
    drag(page, rate, 0.8)
    expect(words_of(panel)).not_to_have_text(before)
    expect(words_of(panel)).to_contain_text(re.compile(r"rate 0\.80.* 80\.0% "))
    page.wait_for_timeout(500)  # for pictures that must not come
    assert page.evaluate("window.pictures") == 1
    assert [place_of(image), place_of(words_of(panel))] == places
    # and the page that is saved and loaded again shows what was chosen, picture and all
    save(page)
    page.goto(lab.url("lab/tree/01_label_noise.ipynb"))
    wait_for_kernel(page)
    panel = explorers(page).first
    expect(words_of(panel)).to_contain_text(re.compile(r"rate 0\.80.* 80\.0% "))
    expect(panel.locator(".widget-readout").nth(1)).to_have_text("0.80")


@of("02_sln_training")
def test_train_this_trains_and_the_slider_has_it(notebook, lab):
    page, told = notebook, notebook.locator(".sln-training")
    button, box = page.get_by_role("button", name="Train this"), page.locator(".sln-train-this")
    box.locator(".widget-hslider", has_text="σ").locator(".widget-readout").dblclick()
    page.keyboard.type("0.65")
    page.keyboard.press("Enter")
    expect(told).to_contain_text("σ = 0.65, symmetric noise at rate 0.4, α = 0.99: not trained yet")
    button.click()
    expect(button).to_be_disabled()
    # the page answers meanwhile
    first = explorers(page).first
    move(sliders_of(first)[0], first)
    expect(told).to_contain_text("Done: σ = 0.65", timeout=120_000)
    panel = explorers(page).filter(has_text="kind of noise").first
    expect(words_of(panel)).to_contain_text("σ = 0.65, symmetric noise")
    names = [path.name for path in (lab.folder / "runs").glob("digits-sym0.4-sln0.65-seed0-*")]
    assert len(names) == 1
    assert (lab.folder / "runs" / names[0] / "done.json").exists()


@of("09_comparisons")
def test_values_are_kept_in_the_saved_notebook(notebook, lab):
    panel = explorers(notebook).first
    move(sliders_of(panel)[0], panel)
    said = words_of(panel).inner_text()
    save(notebook)
    path = lab.folder / "notebooks" / "09_comparisons.ipynb"
    wait_for(lambda: "widgets" in json.loads(path.read_text())["metadata"], 30)
    assert said in path.read_text()


@of(*(path.stem for path in PATHS))
def test_a_notebook_runs_and_all_its_sliders_answer(notebook, request):
    page, seconds, name = notebook, [], request.node.callspec.params["notebook"]
    expect(page.locator(".sln-explorer, sln-player")).not_to_have_count(0)
    for number, panel in enumerate(explorers(page).all()):
        panel.scroll_into_view_if_needed()
        for row in filter(movable, sliders_of(panel)):  # which may change with those above
            seconds.append(f"{move(row, panel):.2f}")
        panel.screenshot(path=UI / f"{name}-panel-{number}.png")
    for player in page.locator("sln-player").all():
        player.scroll_into_view_if_needed()
        moves(player)
    (UI / f"{name}-seconds.txt").write_text("\n".join(seconds) + "\n")  # to look at, as the screenshots are


def moves(player):
    """A player's first slider that can be moved changes its words."""
    said, slider = player.locator(".sln-words").inner_text(), player.locator("input:not([disabled])").first
    slider.press("ArrowLeft" if slider.input_value() == slider.get_attribute("max") else "ArrowRight")
    expect(player.locator(".sln-words")).not_to_have_text(said)


def test_frames_move_where_no_kernel_has_run_anything(lab, built, page):
    """A notebook that `make reproduce` leaves, opened again and trusted."""
    executed = (built / "02_sln_training.ipynb").read_text()
    assert len(executed) < 5e6
    (lab.folder / "notebooks" / "executed.ipynb").write_text(executed)
    python(lab.folder, "-m", "jupyter", "trust", str(lab.folder / "notebooks" / "executed.ipynb"))
    opened(page, "executed")
    end_kernel(page)
    players = page.locator("sln-player:visible")  # another notebook may be open behind it
    expect(players).not_to_have_count(0)
    for player in players.all():
        player.scroll_into_view_if_needed()
        moves(player)
    save(page)
