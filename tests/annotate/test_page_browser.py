"""The page in headless Chromium: what the mouse paints is what is stored, and nothing leaves this machine."""

from __future__ import annotations

import io
import shutil
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from annotation_example import SIZE, TABLE, blob, slices, work_of
from PIL import Image

from medseg_gan.annotate.guide import Guide
from medseg_gan.annotate.work import AnnotationWork

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'medseg-gan[annotate]'")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")

MARGIN, LARGEST_ZOOM = 30, 10  # of the editor, when it shows the whole image


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> AnnotationWork:
    return work_of(tmp_path_factory.mktemp("page") / "person")


@pytest.fixture(scope="module")
def address(work: AnnotationWork) -> Iterator[str]:
    from medseg_gan.annotate.server import start

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = start(Guide(work, {"blob": blob}), title="test", port=port, command="go on")
    yield f"http://127.0.0.1:{port}"
    page.close(verbose=False)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Window:
    """A browser window with the page, as a person uses it."""

    def __init__(self, browser: Any, address: str, pixels_a_point: float = 1) -> None:
        self.page = browser.new_context(
            viewport={"width": 1400, "height": 1000}, device_scale_factor=pixels_a_point
        ).new_page()
        self.page.set_default_timeout(25_000)
        self.pixels_a_point = pixels_a_point
        self.asked: set[str] = set()
        self.page.on("request", lambda request: self.asked.add(request.url))
        self.page.goto(address)
        self.said("is open")

    def said(self, words: str) -> str:
        """Wait for these words above the editor."""
        self.page.locator("#said", has_text=words).wait_for()
        return str(self.page.inner_text("#said"))

    def open(self, number: str) -> None:
        self.page.locator(f"#images label:has-text('{number}')").click()
        self.said(f"{number[:4]} is open")
        bright = slices(int(number[:4]) + 1)[-1][:, 18] > 0  # a column that no test paints on
        for _ in range(100):  # the editor loads its pictures after the words are there
            if np.array_equal(self.screen()[:, 18, 0] > 120, bright):
                return
            self.page.wait_for_timeout(200)
        raise AssertionError(f"the editor does not show {number}")

    def choose(self, number: int) -> None:
        """Choose a class by its button."""
        self.page.click(f"#classes button[data-pick='{number}']")
        red, green, blue = TABLE.palette[number]
        self.page.wait_for_selector(f"#editor button[aria-label='Color'][style*='rgb({red}, {green}, {blue})']")

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Points of the window where the centres of the image's pixels are: `(H,)` down, `(W,)` across."""
        box = self.page.locator("#editor canvas").first.bounding_box()
        height, width = SIZE
        zoom = min((box["width"] - 2 * MARGIN) / width, (box["height"] - 2 * MARGIN) / height, LARGEST_ZOOM)
        down = box["y"] + box["height"] / 2 + (np.arange(height) + 0.5 - height / 2) * zoom
        return down, box["x"] + box["width"] / 2 + (np.arange(width) + 0.5 - width / 2) * zoom

    def screen(self) -> np.ndarray:
        """`(H, W, 3)`: what is seen at the centre of each pixel of the image."""
        screen = np.asarray(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")).astype(int)
        down, across = ((points * self.pixels_a_point).astype(int) for points in self.places())
        return screen[np.ix_(down, across)]

    def stroke(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Paint from one pixel (row, column) to another."""
        down, across = self.places()
        self.page.mouse.move(across[start[1]], down[start[0]])
        self.page.mouse.down()
        self.page.mouse.move(across[end[1]], down[end[0]], steps=6)
        self.page.mouse.up()
        self.page.mouse.move(across[0], down[0] - 25)  # the brush's ring is not part of the picture
        self.page.wait_for_timeout(200)

    def shown(self) -> np.ndarray:
        """The label map that a person sees: the class whose colour a pixel has; the slice itself is grey."""
        off = np.abs(self.screen()[:, :, None] - np.array(TABLE.palette[1:])).max(-1)  # (H, W, K - 1)
        return np.where(off.min(-1) < 12, off.argmin(-1) + 1, 0).astype(np.uint8)


def stored(work: AnnotationWork, number: int) -> np.ndarray:
    return np.asarray(Image.open(work.folder / "masks" / f"{work.names[number]}.png"))


@pytest.mark.parametrize(("number", "pixels_a_point"), [(0, 1), (1, 2)])
def test_two_classes_painted_with_the_mouse_are_stored_as_they_are_seen(
    browser: Any, address: str, work: AnnotationWork, number: int, pixels_a_point: float
) -> None:
    window = Window(browser, address, pixels_a_point)
    window.open(f"{number:04d}")
    window.choose(1)
    window.stroke((5, 6), (5, 16))
    window.choose(4)
    window.stroke((3, 10), (18, 12))  # over the first class
    window.stroke((20, 2), (20, 9))
    window.page.click("#editor button[aria-label='Undo']")  # takes the last one back
    window.page.wait_for_timeout(300)
    seen = window.shown()
    assert {1, 4} <= set(np.unique(seen)) <= {0, 1, 4} and seen[5, 15] == 1 and seen[5, 10] == 4 and not seen[20].any()
    window.page.click("#save")
    window.said(f"{number:04d} is saved")
    np.testing.assert_array_equal(stored(work, number), seen)

    window.page.reload()  # nothing asks whether to leave: all is saved
    window.open(f"{number:04d} painted")
    np.testing.assert_array_equal(window.shown(), seen)
    window.page.click("#save")  # untouched, through the browser and back
    window.said(f"{number:04d} is saved")
    np.testing.assert_array_equal(stored(work, number), seen)
    hosts = {url.split("/")[2] for url in window.asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {address.removeprefix("http://")}


def test_two_windows_saving_one_image_lose_nothing(browser: Any, address: str, work: AnnotationWork) -> None:
    first, second = Window(browser, address), Window(browser, address)
    for window, number in ((first, 2), (second, 3)):
        window.open("0002")
        window.choose(number)
        window.stroke((10, 2), (10, 4 * number))
    first.page.click("#save")
    first.said("0002 is saved")
    theirs = stored(work, 2)
    second.page.click("#save")
    second.said("0002 was answered in another window")
    np.testing.assert_array_equal(stored(work, 2), theirs)
    second.page.click("#over")
    second.said("0002 is saved")
    assert set(np.unique(stored(work, 2))) == {0, 3}
    kept = [work.read_kept(path) for path in work.kept(work.names[2])]
    assert any(np.array_equal(label, theirs) for label in kept)


def test_a_pre_label_is_saved_as_it_is_and_unsaved_strokes_are_kept(
    browser: Any, address: str, work: AnnotationWork
) -> None:
    window = Window(browser, address)
    window.open("0003")
    window.choose(2)
    window.stroke((20, 4), (20, 12))
    window.page.click("#prelabel")
    window.said("0003 begins from: blob")
    window.page.wait_for_timeout(1000)
    assert set(np.unique(work.read_kept(work.kept(work.names[3])[0]))) == {0, 2}
    window.page.keyboard.press("s")
    window.said("0003 is saved")
    np.testing.assert_array_equal(stored(work, 3), blob(work.open(work.names[3]).image))
    assert "All are answered. Go on with: go on" in window.page.inner_text("#progress")
