/** Audits of change tracking, as source and target hold them before a transfer. */
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { encodeMessage } from '../../schema/wire/messages.ts';
import { orderOf } from '../../tests/fixtures/mover/disks.ts';
import { expectedMap } from '../../tests/fixtures/mover/memory-repository.ts';
import { MIB, moverWorld } from '../../tests/fixtures/mover/mover-world.ts';
import { backupHello, offerFrame } from '../../tests/fixtures/mover/raw-client.ts';
import type { TransferProgress } from './source/pool.ts';

const world = moverWorld();

describe('an audit', () => {
  const sizeBytes = 6 * MIB + 7;
  /** Blocks 1 and 4 are changed, 2 is zeros, 5 has to be read for another reason, 6 is the short end. */
  const auditOrder = async () => {
    const file = await world.randomDisk('disk', sizeBytes);
    const disk = (await readFile(file)).fill(0, 2 * MIB, 3 * MIB);
    await writeFile(file, disk);
    const changed = [
      { offset: MIB + 5, length: 1 },
      { offset: 4 * MIB, length: MIB },
    ];
    const alsoRead = [{ offset: 5 * MIB, length: MIB }];
    world.repository.auditSteps = [
      [6, 0, 1],
      [2, 5, 4, 3],
    ];
    const { endpoint } = await world.start();
    return orderOf({ disk: { file, changed }, sizeBytes, blockSize: MIB, mode: 'cbt', alsoRead, endpoint });
  };

  test('tells what unchanged blocks hold, before anything is sent, and how far it is', async () => {
    const order = await auditOrder();
    const beats: (TransferProgress['audit'] & object)[] = [];
    const summary = await world.pool.transfer({
      ...order,
      onProgress: ({ audit, windowsAcked }) => {
        if (audit && windowsAcked === 0) beats.push(audit);
      },
    });
    const [first, second] = world.repository.auditAnswers;
    expect([first!.classes, second!.classes]).toEqual([
      ['data', 'data', 'changed'],
      ['zero', 'changed', 'changed', 'data'],
    ]);
    const map = await expectedMap(path.join(world.folder, 'disk'), MIB);
    const digests = Buffer.concat([first!.digests, second!.digests]).toString('hex');
    expect(digests).toBe([map[6], map[0], map[3]].join(''));
    expect(beats).toEqual(expect.arrayContaining([0, 3, 7].map((audited) => ({ audited, wanted: 7 }))));
    // What it reads is not the transfer's, and nobody walks over what changed for a disk so small.
    expect([summary.readBytes, world.repository.changedBytes]).toEqual([3 * MIB, 0]);
  });

  test('that finds something ends the transfer before any window', async () => {
    const order = await auditOrder();
    world.repository.auditFailure = new TidemarkError('AUDIT_MISMATCH', 'block 3 has changed');
    await expect(world.pool.transfer(order)).rejects.toMatchObject({
      code: 'AUDIT_MISMATCH',
      message: 'block 3 has changed',
    });
    expect(world.repository.windows.size).toBe(0);
  });

  test('whose connection is lost is made again', async () => {
    const order = await auditOrder();
    const [first] = world.repository.auditSteps;
    world.repository.auditFailure = new TidemarkError('UNREACHABLE', 'the target is going down');
    const summary = await world.pool.transfer({
      ...order,
      onProgress: () => {
        if (world.repository.auditAnswers.length < 2) return;
        world.repository.auditFailure = null;
      },
    });
    expect([summary.reconnects > 0, summary.windowsSent, first]).toEqual([true, 1, [6, 0, 1]]);
  });

  test('comes first: before it nothing of the disk is taken, and after it none', async () => {
    await auditOrder();
    const offer = offerFrame({ window: 0, firstBlock: 0, classes: ['zero'], digests: Buffer.alloc(0) });
    const untouched = encodeMessage({ type: 'untouched', firstWindow: 0, count: 1 });
    for (const frame of [offer, untouched]) {
      const client = await world.laneClient();
      client.send(backupHello(sizeBytes, MIB));
      expect(await client.next('welcome')).toMatchObject({ auditDue: true });
      client.send(frame);
      const message = expect.stringContaining('until the audit is over') as string;
      expect(await client.next('error')).toMatchObject({ code: 'PROTOCOL_ERROR', message });
    }
    world.repository.auditSteps = [];
    const client = await world.laneClient();
    client.send(backupHello(sizeBytes, MIB));
    expect(await client.next('welcome')).toMatchObject({ auditDue: false });
    client.send(encodeMessage({ type: 'audit', changedBytes: 0 }));
    expect(await client.next('error')).toMatchObject({ code: 'PROTOCOL_ERROR' });
  });
});
