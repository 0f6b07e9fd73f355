/** Ctrl-C: the first one calls off what runs, so that it ends in order; the second one leaves. */

/** Thrown where Ctrl-C left nothing to show. */
export class Interrupted extends Error {}

/** Calls `cancel` on the first Ctrl-C. `off` gives Ctrl-C back its usual meaning. */
export function onInterrupt(cancel: () => void): { readonly happened: boolean; off(): void } {
  let happened = false;
  const listener = () => {
    if (happened) process.exit(130);
    happened = true;
    cancel();
  };
  process.on('SIGINT', listener);
  return {
    get happened() {
      return happened;
    },
    off: () => void process.off('SIGINT', listener),
  };
}
