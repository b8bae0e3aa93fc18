/** The workers of a server, or the servers on one Redis: state, clients, load, and how often they were started again. */

import { byId } from '../dom.js';
import { loadOf } from './series.js';
import { buildTable, write } from './table.js';
import { age, bytes, count, percent } from './units.js';

/** A process of `$sys/figures` in words. The ids of its clients begin with its name. Servers have a `host`. */
export function inWords({ name, host }) {
  if (host !== undefined) return host ? `${name} on ${host}` : name;
  return name === 'hub' ? 'hub' : `worker ${name}`;
}

export function buildProcesses() {
  let before;
  let load = new Map();
  const running = (draw) => (cell, row) => write(cell, row.is_running ? draw(row) : '–');
  const table = buildTable({
    box: byId('processes-box'),
    keyOf: ({ name }) => name,
    ordered() {},
    columns: [
      { title: 'Process', name: 'name', draw: (cell, row) => write(cell, inWords(row)) },
      {
        title: 'State',
        name: 'process-state',
        draw(cell, { is_running: runs }) {
          cell.dataset.level = runs ? 'good' : 'bad';
          write(cell, runs ? 'running' : 'no answer');
        },
      },
      { title: 'Clients', name: 'number', draw: running(({ name, peers }) => (name === 'hub' ? '–' : count(peers))) },
      { title: 'CPU', name: 'number', draw: running(({ name }) => (load.get(name) === undefined ? '–' : percent(load.get(name)))) },
      { title: 'Memory', name: 'number less', draw: running(({ memory_bytes: size }) => bytes(size)) },
      { title: 'Running for', name: 'number less', draw: running(({ uptime }) => age(uptime)) },
      { title: 'Restarts', name: 'number less', draw: running(({ restarts }) => count(restarts)) },
    ],
  });
  return {
    /** Shows an event of `$sys/figures`. A server with one process has no list. */
    show(figures) {
      byId('processes').hidden = !figures.processes;
      table.setOrder('', 'Processes');
      if (!figures.processes) return;
      load = loadOf(before, figures);
      before = figures;
      table.show(figures.processes);
    },
  };
}
