"""A notebook in a browser: run all of it, look at its outputs, use its explorers."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

from PIL import Image

RUN = 240_000  # milliseconds for all cells of a notebook, on a busy machine
ANSWER = 20_000  # for an answer of an explorer; test_explore_time.py measures how fast it is
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}


class Notebook:
    """One open notebook."""

    def __init__(self, page, name: str):
        self.page, self.name = page, name
        self.complaints: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))

    def _on_console(self, message) -> None:
        """Errors and warnings, all of them: JupyterLab's own page, as the server is set up here, has none."""
        if message.type in ("error", "warning"):
            self.complaints.append(f"console {message.type}: {message.text}")

    def open(self, address: str, token: str) -> None:
        self.page.goto(f"{address}/lab/tree/{self.name}.ipynb?token={token}&reset")
        self.page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.content?.model?.cells?.length > 0")
        self.page.evaluate(
            """async () => {
                const app = window.jupyterapp, notebook = app.shell.currentWidget;
                await notebook.revealed;
                await notebook.sessionContext.ready;
                // draw every cell, also those that are not on the screen
                notebook.content.notebookConfig = { ...notebook.content.notebookConfig, windowingMode: "none" };
                app.shell.collapseLeft();
            }"""
        )

    def themes(self) -> list[str]:
        """Both themes, the present one first."""
        is_light = self.page.evaluate("() => document.body.dataset.jpThemeLight === 'true'")
        return sorted(THEMES, reverse=is_light)

    def turn(self, theme: str) -> None:
        """Change JupyterLab's theme, which takes a second or so, unless it is the present one."""
        if theme == self.themes()[0]:
            return
        self.page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", THEMES[theme]
        )
        self.page.wait_for_function(
            "light => document.body.dataset.jpThemeLight === light", arg=str(theme == "light").lower()
        )

    def close(self) -> None:
        """Stop the kernel, which would keep its memory, and close the page."""
        self.page.evaluate("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.shutdown()")
        self.page.close()

    def run_all(self) -> None:
        """Run all cells; `problems` tells whether one failed."""
        self.page.set_default_timeout(RUN)
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        self.page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
        )
        self.page.set_default_timeout(ANSWER)

    def problems(self) -> list[str]:
        """Cells that failed, warned or were not run, and complaints of the browser."""
        cells = self.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells")
        found = list(self.complaints)
        for number, cell in enumerate(cells):
            if cell["cell_type"] != "code" or not "".join(cell["source"]).strip():
                continue
            if cell["execution_count"] is None:
                found.append(f"cell {number} was not run")
            for output in cell["outputs"]:
                if output["output_type"] == "error":
                    found.append(f"cell {number}: {output['ename']}: {output['evalue']}")
                if output.get("name") == "stderr":
                    found.append(f"cell {number} warns: {''.join(output['text'])[:300]}")
        return found

    def kinds_shown(self, tag: str) -> set[str]:
        """The MIME types of what the cells with a tag show."""
        cells = self.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells")
        tagged = (cell for cell in cells if tag in cell["metadata"].get("tags", []))
        return {kind for cell in tagged for output in cell["outputs"] for kind in output.get("data", {})}

    def stored_widgets(self) -> bool:
        """Whether the file that saving writes would hold the state of widgets."""
        return self.page.evaluate(
            "() => 'widgets' in window.jupyterapp.shell.currentWidget.content.model.toJSON().metadata"
        )

    def explorers(self) -> list[Explorer]:
        pictures = self.page.locator("img.stm-lab-picture")
        return [Explorer(self.page, pictures.nth(number)) for number in range(pictures.count())]


