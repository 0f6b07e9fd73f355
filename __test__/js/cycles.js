// Models that come and go in a process of their own: what that leaves behind.
'use strict';

const { script } = require('./common.js');

/**
 * Runs `count` cycles to warm up, then as many again. Of memory it takes the least that was in use
 * after a late cycle of each half: what comes and goes by chance only ever adds to that.
 */
async function cycles(count) {
  const body = `
    const fs = require('node:fs');
    const linux = process.platform === 'linux';
    const list = (folder) => linux ? fs.readdirSync('/proc/self/' + folder).length : 0;
    const cycle = async () => {
      const model = await chord.loadModel(MODEL);
      const session = model.createSession();
      const options = { maxTokens: 8 };
      await Promise.all([session.chat('Hi', options), model.generate('x', options)]);
      await model.close();
    };
    const half = async () => {
      let mb = Infinity;
      for (let i = 0; i < ${count}; i++) {
        await cycle();
        if (i % 10 === 9) await new Promise((resolve) => setTimeout(resolve, 20));
        if (i < ${count} / 2) continue;
        gc();
        mb = Math.min(mb, process.memoryUsage().rss / 1e6);
      }
      return { mb, fds: list('fd'), threads: list('task') };
    };
    (async () => console.log(JSON.stringify([await half(), await half()])))();`;
  const flags = ['--expose-gc', '--max-semi-space-size=1'];
  const { stdout, stderr } = await script(body, { flags, limit: 240_000 });
  if (!stdout) throw new Error(stderr);
  const [before, after] = JSON.parse(stdout);
  return { before, after, perCycleKb: (1000 * (after.mb - before.mb)) / count };
}

module.exports = { cycles };
