"""The one style sheet of the pages."""

from __future__ import annotations

from .picture import COLOURS

__all__ = ["ICON", "STYLE"]

ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="9" height="16" fill="#4c78a8"/>'
    '<rect x="9" width="7" height="10" fill="#59a14f"/><rect x="9" y="10" width="7" height="6" fill="#f28e2b"/></svg>'
)

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --link: #2563c9; }
@media (prefers-color-scheme: dark) { :root { --link: #8ab4f8; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1080px; padding: 0 20px 60px; }
header { border-bottom: 1px solid var(--line); padding: 14px 0; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
h1 { font-size: 1.6em; margin: .7em 0 .2em; overflow-wrap: anywhere; }
h2 { font-size: 1.2em; margin: 1.8em 0 .5em; }
code, pre, .mono, table { font-family: ui-monospace, monospace; font-size: 13px; }
pre { background: var(--soft); border-radius: 6px; overflow-x: auto; padding: 10px 12px; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid var(--line); padding: 4px 10px 4px 0; text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; }
td.number, th.number { text-align: right; white-space: nowrap; }
.tag { background: var(--soft); border: 1px solid var(--line); border-radius: 10px; display: inline-block;
  font-size: 12px; margin: 2px 5px 2px 0; padding: 0 8px; }
.soft { opacity: .7; }
.sizes { display: block; height: auto; width: 100%; }
.sizes rect { stroke: Canvas; stroke-width: 1; }
.sizes text { fill: #fff; font: 11px ui-monospace, monospace; pointer-events: none; }
figure { margin: 0 0 12px; }
figcaption span { margin-right: 12px; }
.dot { border-radius: 3px; display: inline-block; height: 11px; margin: 0 2px 0 0; width: 11px; background: #8a8a8a; }
.card { border: 1px solid var(--line); border-radius: 8px; overflow-wrap: anywhere; padding: 6px 20px; }
.card img { max-width: 100%; }
input { font: inherit; padding: 3px 8px; width: min(24em, 60%); }
""" + "".join(f'.dot[data-dtype="{name}"] {{ background: {colour}; }}\n' for name, colour in COLOURS.items())
