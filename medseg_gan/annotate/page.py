"""The annotation page: a list of images and an editor with one colour per class, served to this machine alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from medseg_gan.annotate.guide import LEAST, Guide
from medseg_gan.annotate.page_parts import class_buttons, plain_view, times_table
from medseg_gan.annotate.strokes import editor_value, image_to_background, layer_to_label, painted_layer
from medseg_gan.annotate.times import NOTHING, read_savings, spent
from medseg_gan.annotate.work import Opened, Overtaken
from medseg_gan.errors import MedsegError

Update = dict[Any, Any]
"""New values by component; those not named stay as they are."""


@dataclass(frozen=True)
class Session:
    """What one browser has open.

    Attributes:
        opened: the image as it was opened or last saved.
        shown: `(H, W)` label map last given to the editor or saved; what the editor shows beyond it is unsaved.
        background: `(H, W, 4)` given to the editor.
        began: what the strokes began from, see `Saving`.
        pre_label: `(H, W)` they began from; None where they did not.
        since: start of the time that the next saving notes.
        kept: how many of the kept strokes were brought back, the newest first.
    """

    opened: Opened
    shown: np.ndarray
    background: np.ndarray
    began: str
    pre_label: np.ndarray | None
    since: float
    kept: int = 0

    @property
    def seconds(self) -> float:
        """Since the image was opened or last saved."""
        return time.monotonic() - self.since


def _told(handler: Callable[..., Update]) -> Callable[..., Update]:
    """Let an error be a line on the page; the strokes stay in the editor."""

    @wraps(handler)
    def call(self: Page, *args: Any) -> Update:
        try:
            return handler(self, *args)
        except Overtaken as error:
            return {self.said: _line(error, bad=True), self.over_button: gr.Button(visible=True)}
        except MedsegError as error:
            return {self.said: _line(error, bad=True)}
        except OSError as error:
            return {self.said: _line(f"{error.filename}: {error.strerror}; the strokes stay in the editor", bad=True)}

    return call


class Page:
    """The page's parts and what its buttons do; one `Session` for each browser.

    Args:
        guide: the work and its pre-labels.
        command: what to type when everything is painted.
    """

    def __init__(self, guide: Guide, command: str) -> None:
        self.guide, self.work, self.command = guide, guide.work, command
        low, high = self.work.window
        self.low, self.high = low, high

    def build(self, title: str) -> gr.Blocks:
        """Lay the page out."""
        table = self.work.table
        height, width = self.work.open(self.work.names[0]).image.shape
        colours = [f"rgb({red}, {green}, {blue})" for red, green, blue in table.palette[1:]]
        middle, full = (self.low + self.high) / 2, self.high - self.low
        with gr.Blocks(title=f"{title}: annotation", analytics_enabled=False, fill_width=True) as blocks:
            self.session = gr.State(None)
            with gr.Row():
                with gr.Column(scale=1, min_width=230):
                    self.progress = gr.HTML(elem_id="progress")
                    self.images = gr.Radio([], label="Images, those to do first", elem_id="images")
                with gr.Column(scale=4, min_width=560):
                    self.said = gr.HTML(elem_id="said")
                    gr.HTML(class_buttons(table), elem_id="classes")
                    self.editor = gr.ImageEditor(
                        elem_id="editor",
                        type="numpy",
                        format="png",  # the default is lossy
                        image_mode="RGBA",
                        canvas_size=(width, height),
                        fixed_canvas=True,
                        transforms=(),
                        sources=(),
                        buttons=[],
                        height=640,
                        show_label=False,
                        brush=gr.Brush(
                            default_size=max(1, width // 48),
                            colors=list(colours),
                            default_color=colours[0],
                            color_mode="fixed",
                        ),
                        eraser=gr.Eraser(default_size=max(1, width // 32)),
                        layers=gr.LayerOptions(allow_additional_layers=False, layers=["labels"]),
                    )
                    with gr.Row():
                        self.save_button = gr.Button("Save", elem_id="save", variant="primary")
                        self.next_button = gr.Button("Save and next", elem_id="next", variant="primary")
                        self.reject_button = gr.Button("Reject: no plausible anatomy", elem_id="reject")
                        self.again_button = gr.Button("Open again", elem_id="again")
                        self.over_button = gr.Button("Save over it", elem_id="over", variant="stop", visible=False)
                with gr.Column(scale=3, min_width=300):
                    self.plain = gr.HTML(elem_id="plain")
                    self.level = gr.Slider(self.low, self.high, middle, step=10, label="Level, HU", elem_id="level")
                    self.width = gr.Slider(50, full, full, step=10, label="Width, HU", elem_id="width")
                    self.kind = gr.Dropdown(self.guide.kinds, label="Pre-label to correct", elem_id="kind")
                    with gr.Row():
                        self.pre_button = gr.Button("Take the pre-label", elem_id="prelabel")
                        self.kept_button = gr.Button("Bring back kept strokes", elem_id="kept")
                    self.train_button = gr.Button(
                        f"Train an interpreter from what is painted ({LEAST} images or more)", elem_id="train"
                    )
                    self.training = gr.HTML(elem_id="training")
                    self.times = gr.HTML(elem_id="times")
            self.timer = gr.Timer(2.0, active=False)
            self._connect(blocks)
        return blocks

    def _connect(self, blocks: gr.Blocks) -> None:
        """Say which function each button calls."""
        view = [self.level, self.width]
        outputs = [self.session, self.editor, self.images, self.said, self.progress, self.plain, self.kind]
        outputs += [self.over_button, self.reject_button, self.training, self.times, self.timer]
        have = [self.session, self.editor]

        def on(event: Any, handler: Callable[..., Update], inputs: list[Any]) -> None:
            event(handler, inputs, outputs, show_progress="hidden", api_visibility="private")

        on(blocks.load, self.first, view)
        on(self.images.input, self.choose, [*have, self.images, *view])
        on(self.save_button.click, self.save, have)
        on(self.next_button.click, self.save_and_next, [*have, *view])
        on(self.over_button.click, self.save_over, have)
        on(self.reject_button.click, self.reject, [*have, *view])
        on(self.again_button.click, self.again, [*have, *view])
        on(self.pre_button.click, self.pre_label, [*have, self.kind, *view])
        on(self.kept_button.click, self.bring_back, [*have, *view])
        on(self.train_button.click, self.train, [])
        on(self.timer.tick, self.tick, [self.session])
        for slider in view:
            on(slider.release, self.look, [*have, *view])
        self.said.change(None, self.said, None, js="medsegSaid")

    @_told
    def first(self, level: float, width: float) -> Update:
        """Open the first image to do; what is saved is all there, so this is how work is resumed."""
        return self._open(self.guide.order(self.work.items())[0].name, level, width)

    @_told
    def choose(self, session: Session | None, value: Any, name: str, level: float, width: float) -> Update:
        """Open another image; strokes that were not saved are kept."""
        return self._open(name, level, width, self._keep_unsaved(session, value))

    @_told
    def save(self, session: Session | None, value: Any, over: bool = False) -> Update:
        """Save the strokes; the editor stays as it is, with its undo and its zoom."""
        session, layer = self._strokes(session, value)
        try:
            label = layer_to_label(layer, self.work.table)
        except MedsegError as error:
            path = self.work.keep_layer(session.opened.name, layer)
            raise MedsegError(f"{error}; they are kept as they are in {path.parent.name}/{path.name}") from error
        seconds = session.seconds
        now = self.work.save(
            session.opened,
            label,
            seconds=seconds,
            began=session.began,
            pre_label=session.pre_label,
            over=over,
        )
        session = replace(
            session, opened=now, shown=label, began="the stored mask", pre_label=None, since=time.monotonic()
        )
        return self._listing(session) | {
            self.session: session,
            self.said: _line(f"{now.name[:4]} is saved ({seconds:.0f} s)"),
            self.over_button: gr.Button(visible=False),
        }

    @_told
    def save_and_next(self, session: Session | None, value: Any, level: float, width: float) -> Update:
        """Save, then open the first image to do."""
        saved = self.save(session, value)
        return self._go_on(saved, level, width) if self.session in saved else saved

    @_told
    def save_over(self, session: Session | None, value: Any) -> Update:
        """Save over what another window saved meanwhile; theirs is kept."""
        return self.save(session, value, True)

    @_told
    def reject(self, session: Session | None, value: Any, level: float, width: float) -> Update:
        """Reject the image and open the next one, or take its rejection back."""
        session = _known(session)
        if session.opened.state == "rejected":
            self.work.take_back(session.opened)
            return self._open(session.opened.name, level, width, "the rejection is taken back")
        kept = self._keep_unsaved(session, value)
        now = self.work.reject(session.opened, seconds=session.seconds)
        said = f"{now.name[:4]} is rejected" + (f"; {kept}" if kept else "")
        return self._go_on({self.said: _line(said)}, level, width)

    @_told
    def again(self, session: Session | None, value: Any, level: float, width: float) -> Update:
        """Open the image as it is stored; strokes that were not saved are kept."""
        kept = self._keep_unsaved(session, value)
        return self._open(_known(session).opened.name, level, width, kept)

    @_told
    def pre_label(self, session: Session | None, value: Any, kind: str | None, level: float, width: float) -> Update:
        """Give the editor a label map to correct; strokes that were not saved are kept."""
        if not kind:
            raise MedsegError("there is no pre-label yet; paint some images, then train an interpreter")
        session = _known(session)
        kept = self._keep_unsaved(session, value)
        label = self.guide.pre_label(session.opened.name, kind)
        session = replace(session, began=kind, pre_label=label)
        said = f"{session.opened.name[:4]} begins from: {kind}. Correct it, then save" + (f"; {kept}" if kept else "")
        return self._show(session, label, level, width) | {self.said: _line(said)}

    @_told
    def bring_back(self, session: Session | None, value: Any, level: float, width: float) -> Update:
        """Bring back kept strokes, the newest first, and older ones each time."""
        session = _known(session)
        before = self.work.kept(session.opened.name)
        kept = self._keep_unsaved(session, value) if session.kept == 0 else ""
        if not before:
            raise MedsegError(f"no strokes of {session.opened.name[:4]} are kept")
        path = before[-1 - session.kept % len(before)]
        session = replace(session, began="kept strokes", pre_label=None, kept=session.kept + 1)
        said = f"these are the strokes of kept/{path.name}; they are not saved yet" + (f"; {kept}" if kept else "")
        return self._show(session, self.work.read_kept(path), level, width) | {self.said: _line(said)}

    @_told
    def look(self, session: Session | None, value: Any, level: float, width: float) -> Update:
        """Change the window of the display; the strokes stay as they are."""
        session, layer = self._strokes(session, value)
        background = image_to_background(session.opened.image, level, width)
        return {
            self.session: replace(session, background=background),
            self.editor: {"background": background, "layers": [layer], "composite": None},
            self.plain: plain_view(background),
        }

    @_told
    def train(self) -> Update:
        """Start training an interpreter in the background."""
        self.guide.start()
        return {self.training: _line(self.guide.said), self.timer: gr.Timer(active=True)}

    @_told
    def tick(self, session: Session | None) -> Update:
        """Say how far the training is; once it is done, offer it and put the images in order."""
        told: Update = {self.training: _line(self.guide.said, bad="failed" in self.guide.said)}
        if self.guide.running:
            return told
        return self._listing(session) | told | {self.timer: gr.Timer(active=False)}

    def _open(self, name: str, level: float, width: float, said: str = "") -> Update:
        opened = self.work.open(name)
        began = "the stored mask" if opened.state == "painted" else NOTHING
        session = Session(opened, opened.label, np.empty(0), began, None, time.monotonic())
        note = next((item.note for item in self.work.items() if item.name == name), "")
        words = f"{name[:4]} is open" + "".join(f"; {text}" for text in (said, note) if text)
        if kept := len(self.work.kept(name)):
            words += f"; {kept} kept strokes can be brought back"
        return self._show(session, opened.label, level, width) | {
            self.said: _line(words, bad=bool(note)),
            self.over_button: gr.Button(visible=False),
        }

    def _show(self, session: Session, label: np.ndarray, level: float, width: float) -> Update:
        value = editor_value(session.opened.image, label, self.work.table, level, width)
        session = replace(session, shown=label, background=value["background"])
        return self._listing(session) | {
            self.session: session,
            self.editor: value,
            self.plain: plain_view(value["background"]),
        }

    def _go_on(self, done: Update, level: float, width: float) -> Update:
        """Open the next image to do; after the last one say how to go on."""
        first = self.guide.order(self.work.items())[0]
        opened = self._open(first.name, level, width)
        if first.state == "to do":
            said = f"{done[self.said]}{opened[self.said]}"
        else:
            said = f"{done[self.said]}{_line(f'All images are answered. Go on with: {self.command}')}"
        return opened | {self.said: said}

    def _listing(self, session: Session | None) -> Update:
        """All that is said of the images besides the one that is open."""
        items, scores = self.guide.order(self.work.items()), self.guide.scores()
        choices = []
        for item in items:
            uncertain = (
                f", uncertainty {scores[item.name]:.3f}" if item.name in scores and item.state == "to do" else ""
            )
            choices.append((f"{item.name[:4]} {item.state}{uncertain}{' (!)' if item.note else ''}", item.name))
        count = {state: sum(item.state == state for item in items) for state in ("to do", "painted", "rejected")}
        total = len(items) - count["rejected"]
        words = f"{count['painted']} of {total} painted, {count['rejected']} rejected, {count['to do']} to do."
        if not count["to do"]:
            words += f" All are answered. Go on with: {self.command}"
        kinds = self.guide.kinds
        rejected = session is not None and session.opened.state == "rejected"
        return {
            self.images: gr.Radio(choices=choices, value=session.opened.name if session else None),
            self.progress: _line(words),
            self.kind: gr.Dropdown(choices=kinds, value=kinds[0] if kinds else None),
            self.reject_button: "Take the rejection back" if rejected else "Reject: no plausible anatomy",
            self.training: _line(self.guide.said),
            self.times: times_table(spent(read_savings(self.work.folder))),
        }

    def _strokes(self, session: Session | None, value: Any) -> tuple[Session, np.ndarray]:
        session = _known(session)
        return session, painted_layer(value, session.background)

    def _keep_unsaved(self, session: Session | None, value: Any) -> str:
        """Keep strokes that nobody saved before the editor shows something else; what is said of it."""
        if session is None:
            return ""
        name = session.opened.name
        try:
            layer = painted_layer(value, session.background)
        except MedsegError:
            return ""  # the editor was still loading: there are no strokes yet
        try:
            label = layer_to_label(layer, self.work.table)
        except MedsegError:
            path = self.work.keep_layer(name, layer)
        else:
            if np.array_equal(label, session.shown) or not label.any():
                return ""
            path = self.work.keep(name, label)
        return f"strokes of {name[:4]} that were not saved are in {path.parent.name}/{path.name}"


def _known(session: Session | None) -> Session:
    if session is None:
        raise MedsegError("the server was restarted after this page was opened; reload the page")
    return session


def _line(text: object, bad: bool = False) -> str:
    """A line of HTML."""
    return f'<p class="{"bad" if bad else "good"}">{escape(str(text))}</p>' if str(text) else ""
