/** `chord chat`: one answer to a message, or a conversation, a turn for each line of stdin. */

import { createInterface } from 'node:readline';
import type { Session } from '../../../index.js';
import { isChordError } from '../index.js';
import { answer, printFigures, summary } from './answer.js';
import { chatOptions, type Flags } from './flags.js';
import { type Opened, open, readInput } from './open.js';
import { colours, printError, printJson, printNote } from './terminal.js';

/** The exit status. */
export async function chat(path: string, given: string | undefined, flags: Flags): Promise<number> {
  const message = given === '-' ? await readInput() : given;
  const opened = await open(path, flags);
  try {
    const system = flags['system'] as string | undefined;
    const messages = system === undefined ? [] : [{ role: 'system' as const, content: system }];
    const session = opened.model.createSession({ messages });
    if (message !== undefined) return await turn(opened, session, message, flags);
    return await converse(opened, session, flags);
  } finally {
    await opened.model.close();
  }
}

/** Asks and answers until the input ends; a person's Ctrl-C ends an answer, not the talk. */
async function converse(opened: Opened, session: Session, flags: Flags): Promise<number> {
  if (process.stdin.isTTY) {
    printNote('Ctrl-C ends an answer, Ctrl-D the conversation.');
    return keyboard(opened, session, flags);
  }
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() === '') continue;
    const code = await turn(opened, session, line, flags);
    if (code !== 0) return code;
  }
  return 0;
}

async function keyboard(opened: Opened, session: Session, flags: Flags): Promise<number> {
  const history: string[] = [];
  for (;;) {
    const line = await ask(history);
    if (typeof line !== 'string') return line.code;
    if (line.trim() === '') continue;
    try {
      await turn(opened, session, line, flags);
    } catch (error) {
      // A turn that fails is taken back: with other words the talk can go on.
      if (opened.model.closed || !isChordError(error)) throw error;
      printError(error.message);
    }
  }
}

async function turn(
  opened: Opened,
  session: Session,
  message: string,
  flags: Flags,
): Promise<number> {
  const start = () => session.chat(message, chatOptions(flags));
  const { result, interrupted } = await answer(start, Boolean(flags.json));
  if (flags.json) printJson(summary(opened, result));
  else printFigures(opened, result);
  return interrupted ? 130 : 0;
}

/**
 * One line from the keyboard, or the exit status that its absence means. The reader lives for one
 * question: while an answer runs, Ctrl-C has to be a signal again.
 */
function ask(history: string[]): Promise<string | { code: number }> {
  return new Promise((resolve) => {
    const streams = { input: process.stdin, output: process.stderr };
    const reader = createInterface({ ...streams, history: [...history], terminal: true });
    const finish = (outcome: string | { code: number }) => {
      resolve(outcome);
      reader.close();
    };
    reader.on('SIGINT', () => finish({ code: 130 }));
    reader.on('close', () => {
      process.stdin.pause();
      resolve({ code: 0 });
    });
    reader.question(colours(process.stderr).bold('> '), (line) => {
      if (line.trim() !== '') history.unshift(line);
      finish(line);
    });
  });
}
