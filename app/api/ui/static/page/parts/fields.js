// Input fields of a form, from their description: {name, label, type, value, help, options, min, max}.

import { html } from "../core/html.js";

export function initialValues(fields = []) {
  return Object.fromEntries(fields.map(({ name, value }) => [name, value]));
}

export function Fields({ fields, values, onChange }) {
  return fields.map((field) => html`
    <${Field} key=${field.name} field=${field} value=${values[field.name]} onChange=${(value) => onChange({ [field.name]: value })} />`);
}

function Field({ field, value, onChange }) {
  const { name, label, type = "text", help, options, ...limits } = field;
  const id = `field-${name}`;
  const described = help ? `${id}-help` : undefined;
  const note = help && html`<small id=${described}>${help}</small>`;
  if (type === "checkbox") {
    return html`
      <label class="field check"><input id=${id} type="checkbox" checked=${value} aria-describedby=${described}
        onChange=${(event) => onChange(event.target.checked)} /> <span>${label}${note}</span></label>`;
  }
  const control = { id, "aria-describedby": described, value: value ?? "" };
  return html`
    <div class="field">
      <label for=${id}>${label}</label>
      ${type === "select" && html`<select ...${control} onChange=${(event) => onChange(event.target.value)}>
        ${options.map(([given, text]) => html`<option key=${given} value=${given}>${text}</option>`)}</select>`}
      ${type === "lines" && html`<textarea ...${control} rows="3" spellcheck=${false} onInput=${(event) => onChange(event.target.value)}></textarea>`}
      ${(type === "text" || type === "number") && html`<input ...${control} ...${attributes(limits)} type=${type} autocomplete="off" spellcheck=${false}
        onInput=${(event) => onChange(type === "number" ? numberOf(event.target) : event.target.value)} />`}
      ${note}
    </div>`;
}

const ATTRIBUTES = ["min", "max", "step", "required", "placeholder", "maxlength"];

function attributes(given) {
  return Object.fromEntries(ATTRIBUTES.filter((name) => name in given).map((name) => [name, given[name]]));
}

// Empty: not given.
function numberOf(input) {
  return Number.isNaN(input.valueAsNumber) ? undefined : input.valueAsNumber;
}
