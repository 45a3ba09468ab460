"""The style sheet of the page: phone, desktop, print; light and dark; marks beside colours."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --card: #ffffff; --ink: #1b1e23; --soft: #5b626d; --rule: #dcdfe4;
  --accent: #1f5fa8; --wide: #1f5fa855;
  --sub: #8a4b00; --sub-bg: #fff0d6; --del: #a3123f; --del-bg: #fde6ec;
  --ins: #0b5d74; --ins-bg: #dcf3f9;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181c; --card: #1d2126; --ink: #e8eaed; --soft: #a3abb6; --rule: #343a42;
    --accent: #7fb4f0; --wide: #7fb4f066;
    --sub: #ffc778; --sub-bg: #3d2c10; --del: #ff9db5; --del-bg: #43161f;
    --ins: #84d9ee; --ins-bg: #0d3540;
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
th, td { padding: .45rem .55rem; text-align: right; border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
thead th { white-space: nowrap; }
td { white-space: nowrap; }
tbody th, th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
tbody th { color: var(--ink); }
figure { margin: 0; min-width: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr));
  gap: 1.2rem; }
svg { display: block; width: 100%; height: auto; max-width: 40rem; }
svg text { font-size: 12px; fill: var(--soft); }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .line { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; }
svg .dot { fill: var(--accent); stroke: var(--paper); stroke-width: 1.5; }
svg .faint { stroke: var(--wide); stroke-width: 1; }
svg .l2, svg .l3 { stroke: var(--sub); stroke-dasharray: 6 3; }
.key { margin-left: .6rem; white-space: nowrap; }
.key::before { content: ""; display: inline-block; width: 1.4em; margin-right: .3em;
  border-top: 3px solid var(--accent); vertical-align: .25em; }
.key.faint::before { border-top: 1px solid var(--accent); opacity: .6; }
.bars { display: grid; gap: .7rem; max-width: 46rem; margin-bottom: .9rem; }
.bars .what { display: flex; justify-content: space-between; gap: 1rem; font-size: .9rem; }
.bars .what b { white-space: nowrap; font-variant-numeric: tabular-nums; }
.track { position: relative; height: .9rem; background: var(--card);
  border: 1px solid var(--rule); border-radius: .2rem; }
.track i { position: absolute; left: 0; top: 0; bottom: 0; background: var(--accent);
  opacity: .55; border-radius: .15rem 0 0 .15rem; }
.track u { position: absolute; top: 0; bottom: 0; border: solid var(--ink); border-width: 0 2px; }
.track u::before { content: ""; position: absolute; left: 0; right: 0; top: calc(50% - 1px);
  border-top: 2px solid var(--ink); }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: .4rem;
  padding: .8rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font-size: .875rem; line-height: 1.6; }
.utt { background: var(--card); border: 1px solid var(--rule); border-radius: .4rem;
  padding: .6rem .8rem; margin: 0 0 .8rem; break-inside: avoid; }
.utt h3 { margin: 0 0 .3rem; font-size: .8rem; font-weight: 400; color: var(--soft);
  overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .2rem .9rem;
  margin: 0; }
dt { color: var(--soft); font-size: .85rem; padding-top: .1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
dd .rate { color: var(--soft); font-size: .8rem; white-space: nowrap; margin-inline-start: .5em; }
ins, del { text-decoration: none; border-radius: .2rem; padding: 0 .2em; }
.sub { white-space: normal; }
.sub ins { color: var(--sub); background: var(--sub-bg); border-bottom: 2px dotted; }
.sub del { color: var(--soft); font-size: .75em; padding: 0 .1em; }
.sub del::before { content: "≠\\a0"; }
del.gone { color: var(--del); background: var(--del-bg); text-decoration: line-through; }
del.gone::before { content: "−"; display: inline-block; text-decoration: none; }
ins.more { color: var(--ins); background: var(--ins-bg); border-bottom: 2px solid; }
ins.more::before { content: "+"; }
.empty { color: var(--soft); font-style: italic; }
@media screen and (max-width: 58rem) {
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody, tr, tbody th, td { display: block; width: auto; }
  table { background: none; }
  tr { background: var(--card); border: 1px solid var(--rule); border-radius: .4rem;
    padding: .5rem .8rem; margin-bottom: .8rem; }
  tbody th { padding: 0 0 .2rem; border: 0; font-size: 1rem; }
  td, td:nth-child(2) { display: flex; justify-content: space-between; gap: 1rem; border: 0;
    padding: .12rem 0; text-align: right; white-space: normal; }
  td::before { content: attr(data-label); color: var(--soft); }
  td.none { display: none; }
}
@media screen and (max-width: 36rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dt { padding-top: .35rem; }
}
@media print {
  :root { color-scheme: light; --paper: #fff; --card: #fff; --ink: #000; --soft: #444;
    --rule: #bbb; --accent: #1f5fa8; --wide: #1f5fa855; --sub: #8a4b00; --sub-bg: #fff0d6;
    --del: #a3123f; --del-bg: #fde6ec; --ins: #0b5d74; --ins-bg: #dcf3f9; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  table { font-size: 7.5pt; }
  th, td { padding: .3rem .2rem; }
  thead th { white-space: normal; }
  figure, tr { break-inside: avoid; }
  .track i { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
