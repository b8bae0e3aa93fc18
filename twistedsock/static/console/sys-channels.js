/**
 * Subscriptions of the views to channels under `$sys/`. The server computes their content only for subscribers. Therefore a
 * view unsubscribes when it is closed, and a tab that is hidden for a while ends all subscriptions.
 */

/** Milliseconds after which a hidden tab unsubscribes. A user who returns sooner finds nothing missing. */
export const UNSUBSCRIBE_AFTER_MS = 20_000;

/**
 * @param {object} world
 * @param {import('../sockbridge.js').Client} world.client
 * @param {Document} world.document
 * @param {(error: Error) => void} world.refused called when the server rejects a subscription
 * @param {() => void} world.accepted called when the server confirms a subscription
 * @param {(then: () => void, delay: number) => any} [world.setTimeout]
 * @param {(timer: any) => void} [world.clearTimeout]
 */
export function buildSysChannels({ client, document, refused, accepted, setTimeout = globalThis.setTimeout, clearTimeout = globalThis.clearTimeout }) {
  const entries = new Set();
  let paused = false;
  let timer;

  function start(entry) {
    entry.subscription = client.subscribe(entry.channel, (event) => entry.callback(event.data, event), {
      last: entry.last,
      onSubscribed() { if (!entry.optional) accepted(); },
      onRefused(error) {
        entry.subscription = undefined;
        if (!entry.optional) refused(error);
      },
    });
  }

  function stop(entry) {
    entry.subscription?.unsubscribe();
    entry.subscription = undefined;
  }

  /** Starts the subscriptions again that were ended or rejected. */
  function resume() {
    if (paused) return;
    for (const entry of entries) if (!entry.subscription) start(entry);
  }

  document.addEventListener('visibilitychange', () => {
    clearTimeout(timer);
    if (document.visibilityState === 'visible') {
      paused = false;
      resume();
      return;
    }
    timer = setTimeout(() => {
      paused = true;
      for (const entry of entries) stop(entry);
    }, UNSUBSCRIBE_AFTER_MS);
  });

  return {
    resume,
    /**
     * @param {string} channel
     * @param {(data: any, event: object) => void} callback
     * @param {number} [last] number of events from the history
     * @param {boolean} [optional] ignores a rejection, because the view works without this channel
     * @returns {() => void} unsubscribes
     */
    subscribe(channel, callback, last = 1, optional = false) {
      const entry = { channel, callback, last, optional, subscription: undefined };
      entries.add(entry);
      if (!paused) start(entry);
      return () => {
        entries.delete(entry);
        stop(entry);
      };
    },
  };
}
