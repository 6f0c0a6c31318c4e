"""How quick the explorer is, in the kernel alone and as seen in a browser; prints a table.

    python -m tests.benchmarks.explorer_speed

60 runs × 1,000 steps with rows as wide as real ones; a step of 131,072 tokens; a step of 1,000,000 tokens. The browser
is headless Chromium on a real JupyterLab: times run from the click or key to the frame in which the page shows the
answer.
"""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import sync_playwright

from tests.browser.conftest import CHROMIUM, click_point
from tests.browser.jupyterlab import jupyterlab, open_in_lab, settled
from tests.synthetic import metrics_row, write_run
from workbench.store import open_run

RUNS, STEPS = 60, 1000


def many_runs(root: Path) -> None:
    """60 runs of 1,000 steps, each row as wide as a real one."""
    rng = np.random.default_rng(0)
    for number in range(RUNS):
        folder = write_run(root / f"speed-{number:08x}", seed=number)
        for path in (folder / "rollouts").iterdir():  # kept steps 8, 16, … 40 become 200, 400, … 1,000
            path.rename(path.with_name(f"{int(path.name[:6]) * STEPS // 40:06d}{path.name[6:]}"))
        config = (folder / "config.yaml").read_text().replace("seed: 0", f"seed: {number}")
        (folder / "config.yaml").write_text(config)
        extra = {f"measure/{i}": 0.123456 for i in range(140)}
        rows = pd.DataFrame([metrics_row(step, STEPS, rng) | extra for step in range(1, STEPS + 1)])
        rows.to_json(folder / "metrics.jsonl", orient="records", lines=True)


def large_step(folder: Path, tokens: int, length: int) -> None:
    """A run of one kept step of this many tokens, every column the lab reads recorded."""
    rng, responses = np.random.default_rng(0), tokens // length
    write_run(folder, steps=8)
    for path in (folder / "rollouts").iterdir():
        path.unlink()
    group = np.arange(responses) // 8
    advantage = rng.choice([-0.6, 1.2], responses).astype("f4")
    sequences = pd.DataFrame(
        {"prompt": group, "group": group, "sample": np.arange(responses) % 8, "length": length,
         "reward": (advantage > 0).astype("f4"), "correct": advantage > 0, "advantage": advantage,
         "temperature": np.float32(1), "finished": True,
         "prompt_text": [f"prompt {g}" for g in group], "text": "x" * length}
    )  # fmt: skip
    count = responses * length
    logp = -rng.gamma(0.5, 0.6, count).astype("f4")
    entropy = rng.gamma(0.6, 0.6, count).astype("f4")
    moved = (logp + 0.1 * rng.standard_normal(count)).astype("f4")
    table = pd.DataFrame(
        {"sequence": np.repeat(np.arange(responses), length), "position": np.tile(np.arange(length), responses),
         "token": rng.integers(0, 5000, count), "piece": rng.choice([f" w{i}" for i in range(5000)], count),
         "rollout_logp": logp, "old_logp": logp, "logp": moved, "ratio": np.exp(moved - logp), "entropy": entropy,
         "current_entropy": entropy, "entropy_after": entropy * np.float32(0.99), "logp_after": moved,
         "expected_discriminator": entropy * np.float32(0.1), "advantage": np.repeat(advantage, length),
         "clip_low": np.float32(0.2), "clip_high": np.float32(0.2), "weight": np.float32(1)}
    )  # fmt: skip
    for rank in (1, 2, 3):
        table[f"top{rank}_token"] = rng.integers(0, 5000, count)
        table[f"top{rank}_piece"] = rng.choice([f" w{i}" for i in range(5000)], count)
        table[f"top{rank}_logp"] = logp - np.float32(rank)
    sequences.to_parquet(folder / "rollouts" / "000008.sequences.parquet")
    table.to_parquet(folder / "rollouts" / "000008.tokens.parquet")


