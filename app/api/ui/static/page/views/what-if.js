// "What if callers had to wait less?": the advisor's answer from a pool's last minutes.

import { send } from "../core/api.js";
import { percent } from "../core/format.js";
import { html, useState } from "../core/html.js";
import { CopyAsCurl } from "../parts/copy.js";

export function WhatIf({ tenant }) {
  const [late, setLate] = useState(50);
  const [share, setShare] = useState(1);
  const [answer, setAnswer] = useState(null);
  const body = { tenant, rule: "demand", late_ms: Number(late), late_share: share / 100 };
  const request = { method: "POST", path: "v1/advisor/evaluate", body };
  const evaluate = async (event) => {
    event.preventDefault();
    setAnswer(await send(request).then(({ document }) => document, (error) => ({ reason: error.message })));
  };
  return html`
    <details class="what-if">
      <summary>What if …</summary>
      <form onSubmit=${evaluate}>
        <span>at most <input type="number" aria-label="percent of callers" min="0.1" max="100" step="0.1" required value=${share}
          onInput=${(event) => setShare(event.target.value)} /> % of callers may wait longer than${" "}
          <input type="number" aria-label="milliseconds" min="1" max="60000" required value=${late}
            onInput=${(event) => setLate(event.target.value)} /> ms?</span>
        <span class="buttons"><button>Evaluate</button><${CopyAsCurl} request=${request} /></span>
      </form>
      <p role="status">${answer && html`${answer.new_size !== undefined && html`<b>${answer.current_size} → ${answer.new_size} connections.</b> `}${answer.reason}
        ${answer.expected && html` ${effect(answer.expected)}`}`}</p>
    </details>`;
}

export function effect({ late_share_before, late_share_after }) {
  if (late_share_before === null || late_share_after === null) return "";
  return `Late callers: ${percent(late_share_before)} at this size, ${percent(late_share_after)} at the new one.`;
}