class Explorer:
    """An explorer: its picture, and the controls above it."""

    def __init__(self, page, picture):
        self.page, self.picture = page, picture
        self.box = picture.locator("xpath=ancestor::*[contains(@class, 'widget-vbox')][1]")
        picture.scroll_into_view_if_needed()

    def _source(self) -> str:
        return self.picture.get_attribute("src")

    def is_seen(self) -> bool:
        """Whether the picture is complete and has an alternative text."""
        size = self.picture.evaluate("image => [image.naturalWidth, image.naturalHeight, image.complete]")
        return size[2] and min(size[:2]) > 50 and bool(self.picture.get_attribute("alt"))

    def moves_by_keyboard(self) -> bool:
        """Whether some control, reached by focus and moved by arrow keys, changes the picture."""
        keys_of = {
            ".noUi-handle": "ArrowRight ArrowUp ArrowLeft",
            "input[type=checkbox]": "Space",
            "select": "ArrowDown ArrowUp",  # last: a browser without a window may not answer
        }
        for selector, keys in keys_of.items():
            handles = self.box.locator(selector)
            for number in range(handles.count()):
                handles.nth(number).focus()
                for key in keys.split():
                    if self._changes_soon(lambda key=key: self.page.keyboard.press(key)):
                        return True
        return False

    def _changes_soon(self, act) -> bool:
        """Whether the picture changes soon after `act`, which may do nothing, such as a key at the end of a slider."""
        before = self._source()
        act()
        for _ in range(40):
            if self._source() != before:
                return True
            self.page.wait_for_timeout(50)
        return False

    @property
    def is_clickable(self) -> bool:
        return self.picture.evaluate("image => image.style.cursor") == "crosshair"

    def answers_clicks(self) -> bool:
        """Whether a click at one of some places changes the picture; not every place lies in a panel."""
        size = self.picture.bounding_box()
        for across, down in ((0.2, 0.4), (0.35, 0.6), (0.6, 0.35), (0.8, 0.7), (0.15, 0.75), (0.5, 0.5), (0.05, 0.6)):
            place = {"x": across * size["width"], "y": down * size["height"]}
            if self._changes_soon(lambda place=place: self.picture.click(position=place)):
                return True
        return False

    @property
    def is_draggable(self) -> bool:
        return self.picture.evaluate("image => image.style.touchAction") == "none"

    def values(self) -> list[str]:
        """The sliders' numbers and the fields' texts."""
        numbers = self.box.locator(".widget-readout").all_inner_texts()
        fields = self.box.locator("textarea")
        return numbers + [fields.nth(number).input_value() for number in range(fields.count())]

    def answers_drags(self, start: tuple[float, float], end: tuple[float, float]) -> bool:
        """Whether the controls' values change while the pointer is held, and again until it is let go, and then stay.

        From one place to another, as fractions of the picture's width and height.
        """
        box = self.picture.bounding_box()
        seen = [self.values()]
        half = tuple((one + other) / 2 for one, other in zip(start, end, strict=True))
        for number, (across, down) in enumerate((start, half, end)):
            place = box["x"] + across * box["width"], box["y"] + down * box["height"]
            self.page.mouse.move(*place, steps=5)
            if number == 0:
                self.page.mouse.down()
            elif not self._values_leave(seen[-1]):
                self.page.mouse.up()
                return False
            seen.append(self.values())
        self.page.mouse.up()
        last = self._settled()
        self.page.mouse.move(box["x"] + 5, box["y"] + 5, steps=5)  # the pointer is up
        return self._settled() == last

    def _values_leave(self, before: list[str]) -> bool:
        deadline = time.monotonic() + ANSWER / 1000
        while self.values() == before:
            if time.monotonic() > deadline:
                return False
            self.page.wait_for_timeout(50)
        self._settled()
        return True

    def _settled(self) -> list[str]:
        """The values when they have been the same for a second."""
        now, since = self.values(), time.monotonic()
        while time.monotonic() - since < 1:
            self.page.wait_for_timeout(100)
            if self.values() != now:
                now, since = self.values(), time.monotonic()
        return now

    def keep(self, name: str) -> None:
        """Store a screenshot as STM_LAB_SCREENSHOTS/name.webp, if that folder is set."""
        folder = os.environ.get("STM_LAB_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            store(self.box.screenshot(), Path(folder) / f"{name}.webp")


def store(screenshot: bytes, path: Path) -> None:
    """Write a screenshot as it is shipped: every pixel as it was, in a third of a PNG's bytes.

    A palette would be smaller still, but colours of few pixels, such as two mixers' dots, become one in it.
    """
    with Image.open(io.BytesIO(screenshot)) as image:
        image.convert("RGB").save(path, lossless=True, quality=100, method=6)
