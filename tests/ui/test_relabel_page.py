"""The page of suspects that `python -m sln relabel` writes, opened from disk and worked through."""

import csv
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from looks import ONLY_CHROMIUM, downloaded, expect_accessible, expect_no_overflow
from own_images import canned_fit, lay, pictures, save
from playwright.sync_api import expect
from servers import fresh

from sln.cli import main
from sln.relabel import pipeline, scores
from sln.relabel.pipeline import relabel

COUNT = 520  # images, 500 of which are on the page


@dataclass
class Judged:
    """A page without training, and what is on it."""

    source: Path
    folder: Path
    page: str  # its address
    labels: pd.DataFrame  # labels.csv, most suspect first
    others: list[list[str]]  # per label, the other classes by probability


def judged(name, source, threshold=0.0):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "fit", canned_fit)
        found = relabel(source, fresh(f"relabel-{name}") / "out", threshold=threshold, quiet=True)
    labels = found.labels.sort_values("rank")
    others = []
    q = scores.true_class(found.fitted.probabilities.numpy(), found.fitted.given.numpy())
    for row, label in zip(labels.index, labels.itertuples(), strict=True):
        by_p = (-q[row]).argsort(kind="stable").tolist()
        ranked = [found.fitted.classes[place] for place in by_p]
        others.append([one for one in ranked if one not in (label.given, label.suggested)])
    page = (found.folder / "suspects.html").resolve().as_uri()
    return Judged(source, found.folder, page, labels.reset_index(drop=True), others)


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """Twelve classes, two more than have keys; one name is a formula, one has all that a CSV quotes."""
    source, classes = tmp_path_factory.mktemp("many"), ["=sum", 'a, "b"\r=c', *map(str, range(10))]
    for number, image in enumerate(pictures(COUNT)[0]):
        save(image, source / classes[number % len(classes)] / f"{number:03}.png")
    return judged("many", source)


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    """Two classes and 24 images."""
    return judged("few", lay(tmp_path_factory.mktemp("few") / "mine"))


def saved(page, path):
    """Download the decisions; the rows of the file."""
    assert downloaded(page, page.get_by_role("button", name="Download"), path) == "decisions.csv"
    return rows_of(path)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [tuple(row) for row in csv.reader(file)][1:]


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


@ONLY_CHROMIUM
def test_500_suspects_are_decided_by_keyboard_and_corrected_as_decided(many, open_page, tmp_path):
    page, expected, decided = open_page(many.page), {}, {"suggestion": 0, "keep": 0, "other": 0, "exclude": 0}
    safe = {"=sum": "'=sum"}
    for number, label in enumerate(many.labels.itertuples()):
        expected[label.path] = label.given
        if number >= 500:
            continue
        choice = ("w", "q", "e", "1", "9", " ")[number % 6]
        choice = "q" if choice == "w" and label.suggested == label.given else choice
        new = {"w": label.suggested, "1": many.others[number][0], "9": many.others[number][8]}
        expected[label.path] = None if choice == "e" else new.get(choice, label.given)
        word = {"e": "exclude", "w": "suggestion", "q": "keep"}.get(choice, "other")
        decided[word] += choice != " "
        page.keyboard.press(choice)
    expect(page.locator("#done")).to_have_text("417 of 500 decided")
    rows = saved(page, tmp_path / "decisions.csv")
    assert {word: sum(row[2] == word for row in rows) for word in decided} == decided
    assert len(rows) == 417
    out = ["--out", str(many.folder)]
    assert main(["relabel", str(many.source), "--decisions", str(tmp_path / "decisions.csv"), *out]) == 0
    written = dict(rows_of(many.folder / "corrected.csv"))
    assert written == {
        f"./{path}" if path[0] == "=" else path: safe.get(label, label)
        for path, label in expected.items()
        if label is not None
    }


def test_a_move_is_quick(many, open_page):
    page = open_page(many.page)
    took = page.evaluate("""async () => {
        const times = [];
        for (const key of [...Array(60).fill("ArrowRight"), ...Array(60).fill("w")]) {
            const start = performance.now();
            document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
            document.body.getBoundingClientRect();  // layout, too
            times.push(performance.now() - start);
            await new Promise(requestAnimationFrame);
        }
        return times.sort((a, b) => a - b)[60];
    }""")
    assert took < 16


