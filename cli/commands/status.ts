/** `tidemark status`: what runs, since when, and how often it died. */
import type { Command } from 'commander';
import { runningChildren, readStackFile, type ChildStatus, type StackFile } from '../../engines/stack/stack-file.ts';
import { example } from '../command-options.ts';
import { exitCodes } from '../exit-codes.ts';
import { formatDuration, formatTime, renderTable } from '../output/table.ts';
import { printJson, runCommand } from '../run-command.ts';
import { layoutOf, runningStack, STATE_OPTION } from '../stack-access.ts';

type StatusOptions = { state?: string; json?: boolean };

const ageOf = (child: ChildStatus): string => formatDuration(Math.max(0, Date.now() - Date.parse(child.since)));

function show(stack: StackFile, folder: string): void {
  const columns = [
    { title: 'PROCESS', of: (child: ChildStatus) => child.name },
    { title: 'STATE', of: (child: ChildStatus) => child.state },
    { title: 'FOR', of: ageOf },
    { title: 'PID', of: (child: ChildStatus) => String(child.pid ?? '-'), right: true },
    { title: 'RESTARTS', of: (child: ChildStatus) => String(child.restarts), right: true },
    { title: 'LAST EXIT', of: (child: ChildStatus) => child.lastExit ?? '-' },
  ];
  console.log(`stack ${stack.state}, pid ${stack.pid}, since ${formatTime(stack.startedAt)}, state in ${folder}`);
  console.log(`Temporal UI: ${stack.temporal.uiUrl}`);
  const { codecUrl } = stack.temporal;
  console.log(codecUrl === null ? '' : `payload codec: ${codecUrl} (temporal --codec-endpoint)\n`);
  console.log(renderTable(stack.children, columns));
}

/** 0 when all are ready, 3 when some are not, 4 when nothing runs. */
async function status(options: StatusOptions): Promise<number> {
  const layout = layoutOf(options.state);
  const known = readStackFile(layout.stackFile);
  const left = known === null ? [] : runningChildren(known);
  try {
    const stack = runningStack(layout);
    if (options.json) printJson(stack);
    else show(stack, layout.folder);
    return stack.children.every((child) => child.state === 'ready') ? exitCodes.ok : exitCodes.warning;
  } catch (error) {
    if (left.length > 0 && !options.json) {
      const names = left.map(({ name, pid }) => `${name} (pid ${pid})`).join(', ');
      console.error(`warning: the supervisor was killed and left running: ${names}; \`tidemark down\` ends them`);
    }
    throw error;
  }
}

export function register(program: Command): void {
  const command = program
    .command('status')
    .description('show what runs')
    .option(...STATE_OPTION)
    .option('--json', 'print it as JSON')
    .action(runCommand(status));
  example(command, 'tidemark status');
}
