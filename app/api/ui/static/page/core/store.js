// A value that several components share.

import { useEffect, useState } from "./html.js";

export function createStore(initial) {
  let value = initial;
  const listeners = new Set();
  return {
    get: () => value,
    set(changes) {
      value = { ...value, ...changes };
      for (const listener of [...listeners]) listener(value);
    },
    // In a component: the value now, and a new rendering at each change.
    use() {
      const [current, show] = useState(value);
      useEffect(() => {
        listeners.add(show);
        show(value);
        return () => listeners.delete(show);
      }, []);
      return current;
    },
  };
}
