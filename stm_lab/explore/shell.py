"""The shell round a figure: controls, one picture that changes in its place, clicks on it and drags over it.

What is shown is a pure function of the controls' values, which `figure` draws as well without any front end. Nothing is
drawn before the explorer is first displayed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets
from matplotlib.figure import Figure

from stm_lab.util.errors import UserError, check_known

_DPI = 100
_VIEW = "application/vnd.jupyter.widget-view+json"


class Picture(anywidget.AnyWidget):
    """An image that tells where it was clicked, as fractions of its width and height from the upper left corner.

    The next picture is decoded before it takes the place of the last one: nothing flickers. `clicked` carries a number
    besides, so that two clicks on one place are two events. `hints` are texts at places, [x, y, text] in the same
    fractions: the one nearest to the pointer, if it is near, is shown beside it, with no word from the kernel.

    If `draggable`, a pointer that is moved while it is down is a drag in place of a click. `dragged` holds where it
    went down, where it is (x, y each), the number of the drag and the number of the event. The next event is sent when
    `answered` has the number of the last one: the kernel is asked for no more pictures than it draws.
    """

    _esm = """
    function render({ model, el }) {
      const image = document.createElement("img");
      image.style.maxWidth = "100%";
      image.draggable = false;
      image.className = "stm-lab-picture";
      let [shown, turn] = [null, 0];
      const show = async () => {
        const mine = ++turn;
        const address = URL.createObjectURL(new Blob([model.get("png")], { type: "image/png" }));
        const next = new Image();
        next.src = address;
        try { await next.decode(); } catch { /* the browser shows what it can */ }
        if (mine !== turn) return URL.revokeObjectURL(address);  // a later picture is there or on its way
        image.src = address;
        image.alt = model.get("alt");
        image.width = model.get("width");
        image.style.cursor = model.get("clickable") ? "crosshair" : "default";
        image.style.touchAction = model.get("draggable") ? "none" : "auto";  // else a finger scrolls the page
        if (shown) URL.revokeObjectURL(shown);
        shown = address;
      };
      const placeOf = (event) => {
        const box = image.getBoundingClientRect();
        return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      };
      let [down, drag, waits] = [null, null, false];
      const queue = [];  // of drags, [from x, from y, x, y, drag]: of each only where it is now
      const send = () => {
        if (waits || !queue.length) return;
        waits = true;
        model.set("dragged", [...queue.shift(), (model.get("dragged")[5] ?? 0) + 1]);
        model.save_changes();
      };
      const onAnswer = () => { waits = false; send(); };
      image.addEventListener("pointerdown", (event) => {
        if (!model.get("draggable") || event.button !== 0) return;
        image.setPointerCapture(event.pointerId);
        [down, drag] = [event, null];
      });
      const follow = (event) => {
        if (!down) return;
        const away = Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY);
        if (drag === null && away < 4) return;  // pixels: a hand that clicks is not quite still
        drag ??= (queue.at(-1)?.[4] ?? model.get("dragged")[4] ?? 0) + 1;
        if (queue.at(-1)?.[4] === drag) queue.pop();
        queue.push([...placeOf(down), ...placeOf(event), drag]);
        send();
      };
      image.addEventListener("pointermove", follow);
      image.addEventListener("pointerup", (event) => { follow(event); down = null; });
      image.addEventListener("pointercancel", () => { down = null; });
      image.addEventListener("click", (event) => {
        if (!model.get("clickable") || drag !== null) return;  // a drag ends with a click as well
        model.set("clicked", [...placeOf(event), (model.get("clicked")[2] ?? 0) + 1]);
        model.save_changes();
      });
      const frame = document.createElement("div");
      frame.style.cssText = "position:relative; display:inline-block; max-width:100%";
      const hint = document.createElement("div");
      hint.className = "stm-lab-hint";
      hint.style.cssText = "position:absolute; display:none; pointer-events:none; white-space:pre; padding:2px 6px;" +
        "font:12px sans-serif; color:#000; background:#fff; border:1px solid #888; border-radius:3px; z-index:9";
      image.addEventListener("pointermove", (event) => {
        const box = image.getBoundingClientRect();
        const [left, top] = [event.clientX - box.left, event.clientY - box.top];
        const away = ([x, y]) => Math.hypot(left - x * box.width, top - y * box.height);
        let [nearest, best] = [null, 14];
        for (const one of model.get("hints")) if (away(one) < best) [nearest, best] = [one, away(one)];
        hint.style.display = nearest ? "block" : "none";
        if (!nearest) return;
        hint.textContent = nearest[2];
        hint.style.top = `${nearest[1] * box.height + 10}px`;
        const isLeft = nearest[0] < 0.6;
        hint.style.left = isLeft ? `${nearest[0] * box.width + 10}px` : "auto";
        hint.style.right = isLeft ? "auto" : `${(1 - nearest[0]) * box.width + 10}px`;
      });
      image.addEventListener("pointerleave", () => { hint.style.display = "none"; });
      model.on("change:png", show);
      model.on("change:answered", onAnswer);
      frame.append(image, hint);
      el.appendChild(frame);
      show();
      return () => {
        turn++;
        model.off("change:png", show);
        model.off("change:answered", onAnswer);
        if (shown) URL.revokeObjectURL(shown);
      };
    }
    export default { render };
    """

    png = traitlets.Bytes(b"").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    width = traitlets.Int(0).tag(sync=True)
    clickable = traitlets.Bool(False).tag(sync=True)
    clicked = traitlets.List([]).tag(sync=True)
    draggable = traitlets.Bool(False).tag(sync=True)
    dragged = traitlets.List([]).tag(sync=True)
    answered = traitlets.Int(0).tag(sync=True)
    hints = traitlets.List([]).tag(sync=True)


class Explorer:
    """A figure of some values that can be changed: by controls, by keyboard, and by a click on the picture.

    In a notebook, the last line of a cell. It gives the widget's view and a still picture of the present state in one
    bundle, so that a front end without widgets, or a file, shows the picture.

    Args:
        draw: a pure function from the controls' values, by name, to a figure (with its alternative text, see
            `figures.style.described`). It should answer within half a second: what takes longer is computed before.
        controls: the widgets by the names of what they set. Sliders send their value when they are let go.
        select: what a click does: called with the number of the panel (axes of the figure, in their order) and the
            place in its coordinates, it returns the values to set, by name; empty where the click says nothing.
        grab: with it, the pointer drags: called as `select` is, with where it went down, it returns the values to set
            first, or None where there is nothing to take hold of. Then `select` is called with each place on the way,
            in the coordinates that the panel had when the drag began, also where the pointer has left the panel.
        hints: what the pointer is told: called with the state as `draw` is, it returns (panel, x, y, text), places in
            the panels' coordinates. Nothing that the controls do not tell as well: not everybody has a pointer.

    Raises:
        UserError: a value that the figure cannot be drawn with is shown below the picture, which stays as it was.
    """

    def __init__(
        self,
        draw: Callable[..., Figure],
        controls: Mapping[str, widgets.Widget],
        *,
        select: Callable[[int, float, float], Mapping[str, Any]] | None = None,
        grab: Callable[[int, float, float], Mapping[str, Any] | None] | None = None,
        hints: Callable[..., Iterable[tuple[int, float, float, str]]] | None = None,
    ):
        self._draw, self._controls, self._select, self._hints = draw, dict(controls), select, hints
        self._grab = grab
        self._drawn: Figure | None = None  # the one in the picture, whose panels a click is looked up in
        self._drag: int | None = None  # the number of the last drag
        self._dragged_in: tuple[Figure, int] | None = None  # the figure and the panel in which it took hold
        self._is_held = False
        self._widget: widgets.Widget | None = None

    @property
    def state(self) -> dict[str, Any]:
        """The controls' present values, by name."""
        return {name: control.value for name, control in self._controls.items()}

    def figure(self, **state: Any) -> Figure:
        """The figure of the present state, or of another: values by the controls' names.

        Raises UserError, naming the nearest, for a name that no control has, and whatever `draw` raises.
        """
        for name in state:
            check_known("control", name, self._controls, "explorer: ")
        return self._draw(**{**self.state, **state})

    def set(self, **state: Any) -> None:
        """Set some controls' values, as a hand would, and draw once. Raises UserError as `figure` does, and for values
        that a control does not take."""
        for name in state:
            check_known("control", name, self._controls, "explorer: ")
        with self._held():
            self._assign(state)

    def _assign(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            try:
                self._controls[name].value = value
            except traitlets.TraitError as error:
                raise UserError(f"explorer: {name} = {value!r}: {error}") from None

    @property
    def widget(self) -> widgets.Widget:
        """Controls, picture and a line for messages, as one widget. Made once."""
        if self._widget is None:
            self._picture = Picture(clickable=self._select is not None, draggable=self._grab is not None)
            self._message = widgets.HTML()
            for control in self._controls.values():
                if control.has_trait("continuous_update"):
                    control.continuous_update = False
                control.style.description_width = "initial"
                control.observe(self._on_change, "value")
            self._picture.observe(self._on_click, "clicked")
            self._picture.observe(self._on_drag, "dragged")
            row = widgets.HBox(list(self._controls.values()), layout=widgets.Layout(flex_flow="row wrap"))
            self._widget = widgets.VBox([row, self._picture, self._message])
            self._show()
        return self._widget

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        view = self.widget._repr_mimebundle_()
        text = self._picture.alt
        bundle = {_VIEW: view[_VIEW], "image/png": self._picture.png, "text/plain": text}
        return bundle, {"image/png": {"alt": text, "width": self._picture.width}}

    @contextmanager
    def _held(self):
        """Controls may change in here; the picture is drawn at the end, once."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            if self._widget is not None:
                self._show()

    @contextmanager
    def quietly(self):
        """Controls may be set in here without a picture: for observers of a control whose own change draws it."""
        was, self._is_held = self._is_held, True
        try:
            yield
        finally:
            self._is_held = was

    def _on_change(self, _: Any) -> None:
        if not self._is_held:
            self._show()

    def _on_click(self, change: Mapping[str, Any]) -> None:
        x, y, _ = change["new"]
        place = _panel_at(self._drawn, x, y)
        if place is None:
            return
        wanted = self._select(*place)
        if wanted:
            self.set(**wanted)

    def _on_drag(self, change: Mapping[str, Any]) -> None:
        *start, x, y, drag, event = change["new"]
        try:
            first = self._taken(drag, *start) if drag != self._drag else {}
            if self._dragged_in is not None:
                with self._held():
                    self._assign(first)
                    self._assign(self._select(self._dragged_in[1], *_place_in(*self._dragged_in, x, y)))
        finally:
            self._picture.answered = event

    def _taken(self, drag: int, x: float, y: float) -> Mapping[str, Any]:
        """A drag begins here: the values to set first. It takes hold of something, or of nothing till it ends."""
        place = _panel_at(self._drawn, x, y)
        first = None if place is None else self._grab(*place)
        self._drag, self._dragged_in = drag, None if first is None else (self._drawn, place[0])
        return first or {}

    def _show(self) -> None:
        try:
            figure = self._draw(**self.state)
        except UserError as error:
            self._message.value = f"<b>{error}</b>"
            return
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=_DPI)  # as large as the figure says: a click is looked up in it
        self._drawn, self._message.value = figure, ""
        if self._hints is not None:
            self._picture.hints = [[*_place_of(figure, *place), text] for *place, text in self._hints(**self.state)]
        self._picture.alt = figure.get_label()
        self._picture.width = round(figure.get_figwidth() * _DPI)
        self._picture.png = file.getvalue()  # last: it is what the front end waits for


def _panel_at(figure: Figure, x: float, y: float) -> tuple[int, float, float] | None:
    """The panel under a point (fractions of width and height, from the upper left) and the place in its coordinates."""
    for number, axes in enumerate(figure.axes):
        if axes.bbox.contains(x * figure.bbox.width, (1 - y) * figure.bbox.height):
            return number, *_place_in(figure, number, x, y)
    return None


def _place_in(figure: Figure, panel: int, x: float, y: float) -> tuple[float, float]:
    """The same point in a panel's coordinates, wherever it lies."""
    across, up = x * figure.bbox.width, (1 - y) * figure.bbox.height
    along, other = figure.axes[panel].transData.inverted().transform((across, up))
    return float(along), float(other)


def _place_of(figure: Figure, panel: int, x: float, y: float) -> tuple[float, float]:
    """The other way round: a place in a panel's coordinates as fractions of the picture."""
    across, up = figure.axes[panel].transData.transform((x, y))
    return float(across / figure.bbox.width), float(1 - up / figure.bbox.height)
