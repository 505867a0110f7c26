'use strict';
(() => {
  const recording = JSON.parse(document.getElementById('data').textContent);
  const svg = document.getElementById('picture');
  const overview = document.getElementById('overview');
  const detail = document.getElementById('detail');
  const [DOWN, OUTSIDER, FOLLOWER, , CANDIDATE, LEADER] = [0, 1, 2, 3, 4, 5];
  const ROLES = ['down', 'no voter', 'follower', 'pre-candidate', 'candidate', 'leader'];
  const THICK = [0, 4, 7, 10, 13, 17];
  const WAYS = ['', 'late', 'again', 'mangled'];
  const CLIENT = 7, LEFT = 58, RIGHT = 22, TOP = 46, CLIENT_PITCH = 28;
  const shown = new Set();
  let squeezed = true;
  let times = [], places = [];   // of the axis: moments, and where they are
  let view = [0, 1];             // the part that is shown, in places
  let here = null;               // a moment that was asked for

  // --- what is drawn -------------------------------------------------------------------------

  const readSeen = (s) => ({
    role: s[0], term: s[1], vote: s[2], commit: s[3], last: s[4], lastTerm: s[5],
    lease: (s[6] & 1) > 0, paused: (s[6] & 2) > 0, noClients: (s[6] & 4) > 0, run: s[7], cutTo: s[8], cutFrom: s[9],
    group: recording.groups[s[10]], gains: s[11],
  });
  const spans = Array.from({ length: recording.hosts }, (_, host) =>
    [{ from: recording.since, to: recording.until, seen: readSeen(recording.base[host]) }]);
  for (const [at, host, seen] of recording.changes) {
    const list = spans[host], last = list[list.length - 1];
    if (at === recording.since && list.length === 1) { last.seen = readSeen(seen); continue; }
    last.to = at;
    list.push({ from: at, to: recording.until, seen: readSeen(seen) });
  }
  const seenAt = (host, at) => {
    const list = spans[host];
    let low = 0, high = list.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (list[middle].from <= at) low = middle; else high = middle;
    }
    return list[low].seen;
  };
  const messages = recording.messages.map(([at, from, to, kind, text, flags, arrives], number) =>
    ({ at, from, to, kind, text, cut: (flags & 1) > 0, grants: (flags & 2) > 0, arrives, number }));
  const operations = recording.operations.map(([number, client, what, writes, call, ended, end, guilty]) =>
    ({ number, client, what, writes, call, ended, end, guilty }));

  // Who never takes part needs no lane.
  const busy = new Set(recording.named);
  for (const m of messages) if (m.kind !== CLIENT) busy.add(m.from);
  const hosts = [...spans.keys()].filter((host) => busy.has(host) || spans[host].some((s) => s.seen.role >= FOLLOWER));
  const clients = [...new Set(operations.map((op) => op.client))].sort((a, b) => a - b);
  const pitch = hosts.length <= 5 ? 74 : hosts.length <= 8 ? 60 : 50;
  const laneY = new Map();
  hosts.forEach((host, row) => laneY.set(host, TOP + pitch / 2 + row * pitch));
  const clientsTop = TOP + hosts.length * pitch + 12;
  clients.forEach((client, row) => laneY.set(recording.hosts + client, clientsTop + CLIENT_PITCH / 2 + row * CLIENT_PITCH));
  const height = clientsTop + clients.length * CLIENT_PITCH + 6;
  const laneName = (lane) => (lane < recording.hosts ? `n${lane + 1}` : `client ${lane - recording.hosts}`);

  // --- the axis ------------------------------------------------------------------------------

  // Squeezed, a wait takes as much room as the logarithm of its length: a message under way and an
  // election timeout a thousand times as long can both be seen.
  const room = (gap) => (squeezed ? Math.log1p(gap / 3e4) : gap / 1e6);
  function layOut() {
    const all = [recording.since, recording.until];
    for (const m of messages) {
      if (!shown.has(m.kind)) continue;
      all.push(m.at);
      for (const [at] of m.arrives) if (at <= recording.until) all.push(at);
    }
    for (const list of spans) {
      for (let i = 1; i < list.length; i++) {
        const [before, after] = [list[i - 1].seen, list[i].seen];
        const same = ['role', 'term', 'vote', 'run', 'paused', 'cutTo', 'cutFrom'].every((key) => before[key] === after[key]);
        if (!same) all.push(list[i].from);
      }
    }
    for (const op of operations) {
      if (op.call >= recording.since) all.push(op.call);
      if (op.ended !== null && op.ended <= recording.until) all.push(op.ended);
    }
    times = [...new Set(all)].sort((a, b) => a - b);
    places = [0];
    for (let i = 1; i < times.length; i++) places.push(places[i - 1] + room(times[i] - times[i - 1]));
    if (times.length === 1) { times.push(times[0] + 1); places.push(1); }
  }
  function among(list, value) {
    let low = 0, high = list.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (list[middle] <= value) low = middle; else high = middle;
    }
    return low;
  }
  function translate(value, from, to) {
    const i = among(from, value);
    const share = (value - from[i]) / Math.max(from[i + 1] - from[i], 1e-12);
    return to[i] + Math.min(Math.max(share, 0), 1) * (to[i + 1] - to[i]);
  }
  const placeOf = (time) => translate(time, times, places);
  const timeOf = (place) => translate(place, places, times);
  const whole = () => places[places.length - 1];
  let width = 1000;
  const scale = () => (width - LEFT - RIGHT) / (view[1] - view[0]);
  const x = (time) => LEFT + (placeOf(time) - view[0]) * scale();
  const clamp = (value) => Math.min(Math.max(value, LEFT), width - RIGHT);

  function show(from, to) {
    const margin = (to - from) * 0.02;
    const most = whole() + margin;
    let span = Math.min(Math.max(to - from, whole() / 5000, 1e-6), most + margin);
    from = Math.min(Math.max(from, -margin), most - span);
    view = [from, from + span];
    draw();
  }
  const zoom = (factor, at = (view[0] + view[1]) / 2) => show(at - (at - view[0]) * factor, at + (view[1] - at) * factor);
  const showAll = () => show(-whole() * 0.01, whole() * 1.02);
  function showEnd() {
    // As many moments as can be told apart.
    const first = places[Math.max(0, times.length - Math.max(40, Math.floor(width / 18)))];
    const span = whole() - first;
    show(first - span * 0.02, whole() + span * 0.06);
  }
  function showMoment(time) {
    here = time;
    const place = placeOf(time), span = view[1] - view[0];
    const inside = place > view[0] + span * 0.05 && place < view[1] - span * 0.05;
    if (inside) draw(); else show(place - span / 2, place + span / 2);
  }

  // --- drawing -------------------------------------------------------------------------------

  const escape = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
  const text = (px, py, words, kind, more = '') => `<text x="${px.toFixed(1)}" y="${py.toFixed(1)}" class="${kind}"${more}>${escape(words)}</text>`;
  const cross = (px, py, kind, size = 4) =>
    `<path class="cross ${kind}" d="M${(px - size).toFixed(1)} ${py - size}l${2 * size} ${2 * size}m0 ${-2 * size}l${-2 * size} ${2 * size}"/>`;
  const seconds = (time, digits = 6) => `${(time / 1e9).toFixed(digits)} s`;

  function drawAxis() {
    let out = '';
    const visible = timeOf(view[1]) - timeOf(view[0]);
    const digits = visible < 2e6 ? 6 : visible < 2e9 ? 4 : 3;
    for (let px = LEFT + 30; px < width - 40; px += 105) {
      const time = timeOf(view[0] + (px - LEFT) / scale());
      out += `<path class="axis" d="M${px} 16V${height}"/>` + text(px, 11, seconds(time, digits), 'tick', ' text-anchor="middle"');
    }
    return out;
  }

  function drawLane(host) {
    const y = laneY.get(host), list = spans[host];
    let under = '', bars = '', words = '', free = LEFT, freeBelow = LEFT, previous = null;
    const others = Math.max(hosts.length - 1, 1);
    const bits = (mask) => hosts.filter((other) => mask & (1 << other)).length;
    list.forEach((span, number) => {
      const { seen, from, to } = span;
      const before = previous;
      previous = seen;
      const [a, b] = [x(from), x(to)];
      if (b < LEFT || a > width - RIGHT) return;
      const [left, right] = [clamp(a), clamp(b)], wide = Math.max(right - left, 0.6);
      const away = (bits(seen.cutTo) + bits(seen.cutFrom)) / (2 * others);
      if (away > 0) {
        under += `<rect class="cut" fill-opacity="${(0.1 + 0.3 * away).toFixed(2)}" x="${left.toFixed(1)}" y="${y - pitch / 2 + 3}" width="${wide.toFixed(1)}" height="${pitch - 6}"/>`;
      }
      const index = `data-span="${host},${number}"`;
      if (seen.role === DOWN) {
        bars += `<path class="down" d="M${left.toFixed(1)} ${y}H${right.toFixed(1)}"/>`;
      } else {
        const thick = THICK[seen.role];
        bars += `<rect class="r${seen.role}" ${index} x="${left.toFixed(1)}" y="${y - thick / 2}" width="${wide.toFixed(1)}" height="${thick}"/>`;
        if (seen.paused) bars += `<rect fill="url(#hatch)" x="${left.toFixed(1)}" y="${y - 10}" width="${wide.toFixed(1)}" height="20"/>`;
        if (seen.lease) bars += `<rect class="lease" x="${left.toFixed(1)}" y="${y - thick / 2 - 4}" width="${wide.toFixed(1)}" height="2.5"/>`;
      }
      bars += `<path class="hit" ${index} d="M${left.toFixed(1)} ${y}H${right.toFixed(1)}"/>`;
      const fresh = a >= LEFT;
      if (before && fresh) {
        const died = before.role !== DOWN && (seen.role === DOWN || seen.run !== before.run);
        const began = seen.role !== DOWN && (before.role === DOWN || seen.run !== before.run);
        if (died) bars += cross(a, y, 'crash', 7);
        if (began && from > 0) bars += `<path class="start" d="M${a.toFixed(1)} ${y - 8}l11 8l-11 8z"/>`;
        if (seen.paused && !before.paused && a > freeBelow) { words += text(a + 2, y + 22, 'paused', ''); freeBelow = a + 44; }
      }
      // What it is, where it changes, and at the left edge.
      const changed = !before || before.role !== seen.role || before.term !== seen.term;
      if (seen.role !== DOWN && (changed || !fresh)) {
        const said = seen.role === FOLLOWER || seen.role === OUTSIDER ? `t${seen.term}` : `t${seen.term} ${ROLES[seen.role]}`;
        const short = `t${seen.term}`;
        const place = Math.max(left, LEFT) + 1;
        const what = right - place > said.length * 6.4 || (seen.role === LEADER && right > place + 30) ? said : short;
        const newTerm = !before || before.term !== seen.term || seen.role >= CANDIDATE;
        if (place >= free && (newTerm || !fresh)) {
          words += text(place, y - 15, what, 'term');
          free = place + what.length * 6.8 + 4;
        }
      }
      if (seen.role !== DOWN && before && fresh) {
        let what = '';
        const voted = seen.vote && (seen.vote !== before.vote || seen.term !== before.term) && before.role !== DOWN;
        if (voted && seen.vote !== host + 1) what = `→n${seen.vote}`;
        if (what && a + 1 >= freeBelow - 10) {
          words += text(Math.max(a + 1, freeBelow), y + 21, what, 'vote');
          freeBelow = Math.max(a + 1, freeBelow) + what.length * 7 + 6;
        }
        if (seen.commit > before.commit && before.role !== DOWN) {
          bars += `<path class="axis" style="stroke:var(--ink)" d="M${a.toFixed(1)} ${y - 4}v8"/>`;
          what = `c${seen.commit}`;
          if (a + 1 >= freeBelow) { words += text(a + 1, y + 21, what, 'commit'); freeBelow = a + what.length * 7 + 6; }
        }
      }
    });
    const accused = recording.named.includes(host) ? ' accused' : '';
    return [under, bars, words + text(8, y + 4, laneName(host), `name${accused}`)];
  }

  function drawNotes() {
    let out = '';
    recording.notes.forEach(([at, host, said], number) => {
      const px = x(at), y = host === null ? TOP - 8 : laneY.get(host);
      if (px < LEFT || px > width - RIGHT || y === undefined || at === 0) return;
      const up = host === null ? 0 : 11;
      out += `<circle class="note" data-note="${number}" cx="${px.toFixed(1)}" cy="${y + up}" r="2.4"/>`;
    });
    return out;
  }

  function brief(m) {
    if (m.grants) return m.kind === 0 ? 'would vote' : 'VOTE';
    const words = m.text.replace(/^@\d+ /, '');
    const entries = words.match(/entr(?:y|ies) (.*)$/);
    if (entries) return entries[1];
    const match = words.match(/^AppendEntriesReply match=(.*)$/);
    if (match) return `ok ${match[1]}`;
    const rejected = words.match(/rejected prev=(\d+)/);
    if (rejected) return `not ${rejected[1]}`;
    if (/Reply refused/.test(words)) return 'no';
    if (/^RequestVote/.test(words)) return 'vote?';
    if (/^PreVote/.test(words)) return 'pre-vote?';
    if (m.kind === CLIENT) return '';
    return words.split(' ')[0];
  }

  function drawMessages() {
    const visible = messages.filter((m) => {
      if (!shown.has(m.kind) || !laneY.has(m.from) || !laneY.has(m.to)) return false;
      const end = m.arrives.reduce((late, [at]) => Math.max(late, at), m.at);
      return x(m.at) <= width - RIGHT && x(Math.min(end, recording.until)) >= LEFT;
    });
    const worded = visible.filter((m) => m.kind !== CLIENT && m.kind !== 4).length <= 60;
    let lines = '', hits = '', words = '';
    for (const m of visible) {
      const [ax, ay, by] = [x(m.at), laneY.get(m.from), laneY.get(m.to)];
      const kind = `k${m.kind}`, thick = m.grants ? ' grants' : '';
      const ends = [];
      if (m.arrives.length === 0) {
        // It went some way, and no further.
        const [px, py] = [ax + 9, ay + (by - ay) * Math.min(0.5, 30 / Math.abs(by - ay) + 0.1)];
        lines += `<path class="message ${kind}" d="M${ax.toFixed(1)} ${ay}L${px.toFixed(1)} ${py.toFixed(1)}"/>` + cross(px, py, kind);
        ends.push([px, py]);
      }
      for (const [at, way] of m.arrives) {
        const late = at > recording.until;
        const bx = late ? x(recording.until) + 6 : x(at);
        const ty = late ? ay + (by - ay) * Math.max(0.15, (recording.until - m.at) / (at - m.at)) : by;
        lines += `<path class="message ${kind}${thick} ${WAYS[way]}" d="M${ax.toFixed(1)} ${ay}L${bx.toFixed(1)} ${ty.toFixed(1)}"/>`;
        const nobody = !late && m.to < recording.hosts && seenAt(m.to, at).role === DOWN;
        if (nobody) lines += cross(bx, by, kind, 5);
        else if (!late) lines += `<circle class="${kind}" style="fill:currentColor;color:var(--${kind})" cx="${bx.toFixed(1)}" cy="${by}" r="2.2"/>`;
        ends.push([bx, ty]);
      }
      for (const [px, py] of ends) hits += `<path class="hit" data-message="${m.number}" d="M${ax.toFixed(1)} ${ay}L${px.toFixed(1)} ${py.toFixed(1)}"/>`;
      if (worded && m.kind !== 4) {
        const [px, py] = ends[0], share = Math.min(0.3, 34 / Math.abs(py - ay || 1));
        const said = brief(m);
        if (said) words += text(ax + (px - ax) * share + 4, ay + (py - ay) * share + 3, said, 'said');
      }
    }
    return [lines, hits, words];
  }

  function drawOperations() {
    let out = '';
    clients.forEach((client) => {
      out += text(8, laneY.get(recording.hosts + client) + 4, `c${client}`, 'name');
    });
    operations.forEach((op, number) => {
      const y = laneY.get(recording.hosts + op.client);
      const [a, b] = [x(Math.max(op.call, recording.since)), x(op.ended === null ? recording.until : Math.min(op.ended, recording.until))];
      if (b < LEFT || a > width - RIGHT) return;
      const [left, wide] = [clamp(a), Math.max(clamp(b) - clamp(a), 2)];
      const kind = op.guilty ? 'guilty' : op.end;
      out += `<rect class="${kind}" data-operation="${number}" x="${left.toFixed(1)}" y="${y - 8}" width="${wide.toFixed(1)}" height="16" rx="3"/>`;
      const said = `${op.writes ? 'w' : 'r'} ${op.what}`;
      if (wide > said.length * 5.8 + 4) out += text(left + 4, y + 3.5, said, `inside${kind === 'open' ? ' faint' : ''}`, ` data-operation="${number}"`);
    });
    return out;
  }

  function draw() {
    width = Math.max(svg.clientWidth, 320);
    svg.setAttribute('height', height);
    svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    const lanes = hosts.map(drawLane);
    const [lines, hits, words] = drawMessages();
    let out = '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
      + '<path d="M0 0V6" style="stroke:var(--ink);stroke-width:2.5;opacity:.55"/></pattern></defs>';
    out += drawAxis() + lanes.map((lane) => lane[0]).join('') + lines + lanes.map((lane) => lane[1]).join('');
    out += drawOperations() + hits + drawNotes() + words + lanes.map((lane) => lane[2]).join('');
    if (here !== null) out += `<path class="here" d="M${x(here).toFixed(1)} 16V${height}"/>`;
    if (recording.violated !== null) {
      const px = x(recording.violated);
      if (px >= LEFT && px <= width) {
        out += `<path class="violated" d="M${px.toFixed(1)} 16V${height}"/>` + text(px - 4, 26, 'VIOLATED', 'violatedname', ' text-anchor="end"');
        for (const host of recording.named) {
          if (laneY.has(host)) out += `<circle cx="${px.toFixed(1)}" cy="${laneY.get(host)}" r="6" style="fill:var(--bad)"/>`;
        }
      }
    }
    svg.innerHTML = out;
    drawOverview();
  }

  function drawOverview() {
    const total = overview.clientWidth || width;
    const at = (place) => LEFT + (place / whole()) * (total - LEFT - RIGHT);
    let out = '';
    const row = 40 / Math.max(hosts.length, 1);
    hosts.forEach((host, number) => {
      for (const { seen, from, to } of spans[host]) {
        if (seen.role === DOWN) continue;
        const [a, b] = [at(placeOf(from)), at(placeOf(to))];
        const thick = seen.role >= CANDIDATE ? row * 0.85 : row * 0.35;
        out += `<rect class="r${seen.role}" x="${a.toFixed(1)}" y="${(2 + row * number + (row - thick) / 2).toFixed(1)}" width="${Math.max(b - a, 0.4).toFixed(1)}" height="${thick.toFixed(1)}"/>`;
      }
    });
    if (recording.violated !== null) out += `<path class="violated" d="M${at(placeOf(recording.violated)).toFixed(1)} 0V44"/>`;
    const [a, b] = [at(view[0]), at(view[1])];
    out += `<rect class="brush" x="${a.toFixed(1)}" y="0.5" width="${Math.max(b - a, 3).toFixed(1)}" height="43"/>`;
    overview.setAttribute('viewBox', `0 0 ${total} 44`);
    overview.innerHTML = out;
  }

  // --- details -------------------------------------------------------------------------------

  const list = (mask) => hosts.filter((host) => mask & (1 << host)).map(laneName).join(' ');
  function tellMessage(m) {
    const ways = ['', ' late', ' a second copy', ' mangled'];
    const ends = m.arrives.map(([at, way]) => {
      const gone = m.to < recording.hosts && at <= recording.until && seenAt(m.to, at).role === DOWN ? ', and nobody is there' : '';
      return `arrives${ways[way]} at ${seconds(at)} (+${((at - m.at) / 1e6).toFixed(3)} ms)${gone}`;
    });
    const end = ends.length ? ends.join('; ') : m.cut ? 'lost: the link is cut' : 'lost';
    return `${seconds(m.at)}  ${laneName(m.from)} → ${laneName(m.to)}: ${m.text}\n${end}`;
  }
  function tellSpan(host, number) {
    const { from, to, seen } = spans[host][number];
    const said = [`${seconds(from)} to ${seconds(to)}  ${laneName(host)}: ${ROLES[seen.role]}`];
    if (seen.role !== DOWN) {
      said.push(`term ${seen.term}, ${seen.vote ? `voted for n${seen.vote}` : 'has not voted'}, committed ${seen.commit}, last entry ${seen.last}@${seen.lastTerm}`);
    }
    if (seen.role !== DOWN) said.push(`members ${seen.group}`);
    if (seen.gains) said.push(`clock ${seen.gains > 0 ? 'gains' : 'loses'} ${Math.abs(seen.gains)} ppm`);
    if (seen.lease) said.push('holds a lease');
    if (seen.paused) said.push('paused');
    if (seen.cutTo) said.push(`its messages do not reach ${list(seen.cutTo)}`);
    if (seen.cutFrom) said.push(`does not hear ${list(seen.cutFrom)}`);
    if (seen.noClients) said.push('cut off from clients');
    return said.join('; ');
  }
  function tellOperation(op) {
    const end = op.ended === null ? 'still open' : `${op.end} at ${seconds(op.ended)} (+${((op.ended - op.call) / 1e6).toFixed(3)} ms)`;
    return `${seconds(op.call)}  client ${op.client} ${op.writes ? 'writes' : 'reads'}: ${op.what}, operation ${op.number}\n${end}${op.guilty ? '; part of the violation' : ''}`;
  }
  function tell(target) {
    const data = target.dataset;
    if (!data) return;
    for (const old of svg.querySelectorAll('.chosen')) old.remove();
    if (data.message) {
      detail.textContent = tellMessage(messages[data.message]);
      for (const path of svg.querySelectorAll(`.hit[data-message="${data.message}"]`)) {
        const copy = path.cloneNode();
        copy.setAttribute('class', 'chosen');
        copy.style.pointerEvents = 'none';
        path.parentNode.insertBefore(copy, path);
      }
    } else if (data.span) {
      detail.textContent = tellSpan(...data.span.split(',').map(Number));
    } else if (data.operation) {
      detail.textContent = tellOperation(operations[data.operation]);
    } else if (data.note) {
      const [at, host, said] = recording.notes[data.note];
      detail.textContent = `${seconds(at)}  ${host === null ? '' : laneName(host)} ${said}`;
    }
  }

  // --- hands ---------------------------------------------------------------------------------

  let grip = null;
  svg.addEventListener('pointerdown', (event) => { grip = { x: event.clientX, view: [...view] }; tell(event.target); });
  window.addEventListener('pointerup', () => { grip = null; });
  svg.addEventListener('pointermove', (event) => {
    if (!grip || !event.buttons) return tell(event.target);
    const moved = (grip.x - event.clientX) / scale();
    if (Math.abs(grip.x - event.clientX) > 4) show(grip.view[0] + moved, grip.view[1] + moved);
  });
  svg.addEventListener('wheel', (event) => {
    const px = event.clientX - svg.getBoundingClientRect().left;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      zoom(event.deltaY > 0 ? 1.25 : 0.8, view[0] + (px - LEFT) / scale());
    } else if (event.deltaX || event.shiftKey) {
      event.preventDefault();
      const moved = (event.deltaX || event.deltaY) / scale();
      show(view[0] + moved, view[1] + moved);
    }
  }, { passive: false });
  svg.addEventListener('keydown', (event) => {
    const step = (view[1] - view[0]) / 6;
    const does = {
      '+': () => zoom(0.7), '=': () => zoom(0.7), '-': () => zoom(1.4),
      ArrowLeft: () => show(view[0] - step, view[1] - step), ArrowRight: () => show(view[0] + step, view[1] + step),
      Home: showAll, End: showEnd,
    }[event.key];
    if (does) { event.preventDefault(); does(); }
  });
  const jump = (event) => {
    const box = overview.getBoundingClientRect();
    const place = ((event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT)) * whole();
    const half = (view[1] - view[0]) / 2;
    show(place - half, place + half);
  };
  overview.addEventListener('pointerdown', jump);
  overview.addEventListener('pointermove', (event) => { if (event.buttons) jump(event); });
  document.getElementById('in').onclick = () => zoom(0.6);
  document.getElementById('out').onclick = () => zoom(1.6);
  document.getElementById('all').onclick = showAll;
  document.getElementById('end').onclick = showEnd;
  const again = (change) => {
    // What is in the middle stays there.
    const [middle, share] = [timeOf((view[0] + view[1]) / 2), (view[1] - view[0]) / whole()];
    change();
    layOut();
    const place = placeOf(middle), half = (share * whole()) / 2;
    show(place - half, place + half);
  };
  document.getElementById('squeezed').onchange = (event) => again(() => { squeezed = event.target.checked; });
  for (const box of document.querySelectorAll('#filters input')) {
    const kind = Number(box.dataset.kind);
    if (box.checked) shown.add(kind);
    box.onchange = () => again(() => (box.checked ? shown.add(kind) : shown.delete(kind)));
  }
  for (const button of document.querySelectorAll('#clues button')) {
    button.onclick = () => { showMoment(Number(button.dataset.at)); svg.scrollIntoView({ block: 'nearest', behavior: 'smooth' }); };
  }
  const copy = document.getElementById('copy');
  copy.onclick = async () => {
    const command = document.getElementById('command');
    try {
      await navigator.clipboard.writeText(command.textContent);
      copy.textContent = 'copied';
    } catch {
      // A page from a file may not write to the clipboard: it is selected instead.
      getSelection().selectAllChildren(command);
    }
  };
  const clues = document.getElementById('clues');
  if (clues) clues.scrollTop = clues.scrollHeight;
  window.addEventListener('resize', draw);
  layOut();
  width = Math.max(svg.clientWidth, 320);
  showEnd();
})();