def test_undo_takes_back_decisions_and_skips(few, open_page, tmp_path):
    page = open_page(few.page)
    press(page, "w", "e", " ", "Backspace")
    expect(page.locator("#rank")).to_have_text("no. 3")
    press(page, "Control+z")
    expect(page.locator("#done")).to_have_text("1 of 24 decided")
    expect(page.locator("#rank")).to_have_text("no. 2")
    press(page, "q")
    first, second = few.labels[:2].itertuples()
    word = "keep" if first.suggested == first.given else "suggestion"
    rows = saved(page, tmp_path / "decisions.csv")
    assert rows == [
        (first.path, first.given, word, first.suggested),
        (second.path, second.given, "keep", second.given),
    ]
    press(page, "Backspace", "Backspace", "Backspace")
    expect(page.locator("#status")).to_have_text("There is nothing to undo.")
    expect(page.locator("#done")).to_have_text("0 of 24 decided")


def test_decisions_survive_a_reload_which_warns_while_they_are_not_downloaded(few, open_page, tmp_path):
    page, dialogs = open_page(few.page), []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.type), dialog.accept()))
    press(page, "q", "e")
    page.reload()
    assert dialogs == ["beforeunload"]
    expect(page.locator("#done")).to_have_text("2 of 24 decided")
    expect(page.locator("#rank")).to_have_text("no. 3")
    expect(page.locator("#strip li[data-decision]")).to_have_count(2)
    assert [row[2] for row in saved(page, tmp_path / "decisions.csv")] == ["keep", "exclude"]
    page.reload()
    assert dialogs == ["beforeunload"]


def test_without_storage_it_works_and_warns(few, open_page):
    page = open_page("about:blank")
    page.add_init_script("Storage.prototype.getItem = Storage.prototype.setItem = () => { throw Error() }")
    page.goto(few.page)
    expect(page.locator("#status.bad")).to_contain_text("cannot keep your decisions")
    press(page, "q")
    expect(page.locator("#done")).to_have_text("1 of 24 decided")
    expect(page.locator("#status.bad")).to_contain_text("Download them")


def test_decisions_survive_filters_and_a_cell_of_the_matrix_filters(many, open_page):
    page = open_page(many.page)
    press(page, "w", "q", "e")
    label = many.labels.iloc[10]
    name = f"given {label.given}, suggested {label.suggested}"
    alike = (many.labels[:500][["given", "suggested"]] == label[["given", "suggested"]]).all(axis=1).sum()
    page.get_by_role("button", name=f"{name}: ").click()
    expect(page.locator("#strip li:visible")).to_have_count(int(alike))
    expect(page.locator("#given")).to_have_text(label.given)
    expect(page.locator("#suggested")).to_have_text(
        "unsure" if label.suggested == label.given else label.suggested
    )
    expect(page.locator("#stage")).to_be_in_viewport()
    page.get_by_role("button", name=f"{name} ✕").click()
    page.get_by_label("Undecided only").check()
    expect(page.locator("#strip li:visible")).to_have_count(497)
    page.get_by_label("Order").select_option("path")
    first = min(many.labels["path"][3:500], key=lambda path: f"./{path}" if path[0] == "=" else path)
    expect(page.locator("#strip li:visible").first).to_contain_text(first)
    page.get_by_label("Undecided only").uncheck()
    expect(page.locator("#strip li:visible")).to_have_count(500)
    expect(page.locator("#done")).to_have_text("3 of 500 decided")


