"""Draw the live view of a running search as an SVG: python studies/picture.py STUDY_FOLDER OUT.svg"""

import io
import sys
import time
from pathlib import Path

from rich.console import Console

from automed.results.show import live_view
from automed.study.launch import snapshot
from automed.study.machine import cores
from automed.study.open import reopen_study

# As rich's own, without the fonts it would fetch from the network.
FORMAT = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>.{unique_id}-matrix {{ font-family: Menlo, Consolas, "DejaVu Sans Mono", monospace;
font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>{lines}</defs>
<rect fill="#292929" width="{width}" height="{height}" rx="8"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g></svg>"""


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    opened = reopen_study(folder)
    began = (folder / "folds.csv").stat().st_mtime
    shown = snapshot(opened, opened.experiment.study.trials, cores(), elapsed=time.time() - began)
    opened.close()
    console = Console(
        width=86, record=True, force_terminal=True, color_system="truecolor", file=io.StringIO()
    )
    console.print(live_view(opened.name, shown))
    console.save_svg(str(out), code_format=FORMAT)


if __name__ == "__main__":
    main()
