/** The production form is only parsed here: no container engine runs in the tests. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, test } from 'vitest';
import { parseDocument } from 'yaml';

type Service = { image: string; secrets?: string[]; ports?: string[]; depends_on?: string[] | Record<string, unknown> };

const root = path.resolve(import.meta.dirname, '../..');

test('docker-compose.yml parses, and its services, secrets and files hang together', async () => {
  const document = parseDocument(await readFile(path.join(root, 'docker-compose.yml'), 'utf8'), { merge: true });
  expect(document.errors).toEqual([]);
  const compose = document.toJS() as { services: Record<string, Service>; secrets: Record<string, unknown> };
  for (const [name, service] of Object.entries(compose.services)) {
    const needs = Array.isArray(service.depends_on) ? service.depends_on : Object.keys(service.depends_on ?? {});
    expect(Object.keys(compose.services), `${name} depends on`).toEqual(expect.arrayContaining(needs));
    expect(Object.keys(compose.secrets), `${name} uses secrets`).toEqual(expect.arrayContaining(service.secrets ?? []));
    for (const port of service.ports ?? [])
      expect(port, `${name} listens beyond the loopback`).toMatch(/^127\.0\.0\.1:/);
  }
});
