"""The chart: one panel for each figure, ours and the peers as bars, the goal as a line. SVG, readable on light and dark."""
from xml.sax.saxutils import escape

ORDER = ["s0 sync", "rsync", "git status", "Unison", "Mutagen", "Syncthing"]
LIGHT = {"s0 sync": "#d9480f", "rsync": "#495057", "git status": "#495057", "Unison": "#1971c2", "Mutagen": "#2f9e44",
         "Syncthing": "#9c36b5"}
DARK = {"s0 sync": "#ff922b", "rsync": "#adb5bd", "git status": "#adb5bd", "Unison": "#74c0fc", "Mutagen": "#8ce99a",
        "Syncthing": "#e599f7"}
WIDTH, COLUMNS, GAP, MARGIN = 980, 2, 28, 20
BAR, STEP, LABEL, VALUE = 13, 19, 74, 92
HEAD, FOOT = 96, 30


def style():
    rules = [
        "text { font-family: 'DejaVu Sans', Verdana, sans-serif; fill: #212529; }",
        ".small { font-size: 11px; } .name { font-size: 13px; font-weight: bold; }",
        ".title { font-size: 18px; font-weight: bold; } .quiet { fill: #6c757d; }",
        ".ground { fill: #ffffff; } .goal { stroke: #c92a2a; stroke-width: 2; stroke-dasharray: 4 3; }",
        ".goaltext { fill: #c92a2a; }", ".missed { fill: #c92a2a; }", ".axis { stroke: #ced4da; }",
        *(f".bar{at} {{ fill: {LIGHT[name]}; }}" for at, name in enumerate(ORDER)),
        "@media (prefers-color-scheme: dark) {",
        "text { fill: #e9ecef; } .quiet { fill: #adb5bd; } .ground { fill: #0d1117; }",
        ".goal { stroke: #ff8787; } .goaltext, .missed { fill: #ff8787; } .axis { stroke: #495057; }",
        *(f".bar{at} {{ fill: {DARK[name]}; }}" for at, name in enumerate(ORDER)),
        "}",
    ]
    return "<style>" + "\n".join(rules) + "</style>"


def scale_of(figure, bars):
    """The end of the axis. One bar that is many times all others is cut off, and says so by its value."""
    limit = figure.limit()
    values = sorted(value for _, value in bars)
    reach = max([values[0], limit or 0]) * 1.15
    for value in values[1:]:
        if value <= 6 * reach:
            reach = max(reach, value * 1.05)
    return reach


def panel(figure, bars, x, y, width, number):
    yield f'<text class="name" x="{x}" y="{y + 12}">{escape(figure.name)}</text>'
    more = "more is better, " if figure.least else ""
    yield f'<text class="small quiet" x="{x + width}" y="{y + 12}" text-anchor="end">{more}{figure.unit}</text>'
    left, room = x + LABEL, width - LABEL - VALUE
    reach, top = scale_of(figure, bars), y + 22
    limit = figure.limit()
    end = top + len(bars) * STEP - (STEP - BAR)
    if limit is not None:
        at = left + room * limit / reach
        yield (f'<text class="small goaltext" x="{at:.1f}" y="{end + 15}" text-anchor="middle">'
               f'goal {escape(number(limit, figure.unit))}</text>')
    for row, (name, value) in enumerate(bars):
        at = top + row * STEP
        length = max(1.5, room * min(1, value / reach))
        cut = value > reach
        kind = ORDER.index(name)
        missed = ' missed' if name == ORDER[0] and figure.met() is False else ''
        yield f'<text class="small" x="{left - 7}" y="{at + 11}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect class="bar{kind}" x="{left}" y="{at}" width="{length:.1f}" height="{BAR}" rx="2"/>'
        if cut:
            # Two slanted gaps: the bar goes on.
            for gap in (room - 26, room - 18):
                yield (f'<path class="ground" d="M{left + gap} {at + BAR + 1} l5 {-BAR - 2} h4 l-5 {BAR + 2} z"/>')
        told = number(value, figure.unit) + (" →" if cut else "")
        beside = left + length + 6
        if limit is not None and beside - 3 < left + room * limit / reach < beside + 7 * len(told):
            # A goal does not cross a value.
            beside = left + room * limit / reach + 6
        yield f'<text class="small{missed}" x="{beside:.1f}" y="{at + 11}">{escape(told)}</text>'
    yield f'<line class="axis" x1="{left}" y1="{top - 3}" x2="{left}" y2="{end + 3}"/>'
    if limit is not None:
        at = left + room * limit / reach
        yield f'<line class="goal" x1="{at:.1f}" y1="{top - 4}" x2="{at:.1f}" y2="{end + 4}"/>'


def draw(said, figures, number):
    """The chart as the text of an SVG file."""
    panels = []
    for figure in figures:
        bars = [(name, figure.median(name)) for name in ORDER if figure.median(name) is not None]
        if bars and bars[0][0] == ORDER[0]:
            panels.append((figure, bars))
    width = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS
    drawn, y = [], HEAD
    for at in range(0, len(panels), COLUMNS):
        row = panels[at:at + COLUMNS]
        for column, (figure, bars) in enumerate(row):
            drawn += panel(figure, bars, MARGIN + column * (width + GAP), y, width, number)
        y += 22 + max(len(bars) for _, bars in row) * STEP + 34
    names = [name for name in ORDER if any(name == bar for _, bars in panels for bar, _ in bars)]
    legend, x = [], MARGIN
    for name in names:
        legend.append(f'<rect class="bar{ORDER.index(name)}" x="{x}" y="62" width="13" height="13" rx="2"/>')
        legend.append(f'<text class="small" x="{x + 19}" y="73">{escape(name)}</text>')
        x += 19 + 7 * len(name) + 26
    legend.append(f'<line class="goal" x1="{x}" y1="60" x2="{x}" y2="77"/>')
    legend.append(f'<text class="small" x="{x + 9}" y="73">goal</text>')
    about = (f"{said['files']:,} files, {said['bytes'] / 1e6:.0f} MB, {said['machine']}, commit {said['commit']}; "
             "medians; shorter is better unless it says otherwise")
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + FOOT - 20}" role="img" '
        f'aria-label="Figures of s0 sync beside other programs">', style(),
        f'<rect class="ground" width="100%" height="100%" rx="8"/>',
        f'<text class="title" x="{MARGIN}" y="30">s0 sync beside its peers</text>',
        f'<text class="small quiet" x="{MARGIN}" y="49">{escape(about)}</text>', *legend, *drawn, "</svg>"]) + "\n"
