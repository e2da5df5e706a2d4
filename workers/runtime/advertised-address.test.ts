import { expect, test } from 'vitest';
import { advertised } from './advertised-address.ts';

const addresses = ['192.0.2.1', '10.20.0.7', '2001:db8::7'];

test('who listens everywhere is told by all its addresses, that of the first preferred network first', () => {
  const at = (host: string, preferred: string[]) => advertised({ host, port: 7 }, preferred, addresses);
  expect(at('0.0.0.0', ['10.30.0.0/16', '10.20.0.0/16'])).toEqual({
    host: '10.20.0.7',
    port: 7,
    others: ['192.0.2.1'],
  });
  expect(at('::', ['2001:db8::/32'])).toEqual({ host: '2001:db8::7', port: 7, others: ['192.0.2.1', '10.20.0.7'] });
  expect(at('0.0.0.0', [])).toEqual({ host: '192.0.2.1', port: 7, others: ['10.20.0.7'] });
  expect(advertised({ host: '0.0.0.0', port: 7 }, [], ['192.0.2.1'])).toEqual({ host: '192.0.2.1', port: 7 });
});

test('who listens at one address is told by that', () => {
  const at = { host: '192.0.2.1', port: 7 };
  expect(advertised(at, ['10.20.0.0/16'], addresses)).toEqual(at);
  expect(advertised({ host: '::', port: 7 }, [], [])).toEqual({ host: '::', port: 7 });
});
