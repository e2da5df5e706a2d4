/** Registered with the namespace, all Keyword (the development server allows ten of a type). */
export const searchAttributes = [
  'TidemarkJob',
  'TidemarkVm',
  'TidemarkState',
  'TidemarkResult',
  'TidemarkRepository',
  'TidemarkRunKey',
];
