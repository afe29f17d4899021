"""Parts of the annotation page that need no server: style, keys, class buttons, the plain slice, the times."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from medseg_gan.annotate.times import Spent
from medseg_gan.labels import LabelTable

CSS = """
#images .wrap { flex-direction: column; max-height: 70vh; overflow-y: auto; flex-wrap: nowrap; }
#images label { width: 100%; padding: 2px 8px; }
#said .bad, #training .bad { color: #b3261e; font-weight: 600; }
#classes button { border: 2px solid transparent; border-radius: 6px; padding: 3px 10px; margin: 2px; cursor: pointer; }
#classes button.chosen { border-color: black; }
#editor :has(> .swatch-wrap) { opacity: 0; pointer-events: none; }  /* it would cover the slice */
#plain img { width: 100%; image-rendering: pixelated; }
#times table { width: 100%; font-size: 90%; }
#times td:not(:first-child), #times th:not(:first-child) { text-align: right; }
"""

HEAD = """
<script>
// On screens of two pixels a point the editor draws its layers at twice the size and smooths them back.
Object.defineProperty(window, "devicePixelRatio", { get: () => 1 });

let medsegUnsaved = false;
function medsegSaid(text) { if (/saved|rejected|open/.test(text)) medsegUnsaved = false; }
function medsegTool(name) {
  const button = document.querySelector(`#editor button[aria-label="${name}"]`);
  if (button) button.click();
  return Boolean(button);
}
function medsegSoon(action) { setTimeout(action, 60); }
function medsegPick(number) {  // class number, 0 to erase
  document.querySelectorAll("#classes button").forEach(
    (button) => button.classList.toggle("chosen", Number(button.dataset.pick) === number));
  if (number === 0) return medsegTool("Erase");
  medsegTool("Brush");
  medsegSoon(() => {
    if (!document.querySelector("#editor .color")) medsegTool("Color");
    medsegSoon(() => {
      const swatch = document.querySelectorAll("#editor .color")[number - 1];
      if (swatch) swatch.click();
    });
  });
}
document.addEventListener("click", (event) => {
  const button = event.target.closest && event.target.closest("#classes button");
  if (button) medsegPick(Number(button.dataset.pick));
});
document.addEventListener("pointerdown", (event) => {
  if (event.target.tagName === "CANVAS") medsegUnsaved = true;
}, true);
document.addEventListener("keydown", (event) => {
  if (/INPUT|TEXTAREA/.test(event.target.tagName) && event.target.type !== "radio") return;
  if (event.ctrlKey || event.metaKey) {
    if (event.key === "z") { event.preventDefault(); medsegTool("Undo"); }
    if (event.key === "s") { event.preventDefault(); document.querySelector("#save").click(); }
    return;
  }
  if (/^[0-9]$/.test(event.key)) medsegPick(Number(event.key));
  const buttons = { n: "#next", s: "#save", p: "#prelabel" }, tools = { "+": "Zoom in", "-": "Zoom out", u: "Undo" };
  if (buttons[event.key]) document.querySelector(buttons[event.key]).click();
  if (tools[event.key]) medsegTool(tools[event.key]);
});
window.addEventListener("beforeunload", (event) => { if (medsegUnsaved) event.preventDefault(); });
</script>
"""


def class_buttons(table: LabelTable) -> str:
    """A button for each class in its colour, with the key that chooses it, and one to erase."""
    buttons = ['<button type="button" data-pick="0" title="key 0">0 erase</button>']
    for number, (name, colour) in enumerate(zip(table.classes[1:], table.palette[1:], strict=True), 1):
        ink = "black" if np.dot(colour, (0.299, 0.587, 0.114)) > 140 else "white"
        style = f"background: rgb{colour}; color: {ink}"
        buttons.append(
            f'<button type="button" data-pick="{number}" title="key {number}" style="{style}">'
            f"{number} {escape(name.replace('_', ' '))}</button>"
        )
    return "".join(buttons)


def plain_view(background: np.ndarray) -> str:
    """The slice without labels, `(H, W, 4)`, as an element that needs no further request."""
    file = io.BytesIO()
    Image.fromarray(background[..., 0]).save(file, format="PNG")
    text = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="the slice without labels" src="data:image/png;base64,{text}">'


def times_table(rows: Sequence[Spent]) -> str:
    """Median seconds of an image, by what it began from."""
    if not rows:
        return ""
    body = "".join(
        f"<tr><td>{escape(row.began)}</td><td>{row.images}</td><td>{row.median_seconds:.0f}</td></tr>" for row in rows
    )
    return f"<table><tr><th>Images</th><th>number</th><th>median s</th></tr>{body}</table>"
