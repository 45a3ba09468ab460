"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const WORDS = { 5: "Excellent", 4: "Good", 3: "Fair", 2: "Poor", 1: "Bad" };
  const COLUMNS = ["rater", "clip", "system", "score", "kind", "expected", "session"];
  const HEARD = 0.95; // of a sound: browsers report the last played moment a little early
  const $ = (id) => document.getElementById(id);
  let state = null; // { rater, session, done: [[sound, score], ...], screens: how many are over }
  let screens = []; // of this rater: each a list of indices of sounds
  let keys = () => false; // of the current screen
  let players = []; // of the current screen
  const urls = new Map();

  // ---- What can be computed without a page

  /** Numbers in [0, 1), the same for the same text. */
  function randomOf(text) {
    let h = 2166136261;
    for (const character of text) h = Math.imul(h ^ character.codePointAt(0), 16777619);
    return () => {
      h = (h + 0x6d2b79f5) | 0;
      let t = Math.imul(h ^ (h >>> 15), 1 | h);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  function shuffled(list, random) {
    const out = [...list];
    for (let i = out.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  }

  /** Screens in this rater's order; where it can be helped, no clip twice running. */
  function screensOf(rater) {
    const random = randomOf(data.test + "\n" + rater);
    const all = shuffled(data.sounds.keys(), random);
    if (data.scale === "mushra") {
      const items = new Map();
      for (const i of all) {
        const clip = data.sounds[i].clip;
        items.set(clip, [...(items.get(clip) || []), i]);
      }
      return [...items.values()];
    }
    const order = [];
    while (all.length) {
      const last = order.length ? data.sounds[order[order.length - 1]].clip : null;
      const other = all.findIndex((i) => data.sounds[i].clip !== last);
      order.push(all.splice(Math.max(other, 0), 1)[0]);
    }
    return order.map((i) => [i]);
  }

  function csv() {
    const quote = (cell) => (/[",\r\n]/.test(cell) ? '"' + cell.replaceAll('"', '""') + '"' : cell);
    const rows = state.done.map(([i, score]) => {
      const s = data.sounds[i];
      return [state.rater, s.clip, s.system, score, s.kind, s.expected ?? "", state.session];
    });
    return [COLUMNS, ...rows].map((row) => row.map((c) => quote(String(c))).join(",") + "\n").join("");
  }

  // ---- Progress

  const place = (rater) => "listening-test:" + data.test + ":" + rater;

  function save() {
    try {
      localStorage.setItem(place(state.rater), JSON.stringify(state));
      localStorage.setItem(place("") + "last", state.rater);
      return true;
    } catch {
      return false;
    }
  }

  function saved(rater) {
    try {
      return JSON.parse(localStorage.getItem(place(rater)));
    } catch {
      return null;
    }
  }

  function lastRater() {
    try {
      return localStorage.getItem(place("") + "last") || "";
    } catch {
      return "";
    }
  }

  function storageWorks() {
    try {
      localStorage.setItem("listening-test", "1");
      localStorage.removeItem("listening-test");
      return true;
    } catch {
      return false;
    }
  }

  // ---- Sound

  function urlOf(i) {
    const { audio, type } = data.sounds[i];
    if (!urls.has(audio)) {
      // A blob, because some browsers can not seek in a data URI.
      const bytes = Uint8Array.from(atob(data.audio[audio]), (c) => c.charCodeAt(0));
      urls.set(audio, URL.createObjectURL(new Blob([bytes], { type })));
    }
    return urls.get(audio);
  }

  /** Plays one sound; `changed` is called whenever something happened to it. */
  function playerOf(i, changed) {
    const audio = new Audio(urlOf(i));
    const player = {
      sound: i,
      heard: false,
      get playing() { return !audio.paused && !audio.ended; },
      get share() { return audio.duration ? Math.min(1, audio.currentTime / audio.duration) : 0; },
      get time() { return audio.ended ? 0 : audio.currentTime; },
      play(from) {
        for (const other of players) if (other !== player) other.pause();
        if (from !== undefined) audio.currentTime = from;
        audio.play().catch(trouble);
      },
      pause() { audio.pause(); },
      toggle() { player.playing ? player.pause() : player.play(); },
    };
    const update = () => {
      let seconds = 0;
      for (let k = 0; k < audio.played.length; k++) seconds += audio.played.end(k) - audio.played.start(k);
      player.heard ||= seconds >= HEARD * audio.duration;
      changed(player);
    };
    for (const event of ["timeupdate", "ended", "play", "pause"]) audio.addEventListener(event, update);
    audio.addEventListener("error", () => trouble(new Error("the sound can not be played")));
    audio.preload = "auto";
    players.push(player);
    return player;
  }

  function trouble(error) {
    if (error.name === "AbortError") return; // paused before it began
    $("trouble").textContent = "This browser says: " + error.message + ". Please try another browser.";
    $("trouble").hidden = false;
  }

  // ---- Screens

  function element(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") node.addEventListener(name, value);
      else if (typeof value === "boolean") node[name] = value;
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }

  function show(id) {
    for (const section of ["start", "rate", "end"]) $(section).hidden = section !== id;
    $("progress").hidden = id === "start";
    if (state) {
      $("bar").style.width = 100 * state.screens / screens.length + "%";
      $("count").textContent = Math.min(state.screens + 1, screens.length) + " of " + screens.length;
      if (id === "end") $("count").textContent = "all " + screens.length + " done";
    }
    scrollTo(0, 0);
    if (id !== "start") $("main").focus({ preventScroll: true });
  }

  function next(scores) {
    for (const player of players) player.pause();
    if (scores) {
      state.done.push(...scores);
      state.screens += 1;
      save();
    }
    players = [];
    keys = () => false;
    if (state.screens >= screens.length) return finish();
    $("rate").replaceChildren(...(data.scale === "mushra" ? mushra : acr)(screens[state.screens]));
    show("rate");
  }

  function nextLine(button, hint) {
    return element("div", { class: "next" }, hint, button);
  }

  function acr([i]) {
    const play = element("button", { type: "button", class: "main", click: () => player.toggle() }, "▶ Play");
    const done = element("i");
    const button = element("button", { type: "button", class: "main", disabled: true, click: go }, "Next");
    const hint = element("p", { class: "soft", "aria-live": "polite" });
    const boxes = [5, 4, 3, 2, 1].map((score) =>
      element("input", { type: "radio", name: "score", value: score, disabled: true, change: update }));
    const player = playerOf(i, update);
    function chosen() { return boxes.find((box) => box.checked); }
    function go() { if (!button.disabled) next([[i, Number(chosen().value)]]); }
    function update() {
      play.textContent = player.playing ? "❚❚ Pause" : player.heard ? "▶ Again" : "▶ Play";
      done.style.width = 100 * player.share + "%";
      for (const box of boxes) box.disabled = !player.heard;
      button.disabled = !player.heard || !chosen();
      hint.textContent = !player.heard ? "Listen to the end, then rate." : chosen() ? "" : "Now choose a score.";
    }
    keys = (key) => {
      if (key === " ") player.toggle();
      else if (key === "Enter") go();
      else if (/^[1-5]$/.test(key) && player.heard) {
        boxes[5 - Number(key)].checked = true;
        update();
      } else return false;
      return true;
    };
    update();
    return [
      element("h2", {}, data.question),
      element("div", { class: "player" }, play, element("div", { class: "track" }, done)),
      element("fieldset", {}, element("legend", { class: "soft" }, "Your score"),
        element("div", { class: "scores" }, ...boxes.map((box) =>
          element("label", {}, box, element("b", {}, box.value), element("span", {}, WORDS[box.value]))))),
      nextLine(button, hint),
      keyHelp([["Space", "play"], ["1", "to"], ["5", "score"], ["Enter", "next"]]),
    ];
  }

  function mushra(sounds) {
    const open = sounds.find((i) => data.sounds[i].kind === "ref");
    const button = element("button", { type: "button", class: "main", disabled: true, click: go }, "Next");
    const hint = element("p", { class: "soft", "aria-live": "polite" });
    const moment = element("i");
    const track = element("div", { class: "track" }, moment); // of whichever sound plays
    const rows = sounds.map((i, n) => {
      const name = "Sound " + String.fromCharCode(65 + n);
      const row = { set: false, player: playerOf(i, update) };
      row.play = element("button", { type: "button", click: () => select(row) }, "▶ " + name);
      row.name = name;
      row.heard = element("span", { class: "heard" });
      row.output = element("output", {}, "–");
      row.slider = element("input", {
        type: "range", min: 0, max: 100, step: 1, value: 50, class: "unset", disabled: true,
        "aria-label": "Score of " + name, input: () => touch(row), click: () => touch(row),
      });
      row.item = element("li", { class: "item" },
        element("div", { class: "top" }, row.play, row.heard, row.output), row.slider,
        element("div", { class: "words", "aria-hidden": "true" },
          ...[1, 2, 3, 4, 5].map((k) => element("span", {}, WORDS[k]))));
      return row;
    });
    const reference = open === undefined ? null : { player: playerOf(open, update), name: "Reference" };
    if (reference) {
      reference.play = element("button", { type: "button", class: "main", click: () => select(reference) }, "▶ Reference");
      reference.item = element("li", {}, element("div", { class: "top" }, reference.play, track));
    }
    let wanted = null; // whose slider takes the arrow keys as soon as it was heard
    const all = reference ? [reference, ...rows] : rows;
    function touch(row) {
      row.set = true;
      row.output.textContent = row.slider.value;
      row.slider.classList.remove("unset");
      update();
    }
    function select(row) {
      if (row.player.playing) return row.player.pause();
      const before = all.find((other) => other.player.playing);
      // Go on at the same moment, unless that is the end.
      row.player.play(before && (before.player.share < HEARD ? before.player.time : 0));
    }
    function go() {
      if (!button.disabled) next(rows.map((row) => [row.player.sound, Number(row.slider.value)]));
    }
    function update() {
      if (!all.every((row) => row.play && row.player)) return; // still being made
      for (const row of all) {
        row.play.textContent = (row.player.playing ? "❚❚ " : "▶ ") + row.name;
        row.item.classList.toggle("playing", row.player.playing);
        if (row.player.playing) moment.style.width = 100 * row.player.share + "%";
      }
      for (const row of rows) {
        row.heard.textContent = row.player.heard ? "✓ heard" : "";
        row.slider.disabled = !row.player.heard;
        if (row === wanted && row.player.heard) {
          wanted = null;
          row.slider.focus({ preventScroll: true });
        }
      }
      const waiting = rows.filter((row) => !row.player.heard).length;
      const unset = rows.filter((row) => !row.set).length;
      button.disabled = waiting + unset > 0;
      hint.textContent = waiting ? `Listen to every sound to its end: ${waiting} to go.`
        : unset ? `Move every slider: ${unset} to go.` : "";
    }
    keys = (key) => {
      const row = rows[Number(key) - 1];
      if (key === " ") (all.find((r) => r.player.playing) || all[0]).player.toggle();
      else if (key === "Enter") go();
      else if ((key === "0" || key === "r") && reference) select(reference);
      else if (/^[1-9]$/.test(key) && row) {
        select(row);
        wanted = row;
        update();
      } else return false;
      return true;
    };
    update();
    return [
      element("h2", {}, data.question),
      element("ul", { class: "sounds" }, ...all.map((row) => row.item)),
      nextLine(button, hint),
      keyHelp([["0", "reference"], ["1", "to"], ["9", "play a sound"], ["←", ""], ["→", "score"], ["Enter", "next"]]),
    ];
  }

  function keyHelp(pairs) {
    const parts = pairs.flatMap(([key, what]) => [element("kbd", {}, key), " " + what + "  "]);
    return element("p", { class: "soft keys" }, "Keys: ", ...parts);
  }

  function finish() {
    const text = csv();
    $("text").value = text;
    $("download").href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    const safe = state.rater.replace(/[^\p{L}\p{N}_-]+/gu, "_");
    $("download").setAttribute("download", "ratings_" + safe + ".csv");
    show("end");
  }

  function begin(rater) {
    screens = screensOf(rater);
    const session = new Date().toISOString();
    state = saved(rater) || { rater, session, done: [], screens: 0 };
    $("storage").hidden = save();
    next();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const tag = event.target.tagName;
    const own = { BUTTON: " Enter", A: "Enter", SUMMARY: " Enter" }[tag] || "";
    const text = (tag === "INPUT" && event.target.type === "text") || tag === "TEXTAREA";
    if (text || (event.key !== "" && own.includes(event.key))) return; // the control's own key
    if (keys(event.key)) event.preventDefault();
  });

  $("who").addEventListener("submit", (event) => {
    event.preventDefault();
    const rater = $("rater").value.replace(/\p{C}/gu, " ").trim();
    if (rater) begin(rater);
  });
  $("volume").addEventListener("click", () => {
    if (!players.length) playerOf(data.volume, (player) => {
      $("volume").textContent = player.playing ? "❚❚ Pause" : "Play a sound to set the volume";
    });
    players[0].toggle();
  });
  $("rater").value = new URLSearchParams(location.search).get("rater") || lastRater();
  $("storage").hidden = storageWorks();
  show("start");
})();
