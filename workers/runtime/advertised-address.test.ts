import { expect, test } from 'vitest';
import { advertised } from './advertised-address.ts';

const addresses = ['192.0.2.1', '10.20.0.7', '2001:db8::7'];

test('who listens everywhere is told by the address of the first preferred network it has', () => {
  const preferred = ['10.30.0.0/16', '10.20.0.0/16'];
  expect(advertised({ host: '0.0.0.0', port: 7 }, preferred, addresses)).toEqual({ host: '10.20.0.7', port: 7 });
  expect(advertised({ host: '::', port: 7 }, ['2001:db8::/32'], addresses)).toEqual({ host: '2001:db8::7', port: 7 });
  expect(advertised({ host: '0.0.0.0', port: 7 }, [], addresses)).toEqual({ host: '192.0.2.1', port: 7 });
});

test('who listens at one address, or at a socket, is told by that', () => {
  for (const at of [{ host: '192.0.2.1', port: 7 }, { unix: '/run/mover' }])
    expect(advertised(at, ['10.20.0.0/16'], addresses)).toEqual(at);
  expect(advertised({ host: '::', port: 7 }, [], [])).toEqual({ host: '::', port: 7 });
});
