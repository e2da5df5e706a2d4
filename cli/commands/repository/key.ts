import type { Command } from 'commander';
import type { AddKeyOptions, KeyOptions } from '../../actions/repository-keys.ts';
import { example, withCommon } from '../../command-options.ts';
import { runCommand } from '../../run-command.ts';

const load = () => import('../../actions/repository-keys.ts');

/** Below `tidemark repository`. */
export function registerKey(repository: Command): void {
  const key = repository.command('key').description('keys of an encrypted repository, changed while backups go on');
  registerList(key);
  registerAdd(key);
  registerRemove(key);
  registerRotate(key);
  registerNewFile(key);
}

function registerList(key: Command): void {
  const list = key
    .command('list')
    .description('its key slots and data keys; nothing that is shown is secret')
    .argument('<repository>');
  withCommon(list, 'slots and data keys').action(
    runCommand(async (name: string, options: KeyOptions) => (await load()).listKeys(name, options)),
  );
  example(list, 'tidemark repository key list main');
}

function registerAdd(key: Command): void {
  const add = key
    .command('add')
    .description('one more passphrase or key file that opens it; the one in site.yaml has to open it already')
    .argument('<repository>')
    .option('--passphrase-file <file>', 'the new passphrase; one line end after it does not count')
    .option('--key-file <file>', 'the new key file')
    .option('--passphrase-environment <name>', 'the variable that has the new passphrase');
  withCommon(add, 'the new slot').action(
    runCommand(async (name: string, options: AddKeyOptions) => (await load()).addKeyTo(name, options)),
  );
  example(add, 'tidemark repository key add main --key-file /etc/tidemark/main.key');
}

function registerRemove(key: Command): void {
  const remove = key
    .command('remove')
    .description('the passphrase or key file of a slot opens it no more, but for older copies of repository.json')
    .argument('<repository>')
    .argument('<slot>', 'id of the slot, from `key list`');
  withCommon(remove, 'the id of the slot').action(
    runCommand(async (name: string, slot: string, options: KeyOptions) =>
      (await load()).removeKeyFrom(name, slot, options),
    ),
  );
  example(remove, 'tidemark repository key remove main 5c1e9a40');
}

function registerRotate(key: Command): void {
  const rotate = key
    .command('rotate')
    .description('a new data key for what is written from the next backup on; nothing is written anew')
    .argument('<repository>');
  withCommon(rotate, 'the new data key').action(
    runCommand(async (name: string, options: KeyOptions) => (await load()).rotateKeyOf(name, options)),
  );
  example(rotate, 'tidemark repository key rotate main');
}

function registerNewFile(key: Command): void {
  const newFile = key
    .command('new-file')
    .description('make a key file: one line of text that can be printed and typed in again')
    .argument('<file>', 'a file that does not exist yet')
    .option('--json', 'print the file as JSON');
  newFile.action(
    runCommand(async (file: string, options: { json?: boolean }) => (await load()).makeKeyFile(file, options)),
  );
  example(newFile, 'tidemark repository key new-file /etc/tidemark/main.key');
}