def test_copies_with_different_labels_are_shown_filtered_and_settled(few, open_page, tmp_path):
    source, names = lay(tmp_path / "mine"), ["left/<b>&.png", "right/y.png", "right/z.png"]
    for name in names:
        (source / name).write_bytes((source / "left" / "000.png").read_bytes())
    page, copied = open_page(judged("copies", source, threshold=1.0).page), {"left/000.png", *names}
    expect(page.locator("#tool")).to_be_visible()
    page.get_by_label("Copies with different labels (4)").check()
    expect(page.locator("#strip li:visible")).to_have_count(4)
    for _ in range(4):
        path = page.locator("#path").text_content()
        others = {name for name in copied if name.split("/")[0] != path.split("/")[0]}
        assert {*page.locator("#twins bdi").all_text_contents()} == others
        press(page, "ArrowRight")
    first = page.locator("#twins button").first
    path, twin = page.locator("#path").text_content(), first.locator("bdi").text_content()
    expect(first).to_contain_text(twin.split("/")[0])
    assert first.locator("img").evaluate("image => image.naturalWidth") == 8
    first.press("Enter")
    expect(page.locator("#path")).to_have_text(twin)
    press(page, "e")
    page.locator("#strip li:visible", has_text=path).click()
    expect(page.locator("#twins button", has_text=twin)).to_contain_text(f"{twin.split('/')[0]}, excluded")
    expect_accessible(page)
    page.evaluate("document.querySelectorAll('#strip img').forEach((image) => image.remove())")  # unreadable
    press(page, "ArrowRight")
    expect(page.locator("#twins button").first).to_be_visible()
    page.get_by_label("Copies with different labels").uncheck()
    page.get_by_label("At least").fill("0")
    expect(page.locator("#strip li:visible")).to_have_count(27)
    assert saved(page, tmp_path / "decisions.csv") == [(twin, twin.split("/")[0], "exclude", "")]
    page.goto(few.page)
    expect(page.locator("#rank")).to_have_text("no. 1")
    expect(page.locator("#twins")).to_be_hidden()
    expect(page.locator("#differ")).to_be_hidden()


def test_what_is_shown_is_counted_and_all_can_be_shown_again(few, open_page):
    page = open_page(few.page)
    own = few.labels["suggested"] == few.labels["given"]
    assert own.any()
    page.get_by_label("Order").select_option("path")
    page.locator(f"#no{own.idxmax() + 1}").click()
    expect(page.locator("#suggested")).to_have_text("unsure")
    expect(page.locator("#take")).to_be_hidden()
    page.keyboard.press("w")
    expect(page.locator("#done")).to_have_text("0 of 24 decided")
    cell = page.locator("#matrix td button:visible").first
    number = int(cell.text_content())
    cell.click()
    expect(page.locator("#done")).to_have_text(f"0 of {number} shown decided (0 of 24 in all)")
    expect(page.locator("#all")).to_be_hidden()
    for _ in range(number):
        page.keyboard.press("q")
    expect(page.locator("#done")).to_have_text(f"{number} of {number} shown decided ({number} of 24 in all)")
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("#done")).to_have_text(f"{number} of 24 decided")
    expect(page.locator("#all")).to_be_hidden()


def test_the_threshold_says_what_it_shows_and_shows_it(few, open_page):
    page = open_page(few.page)
    suspects, slider = page.locator("li[data-suspect]"), page.locator("input#threshold")
    values = [float(value) for value in suspects.evaluate_all("all => all.map(li => li.dataset.suspect)")]
    for press_key in ("End", "Home", "PageUp"):
        slider.press(press_key)
        shown = sum(value >= float(slider.input_value()) for value in values)
        expect(page.locator("li[data-suspect]:visible")).to_have_count(shown)
        expect(page.locator("#shown")).to_have_text(str(shown))
        expect(page.locator("#stage")).to_be_visible(visible=shown > 0)


def test_keys_are_off_when_they_are_switched_off_or_belong_to_something_else(many, open_page):
    page = open_page(many.page)
    none, one = "0 of 500 decided", "1 of 500 decided"
    press(page, "Control+e", "Alt+w", "Shift+E")
    page.get_by_label("Order").focus()
    press(page, "w", "e", "1")
    expect(page.locator("#done")).to_have_text(none)
    press(page, "Escape", "?")
    expect(page.get_by_role("dialog")).to_be_visible()
    press(page, "w", "Escape")
    expect(page.locator("#done")).to_have_text(none)
    page.get_by_label("Single keys").click()
    press(page, "w", "e", "1", "Space", "?")
    expect(page.locator("#done")).to_have_text(none)
    press(page, "ArrowRight")
    expect(page.locator("#rank")).to_have_text("no. 2")
    page.get_by_role("button", name="Exclude").click()
    expect(page.locator("#done")).to_have_text(one)
    page.get_by_label("Single keys").click()
    press(page, "Control+z", "e", "Space")  # after a click keys are the page's again
    expect(page.locator("#done")).to_have_text(one)
    expect(page.locator("#rank")).to_have_text("no. 4")


