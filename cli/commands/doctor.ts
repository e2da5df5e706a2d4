/** `tidemark doctor`: looks at everything a stack needs, and says what to do where something is wrong. */
import type { Command } from 'commander';
import { probePort } from '../../engines/stack/ports.ts';
import type { Finding } from '../doctor-checks.ts';
import { example } from '../command-options.ts';
import { exitCodes } from '../exit-codes.ts';
import { printJson, runCommand } from '../run-command.ts';
import { layoutOf, STATE_OPTION } from '../stack-access.ts';

type DoctorOptions = { state?: string; json?: boolean };

function show(finding: Finding): void {
  console.log(`${finding.ok ? 'ok     ' : 'PROBLEM'}  ${finding.check}: ${finding.message}`);
  if (finding.hint !== null) console.log(`         hint: ${finding.hint}`);
}

/** 0 when all is well, 1 when there is a problem. */
async function doctor(options: DoctorOptions): Promise<number> {
  // Loaded here: the database driver and Temporal's client would slow down every other command.
  const { checkFolder, checkPorts, checkStack, checkTools } = await import('../doctor-checks.ts');
  const layout = layoutOf(options.state);
  const folder = [...(await checkFolder(layout)), ...(await checkPorts(layout, probePort))];
  const findings = [...checkTools(), ...folder, ...(await checkStack(layout))];
  const problems = findings.filter((finding) => !finding.ok).length;
  if (options.json) printJson({ findings, problems });
  else findings.forEach(show);
  if (!options.json) console.log(problems === 0 ? '\nno problems' : `\n${problems} problems`);
  return problems === 0 ? exitCodes.ok : exitCodes.failed;
}

export function register(program: Command): void {
  const command = program
    .command('doctor')
    .description('check tools, folders, ports, the catalog and Temporal')
    .option(...STATE_OPTION)
    .option('--json', 'print the findings as JSON')
    .action(runCommand(doctor));
  example(command, 'tidemark doctor');
}
