"""The style sheet of the page: phone, desktop, print; light and dark; marks beside colours."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --card: #ffffff; --ink: #1b1e23; --soft: #5b626d; --rule: #dcdfe4;
  --accent: #1f5fa8;
  --sub: #8a4b00; --sub-bg: #fff0d6; --del: #a3123f; --del-bg: #fde6ec;
  --ins: #0b5d74; --ins-bg: #dcf3f9;
  --c0: #0072b2; --c1: #d55e00; --c2: #008060; --c3: #a64a86; --c4: #4a4a4a; --c5: #9a7400;
  --c6: #4f9fdd; --less: #2b7bba; --more: #e07b00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181c; --card: #1d2126; --ink: #e8eaed; --soft: #a3abb6; --rule: #343a42;
    --accent: #7fb4f0;
    --sub: #ffc778; --sub-bg: #3d2c10; --del: #ff9db5; --del-bg: #43161f;
    --ins: #84d9ee; --ins-bg: #0d3540;
    --c0: #5ab4f0; --c1: #ff8f45; --c2: #3fcf9f; --c3: #ec9bd0; --c4: #c9ccd1; --c5: #f0d24a;
    --c6: #93b8ff; --less: #3f8fd0; --more: #e58a1f;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 68rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p { margin: 0 0 .7rem; max-width: 46rem; }
.note, figcaption, .about { color: var(--soft); font-size: .875rem; }
table { border-collapse: collapse; width: 100%; background: var(--card); font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .55rem; text-align: left; border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-weight: 600; }
thead th { white-space: nowrap; vertical-align: bottom; }
td { white-space: nowrap; }
.n { text-align: right; }
tbody th { color: var(--ink); }
.scroll { overflow-x: auto; margin-bottom: .8rem; }
.scroll table { width: auto; min-width: min(100%, 40rem); }
.scroll th:first-child { position: sticky; left: 0; background: var(--card); z-index: 1;
  max-width: 14rem; overflow-wrap: break-word; }
.scroll .long { white-space: normal; overflow-wrap: anywhere; min-width: 16rem; }
th button { all: unset; cursor: pointer; }
th button::after { content: "\\a0↕"; opacity: .45; }
th[aria-sort=ascending] button::after { content: "\\a0↑"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\a0↓"; opacity: 1; }
th button:focus-visible { outline: 2px solid var(--accent); }
h3 { font-size: .95rem; margin: .6rem 0 -.2rem; }
details { margin: 0 0 .8rem; font-size: .875rem; }
summary { cursor: pointer; color: var(--soft); }
a { color: var(--accent); }
figure { margin: 0; min-width: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  gap: 1.2rem 2rem; }
.charts > * { min-width: 0; }
figcaption b { color: var(--ink); }
svg { display: block; width: 100%; height: auto; max-width: 40rem; }
svg text { font-size: 12px; fill: var(--soft); }
svg .grid { stroke: var(--rule); stroke-width: 1; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); }
.c4 { --c: var(--c4); } .c5 { --c: var(--c5); } .c6 { --c: var(--c6); } .faint { --c: var(--soft); }
svg .line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
svg .dot { fill: var(--c); stroke: var(--paper); stroke-width: 1; }
svg .error { fill: none; stroke: var(--c); stroke-width: 1.5; opacity: .7; }
svg .c1 { stroke-dasharray: 7 3; } svg .c2 { stroke-dasharray: 2 3; }
svg .c3 { stroke-dasharray: 9 3 2 3; } svg .c4 { stroke-dasharray: 4 3; }
svg .c5 { stroke-dasharray: 12 4; } svg .c6 { stroke-dasharray: 1 2; }
svg .dot, svg .error { stroke-dasharray: none; }
svg .faint { stroke-width: 1; opacity: .6; }
.key { display: inline-flex; align-items: center; gap: .3em; margin-left: .6rem;
  overflow-wrap: anywhere; }
.key svg { width: 1.9em; flex: none; }
svg.heat { width: auto; max-width: none; }
svg.heat .more { fill: var(--more); } svg.heat .less { fill: var(--less); }
svg.heat rect { stroke: var(--rule); stroke-width: 1; }
svg.heat .main, svg.heat .aside { fill: var(--ink); }
svg.heat .main { font-size: 13px; }
.bars { columns: 2 24rem; column-gap: 2rem; margin-bottom: .9rem; }
.group { break-inside: avoid; max-width: 46rem; padding-bottom: .5rem; }
.group > div { margin-bottom: .4rem; }
.bars .what { display: flex; justify-content: space-between; gap: 1rem; font-size: .9rem; }
.bars .what b { white-space: nowrap; font-variant-numeric: tabular-nums; }
.bars h3 { margin: 0; }
svg.track { height: .9rem; max-width: none; background: var(--card);
  border: 1px solid var(--rule); border-radius: .2rem; }
.track rect { fill: var(--c); opacity: .6; }
.track line { stroke: var(--ink); stroke-width: 2; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: .4rem;
  padding: .8rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font-size: .875rem; line-height: 1.6; }
.utt { background: var(--card); border: 1px solid var(--rule); border-radius: .4rem;
  padding: .6rem .8rem; margin: 0 0 .8rem; break-inside: avoid; }
.utt h3 { margin: 0 0 .3rem; font-size: .8rem; font-weight: 400; color: var(--soft);
  overflow-wrap: anywhere; }
dl { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; margin: 0; }
dl > div { flex: 1 1 18rem; min-width: 0; }
.facts { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .15rem .9rem; }
.facts dt { overflow-wrap: anywhere; max-width: 16rem; }
dl > .whole { flex-basis: 100%; }
.charts > .whole { grid-column: 1 / -1; }
.head { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: center; }
.head h3 { flex: 1 1 14rem; }
audio { width: 20rem; max-width: 100%; height: 2rem; }
.fold { color: var(--soft); font-size: .8rem; font-style: italic; }
dt { color: var(--soft); font-size: .85rem; padding-top: .1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.rate { font-size: .8rem; white-space: nowrap; margin-left: .6em; }
ins, del { text-decoration: none; border-radius: .2rem; padding: 0 .2em; }
.sub { white-space: normal; }
.sub ins { color: var(--sub); background: var(--sub-bg); border-bottom: 2px dotted; }
.sub del { color: var(--soft); font-size: .75em; padding: 0 .1em; }
.sub del::before { content: "≠\\a0"; }
del.gone { color: var(--del); background: var(--del-bg); text-decoration: line-through; }
del.gone::before { content: "−"; display: inline-block; text-decoration: none; }
del.gone, ins.more { display: inline-block; max-width: 100%; }
ins.more { color: var(--ins); background: var(--ins-bg); border-bottom: 2px solid; }
ins.more::before { content: "+"; }
.empty { color: var(--soft); font-style: italic; }
@media screen and (max-width: 58rem) {
  .cards thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  .cards, .cards tbody, .cards tr, .cards tbody th, .cards td { display: block; width: auto; }
  .cards { background: none; }
  .cards tr { background: var(--card); border: 1px solid var(--rule); border-radius: .4rem;
    padding: .5rem .8rem; margin-bottom: .8rem; }
  .cards tbody th { padding: 0 0 .2rem; border: 0; font-size: 1rem; }
  .cards td { display: flex; justify-content: space-between; gap: 1rem; border: 0;
    padding: .12rem 0; text-align: right; white-space: normal; }
  .cards td::before { content: attr(data-label); color: var(--soft); }
  .cards td.none { display: none; }
}
@media print {
  :root { color-scheme: light; --paper: #fff; --card: #fff; --ink: #000; --soft: #444;
    --rule: #bbb; --accent: #1f5fa8; --sub: #8a4b00; --sub-bg: #fff0d6;
    --del: #a3123f; --del-bg: #fde6ec; --ins: #0b5d74; --ins-bg: #dcf3f9;
    --c0: #0072b2; --c1: #d55e00; --c2: #008060; --c3: #a64a86; --c4: #4a4a4a; --c5: #9a7400;
    --c6: #4f9fdd; --less: #2b7bba; --more: #e07b00; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  table { font-size: 7.5pt; }
  th, td { padding: .3rem .2rem; }
  thead th { white-space: normal; }
  figure, tr { break-inside: avoid; }
  figure:has(.bars) { break-inside: auto; }
  .bars { columns: 2 14rem; }
  .charts { grid-template-columns: 1fr 1fr; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; }
  .scroll th:first-child { position: static; }
  svg.heat { max-width: 100%; height: auto; }
  audio, details, th button::after { display: none; }
}
"""
