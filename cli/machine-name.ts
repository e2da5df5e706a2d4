/** A computer's name as a machine's: what is not allowed in one becomes "-". */
export function machineNameOf(host: string): string {
  const name = host
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .slice(0, 32)
    .replaceAll(/^-+|-+$/g, '');
  return name === '' ? 'localhost' : name;
}
