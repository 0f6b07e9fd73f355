/** Conversations: checked copies of what the caller gives, and the form that templates expect. */

import type * as api from '../../index.js';
import type { Check } from './check.js';
import * as is from './check.js';
import { failure, invalidArg, invalidText } from './errors.js';

const ROLES = ['system', 'developer', 'user', 'assistant', 'tool'] as const;

/** A string is one user message. */
export function conversation(value: unknown, name: string): readonly api.Message[] {
  if (typeof value === 'string') {
    return [Object.freeze({ role: 'user', content: is.wellFormed(value) })];
  }
  if (!Array.isArray(value)) throw invalidArg(name, 'a string or an array of messages', value);
  return messages(value, name);
}

/** Checks and copies messages; the copies are frozen all the way down. */
export const messages: Check<readonly api.Message[]> = (value, name) => {
  if (!Array.isArray(value)) throw invalidArg(name, 'an array of messages', value);
  return Object.freeze(value.map((item, index) => message(item, `${name}[${index}]`)));
};

/** What `chat` can answer: at least one message. */
export function notEmpty(list: readonly api.Message[], name: string): void {
  if (list.length === 0) throw invalidText(name, 'at least one message', 'none');
}

/**
 * The form that chat templates know, as JSON: reasoning in `reasoning_content`, calls in
 * `tool_calls`, content as one string.
 */
export function forTemplate(list: readonly api.Message[]): string {
  return JSON.stringify(list.map(templateMessage));
}

function message(value: unknown, name: string): api.Message {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalidArg(name, 'a message such as { role, content }', value);
  }
  const given = value as Record<string, unknown>;
  const role = is.oneOf(...ROLES)(given['role'], `${name}.role`);
  const content = given['content'];
  const place = `${name}.content`;
  switch (role) {
    case 'system':
    case 'developer':
      return Object.freeze({ role, content: is.string(content, place) });
    case 'user':
      return Object.freeze({ role, content: parts(content, place, userPart) });
    case 'assistant':
      return Object.freeze({ role, content: parts(content, place, assistantPart) });
    case 'tool':
      return toolMessage(given, name);
  }
}

function toolMessage(given: Record<string, unknown>, name: string): api.Message {
  const result = {
    role: 'tool' as const,
    id: is.string(given['id'], `${name}.id`),
    name: is.string(given['name'], `${name}.name`),
    content: is.string(given['content'], `${name}.content`),
  };
  const isError = given['isError'];
  if (isError === undefined) return Object.freeze(result);
  return Object.freeze({ ...result, isError: is.boolean(isError, `${name}.isError`) });
}

function parts<T>(value: unknown, name: string, part: Check<T>): string | readonly T[] {
  if (typeof value === 'string') return is.wellFormed(value);
  if (!Array.isArray(value)) throw invalidArg(name, 'a string or an array of parts', value);
  return Object.freeze(value.map((item, index) => part(item, `${name}[${index}]`)));
}

function userPart(value: unknown, name: string): { type: 'text'; text: string } {
  const given = is.optionsObject(value ?? null, name);
  const type = given['type'];
  if (type === 'image' || type === 'audio') {
    const feature = `${type} input`;
    const message = `${name}: this model cannot take ${feature}; give text parts alone`;
    throw failure('ERR_UNSUPPORTED', message, { feature });
  }
  if (type !== 'text') throw invalidArg(`${name}.type`, "'text'", type);
  return Object.freeze({ type, text: is.string(given['text'], `${name}.text`) });
}

type AssistantPart = { type: 'text' | 'reasoning'; text: string } | api.ToolCall;

function assistantPart(value: unknown, name: string): AssistantPart {
  const given = is.optionsObject(value ?? null, name);
  const type = is.oneOf('text', 'reasoning', 'tool-call')(given['type'], `${name}.type`);
  if (type !== 'tool-call') {
    return Object.freeze({ type, text: is.string(given['text'], `${name}.text`) });
  }
  return Object.freeze({
    type,
    id: is.string(given['id'], `${name}.id`),
    name: is.string(given['name'], `${name}.name`),
    args: json(given['args'], `${name}.args`),
  });
}

/** A deep, frozen copy of a JSON value. */
function json(value: unknown, name: string): unknown {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch {
    text = undefined;
  }
  if (text === undefined) throw invalidArg(name, 'a JSON value', value);
  return JSON.parse(text, (key, item: unknown) => Object.freeze(is.wellFormedItem(key, item)));
}

function templateMessage(item: api.Message): Record<string, unknown> {
  if (item.role === 'tool') {
    return { role: 'tool', tool_call_id: item.id, name: item.name, content: item.content };
  }
  const { role, content } = item;
  if (typeof content === 'string') return { role, content };
  const list: readonly ({ type: 'text' | 'reasoning'; text: string } | api.ToolCall)[] = content;
  const texts = (type: string) =>
    list.flatMap((part) => (part.type === type && 'text' in part ? [part.text] : []));
  const result: Record<string, unknown> = { role, content: texts('text').join('\n') };
  const reasoning = texts('reasoning').join('\n');
  if (reasoning !== '') result['reasoning_content'] = reasoning;
  const calls = list.flatMap((part) => (part.type === 'tool-call' ? [part] : []));
  if (calls.length > 0) {
    result['tool_calls'] = calls.map(({ id, name, args }) => {
      return { type: 'function', id, function: { name, arguments: args } };
    });
  }
  return result;
}
