// Data of one view: fetched when it is shown, when its filters change, and again with the page's own.

import { Problem } from "./api.js";
import { useEffect, useRef, useState } from "./html.js";
import { live, report } from "./live.js";

// Asked again, it would be refused again, and each refusal is in the service's log.
const isRefused = (problem) => problem !== null && problem.status >= 400 && problem.status < 500 && problem.status !== 401;

// *every*: with every so manyth refresh of the page, and after each change made here. What was fetched stays until its successor is there; a
// slower, earlier response is dropped.
export function useResource(load, inputs, { every = 1 } = {}) {
  const { tick, changes } = live.use();
  const [state, setState] = useState({ data: null, problem: null, isLoading: true });
  const latest = useRef({ load: 0, inputs: "", tick, changes });
  const reload = () => {
    const number = (latest.current.load += 1);
    return load().then(
      (data) => number === latest.current.load && setState({ data, problem: null, isLoading: false }),
      (error) => {
        if (!(error instanceof Problem)) throw error;
        if (error.status === 401) report(error);
        else if (number === latest.current.load) {
          setState(({ data }) => ({ data, problem: error, isLoading: false }));
        }
      },
    );
  };
  const key = JSON.stringify(inputs);
  useEffect(() => {
    if (latest.current.inputs === key) return;
    latest.current.inputs = key;
    setState(({ data }) => ({ data, problem: null, isLoading: true }));
    reload();
  });
  useEffect(() => {
    const before = latest.current;
    const isDue = tick !== before.tick && tick % every === 0 && !isRefused(state.problem);
    const isChanged = changes !== before.changes;
    Object.assign(before, { tick, changes });
    if (isDue || isChanged) reload();
  }, [tick, changes]);
  return { ...state, reload };
}
