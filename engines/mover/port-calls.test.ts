import { once } from 'node:events';
import { MessageChannel } from 'node:worker_threads';
import { expect, onTestFinished, test } from 'vitest';
import { openPortCalls } from './port-calls.ts';

test('what was given up is not heard any more: it would take what nobody gives back for it', async () => {
  const { port1, port2 } = new MessageChannel();
  onTestFinished(() => port1.close());
  const heard: string[] = [];
  const ours = openPortCalls(port1, { beginRequest: () => heard.push('call') }, (name) => heard.push(name));
  const theirs = openPortCalls(port2, {});
  theirs.notify('before', null);
  await once(port1, 'message');
  ours.fail(new Error('gone'));
  theirs.call('beginRequest').catch(() => undefined);
  theirs.notify('after', null);
  for (let more = 0; more < 2; more += 1) await once(port1, 'message');
  expect(heard).toEqual(['before']);
});
