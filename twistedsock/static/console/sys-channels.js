/**
 * What the views follow of the bridge's own channels. Nothing is read that nobody looks at: a view ends what it follows when
 * it is left, and a tab that is hidden for a while ends all of it, so that the bridge need not work out what nobody sees.
 */

/** Milliseconds a tab is hidden before it stops reading: who only looks something up elsewhere finds nothing missing. */
export const UNSUBSCRIBE_AFTER_MS = 20_000;

/**
 * @param {object} world
 * @param {import('../sockbridge.js').Client} world.client
 * @param {Document} world.document
 * @param {(error: Error) => void} world.refused the bridge does not let us read one
 * @param {() => void} world.accepted it does
 * @param {(then: () => void, delay: number) => any} [world.setTimeout]
 * @param {(timer: any) => void} [world.clearTimeout]
 */
export function buildSysChannels({ client, document, refused, accepted, setTimeout = globalThis.setTimeout, clearTimeout = globalThis.clearTimeout }) {
  const followed = new Set();
  let asleep = false;
  let timer;

  function begin(following) {
    following.subscription = client.subscribe(following.channel, (event) => following.told(event.data, event), {
      last: following.last,
      onSubscribed() { if (!following.aside) accepted(); },
      onRefused(error) {
        following.subscription = undefined;
        if (!following.aside) refused(error);
      },
    });
  }

  function end(following) {
    following.subscription?.unsubscribe();
    following.subscription = undefined;
  }

  /** Begins anew what was ended or refused. */
  function resume() {
    if (asleep) return;
    for (const following of followed) if (!following.subscription) begin(following);
  }

  document.addEventListener('visibilitychange', () => {
    clearTimeout(timer);
    if (document.visibilityState === 'visible') {
      asleep = false;
      resume();
      return;
    }
    timer = setTimeout(() => {
      asleep = true;
      for (const following of followed) end(following);
    }, UNSUBSCRIBE_AFTER_MS);
  });

  return {
    resume,
    /**
     * @param {string} channel
     * @param {(data: any, event: object) => void} told
     * @param {number} [last] events of the log to begin with
     * @param {boolean} [aside] whether there is enough to see without it
     * @returns {() => void} ends it
     */
    follow(channel, told, last = 1, aside = false) {
      const following = { channel, told, last, aside, subscription: undefined };
      followed.add(following);
      if (!asleep) begin(following);
      return () => {
        followed.delete(following);
        end(following);
      };
    },
  };
}

/** Calls `draw` with the next frame, once, however often it is asked to. In a hidden tab no frame comes, and none is missed. */
export function oncePerFrame(draw) {
  let scheduled = false;
  return () => {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      draw();
    });
  };
}