def test_any_class_can_be_chosen_without_a_mouse(many, open_page, tmp_path):
    page = open_page(many.page)
    last = many.others[0][-1]
    press(page, "0")
    page.keyboard.type(last[:2])
    press(page, "Tab", "Enter")
    path = many.labels["path"][0]
    (row,) = saved(page, tmp_path / "decisions.csv")
    assert (row[0].removeprefix("./"), row[2], row[3].removeprefix("'")) == (path, "other", last)


def test_decisions_are_loaded_back_or_refused_as_a_whole(many, open_page, tmp_path):
    page = open_page(many.page)
    press(page, "w", "q", "e", "1", "9")
    rows, file = saved(page, tmp_path / "decisions.csv"), page.locator("input[type=file]")
    page.evaluate("localStorage.clear()")
    page.reload()
    expect(page.locator("#done")).to_have_text("0 of 500 decided")
    good, elsewhere = (tmp_path / "decisions.csv").read_bytes().decode(), many.labels.iloc[509]
    lines = good.split("\n")  # a class has a carriage return in its name
    bad = {
        "row 7: unknown decision maybe": good + "x.png,1,maybe,1\n",
        "row 7: it has 3 cells": good + "x.png,1,keep\n",
        "row 7: the image has an earlier row": good + lines[1] + "\n",
        f"row 2: the given label is not nought{rows[0][1]}": "\n".join(
            [lines[0], lines[1].replace(",", ",nought", 1)]
        ),
        "its columns are not": good[1:],
        "none of its images is on this page": "path,given,decision,label\nx.png,1,keep,1\n",
    }
    for why, text in bad.items():
        (tmp_path / "bad.csv").write_bytes(text.encode())
        file.set_input_files(tmp_path / "bad.csv")
        expect(page.locator("#status.bad")).to_contain_text(why)
        expect(page.locator("#done")).to_have_text("0 of 500 decided")
    more = "\ufeff" + good + f"{elsewhere.path},{elsewhere.given},exclude,\n"
    (tmp_path / "more.csv").write_bytes(more.encode())
    file.set_input_files(tmp_path / "more.csv")
    expect(page.locator("#done")).to_have_text("5 of 500 decided")
    expect(page.locator("#status")).to_contain_text("5 decisions were loaded; 1 of images")
    page.keyboard.press("Backspace")
    expect(page.locator("#done")).to_have_text("0 of 500 decided")
    file.set_input_files(tmp_path / "more.csv")
    expect(page.locator("#done")).to_have_text("5 of 500 decided")
    assert saved(page, tmp_path / "again.csv") == [*rows, (elsewhere.path, elsewhere.given, "exclude", "")]


def test_no_accessibility_check_finds_anything(many, open_page):
    page = open_page(many.page)
    press(page, "w", "q", "ArrowLeft")
    page.locator("#matrix td button:visible").first.click()
    expect_accessible(page)
    press(page, "?")
    expect_accessible(page)


def test_a_phone_has_buttons_that_can_be_hit_and_nothing_overflows(many, open_page):
    page = open_page(many.page)
    for width in (375, 320):
        expect_no_overflow(page, width)
        boxes = page.locator("button:visible, select:visible").evaluate_all(
            "all => all.slice(0, 30).map(e => e.getBoundingClientRect()).map(box => [box.width, box.height])"
        )
        assert min(min(box) for box in boxes) >= 44


def test_nothing_is_asked_of_a_network_and_no_other_script_runs(few, open_page, tmp_path):
    text = (few.folder / "suspects.html").read_text(encoding="utf-8")
    evil = '<script>document.title = "changed"</script><img src=x onerror="document.title = 1"></body>'
    (tmp_path / "evil.html").write_text(text.replace("</body>", evil), encoding="utf-8")
    page, asked = open_page("about:blank"), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "evil.html").as_uri())
    expect(page.locator("#done")).to_have_text("0 of 24 decided")
    expect(page).to_have_title("Suspect labels: mine")
    assert {address.partition(":")[0] for address in asked} <= {"file", "data"}


@ONLY_CHROMIUM
def test_without_its_script_it_is_a_list(few, open_page):
    page = open_page(few.page, java_script_enabled=False)
    expect(page.locator("li:visible")).to_have_count(24)
    expect(page.locator("button:visible")).to_have_count(0)
    expect(page.locator("li").first).to_contain_text(f"given {few.labels['given'][0]}")
