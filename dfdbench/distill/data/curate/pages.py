"""The pages of candidates: one a cluster, to look at as files or to choose on when they are served.

Texts of captions and names are escaped (utils/table.py). Where a page is opened as a file its boxes
are not shown; pick.py serves it with the same script, which then asks what is picked and says what
is clicked. Used by grid.py and pick.py.
"""

from collections.abc import Mapping, Sequence

from dfdbench.distill.data.curate.rows import Candidate
from dfdbench.utils.table import escape_html

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.2rem; color: #222; background: #fafafa }
nav a { margin-right: .8rem } h1 { font-size: 1.2rem } .count { color: #555 }
ol { list-style: none; padding: 0 } li { margin: .6rem 0; padding: .5rem; background: #fff;
  border: 2px solid #ddd; border-radius: 6px } li.picked { border-color: #1a7f37 }
img { display: block; max-width: 100%; height: auto } label { display: block; cursor: pointer }
.facts { color: #555 } input { display: none } .served input { display: inline-block }
#fault { color: #b00020; font-weight: 600 }
"""
SCRIPT = """
const served = location.protocol.startsWith('http');
const boxes = [...document.querySelectorAll('input[type=checkbox]')];
const fault = document.getElementById('fault');
const count = document.getElementById('picks');
function show(picks) {
  const set = new Set(picks);
  for (const box of boxes) {
    box.checked = set.has(box.value);
    box.closest('li').classList.toggle('picked', box.checked);
  }
  if (count) count.textContent = picks.length + ' picked in all';
}
async function ask(options) {
  try {
    const reply = await fetch('/picks', options);
    if (!reply.ok) throw new Error(await reply.text());
    show((await reply.json()).picks);
    fault.textContent = '';
  } catch (error) {
    fault.textContent = 'Not saved: ' + error.message + '. Is dfdbench data curate pick running?';
  }
}
if (served) {
  document.body.classList.add('served');
  for (const box of boxes) box.addEventListener('change', () => ask({
    method: 'POST', headers: {'Content-Type': 'application/json'},
    body: JSON.stringify({id: box.value, picked: box.checked})}));
  document.addEventListener('keydown', event => {
    const links = {ArrowLeft: 'before', ArrowRight: 'after'};
    const link = document.getElementById(links[event.key] || '');
    if (link) link.click();
    if (/^[0-9]$/.test(event.key)) {
      const box = boxes[(Number(event.key) + 9) % 10];
      if (box) box.click();
    }
  });
  ask({});
}
"""


def cluster_page(number: int, found: Sequence[Candidate], clusters: Sequence[int]) -> str:
    """The page of one cluster: its candidates from the centre to the edge."""
    place = clusters.index(number)
    links = ['<a href="index.html">all clusters</a>']
    if place:
        links.append(f'<a id="before" href="{_name(clusters[place - 1])}">← before</a>')
    if place + 1 < len(clusters):
        links.append(f'<a id="after" href="{_name(clusters[place + 1])}">after →</a>')
    items = "\n".join(_item(candidate) for candidate in found)
    size = found[0].size
    body = (
        f"<nav>{' '.join(links)} <span class='count' id='picks'></span></nav>"
        f"<h1>Cluster {number}: {len(found)} of {size} shots, from its centre to its edge</h1>"
        f"<p id='fault'></p><ol>\n{items}\n</ol>"
    )
    return _page(f"Cluster {number}", body)


def index_page(clusters: Mapping[int, Sequence[Candidate]]) -> str:
    """The page that names all clusters, each with its first strip."""
    items = "\n".join(
        f'<li><a href="{_name(number)}">Cluster {number}</a>, {found[0].size} shots'
        f'<img loading="lazy" src="{_picture(found[0])}" alt=""></li>'
        for number, found in clusters.items()
    )
    body = (
        f"<h1>{len(clusters)} clusters</h1><p class='count' id='picks'></p><p id='fault'></p>"
        f"<ol>\n{items}\n</ol>"
    )
    return _page("Clusters", body)


def _name(number: int) -> str:
    return f"cluster-{number:04d}.html"


def _picture(candidate: Candidate) -> str:
    return escape_html(candidate.strip.rpartition("/")[2])


def _item(candidate: Candidate) -> str:
    text = escape_html(candidate.short or "no caption")
    name = escape_html(candidate.id)
    return (
        f'<li><label><input type="checkbox" value="{name}"> {text}'
        f'<img loading="lazy" src="{_picture(candidate)}" alt="four frames of {name}">'
        f'<span class="facts">{candidate.percentile:g} % of the cluster is nearer to the centre, '
        f"distance {candidate.distance:.3f}, {name}</span></label></li>"
    )


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape_html(title)}'
        f'</title><meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head>'
        f"<body>\n{body}\n<script>{SCRIPT}</script></body></html>\n"
    )
