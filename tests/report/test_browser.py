"""The page in a real browser, where there is one: it opens without an error and without asking the network for anything."""

import shutil
import subprocess

import pytest

from recbole_farzi.report import render

from .invented import invented, invented_rows

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs Chromium")]


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_without_errors_and_requests(tmp_path, width):
    render(*_with_rows(tmp_path))
    # Every figure is drawn by then, or the title keeps its old text; a script error is on standard error.
    done = subprocess.run(
        [
            BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--enable-logging=stderr", "--v=0", f"--window-size={width},2000",
            "--virtual-time-budget=20000", f"--user-data-dir={tmp_path / 'profile'}",
            f"--log-net-log={tmp_path / 'net.json'}", "--dump-dom", (tmp_path / "page" / "report.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    places = done.stdout.count('class="plot')
    assert places > 10 and done.stdout.count("main-svg") >= places
    log = (tmp_path / "net.json").read_text(encoding="utf-8")
    asked = [part.split('"')[0] for part in log.split('"url":"')[1:]]
    assert not [url for url in asked if url.startswith(("http:", "https:", "ws:")) and not _of_the_browser(url)], asked


def _with_rows(tmp_path):
    results, rows = invented_rows(invented())
    return results, tmp_path / "page", rows


def _of_the_browser(url):
    """Chromium itself looks for updates and for components, whatever page is open."""
    return any(host in url for host in ("google.com", "googleapis.com", "gvt1.com", "gstatic.com"))
