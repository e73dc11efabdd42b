"""The shell around a figure: controls, one picture that is redrawn in place, clicks on it and drags over it.

A figure is a pure function of the controls' values, so that `figure` draws it without a front end as well. Nothing is
drawn before the explorer is first displayed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from numbers import Real
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets
from matplotlib.figure import Figure

from stm_lab.util.errors import UserError, check_known

_DPI = 100
_SLIDERS = (widgets.IntSlider, widgets.FloatSlider)
_VIEW = "application/vnd.jupyter.widget-view+json"

State = Mapping[str, Any]  # the controls' values by name


class Picture(anywidget.AnyWidget):
    """An image that reports clicks and drags. Places are fractions of its width and height from the upper left corner.

    clicked: [x, y, number of the click]. dragged: [start x, start y, x, y, number of the drag, number of the event];
    the next event is sent once `answered` has the number of the last one. hints: [x, y, text]; the text nearest to the
    pointer is shown beside it, without the kernel.
    """

    _esm = Path(__file__).with_name("picture.js")

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
    """A figure of values that can be changed: by controls, by the keyboard, and by a click on the picture.

    As the last line of a cell it gives the widget and a still picture of the present state in one bundle, so that a
    front end without widgets, or a file, shows the picture. A `UserError` of `draw` is shown below the picture, which
    stays as it was.

    Args:
        draw: a pure function from the controls' values, by name, to a figure with its alternative text (see
            `figures.style.described`). It should answer within half a second.
        controls: widgets by the names of the values they set. A widget without a description is called by its name.
        select: what a click sets: (number of the panel, x, y, state) -> values by name. x and y are in the panel's
            coordinates; panels are the axes of the figure in their order.
        grab: makes the picture draggable: called as `select` is, with the place where the pointer went down, it returns
            the values to set first, or None if there is nothing to take hold of. `select` is then called with each
            place on the way, also outside of the panel, in the coordinates that the panel had when the drag began.
        follow: (name of a control, state) -> values of other controls that follow from its new value.
        hints: state -> (panel, x, y, text), shown beside the pointer. They may tell nothing that the controls do not.
    """

    def __init__(
        self,
        draw: Callable[..., Figure],
        controls: Mapping[str, widgets.Widget],
        *,
        select: Callable[[int, float, float, State], State] | None = None,
        grab: Callable[[int, float, float, State], State | None] | None = None,
        follow: Callable[[str, State], State] | None = None,
        hints: Callable[[State], Iterable[tuple[int, float, float, str]]] | None = None,
    ):
        self._draw, self._controls = draw, dict(controls)
        self._select, self._grab, self._follow, self._hints = select, grab, follow, hints
        self._drawn: Figure | None = None  # the figure in the picture, in whose panels a click is looked up
        self._drag: int | None = None  # the number of the last drag
        self._dragged_in: tuple[Figure, int] | None = None  # the figure and the panel in which it began
        self._is_held = False
        self._widget: widgets.Widget | None = None

    @property
    def state(self) -> dict[str, Any]:
        """The controls' present values, by name."""
        return {name: control.value for name, control in self._controls.items()}

    def figure(self, **state: Any) -> Figure:
        """The figure of the present state, or of another one: values by the controls' names.

        Raises UserError for an unknown name, a number that a slider does not have, and whatever `draw` refuses.
        """
        return self._draw(**self._after(state))

    def set(self, **state: Any) -> None:
        """Set controls as a hand would, and draw once. Raises UserError for names and values that no control has."""
        wanted = self._after(state)
        self._is_held = True  # until all are set there is nothing to draw
        try:
            for name, value in wanted.items():
                self._controls[name].value = value
        except traitlets.TraitError as error:
            raise UserError(f"explorer: {name} = {value!r}: {error}") from None
        finally:
            self._is_held = False
        if self._widget is not None:
            self._show()

    def click(self, panel: int, x: float, y: float) -> None:
        """Do what a click does at a place of a panel, in its coordinates."""
        if self._select is not None and (wanted := self._select(panel, x, y, self.state)):
            self.set(**wanted)

    def _after(self, given: State) -> dict[str, Any]:
        """The state after some values were set, one after the other in the controls' order."""
        state = self.state
        for name, value in given.items():
            check_known("control", name, self._controls, "explorer: ")
            control = self._controls[name]
            if isinstance(control, _SLIDERS) and isinstance(value, Real) and not control.min <= value <= control.max:
                raise UserError(f"explorer: {name}={value} must be {control.min:g} to {control.max:g}")  # it would clip
        for name in self._controls:
            if name in given:
                state[name] = given[name]
                if self._follow is not None:
                    with suppress(UserError):  # `draw` refuses the same values
                        state |= self._follow(name, state)
        return state

    @property
    def widget(self) -> widgets.Widget:
        """Controls, picture and a line for messages, as one widget, which is made once."""
        if self._widget is None:
            self._picture = Picture(clickable=self._select is not None, draggable=self._grab is not None)
            self._message = widgets.HTML()
            for name, control in self._controls.items():
                control.description = control.description or name
                control.style.description_width = "initial"
                if control.has_trait("continuous_update"):
                    control.continuous_update = False
                control.observe(lambda change, name=name: self._on_change(name, change["new"]), "value")
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

    def _on_change(self, name: str, value: Any) -> None:
        if not self._is_held:
            self.set(**{name: value})

    def _on_click(self, change: Mapping[str, Any]) -> None:
        x, y, _ = change["new"]
        if place := _panel_at(self._drawn, x, y):
            self.click(*place)

    def _on_drag(self, change: Mapping[str, Any]) -> None:
        *start, x, y, drag, event = change["new"]
        try:
            first = self._begin(drag, *start) if drag != self._drag else {}
            if self._dragged_in is not None:
                figure, panel = self._dragged_in
                wanted = self._select(panel, *_place_in(figure, panel, x, y), self._after(first))
                self.set(**{**first, **wanted})
        finally:
            self._picture.answered = event

    def _begin(self, drag: int, x: float, y: float) -> State:
        """Begin a drag; return the values to set first. Until it ends it has hold of something or of nothing."""
        place = _panel_at(self._drawn, x, y)
        first = self._grab(*place, self.state) if place else None
        self._drag, self._dragged_in = drag, None if first is None else (self._drawn, place[0])
        return first or {}

    def _show(self) -> None:
        try:
            figure = self._draw(**self.state)
        except UserError as error:
            self._message.value = f"<b>{error}</b>"
            return
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=_DPI)  # the figure keeps its size: clicks are looked up in it
        self._drawn, self._message.value = figure, ""
        if self._hints is not None:
            self._picture.hints = [[*_place_of(figure, *place), text] for *place, text in self._hints(self.state)]
        self._picture.alt = figure.get_label()
        self._picture.width = round(figure.get_figwidth() * _DPI)
        self._picture.png = file.getvalue()  # last, because the front end waits for it


def _panel_at(figure: Figure, x: float, y: float) -> tuple[int, float, float] | None:
    """The panel under a point (fractions of width and height, from the upper left) and the place in its coordinates."""
    for number, axes in enumerate(figure.axes):
        if axes.bbox.contains(x * figure.bbox.width, (1 - y) * figure.bbox.height):
            return number, *_place_in(figure, number, x, y)
    return None


def _place_in(figure: Figure, panel: int, x: float, y: float) -> tuple[float, float]:
    """A point in the coordinates of a panel, inside of the panel or not."""
    across, up = x * figure.bbox.width, (1 - y) * figure.bbox.height
    along, other = figure.axes[panel].transData.inverted().transform((across, up))
    return float(along), float(other)


def _place_of(figure: Figure, panel: int, x: float, y: float) -> tuple[float, float]:
    """The inverse: a place in a panel's coordinates as fractions of the picture."""
    across, up = figure.axes[panel].transData.transform((x, y))
    return float(across / figure.bbox.width), float(1 - up / figure.bbox.height)