def timed(action, repeats: int = 5) -> float:
    """Median seconds of `action()`."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def kernel_times(root: Path) -> list[tuple[str, float]]:
    """(action, seconds) without a browser."""
    from workbench.widgets.explorer import Explorer
    from workbench.widgets.token_view import TokenView

    Explorer(root / "warm")  # imports
    rows = [(f"open {RUNS} runs × {STEPS} steps", timed(lambda: Explorer(root / "many"), 3))]
    explorer = Explorer(root / "lab")
    rows.append(("read a step of 131,072 tokens for what-if", timed(lambda: choose(explorer, "What-if"), 1)))
    view = explorer._views["What-if"]
    values = iter(np.linspace(0.3, 0.0, 50))
    move = timed(lambda: setattr(view.clip_high, "value", next(values)))
    rows.append(("what-if, 131,072 tokens: one move", move))
    before = psutil.Process().memory_info().rss
    million = open_run(root / "million" / "million-0000abcd")
    held = []
    rows.append(("open a step of 1,000,000 tokens", timed(lambda: held.append(TokenView(million)), 1)))
    offsets = iter(range(4, 4000, 4))
    rows.append(("its next page", timed(lambda: setattr(held[0], "request", {"offset": next(offsets)}))))
    rows.append(("search in it", timed(lambda: setattr(held[0], "request", {"search": f"prompt {next(offsets)}"}))))
    rows.append(("memory it takes, MiB", (psutil.Process().memory_info().rss - before) / 2**20))
    return rows


def choose(explorer, title: str) -> None:
    explorer.view_choice.value = title


WATCH = """([condition, action]) => new Promise((done, failed) => {
    const met = new Function("return " + condition), asked = performance.now();
    let began = null;
    const begin = () => { began ??= performance.now(); };
    for (const kind of ["mousedown", "keydown"]) addEventListener(kind, begin, { capture: true, once: true });
    if (action) { begin(); new Function(action)(); }
    const look = () => {
        if (performance.now() - asked > 120000) return failed(new Error("never: " + condition));
        if (began == null || !met()) return setTimeout(look, 10);  // frames on end would take the time they measure
        requestAnimationFrame(() => done((performance.now() - began) / 1000));
    };
    look();
})"""
RUN = "void window.jupyterapp.commands.execute('notebook:run-cell-and-select-next')"
STEP = "document.querySelector('.wb-step')?.textContent"
SAID = "document.querySelector('p[role=status]')?.innerText"
PLACE = "document.querySelector('.wb-find span')?.textContent"
WHATIF = "button:text-is('What-if')"
HANDLE = ".widget-hslider:has-text('ε high') .noUi-handle"


class Page:
    """A notebook open in JupyterLab whose second cell explores the runs of `folder`; `opened` is how long that took."""

    def __init__(self, page, address: str, root: Path, folder: str, until: str):
        cells = [new_code_cell("import workbench as wb"), new_code_cell(f"wb.explore({str(root / folder)!r})")]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), root / f"{folder}.ipynb")
        self.page = page
        page.set_default_timeout(120_000)
        open_in_lab(page, address, folder)
        page.evaluate(RUN)
        settled(page)
        self.opened = self.seconds(until, action=RUN)
        settled(page)

    def again(self, until: str) -> float:
        """Seconds of opening it once more, now that the page knows plotly.js."""
        self.page.evaluate("void window.jupyterapp.commands.execute('notebook:move-cursor-up')")
        self.page.evaluate("document.querySelector('.jp-OutputArea-child').remove()")
        return self.seconds(until, action=RUN)

    def seconds(self, condition: str, act=None, action: str = "") -> float:
        """Seconds from the first mouse or key event of `act`, or from calling the script `action`, to the frame in
        which `condition` holds."""
        self.page.evaluate(f"given => {{ window.wbTime = ({WATCH})(given); return 0 }}", [condition, action])
        if act is not None:
            act()
        return self.page.evaluate("window.wbTime")

    def changed(self, what: str, *acts) -> float:
        """Median over acts of the seconds until the expression `what` has another value."""
        times = []
        for act in acts:
            before = self.page.evaluate(what)
            times.append(self.seconds(f"{what} !== {json.dumps(before)}", act))
            settled(self.page)
        return float(np.median(times))

    def press(self, key: str, where: str):
        """An act: `key` pressed on the first element `where`."""

        def act():
            self.page.locator(where).first.focus()
            self.page.keyboard.press(key)

        return act

    def click(self, where: str):
        return lambda: self.page.locator(where).first.click()

    def heap(self) -> float:
        """MiB of the page's JavaScript heap, after collecting garbage."""
        session = self.page.context.new_cdp_session(self.page)
        session.send("HeapProfiler.collectGarbage")
        return session.send("Runtime.getHeapUsage")["usedSize"] / 2**20


