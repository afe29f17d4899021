"""Serving the annotation page, on this machine alone."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import time
from collections.abc import Callable

import gradio as gr

from medseg_gan.annotate.guide import Guide
from medseg_gan.annotate.page import Page
from medseg_gan.annotate.page_parts import CSS, HEAD
from medseg_gan.errors import MedsegError

HOST = "127.0.0.1"
"""This machine only: no other one reaches the page."""


def serve(guide: Guide, *, title: str, port: int, open_browser: bool, say: Callable[[str], None], command: str) -> None:
    """Serve the page until Ctrl-C.

    Args:
        guide: the work and its pre-labels.
        title: of the page.
        port: on 127.0.0.1.
        open_browser: open it in the default browser.
        say: where lines go.
        command: what to type when everything is painted.

    Raises:
        MedsegError: the port is taken.
    """
    page = start(guide, title=title, port=port, open_browser=open_browser, command=command)
    say(f"annotate: http://{HOST}:{port} (this machine only); Ctrl-C ends it; saved masks stay")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass
    finally:
        page.close(verbose=False)
    todo = sum(item.state == "to do" for item in guide.work.items())
    say(f"annotate: {todo} images still to do" if todo else f"annotate: all done; continue with {command}")


def start(guide: Guide, *, title: str, port: int, open_browser: bool = False, command: str = "") -> gr.Blocks:
    """Start serving the page in a thread of its own and return what `close()` ends."""
    _check_port(port)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    temporary = tempfile.TemporaryDirectory(prefix="medseg-gan-annotate-")  # the editor's pictures on their way
    os.environ["GRADIO_TEMP_DIR"] = temporary.name
    page = Page(guide, command)
    blocks = page.build(title)
    blocks.queue(default_concurrency_limit=4)
    blocks.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        inbrowser=open_browser,
        quiet=True,
        ssr_mode=False,
        prevent_thread_lock=True,
        footer_links=[],
        enable_monitoring=False,
        css=CSS,
        head=HEAD,
    )
    blocks.pictures_on_their_way = temporary  # type: ignore[attr-defined]  # removed with the page
    return blocks


def _check_port(port: int) -> None:
    """Refuse a port that is taken or that may not be used, in one line."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one closed a moment ago is free
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            why = "is in use, perhaps by another page" if taken else f"cannot be used ({error})"
            raise MedsegError(f"port {port} {why}; give another with --port, such as {port + 1}") from error
