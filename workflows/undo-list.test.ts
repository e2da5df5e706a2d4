import { describe, expect, it } from 'vitest';
import { UndoList } from './undo-list.ts';

describe('undo list', () => {
  it('runs last in first out, goes on after a failure, and names it', async () => {
    const ran: string[] = [];
    const list = new UndoList();
    for (const name of ['leases', 'release', 'close'])
      list.push(name, async () => {
        ran.push(name);
        if (name === 'release') throw new Error('no answer');
      });
    const failures = await list.runAll();
    expect(ran).toEqual(['close', 'release', 'leases']);
    expect(failures.map((failure) => failure.name)).toEqual(['release']);
    expect(await list.runAll()).toEqual([]);
  });

  it('leaves out what was dropped', async () => {
    const ran: string[] = [];
    const list = new UndoList();
    list.push('leases', async () => void ran.push('leases'));
    list.push('close', async () => void ran.push('close'));
    list.drop('close');
    await list.runAll();
    expect(ran).toEqual(['leases']);
  });
});