def at(curves, number: int, step: int) -> int:
    """The place of the drawn point nearest to `step`; long curves are drawn thinned out."""
    nearest = """(plot, [name, step]) => {
        const far = plot._fullData.find(each => each.name === name).x.map(x => Math.abs(x - step));
        return far.indexOf(Math.min(...far));
    }"""
    return curves.evaluate(nearest, [f"speed-{number:08x}", step])


def browser_times(root: Path, new_page, address: str) -> list[tuple[str, float]]:
    """(action, seconds) as seen in the page."""
    drawn = f"document.querySelectorAll('.scatterlayer .trace').length >= {RUNS} && {STEP}"
    many = Page(new_page(), address, root, "many", drawn)
    curves = many.page.locator(".js-plotly-plot").first
    clicks = [
        lambda i=i: click_point(many.page, curves, f"speed-{i:08x}", at(curves, i, 200 * i)) for i in (2, 1, 4, 3, 5)
    ]
    rows = [
        (f"open {RUNS} runs × {STEPS} steps", many.opened),
        ("open them again on the same page", many.again(drawn)),
        ("click on a curve → its tokens", many.changed(STEP, *clicks)),
        ("arrow key → tokens of the next kept step", many.changed(STEP, *4 * [many.press("ArrowLeft", ".wb-view")])),
        ("the page's heap, MiB", many.heap()),
    ]
    lab = Page(new_page(), address, root, "lab", STEP)
    rows.append(
        ("open What-if on 131,072 tokens", lab.seconds(f"/get another gradient/.test({SAID})", lab.click(WHATIF)))
    )
    settled(lab.page)
    moves = 8 * [lab.press("ArrowRight", HANDLE)]
    rows.append(("what-if, 131,072 tokens: one move", lab.changed(SAID, *moves)))
    million = Page(new_page(), address, root, "million", STEP)
    rows += [
        ("open a step of 1,000,000 tokens", million.opened),
        ("its next page", million.changed(PLACE, *5 * [million.click("[aria-label='next prompts']")])),
        ("the page's heap, MiB", million.heap()),
    ]
    return rows


def in_browser(root: Path) -> list[tuple[str, float]]:
    with jupyterlab(root) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        return browser_times(root, lambda: browser.new_page(viewport={"width": 1400, "height": 1600}), address)


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="explorer-speed-"))
    try:
        many_runs(root / "many")
        write_run(root / "warm" / "warm-0000abcd")
        large_step(root / "lab" / "lab-0000abcd", 131_072, 256)
        large_step(root / "million" / "million-0000abcd", 1_000_000, 500)
        os.sync()  # half a gigabyte on its way to the disk would be in the way of everything timed
        tables = {"in the kernel": kernel_times(root)}
        if CHROMIUM is not None:
            tables["in the browser"] = in_browser(root)
    finally:
        shutil.rmtree(root)
    print(f"{psutil.cpu_count()} cores, load {psutil.getloadavg()[0]:.1f}")
    for where, rows in tables.items():
        print(f"\n{where}")
        for action, value in rows:
            print(f"  {action:48} {value:9.1f}" if "MiB" in action else f"  {action:48} {1000 * value:9.0f} ms")


if __name__ == "__main__":
    main()
